"""Logs the ledger's trials to MLflow: in the background of a sweep (`Tracker`), or at once (`sync`)."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InputError, TroubleError
from harness.ledger.ledger import Ledger
from harness.ledger.locks import InUseError, is_in_use, runs_lock
from harness.tracking.store import making_cpu_s, tracking_uri, trouble
from harness.tracking.study_runs import Repairs, Status, StudyRuns

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
PATIENCE_S = 60.0  # time limit of a close without progress
NEWS_S = 5.0  # a longer close is reported after this time, then after twice the time, and so on
_LOOK_S = 0.5
# What a sweep shows while it runs may be so old, or this multiple of the time that it takes to show it.
PROGRESS_S, PROGRESS_PAUSES = 10.0, 100  # the parent run's summary, which takes seconds in a long study
OPEN_S, OPEN_PAUSES = 2.0, 25  # running trials and their curves


class Patience:
    """A time limit that starts again with each progress."""

    def __init__(self, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience_s, self._clock = patience_s, clock
        self._seen: object = None
        self._moved_at = clock()

    def lasts(self, trace: object) -> bool:
        """Whether the limit is not reached; a changed value is progress."""
        if trace != self._seen:
            self._seen, self._moved_at = trace, self._clock()
        return self._clock() - self._moved_at < self._patience_s


class Pace:
    """Limits how often something is done: every `every_s`, but at most a share 1 / `pauses` of the time.

    It is due `every_s` after its start.
    """

    def __init__(self, every_s: float, pauses: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._pauses, self._clock = every_s, pauses, clock
        self._due_s = clock() + every_s

    @property
    def wait_s(self) -> float:
        """Seconds until it is due."""
        return max(0.0, self._due_s - self._clock())

    def run_if_due(self, action: Callable[[], None]) -> None:
        began_s = self._clock()
        if began_s >= self._due_s:
            action()
            ended_s = self._clock()
            self._due_s = ended_s + max(self._every_s, self._pauses * (ended_s - began_s))


class Tracker:
    """Logs one study's runs to MLflow in its own thread, so that training never waits.

    If MLflow is unavailable, it retries with growing intervals. The ledger has all results, so nothing is lost.

    Args:
        ledger_path: The ledger; the thread opens its own connection.
        home: Folder of all state.
        study: The study's name; its row is in the ledger.
        warn: Called from the thread with one line, once when trouble begins and once when it ends.

    Raises:
        InputError: MLFLOW_TRACKING_URI is not a valid address.
    """

    def __init__(self, ledger_path: Path, home: Path, study: str, warn: Callable[[str], None]) -> None:
        self._ledger_path, self._home, self._study, self._warn = ledger_path, home, study, warn
        self._uri = tracking_uri(home)
        self._wake, self._closing = threading.Event(), threading.Event()
        self._end_status: Status | None = None
        self._wait_s = FIRST_WAIT_S
        self._in_trouble, self._is_done = False, False
        self._runs: StudyRuns | None = None
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Signals new results in the ledger."""
        self._wake.set()

    def close(self, limit_s: float = math.inf, *, is_finished: bool | None = None) -> int:
        """Logs the remaining runs; returns the number of trials that are still missing.

        It continues while there is progress, within `limit_s`: a store is being created, runs are logged.

        Args:
            limit_s: Time limit.
            is_finished: Whether the study has ended; None: if its budget is used.
        """
        if is_finished is not None:
            self._end_status = "FINISHED" if is_finished else "KILLED"
        self._closing.set()
        self._wake.set()
        self._wait(limit_s)
        num_left = self._num_left()
        if not self._is_done:
            missing = f"{num_left} trials" if num_left else "the summary"
            self._warn(f"MLflow lacks {missing} of {self._study}; `harness sync` brings that there")
        return num_left

    def _wait(self, limit_s: float) -> None:
        """Waits until the thread has ended or makes no more progress."""
        started, news_s, patience = time.monotonic(), NEWS_S, Patience(PATIENCE_S)

        def trace() -> tuple[object, ...]:
            """A value that changes while the thread makes progress."""
            return id(self._runs), self._runs and self._runs.num_steps, making_cpu_s(self._uri)

        while self._thread.is_alive() and patience.lasts(trace()):
            waited_s = time.monotonic() - started
            if waited_s >= limit_s:
                return
            if waited_s >= news_s:
                self._warn(self._news())
                news_s = 2 * waited_s
            self._thread.join(min(_LOOK_S, limit_s - waited_s))

    def _news(self) -> str:
        with closing(Ledger(self._ledger_path, say=self._warn)) as ledger:
            num_left, num_runs = len(ledger.untracked(self._study)), sum(1 for _ in ledger.finished(self._study))
        store = "" if making_cpu_s(self._uri) is None else "its store is being made; "
        left = f"{num_left} of {num_runs} runs" if num_left else "the summary"
        return f"MLflow: {store}{left} to bring; Ctrl-C leaves the rest to `harness sync`"

    def _num_left(self) -> int:
        with closing(Ledger(self._ledger_path, say=self._warn)) as ledger:
            return len(ledger.untracked(self._study))

    def _has_got_on(self, num_left: int) -> bool:
        try:
            return self._num_left() < num_left
        except TroubleError:
            return False

    def _run(self) -> None:
        num_left = 0
        while True:
            try:
                with runs_lock(self._home, self._study), closing(Ledger(self._ledger_path, say=self._warn)) as ledger:
                    num_left = len(ledger.untracked(self._study))
                    self._work(ledger)
                self._is_done = True
                return
            except Exception as error:
                if not self._in_trouble:
                    self._warn(f"{trouble(self._uri, error)}; the sweep continues, its runs follow")
                self._in_trouble = True
            if self._closing.is_set() and not self._has_got_on(num_left):
                return
            self._closing.wait(self._wait_s)
            self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)

    def _work(self, ledger: Ledger) -> None:
        """Logs runs until closed; passes on exceptions."""
        runs = self._runs = StudyRuns(self._home, ledger, self._study)
        runs.reconcile("RUNNING")
        self._note_success(runs.repairs)
        progress, open_trials = Pace(PROGRESS_S, PROGRESS_PAUSES), Pace(OPEN_S, OPEN_PAUSES)
        while not self._closing.is_set():
            if self._wake.wait(open_trials.wait_s):
                self._wake.clear()
                runs.add_new()
            if not self._closing.is_set():
                open_trials.run_if_due(runs.show_open)
                progress.run_if_due(lambda: runs.show_progress("RUNNING"))
        runs.add_new()
        runs.finish(self._end_status)

    def _note_success(self, repairs: Repairs) -> None:
        if self._in_trouble:
            self._warn(f"MLflow answers again; all finished trials of {self._study} are there")
        for problem in repairs.problems:
            self._warn(problem)
        self._in_trouble, self._wait_s = False, FIRST_WAIT_S


