"""The trials of a study that are being trained now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.ledger.ledger import Ledger
from harness.ledger.locks import is_in_use
from harness.study.formatting import changed, settings
from harness.study.metrics import unless_trained_on
from harness.study.records import Attempt, Role, Scalar
from harness.study.spec import SweepSpec

_MAX_LINES = 8


@dataclass(frozen=True)
class RunningTrial:
    """A trial that is being trained.

    Attributes:
        trial: Its number.
        role: Why it is run.
        attempt: Number of this attempt, from 1.
        worker: Its worker.
        epoch: Number of finished epochs.
        epochs: Number of epochs at its end.
        val_error_rate_pct: Validation error after the last finished epoch, percent; None if there is none.
        val_images: Number of images of this error.
        params: Its hyperparameters.
        changed: Those that differ from the documented values.
    """

    trial: int
    role: Role
    attempt: int
    worker: str
    epoch: int
    epochs: int
    val_error_rate_pct: float | None
    val_images: int | None
    params: dict[str, Scalar]
    changed: dict[str, Scalar]

    def __str__(self) -> str:
        """Such as "trial 7, epoch 3 of 8: 2.10 % of 1,000 images, units_1=96, otherwise as documented"."""
        error = f": {self.val_error_rate_pct:.2f} % of {self.val_images:,} images" if self.val_images else ""
        attempt = f", attempt {self.attempt}" if self.attempt > 1 else ""
        name = f"{'baseline' if self.role is Role.BASELINE else 'trial'} {self.trial}"
        text = f"{name}, epoch {self.epoch} of {self.epochs}{attempt}{error}"
        return f"{text}, {settings(self.changed)}, otherwise as documented" if self.changed else text


def running_trials(ledger: Ledger, spec: SweepSpec) -> list[RunningTrial]:
    """The trials that are being trained, in order of their numbers; none if no process works on the study."""
    if not is_in_use(ledger.path.parent, spec.study):
        return []
    attempts = ledger.open_attempts(spec.study).items()
    return [_running(ledger, spec, uid, attempt) for uid, attempt in attempts if attempt.outcome is None]


def lines(running: list[RunningTrial]) -> Iterator[str]:
    """A line for each, up to a limit."""
    yield from map(str, running[:_MAX_LINES])
    if len(running) > _MAX_LINES:
        yield f"and {len(running) - _MAX_LINES} more"


def _running(ledger: Ledger, spec: SweepSpec, uid: str, attempt: Attempt) -> RunningTrial:
    trial = ledger.record(uid).trial
    last = ledger.last_epoch(uid, attempt.number)
    return RunningTrial(
        trial=trial.number,
        role=trial.role,
        attempt=attempt.number,
        worker=attempt.worker,
        epoch=last.epoch if last else 0,
        epochs=trial.epochs,
        val_error_rate_pct=unless_trained_on(spec, last.val_error_rate_pct) if last else None,
        val_images=unless_trained_on(spec, last.val_images) if last else None,
        params=dict(trial.params),
        changed=changed(trial.params, spec.baseline_params),
    )
