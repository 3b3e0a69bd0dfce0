"""The display of a running sweep: a live region on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import RLock
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.planning.forecast import TimeLeft
from harness.study.formatting import duration, time_range
from harness.study.metrics import test_error_rate_pct, unless_trained_on
from harness.study.records import EpochReport, Outcome, Trial, TrialResult
from harness.study.spec import SweepSpec
from harness.support.standard_streams import at_words

QUIET_S = 10.0  # plain lines: an epoch or the progress is written after this time without a line

# The live region has few columns: lines narrower than the window survive a change of its size. Only what a trial trains
# comes after `WIDTH` columns.
WIDTH = 60
BAR_WIDTH = 24
PLAN_INDENT = 10  # of the values in the lines of a plan
NAME_WIDTH = 12
ERROR_WIDTH = 18
SO_FAR_WIDTH = 29
RESULT_LINES = 3
OTHER_LINES = 4 + RESULT_LINES  # of the region, without the workers', and one free line above


@dataclass(frozen=True)
class HowFar:
    """The progress of a study.

    Attributes:
        done: Number of trials with a final result.
        total: The same at the end of the budget.
        left: Predicted time for the rest; None if unknown.
        results: Its best so far in words (`harness.study.findings.so_far`); empty if there is none.
    """

    done: int
    total: int
    left: TimeLeft | None = None
    results: str = ""


class Display(Protocol):
    """Shows the events of a sweep. One thread calls the methods; any thread or signal handler may call `note`.

    Nothing is written after `close`. Leaving the context calls `close`.
    """

    def plan(self, lines: Sequence[str]) -> None:
        """Shows the plan of the sweep."""

    def started(self, trial: Trial, worker: str, attempt: int, what: str) -> None:
        """A worker started a trial, which trains `what` (`harness.study.seeds`); attempts count from 1."""

    def epoch(self, spec: SweepSpec, trial: Trial, worker: str, report: EpochReport) -> None:
        """A worker finished an epoch of a trial of the study `spec`."""

    def retried(self, trial: Trial, result: TrialResult) -> None:
        """An attempt failed and will be repeated."""

    def finished(
        self, spec: SweepSpec, trial: Trial, result: TrialResult, what: str, reused_from: str | None = None
    ) -> None:
        """A trial, which trained `what`, has its final result.

        `reused_from` names the trial whose result it took over.
        """

    def progress(self, state: HowFar) -> None:
        """Shows the progress of the study."""

    def note(self, text: str) -> None:
        """Writes one line."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_display(stream: TextIO) -> Display:
    """A live display on a terminal; a plain one if `stream` is no terminal, or NO_COLOR or a simple TERM is set."""
    is_simple = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    if not stream.isatty() or is_simple or os.environ.get("NO_COLOR"):
        return PlainDisplay(stream)
    return LiveDisplay(stream)


class PlainDisplay:
    """Lines without escape codes, few enough for a log file.

    Args:
        stream: Where to write.
        clock: Monotonic seconds.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._lines = _Lines(self._write)
        self._written_at = self._shown_at = float("-inf")
        self._done = -1

    def plan(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._lines.add(line)

    def started(self, trial: Trial, worker: str, attempt: int, what: str) -> None:
        again = f" (attempt {attempt})" if attempt > 1 else ""
        if trial.number == 0 or again:
            self._lines.add(f"{name(trial):<{NAME_WIDTH}}started on {worker}{again}")

    def epoch(self, spec: SweepSpec, trial: Trial, worker: str, report: EpochReport) -> None:
        if self._clock() - self._written_at >= QUIET_S:
            self._lines.add(f"{name(trial):<{NAME_WIDTH}}{_so_far(trial, _Epoch(spec, report))}")

    def retried(self, trial: Trial, result: TrialResult) -> None:
        self._lines.add(_retry(trial, result))

    def finished(
        self, spec: SweepSpec, trial: Trial, result: TrialResult, what: str, reused_from: str | None = None
    ) -> None:
        self._lines.add(_end(spec, trial, result, what, reused_from))

    def progress(self, state: HowFar) -> None:
        is_due = state.done == state.total or self._clock() - self._shown_at >= QUIET_S
        if state.done != self._done and is_due:
            self._done, self._shown_at = state.done, self._clock()
            self._lines.add("; ".join(filter(None, [_how_far(state), state.results])))

    def note(self, text: str) -> None:
        self._lines.add(text)

    def close(self) -> None:
        self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, line: str) -> None:
        self._written_at = self._clock()
        print(line, file=self._stream, flush=True)


@dataclass(frozen=True)
class _Epoch:
    """An epoch of a trial of the study `spec`."""

    spec: SweepSpec
    report: EpochReport


@dataclass(frozen=True)
class _Busy:
    """A worker's running trial."""

    trial: Trial
    what: str  # it trains
    since: float  # monotonic
    last: _Epoch | None = None


