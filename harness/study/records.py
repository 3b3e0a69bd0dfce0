"""Data exchanged with workers, and records: plain frozen types.

Times are seconds on a monotonic clock, error rates are percent, memory is MiB. Everything here
survives a round trip through JSON, because JSON is all that crosses a process boundary.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Flag, StrEnum, auto
from typing import Annotated

from baselines.settings import Since

Scalar = int | float | str | bool
_NUMBER = (int, float)  # `int | float` would be created again at each use
Params = Mapping[str, Scalar]


class Role(StrEnum):
    """Why a trial was run."""

    BASELINE = "baseline"  # the documented configuration
    TRIAL = "trial"  # proposed by the search
    CONFIRM = "confirm"  # a finalist or the baseline, trained again for a verdict


class Outcome(StrEnum):
    """How an attempt ended. "Running" is derived (an attempt without an outcome), never stored."""

    COMPLETED = "completed"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    INFEASIBLE = "infeasible"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    CANCELLED = "cancelled"

    @property
    def is_ranked(self) -> bool:
        """Only a trial that trained to its last epoch has an error rate that may be ranked."""
        return self is Outcome.COMPLETED

    @property
    def was_trained(self) -> bool:
        """Whether the outcome is a property of the configuration, not of a limit, a machine or chance."""
        return self in (Outcome.COMPLETED, Outcome.PRUNED, Outcome.DIVERGED)

    @property
    def may_retry(self) -> bool:
        """Whether another attempt may succeed: after a failure of the machine, not of the configuration."""
        return self in (Outcome.CRASHED, Outcome.CANCELLED)


@dataclass(frozen=True)
class Trial:
    """One configuration to train, as it is handed to a worker.

    Attributes:
        uid: Unique id, also across studies; the key of the trial's MLflow run.
        number: Position within its study, from 0.
        params: Searched hyperparameters by name, unset conditional ones absent.
        seed: Seeds weight initialisation, shuffling, dropout and augmentation.
        epochs: Train until this many epochs are done, counted from the first of the schedule.
        role: Why it is run.
        continues: uid of the trial whose checkpoint it continues, if any.
    """

    uid: str
    number: int
    params: Params
    seed: int
    epochs: int
    role: Role = Role.TRIAL
    continues: str | None = None


@dataclass(frozen=True)
class Seconds:
    """Where an attempt's time went, in seconds. The parts do not overlap."""

    build: float = 0.0
    compile: float = 0.0
    train: float = 0.0
    evaluate: float = 0.0
    cpu: float = 0.0  # CPU seconds of the process over all parts, all threads

    def __post_init__(self) -> None:
        _check_numbers(self)

    def __add__(self, other: Seconds) -> Seconds:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Seconds(*(round(a + b, 6) for a, b in pairs))

    @property
    def wall(self) -> float:
        return self.build + self.compile + self.train + self.evaluate


@dataclass(frozen=True)
class EpochReport:
    """One epoch of one attempt.

    Attributes:
        epoch: Number of completed epochs of the schedule, from 1.
        train_loss: Mean training loss over the epoch; None if it was not finite.
        val_loss: Mean loss over the validation images used; None if it was not finite.
        val_error_rate_pct: Share of the validation images used that were classified wrongly, in percent. Where a study
            trains on these images as well, both say nothing about others, and are shown nowhere.
        val_images: Number of validation images used: the study's `validation_images`, and all of them after the last
            epoch of a trial.
        seconds: Times of this epoch.
        train_error_rate_pct: Share of the training images that were classified wrongly during the epoch, each with its
            augmentation and dropout and before its own step, in percent. None like the next ones if it was not
            measured, and for epochs of earlier versions.
        memory_mb: Resident memory of the worker process at the end of the epoch, MiB.
        gpu_busy_pct: Share of the epoch's training in which the GPU, used by this trial alone, was busy, in percent.
        gpu_memory_mb: Peak memory in use on the GPU during the epoch's training, MiB.
    """

    epoch: int
    train_loss: float | None
    val_loss: float | None
    val_error_rate_pct: float
    val_images: int
    seconds: Seconds
    train_error_rate_pct: Annotated[float | None, Since(8)] = None
    memory_mb: Annotated[float | None, Since(8)] = None
    gpu_busy_pct: Annotated[float | None, Since(8)] = None
    gpu_memory_mb: Annotated[float | None, Since(8)] = None

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check_share("val_error_rate_pct", self.val_error_rate_pct, self.val_images)

    @property
    def has_diverged(self) -> bool:
        return self.train_loss is None or self.val_loss is None


