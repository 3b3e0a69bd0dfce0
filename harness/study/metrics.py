"""The numbers of a trial: name, value from a record, and the places where each is shown.

MLflow, the leaderboard, the exports and the tables for people use these lists. A number that is only measured and shown
is a field of `TrialResult` marked with `Shown`; any other number is added here. A name ends in its unit: `_pct`
percent, `_s` seconds, `_j` joules, `_mb` MiB, `_per_s` per second; `num_` and `_done` are counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from operator import attrgetter
from typing import Literal, TypeVar

from baselines.layers import Cost
from baselines.settings import marked
from harness.study.records import EpochReport, Meaning, Record, Shown, TrialResult
from harness.study.spec import SweepSpec
from harness.support.intervals import error_rate_interval_pct

LEADERBOARD = Shown.LEADERBOARD | Shown.LEADERBOARD_END | Shown.LEADERBOARD_IF_KNOWN

Value = float | int | None
T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """A trial's record with its study's settings, from which its numbers are read."""

    spec: SweepSpec
    record: Record

    @property
    def result(self) -> TrialResult:
        """The final result of a trial that has ended."""
        if self.record.result is None:
            raise ValueError(f"trial {self.record.trial.uid} has no final result")
        return self.record.result

    @cached_property
    def cost(self) -> Cost | None:
        """The cost of the network, in closed form; None if it is a user's own that was never run here."""
        return self.spec.cost(self.record.trial.params) if self.spec.has_code else None

    @cached_property
    def interval_pct(self) -> tuple[Value, Value]:
        """Wilson's 95 % interval of the validation error."""
        if self.result.error_rate_pct is None or self.result.val_images is None:
            return None, None
        return error_rate_interval_pct(self.result.error_rate_pct, self.result.val_images)


@dataclass(frozen=True)
class Metric:
    """A number of a trial.

    Attributes:
        name: Its name in MLflow, columns and attributes.
        kind: Type of its values.
        meaning: What it is, in a few words and with its unit.
        shown: Where it is shown.
        read: Gives its value; None without one.
        label: Title of its column in tables for people; empty: made from the name.
        of_validation: It is measured on the validation images, so it is empty if these are trained on.
        while_pending: It has a value before the trial has ended.
    """

    name: str
    kind: Literal["int", "float"]
    meaning: str
    shown: Shown
    read: Callable[[Reading], Value]
    label: str = ""
    of_validation: bool = False
    while_pending: bool = False

    def __post_init__(self) -> None:
        if Shown.TABLE in self.shown and not self.shown & LEADERBOARD:
            raise ValueError(f"{self.name} is shown in tables only; allowed: a column of the leaderboard as well")

    @property
    def dtype(self) -> str:
        """The type of a column with missing values."""
        return "Int64" if self.kind == "int" else "float64"

    @property
    def depends_on_device(self) -> bool:
        """Whether values may be compared only within one timing class: times, speeds and energies."""
        return self.name.endswith(("_s", "_j"))

    @property
    def title(self) -> str:
        """Title of its column in tables for people."""
        return self.label or with_unit(self.name)

    def text(self, value: Value) -> str:
        """A value in tables for people; empty without one."""
        if value is None or value != value:
            return ""
        if self.kind == "int":
            return f"{value:,}"
        return f"{value:.2f}" if self.name.endswith("_pct") else f"{value:,.1f}"


class Section(StrEnum):
    """Where MLflow draws the curves; the start of their names there.

    Sections come before the numbers without one, and those of the machine have a page of their own.
    """

    EPOCH = "epoch"
    MACHINE = "system"


@dataclass(frozen=True)
class EpochMetric:
    """A number of an epoch: a column of the export, and a curve in MLflow if it has a `section` there."""

    name: str
    kind: Literal["int", "float"]
    meaning: str
    read: Callable[[EpochReport], Value]
    section: Section | None = None
    of_validation: bool = False

    @property
    def curve(self) -> str | None:
        """Its name in MLflow; None if it is no curve."""
        return f"{self.section}/{self.name}" if self.section else None

    @property
    def dtype(self) -> str:
        return "Int64" if self.kind == "int" else "float64"


def test_error_rate_pct(spec: SweepSpec, result: TrialResult) -> float | None:
    """Error on the test images, percent; None unless they were read."""
    if result.test_wrong_images is None:
        return None
    return 100 * len(result.test_wrong_images) / spec.sizes["test"]


