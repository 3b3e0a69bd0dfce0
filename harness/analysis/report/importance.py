"""Hyperparameter importance by Optuna's fANOVA, and the error by two hyperparameters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from harness.analysis.export.optuna_storage import value_distribution
from harness.analysis.report.facts import Facts
from harness.study.comparability import error_pct
from harness.study.records import Record, Scalar
from harness.study.space import Choice, Domain
from harness.study.spec import SweepSpec

Floats = NDArray[np.float64]

MIN_TRIALS = 10
MAX_TRIALS = 250  # the time that fANOVA takes grows with their square: 29 s for 1,000
MAX_SURFACES = 3
GRID = 32  # points per edge of a surface


@dataclass(frozen=True)
class Importance:
    """The share of the variance between trials that each hyperparameter explains.

    Attributes:
        of_error: Shares by name, the largest first; they sum to 1.
        of_time: The same for the training time; empty if the study has one objective.
        num_trials: Number of used trials.
        left_out: Hyperparameters that some trials lack, or that did not vary.
    """

    of_error: dict[str, float]
    of_time: dict[str, float]
    num_trials: int
    left_out: tuple[str, ...]


def num_needed(spec: SweepSpec) -> int:
    """Minimum number of trials for importances."""
    return max(MIN_TRIALS, 2 * len(spec.space))


def importance(facts: Facts) -> Importance | None:
    """Computes importances; None if too few trials were trained in full, or they do not differ.

    Functional analysis of variance on a random forest: F. Hutter, H. Hoos and K. Leyton-Brown, "An Efficient Approach
    for Assessing Hyperparameter Importance", ICML 2014. The same trials give the same shares.
    """
    spec = facts.spec
    records = thinned([*facts.baselines[:1], *facts.searched], MAX_TRIALS)
    if len(facts.searched) < num_needed(spec):
        return None
    of_error = _shares(spec, records, error_pct)
    if not of_error:
        return None
    of_time = _shares(spec, records, facts.time_s) if len(spec.objective) > 1 else {}
    left_out = tuple(name for name in spec.space if name not in of_error)
    return Importance(of_error, of_time, len(records), left_out)


def thinned(records: Sequence[Record], number: int) -> list[Record]:
    """At most this number of items, evenly spread."""
    if len(records) <= number:
        return list(records)
    return [records[round(place)] for place in np.linspace(0, len(records) - 1, number)]


def _shares(spec: SweepSpec, records: Sequence[Record], target: Callable[[Record], float]) -> dict[str, float]:
    domains = spec.search_space.domains
    if len({target(record) for record in records}) < 2:
        return {}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        for record in records:
            known = {name: value_distribution(domains[name]) for name in record.trial.params}
            study.add_trial(create_trial(value=target(record), params=dict(record.trial.params), distributions=known))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for a hyperparameter that did not vary, for a forest without variance
            shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    finally:
        optuna.logging.set_verbosity(verbosity)
    return {name: float(share) for name, share in shares.items() if math.isfinite(share)}


@dataclass(frozen=True)
class Surface:
    """Error by two hyperparameters: `error_pct` (of y, of x) at positions from 0 to 1, which are `edge` (GRID,)."""

    x: str
    y: str
    edge: Floats
    error_pct: Floats


def surfaces(facts: Facts, importance: Importance) -> list[Surface]:
    """Surfaces of the most important pairs, among hyperparameters with ordered values."""
    domains = facts.spec.search_space.domains
    ordered = [name for name in importance.of_error if has_order(domains[name])]
    pairs = sorted(
        combinations(ordered, 2), key=lambda pair: -importance.of_error[pair[0]] * importance.of_error[pair[1]]
    )
    records = thinned([*facts.baselines[:1], *facts.searched], MAX_TRIALS)
    return [_surface(facts.spec, records, x, y) for x, y in pairs[:MAX_SURFACES]]


def _surface(spec: SweepSpec, records: Sequence[Record], x: str, y: str) -> Surface:
    """The mean of a Gaussian process on these two; the effect of all others counts as noise."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    domains = spec.search_space.domains
    points = np.array([[position(domains[name], record.trial.params[name]) for name in (x, y)] for record in records])
    errors = np.array([error_pct(record) for record in records])
    capped = np.minimum(errors, _upper_fence(errors))  # one network that learned nothing would distort the surface
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * RBF([0.5, 0.5], (0.15, 5.0)) + WhiteKernel(0.3, (1e-3, 1e1))
    model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    edge = np.linspace(0.0, 1.0, GRID)
    across, up = np.meshgrid(edge, edge)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length scale at its limit means a flat surface
        model.fit(points, capped)
        error = model.predict(np.column_stack([across.ravel(), up.ravel()])).reshape(GRID, GRID)
    return Surface(x, y, edge, error)


def _upper_fence(errors: Floats) -> float:
    """The limit of outliers: J. W. Tukey, "Exploratory Data Analysis" (1977), the far fence of a box plot."""
    low, high = np.quantile(errors, [0.25, 0.75])
    return float(high + 3 * (high - low))


def has_order(domain: Domain) -> bool:
    """Whether a domain has several ordered values: a range, or a choice of ascending numbers."""
    if isinstance(domain, Choice):
        options = [one for one in domain.options if isinstance(one, int | float) and not isinstance(one, bool)]
        return len(options) == len(domain.options) > 1 and options == sorted(options)
    return domain.low < domain.high


def position(domain: Domain, value: Scalar) -> float:
    """Position of a value in an ordered domain, from 0 to 1; logarithmic for a logarithmic range."""
    if isinstance(domain, Choice):
        return domain.options.index(value) / (len(domain.options) - 1)
    number = float(value)
    if domain.log:
        return math.log(number / domain.low) / math.log(domain.high / domain.low)
    return (number - domain.low) / (domain.high - domain.low)
