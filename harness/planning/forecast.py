"""Predicts the remaining time of a study, as a range."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from harness.planning.cost_model import CostModel, Floats, count_work
from harness.study.records import Outcome, Record, Role, Trial
from harness.study.spec import SweepSpec

NUM_RECENT = 15  # latest searched trials, for the size of new proposals and the share that is trained
NUM_FOR_QUARTER = 4  # least number of them for a quartile
WEIGHT_OF_SPACE = 5.0  # weight of random configurations of the space, as a number of trials
WEIGHT_OF_FULL = 2.0  # weight of the assumption that no trial is stopped early, as a number of trials
NUM_DEVIATIONS = 1.28  # each side: the range contains four of five true values


@dataclass(frozen=True)
class TimeLeft:
    """A range of wall time, seconds, that contains the true value in eight of ten cases."""

    low_s: float
    high_s: float

    def within(self, limit_s: float) -> TimeLeft:
        """The same range, limited to `limit_s`."""
        return TimeLeft(min(self.low_s, limit_s), min(self.high_s, limit_s))


class Held(Protocol):
    """A trial on a worker. There may be a thousand, so its values are computed only when they are read."""

    @property
    def trial(self) -> Trial: ...

    @property
    def held_s(self) -> float:
        """Seconds for which it has held its worker."""


@dataclass(frozen=True)
class Open:
    """The trials of a study that are proposed but not finished.

    Attributes:
        running: Those on workers.
        pending: Those that wait for a worker.
    """

    running: Sequence[Held] = ()
    pending: Sequence[Trial] = ()

    @property
    def trials(self) -> list[Trial]:
        return [*(running.trial for running in self.running), *self.pending]

    @property
    def held_s(self) -> float:
        """Sum of the seconds for which the running trials have held their workers."""
        return sum(running.held_s for running in self.running)


class Forecast:
    """Predicts the times of a study's trials, including those not proposed yet.

    Args:
        spec: The study.
        costs: Predicts single trials.
        records: Trials of the study, at least the newest ones.
    """

    def __init__(self, spec: SweepSpec, costs: CostModel, records: Iterable[Record] = ()) -> None:
        self._spec, self.costs = spec, costs
        self._epochs: dict[str, int] = {}  # by uid
        self._work: dict[str, Floats] = {}  # of open trials, by uid
        self._asked: deque[Floats] = deque(maxlen=NUM_RECENT)
        self._trained: deque[Floats] = deque(maxlen=NUM_RECENT)
        telling: deque[Record] = deque(maxlen=NUM_RECENT)
        for record in records:
            self._epochs[record.trial.uid] = record.trial.epochs
            telling.extend([record] if _tells(record) else [])
        for record in telling:
            self.add(record)

    def add(self, record: Record) -> None:
        """Adds the planned and the done work of a trial."""
        trial, result = record.trial, record.result
        self._epochs[trial.uid] = trial.epochs
        self._work.pop(trial.uid, None)
        if result is None or not _tells(record):
            return
        is_to_the_end = result.outcome is Outcome.COMPLETED
        self._asked.append(self.costs.work(trial, result.curve[0].epoch - 1))
        self._trained.append(count_work(self._spec, trial.params, len(result.curve), is_to_the_end=is_to_the_end))

    def held_s(self, trial: Trial) -> float:
        """Predicted seconds that the trial holds a worker if it is trained to its end."""
        return float(self.costs.held_s(self._work_of(trial)))

    def each_held_s(self, trials: Sequence[Trial]) -> list[float]:
        """The same for each of several trials."""
        held_s: list[float] = self.costs.held_s(np.array([self._work_of(t) for t in trials]).reshape(-1, 4)).tolist()
        return held_s

    def quarter_s(self) -> float:
        """Lower quartile of the predicted seconds that the search's proposals hold a worker."""
        asked_s = self._asked_s()
        return float(np.quantile(asked_s if len(asked_s) >= NUM_FOR_QUARTER else self.costs.typical_s(), 0.25))

    def time_left(self, open_: Open, num_baselines: int, num_searched: int, num_workers: int) -> TimeLeft:
        """Predicted seconds for the open trials and for those that are not proposed yet."""
        trials = open_.trials
        held_s = {trial.uid: seconds for trial, seconds in zip(trials, self.each_held_s(trials), strict=True)}
        searched_s = [held_s[trial.uid] for trial in trials if trial.role is not Role.BASELINE]
        share = self._trained_share(sum(searched_s))
        mean_s, deviation_s = self._searched_s(searched_s, share)

        def whole_s(trial: Trial) -> float:
            return held_s[trial.uid] * (share if trial.role is Role.TRIAL else 1.0)

        begun = [max(0.0, whole_s(running.trial) - running.held_s) for running in open_.running]
        waiting_s = sum(whole_s(trial) for trial in open_.pending) + num_baselines * self._baseline_s()
        total_s = sum(begun) + waiting_s + num_searched * mean_s
        # At the end some workers are idle while others finish their last trial.
        idle_s = (num_workers - 1) / 2 * mean_s if num_searched or waiting_s else 0.0
        wall_s = max([(total_s + idle_s) / num_workers, *begun])
        error_s = math.hypot(math.sqrt(num_searched) * deviation_s / num_workers, self.costs.error * wall_s)
        factor = math.exp(NUM_DEVIATIONS * error_s / wall_s) if wall_s else 1.0
        return TimeLeft(wall_s / factor, wall_s * factor)

    def _work_of(self, trial: Trial) -> Floats:
        if trial.uid not in self._work:
            self._work[trial.uid] = self.costs.work(trial, self._epochs.get(trial.continues or "", 0))
        return self._work[trial.uid]

    def _searched_s(self, open_s: Sequence[float], share: float) -> tuple[float, float]:
        """Mean and standard deviation of the seconds that a searched trial holds a worker."""
        space_s = self.costs.typical_s()
        asked_s = np.concatenate([self._asked_s(), open_s])[-NUM_RECENT:]
        weights = np.concatenate([np.full(len(space_s), WEIGHT_OF_SPACE / len(space_s)), np.ones(len(asked_s))])
        seconds = np.concatenate([space_s, asked_s])
        mean_s = float(np.average(seconds, weights=weights))
        variance = float(np.average((seconds - mean_s) ** 2, weights=weights))
        # A trial that is stopped early takes about half of the time on average.
        stopped = min(1.0, 2 * (1 - share))
        variance += mean_s**2 * (stopped * (1 - stopped) / 4 + self.costs.error**2)
        return share * mean_s, math.sqrt(variance)

    def _trained_share(self, open_s: float) -> float:
        """The share of the planned work of searched trials that is done; the rest is saved by stopping early.

        Short trials end first, so open trials count as trained to their end.
        """
        asked_s = self.costs.busy_s(np.array(self._asked).reshape(-1, 4))
        trained_s = self.costs.busy_s(np.array(self._trained).reshape(-1, 4))
        full_s = WEIGHT_OF_FULL * float(np.mean(self.costs.typical_s())) + open_s
        return float((full_s + trained_s.sum()) / (full_s + asked_s.sum()))

    def _asked_s(self) -> Floats:
        return self.costs.held_s(np.array(self._asked).reshape(-1, 4))

    def _baseline_s(self) -> float:
        return float(self.costs.held_s(count_work(self._spec, self._spec.baseline_params, self._spec.epochs)))


def _tells(record: Record) -> bool:
    """Whether it is a searched trial that was trained."""
    result = record.result
    has_trained = result is not None and bool(result.curve) and result.outcome.was_trained and not result.reused_from
    return has_trained and record.trial.role is not Role.BASELINE