def _counted(reading: Reading, what: Literal["num_params", "flops_per_image"]) -> Value:
    return None if reading.cost is None else int(getattr(reading.cost, what))


def with_unit(name: str) -> str:
    """A metric's name in words: "peak memory MiB" for `peak_memory_mb`."""
    for ending, unit in (("_pct", "%"), ("_per_s", "per s"), ("_s", "s"), ("_j", "J"), ("_mb", "MiB")):
        if name.endswith(ending):
            name = f"{name.removesuffix(ending)} {unit}"
            break
    return name.removeprefix("num_").replace("_", " ")


_M, _L, _END, _KNOWN, _E, _O, _T = (
    Shown.MLFLOW,
    Shown.LEADERBOARD,
    Shown.LEADERBOARD_END,
    Shown.LEADERBOARD_IF_KNOWN,
    Shown.EXPORT,
    Shown.OPTUNA,
    Shown.TABLE,
)


def _measured() -> list[Metric]:
    """The fields of `TrialResult` that are marked with where they are shown, in order."""
    shown, meanings = marked(TrialResult, Shown), marked(TrialResult, Meaning)
    return [
        Metric(name, "float", meanings[name].text, where, attrgetter(f"result.{name}")) for name, where in shown.items()
    ]


METRICS: tuple[Metric, ...] = (
    Metric(
        "error_rate_pct",
        "float",
        "validation error of a trial that was trained to its end, percent",
        _M | _L | _E,
        lambda t: t.result.error_rate_pct,
        of_validation=True,
    ),
    Metric(
        "error_rate_ci_low_pct",
        "float",
        "lower end of its 95 % interval",
        _M | _L,
        lambda t: t.interval_pct[0],
        of_validation=True,
    ),
    Metric(
        "error_rate_ci_high_pct",
        "float",
        "upper end of its 95 % interval",
        _M | _L,
        lambda t: t.interval_pct[1],
        of_validation=True,
    ),
    Metric(
        "test_error_rate_pct",
        "float",
        "error on the test images, percent, which only verdicts read",
        _M | _L | _T,
        lambda t: test_error_rate_pct(t.spec, t.result),
        label="test error %",
    ),
    Metric(
        "val_error_rate_pct",
        "float",
        "validation error after the last epoch, also of a pruned trial, percent",
        _M | _END | _E,
        lambda t: t.result.val_error_rate_pct,
        of_validation=True,
    ),
    Metric(
        "val_images",
        "int",
        "number of images that this error was measured on",
        _M | _END | _E,
        lambda t: t.result.val_images,
        of_validation=True,
    ),
    Metric("epochs_done", "int", "completed epochs", _M | _END, lambda t: t.result.last.epoch if t.result.last else 0),
    Metric(
        "gpu_time_s",
        "float",
        "reserved GPUs times seconds of training; 0 without a GPU",
        _M | _L | _E | _O | _T,
        lambda t: t.record.gpu_time_s,
        label="GPU time s",
    ),
    Metric(
        "device_time_s",
        "float",
        "seconds of training on the device, CPU or GPU, from the network's first epoch",
        _M | _L | _E | _O | _T,
        lambda t: t.record.device_time_s,
    ),
    Metric(
        "train_time_s",
        "float",
        "seconds of training of the last attempt alone",
        _M | _E,
        lambda t: t.result.train_time_s,
    ),
    Metric("build_time_s", "float", "seconds to build the network", _E, lambda t: t.result.seconds.build),
    Metric("compile_time_s", "float", "seconds to compile the network", _M | _E, lambda t: t.result.seconds.compile),
    Metric(
        "eval_time_s",
        "float",
        "seconds of evaluation on the validation images",
        _M | _E,
        lambda t: t.result.seconds.evaluate,
    ),
    Metric("cpu_time_s", "float", "CPU seconds of all threads", _M | _E, lambda t: t.result.seconds.cpu),
    Metric(
        "reserved_time_s",
        "float",
        "seconds for which a device was reserved, lost attempts included",
        _M | _END | _E | _O,
        lambda t: t.record.reserved_time_s,
        while_pending=True,
    ),
    Metric(
        "search_time_s",
        "float",
        "seconds that the search took for this trial",
        _M | _E,
        lambda t: t.record.search_time_s,
        while_pending=True,
    ),
    Metric(
        "num_params",
        "int",
        "parameters of the network",
        _M | _L | _E | _O | _T,
        lambda t: _counted(t, "num_params") if t.result.num_params is None else t.result.num_params,
        label="params",
    ),
    Metric(
        "flops_per_image",
        "int",
        "floating point operations of one forward pass; a multiply and an add are two",
        _M | _L,
        lambda t: _counted(t, "flops_per_image"),
    ),
    Metric(
        "gpu_busy_time_s",
        "float",
        "seconds of training in which the GPU was busy",
        _M | _KNOWN | _E,
        lambda t: t.record.gpu_busy_time_s,
    ),
    Metric(
        "gpu_energy_j",
        "float",
        "energy of the GPU in training, joules",
        _M | _KNOWN | _E,
        lambda t: t.record.gpu_energy_j,
    ),
    *_measured(),
)

