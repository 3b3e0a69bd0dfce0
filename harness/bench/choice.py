"""Compares numbers by which the best of many configurations can be chosen after one training of each.

Random configurations of a sweep are trained with several seeds, to their end and in a real study. Then the choice is
replayed: of some configurations, one training each is known, and the one with the lowest number is chosen. The measure
is the mean error of the chosen one with the seeds that no rule has seen. All errors are on the same images, so the part
of the noise that comes from these images is in every number. The studies are in the folder of results, so an
interrupted comparison continues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.analysis.files import write_csv
from harness.bench.results import write_json
from harness.bench.studies import all_trained
from harness.errors import TroubleError
from harness.planning.plan import typical_params
from harness.search.finalists import seed_noise
from harness.study.comparability import Configuration, Configurations
from harness.study.settings import Budget, Flags
from harness.study.spec import SweepSpec
from harness.study.sweep_file import load_sweep
from harness.support.home import sweeps_folder

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

SWEEPS = ("fc-recipe",)
NUM_CONFIGURATIONS, NUM_CONFIGURATIONS_QUICK = 48, 12
IMAGES, EPOCHS = 10_000, 6
IMAGES_QUICK, EPOCHS_QUICK = 1_000, 3
NUM_SEEDS = 4  # one or two that a rule sees; the others give the truth
NUM_SEEN = 2
NUM_DRAWS = 4_000
BEST = "best half"  # a search proposes many of these

ERROR, SOFT, ENTROPY = "error", "soft error", "cross-entropy"
LINE, TWO = "error and line", "error of two seeds"
KNOWN = "lowest of the unseen"  # no rule: what could be gained
MIN_VARIANCE = 1e-6  # of a configuration without errors, percentage points squared


@dataclass(frozen=True)
class Trained:
    """Configurations trained with each seed: arrays (configurations, seeds), errors in percent."""

    error_pct: Floats
    soft_error_pct: Floats
    cross_entropy: Floats
    noise: float  # variance between seeds, as a share of the error


def run(out_dir: Path, repeats: int | None = None, quick: bool = False) -> pd.DataFrame:
    """Trains and replays; writes choice.json and .csv into `out_dir`, and the studies into a folder there.

    Args:
        out_dir: Created if missing.
        repeats: Number of draws; None: 4,000.
        quick: Few configurations, images and epochs: within five minutes on two cores.

    Returns:
        The table of choice.csv: see `table`.

    Raises:
        TroubleError: a study was interrupted.
    """
    import pandas as pd

    home = out_dir / ("choice-quick" if quick else "choice")
    trained = {name: _trained(_study(name, quick=quick), home) for name in SWEEPS}
    frame = pd.concat([table(name, one, repeats or NUM_DRAWS) for name, one in trained.items()], ignore_index=True)
    write_csv(frame, out_dir / "choice.csv")
    errors = {name: one.error_pct.tolist() for name, one in trained.items()}
    write_json(out_dir / "choice.json", ("keras", "optuna"), {"error_pct": errors})
    return frame


def table(name: str, trained: Trained, num_draws: int) -> pd.DataFrame:
    """One row per rule and kind of pool, for the configurations of one sweep.

    Columns: sweep; pool, from which configurations are drawn ("all", or the best half by mean error); drawn, the number
    of configurations in a draw; rule; chosen_pct, the mean error of what it chooses; gain_points, by which this is
    lower than with the error; possible_points, the same if the mean of the unseen seeds, noisy too, were known.
    """
    import pandas as pd

    every = np.arange(len(trained.error_pct))
    best = np.argsort(trained.error_pct.mean(1))[: len(every) // 2]
    rows: list[dict[str, object]] = []
    for pool_name, pool in (("all", every), (BEST, best)):
        num_drawn = max(2, 2 * len(pool) // 3)
        chosen = _chosen(trained, pool, num_drawn, num_draws)
        rows += [
            {
                "sweep": name,
                "pool": pool_name,
                "drawn": num_drawn,
                "rule": rule,
                "chosen_pct": round(error_pct, 3),
                "gain_points": round(chosen[ERROR] - error_pct, 3),
                "possible_points": round(chosen[ERROR] - chosen[KNOWN], 3),
            }
            for rule, error_pct in chosen.items()
            if rule != KNOWN
        ]
    return pd.DataFrame(rows)


def error_and_line(error_pct: Floats, soft_error_pct: Floats, noise: float) -> Floats:
    """Errors shrunk towards a line fitted from the soft error to the error, percent; shape (n,).

    The empirical best linear unbiased predictor of R. E. Fay and R. A. Herriot, Journal of the American Statistical
    Association 74 (1979) 269-277: the weight of an error is tau2 / (tau2 + its variance), where tau2 is the variance of
    the true errors around the line, found by their equation of moments.

    Args:
        error_pct: Errors of one training of each configuration, percent.
        soft_error_pct: Calibrated soft errors of the same trainings, percent.
        noise: Variance of an error between seeds, as a share of the error, percent.
    """
    variance = np.maximum(noise * error_pct, MIN_VARIANCE)
    low, high = 0.0, float(np.var(error_pct)) + 1.0
    for _ in range(60):
        tau2 = (low + high) / 2
        line = _line(soft_error_pct, error_pct, tau2 + variance)
        is_too_low = ((error_pct - line) ** 2 / (tau2 + variance)).sum() > len(error_pct) - 2
        low, high = (tau2, high) if is_too_low else (low, tau2)
    weight = tau2 / (tau2 + variance)
    return weight * error_pct + (1 - weight) * line


RULES: dict[str, Callable[[Trained, NDArray[np.intp], Sequence[int]], Floats]] = {
    ERROR: lambda one, which, seeds: one.error_pct[which, seeds[0]],
    SOFT: lambda one, which, seeds: one.soft_error_pct[which, seeds[0]],
    ENTROPY: lambda one, which, seeds: one.cross_entropy[which, seeds[0]],
    LINE: lambda one, which, seeds: error_and_line(
        one.error_pct[which, seeds[0]], one.soft_error_pct[which, seeds[0]], one.noise
    ),
    TWO: lambda one, which, seeds: one.error_pct[which][:, list(seeds[:NUM_SEEN])].mean(1),
}


def _chosen(trained: Trained, pool: NDArray[np.intp], num_drawn: int, num_draws: int) -> dict[str, float]:
    """The mean error of what each rule chooses, over the same draws of configurations and seeds, percent."""
    rng, sums = np.random.default_rng(0), dict.fromkeys([*RULES, KNOWN], 0.0)
    for _ in range(num_draws):
        which, seeds = rng.choice(pool, num_drawn, replace=False), rng.permutation(trained.error_pct.shape[1]).tolist()
        unseen_pct = trained.error_pct[which][:, seeds[NUM_SEEN:]].mean(1)
        for rule, number in RULES.items():
            sums[rule] += float(unseen_pct[np.argmin(number(trained, which, seeds))])
        sums[KNOWN] += float(unseen_pct.min())
    return {rule: total / num_draws for rule, total in sums.items()}


def _line(x: Floats, y: Floats, variance: Floats) -> Floats:
    """Values at `x` of the straight line fitted to (x, y) with these variances."""
    root = 1 / np.sqrt(variance)
    columns = np.stack([np.ones_like(x), x], 1)
    coefficients, *_ = np.linalg.lstsq(columns * root[:, None], y * root, rcond=None)
    values: Floats = columns @ coefficients
    return values


def _study(name: str, *, quick: bool) -> SweepSpec:
    """Random configurations of a sweep, each with several seeds, without pruning."""
    flags = Flags(sampler="random", pruner="none", study=f"{name}-seeds", seed=0)
    spec = load_sweep(sweeps_folder() / f"{name}.toml", flags, "quick")
    num = NUM_CONFIGURATIONS_QUICK if quick else NUM_CONFIGURATIONS
    drawn = typical_params(spec)[:num]
    return spec.changed(
        prior="none",
        train_images=IMAGES_QUICK if quick else IMAGES,
        epochs=EPOCHS_QUICK if quick else EPOCHS,
        baseline_seeds=1,
        enqueue=tuple(dict(params) for _ in range(NUM_SEEDS) for params in drawn),
        budget=Budget(trials=num * NUM_SEEDS),
    )


def _trained(spec: SweepSpec, home: Path) -> Trained:
    """Trains what is left to train; configurations that were not trained to the end with each seed are left out."""
    found = Configurations(spec, all_trained(spec, home))
    whole = [one for one in found.searched if one.num_seeds == NUM_SEEDS]
    if len(whole) < len(spec.enqueue) // NUM_SEEDS / 2:
        raise TroubleError(f"{spec.study} has {len(whole)} configurations trained with each seed; that is too few")
    return Trained(
        np.array([one.errors_pct for one in whole]),
        np.array([_numbers(one, "soft_error_pct") for one in whole]),
        np.array([_numbers(one, "cross_entropy") for one in whole]),
        seed_noise(whole),
    )


def _numbers(one: Configuration, name: str) -> list[float]:
    return [float(getattr(record.result, name)) for record in one.one_per_seed]