@dataclass(frozen=True)
class SyncReport:
    """The result of a sync.

    Attributes:
        repairs: Repairs by study.
        num_missing: Finished trials that are still missing, because another process is logging their study.
    """

    repairs: dict[str, Repairs]
    num_missing: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether MLflow has all finished trials."""
        return self.num_missing == 0 and not any(repairs.problems for repairs in self.repairs.values())

    def __str__(self) -> str:
        lines = [f"{study}: {repairs}" for study, repairs in self.repairs.items()]
        if self.num_missing:
            lines.append(f"{self.num_missing} finished trials are not in MLflow yet")
        return "\n".join(lines) or "nothing to do"


def sync(home: Path, studies: Sequence[str], say: Callable[[str], None], *, is_idle: bool = False) -> SyncReport:
    """Makes MLflow match the ledger, also if runs were deleted, duplicated or left running.

    Args:
        home: Folder of all state, with the ledger.
        studies: Names of studies.
        say: Called with a message about a study that is skipped, because a sweep is logging its runs.
        is_idle: No trial of these studies runs, though this process may hold them.

    Raises:
        InputError: there is no such study, or MLFLOW_TRACKING_URI is not a valid address.
        TroubleError: MLflow is unavailable.
    """
    uri = tracking_uri(home)
    repairs: dict[str, Repairs] = {}
    num_missing = 0
    with closing(Ledger(home / "ledger.db", makes=False, say=say)) as ledger:
        unknown = sorted(set(studies) - set(ledger.study_names()))
        if unknown:
            raise InputError(f"study is {unknown[0]!r}; allowed: {', '.join(ledger.study_names()) or 'none yet'}")
        for study in studies:
            try:
                with runs_lock(home, study):
                    is_live = not is_idle and is_in_use(home, study)
                    repairs[study] = _sync_study(home, ledger, study, uri, is_live=is_live)
            except InUseError as error:
                say(str(error))
                num_missing += len(ledger.untracked(study))
    return SyncReport(repairs, num_missing)


def _sync_study(home: Path, ledger: Ledger, study: str, uri: str, *, is_live: bool) -> Repairs:
    try:
        runs = StudyRuns(home, ledger, study)
        runs.reconcile("RUNNING" if is_live else None, is_thorough=True)
    except TroubleError:  # for example the ledger's, which is not MLflow's fault
        raise
    except Exception as error:
        raise TroubleError(trouble(uri, error)) from error
    return runs.repairs
