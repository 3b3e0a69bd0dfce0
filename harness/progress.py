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
        num_workers: How many trials run at once.
    """

    def __init__(self, spec: SweepSpec, records: Iterable[Record], used: Usage, num_workers: int) -> None:
        self._spec, self._used, self._num_workers = spec, used, num_workers
        self._held_s: list[float] = []
        self._device_s = used.device_s
        self.num_proposed = 0
        self.num_trials = 0
        self.num_baselines = 0
        self.best: Record | None = None
        self.baseline: Record | None = None
        for record in records:
            self.num_proposed += 1
            self.add(record)

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
            self._held_s.append(record.reserved_time_s)
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
            num_running: Searched trials on workers now.
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
        """Seconds until the budget is used at the pace so far; None before the first searched trial has ended."""
        if not self._held_s:
            return None
        remaining = max(0, self.total - self.done)
        seconds = sum(self._held_s) / len(self._held_s) * remaining / self._num_workers
        if self._spec.budget.wall_s is not None:
            seconds = min(seconds, max(0.0, self._spec.budget.wall_s - self._used.wall_s - wall_s))
        return seconds

    def _is_better(self, record: Record) -> bool:
        if record.trial.role is Role.BASELINE:
            return False
        best = self.best.result.error_rate_pct if self.best and self.best.result else None
        error = record.result.error_rate_pct if record.result else None
        return error is not None and (best is None or error < best)