@dataclass(frozen=True)
class Device:
    """The device of a trial. Times are comparable only between equal `timing_class` values.

    Attributes:
        name: Processor or GPU model.
        kind: "cpu" or "gpu".
        backend: Keras backend and its version.
        precision: In which it multiplied: "float32", or "bfloat16" with weights in float32.
        engine: How the training step was run, named by the training engine.
        threads: CPU threads per worker.
        sharing: Number of trials that shared the device at once.
        gpu_fraction: GPUs reserved for the trial (0 without a GPU).
    """

    name: str
    kind: str
    backend: str
    precision: str
    engine: str
    threads: int
    sharing: int
    gpu_fraction: float = 0.0

    def __post_init__(self) -> None:
        _check_numbers(self)

    @property
    def gpu_time_source(self) -> str:
        """How GPU time is measured: "reserved", or "none" without a GPU."""
        return "reserved" if self.gpu_fraction else "none"

    @property
    def timing_class(self) -> str:
        parts = [self.name, self.backend, self.precision, self.engine]
        parts.append(
            f"{self.sharing} trials of {self.threads} threads" if self.kind == "cpu" else f"{self.sharing} per GPU"
        )
        return " / ".join(parts)


class Shown(Flag):
    """Where a number of a trial is shown."""

    MLFLOW = auto()  # a metric of the trial's run
    LEADERBOARD = auto()  # a column before the hyperparameters
    LEADERBOARD_END = auto()  # a column after them
    LEADERBOARD_IF_KNOWN = auto()  # the same, left out if no trial has it
    EXPORT = auto()  # a column of the export of trials with their curves
    OPTUNA = auto()  # an attribute of an exported Optuna trial
    TABLE = auto()  # a column for people, where any trial has it: on the terminal, in reports and in MLflow's view


@dataclass(frozen=True)
class Meaning:
    """Marks a number that is shown with what it means, in a few words and with its unit."""

    text: str


