"""The content of a trial's MLflow run, computed from the ledger only: the same input gives the same run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.ledger.ledger import Study
from harness.study.metrics import EPOCH_METRICS, Value, epoch_values, values
from harness.study.records import Attempt, Device, EpochReport, Outcome, Record, Role, Shown, TrialResult
from harness.study.spec import SweepSpec
from harness.support.provenance import PACKAGES, diff_file

_STATUS = {Outcome.COMPLETED: "FINISHED", Outcome.PRUNED: "FINISHED", Outcome.CANCELLED: "KILLED"}
_MAX_ERROR = 500
MAX_TAG = 8000  # characters; MLflow truncates or refuses longer text
_BASELINE_COLOR = "#ff00ff"  # different from MLflow's own colours, and visible on light and dark pages


class Point(NamedTuple):
    """One logged number; `time_ms` since 1970."""

    key: str
    value: float
    step: int
    time_ms: int


@dataclass(frozen=True)
class RunContent:
    """The required content of a run.

    Attributes:
        name: The displayed name.
        status: MLflow's status.
        start_ms, end_ms: Milliseconds since 1970.
        tags, params: As stored by MLflow, all text.
        points: Curves by epoch, and summary numbers at step 0.
    """

    name: str
    status: str
    start_ms: int
    end_ms: int
    tags: dict[str, str]
    params: dict[str, str]
    points: list[Point] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tags.update({key: text[:MAX_TAG] for key, text in self.tags.items()})

    @property
    def metrics(self) -> dict[str, float]:
        """The newest value of each metric."""
        return {point.key: point.value for point in self.points}


class Parent(NamedTuple):
    """The parents of a trial's run: the study's parent run, and the run of the trial that it continues."""

    run_id: str
    continues_run_id: str | None


def run_name(study: Study, record: Record) -> str:
    number, role = record.trial.number, record.trial.role
    confirmed = _confirmed(study, record)
    if confirmed:
        return f"{confirmed}-seed-{record.trial.seed}"
    return str(role) if role is Role.BASELINE and number == 0 else f"{role}-{number:03}"


def trial_content(study: Study, record: Record, last: Attempt, parent: Parent) -> RunContent:
    """The run of a trial that has its final result.

    Args:
        study: The trial's study.
        record: The trial, with its result.
        last: Its last attempt.
        parent: The parents of the run.
    """
    result = record.result
    if result is None:
        raise ValueError(f"trial {record.trial.uid} has no final result")
    start_ms = round(last.started_at_s * 1000)
    end_ms = start_ms + round(last.held_s * 1000)
    params = {**record.trial.params, "seed": record.trial.seed, "epochs": record.trial.epochs}
    summary = _finite(values(Shown.MLFLOW, study.spec, record))
    return RunContent(
        name=run_name(study, record),
        status=_STATUS.get(result.outcome, "FAILED"),
        start_ms=start_ms,
        end_ms=end_ms,
        tags=_tags(study, record, result, parent),
        params={key: str(value) for key, value in params.items()},
        points=[
            *_curves(study.spec, result.shown_curve, start_ms),
            *(Point(key, value, 0, end_ms) for key, value in summary.items()),
        ],
    )


def _finite(values: Mapping[str, Value]) -> dict[str, float]:
    # MLflow stores infinity as 1.8e308 and sorts NaN as if it were a number.
    return {key: float(value) for key, value in values.items() if value is not None and math.isfinite(value)}


def _curves(spec: SweepSpec, curve: tuple[EpochReport, ...], start_ms: int) -> Iterator[Point]:
    curves, wall_s = [metric.name for metric in EPOCH_METRICS if metric.is_curve], 0.0
    for epoch in curve:
        wall_s += epoch.seconds.wall
        numbers = epoch_values(spec, epoch)
        for key, value in _finite({key: numbers[key] for key in curves}).items():
            yield Point(key, value, epoch.epoch, start_ms + round(wall_s * 1000))


def _tags(study: Study, record: Record, result: TrialResult, parent: Parent) -> dict[str, str]:
    tags = {
        **study_tags(study),
        **_device_tags(record, result.device),
        "trial_uid": record.trial.uid,
        "trial": str(record.trial.number),
        "role": record.trial.role,
        "outcome": result.outcome,
        "attempts": str(record.attempts),
        "mlflow.parentRunId": parent.run_id,
        "mlflow.runName": run_name(study, record),
    }
    confirmed = _confirmed(study, record)
    if confirmed:
        tags["confirms"] = confirmed
    if record.trial.role is Role.BASELINE or confirmed == Role.BASELINE:
        tags["mlflow.runColor"] = _BASELINE_COLOR
    if result.error:
        tags["error"] = result.error[:_MAX_ERROR].replace("\0", "\N{REPLACEMENT CHARACTER}")  # PostgreSQL refuses it
    if result.reused_from:
        tags["reused_from"] = result.reused_from
    if record.trial.continues:
        tags["continues"] = record.trial.continues
    if parent.continues_run_id:
        tags["continues_run_id"] = parent.continues_run_id
    return {key: str(value) for key, value in tags.items()}


def _confirmed(study: Study, record: Record) -> str | None:
    """The configuration that a verdict's training confirms; None for other studies."""
    if not study.spec.is_verdict:
        return None
    number = study.spec.confirmed_trial(record.trial.params)
    return str(Role.BASELINE) if number is None else f"{Role.TRIAL}-{number:03}"


def _device_tags(record: Record, device: Device | None) -> dict[str, str]:
    if device is None:
        return {"gpu_time_source": "none"}
    return {
        "gpu_time_source": device.gpu_time_source,
        "device": device.name,
        "backend": device.backend,
        "timing_class": str(record.timing_class),
    }


def study_tags(study: Study) -> dict[str, str]:
    """The common tags of all runs of a study."""
    spec, provenance = study.spec, study.provenance
    tags = {
        "study": spec.study,
        "baseline": spec.baseline,
        "profile": spec.profile,
        "dataset": spec.dataset,
        "engine": spec.engine,
        "sampler": spec.sampler,
        "pruner": spec.pruner,
        "train_images": str(spec.train_images),
        "digest": spec.digest(),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": str(provenance.get("command") or "harness"),
    }
    if provenance.get("git_commit"):
        tags["mlflow.source.git.commit"] = str(provenance["git_commit"])
    if provenance.get("git_diff"):
        tags["uncommitted_changes"] = diff_file(str(provenance["git_diff"]))  # of the parent run's artifacts
    versions = [f"{name} {provenance[name]}" for name in ("python", *PACKAGES) if provenance.get(name)]
    return tags | ({"versions": ", ".join(versions)} if versions else {})
