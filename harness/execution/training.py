"""Trains one trial: pure Keras, one report per epoch, every second accounted for."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

import baselines
from baselines.recipe import optimizer
from harness.execution import UNFINISHED, Job, Place, data, devices
from harness.failpoints import Step, reach
from harness.records import Device, EpochReport, Outcome, Seconds, TrialResult
from harness.spec import SweepSpec

OnEpoch = Callable[[EpochReport], bool]
Floats = NDArray[np.float32]
Positions = NDArray[np.intp]

STEPS_PER_EXECUTION = 20
EVALUATION_BATCH = 500
XLA_MIN_IMAGES = 50_000  # trained on in a trial, before compiling pays for itself on a CPU


class Trainer:
    """What all trials of a study share on one worker: the data, the device, and how a step is run."""

    def __init__(self, spec: SweepSpec, place: Place, data_folder: Path) -> None:
        self.spec = spec
        self._place = place
        self._data_folder = data_folder
        images, labels = data.load(spec.dataset, "train", data_folder)
        self._images = _scaled(images[: spec.train_images])
        self._labels = np.eye(10, dtype=np.float32)[labels[: spec.train_images]]
        images, self._validation_labels = data.load(spec.dataset, "validation", data_folder)
        self._validation_images = _scaled(images)
        self.prefers_xla = _is_xla_faster(spec, place)
        self.device = Device(
            name=place.device_name,
            kind="cpu" if place.gpu is None else "gpu",
            backend=devices.backend_name(),
            precision="float32",
            engine="fit",
            threads=place.threads,
            sharing=place.sharing,
            gpu_fraction=place.gpu_fraction,
        )

    def run(self, job: Job, on_epoch: OnEpoch) -> TrialResult:
        """Trains a trial to its end, or until `on_epoch` returns False. Whatever the trial does is its outcome."""
        devices.reset_peak_memory(self._place)
        attempt = _Attempt(self, job, on_epoch)
        try:
            outcome, error = attempt.run(), None
        except Exception as trouble:
            outcome = Outcome.OUT_OF_MEMORY if devices.is_out_of_memory(trouble) else Outcome.CRASHED
            error = f"{type(trouble).__name__}: {trouble}".splitlines()[0][:500]
        result = attempt.result(outcome, error)
        return replace(result, peak_memory_mb=devices.peak_memory_mb(self._place))

    def batches(self, batch_size: int) -> tuple[Floats, Floats]:
        """Training images and one-hot labels, less the last incomplete batch, which would be compiled on its own."""
        count = len(self._images) - len(self._images) % batch_size
        if count == 0:
            raise ValueError(f"batch_size is {batch_size}; allowed: at most the {len(self._images)} training images")
        return self._images[:count], self._labels[:count]

    @property
    def num_validation_images(self) -> int:
        return len(self._validation_labels)

    def validate(self, model: keras.Model, num_images: int) -> tuple[Floats, Positions]:
        """(cross-entropy of each, positions got wrong) over the first `num_images` validation images."""
        return _evaluate(model, self._validation_images[:num_images], self._validation_labels[:num_images])

    def test(self, model: keras.Model) -> Positions:
        """Positions in the test split got wrong. Nothing else opens the test images."""
        images, labels = data.load(self.spec.dataset, "test", self._data_folder)
        return _evaluate(model, _scaled(images), labels)[1]


class _Attempt(keras.callbacks.Callback):  # type: ignore[misc] # Keras is untyped
    """One run through one trial. It is its own Keras callback, and keeps what a result can be made of."""

    def __init__(self, trainer: Trainer, job: Job, on_epoch: OnEpoch) -> None:
        super().__init__()
        self._trainer, self._job, self._on_epoch = trainer, job, on_epoch
        self._device = trainer.device
        self._curve: list[EpochReport] = []
        self._build_s = 0.0
        self._num_params: int | None = None
        self._wrong: Positions = np.empty(0, np.intp)
        self._test_wrong: Positions | None = None
        self._was_stopped = False

    def run(self) -> Outcome:
        trial, spec = self._job.trial, self._trainer.spec
        started = time.monotonic()
        keras.backend.clear_session()
        keras.utils.set_random_seed(trial.seed)
        recipe = spec.trial_recipe(trial.params)
        images, labels = self._trainer.batches(recipe.batch_size)
        steps = len(images) // recipe.batch_size
        # At least two executions an epoch, so that the first can be told from those that do not compile.
        per_execution = max(1, min(STEPS_PER_EXECUTION, steps // 2))
        # The schedule always spans the study's full number of epochs: a trial cut short was at the same
        # position of the same schedule as every other, and one continued goes on where it was.
        model = baselines.load(spec.baseline).build(spec.config(trial.params))
        # Augmentation layers cannot be compiled; Keras would fall back by itself, and the timing class would lie.
        jit_compile = self._trainer.prefers_xla and all(layer.supports_jit for layer in model.layers)
        model.compile(
            optimizer(recipe, steps * spec.epochs),
            loss="categorical_crossentropy",
            jit_compile=jit_compile,
            steps_per_execution=per_execution,
        )
        self._num_params = model.count_params()
        self._device = replace(self._device, engine="fit+xla" if jit_compile else "fit")
        epochs_done = self._restore(model, steps)
        self._first_call = _FirstCall(model, per_execution / steps)
        self._build_s = _milliseconds(time.monotonic() - started)
        model.fit(
            images,
            labels,
            batch_size=recipe.batch_size,
            initial_epoch=epochs_done,
            epochs=trial.epochs,
            verbose=0,
            callbacks=[self],
        )
        return self._end(model)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began, self._cpu_began = time.monotonic(), time.process_time()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        train_loss = float((logs or {})["loss"])  # waits for the device
        trained = time.monotonic()
        # Trials are ranked on all validation images after their last epoch. The curve is on the same part of them
        # throughout, so that its points can be compared.
        num_images, is_last = self._trainer.spec.validation_images, epoch + 1 == self._job.trial.epochs
        losses, self._wrong = self._trainer.validate(
            self.model, self._trainer.num_validation_images if is_last else num_images
        )
        val_loss, num_wrong = float(losses[:num_images].mean()), int((self._wrong < num_images).sum())
        compile_s = self._first_call.compile_s(trained - self._began) if not self._curve else 0.0
        seconds = Seconds(
            compile=_milliseconds(compile_s),
            train=_milliseconds(trained - self._began - compile_s),
            evaluate=_milliseconds(time.monotonic() - trained),
            cpu=_milliseconds(time.process_time() - self._cpu_began),
        )
        error_rate_pct = 100.0 * num_wrong / num_images
        report = EpochReport(epoch + 1, _finite(train_loss), _finite(val_loss), error_rate_pct, num_images, seconds)
        self._curve.append(report)
        if not self._on_epoch(report) or report.has_diverged:
            self._was_stopped = epoch + 1 < self._job.trial.epochs
            self.model.stop_training = True

    def result(self, outcome: Outcome, error: str | None) -> TrialResult:
        seconds = sum((report.seconds for report in self._curve), Seconds(build=self._build_s))
        num_images = len(self._curve) * self._trainer.spec.train_images
        num_final = self._trainer.num_validation_images if outcome is Outcome.COMPLETED else None
        return TrialResult(
            outcome=outcome,
            error=error,
            curve=tuple(self._curve),
            seconds=seconds,
            num_params=self._num_params,
            device=self._device,
            wrong_images=_as_tuple(self._wrong) if self._curve else None,
            test_wrong_images=_as_tuple(self._test_wrong),
            images_per_s=num_images / seconds.train if seconds.train else None,
            final_error_rate_pct=100.0 * len(self._wrong) / num_final if num_final else None,
            final_val_images=num_final,
        )

    def _restore(self, model: keras.Model, steps_per_epoch: int) -> int:
        """Loads the checkpoint to go on from; returns how many epochs it has behind it."""
        if self._job.load_from is None:
            return 0
        model.optimizer.build(model.trainable_variables)
        model.load_weights(self._job.load_from)
        return int(model.optimizer.iterations) // steps_per_epoch

    def _end(self, model: keras.Model) -> Outcome:
        if self._curve and self._curve[-1].has_diverged:
            return Outcome.DIVERGED
        if self._was_stopped:
            return Outcome.PRUNED
        if self._trainer.spec.reads_test:
            self._test_wrong = self._trainer.test(model)
        if self._job.save_to is not None:
            save_checkpoint(model, self._job.save_to)
        return Outcome.COMPLETED


class _FirstCall:
    """Tells tracing and compiling apart from training, from the time of the first execution.

    The first execution compiles and then runs `steps_per_execution` steps; the others of the epoch only run steps.
    """

    def __init__(self, model: keras.Model, share_of_epoch: float) -> None:
        self._share = share_of_epoch
        self._first_s = 0.0
        model.make_train_function()
        train = model.train_function

        def timed(iterator: Any) -> Any:
            started = time.monotonic()
            logs = train(iterator)
            float(next(iter(logs.values())))  # waits for the device
            self._first_s = time.monotonic() - started
            model.train_function = train
            return logs

        model.train_function = timed

    def compile_s(self, epoch_s: float) -> float:
        """Seconds of the first epoch's `epoch_s` that were spent on tracing and compiling."""
        if self._share >= 1.0:
            return 0.0  # an epoch of one step: the two cannot be told apart
        steps_s = (epoch_s - self._first_s) * self._share / (1.0 - self._share)
        return max(0.0, self._first_s - steps_s)


