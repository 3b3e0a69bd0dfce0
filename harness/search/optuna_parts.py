"""Conversions to Optuna: domains, samplers and pruners."""

from __future__ import annotations

import warnings
from bisect import insort
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count, takewhile

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from harness.search.optuna_private import Storage, next_bracket
from harness.search.settings import reduction_factor
from harness.study.space import Choice, Domain, Float
from harness.study.spec import SweepSpec
from harness.support.quantiles import quantile

# With Optuna's default of 50 a typical study would have only random draws.
NSGA2_POPULATION = 12


# Completed trials with values before any trial is stopped: Optuna's default.
NUM_STARTUP_TRIALS = 5

MANY = 100  # more new values than this are faster to sort than to insert one by one

# Pruners that store in each trial its error at the end of each rung.
HALVING = ("successive_halving", "hyperband")


class PercentilePruner(BasePruner):
    """Optuna's percentile pruner for a study on a `Storage`: the same rule, without reading every trial.

    A trial is stopped if its lowest reported value is above this percentile of the values that completed trials
    reported at the same step.

    Args:
        percentile: In percent.
        num_spared: Steps before any trial is stopped.
    """

    def __init__(self, percentile: float, num_spared: int) -> None:
        self._percentile, self._num_spared = percentile, num_spared
        self._num_known = 0  # completed trials, those without values included
        self._num_compared = 0
        self._values: dict[int, list[float]] = defaultdict(list)  # of completed trials, by step, ascending

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        self._learn(Storage.of(study).completed)
        step = trial.last_step
        if step is None or step < self._num_spared or self._num_compared < NUM_STARTUP_TRIALS or not self._values[step]:
            return False
        return min(trial.intermediate_values.values()) > quantile(self._values[step], self._percentile / 100)

    def _learn(self, completed: Sequence[FrozenTrial]) -> None:
        new = completed[self._num_known :]
        is_past = len(new) > MANY
        for trial in new:
            self._num_compared += bool(trial.intermediate_values)
            for step, value in trial.intermediate_values.items():
                (list.append if is_past else insort)(self._values[step], value)
        if is_past:
            for values in self._values.values():
                values.sort()
        self._num_known = len(completed)


def coded_distribution(domain: Domain) -> BaseDistribution:
    """Optuna's distribution for a domain, over the codes of `encoding`."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(tuple(range(len(domain.options))))
    if not isinstance(domain, Float):
        return IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
    if domain.step is not None:
        return IntDistribution(0, domain.num_steps)
    if domain.low == domain.high:  # without a step, the sampler of all configurations takes it for infinite
        return FloatDistribution(domain.low, domain.high, step=1.0)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def suggested(opened: optuna.Trial, name: str, distribution: BaseDistribution) -> int | float:
    """The sampler's value of one hyperparameter."""
    match distribution:
        case IntDistribution(low=low, high=high, log=log, step=step):
            return opened.suggest_int(name, low, high, step=step, log=log)
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return opened.suggest_float(name, low, high, step=step, log=log)
        case CategoricalDistribution(choices=choices):
            return opened.suggest_categorical(name, choices)  # type: ignore[return-value]
    raise TypeError(f"distribution is {distribution!r}; allowed: whole numbers, real numbers, categories")


class _TPESampler(optuna.samplers.TPESampler):
    """Gets the hyperparameters that all trials have, which Optuna's sampler finds by reading the trials each time."""

    def __init__(self, seed: int, known: Mapping[str, BaseDistribution]) -> None:
        super().__init__(seed=seed)
        self._known = known

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {name: one for name, one in sorted(self._known.items()) if not one.single()}


@contextmanager
def _experiments_allowed() -> Iterator[None]:
    """Silences warnings about parts that Optuna calls experimental: brute force, the patient pruner."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


@_experiments_allowed()
def new_sampler(spec: SweepSpec, seed: int) -> BaseSampler:
    """The study's sampler for one `ask`."""
    samplers = optuna.samplers
    match spec.sampler:
        case "random":
            return samplers.RandomSampler(seed=seed)
        case "qmc":
            # One scrambled sequence for the whole study; only values outside it depend on the seed of this `ask`.
            rest = samplers.RandomSampler(seed=seed)
            return samplers.QMCSampler(
                scramble=True, seed=spec.seed, independent_sampler=rest, warn_independent_sampling=False
            )
        case "grid":
            return samplers.BruteForceSampler(seed=seed)
        case "nsga2":
            return samplers.NSGAIISampler(seed=seed, population_size=NSGA2_POPULATION)
        case "cmaes":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        case "gp":
            return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    # Optuna's grouping of conditional parameters is experimental, and was no better on such a space.
    unconditional = {name: domain for name, domain in spec.search_space.domains.items() if not domain.when}
    return _TPESampler(seed, {name: coded_distribution(domain) for name, domain in unconditional.items()})


@_experiments_allowed()
def new_pruner(spec: SweepSpec) -> BasePruner:
    """The study's pruner; steps are epochs, from 1."""
    pruner = _pruner(spec)
    return optuna.pruners.PatientPruner(pruner, spec.patience) if spec.patience else pruner


def _pruner(spec: SweepSpec) -> BasePruner:
    # Errors in the first quarter of the schedule, which includes the warm-up, say little.
    num_spared = -(-spec.epochs // 4)
    factor = reduction_factor(spec.epochs)
    match spec.pruner:
        case "median":
            return PercentilePruner(50.0, num_spared)
        case "percentile":
            return PercentilePruner(75.0, num_spared)
        case "successive_halving":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=factor)
        case "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=spec.epochs, reduction_factor=factor)
    return optuna.pruners.NopPruner()


def rungs(spec: SweepSpec, study: optuna.Study, errors_pct: Mapping[int, float]) -> dict[str, float]:
    """The attributes that a halving pruner stores in the study's next trial, given the trial's errors by epoch.

    A trial that continued was promoted, so they follow from the curve: the error at the end of each rung.
    """
    pruner = study.pruner
    # Number of rungs that the trial's bracket skips.
    first = next_bracket(pruner, study) if isinstance(pruner, optuna.pruners.HyperbandPruner) else 0
    factor = reduction_factor(spec.epochs)
    ends = takewhile(errors_pct.__contains__, (factor ** (first + rung) for rung in count()))
    return {f"completed_rung_{rung}": errors_pct[end] for rung, end in enumerate(ends)}
