"""The loop of a sweep: ask, commit, run, commit, tell, track. Resuming uses the same code as starting.

A proposal is committed to the ledger before a worker gets it. A result is committed before the search or MLflow gets
it. So after a kill at any moment, the next start continues from the ledger.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from harness.execution.base import Died, EpochDone, Event, Executor, Finished, Job, Place, Ready
from harness.ledger.ledger import Ledger
from harness.planning.cost_model import CostModel
from harness.planning.forecast import Open
from harness.planning.progress import Progress, StopReason
from harness.search import catalogue
from harness.search.base import NoProposal
from harness.search.proposer import Next
from harness.study.findings import find, so_far
from harness.study.records import EpochReport, Outcome, Record, Trial, TrialResult
from harness.study.seeds import Seeds
from harness.study.spec import SweepSpec
from harness.study.trainings import taken_over
from harness.support.failpoints import Step, reach
from harness.support.provenance import session_provenance
from harness.sweep.checkpoints import Checkpoints
from harness.sweep.display import Display, HowFar
from harness.sweep.interrupts import Interrupts
from harness.sweep.reuse import Reuse, Source

POLL_S = 0.25
TOUCH_S = 5.0
RESULTS_SHARE = 0.01  # of the time goes into the line of results, which takes some 10 ms: too long for short trials
STOPPED = "the sweep was stopped"
NO_WORKER = "none"  # of an attempt that reached none: refused, or its result was taken over


class TrialSource(Protocol):
    """Proposes a study's trials and gets their results. It is built from the study's records, also on a resume."""

    def next(self, *, finals: bool = False) -> Next | NoProposal:
        """The next trial, or why there is none; it is committed before another is asked for.

        `finals` asks for a further seed of one of the best configurations, where there are any.
        """

    def broken_limit(self, trial: Trial) -> str | None:
        """The limit that a trial breaks, if any; such a trial is not trained."""

    def report(self, trial: Trial, report: EpochReport) -> bool:
        """Receives the report of an epoch; returns False to stop the trial."""

    def tell(self, trial: Trial, result: TrialResult) -> None:
        """Receives a final result that is committed."""

    def continuable(self) -> frozenset[str]:
        """uids of the trials whose checkpoints or weights are still needed."""


class Listener(Protocol):
    """Is notified of new results in the ledger."""

    def notify(self) -> None: ...


@dataclass
class _Running:
    trial: Trial
    attempt: int
    clock: Callable[[], float]
    training: str | None = None  # of `TrialResult`
    started_s: float = field(init=False)
    cancelled_for: str | None = None
    has_timed_out: bool = False
    search_time_s: float = 0.0
    reported: list[EpochReport] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.started_s = self.clock()

    @property
    def held_s(self) -> float:
        return round(self.clock() - self.started_s, 3)


class Sweep:
    """Runs a study until its budget is used. The caller holds the study's lock.

    Args:
        spec: The study; its row is in the ledger.
        ledger: The only source of truth.
        records: The study's trials in it.
        source: Proposes its trials.
        executor: Workers for this study.
        listeners: Are notified of new final results.
        display: Shows progress to the user.
        checkpoints: The weights of trials that may be continued.
        costs: Predicts how long trials take, so that the time budgets can be kept.
        clock: Monotonic seconds.
        reuse: Finds the results that trials may take over.
    """

    def __init__(
        self,
        spec: SweepSpec,
        ledger: Ledger,
        records: Sequence[Record],
        source: TrialSource,
        executor: Executor,
        listeners: list[Listener],
        display: Display,
        checkpoints: Checkpoints,
        costs: CostModel,
        clock: Callable[[], float] = time.monotonic,
        *,
        reuse: Reuse,
    ) -> None:
        self._spec, self._ledger, self._source, self._executor = spec, ledger, source, executor
        self._listeners, self._display, self._checkpoints = listeners, display, checkpoints
        self._clock, self._started_s = clock, clock()
        self._session = ledger.start_session(spec.study, session_provenance())
        reach(Step.AFTER_SESSION)
        self._touched_s = self._started_s
        self._results, self._results_due_s = "", float("-inf")
        ledger.close_lost_attempts(spec.study)
        reach(Step.AFTER_LOST_ATTEMPTS)
        self._seeds = Seeds(spec, records)
        self._pending = deque(record.trial for record in records if record.result is None)
        # A slow search proposes the next trial while the current one trains, so that no free worker waits for it.
        self._asks_ahead = spec.is_search and catalogue.sampler(spec).asks_ahead
        self._reuse = reuse
        num_reusable = self._reuse.num_foreseen(records, next(iter(executor.places), None))
        self._progress = Progress(spec, records, ledger.usage(spec.study), costs, num_reusable)
        self._idle: deque[str] = deque()
        self._running: dict[str, _Running] = {}
        self._stop: StopReason | None = None
        self._search_times_s: dict[str, float] = {}  # not committed yet, of trials that have ended, by uid
        self._interrupts = Interrupts()
        self._has_said_finals = False

    def run(self) -> StopReason:
        """Runs trials until the budget is used, the space is exhausted, or the process is asked to stop.

        A first SIGINT or SIGTERM lets running trials stop at the end of their epoch. A second one raises
        KeyboardInterrupt. Later ones reach the previous handlers.
        """
        with self._interrupts:
            try:
                while not self._is_over():
                    # Handle the workers' events between two proposals: answers are fast, many proposals are slow.
                    may_go_on = self._hand_out()
                    self._handle_all(self._executor.events(0.0 if may_go_on else POLL_S))
                    self._kill_overdue()
                    self._touch()
            finally:
                self._cancel_running()
                self._ledger.touch_session(self._session, self._wall_s)
        assert self._stop is not None  # noqa: S101 - _is_over says so
        return StopReason.INTERRUPTED if self._interrupts.has_come else self._stop

    # Starting trials

    def _is_over(self) -> bool:
        if self._interrupts.has_come and self._stop is not StopReason.INTERRUPTED:
            self._stop = StopReason.INTERRUPTED
            self._display.note("stopping: running trials end with their epoch; once more to stop at once")
        if self._running or self._stop is StopReason.INTERRUPTED:
            return not self._running
        ended_by = self._progress.reason_to_end(self._wall_s, self._open, self._stop)
        self._stop = ended_by or self._stop
        return ended_by is not None

    def _has_room(self, trial: Trial) -> bool:
        if self._progress.reason_not_to_start(trial, self._wall_s, self._open) is None:
            return True
        return bool(self._idle) and self._reuse.find(trial, self._place(self._idle[0])) is not None

    def _place(self, worker: str) -> Place | None:
        return next((place for place in self._executor.places if place.name == worker), None)

    @property
    def _open(self) -> Open:
        return Open(list(self._running.values()), list(self._pending))

    def _hand_out(self) -> bool:
        """Starts a trial on a free worker, if there are both. Returns whether another start may be possible now."""
        if not self._idle or self._interrupts.has_come:
            return False
        pending = self._next_pending()
        proposal = None if pending else self._propose()
        trial = proposal.trial if proposal else pending
        if trial is None:
            return False
        place = self._place(self._idle[0])
        source = self._reuse.prepare(trial, place)
        if source is not None:
            self._take_over(trial, proposal, source)
            return True
        worker = self._idle.popleft()
        with self._ledger.together():
            if proposal:
                self._commit(proposal)
            attempt = self._ledger.start_attempt(trial.uid, worker)
        reach(Step.AFTER_START_ATTEMPT)
        self._running[worker] = _Running(trial, attempt, self._clock, self._reuse.training(trial, place))
        self._executor.start(worker, self._job(trial))
        reach(Step.AFTER_HAND_OUT)
        self._display.started(trial, worker, attempt, self._seeds.describe(trial))
        if self._asks_ahead and not self._pending and (ahead := self._propose()):
            self._commit(ahead)
            self._pending.append(ahead.trial)
        return bool(self._idle)

    def _take_over(self, trial: Trial, proposal: Next | None, source: Source) -> None:
        """Commits the result of an equal training as this trial's, in one step, and passes it on."""
        with self._ledger.together():
            if proposal:
                self._commit(proposal)
            running = _Running(trial, self._ledger.start_attempt(trial.uid, NO_WORKER), self._clock)
            result = taken_over(self._spec, trial, source.record, lambda report: self._source.report(trial, report))
            running.search_time_s = running.held_s
            for report in result.curve:
                self._ledger.add_epoch(trial.uid, running.attempt, report, 0.0)
            reach(Step.BEFORE_REUSE)
            self._ledger.finish_attempt(trial.uid, running.attempt, result, 0.0, is_final=True)
        reach(Step.AFTER_REUSE)
        self._tell(running, result, 0.0, source.name)

    def _job(self, trial: Trial) -> Job:
        """The trial with its files; without its checkpoint it trains the epochs before again."""
        if trial.continues is None:
            return self._checkpoints.job(trial)
        before = self._ledger.record(trial.continues).trial
        job = self._checkpoints.job(trial, before.epochs)
        if job.load_from is not None and not job.load_from.exists():
            what = f"trial {trial.number} continues trial {before.number}, whose checkpoint is gone"
            self._display.note(f"{what}; its training up to epoch {before.epochs} is repeated")
        return job

    def _next_pending(self) -> Trial | None:
        """A committed trial that fits into the budget.

        One that breaks a limit is refused here if a kill prevented its refusal from being committed.
        """
        for trial in list(self._pending):
            broken = self._source.broken_limit(trial)
            if broken is not None:
                self._pending.remove(trial)
                self._tell(*self._refused(trial, broken))
            elif self._has_room(trial):
                self._pending.remove(trial)
                return trial
        return None

    def _refused(self, trial: Trial, broken_limit: str) -> tuple[_Running, TrialResult, float]:
        """Commits a refused trial; returns its attempt, its result, and the seconds that a worker was held: 0."""
        result = TrialResult(Outcome.INFEASIBLE, broken_limit)
        with self._ledger.together():
            attempt = self._ledger.start_attempt(trial.uid, NO_WORKER)
            self._ledger.finish_attempt(trial.uid, attempt, result, 0.0, is_final=True)
        return _Running(trial, attempt, self._clock), result, 0.0

    def _commit(self, proposal: Next) -> None:
        reach(Step.BEFORE_PROPOSE)
        self._ledger.propose(self._spec.study, proposal.trial, proposal.asks, proposal.search_time_s)
        reach(Step.AFTER_PROPOSE)

    def _propose(self) -> Next | None:
        """The next trial that fits into the budget, not committed yet; None if there is none now."""
        while self._stop is None:
            self._stop = self._progress.reason_not_to_propose(self._wall_s, self._open)
            if self._stop is not None:
                break
            proposal = self._source.next(finals=self._is_in_finals())
            # If nothing runs, a search that waits would never continue.
            if proposal is NoProposal.EXHAUSTED or (proposal is NoProposal.WAIT and not self._running):
                self._stop = StopReason.EXHAUSTED
            if isinstance(proposal, NoProposal):
                break
            self._progress.num_proposed += 1
            if proposal.infeasible is not None:
                with self._ledger.together():
                    self._commit(proposal)
                    refused = self._refused(proposal.trial, proposal.infeasible)
                self._tell(*refused)
            elif self._has_room(proposal.trial):
                return proposal
            else:
                self._commit(proposal)
                self._pending.append(proposal.trial)  # for a larger budget; a smaller one may still have room
        return None

    def _is_in_finals(self) -> bool:
        """Says once when the finals begin."""
        are_finals = self._progress.is_in_finals(self._wall_s, self._open)
        if are_finals and not self._has_said_finals:
            self._display.note("finals: from now on the best configurations get further seeds")
        self._has_said_finals |= are_finals
        return are_finals

    # Events of the workers

    def _handle_all(self, events: Sequence[Event]) -> None:
        self._commit_epochs([event for event in events if isinstance(event, EpochDone)])
        for event in events:
            self._handle(event)
        if self._search_times_s:
            self._spread_news()

    def _commit_epochs(self, events: Sequence[EpochDone]) -> None:
        """Commits all reported epochs in one transaction, since each flush to the disk takes time."""
        known = [(event, self._running[event.worker]) for event in events if event.worker in self._running]
        if not known:
            return
        reach(Step.BEFORE_EPOCH)
        with self._ledger.together():
            for event, running in known:
                self._ledger.add_epoch(running.trial.uid, running.attempt, event.report, running.held_s)
        reach(Step.AFTER_EPOCH)

    def _handle(self, event: Event) -> None:
        if isinstance(event, Ready):
            self._idle.append(event.worker)
        elif event.worker not in self._running:
            self._forget_idle(event.worker)
        elif isinstance(event, EpochDone):
            self._on_epoch(event)
        elif isinstance(event, Finished):
            running = self._running.pop(event.worker)
            self._end(running, self._judged(running, event.result))
        elif isinstance(event, Died):
            running = self._running.pop(event.worker)
            self._end(running, self._lost(running, event))

    def _forget_idle(self, worker: str) -> None:
        """Removes a worker that died between two trials; its replacement reports when it is ready."""
        if worker in self._idle:
            self._idle.remove(worker)

    def _on_epoch(self, event: EpochDone) -> None:
        running, report = self._running[event.worker], event.report
        running.reported.append(report)
        started_s = self._clock()
        go_on = self._source.report(running.trial, report)
        running.search_time_s += self._clock() - started_s
        if go_on and (why := self._why_cancelled(running)):
            running.cancelled_for, go_on = why, False
        reach(Step.BEFORE_ANSWER)
        self._executor.answer(event.worker, go_on=go_on)
        reach(Step.AFTER_ANSWER)
        self._display.epoch(self._spec, running.trial, event.worker, report)

    def _why_cancelled(self, running: _Running) -> str | None:
        """Why a trial must stop after this epoch and stay pending; None if it continues."""
        if running.reported[-1].epoch >= running.trial.epochs:
            return None
        if self._interrupts.has_come:
            return STOPPED
        is_too_long = self._progress.has_to_stop(running.trial, running.reported, self._wall_s, self._open)
        return "would end after the time budget" if is_too_long else None

    def _judged(self, running: _Running, result: TrialResult) -> TrialResult:
        if running.cancelled_for:
            return dataclasses.replace(result, outcome=Outcome.CANCELLED, error=running.cancelled_for)
        is_whole = result.outcome is Outcome.COMPLETED
        return dataclasses.replace(result, training=running.training) if is_whole else result

    def _lost(self, running: _Running, event: Died) -> TrialResult:
        outcome, error = Outcome.CRASHED, f"worker {event.reason}"
        if running.has_timed_out:
            outcome, error = Outcome.TIMED_OUT, f"took longer than {self._spec.trial_timeout_s:.0f} s"
        elif event.out_of_memory:
            outcome, error = Outcome.OUT_OF_MEMORY, "worker killed for want of memory"
        return TrialResult(outcome, error, curve=tuple(running.reported))

    def _end(self, running: _Running, result: TrialResult) -> None:
        self._progress.charge(running.held_s)
        if result.outcome.may_retry and self._may_retry(running.trial, result.outcome):
            self._ledger.finish_attempt(running.trial.uid, running.attempt, result, running.held_s, is_final=False)
            reach(Step.AFTER_FAILED_ATTEMPT)
            self._pending.append(running.trial)
            self._display.retried(running.trial, result)
        else:
            self._finish(running, result, running.held_s)

    def _may_retry(self, trial: Trial, outcome: Outcome) -> bool:
        if outcome is Outcome.CANCELLED:
            return True
        crashes = sum(1 for attempt in self._ledger.attempts(trial.uid) if attempt.outcome is Outcome.CRASHED)
        return crashes + 1 < self._spec.max_attempts

    def _finish(self, running: _Running, result: TrialResult, held_s: float) -> None:
        """Commits a final result, then passes it on."""
        reach(Step.BEFORE_RESULT)
        self._ledger.finish_attempt(running.trial.uid, running.attempt, result, held_s, is_final=True)
        reach(Step.AFTER_RESULT)
        self._tell(running, result, held_s)

    def _tell(self, running: _Running, result: TrialResult, held_s: float, reused_from: str | None = None) -> None:
        """Passes a committed final result to the search, the progress and the display."""
        trial = running.trial
        started_s = self._clock()
        self._source.tell(trial, result)
        reach(Step.AFTER_TELL)
        self._search_times_s[trial.uid] = running.search_time_s + self._clock() - started_s
        self._progress.add(Record(trial, result, reserved_time_s=held_s))
        self._display.finished(self._spec, trial, result, self._seeds.describe(trial), reused_from)

    def _spread_news(self) -> None:
        """Updates that follow one or more ended trials."""
        with self._ledger.together():
            for uid, search_time_s in self._search_times_s.items():
                self._ledger.add_search_time(uid, search_time_s)
        self._search_times_s.clear()
        reach(Step.AFTER_SEARCH_TIME)
        for listener in self._listeners:
            listener.notify()
        reach(Step.AFTER_NOTIFY)
        open_trials = self._open.trials
        needed = self._source.continuable() | {trial.uid for trial in open_trials}
        self._checkpoints.keep_only(needed | {trial.continues for trial in open_trials if trial.continues})
        self._show_progress()

    # Time

    @property
    def _wall_s(self) -> float:
        return self._clock() - self._started_s

    def _touch(self) -> None:
        if self._clock() - self._touched_s >= TOUCH_S:
            self._touched_s = self._clock()
            self._ledger.touch_session(self._session, self._wall_s)
            self._show_progress()

    def _kill_overdue(self) -> None:
        if self._spec.trial_timeout_s is None:
            return
        for worker, running in self._running.items():
            if running.held_s > self._spec.trial_timeout_s and not running.has_timed_out:
                running.has_timed_out = True
                self._executor.kill(worker)

    def _show_progress(self) -> None:
        progress = self._progress
        num_workers = len(self._executor.places)  # 0 if a cluster has lost all its nodes
        left = progress.time_left(self._wall_s, self._open, num_workers) if num_workers else None
        self._display.progress(HowFar(progress.done, progress.total, left, self._results_so_far()))

    def _results_so_far(self) -> str:
        is_done = self._progress.done >= self._progress.total
        started_s = self._clock()
        if is_done or started_s >= self._results_due_s:
            self._results = so_far(find(self._progress.configurations, self._ledger.result))
            ended_s = self._clock()
            self._results_due_s = ended_s + (ended_s - started_s) / RESULTS_SHARE
        return self._results

    def _cancel_running(self) -> None:
        """Closes running attempts as cancelled, so that their time is charged; their trials stay pending."""
        with self._ledger.together():
            for running in self._running.values():
                result = TrialResult(Outcome.CANCELLED, STOPPED, curve=tuple(running.reported))
                self._ledger.finish_attempt(running.trial.uid, running.attempt, result, running.held_s, is_final=False)
        self._running.clear()
