"""Trains one trial in pure Keras: one report per epoch, with its times by part."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

import baselines
from baselines.augmentation import augmentation
from baselines.recipe import compile_model
from harness.errors import TroubleError
from harness.execution.base import Job, Place
from harness.execution.data import cache
from harness.execution.machine import devices
from harness.execution.machine.gpu_meter import GpuMeter, open_gauge
from harness.execution.training import engine_base, engines
from harness.execution.training.calibration import Calibrated, calibrate
from harness.execution.training.engine_base import Engine, Order
from harness.study.records import Device, EpochReport, Outcome, Params, Seconds, TrialResult
from harness.study.spec import SweepSpec
from harness.support import keras_settings
from harness.support.atomic_files import replaced
from harness.support.failpoints import Step, reach

AUGMENTATION_STREAM = 1  # independent of the order of the images, which is drawn from (seed, epoch)

OnEpoch = Callable[[EpochReport], bool]
Floats = NDArray[np.float32]
Labels = NDArray[np.uint8] | NDArray[np.int32]
Positions = NDArray[np.intp]


class Trainer:
    """Trains the trials of one study on one worker; keeps the data and the device for all of them."""

    def __init__(self, spec: SweepSpec, place: Place, data_folder: Path) -> None:
        devices.check_gpu(place)
        self.spec = spec
        self._place = place
        self._data_folder = data_folder
        images, labels = cache.load(spec.data, "train", data_folder)
        validation_images, self._validation_labels = cache.load(spec.data, "validation", data_folder)
        if spec.trains_on_validation:
            images = np.concatenate([images, validation_images])
            labels = np.concatenate([labels, self._validation_labels])
        self.train_images = engine_base.hold(images[: spec.train_images], labels[: spec.train_images])
        self._validation_images = engine_base.hold(validation_images, self._validation_labels)
        # On a CPU, XLA makes convolutions several times slower, and dense layers no faster.
        self.uses_xla = place.gpu is not None
        self.device = Device(
            name=place.device_name,
            kind="cpu" if place.gpu is None else "gpu",
            backend=devices.backend_name(),
            precision=spec.precision,
            engine="",  # set by each trial
            threads=place.threads,
            sharing=place.sharing,
            gpu_fraction=place.gpu_fraction,
        )
        self.gauge = open_gauge(place)

    def run(self, job: Job, on_epoch: OnEpoch) -> TrialResult:
        """Trains a trial to its end, or until `on_epoch` returns False. An error of the trial becomes its outcome.

        Raises:
            TroubleError: its checkpoint cannot be written, the test images cannot be read, or its network differs from
                the documented one.
        """
        devices.reset_peak_memory(self._place)
        attempt = _Attempt(self, job, on_epoch)
        try:
            outcome, error = attempt.run(), None
        except TroubleError:
            raise  # not caused by the trial
        except Exception as trouble:
            outcome = Outcome.OUT_OF_MEMORY if devices.is_out_of_memory(trouble) else Outcome.CRASHED
            error = f"{type(trouble).__name__}: {trouble}".splitlines()[0][:500]
        result = attempt.result(outcome, error)
        in_use_mb = devices.gpu_peak_memory_mb(self._place)  # what the backend knows is the trial's own
        return replace(
            result,
            peak_memory_mb=devices.peak_memory_mb(),
            gpu_peak_memory_mb=result.gpu_peak_memory_mb if in_use_mb is None else in_use_mb,
        )

    @property
    def num_validation_images(self) -> int:
        return len(self._validation_labels)

    def make_engine(self, model: keras.Model, batch_size: int, *, augments: bool) -> Engine:
        images = self.train_images, self._validation_images
        return engines.make_engine(model, *images, batch_size, augments=augments, xla=self.uses_xla)

    def validate(self, engine: Engine, num_images: int) -> tuple[Floats, Labels]:
        """(probabilities, labels) of the first `num_images` validation images."""
        return engine.predict(self._validation_images, num_images), self._validation_labels[:num_images]

    def test(self, engine: Engine) -> Positions:
        """Positions of misclassified test images. No other function opens the test images."""
        images, labels = cache.load(self.spec.data, "test", self._data_folder)
        probabilities = engine.predict(engine_base.hold(images, labels), len(labels))
        return _judged(probabilities, labels)[1]


def build(spec: SweepSpec, params: Params) -> keras.Model:
    """The network of a configuration.

    Raises:
        TroubleError: its file is wrong, or its code was never run here, so its results would be invalid.
    """
    architecture, task = spec.architecture, spec.task
    file = getattr(architecture, "__file__", spec.baseline)
    try:
        baselines.check(architecture)
    except ValueError as error:
        raise TroubleError(f"{file}: {error}") from error
    model, counted = architecture.build(spec.config(params), task), spec.cost(params).num_params
    shapes = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    allowed = (None, *task.shape), (None, task.num_classes)
    if shapes != allowed:
        raise TroubleError(f"{file}: what build() made takes and gives {shapes}; allowed: {allowed}")
    if model.count_params() != counted:
        raise TroubleError(
            f"{file}: what build() made has {model.count_params():,} parameters; allowed: {counted:,}, as cost() counts"
        )
    return model


class _Attempt:
    """One training of a trial. It keeps all data for a result, also if the trial fails."""

    def __init__(self, trainer: Trainer, job: Job, on_epoch: OnEpoch) -> None:
        self._trainer, self._job, self._on_epoch = trainer, job, on_epoch
        self._device = trainer.device
        self._meter = GpuMeter(trainer.gauge)
        self._curve: list[EpochReport] = []
        self._build_s = self._compile_s = 0.0
        self._cpu_began = time.process_time()
        self._num_params: int | None = None
        self._wrong: Positions = np.empty(0, np.intp)
        self._test_wrong: Positions | None = None
        self._calibrated: Calibrated | None = None
        self._was_stopped = False

    def run(self) -> Outcome:
        trial, spec = self._job.trial, self._trainer.spec
        started = time.monotonic()
        keras.backend.clear_session()
        keras_settings.pin(spec.precision)  # for each trial, because clearing forgets the policy
        keras.utils.set_random_seed(trial.seed)
        recipe = spec.trial_recipe(trial.params)
        steps = _num_steps(self._trainer.train_images.num_images, recipe.batch_size)
        model = build(spec, trial.params)
        self._num_params = model.count_params()
        # The schedule always spans the study's full number of epochs. So a trial that was stopped early had the same
        # learning rates as others, and a continued one resumes the schedule.
        compile_model(model, recipe, steps * spec.epochs)
        epochs_done = self._restore(model, steps)
        built = time.monotonic()
        varied = augmentation(spec.config(trial.params))
        engine = self._trainer.make_engine(model, recipe.batch_size, augments=bool(varied))
        self._device = replace(self._device, engine=engine.name)
        self._build_s, self._compile_s = _milliseconds(built - started), _milliseconds(time.monotonic() - built)
        for epoch in range(epochs_done, trial.epochs):
            order = self._order(epoch, steps, recipe.batch_size)
            rng = np.random.default_rng((trial.seed, epoch, AUGMENTATION_STREAM))
            transforms = varied.transforms(order.shape, self._trainer.train_images.size, rng)
            if epoch < self._job.epochs_before:
                engine.train(order, transforms)  # again, without its checkpoint; it was reported then
                self._cpu_s()
            elif not self._run_epoch(engine, epoch, order, transforms):
                break
        return self._end(model, engine)

    def _order(self, epoch: int, num_steps: int, batch_size: int) -> Order:
        """Positions of the epoch's batches: all images shuffled, without the last incomplete batch."""
        shuffled = np.random.default_rng((self._job.trial.seed, epoch)).permutation(
            self._trainer.train_images.num_images
        )
        return shuffled[: num_steps * batch_size].astype(np.int32).reshape(num_steps, batch_size)

    def _run_epoch(self, engine: Engine, epoch: int, order: Order, transforms: Floats) -> bool:
        """Trains and reports an epoch; returns whether to continue."""
        with self._meter.region():
            began = time.monotonic()
            train_loss = engine.train(order, transforms)
            train_s = time.monotonic() - began
        trained = time.monotonic()
        # Trials are ranked on all validation images after their last epoch. Pruners compare the epochs before it, and
        # need only a part.
        is_last = epoch + 1 == self._job.trial.epochs
        num_images = self._trainer.num_validation_images if is_last else self._trainer.spec.validation_images
        probabilities, labels = self._trainer.validate(engine, num_images)
        losses, self._wrong = _judged(probabilities, labels)
        self._calibrated = calibrate(probabilities, labels) if is_last else None
        val_loss, error_rate_pct = float(losses.mean()), 100.0 * len(self._wrong) / num_images
        seconds = Seconds(
            compile=0.0 if self._curve else self._compile_s,
            train=_milliseconds(train_s),
            evaluate=_milliseconds(time.monotonic() - trained),
            cpu=self._cpu_s(),
        )
        used = self._meter.last_usage(train_s)
        report = EpochReport(
            epoch + 1,
            _finite(train_loss),
            _finite(val_loss),
            error_rate_pct,
            num_images,
            seconds,
            train_error_rate_pct=None if engine.num_wrong is None else 100.0 * engine.num_wrong / order.size,
            memory_mb=round(devices.memory_mb(), 1),
            gpu_busy_pct=None if used.gpu_busy_time_s is None else min(100.0, 100.0 * used.gpu_busy_time_s / train_s),
            gpu_memory_mb=used.gpu_peak_memory_mb,
        )
        self._curve.append(report)
        self._was_stopped = (not self._on_epoch(report) or report.has_diverged) and not is_last
        return not self._was_stopped

    def _cpu_s(self) -> float:
        """CPU seconds since the last call."""
        before, self._cpu_began = self._cpu_began, time.process_time()
        return _milliseconds(self._cpu_began - before)

    def result(self, outcome: Outcome, error: str | None) -> TrialResult:
        seconds = sum((report.seconds for report in self._curve), Seconds(build=self._build_s))
        num_images = len(self._curve) * self._trainer.spec.train_images
        judges = not self._trainer.spec.trains_on_validation
        return TrialResult(
            outcome=outcome,
            error=error,
            curve=tuple(self._curve),
            seconds=seconds,
            num_params=self._num_params,
            device=self._device,
            wrong_images=_as_tuple(self._wrong) if judges and self._curve else None,
            test_wrong_images=_as_tuple(self._test_wrong),
            images_per_s=num_images / seconds.train if seconds.train else None,
            **(asdict(self._calibrated) if judges and outcome is Outcome.COMPLETED and self._calibrated else {}),
            **self._meter.usage(seconds.train)._asdict(),
        )

    def _restore(self, model: keras.Model, steps_per_epoch: int) -> int:
        """Loads the checkpoint to continue from; returns its number of epochs, 0 if they must be trained again."""
        if self._job.load_from is None or (self._job.epochs_before and not self._job.load_from.exists()):
            return 0
        load_checkpoint(model, self._job.load_from)
        return int(model.optimizer.iterations) // steps_per_epoch

    def _end(self, model: keras.Model, engine: Engine) -> Outcome:
        if self._curve and self._curve[-1].has_diverged:
            return Outcome.DIVERGED
        if self._was_stopped:
            return Outcome.PRUNED
        if self._trainer.spec.reads_test:
            self._test_wrong = self._trainer.test(engine)
        if self._job.save_to is not None:
            is_continued = self._job.trial.epochs < self._trainer.spec.epochs
            (save_checkpoint if is_continued else save_weights)(model, self._job.save_to)
        return Outcome.COMPLETED