EPOCH_METRICS: tuple[EpochMetric, ...] = (
    EpochMetric("epoch", "int", "number of completed epochs", lambda epoch: epoch.epoch),
    EpochMetric(
        "train_loss", "float", "mean loss on the training images", lambda epoch: epoch.train_loss, Section.EPOCH
    ),
    EpochMetric(
        "train_error_rate_pct",
        "float",
        "error on the training images during the epoch, with augmentation and dropout, percent",
        lambda epoch: epoch.train_error_rate_pct,
        Section.EPOCH,
    ),
    EpochMetric(
        "val_loss",
        "float",
        "mean loss on the validation images",
        lambda epoch: epoch.val_loss,
        Section.EPOCH,
        of_validation=True,
    ),
    EpochMetric(
        "val_error_rate_pct",
        "float",
        "validation error, percent; before the last epoch on a part of the images",
        lambda e: e.val_error_rate_pct,
        Section.EPOCH,
        of_validation=True,
    ),
    EpochMetric("val_images", "int", "number of validation images", lambda epoch: epoch.val_images, of_validation=True),
    EpochMetric("epoch_train_s", "float", "seconds of training", lambda epoch: epoch.seconds.train, Section.MACHINE),
    EpochMetric(
        "epoch_eval_s", "float", "seconds of evaluation", lambda epoch: epoch.seconds.evaluate, Section.MACHINE
    ),
    EpochMetric("memory_mb", "float", "memory of the process, MiB", lambda epoch: epoch.memory_mb, Section.MACHINE),
    EpochMetric(
        "gpu_busy_pct",
        "float",
        "share of the training in which the GPU was busy, percent",
        lambda epoch: epoch.gpu_busy_pct,
        Section.MACHINE,
    ),
    EpochMetric(
        "gpu_memory_mb",
        "float",
        "peak memory in use on the GPU, MiB",
        lambda epoch: epoch.gpu_memory_mb,
        Section.MACHINE,
    ),
)


def meanings_in_mlflow() -> dict[str, str]:
    """What each metric of a trial's run means, by its name in MLflow: those of the trial, then those of each epoch."""
    of_epochs = {metric.curve: f"after each epoch: {metric.meaning}" for metric in EPOCH_METRICS if metric.curve}
    return {metric.name: metric.meaning for metric in metrics(Shown.MLFLOW)} | of_epochs


def unless_trained_on(spec: SweepSpec, measured: T) -> T | None:
    """What was measured on the validation images; None if the study trains on them, so that it is meaningless.

    Everything that shows such a number to people or writes it outside the ledger calls this.
    """
    return None if spec.trains_on_validation else measured


def metrics(where: Shown) -> list[Metric]:
    """The metrics that are shown there, in order."""
    return [metric for metric in METRICS if metric.shown & where]


def names(where: Shown) -> list[str]:
    """The same by name."""
    return [metric.name for metric in metrics(where)]


def values(where: Shown, spec: SweepSpec, record: Record) -> dict[str, Value]:
    """A trial's numbers that are shown there, by name; None without a value or if it is meaningless."""
    reading, has_ended = Reading(spec, record), record.result is not None

    def value(metric: Metric) -> Value:
        if not (has_ended or metric.while_pending):
            return None
        number = metric.read(reading)
        return unless_trained_on(spec, number) if metric.of_validation else number

    return {metric.name: value(metric) for metric in metrics(where)}


def epoch_values(spec: SweepSpec, report: EpochReport) -> dict[str, Value]:
    """An epoch's numbers by name; None if one is meaningless."""
    return {
        metric.name: unless_trained_on(spec, metric.read(report)) if metric.of_validation else metric.read(report)
        for metric in EPOCH_METRICS
    }