@dataclass(frozen=True)
class TrialResult:
    """The result of one attempt at a trial.

    A field marked with `Shown` and `Meaning`, float or None, is one of `metrics.METRICS`.

    Attributes:
        outcome: How it ended.
        error: One line that explains the outcome, if needed.
        curve: The epochs of this attempt, in order.
        seconds: Sum over the attempt.
        num_params: Parameters of the model as built.
        peak_memory_mb: Peak resident memory of the worker process, MiB.
        device: Its device; None if it never reached one.
        wrong_images: Positions of the validation images used after the last epoch that were classified wrongly, to
            compare trials image by image.
        test_wrong_images: The same for the test split; None unless the test images were read.
        images_per_s: Training throughput over the attempt.
        final_error_rate_pct: Of trials of earlier versions that were trained to their end, whose last report is of a
            part of the validation images: the error on all of them, percent. None for others.
        final_val_images: Number of these images.
        soft_error_pct: 1 minus the mean probability of the right class on these images, percent, calibrated; less noisy
            than the error (`harness.execution.training.calibration`). Like the next two None unless it was trained to
            its end, and for trials of earlier versions.
        cross_entropy: Its cross-entropy on these images, calibrated, nats.
        temperature: The temperature of the calibration.
        gpu_busy_time_s: Seconds of training in which the GPU, used by this trial alone, was busy. None, like the next
            two, if it is not available (docs/gpu.md).
        gpu_energy_j: Energy of the GPU, used by this trial alone, during training, joules.
        gpu_peak_memory_mb: Peak memory in use on the GPU, MiB.
        training: Digest of all that decided its numbers (`harness.sweep.reuse`). Trials with equal ones have equal
            numbers. None unless it was trained to its end and in a way that can be repeated.
        reused_from: uid of the trial that was trained, in this study or another, if this trial took over its result:
            the times are those of that training, and this trial held no device.
    """

    outcome: Outcome
    error: str | None = None
    curve: tuple[EpochReport, ...] = ()
    seconds: Seconds = field(default_factory=Seconds)
    num_params: int | None = None
    peak_memory_mb: Annotated[float | None, Shown.MLFLOW | Shown.EXPORT, Meaning("peak memory of the process, MiB")] = (
        None
    )
    device: Device | None = None
    wrong_images: tuple[int, ...] | None = None
    test_wrong_images: tuple[int, ...] | None = None
    images_per_s: Annotated[float | None, Shown.MLFLOW | Shown.EXPORT, Meaning("training images per second")] = None
    final_error_rate_pct: float | None = None
    final_val_images: int | None = None
    gpu_busy_time_s: float | None = None
    gpu_energy_j: float | None = None
    gpu_peak_memory_mb: Annotated[
        float | None, Shown.MLFLOW | Shown.EXPORT, Meaning("peak memory in use on the GPU, MiB")
    ] = None
    soft_error_pct: Annotated[
        float | None,
        Shown.MLFLOW | Shown.EXPORT,
        Meaning("1 minus the mean probability of the right class, calibrated, percent; less noisy than the error"),
        Since(5),
    ] = None
    cross_entropy: Annotated[
        float | None,
        Shown.MLFLOW | Shown.EXPORT,
        Meaning("cross-entropy on the validation images, calibrated, nats"),
        Since(5),
    ] = None
    temperature: Annotated[
        float | None,
        Shown.MLFLOW | Shown.EXPORT,
        Meaning("temperature of this calibration; above 1 the network was too confident"),
        Since(5),
    ] = None
    training: Annotated[str | None, Since(6)] = None
    reused_from: Annotated[str | None, Since(6)] = None

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.final_error_rate_pct is not None:
            _check_share("final_error_rate_pct", self.final_error_rate_pct, self.final_val_images or 0)

    @property
    def last(self) -> EpochReport | None:
        return self.curve[-1] if self.curve else None

    @property
    def error_rate_pct(self) -> float | None:
        """Error on all validation images, percent, of a trial that was trained to its end; None for others.

        Only these errors may be ranked.
        """
        return self.val_error_rate_pct if self.outcome.is_ranked else None

    @property
    def val_error_rate_pct(self) -> float | None:
        """Validation error after the last finished epoch, percent, on `val_images` images; None without an epoch."""
        if self.final_error_rate_pct is not None:
            return self.final_error_rate_pct
        return self.last.val_error_rate_pct if self.last else None

    @property
    def val_images(self) -> int | None:
        """Number of validation images of `val_error_rate_pct`."""
        if self.final_val_images is not None:
            return self.final_val_images
        return self.last.val_images if self.last else None

    @property
    def shown_curve(self) -> tuple[EpochReport, ...]:
        """The epochs, the last one with `val_error_rate_pct` also for trials of earlier versions."""
        error_pct, num_images = self.final_error_rate_pct, self.final_val_images
        if self.last is None or error_pct is None or num_images is None:
            return self.curve
        return *self.curve[:-1], replace(self.last, val_error_rate_pct=error_pct, val_images=num_images)

    @property
    def train_time_s(self) -> float:
        """Seconds of the attempt's training region, on a CPU or a GPU; see `Record.device_time_s`."""
        return self.seconds.train

    @property
    def gpu_train_time_s(self) -> float:
        """GPUs reserved x seconds of the attempt's training region; 0.0 without a GPU."""
        return self.train_time_s * (self.device.gpu_fraction if self.device else 0.0)


@dataclass(frozen=True)
class Attempt:
    """One attempt at a trial.

    Attributes:
        number: From 1.
        outcome: How it ended; None: it runs, or its coordinator was killed.
        worker: Name of its worker.
        started_at_s: Seconds since 1970.
        held_s: Seconds for which its device was reserved.
    """

    number: int
    outcome: Outcome | None
    worker: str
    started_at_s: float
    held_s: float

    @property
    def ended_at_s(self) -> float:
        """Seconds since 1970."""
        return self.started_at_s + self.held_s


