"""How far a study is, whether its budget is used, and what it has found so far."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from harness.ledger import Usage
from harness.records import Outcome, Record, Role
from harness.spec import SweepSpec


class StopReason(Enum):
    """Why a sweep ended."""

    TRIALS = "all trials of the budget are done"
    WALL_TIME = "the time budget is used"
    DEVICE_TIME = "the device time budget is used"
    EXHAUSTED = "the space is exhausted: nothing new is left to try"
    INTERRUPTED = "interrupted"


class Progress:
    """Sums up a study: its past, then finished trials as they come.

    Args:
        spec: The study, for its budget.
        records: Its trials so far.
        used: What earlier sessions took of the budget.
    """

    def __init__(self, spec: SweepSpec, records: Iterable[Record], used: Usage) -> None:
        self._spec, self._used = spec, used
        self._device_s = used.device_s
        self.num_proposed = 0
        self.num_trials = 0
        self.num_baselines = 0
        self.best: Record | None = None
        self.baseline: Record | None = None
        for record in records:
            self.num_proposed += 1
            self.add(record)
        self._done_before = self.done

    def add(self, record: Record) -> None:
        """Takes in a trial with its final result."""
        result = record.result
        if result is None or result.outcome is Outcome.INFEASIBLE:
            return  # cost nothing, and uses up no budget
        if record.trial.role is Role.BASELINE:
            self.num_baselines += 1
            self.baseline = self.baseline or record
        else:
            self.num_trials += 1
        if result.outcome is Outcome.COMPLETED and record.trial.epochs == self._spec.epochs and self._is_better(record):
            self.best = record

    @property
    def done(self) -> int:
        return self.num_trials + self.num_baselines

    @property
    def total(self) -> int:
        return self._spec.budget.trials + self._spec.baseline_seeds

    def charge(self, device_s: float) -> None:
        """Takes in what an attempt has cost, whatever came of it."""
        self._device_s += device_s

    def used_up(self, wall_s: float, num_running: int) -> StopReason | None:
        """Why nothing more is to be started, if so.

        Args:
            wall_s: Seconds of the present session.
            num_running: Trials on workers now, or waiting for one, the baseline's apart.
        """
        if self.num_proposed < self._spec.baseline_seeds:
            return None  # the baseline is what everything is compared with: it is run whatever the budget says
        budget = self._spec.budget
        if self.num_trials + num_running >= budget.trials:
            return StopReason.TRIALS
        if budget.wall_s is not None and self._used.wall_s + wall_s >= budget.wall_s:
            return StopReason.WALL_TIME
        if budget.device_s is not None and self._device_s >= budget.device_s:
            return StopReason.DEVICE_TIME
        return None

    def seconds_left(self, wall_s: float) -> float | None:
        """Seconds until the budget is used at this session's pace; None before it has ended a trial."""
        done_now = self.done - self._done_before
        if done_now == 0:
            return None
        seconds = wall_s / done_now * max(0, self.total - self.done)
        if self._spec.budget.wall_s is not None:
            seconds = min(seconds, max(0.0, self._spec.budget.wall_s - self._used.wall_s - wall_s))
        return seconds

    def _is_better(self, record: Record) -> bool:
        if record.trial.role is not Role.TRIAL:
            return False
        best = self.best.result.error_rate_pct if self.best and self.best.result else None
        error = record.result.error_rate_pct if record.result else None
        return error is not None and (best is None or error < best)
