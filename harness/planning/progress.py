"""The progress of a study: its use of the budget, and its results so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum

from harness.ledger.reader import Usage
from harness.planning.cost_model import CostModel
from harness.planning.forecast import Forecast, Open, TimeLeft
from harness.study.comparability import Configurations
from harness.study.records import EpochReport, Outcome, Record, Role, Trial
from harness.study.spec import SweepSpec

MAX_PUT_OFF = 4  # trials too long for the rest of the budget, after which no more are proposed
GRACE = 0.05  # share of a time budget by which a running trial may exceed it


class StopReason(Enum):
    """Why a sweep ended."""

    TRIALS = "all searched trials of the budget are done"
    WALL_TIME = "the time budget has no room for another trial"
    DEVICE_TIME = "the device time budget has no room for another trial"
    EXHAUSTED = "the space is exhausted: nothing new is left to try"
    INTERRUPTED = "interrupted"


class Progress:
    """Sums up a study: its past, then each trial that finishes.

    Args:
        spec: The study, for its budget.
        records: Its trials so far.
        used: The earlier sessions' use of the budget.
        costs: Predicts its trials, fitted to `records`.
        num_reusable: Number of unfinished trials that will take over a result, as far as known: they need no time.
    """

    def __init__(
        self, spec: SweepSpec, records: Sequence[Record], used: Usage, costs: CostModel, num_reusable: int = 0
    ) -> None:
        self._spec, self._used, self._costs = spec, used, costs
        self._forecast = Forecast(spec, costs, records)
        self._device_s = used.device_s
        self._stopped: dict[str, StopReason] = {}  # trials stopped for this reason, by uid
        self.num_reusable = num_reusable
        self.num_proposed = 0
        self.num_trials = 0
        self.num_baselines = 0
        self.configurations = Configurations(spec)
        for record in records:
            self.num_proposed += 1
            self._count(record)

    def add(self, record: Record) -> None:
        """Adds a trial with its final result."""
        if record.result and record.result.reused_from:
            self.num_reusable = max(0, self.num_reusable - 1)
        self._costs.learn(record)
        self._forecast.add(record)
        self._count(record)

    @property
    def done(self) -> int:
        return self.num_trials + self.num_baselines

    @property
    def total(self) -> int:
        return self._spec.budget.trials + self._spec.baseline_seeds

    @property
    def num_baselines_left(self) -> int:
        return max(0, self._spec.baseline_seeds - self.num_baselines)

    @property
    def is_measured(self) -> bool:
        """Whether the predicted times come from trials on this device."""
        return self._costs.num_known > 0

    def charge(self, device_s: float) -> None:
        """Adds the cost of an attempt, with or without a result."""
        self._device_s += device_s

    # Arguments of each: `wall_s`, the seconds of this session, and `open_`, the unfinished trials.

    def reason_to_end(self, wall_s: float, open_: Open, stopped_by: StopReason | None = None) -> StopReason | None:
        """Why neither a pending nor a new trial can be started; None: one can.

        `stopped_by` says why nothing new is proposed, if that is known.
        """
        reasons = [self.reason_not_to_start(trial, wall_s, open_) for trial in open_.pending]
        if None in reasons:
            return None
        stopped_by = stopped_by or self.reason_not_to_propose(wall_s, open_)
        return reasons[0] if stopped_by and reasons else stopped_by  # waiting trials are the first reason

    def reason_not_to_propose(self, wall_s: float, open_: Open) -> StopReason | None:
        """Why no trial can be proposed any more; None: one can."""
        if self.num_proposed < self._spec.baseline_seeds:
            return None  # the baseline is needed for every comparison, so it runs with any budget
        num_open = sum(trial.role is not Role.BASELINE for trial in open_.trials)
        if self.num_trials + num_open >= self._spec.budget.trials:
            return StopReason.TRIALS
        put_off = [reason for trial in open_.pending if (reason := self.reason_not_to_start(trial, wall_s, open_))]
        if len(put_off) >= MAX_PUT_OFF:
            return put_off[0]
        return self._exceeded_budget(self._forecast.quarter_s, wall_s, open_)

    def is_in_finals(self, wall_s: float, open_: Open) -> bool:
        """Whether the study has come to the last part of its budget, which is for further seeds of the best."""
        budget, share = self._spec.budget, self._spec.finalists_share
        if not share:
            return False
        num_open = sum(trial.role is not Role.BASELINE for trial in open_.trials)
        used = [(self.num_trials + num_open) / budget.trials] if budget.trials else [1.0]
        if budget.wall_s is not None:
            used.append((self._used.wall_s + wall_s) / budget.wall_s)
        if budget.device_s is not None:
            used.append(self._committed_s(open_) / budget.device_s)
        return max(used) >= 1 - share

    def reason_not_to_start(self, trial: Trial, wall_s: float, open_: Open) -> StopReason | None:
        """The time budget that would end before a trial that starts now; None: there is time for it."""
        if trial.role is Role.BASELINE:
            return None
        if trial.uid in self._stopped:
            return self._stopped[trial.uid]
        return self._exceeded_budget(lambda: self._forecast.held_s(trial), wall_s, open_)

    def has_to_stop(self, trial: Trial, reports: Sequence[EpochReport], wall_s: float, open_: Open) -> bool:
        """Whether a running trial that has reported these epochs will end too late for a time budget.

        If so, it is not started again in this session.
        """
        if trial.role is Role.BASELINE or reports[-1].epoch >= trial.epochs:
            return False
        left_s, budget = self._costs.left_s(trial, reports), self._spec.budget
        if budget.wall_s is not None and self._used.wall_s + wall_s + left_s > (1 + GRACE) * budget.wall_s:
            self._stopped[trial.uid] = StopReason.WALL_TIME
        elif budget.device_s is not None and self._device_s + open_.held_s + left_s > (1 + GRACE) * budget.device_s:
            self._stopped[trial.uid] = StopReason.DEVICE_TIME
        return trial.uid in self._stopped

    def time_left(self, wall_s: float, open_: Open, num_workers: int) -> TimeLeft | None:
        """Remaining time of the study; None before any trial has been measured."""
        if not self.is_measured:
            return None
        return self.forecast(open_, num_workers).within(self.budget_left_s(wall_s, open_, num_workers))

    def forecast(self, open_: Open, num_workers: int) -> TimeLeft:
        """Remaining time for all trials of the budget, without its time limits."""
        num_open_baselines = sum(trial.role is Role.BASELINE for trial in open_.trials)
        num_baselines = max(0, self._spec.baseline_seeds - self.num_baselines - num_open_baselines)
        num_searched = max(0, self.total - self.done - len(open_.trials) - num_baselines)
        if self._spec.is_verdict:
            num_searched = max(0, num_searched - self.num_reusable)
        else:  # only those of the baseline are known before they are proposed
            num_baselines = max(0, num_baselines - self.num_reusable)
        return self._forecast.time_left(open_, num_baselines, num_searched, num_workers)

    def budget_left_s(self, wall_s: float, open_: Open, num_workers: int) -> float:
        """Seconds until a time budget is used; infinite without one."""
        budget, left_s = self._spec.budget, [math.inf]
        if budget.wall_s is not None:
            left_s.append(budget.wall_s - self._used.wall_s - wall_s)
        if budget.device_s is not None:
            left_s.append((budget.device_s - self._device_s - open_.held_s) / num_workers)
        return max(0.0, min(left_s))

    def _count(self, record: Record) -> None:
        result = record.result
        if result is None or result.outcome is Outcome.INFEASIBLE:
            return  # has no cost and does not count for the budget
        self.configurations.add(record)
        if record.trial.role is Role.BASELINE:
            self.num_baselines += 1
        else:
            self.num_trials += 1

    def _exceeded_budget(self, predict_s: Callable[[], float], wall_s: float, open_: Open) -> StopReason | None:
        budget = self._spec.budget
        if budget.wall_s is not None and self._used.wall_s + wall_s + predict_s() >= budget.wall_s:
            return StopReason.WALL_TIME
        if budget.device_s is not None and self._committed_s(open_) + predict_s() >= budget.device_s:
            return StopReason.DEVICE_TIME
        return None

    def _committed_s(self, open_: Open) -> float:
        """Device time used so far, plus the predicted time of running trials."""
        expected_s = self._forecast.each_held_s([running.trial for running in open_.running])
        in_all_s = (max(running.held_s, s) for running, s in zip(open_.running, expected_s, strict=True))
        return self._device_s + sum(in_all_s)