class LiveDisplay:
    """A line per worker, a progress bar and the best so far, below the lines of finished trials."""

    def __init__(self, stream: TextIO) -> None:
        self._workers: dict[str, _Busy | None] = {}
        self._state: HowFar | None = None
        self._lines = _Lines(self._write)
        self._console = Console(file=stream)
        self._live = Live(console=self._console, get_renderable=self._region, transient=True)

    def plan(self, lines: Sequence[str]) -> None:
        for line in lines:
            for part in at_words(line, self._console.width, indent=PLAN_INDENT):
                self._lines.add(part)

    def started(self, trial: Trial, worker: str, attempt: int, what: str) -> None:
        self._show(worker, _Busy(trial, what, time.monotonic()))
        if not self._live.is_started and not self._lines.is_closed:
            self._live.start()

    def epoch(self, spec: SweepSpec, trial: Trial, worker: str, report: EpochReport) -> None:
        busy = self._workers[worker]
        if busy:
            self._show(worker, replace(busy, last=_Epoch(spec, report)))

    def retried(self, trial: Trial, result: TrialResult) -> None:
        self._free(trial)
        self._lines.add(_retry(trial, result))

    def finished(
        self, spec: SweepSpec, trial: Trial, result: TrialResult, what: str, reused_from: str | None = None
    ) -> None:
        self._free(trial)
        self._lines.add(_end(spec, trial, result, what, reused_from))

    def progress(self, state: HowFar) -> None:
        self._state = state

    def note(self, text: str) -> None:
        self._lines.add(text)

    def close(self) -> None:
        self._lines.close()
        self._live.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _free(self, trial: Trial) -> None:
        for worker, busy in self._workers.items():
            if busy and busy.trial.uid == trial.uid:
                self._show(worker, None)

    def _show(self, worker: str, busy: _Busy | None) -> None:
        # A new dictionary each time: the drawing thread needs no lock, which could deadlock in a signal handler.
        self._workers = {**self._workers, worker: busy}

    def _write(self, line: str) -> None:
        for part in at_words(line, self._console.width, indent=NAME_WIDTH):
            self._console.print(Text(part))

    def _region(self) -> RenderableType:
        workers = list(self._workers.items())
        room = max(1, self._console.height - OTHER_LINES)
        lines: list[RenderableType] = [
            _worker_line(worker, busy, self._console.width) for worker, busy in workers[:room]
        ]
        if len(workers) > room:
            lines.append(Text(f"and {len(workers) - room} more workers", "dim"))
        state = self._state
        if state:
            lines.append(self._bar(state))
            results = at_words(state.results, min(WIDTH, self._console.width), max_lines=RESULT_LINES)
            lines += [Text(line, "bold", no_wrap=True, overflow="ellipsis") for line in results]
        return Group(*lines)

    def _bar(self, state: HowFar) -> RenderableType:
        text = _how_far(state)
        row = Table.grid(padding=(0, 2))
        width = max(4, min(BAR_WIDTH, self._console.width - len(text) - 3))
        row.add_row(ProgressBar(max(state.total, 1), state.done, width=width), Text(text, no_wrap=True))
        return row


