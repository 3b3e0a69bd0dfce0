"""KerasTuner's Oracles, called in this process from one thread.

Importing KerasTuner loads TensorFlow into the coordinator: 5 seconds and about 700 MB, once per start. KerasTuner's
Tuner, its checkpoints and its reload are not used; this module calls the methods of the Oracles.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import keras_tuner
from keras_tuner.engine import hyperparameters as hp
from keras_tuner.engine.trial import Trial as OracleTrial
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from harness.search import catalogue, history_window
from harness.search import keras_tuner_private as private
from harness.search.base import NoProposal, Proposal
from harness.search.encoding import decode, encode, encode_all
from harness.search.replay import ask_again, events, hear_again
from harness.search.settings import BAD_OUTCOMES, ask_seed, reduction_factor
from harness.study.records import EpochReport, Outcome, Record, Trial, TrialResult
from harness.study.space import Choice, Domain, Float, SearchSpace
from harness.study.spec import SweepSpec

NEVER = 10**9
METRIC = "objective"

# Share of the results' variance that the Gaussian process treats as noise. With KerasTuner's default, 1e-4, it would
# fit differences of a tenth of a point between two seeds. docs/search.md lists this setting and the next.
BAYESIAN_NOISE = 0.05

# Random configurations per dimension before the Gaussian process is used. With KerasTuner's default, 3, they would be
# two thirds of a study of 24 trials over 5 dimensions.
RANDOM_PER_DIMENSION = 2

# Random draws before the Oracle treats a space as exhausted. With its default, 20, one in six searches of a space of 12
# points would end with one point left.
MAX_COLLISIONS = 1000


class KerasTunerSearch:
    """An Oracle behind the Search protocol.

    Args:
        spec: A study that has passed `catalogue.check`.
    """

    def __init__(self, spec: SweepSpec) -> None:
        self._spec = spec
        self._space = spec.search_space
        self._facts = catalogue.sampler(spec)
        self._oracle = _oracle(spec)
        self._oracle.verbose = 0
        private.prepare(self._oracle, MAX_COLLISIONS)
        self._ids: dict[str, str] = {}  # the Oracle's id of a trial by our uid
        self._uids: dict[str, str] = {}  # our uid by the Oracle's id
        self._bad: set[str] = set()  # ids of the trials that ended badly

    def replay(self, records: Sequence[Record]) -> None:
        for record, is_end in events(records):
            if is_end:
                hear_again(self._spec, self, record)
            elif record.asks and self._facts.is_replayed:
                ask_again(self, record)
            else:
                self.add(record.trial)

    def ask(self, uid: str, number: int, retry: int) -> Proposal | NoProposal:
        with self._sampling(ask_seed(self._spec.seed, number, retry), retry):
            trial = self._created(uid)
        if trial.status == "IDLE":
            return NoProposal.WAIT
        if trial.status == "STOPPED":
            return NoProposal.EXHAUSTED
        values, domains = trial.hyperparameters.values, self._space.domains
        params = {name: decode(domain, values[name]) for name, domain in domains.items() if name in values}
        values.update(encode_all(self._space, params))  # equal to the values after a resume, to the last digit
        private.remember_values(self._oracle, trial)
        self._remember(uid, trial.trial_id)
        return Proposal(params, values.get("tuner/epochs"), self._uids.get(values.get("tuner/trial_id")))

    def decline(self, uid: str) -> None:
        if self._spec.sampler == "grid":
            self._end(self._ids[uid], None)  # the grid counts it as a finished point
            return
        trial_id = self._ids.pop(uid)
        self._drop_from_rung(trial_id)
        del self._oracle.trials[trial_id], self._oracle.ongoing_trials[uid], self._uids[trial_id]
        self._oracle.start_order.remove(trial_id)
        private.forget_id(self._oracle, trial_id)

    def add(self, trial: Trial) -> None:
        if self._spec.sampler == "grid":
            return  # the grid has its own order, and fails with other points
        oracle, space = self._oracle, self._oracle.get_space()
        space.values = dict(encode_all(self._space, trial.params))
        known = OracleTrial(space, trial_id=f"{len(oracle.trials):04d}", status="RUNNING")
        oracle.trials[known.trial_id] = oracle.ongoing_trials[trial.uid] = known
        oracle.start_order.append(known.trial_id)
        private.remember_values(oracle, known)
        self._remember(trial.uid, known.trial_id)

    def report(self, trial: Trial, report: EpochReport) -> bool:
        return True

    def tell(self, trial: Trial, result: TrialResult) -> None:
        trial_id = self._ids.get(trial.uid)
        if trial_id is None:
            return  # not added to the grid
        score = self._score(result)
        if result.outcome in BAD_OUTCOMES:
            self._bad.add(trial_id)
        if self._spec.sampler == "hyperband" and result.outcome is Outcome.INFEASIBLE:
            self._drop_from_rung(trial_id)  # it was not trained; another trial replaces it
        elif self._spec.sampler == "hyperband" and score is None:
            self._bad.add(trial_id)
            score = math.inf  # ranks last in its rung; without a score one fewer would be promoted
        self._end(trial_id, score)

    def continuable(self) -> frozenset[str]:
        if self._spec.sampler != "hyperband":
            return frozenset()
        needed = {trial.hyperparameters.values.get("tuner/trial_id") for trial in self._oracle.ongoing_trials.values()}
        for bracket in private.brackets(self._oracle):
            for rung, (lower, upper) in enumerate(pairwise(bracket["rounds"])):
                if len(upper) < private.rung_size(self._oracle, bracket, rung + 1):
                    promoted = {place["past_id"] for place in upper}
                    needed |= {place["id"] for place in lower} - promoted - self._bad
        return frozenset(self._uids[trial_id] for trial_id in needed if trial_id is not None)

    def _created(self, uid: str) -> Any:
        """The Oracle's next trial. A failed trial that hyperband promotes has no checkpoint, so it fails again."""
        while True:
            trial = self._oracle.create_trial(uid)
            if trial.hyperparameters.values.get("tuner/trial_id") not in self._bad:
                return trial
            self._bad.add(trial.trial_id)
            self._end(trial.trial_id, math.inf)

    def _remember(self, uid: str, trial_id: str) -> None:
        self._ids[uid], self._uids[trial_id] = trial_id, uid

    def _drop_from_rung(self, trial_id: str) -> None:
        for bracket in private.brackets(self._oracle):
            for rung in bracket["rounds"]:
                rung[:] = [place for place in rung if place["id"] != trial_id]

    def _score(self, result: TrialResult) -> float | None:
        """The objective: error in percent or device time in seconds; None if the trial has none."""
        if result.outcome is not Outcome.COMPLETED or result.error_rate_pct is None:
            return None
        return result.error_rate_pct if self._spec.objective == ("error",) else result.train_time_s

    def _end(self, trial_id: str, score: float | None) -> None:
        trial = self._oracle.trials[trial_id]
        with _quiet():
            if score is not None:
                # One step only, because the Oracle uses the best of all steps as score.
                self._oracle.update_trial(trial_id, {METRIC: score})
            trial.status = "FAILED" if score is None else "COMPLETED"
            self._oracle.end_trial(trial)
        self._oracle.end_order.clear()  # the Oracle would count failures in it at each call

    @contextmanager
    def _sampling(self, seed: int, retry: int) -> Iterator[None]:
        """Makes the next draw depend only on the trials and the seed."""
        private.seed_next(self._oracle, seed)
        with _quiet():
            if self._spec.sampler != "bayesian":
                yield
                return
            oracle, dimensions = self._oracle, len(self._space.domains)
            # Without new results the optimum hardly moves: a declined proposal would be repeated, at seconds each. So a
            # retry is a random configuration that was not tried.
            oracle.num_initial_points = NEVER if retry else RANDOM_PER_DIMENSION * dimensions
            # Its matrices are small: a second thread makes it five times slower and takes a core from the workers.
            with self._supposed(), threadpool_limits(1):
                yield

    @contextmanager
    def _supposed(self) -> Iterator[None]:
        """During a proposal, shows the Gaussian process the best and latest trials, and gives failed and running trials
        the worst score.

        By itself it would ignore failed trials, and would score running ones by its previous fit, which a resumed
        search does not have.
        """
        oracle = self._oracle
        completed = [trial for trial in oracle.trials.values() if trial.status == "COMPLETED"]
        if len(completed) < oracle.num_initial_points:
            yield
            return
        hidden, bad = self._hidden(), [oracle.trials[trial_id] for trial_id in self._bad]
        running, worst = oracle.ongoing_trials, max(trial.score for trial in completed)
        before = [(trial, trial.status, trial.score) for trial in [*hidden, *bad, *running.values()]]
        oracle.ongoing_trials = {}
        for trial in [*bad, *running.values()]:
            trial.status, trial.score = "COMPLETED", worst
        for trial in hidden:
            trial.status = "FAILED"
        try:
            yield
        finally:
            for trial, status, score in before:
                trial.status, trial.score = status, score
            oracle.ongoing_trials = running | oracle.ongoing_trials

    def _hidden(self) -> list[Any]:
        """The finished trials that the Gaussian process does not read."""
        trials = self._oracle.trials.values()
        finished = [trial for trial in trials if trial.status == "COMPLETED" or trial.trial_id in self._bad]
        positions = history_window.shown([None if trial.score is None else (trial.score,) for trial in finished])
        return [] if positions is None else [trial for i, trial in enumerate(finished) if i not in positions]