def save_checkpoint(model: keras.Model, path: Path) -> None:
    """Writes weights and optimizer state, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")
    model.save_weights(unfinished)
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    reach(Step.BEFORE_CHECKPOINT)
    unfinished.replace(path)


def _evaluate(model: keras.Model, images: Floats, labels: NDArray[np.uint8]) -> tuple[Floats, Positions]:
    # Every batch has the same shape, the last one filled up: another shape would be compiled anew.
    fill = np.zeros((-len(images) % EVALUATION_BATCH, *images.shape[1:]), images.dtype)
    batches = np.split(np.concatenate([images, fill]), (len(images) + len(fill)) // EVALUATION_BATCH)
    probabilities = np.concatenate([model.predict_on_batch(batch) for batch in batches])[: len(images)]
    chosen = probabilities[np.arange(len(labels)), labels]
    losses = -np.log(np.maximum(chosen, 1e-7))  # as Keras clips
    return losses, np.flatnonzero(probabilities.argmax(axis=1) != labels)


def _is_xla_faster(spec: SweepSpec, place: Place) -> bool:
    """On a GPU always. On a CPU it makes convolutions several times slower, and costs about 2 s to compile."""
    return place.gpu is not None or (spec.baseline == "fc" and spec.train_images * spec.epochs >= XLA_MIN_IMAGES)


def _milliseconds(seconds: float) -> float:
    """Seconds as precise as they can be repeated, which is what people want to read."""
    return round(seconds, 3)


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None


def _scaled(images: NDArray[np.uint8]) -> Floats:
    """Grey values 0..255 to 0..1, with a channel: (n, 28, 28) to (n, 28, 28, 1)."""
    return (images.astype(np.float32) / 255.0)[..., np.newaxis]


def _as_tuple(positions: Positions | None) -> tuple[int, ...] | None:
    return None if positions is None else tuple(positions.tolist())
