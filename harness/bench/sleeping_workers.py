"""Workers that sleep and answer: any number of them, in real time, without training anything."""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

from harness.bench.scripted_workers import ScriptedWorkers
from harness.execution.base import EpochDone, Event, Finished, Job

T = TypeVar("T")

DEVIATION = 0.1  # of the seconds that trials take, relative
SHORTEST = 0.01  # first trial, relative to a whole one


class TimeIsUpError(Exception):
    """The measured time is over."""


@dataclass
class Seen:
    """Events within the measured time.

    Attributes:
        next_s: Seconds from each trial's end to the worker's next trial.
        answer_s: Seconds from each epoch's end to the answer to continue or to stop.
        trained_s: Seconds of the epochs that ended.
        num_epochs: Number of these epochs.
        num_finished: Number of trials that ended.
        num_whole: The same, counting one that was stopped early by the part of it that was trained.
        coordinator_idle_s: Seconds in which the coordinator waited for workers.
    """

    next_s: list[float] = field(default_factory=list)
    answer_s: list[float] = field(default_factory=list)
    trained_s: float = 0.0
    num_epochs: int = 0
    num_finished: int = 0
    num_whole: float = 0.0
    coordinator_idle_s: float = 0.0


class Sleepers(ScriptedWorkers, Generic[T]):
    """An executor whose workers sleep for each epoch, until the time is up.

    All are ready at once. The first trial of each is shorter, by a factor between 0 and 1, so that later trials end at
    different times.

    Args:
        num_workers: Number of workers.
        epoch_s: Seconds of an epoch, mean over trials.
        warm_up_s: Seconds before the measured time, after which `seen` is reset.
        measured_s: Measured seconds; then `events` raises TimeIsUpError.
        look: Called by the loop's thread at the start and end of the measured time; `looks` has its results.
    """

    def __init__(
        self, num_workers: int, epoch_s: float, warm_up_s: float, measured_s: float, look: Callable[[], T]
    ) -> None:
        self.seen = Seen()
        self.looks: list[T] = []
        self.all_started_s: float | None = None  # when the last worker had its first trial
        self._mean_epoch_s, self._rng = epoch_s, random.Random(0)  # noqa: S311 - no secret
        self._epoch_s: dict[str, float] = {}  # of each worker's trial
        self._started = time.monotonic()
        self._warm_at = self._started + warm_up_s
        self._until, self._look = self._warm_at + measured_s, look
        self._coming: list[tuple[float, int, Event]] = []  # by when
        self._order = count()
        self._said_at: dict[str, float] = {}  # the last word of each worker
        super().__init__(num_workers)

    def start(self, worker: str, job: Job) -> None:
        now, is_first = time.monotonic(), worker not in self.training
        self.seen.next_s.append(now - self._said_at[worker])
        factor = max(SHORTEST, self._rng.random()) if is_first else self._rng.lognormvariate(0.0, DEVIATION)
        self._epoch_s[worker] = self._mean_epoch_s * factor
        super().start(worker, job)
        if is_first and len(self.training) == len(self.places):
            self.all_started_s = now - self._started

    def answer(self, worker: str, *, go_on: bool) -> None:
        self.seen.answer_s.append(time.monotonic() - self._said_at[worker])
        super().answer(worker, go_on=go_on)

    def events(self, timeout_s: float) -> list[Event]:
        before = time.monotonic()
        if not self.looks and before >= self._warm_at:
            self.seen = Seen()
            self.looks.append(self._look())
        elif before >= self._until:
            self.looks.append(self._look())
            raise TimeIsUpError
        wait_s = min(timeout_s, self._coming[0][0] - before if self._coming else timeout_s)
        if wait_s > 0:
            time.sleep(wait_s)
            self.seen.coordinator_idle_s += time.monotonic() - before
        return self._due(time.monotonic())

    def _due(self, now: float) -> list[Event]:
        events: list[Event] = []
        while self._coming and self._coming[0][0] <= now:
            said_at, _, event = heapq.heappop(self._coming)
            self._said_at[event.worker] = said_at
            events.append(event)
            if isinstance(event, EpochDone):
                self.seen.num_epochs += 1
                self.seen.trained_s += self._epoch_s[event.worker]
            elif isinstance(event, Finished):
                self.seen.num_finished += 1
                self.seen.num_whole += len(event.result.curve) / self.training[event.worker][0].epochs
        return events

    def _say(self, event: Event) -> None:
        in_s = self._epoch_s[event.worker] if isinstance(event, EpochDone) else 0.0
        heapq.heappush(self._coming, (time.monotonic() + in_s, next(self._order), event))
