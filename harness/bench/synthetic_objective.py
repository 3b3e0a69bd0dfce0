"""A known function shaped like our problem: the error of a CNN around the documented one, without training it.

It is no model of MNIST. It has what makes the real search hard, in about the real proportions: a wide flat bottom near
the documented network, returns that diminish with every filter, an optimum inside the range for kernels and dense
units, filters that should grow from layer to layer, seeds that lie a tenth of a point apart, and early epochs that say
little. Its scale follows what 8,000 images and 5 epochs gave on the real thing: 1.8 percent for the documented network,
about 2.6 for 16-16-5-3-512.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator

from harness.search.constraints import broken_limit
from harness.study.records import EpochReport, Params, Seconds, Trial
from harness.study.settings import Budget, Constraints
from harness.study.spec import SweepSpec

EPOCHS = 5
NOISE_PCT = 0.07  # standard deviation between seeds

# The space and the limit of sweeps/cnn.toml, with kernels as numbers, so that every sampler can take part.
SPACE = {
    "filters_1": {"low": 8, "high": 64, "step": 8},
    "filters_2": {"low": 16, "high": 128, "step": 16},
    "kernel_1": {"low": 3, "high": 7, "step": 2},
    "kernel_2": {"low": 3, "high": 7, "step": 2},
    "dense_units": {"low": 64, "high": 2048, "log": True},
}
CONSTRAINTS = Constraints(max_mflops_per_image=56.0)


def make_spec(engine: str, sampler: str, pruner: str, seed: int) -> SweepSpec:
    """A study on the landscape."""
    settings = {
        "study": "landscape",
        "baseline": "cnn",
        "engine": engine,
        "sampler": sampler,
        "pruner": pruner,
        "seed": seed,
        "recipe": {},
        "space": SPACE,
        "constraints": CONSTRAINTS,
        "profile": "landscape",
        "epochs": EPOCHS,
        "train_images": 1,
        "validation_images": 1,
        "baseline_seeds": 1,
        "budget": Budget(trials=0),
    }
    return SweepSpec.model_validate(settings, strict=False)


def error_pct(params: Params) -> float:
    """The error after the last epoch, in percent, free of noise."""
    filters_1, filters_2 = float(params["filters_1"]), float(params["filters_2"])
    few_filters = math.exp(-filters_1 / 14) + math.exp(-filters_2 / 24)
    kernels = 0.10 * ((float(params["kernel_1"]) - 5) / 2) ** 2 + 0.14 * ((float(params["kernel_2"]) - 5) / 2) ** 2
    dense = 0.09 * math.log2(float(params["dense_units"]) / 900) ** 2
    taper = 0.05 * math.log2(filters_2 / (2 * filters_1)) ** 2
    return 1.62 + few_filters + kernels + dense + taper


def report(trial: Trial, epoch: int) -> EpochReport:
    """An epoch of a trial: its error comes down to `error_pct`, and which is better shows late."""
    chance = random.Random(hashlib.sha256(f"{sorted(trial.params.items())}".encode()).digest())  # noqa: S311
    slow_start = chance.gauss(0, 0.4)
    noise = random.Random(f"{sorted(trial.params.items())}/{trial.seed}").gauss(0, NOISE_PCT)  # noqa: S311
    left = 1 - epoch / EPOCHS
    error = error_pct(trial.params) + noise + 2.5 * left**2 + slow_start * left
    return EpochReport(epoch, 0.0, 0.0, error, 1, Seconds(train=1.0))


def best_error_pct() -> float:
    """The least error within the limit, by trying every point, dense units by 32 magnitudes."""
    return min(error_pct(params) for params in _points())


def _points() -> Iterator[Params]:
    spec = make_spec("optuna", "random", "none", 0)
    domain = spec.search_space.domains["dense_units"]
    low, high = float(domain.low), float(domain.high)  # type: ignore[union-attr]
    magnitudes = [round(low * (high / low) ** (i / 31)) for i in range(32)]
    grid = make_spec("optuna", "random", "none", 0).search_space
    fixed = type(grid)({name: domain for name, domain in grid.domains.items() if name != "dense_units"})
    for point in fixed.grid():
        for units in magnitudes:
            params = {**point, "dense_units": units}
            if broken_limit(spec, params) is None:
                yield params
