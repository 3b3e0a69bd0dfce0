"""Hyperparameter importance by Optuna's fANOVA, and the error by two hyperparameters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import NamedTuple, TypeVar

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from harness.analysis.export.optuna_storage import value_distribution
from harness.analysis.report.facts import Facts, time_s
from harness.study.comparability import error_pct
from harness.study.records import Params, Record, Scalar
from harness.study.space import Choice, Domain
from harness.study.spec import SweepSpec

Floats = NDArray[np.float64]
T = TypeVar("T")

MIN_TRIALS = 10
MAX_TRIALS = 150  # the time that fANOVA takes grows with their square: 29 s for 1,000
NUM_RESAMPLES = 20
NUM_TREES = 32  # of the forest of a resample; the mean over resamples is over 20 times as many
TAIL = 0.1  # of the resamples, outside either end of an interval
MAX_SURFACES = 3
GRID = 32  # points per edge of a surface
FAR = 0.2  # of an edge


class Share(NamedTuple):
    """A share of the differences, 0 to 1, with its 80 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Importance:
    """The share of the variance between configurations that each hyperparameter explains.

    Attributes:
        of_error: Shares by name, the largest first; their means sum to 1.
        of_time: The same for the training time; empty if the study has one objective.
        num_configurations: Number of used configurations.
        left_out: Hyperparameters that some configurations lack, or that did not vary.
    """

    of_error: dict[str, Share]
    of_time: dict[str, Share]
    num_configurations: int
    left_out: tuple[str, ...]

    @property
    def is_first_clear(self) -> bool:
        """Whether the interval of the largest share lies above those of all others."""
        first, *others = self.of_error.values()
        return all(first.low > other.high for other in others)


def num_needed(spec: SweepSpec) -> int:
    """Minimum number of searched configurations for importances."""
    return max(MIN_TRIALS, 2 * len(spec.space))


def importance(facts: Facts) -> Importance | None:
    """Computes importances; None if too few configurations were trained in full, or they do not differ.

    Functional analysis of variance on a random forest: F. Hutter, H. Hoos and K. Leyton-Brown, "An Efficient Approach
    for Assessing Hyperparameter Importance", ICML 2014. Means and intervals (percentiles) are over resamples of the
    configurations with replacement, each with its own forest: B. Efron, Annals of Statistics 7 (1979) 1-26. The same
    trials give the same shares.
    """
    spec, searched = facts.spec, facts.configurations.searched
    if len(searched) < num_needed(spec):
        return None
    known = thinned([*([facts.baseline] if facts.baseline else []), *searched], MAX_TRIALS)
    params = [one.params for one in known]
    of_error = _shares(spec, params, [one.mean_error_pct for one in known])
    if not of_error:
        return None
    times_s = [fmean(map(time_s, one.records)) for one in known]
    of_time = _shares(spec, params, times_s) if len(spec.objective) > 1 else {}
    left_out = tuple(name for name in spec.space if name not in of_error)
    return Importance(of_error, of_time, len(known), left_out)


def thinned(items: Sequence[T], number: int) -> list[T]:
    """At most this number of items, evenly spread."""
    if len(items) <= number:
        return list(items)
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, number)]


def _shares(spec: SweepSpec, params: Sequence[Params], values: Sequence[float]) -> dict[str, Share]:
    names, rng, rows = list(_fanova(spec, params, values, seed=0)), np.random.default_rng(0), []
    for seed in range(NUM_RESAMPLES):
        places = rng.integers(0, len(values), len(values)).tolist()
        found = _fanova(spec, [params[place] for place in places], [values[place] for place in places], seed)
        if found:
            rows.append([found.get(name, 0.0) for name in names])  # none that did not vary in this resample
    if not rows:
        return {}
    low, high = np.quantile(rows, [TAIL, 1 - TAIL], axis=0)
    means = np.mean(rows, axis=0)
    shares = {name: Share(*map(float, share)) for name, *share in zip(names, means, low, high, strict=True)}
    return dict(sorted(shares.items(), key=lambda pair: -pair[1].mean))


def _fanova(spec: SweepSpec, params: Sequence[Params], values: Sequence[float], seed: int) -> dict[str, float]:
    """Shares by hyperparameter; empty if the values do not differ."""
    domains = spec.search_space.domains
    if len(set(values)) < 2:
        return {}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        for setting, value in zip(params, values, strict=True):
            known = {name: value_distribution(domains[name]) for name in setting}
            study.add_trial(create_trial(value=value, params=dict(setting), distributions=known))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for a hyperparameter that did not vary, for a forest without variance
            shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(n_trees=NUM_TREES, seed=seed))
    finally:
        optuna.logging.set_verbosity(verbosity)
    return {name: float(share) for name, share in shares.items() if math.isfinite(share)}


@dataclass(frozen=True)
class Surface:
    """Error by two hyperparameters: `error_pct` (of y, of x) at positions from 0 to 1, which are `edge` (GRID,).

    It is NaN further than `FAR` from each trial, where there is nothing to go by.
    """

    x: str
    y: str
    edge: Floats
    error_pct: Floats


def surfaces(facts: Facts, importance: Importance) -> list[Surface]:
    """Surfaces of the most important pairs, among hyperparameters with ordered values."""
    domains = facts.spec.search_space.domains
    ordered = [name for name in importance.of_error if has_order(domains[name])]
    pairs = sorted(
        combinations(ordered, 2),
        key=lambda pair: -importance.of_error[pair[0]].mean * importance.of_error[pair[1]].mean,
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
        places = np.column_stack([across.ravel(), up.ravel()])
        nearest = np.linalg.norm(places[:, None, :] - points[None, :, :], axis=2).min(axis=1)
        error = np.where(nearest <= FAR, model.predict(places), np.nan).reshape(GRID, GRID)
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
