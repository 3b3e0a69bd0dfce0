"""How far a study is, whether its budget has room for more, and what it has found so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum

from harness.ledger.ledger import Usage
from harness.planning.cost_model import CostModel
from harness.planning.forecast import Forecast, Open, TimeLeft
from harness.study.comparability import baseline_errors_pct, rank_key
from harness.study.records import EpochReport, Outcome, Record, Role, Trial
from harness.study.spec import SweepSpec

MAX_PUT_OFF = 4  # trials that were too long for what is left of the budget, before the search is asked no more
GRACE = 0.05  # of a time budget: a running trial that needs no more than this beyond it is let to its end


class StopReason(Enum):
    """Why a sweep ended."""

    TRIALS = "all trials of the budget are done"
    WALL_TIME = "the time budget has no room for another trial"
    DEVICE_TIME = "the device time budget has no room for another trial"
    EXHAUSTED = "the space is exhausted: nothing new is left to try"
    INTERRUPTED = "interrupted"


class Progress:
    """Sums up a study: its past, then finished trials as they come.

    Args:
        spec: The study, for its budget.
        records: Its trials so far.
        used: What earlier sessions took of the budget.
        costs: Predicts its trials, knowing what `records` have to tell.
    """

    def __init__(self, spec: SweepSpec, records: Sequence[Record], used: Usage, costs: CostModel) -> None:
        self._spec, self._used, self._costs = spec, used, costs
        self._forecast = Forecast(spec, costs, records)
        self._device_s = used.device_s
        self._overran: dict[str, StopReason] = {}  # trials that were stopped for it, by uid
        self.num_proposed = 0
        self.num_trials = 0
        self.num_baselines = 0
        self.best: Record | None = None
        self.baseline_errors_pct: list[float] = []
        for record in records:
            self.num_proposed += 1
            self._count(record)

    def add(self, record: Record) -> None:
        """Takes in a trial with its final result."""
        self._costs.learn(record)
        self._forecast.add(record)
        self._count(record)

    @property
    def done(self) -> int:
        return self.num_trials + self.num_baselines

    @property
    def total(self) -> int:
        return self._spec.budget.trials + self._spec.baseline_seeds

    def charge(self, device_s: float) -> None:
        """Takes in what an attempt has cost, whatever came of it."""
        self._device_s += device_s

    def used_up(self, wall_s: float, open_: Open) -> StopReason | None:
        """Why nothing more is to be proposed, if so.

        Args:
            wall_s: Seconds of the present session.
            open_: What is proposed and not done.
        """
        if self.num_proposed < self._spec.baseline_seeds:
            return None  # the baseline is what everything is compared with: it is run whatever the budget says
        num_open = sum(trial.role is not Role.BASELINE for trial in open_.trials)
        if self.num_trials + num_open >= self._spec.budget.trials:
            return StopReason.TRIALS
        put_off = [reason for trial in open_.pending if (reason := self.lack(trial, wall_s, open_))]
        if len(put_off) >= MAX_PUT_OFF:
            return put_off[0]
        return self._lack(self._forecast.quarter_s, wall_s, open_)

    def over(self, wall_s: float, open_: Open, stop: StopReason | None = None) -> StopReason | None:
        """Why nothing can be started any more, if so: nothing that is pending, and nothing new.

        `stop` says why nothing new is proposed, if that is known.
        """
        lacks = [self.lack(trial, wall_s, open_) for trial in open_.pending]
        stop = None if None in lacks else stop or self.used_up(wall_s, open_)
        return lacks[0] if stop and lacks else stop  # what waits for a larger budget is why it ends

    def lack(self, trial: Trial, wall_s: float, open_: Open) -> StopReason | None:
        """Which time budget would end before a trial that is started now; None: there is room for it."""
        if trial.role is Role.BASELINE:
            return None
        if trial.uid in self._overran:
            return self._overran[trial.uid]
        return self._lack(lambda: self._forecast.held_s(trial), wall_s, open_)

    def overruns(self, trial: Trial, reports: Sequence[EpochReport], wall_s: float, open_: Open) -> bool:
        """Whether a running trial that has reported these epochs will end too long after a time budget.

        If so, there is no room for it in this session any more.
        """
        if trial.role is Role.BASELINE or reports[-1].epoch >= trial.epochs:
            return False
        left_s, budget = self._costs.left_s(trial, reports), self._spec.budget
        if budget.wall_s is not None and self._used.wall_s + wall_s + left_s > (1 + GRACE) * budget.wall_s:
            self._overran[trial.uid] = StopReason.WALL_TIME
        elif budget.device_s is not None and self._device_s + open_.held_s + left_s > (1 + GRACE) * budget.device_s:
            self._overran[trial.uid] = StopReason.DEVICE_TIME
        return trial.uid in self._overran

    def time_left(self, wall_s: float, open_: Open, num_workers: int) -> TimeLeft | None:
        """How long the study will go on; None before any trial has shown how fast it goes."""
        if self._costs.num_known == 0:
            return None
        return self.forecast(open_, num_workers).within(self.budget_left_s(wall_s, open_, num_workers))

    def forecast(self, open_: Open, num_workers: int) -> TimeLeft:
        """How long all trials of the budget will take, whatever time it allows them."""
        num_open_baselines = sum(trial.role is Role.BASELINE for trial in open_.trials)
        num_baselines = max(0, self._spec.baseline_seeds - self.num_baselines - num_open_baselines)
        num_searched = max(0, self.total - self.done - len(open_.trials) - num_baselines)
        return self._forecast.time_left(open_, num_baselines, num_searched, num_workers)

    def budget_left_s(self, wall_s: float, open_: Open, num_workers: int) -> float:
        """Seconds until a time budget is used; infinite where there is none."""
        budget, left_s = self._spec.budget, [math.inf]
        if budget.wall_s is not None:
            left_s.append(budget.wall_s - self._used.wall_s - wall_s)
        if budget.device_s is not None:
            left_s.append((budget.device_s - self._device_s - open_.held_s) / num_workers)
        return max(0.0, min(left_s))

    def _count(self, record: Record) -> None:
        result = record.result
        if result is None or result.outcome is Outcome.INFEASIBLE:
            return  # cost nothing, and uses up no budget
        if record.trial.role is Role.BASELINE:
            self.num_baselines += 1
            self.baseline_errors_pct += baseline_errors_pct(self._spec, [record])
        else:
            self.num_trials += 1
            if self._is_better(record):
                self.best = record

    def _lack(self, predict_s: Callable[[], float], wall_s: float, open_: Open) -> StopReason | None:
        budget = self._spec.budget
        if budget.wall_s is not None and self._used.wall_s + wall_s + predict_s() >= budget.wall_s:
            return StopReason.WALL_TIME
        if budget.device_s is not None and self._committed_s(open_) + predict_s() >= budget.device_s:
            return StopReason.DEVICE_TIME
        return None

    def _committed_s(self, open_: Open) -> float:
        """Device time that is used, and that running trials will use."""
        expected_s = self._forecast.each_held_s([running.trial for running in open_.running])
        in_all_s = (max(running.held_s, s) for running, s in zip(open_.running, expected_s, strict=True))
        return self._device_s + sum(in_all_s)

    def _is_better(self, record: Record) -> bool:
        key = rank_key(self._spec, record) if record.trial.role is Role.TRIAL else None
        best = rank_key(self._spec, self.best) if self.best else None
        return key is not None and (best is None or key < best)