def _oracle(spec: SweepSpec) -> Any:
    oracles, space, hyperparameters = keras_tuner.oracles, spec.search_space, keras_tuner.HyperParameters()
    hyperparameters.merge([_hyperparameter(space, name, domain) for name, domain in space.domains.items()])
    settings: dict[str, Any] = {
        "objective": keras_tuner.Objective(METRIC, "min"),
        "hyperparameters": hyperparameters,
        "seed": ask_seed(spec.seed, 0, 0),  # not 0, which would mean a random seed
        "max_consecutive_failed_trials": NEVER,
    }
    match spec.sampler:
        case "hyperband":
            factor = reduction_factor(spec.epochs)
            # None: repeat until the budget ends the search.
            return oracles.HyperbandOracle(max_epochs=spec.epochs, factor=factor, hyperband_iterations=None, **settings)
        case "bayesian":
            return oracles.BayesianOptimizationOracle(max_trials=None, alpha=BAYESIAN_NOISE, **settings)
        case "grid":
            return oracles.GridSearchOracle(max_trials=None, **settings)
    return oracles.RandomSearchOracle(max_trials=None, **settings)


def _hyperparameter(space: SearchSpace, name: str, domain: Domain) -> Any:
    """KerasTuner's hyperparameter for a domain, over the codes of `encoding`."""
    # conditional_scope supports only one parent at a time, and only parents without conditions.
    conditions = [
        private.Parent(parent, [encode(space.domains[parent], value) for value in values])
        for parent, values in domain.when.items()
    ]
    if isinstance(domain, Choice):
        return hp.Choice(name, list(range(len(domain.options))), ordered=False, conditions=conditions)
    sampling = "log" if domain.log else "linear"
    if not isinstance(domain, Float):
        step = None if domain.log else domain.step
        return hp.Int(name, domain.low, domain.high, step=step, sampling=sampling, conditions=conditions)
    if domain.step is None:
        return hp.Float(name, domain.low, domain.high, sampling=sampling, conditions=conditions)
    return hp.Int(name, 0, domain.num_steps, conditions=conditions)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences two warnings about KerasTuner's internals, which users cannot act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(currentThread|getName)", DeprecationWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)  # a kernel's scale is at its bound
        yield
