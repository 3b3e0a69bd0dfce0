"""Optuna's samplers and pruners, by ask and tell on an in-memory study.

Each `ask` gets a new sampler, seeded by the trial's number. So a proposal depends only on the study's trials, and a
resumed search only adds them again. Samplers that keep more state in the study (a population, a position in a sequence)
are restored by asking and telling again, in the order of events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from harness.search import catalogue
from harness.search.base import NoProposal, Proposal
from harness.search.constraints import excess
from harness.search.encoding import decode, encode_all, identity
from harness.search.optuna_parts import HALVING, coded_distribution, new_pruner, new_sampler, rungs, suggested
from harness.search.optuna_private import Storage
from harness.search.replay import ask_again, events, hear_again
from harness.search.settings import BAD_OUTCOMES, ask_seed, may_be_stopped
from harness.study.records import EpochReport, Outcome, Params, Record, Scalar, Trial, TrialResult
from harness.study.spec import SweepSpec

# In a small space a sampler may repeat the same few points without end.
MAX_INFORMED_RETRIES = 5

# The value of a bad trial while no completed one gives a worst value: 100 percent, one hour in seconds.
WORST_CONCEIVABLE = {"error": 100.0, "device_time": 3600.0}

# Optuna logs to the program's log, not to the screen with its own handler.
optuna.logging.disable_default_handler()
optuna.logging.enable_propagation()


@dataclass
class _Open:
    """A proposed trial without a result."""

    trial: optuna.Trial
    last_epoch: int = 0


@dataclass(frozen=True)
class _Lesson:
    """The result of a trial as the Optuna study gets it."""

    state: TrialState
    values: list[float] | None
    constraints: Mapping[str, float]


class OptunaSearch:
    """Optuna behind the Search protocol.

    Args:
        spec: A study that has passed `catalogue.check`.
    """

    def __init__(self, spec: SweepSpec) -> None:
        self._spec = spec
        self._space = spec.search_space
        self._facts = catalogue.sampler(spec)
        self._distributions = {name: coded_distribution(domain) for name, domain in self._space.domains.items()}
        self._storage = Storage()
        self._study = optuna.create_study(
            storage=self._storage,
            study_name="study",  # hyperband's brackets depend on it
            directions=["minimize"] * len(spec.objective),
            sampler=optuna.samplers.RandomSampler(),  # replaced at each `ask`
            pruner=new_pruner(spec),
        )
        self._open: dict[str, _Open] = {}
        self._tried: set[object] = set()
        self._worst: list[float] | None = None

    def replay(self, records: Sequence[Record]) -> None:
        # Only by asking a patient pruner again is it known which epochs it let pass.
        is_patient = self._spec.pruner in HALVING and self._spec.patience > 0
        if not self._facts.is_replayed and not is_patient:
            self._add_past(records)
            return
        for record, is_end in events(records):
            if is_end:
                hear_again(self._spec, self, record)
            elif record.asks and self._facts.is_replayed:
                ask_again(self, record)
            else:
                self._skip_declined(record)
                self.add(record.trial)

    def ask(self, uid: str, number: int, retry: int) -> Proposal | NoProposal:
        seed = ask_seed(self._spec.seed, number, retry)
        with self._sampling(self._sampler(seed, retry)):
            opened = self._study.ask()
            params = self._suggested(opened)
        if self._facts.finite_only and identity(self._space, params) in self._tried:
            self._study.tell(opened, state=TrialState.FAIL)
            return NoProposal.EXHAUSTED  # brute force repeats a point only if no other is left
        self._opened(uid, opened, params)
        return Proposal(params)

    def decline(self, uid: str) -> None:
        self._study.tell(self._open.pop(uid).trial, state=TrialState.FAIL)

    def add(self, trial: Trial) -> None:
        self._study.enqueue_trial(encode_all(self._space, trial.params))
        opened = self._study.ask()
        self._suggested(opened)
        if self._spec.sampler == "nsga2":
            # The drawn values are not used; drawing adds the trial to the sampler's population.
            with self._sampling(new_sampler(self._spec, ask_seed(self._spec.seed, trial.number, 0))):
                opened.relative_params  # noqa: B018
        self._opened(trial.uid, opened, trial.params)

    def report(self, trial: Trial, report: EpochReport) -> bool:
        opened = self._open[trial.uid]
        if self._spec.objective != ("error",) or report.epoch <= opened.last_epoch:
            return True  # a second attempt has the same seed and repeats the first
        opened.last_epoch = report.epoch
        opened.trial.report(report.val_error_rate_pct, report.epoch)
        return not opened.trial.should_prune()

    def tell(self, trial: Trial, result: TrialResult) -> None:
        self._end(trial.uid, self._lesson(trial.params, result))

    def continuable(self) -> frozenset[str]:
        return frozenset()

    def _end(self, uid: str, lesson: _Lesson) -> None:
        opened = self._open.pop(uid).trial
        for name, value in lesson.constraints.items():
            opened.set_constraint(name, value)
        self._study.tell(opened, lesson.values if lesson.state is TrialState.COMPLETE else None, lesson.state)

    def _add_past(self, records: Sequence[Record]) -> None:
        """Adds the past with the same result as by replaying the events, but ten times as fast."""
        lessons = {
            record.trial.uid: self._lesson(record.trial.params, record.result)
            for record, is_end in events(records)
            if is_end and record.result is not None
        }
        for record in sorted(records, key=lambda record: record.asked_at):
            self._skip_declined(record)
            trial, result = record.trial, record.result
            if result is None:
                self.add(trial)
            else:
                self._add_finished(trial, result, lessons[trial.uid])

    def _add_finished(self, trial: Trial, result: TrialResult, lesson: _Lesson) -> None:
        is_seen = self._spec.objective == ("error",) and may_be_stopped(self._spec, trial)
        params, curve = trial.params, result.curve if is_seen else ()
        errors_pct = {report.epoch: report.val_error_rate_pct for report in curve}
        self._study.add_trial(
            create_trial(
                state=lesson.state,
                values=lesson.values,
                params=encode_all(self._space, params),
                distributions={name: self._distributions[name] for name in params},
                system_attrs=rungs(self._spec, self._study, errors_pct) if self._spec.pruner in HALVING else {},
                intermediate_values=errors_pct,
                constraints=dict(lesson.constraints),
            )
        )
        self._tried.add(identity(self._space, params))

    def _skip_declined(self, record: Record) -> None:
        """Keeps Optuna's trial numbers, on which hyperband's brackets depend."""
        params = encode_all(self._space, record.trial.params)
        distributions = {name: self._distributions[name] for name in params}
        for _ in range(record.asks - 1):
            self._study.add_trial(create_trial(state=TrialState.FAIL, params=params, distributions=distributions))

    def _opened(self, uid: str, opened: optuna.Trial, params: Params) -> None:
        self._open[uid] = _Open(opened)
        self._tried.add(identity(self._space, params))

    def _suggested(self, opened: optuna.Trial) -> dict[str, Scalar]:
        params: dict[str, Scalar] = {}
        for name, domain in self._space.domains.items():
            if self._space.is_active(name, params):
                params[name] = decode(domain, suggested(opened, name, self._distributions[name]))
        return params

    # Results

    def _lesson(self, params: Params, result: TrialResult) -> _Lesson:
        """The result for Optuna.

        A bad configuration becomes a completed trial that violates a constraint, because samplers ignore failed trials.
        Its value, for samplers without constraints, is the worst so far: bad enough to be avoided, but not an outlier
        that would hide the differences between good trials.
        """
        constraints = self._constraints(params, result)
        if result.outcome is Outcome.PRUNED and result.val_error_rate_pct is not None:
            return _Lesson(TrialState.PRUNED, [result.val_error_rate_pct], constraints)
        if result.outcome in BAD_OUTCOMES:
            worst = self._worst or [WORST_CONCEIVABLE[objective] for objective in self._spec.objective]
            return _Lesson(TrialState.COMPLETE, worst, constraints)
        if result.outcome is not Outcome.COMPLETED or result.error_rate_pct is None:
            return _Lesson(TrialState.FAIL, None, {})  # a crash says nothing about the configuration
        measured = {"error": result.error_rate_pct, "device_time": result.train_time_s}
        values = [measured[objective] for objective in self._spec.objective]
        self._worst = [max(pair) for pair in zip(values, self._worst or values, strict=True)]
        return _Lesson(TrialState.COMPLETE, values, constraints)

    def _constraints(self, params: Params, result: TrialResult) -> dict[str, float]:
        if self._spec.sampler == "cmaes":
            return {}  # CMA-ES warns about constraints and uses the values
        has_trained = result.outcome not in BAD_OUTCOMES or result.outcome is Outcome.INFEASIBLE
        return {"limits": excess(self._spec, params), "trains": -1.0 if has_trained else 1.0}

    # Sampling

    def _sampler(self, seed: int, retry: int) -> BaseSampler:
        """The study's sampler; after several repeated proposals a random one."""
        # Without new results, a Gaussian process would repeat its slow proposal.
        patience = 0 if self._spec.sampler == "gp" else MAX_INFORMED_RETRIES
        return new_sampler(self._spec, seed) if retry <= patience else optuna.samplers.RandomSampler(seed)

    @contextmanager
    def _sampling(self, sampler: BaseSampler) -> Iterator[None]:
        """Sets the sampler and the trials that it reads."""
        resting, self._study.sampler = self._study.sampler, sampler
        self._storage.shown = self._shown() if self._spec.sampler in ("tpe", "gp") else None
        # The matrices of a Gaussian process are small; a second thread would only take a core from the workers.
        threads = threadpool_limits(1) if self._spec.sampler == "gp" else nullcontext()
        try:
            with threads:
                yield
        finally:
            self._study.sampler, self._storage.shown = resting, None

    def _shown(self) -> list[FrozenTrial] | None:
        numbers = self._storage.window.shown()
        if numbers is None:
            return None
        numbers |= {opened.trial.number for opened in self._open.values()}
        return self._storage.numbered(self._study, sorted(numbers))