@dataclass(frozen=True)
class Record:
    """A trial with its result, as stored in the ledger.

    A trial may continue another one, and that one a third (Hyperband's rungs, `Trial.continues`). Then `device_time_s`,
    `gpu_time_s`, `gpu_busy_time_s` and `gpu_energy_j` are sums over these trials, from the network's first image on.
    Trials are compared by these sums. The cost of a *study* counts each trial's own seconds once: `reserved_time_s`,
    and `result.train_time_s` of the training region; a trial that took over a result adds nothing to it.

    Attributes:
        trial: The trial.
        result: The final result; None while the trial is pending.
        asked_at: Position of the proposal in the study's order of events.
        told_at: Position of the final result in the same order; None while pending.
        asks: Number of proposals until one was accepted (0: not from the search).
        attempts: Number of attempts that were started.
        started_at_s: Start of the first attempt, seconds since 1970; None if there was none.
        ended_at_s: End of the last attempt so far, seconds since 1970.
        reserved_time_s: Wall seconds for which a device was reserved, over all attempts, including lost ones.
        search_time_s: Seconds of the search to ask, report and tell for it.
        before: Results of the trials that it continues, in order, without curves and images.
    """

    trial: Trial
    result: TrialResult | None = None
    asked_at: int = 0
    told_at: int | None = None
    asks: int = 1
    attempts: int = 0
    started_at_s: float | None = None
    ended_at_s: float | None = None
    reserved_time_s: float = 0.0
    search_time_s: float = 0.0
    before: tuple[TrialResult, ...] = ()

    @property
    def device_time_s(self) -> float:
        """Seconds of the training regions, on a CPU or a GPU; 0.0 while pending."""
        return math.fsum(result.train_time_s for result in self._trained)

    @property
    def gpu_time_s(self) -> float:
        """GPUs reserved x seconds of the training regions; 0.0 without a GPU."""
        return math.fsum(result.gpu_train_time_s for result in self._trained)

    @property
    def gpu_busy_time_s(self) -> float | None:
        """The sum of `TrialResult`'s; None if one of the trials has none."""
        return _sum(result.gpu_busy_time_s for result in self._trained)

    @property
    def gpu_energy_j(self) -> float | None:
        """The sum of `TrialResult`'s; None if one of the trials has none."""
        return _sum(result.gpu_energy_j for result in self._trained)

    @property
    def reused_time_s(self) -> float:
        """Seconds that the training took whose result this trial took over; 0.0 if it was trained itself."""
        return self.result.seconds.wall if self.result and self.result.reused_from else 0.0

    @property
    def timing_class(self) -> str | None:
        """The class within which its times may be compared; joined classes if the device changed; None: no device."""
        classes = [result.device.timing_class for result in self._trained if result.device]
        return " + ".join(dict.fromkeys(classes)) or None

    @property
    def _trained(self) -> tuple[TrialResult, ...]:
        return (*self.before, self.result) if self.result else ()


def without_images(record: Record) -> Record:
    """The same without the lists of wrong images, and with the last epoch alone, to be kept in memory."""
    if record.result is None:
        return record
    kept = replace(record.result, curve=record.result.curve[-1:], wrong_images=None, test_wrong_images=None)
    return replace(record, result=kept)


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known or not known else math.fsum(value for value in known if value is not None)


def _check_numbers(record: Seconds | EpochReport | Device | TrialResult) -> None:
    """Raises ValueError unless all measured numbers are finite and not negative."""
    for name, value in vars(record).items():
        # Whole numbers beyond 64 bits fit neither into SQLite nor into a table. A loss may well be larger.
        if isinstance(value, _NUMBER) and not 0 <= value < (2**63 if isinstance(value, int) else math.inf):
            raise ValueError(f"{name} is {value}; allowed: a finite number, at least 0")


def _check_share(name: str, share_pct: float, num_images: int) -> None:
    if share_pct > 100 or num_images < 1:
        raise ValueError(f"{name} is {share_pct} of {num_images} images; allowed: at most 100, of 1 or more")
