"""Trainings of the check, on workers as a sweep starts them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from harness.execution.base import Died, EpochDone, Event, Finished, Job, Place, Ready
from harness.execution.local import LocalExecutor
from harness.gpu_check.site import Site
from harness.study.records import Outcome, Params, Role, Trial, TrialResult
from harness.study.spec import SweepSpec


@dataclass(frozen=True)
class Training:
    """One training: its result, and the wall seconds from its start to the arrival of its result."""

    result: TrialResult
    wall_s: float

    @property
    def hand_over_s(self) -> float:
        """Seconds of the wall time that no part of the training took: messages and their answers, setting up, reading
        the GPU."""
        return max(0.0, self.wall_s - self.result.seconds.wall)


def documented(epochs: int, *seeds: int) -> list[Trial]:
    """Trials of the documented network."""
    return [trial({}, epochs, seed) for seed in seeds]


def trial(params: Params, epochs: int, seed: int = 0) -> Trial:
    return Trial(f"gpu-check-{seed}", seed, params, seed, epochs, Role.BASELINE)


def train_each(
    site: Site, spec: SweepSpec, trials: Sequence[Trial], deadline_s: float, enough_s: float = math.inf
) -> list[Training]:
    """Trains the trials one after the other on one worker.

    Args:
        site: Where.
        spec: The study.
        trials: The trials.
        deadline_s: Monotonic.
        enough_s: A training stops after the epoch in which it has trained for so long, seconds.

    Raises:
        TimeoutError: the deadline came first.
        TroubleError: the worker cannot be started, or the framework does not see the GPU.
    """
    with closing(_Workers(site, spec, [site.place], deadline_s)) as workers:
        return [training for one in trials for training in workers.train([one], enough_s)]


def train_at_once(
    site: Site, spec: SweepSpec, trials: Sequence[Trial], deadline_s: float, enough_s: float = math.inf
) -> list[Training]:
    """Trains two trials at once on two workers that share the GPU; as `train_each`."""
    with closing(_Workers(site, spec, site.shared_places(), deadline_s)) as workers:
        return workers.train(trials, enough_s)


@dataclass
class _Running:
    started_s: float
    trained_s: float = 0.0


class _Workers:
    """One worker on each place, driven as by a sweep's loop."""

    def __init__(self, site: Site, spec: SweepSpec, places: list[Place], deadline_s: float) -> None:
        self._executor = LocalExecutor(spec, places, site.data_folder, site.logs)
        self._deadline_s = deadline_s
        self._idle: set[str] = set()
        self._running: dict[str, _Running] = {}
        self._done: dict[str, Training] = {}

    def train(self, trials: Sequence[Trial], enough_s: float) -> list[Training]:
        """Trains a trial on each worker; all start at once, when all are ready."""
        while len(self._idle) < len(trials):
            self._listen(enough_s)
        workers = sorted(self._idle)
        self._idle.clear()
        self._done.clear()
        self._running = {worker: _Running(time.monotonic()) for worker in workers}
        for worker, one in zip(workers, trials, strict=True):
            self._executor.start(worker, Job(one))
        while self._running:
            self._listen(enough_s)
        return [self._done[worker] for worker in workers]

    def close(self) -> None:
        self._executor.close()

    def _listen(self, enough_s: float) -> None:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        for event in self._executor.events(left_s):
            self._handle(event, enough_s)

    def _handle(self, event: Event, enough_s: float) -> None:
        if isinstance(event, Ready):
            self._idle.add(event.worker)
        elif isinstance(event, EpochDone):
            running = self._running[event.worker]
            running.trained_s += event.report.seconds.train
            self._executor.answer(event.worker, go_on=running.trained_s < enough_s)
        elif event.worker in self._running:
            running = self._running.pop(event.worker)
            result = event.result if isinstance(event, Finished) else _lost(event)
            self._done[event.worker] = Training(result, time.monotonic() - running.started_s)
        else:  # it died between two trials
            self._idle.discard(event.worker)


def _lost(event: Died) -> TrialResult:
    outcome = Outcome.OUT_OF_MEMORY if event.out_of_memory else Outcome.CRASHED
    return TrialResult(outcome, f"worker {event.reason}")