class _Lines:
    """Writes whole lines in order, from any thread or signal handler; none after `close`."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._waiting, self._lock = write, deque[str](), RLock()
        self._is_writing = self.is_closed = False

    def add(self, line: str) -> None:
        with self._lock:
            self._waiting.append("".join(c if c.isprintable() else " " for c in line))
            if self._is_writing or self.is_closed:
                return  # a signal handler added it while this thread writes; the loop below will write it
            self._is_writing = True
            try:
                while self._waiting:
                    self._write(self._waiting.popleft())
            finally:
                self._is_writing = False

    def close(self) -> None:
        with self._lock:
            self.is_closed = True


def name(trial: Trial) -> str:
    return f"{trial.role} {trial.number}"


def _worker_line(worker: str, busy: _Busy | None, width: int) -> Text:
    line = Text(f"{worker}  ", no_wrap=True, overflow="ellipsis")
    if busy is None:
        return line.append("waiting", "dim")
    line.append(f"{name(busy.trial):<{NAME_WIDTH}}", "bold")
    line.append(f"{_so_far(busy.trial, busy.last):<{SO_FAR_WIDTH}}")
    line.append(f"{duration(time.monotonic() - busy.since):>7}", "dim")
    room = width - len(line) - 2
    if room > NAME_WIDTH:
        (what,) = at_words(busy.what, room, max_lines=1)
        line.append(f"  {what}", "dim")
    return line


def _so_far(trial: Trial, last: _Epoch | None) -> str:
    """The last epoch with its error; with its speed where there is no error to show."""
    if last is None:
        return f"epoch 0/{trial.epochs}"
    report = last.report
    error_pct = unless_trained_on(last.spec, report.val_error_rate_pct)
    epoch = f"epoch {report.epoch}/{trial.epochs}"
    if error_pct is None:
        return f"{epoch} {last.spec.train_images / max(report.seconds.train, 0.001):6,.0f} images/s"
    return f"{epoch} {_error(error_pct, report.val_images)}"


def _error(error_pct: float, num_images: int | None) -> str:
    """An error and its basis, since after an epoch fewer images are classified than at the end."""
    return f"{error_pct:6.2f} % of {num_images or 0:,}"


def _end(spec: SweepSpec, trial: Trial, result: TrialResult, what: str, reused_from: str | None) -> str:
    """One line for a finished trial."""
    reused = f"  reused from {reused_from}" if reused_from else ""
    error, how = _final_error(spec, result), _how(trial, result)
    return f"{name(trial):<{NAME_WIDTH}}{error:<{ERROR_WIDTH}}  {how:<6}  {what}{reused}"


def _final_error(spec: SweepSpec, result: TrialResult) -> str:
    """Error on the validation images; of a training on these images as well, on the test images."""
    if result.outcome not in (Outcome.COMPLETED, Outcome.PRUNED):
        return ""
    error_pct = unless_trained_on(spec, result.val_error_rate_pct)
    if error_pct is not None:
        return _error(error_pct, result.val_images)
    tested_pct = test_error_rate_pct(spec, result)
    return "" if tested_pct is None else f"{_error(tested_pct, spec.sizes['test'])} test images"


def _how(trial: Trial, result: TrialResult) -> str:
    if result.outcome is Outcome.COMPLETED:
        return duration(result.seconds.wall)
    if result.outcome is Outcome.PRUNED and result.last:
        return f"pruned after {result.last.epoch} of {trial.epochs} epochs"
    return _failure(result)


def _retry(trial: Trial, result: TrialResult) -> str:
    return f"{name(trial):<{NAME_WIDTH}}{_failure(result)}; it will be tried again"


def _failure(result: TrialResult) -> str:
    return result.outcome.replace("_", " ") + (f" ({result.error})" if result.error else "")


def _how_far(state: HowFar) -> str:
    left = state.left
    time_left = (
        "" if left is None or state.done >= state.total else f", about {time_range(left.low_s, left.high_s)} left"
    )
    return f"{state.done} of {state.total} trials{time_left}"
