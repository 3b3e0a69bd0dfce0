"""The content of a trial's MLflow run, computed from the ledger only: the same input gives the same run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, NamedTuple

from baselines.recipe import Recipe
from baselines.settings import Needs, marked
from harness.ledger.reader import Study
from harness.study.comparability import Configuration
from harness.study.metrics import EPOCH_METRICS, Value, epoch_values, values
from harness.study.records import Attempt, Device, EpochReport, Outcome, Params, Record, Role, Shown
from harness.study.spec import SweepSpec
from harness.support.provenance import PACKAGES, diff_file
from harness.tracking.shown_curve import TimedEpoch, shown_curve

RUNNING = "running"  # tag `outcome` of a trial whose attempt runs
# MLflow draws a failed run in red. A configuration that was refused for its size is no failure.
_STATUS = {
    None: "RUNNING",
    Outcome.COMPLETED: "FINISHED",
    Outcome.PRUNED: "FINISHED",
    Outcome.INFEASIBLE: "FINISHED",
    Outcome.CANCELLED: "KILLED",
}
NOTE = "mlflow.note.content"  # tag: the description, Markdown
PROGRESS = "progress"  # tag: how far a training or a study is, in words
MEAN = "mean_error"  # tag: of its configuration over several seeds, in words
_COMMIT, _CHANGES = "mlflow.source.git.commit", "uncommitted_changes"  # tags
_CURVE_SINCE = "curve_since_attempt"  # tag with the first attempt that the curve shows
_MAX_ERROR = 500
# Tags that only some trainings have. A run that has one without reason says what the ledger does not.
_SOMETIMES = frozenset({MEAN, "confirms", "error", "reused_from", "continues", _COMMIT, _CHANGES})
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
        own_tags: Tags that a run has only if `tags` has them; people may add any others.
        extra_params: Parameters that a run of an earlier version has as well: settings without effect.
        curves: Numbers by step; while the run is RUNNING, points are added at the end only.
        summary: Numbers at step 0.
        is_open: It is of a trial without a final result.
    """

    name: str
    status: str
    start_ms: int
    end_ms: int
    tags: dict[str, str]
    params: dict[str, str]
    own_tags: frozenset[str] = frozenset()
    extra_params: dict[str, str] = field(default_factory=dict)
    curves: list[Point] = field(default_factory=list)
    summary: list[Point] = field(default_factory=list)
    is_open: bool = False

    def __post_init__(self) -> None:
        self.tags.update({key: text[:MAX_TAG] for key, text in self.tags.items()})

    @property
    def wrong_tags(self) -> frozenset[str]:
        """Tags that a run must not have."""
        return self.own_tags - self.tags.keys()

    @property
    def points(self) -> list[Point]:
        return [*self.curves, *self.summary]

    @property
    def allowed_params(self) -> dict[str, str]:
        """All parameters that a run may have; MLflow never removes one."""
        return self.params | self.extra_params

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


def trial_content(
    study: Study,
    record: Record,
    attempts: Sequence[Attempt],
    curves: Mapping[int, Sequence[EpochReport]],
    parent: Parent,
    mean: str | None = None,
) -> RunContent:
    """The run of a trial that was started.

    A trial that has its final result shows all its numbers. Another one shows its curve so far and is RUNNING while an
    attempt runs, else KILLED, since it was interrupted or waits for another attempt.

    Args:
        study: The trial's study.
        record: The trial.
        attempts: Its attempts, in order.
        curves: Their epochs, by the attempt's number.
        parent: The parents of the run.
        mean: The mean error of its configuration (`means`); None: of one seed.
    """
    result, last = record.result, attempts[-1]
    curve = shown_curve(attempts, curves, is_final=result is not None)
    summary = {} if result is None else _finite(values(Shown.MLFLOW, study.spec, record))
    params, extra_params = _params(study.spec, record)
    tags = _tags(study, record, last, parent)
    tags |= {_CURVE_SINCE: str(curve.since_attempt), PROGRESS: _progress(study.spec, record, curve.epochs)}
    tags |= {MEAN: mean} if mean else {}
    return RunContent(
        name=run_name(study, record),
        status=_STATUS.get(last.outcome if result is None else result.outcome, "FAILED" if result else "KILLED"),
        start_ms=curve.start_ms,
        end_ms=curve.end_ms,
        tags=tags,
        params=params,
        own_tags=_SOMETIMES,
        extra_params=extra_params,
        curves=list(_curve_points(study.spec, curve.epochs)),
        summary=[Point(key, value, 0, curve.end_ms) for key, value in summary.items()],
        is_open=result is None,
    )


def means(found: Mapping[str, Configuration]) -> dict[str, str]:
    """The mean errors of configurations with several seeds, by trial like these (`comparability.by_uid`)."""
    return {
        uid: f"{one.mean_error_pct:.2f} % of {one.num_seeds} seeds" for uid, one in found.items() if one.num_seeds > 1
    }


