"""Trials without training: results like real ones, for ledgers of any length and for the loop of a sweep."""

from __future__ import annotations

import random
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from harness.bench import synthetic_objective
from harness.execution.base import EpochDone, Event, Finished, Job, Place, Ready
from harness.ledger.ledger import Ledger
from harness.study.records import Device, EpochReport, Outcome, Role, Seconds, Trial, TrialResult
from harness.study.spec import SweepSpec

SHARE_STOPPED = 0.35  # of the searched trials, by a pruner
SEARCH_TIME_S = 0.01
NUM_VALIDATION_IMAGES = 10_000
NUM_TOGETHER = 1000  # trials that are filled in with one flush to the disk
DEVICE = Device("a processor", "cpu", "tensorflow", "float32", "none", threads=1, sharing=1)


class ScriptedWorkers:
    """An executor without training: its workers return each epoch's report and each trial's result at once.

    Others are made of it by what a trial reports and comes to (`report`, `result`), and by when that is heard (`_say`).
    """

    def __init__(self, num_workers: int = 1) -> None:
        self.places = [Place(f"worker-{i}", DEVICE.name, 1, num_workers) for i in range(num_workers)]
        self._events: deque[Event] = deque()
        self.training: dict[str, tuple[Trial, list[EpochReport]]] = {}  # what each worker trains, and how far it is
        for place in self.places:
            self._say(Ready(place.name))

    def start(self, worker: str, job: Job) -> None:
        self.training[worker] = (job.trial, [])
        self._train(worker)

    def events(self, timeout_s: float) -> list[Event]:
        return [self._events.popleft()] if self._events else []

    def answer(self, worker: str, *, go_on: bool) -> None:
        trial, curve = self.training[worker]
        if go_on and len(curve) < trial.epochs:
            self._train(worker)
        else:
            self._end(worker, self.result(trial, curve))

    def kill(self, worker: str) -> None: ...

    def close(self) -> None: ...

    def report(self, trial: Trial, epoch: int) -> EpochReport:
        return report(trial, epoch)

    def result(self, trial: Trial, curve: Sequence[EpochReport]) -> TrialResult:
        return result(trial, curve)

    def _train(self, worker: str) -> None:
        """Trains the next epoch."""
        trial, curve = self.training[worker]
        curve.append(self.report(trial, len(curve) + 1))
        self._say(EpochDone(worker, curve[-1]))

    def _end(self, worker: str, result: TrialResult) -> None:
        self._say(Finished(worker, result))
        self._say(Ready(worker))

    def _say(self, event: Event) -> None:
        self._events.append(event)


def report(trial: Trial, epoch: int) -> EpochReport:
    """An epoch with the error of `synthetic_objective`, rounded to whole images."""
    made = synthetic_objective.report(trial, epoch)
    num_wrong = round(NUM_VALIDATION_IMAGES * made.val_error_rate_pct / 100)
    error_pct = 100 * num_wrong / NUM_VALIDATION_IMAGES
    return replace(made, val_error_rate_pct=error_pct, val_images=NUM_VALIDATION_IMAGES)


def result(trial: Trial, curve: Sequence[EpochReport]) -> TrialResult:
    """The result of a trial with this curve, including its misclassified images."""
    seconds = Seconds(build=0.1, compile=1.5, train=4.0 * len(curve), evaluate=1.0, cpu=5.0 * len(curve))
    if len(curve) < trial.epochs:
        return TrialResult(Outcome.PRUNED, None, tuple(curve), seconds, num_params=500_000, device=DEVICE)
    num_wrong = round(curve[-1].val_images * curve[-1].val_error_rate_pct / 100)
    wrong = random.Random(trial.uid).sample(range(curve[-1].val_images), num_wrong)  # noqa: S311 - no secret
    return TrialResult(
        Outcome.COMPLETED,
        curve=tuple(curve),
        seconds=seconds,
        num_params=500_000,
        peak_memory_mb=600.0,
        device=DEVICE,
        wrong_images=tuple(sorted(wrong)),
        images_per_s=1000.0,
    )


def fill(ledger: Ledger, spec: SweepSpec, num_trials: int) -> None:
    """Ends trials of random configurations, the documented ones first, until the study has so many."""
    rng = random.Random(0)  # noqa: S311 - no secret
    first = len(ledger.history(spec.study))
    for start in range(first, num_trials, NUM_TOGETHER):
        with ledger.together():
            for number in range(start, min(start + NUM_TOGETHER, num_trials)):
                role = Role.BASELINE if number < spec.baseline_seeds else Role.TRIAL
                params = spec.baseline_params if role is Role.BASELINE else spec.search_space.sample(rng)
                trial = Trial(uuid.uuid4().hex, number, params, number, spec.epochs, role)
                is_stopped = role is Role.TRIAL and rng.random() < SHARE_STOPPED
                _end(ledger, spec, trial, 2 if is_stopped else spec.epochs)


def _end(ledger: Ledger, spec: SweepSpec, trial: Trial, num_epochs: int) -> None:
    """Commits a trial like the loop of a sweep."""
    ledger.propose(spec.study, trial, asks=int(trial.role is Role.TRIAL), search_time_s=SEARCH_TIME_S)
    attempt = ledger.start_attempt(trial.uid, "worker-0")
    curve = [report(trial, epoch) for epoch in range(1, num_epochs + 1)]
    for epoch in curve:
        ledger.add_epoch(trial.uid, attempt, epoch, 5.0 * epoch.epoch)
    ledger.finish_attempt(trial.uid, attempt, result(trial, curve), 5.0 * num_epochs, is_final=True)
    ledger.add_search_time(trial.uid, SEARCH_TIME_S)
