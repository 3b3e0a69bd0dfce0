"""Conversions to Optuna: domains, samplers, pruners, and the storage of a study.

Optuna reads all trials after each epoch, and spends most of a TPE proposal in a function that it computes number by
number. Both are too slow for a thousand workers and 100,000 trials: see docs/scaling.md.
"""

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
from optuna.samplers._tpe import _truncnorm
from optuna.trial import FrozenTrial, TrialState
from scipy.special import log_ndtr

from harness.search.history_window import Window
from harness.search.settings import reduction_factor
from harness.study.space import Choice, Domain, Float
from harness.study.spec import SweepSpec

# With Optuna's default of 50 a typical study would have only random draws.
NSGA2_POPULATION = 12


# Completed trials before any trial is stopped: Optuna's default.
NUM_STARTUP_TRIALS = 5

MANY = 100  # more new values than this are faster to sort than to insert one by one

# The same function for whole arrays, equal up to the last digits: a proposal takes a third of the time.
_truncnorm._log_ndtr = log_ndtr

# Pruners that store in each trial its error at the end of each rung.
HALVING = ("successive_halving", "hyperband")


class Storage(optuna.storages.InMemoryStorage):
    """A storage that can show a sampler a part of its trials, and that does not copy added trials.

    Attributes:
        shown: The visible trials; None: all trials.
        completed: Completed trials, in the order in which they were added.
        window: Selects among the finished trials that have not failed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[FrozenTrial] | None = None
        self.completed: list[FrozenTrial] = []
        self.window = Window()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = super().create_new_trial(study_id)
        if template_trial is not None:
            # Optuna would make a deep copy, which would take most of the time of a resume.
            template_trial.number, template_trial._trial_id = self.get_trial_number_from_id(trial_id), trial_id
            self._set_trial(trial_id, template_trial)
            self._update_cache(trial_id, study_id)
        return trial_id

    def _update_cache(self, trial_id: int, study_id: int) -> None:
        super()._update_cache(trial_id, study_id)
        trial = self._get_trial(trial_id)
        if trial.state is TrialState.COMPLETE:
            self.completed.append(trial)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            self.window.add(trial.number, trial.values if trial.state is TrialState.COMPLETE else None)

    def numbered(self, study_id: int, numbers: Sequence[int]) -> list[FrozenTrial]:
        """The trials with these numbers, without reading the others."""
        trials = self._studies[study_id].trials
        return [trials[number] for number in numbers]

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: object | None = None) -> list[FrozenTrial]:
        if self.shown is None:
            return super().get_all_trials(study_id, deepcopy, states)  # type: ignore[arg-type]
        return [trial for trial in self.shown if states is None or trial.state in states]  # type: ignore[operator]


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
        self._num_known = 0
        self._values: dict[int, list[float]] = defaultdict(list)  # of completed trials, by step, ascending

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        assert isinstance(study._storage, Storage)  # noqa: S101 - see above
        self._learn(study._storage.completed)
        step = trial.last_step
        if step is None or step < self._num_spared or self._num_known < NUM_STARTUP_TRIALS or not self._values[step]:
            return False
        return min(trial.intermediate_values.values()) > quantile(self._values[step], self._percentile / 100)

    def _learn(self, completed: Sequence[FrozenTrial]) -> None:
        new = completed[self._num_known :]
        is_past = len(new) > MANY
        for trial in new:
            for step, value in trial.intermediate_values.items():
                (list.append if is_past else insort)(self._values[step], value)
        if is_past:
            for values in self._values.values():
                values.sort()
        self._num_known = len(completed)


def quantile(ascending: Sequence[float], share: float) -> float:
    """The quantile by linear interpolation, as in numpy."""
    position = share * (len(ascending) - 1)
    below = ascending[int(position)]
    above = ascending[min(int(position) + 1, len(ascending) - 1)]
    return below + (above - below) * (position - int(position))


def distribution(domain: Domain) -> BaseDistribution:
    """Optuna's distribution for a domain, over the codes of `encoding`."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(tuple(range(len(domain.options))))
    if not isinstance(domain, Float):
        return IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
    if domain.step is None:
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    return IntDistribution(0, domain.num_steps)


def suggested(opened: optuna.Trial, name: str, distribution: BaseDistribution) -> int | float:
    """The sampler's value of one hyperparameter."""
    match distribution:
        case IntDistribution(low=low, high=high, log=log, step=step):
            return opened.suggest_int(name, low, high, step=step, log=log)
        case FloatDistribution(low=low, high=high, log=log):
            return opened.suggest_float(name, low, high, log=log)
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
    return _TPESampler(seed, {name: distribution(domain) for name, domain in unconditional.items()})


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
    first = 0  # number of rungs that the trial's bracket skips
    if isinstance(pruner, optuna.pruners.HyperbandPruner):
        if not pruner._pruners:
            pruner._try_initialization(study)
        trial = optuna.trial.create_trial(state=TrialState.FAIL)
        trial.number = study._storage.get_n_trials(study._study_id)
        first = pruner._get_bracket_id(study, trial)
    factor = reduction_factor(spec.epochs)
    ends = takewhile(errors_pct.__contains__, (factor ** (first + rung) for rung in count()))
    return {f"completed_rung_{rung}": errors_pct[end] for rung, end in enumerate(ends)}