def save_checkpoint(model: keras.Model, path: Path) -> None:
    """Writes weights and optimizer state atomically, so that training can continue.

    Keras's own format is not used: on a full disk the HDF5 library ends the whole process.

    Raises:
        TroubleError: the file cannot be written.
    """
    _save([*model.variables, *model.optimizer.variables], path)


def load_checkpoint(model: keras.Model, path: Path) -> None:
    """Restores a file of `save_checkpoint` into a model of the same configuration."""
    _load([*model.variables, *model.optimizer.variables], path)


def save_weights(model: keras.Model, path: Path) -> None:
    """Like `save_checkpoint`, but without the optimizer state: a third of the size."""
    _save(model.variables, path)


def load_weights(model: keras.Model, path: Path) -> None:
    """Restores a file of `save_weights` into a model of the same configuration."""
    _load(model.variables, path)


def _save(variables: Sequence[keras.Variable], path: Path) -> None:
    with replaced(path) as unfinished:
        with unfinished.open("wb") as file:
            np.savez(file, *map(keras.ops.convert_to_numpy, variables))
        reach(Step.BEFORE_CHECKPOINT)


def _load(variables: Sequence[keras.Variable], path: Path) -> None:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
        for variable, value in zip(variables, _of_these_layers(list(saved.values()), len(variables)), strict=True):
            variable.assign(value)


