"""Which test images many trainings get wrong, without training: the cheap repeats on which a verdict is measured.

`python tests/simulated_verdicts.py` prints the tables of docs/verdict.md, in an hour on one core.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from harness.analysis.verdict.statistics import Floats, Signs, labels

NUM_IMAGES = 10_000
NUM_HARD = 800  # images that are ever got wrong
IMAGE_SD = 1.6  # of an image: some are hard for every network, which makes errors of different networks go together
TASTE_SD = 0.5  # of an image for one configuration: what one network finds hard, another may not
AT_ONCE = 100  # verdicts


@dataclass(frozen=True)
class Arm:
    """A configuration.

    Attributes:
        gain: Percentage points by which its mean error, over all seeds and images, is less than the world's.
        spread: How many times as far apart its seeds lie as those of the others.
        bad_share: Of its seeds; the others are as much better as makes up for these in the mean.
        bad_points: By which such a seed is worse than the others.
    """

    gain: float = 0.0
    spread: float = 1.0
    bad_share: float = 0.0
    bad_points: float = 0.0


PLAIN = Arm()


@dataclass(frozen=True)
class World:
    """How errors come about.

    The log odds that a training gets a hard image wrong are a sum of normal effects, of the image and of the image for
    one configuration, around a centre that gives the training its true error. True errors of a configuration's seeds
    are log-normal: skewed, since none is below zero.

    Attributes:
        error_pct: Mean error, percent.
        own_sd: Standard deviation between the true errors of seeds, points; what is counted on so many images lies
            further apart.
    """

    error_pct: float
    own_sd: float = 0.025

    def trainings(
        self, num_repeats: int, num_seeds: int, arms: Sequence[Arm], rng: np.random.Generator
    ) -> NDArray[np.bool_]:
        """Wrong images (repeat, configuration, training, image): the baseline, then candidates."""
        errors_pct = np.stack([self._errors_pct(arm, (num_repeats, num_seeds), rng) for arm in arms], axis=1)
        centres = np.interp(errors_pct, *_centres()).astype(np.float32)
        shape = (num_repeats, len(arms), 1, NUM_HARD)
        images = rng.standard_normal((num_repeats, 1, 1, NUM_HARD), np.float32) * np.float32(IMAGE_SD)
        images = images + rng.standard_normal(shape, np.float32) * np.float32(TASTE_SD)
        logits = images + centres[..., None]
        wrong: NDArray[np.bool_] = rng.random(logits.shape, np.float32) < 1 / (1 + np.exp(-logits))
        return wrong

    @property
    def spread_pct(self) -> float:
        """Standard deviation of the errors of a plain arm's seeds, counted on the test images."""
        return float(np.hypot(self.own_sd, _luck_pct(self.error_pct)))

    def _errors_pct(self, arm: Arm, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
        """True errors of seeds."""
        mean = self.error_pct - arm.gain
        own_sd = np.sqrt((arm.spread * self.spread_pct) ** 2 - _luck_pct(self.error_pct) ** 2)
        log_sd = np.sqrt(np.log1p((own_sd / self.error_pct) ** 2))  # the same share of any mean
        bad = rng.random(shape) < arm.bad_share
        good = (mean - arm.bad_share * arm.bad_points) * np.exp(rng.normal(-(log_sd**2) / 2, log_sd, shape))
        return np.asarray(good + arm.bad_points * bad)


def verdicts(world: World, arms: Sequence[Arm], num_seeds: int = 5, num_repeats: int = 500, seed: int = 7) -> Signs:
    """(repeat, candidate): -1 better, 1 worse, 0 neither."""
    rng = np.random.default_rng(seed)
    parts = [min(AT_ONCE, num_repeats - start) for start in range(0, num_repeats, AT_ONCE)]
    return np.concatenate([labels(world.trainings(n, num_seeds, arms, rng), NUM_IMAGES).sign for n in parts])


@cache
def _centres() -> tuple[Floats, Floats]:
    """Mean errors in percent, and the centres of log odds that give them."""
    centres = np.linspace(-9, 4, 400)
    return 100 * NUM_HARD / NUM_IMAGES * _mean_over_images(_odds(centres)), centres


def _luck_pct(error_pct: float) -> float:
    """Standard deviation of the error of trainings whose true error this is: each image has luck of its own."""
    odds = _odds(np.array([np.interp(error_pct, *_centres())]))
    return float(100 * np.sqrt(NUM_HARD * _mean_over_images(odds * (1 - odds))[0]) / NUM_IMAGES)


def _odds(centres: Floats) -> Floats:
    """(centre, node)"""
    nodes, _ = np.polynomial.hermite_e.hermegauss(60)
    return np.asarray(1 / (1 + np.exp(-(centres[:, None] + np.hypot(IMAGE_SD, TASTE_SD) * nodes))))


def _mean_over_images(values: Floats) -> Floats:
    _, weights = np.polynomial.hermite_e.hermegauss(60)
    return np.asarray(values @ weights / weights.sum())


def tables(num_repeats: int) -> Iterator[str]:
    """The tables of docs/verdict.md, a row at a time."""
    for table in (_gains, _unequal, _bad_seeds):
        yield from table(num_repeats)
        yield ""


def _gains(num_repeats: int) -> Iterator[str]:
    yield "| baseline's error, spread between seeds | tie: a label | 0.3 better: BETTER | 0.2 better | 0.15 better |"
    yield "|---|---|---|---|---|"
    plain = [World(error_pct) for error_pct in (0.8, 1.2, 1.6)]
    wide = [World(1.2, own_sd=math.sqrt(spread**2 - _luck_pct(1.2) ** 2)) for spread in (0.12, 0.21)]
    for world, num_candidates, num_seeds in (
        *((world, 3, 5) for world in [*plain, *wide]),
        (World(1.2), 1, 5),
        (World(1.2), 3, 20),
    ):
        others = [PLAIN] * (num_candidates - 1)
        found = [verdicts(world, [PLAIN, Arm(gain), *others], num_seeds, num_repeats) for gain in (0.0, 0.3, 0.2, 0.15)]
        cells = [_share((found[0] != 0).any(-1)), *(_share(one[:, 0] == -1) for one in found[1:])]
        which = f"{world.error_pct} %, {world.spread_pct:.2f} points, {num_candidates} candidates, {num_seeds} seeds"
        yield f"| {which} | {' | '.join(cells)} |"


def _unequal(num_repeats: int) -> Iterator[str]:
    yield "| seeds lie apart | the baseline's, of 1 | of 3 | the candidate's, of 1 | one's of 3 | all three's |"
    yield "|---|---|---|---|---|---|"
    for spread in (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0):
        wide = Arm(spread=spread)
        rows = [[wide, PLAIN], [wide, *[PLAIN] * 3], [PLAIN, wide], [PLAIN, wide, PLAIN, PLAIN], [PLAIN, *[wide] * 3]]
        yield f"| {spread:g} times | {' | '.join(_wrong(arms, 5, num_repeats) for arms in rows)} |"
    for spread in (2.5, 5.0):
        wide = Arm(spread=spread)
        cells = [_wrong(arms, 20, num_repeats // 2) for arms in ([wide, *[PLAIN] * 3], [PLAIN, wide])]
        yield f"20 seeds, {spread:g} times: the baseline's of 3 {cells[0]}, the candidate's of 1 {cells[1]}"


def _wrong(arms: Sequence[Arm], num_seeds: int, num_repeats: int) -> str:
    found = verdicts(World(1.2), arms, num_seeds, num_repeats)
    return f"{_share((found != 0).any(-1))} ({_share((found == -1).any(-1))})"


def _bad_seeds(num_repeats: int) -> Iterator[str]:
    yield "| candidate with the baseline's mean | 5 seeds: BETTER (WORSE) | 8 | 12 | 20 |"
    yield "|---|---|---|---|---|"
    for share, points in ((0.1, 0.5), (0.1, 1.0), (0.05, 1.0), (0.05, 2.0)):
        arms = [PLAIN, Arm(bad_share=share, bad_points=points)]
        found = [verdicts(World(1.2), arms, num_seeds, num_repeats // 2)[:, 0] for num_seeds in (5, 8, 12, 20)]
        cells = [f"{_share(one == -1)} ({_share(one == 1)})" for one in found]
        yield f"| one seed in {1 / share:g} is {points:g} points worse | {' | '.join(cells)} |"


def _share(true: NDArray[np.bool_]) -> str:
    return f"{100 * true.mean():.1f} %"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5000)
    for line in tables(parser.parse_args().repeats):
        print(line, flush=True)