def can_become(run_tags: Mapping[str, str], content: RunContent) -> bool:
    """Whether a run has no point of an attempt that `content` leaves out; MLflow never removes points."""
    since = content.tags.get(_CURVE_SINCE)
    return run_tags.get(_CURVE_SINCE, since) == since


def _params(spec: SweepSpec, record: Record) -> tuple[dict[str, str], dict[str, str]]:
    """All settings of a training, searched and fixed ones, and apart from them those without effect."""
    trial = record.trial
    values = _with_defaults(spec, trial.params)
    idle = {name for name, need in _needs(spec).items() if values[need.setting] not in need.values}
    settings: dict[str, Any] = {
        **values,
        **trial.params,
        "precision": spec.precision,
        "seed": trial.seed,
        "epochs": trial.epochs,
    }
    text = {key: str(value) for key, value in settings.items()}
    return {key: text[key] for key in text if key not in idle}, {key: text[key] for key in text if key in idle}


def always_shown(spec: SweepSpec) -> list[str]:
    """The hyperparameters that are a parameter of every run. MLflow draws no line for a run that lacks one."""
    needs, fixed = _needs(spec), _with_defaults(spec, {})

    def is_always(name: str) -> bool:
        need = needs.get(name)
        return need is None or (need.setting not in spec.space and fixed[need.setting] in need.values)

    return [name for name in spec.search_space if is_always(name)]


def _with_defaults(spec: SweepSpec, params: Params) -> dict[str, Any]:
    """All settings of the network and the recipe with these hyperparameters."""
    return {**spec.network_settings(params), **asdict(spec.trial_recipe(params))}


def _needs(spec: SweepSpec) -> dict[str, Needs]:
    """The settings that have an effect only with some values of another one."""
    config: Any = type(spec.architecture.DOCUMENTED) if spec.has_code else Recipe  # mypy takes no type for hashable
    return _needs_of(config)


@cache
def _needs_of(config: type) -> dict[str, Needs]:
    """Those of a network with this `Config`. Cached, since annotations are slow to read and each trial asks."""
    return marked(Recipe, Needs) | marked(config, Needs)


def _progress(spec: SweepSpec, record: Record, epochs: Sequence[TimedEpoch]) -> str:
    """How far a training is, for a column that a view shows from a trial's start: "epoch 3 of 12, 1.43 %"."""
    last = max((report for _, report in epochs), key=lambda report: report.epoch, default=None)
    text = f"epoch {last.epoch if last else 0} of {record.trial.epochs}"
    error_pct = epoch_values(spec, last)["val_error_rate_pct"] if last else None
    return text if error_pct is None else f"{text}, {error_pct:.2f} %"


def _finite(values: Mapping[str, Value]) -> dict[str, float]:
    # MLflow stores infinity as 1.8e308 and sorts NaN as if it were a number.
    return {key: float(value) for key, value in values.items() if value is not None and math.isfinite(value)}


def _curve_points(spec: SweepSpec, epochs: Iterable[TimedEpoch]) -> Iterator[Point]:
    for at_ms, report in epochs:
        numbers = epoch_values(spec, report)
        curves = {metric.curve: numbers[metric.name] for metric in EPOCH_METRICS if metric.curve}
        for key, value in _finite(curves).items():
            yield Point(key, value, report.epoch, at_ms)


def _tags(study: Study, record: Record, last: Attempt, parent: Parent) -> dict[str, str]:
    result = record.result
    tags = {
        **study_tags(study),
        **(_device_tags(record, result.device) if result else {}),
        "trial_uid": record.trial.uid,
        "trial": str(record.trial.number),
        "role": record.trial.role,
        "outcome": result.outcome if result else last.outcome or RUNNING,
        "attempts": str(record.attempts),
        "mlflow.parentRunId": parent.run_id,
        "mlflow.runName": run_name(study, record),
    }
    confirmed = _confirmed(study, record)
    if confirmed:
        tags["confirms"] = confirmed
    if record.trial.role is Role.BASELINE or confirmed == Role.BASELINE:
        tags["mlflow.runColor"] = _BASELINE_COLOR
    if result and result.error:
        tags["error"] = result.error[:_MAX_ERROR].replace("\0", "\N{REPLACEMENT CHARACTER}")  # PostgreSQL refuses it
    if result and result.reused_from:
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
        tags[_COMMIT] = str(provenance["git_commit"])
    if provenance.get("git_diff"):
        tags[_CHANGES] = diff_file(str(provenance["git_diff"]))  # of the parent run's artifacts
    versions = [f"{name} {provenance[name]}" for name in ("python", *PACKAGES) if provenance.get(name)]
    return tags | ({"versions": ", ".join(versions)} if versions else {})