def _of_these_layers(values: list[NDArray[Any]], num_variables: int) -> list[NDArray[Any]]:
    """Removes the states of random generators, the first variables of networks of earlier versions.

    In those versions, augmentation was up to three layers of the network, each with a generator.
    """
    num_more = len(values) - num_variables
    if 0 < num_more <= 3 and all(value.shape == (2,) and value.dtype.kind in "iu" for value in values[:num_more]):
        return values[num_more:]
    return values


def _judged(probabilities: Floats, labels: Labels) -> tuple[Floats, Positions]:
    """(cross-entropies, positions of misclassified images)."""
    chosen = probabilities[np.arange(len(labels)), labels]
    losses = -np.log(np.maximum(chosen, 1e-7))  # as Keras clips
    return losses, np.flatnonzero(probabilities.argmax(axis=1) != labels)


def _num_steps(num_images: int, batch_size: int) -> int:
    """Number of steps of an epoch."""
    if batch_size > num_images:
        raise ValueError(f"batch_size is {batch_size}; allowed: at most the {num_images} training images")
    return num_images // batch_size


def _milliseconds(seconds: float) -> float:
    """Seconds, rounded to milliseconds: more digits are not reproducible."""
    return round(seconds, 3)


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None


def _as_tuple(positions: Positions | None) -> tuple[int, ...] | None:
    return None if positions is None else tuple(positions.tolist())
