"""How often a verdict is right, over many simulated ones: 10,000 test images, five seeds, three candidates.

docs/verdict.md has the same rates from more repeats.
"""

import numpy as np
import pytest
from simulated_verdicts import NUM_IMAGES, World

from harness.analysis.verdict_statistics import ALPHA, Signs, labels

NUM_REPEATS = 500
NUM_SEEDS = 5

# Seeds of one configuration lie 0.08, 0.09 and 0.10 points apart in these (standard deviations).
WORLDS = [World(0.8), World(1.2), World(1.6)]
ids = [f"{world.error_pct} %" for world in WORLDS]


def signs(world: World, gains: tuple[float, ...], num_seeds: int = NUM_SEEDS, **how: tuple[float, ...]) -> Signs:
    """(repeat, candidate): -1 better, 1 worse, 0 neither."""
    rng = np.random.default_rng(7)
    return labels(world.trainings(NUM_REPEATS, num_seeds, gains, rng, **how), NUM_IMAGES).sign


@pytest.mark.parametrize("world", WORLDS, ids=ids)
def test_seeds_lie_as_far_apart_as_real_ones(world: World) -> None:
    wrong = world.trainings(NUM_REPEATS, NUM_SEEDS, (0.0,), np.random.default_rng(1))
    errors_pct = 100 * wrong.sum(-1) / NUM_IMAGES
    assert errors_pct.mean() == pytest.approx(world.error_pct, abs=0.02)
    assert 0.05 < np.sqrt(errors_pct.var(-1, ddof=1).mean()) < 0.105
    same_image = np.corrcoef(wrong[0, 0, 0], wrong[0, 1, 0])[0, 1]
    assert same_image > 0.2, "different networks find the same images hard"


@pytest.mark.parametrize("world", WORLDS, ids=ids)
def test_a_tie_is_not_distinguishable(world: World) -> None:
    assert (signs(world, (0.0, 0.0, 0.0)) != 0).any(-1).mean() <= ALPHA


@pytest.mark.parametrize("world", WORLDS, ids=ids)
def test_a_gain_of_three_tenths_of_a_point_is_found(world: World) -> None:
    found = signs(world, (0.3, 0.0, 0.0))
    assert (found[:, 0] == -1).mean() >= 0.9
    assert (found[:, 1:] != 0).any(-1).mean() <= ALPHA


def test_a_loss_is_found_as_well() -> None:
    assert (signs(World(1.0), (-0.3, -0.3, -0.3)) == 1).all(-1).mean() >= 0.7


def test_looking_again_and_again_finds_nothing_in_a_tie() -> None:
    assert (signs(World(1.2), (0.0, 0.0, 0.0), num_seeds=20) != 0).any(-1).mean() <= ALPHA


def test_luck_in_the_study_is_not_called_better() -> None:
    """Forty networks of the same quality: the best three on the validation images look good, and are not better."""
    world, rng = World(1.2), np.random.default_rng(11)
    num_networks, num_repeats = 40, 300
    validation = world.trainings(num_repeats, 1, (0.0,) * num_networks, rng).sum((-2, -1)) * 100 / NUM_IMAGES
    flattery = validation[:, :1] - np.sort(validation[:, 1:])[:, :3]
    assert flattery.mean() > 0.15, "so much better do the three look"
    # The test images are others, and what was luck on the validation images is not passed on to them.
    found = labels(world.trainings(num_repeats, NUM_SEEDS, (0.0,) * 3, rng), NUM_IMAGES).sign
    assert (found == -1).any(-1).mean() <= ALPHA


@pytest.mark.parametrize("unstable", [0, 1])
def test_a_configuration_of_uncertain_temper_is_rarely_mistaken(unstable: int) -> None:
    """Its seeds lie two and a half times as far apart as the others'."""
    sds = tuple(0.25 if position == unstable else 0.0 for position in range(4))
    found = signs(World(1.2), (0.0, 0.0, 0.0), seed_sds=sds)
    assert (found == -1).any(-1).mean() <= ALPHA
