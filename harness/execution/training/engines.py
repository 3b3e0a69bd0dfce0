"""Engines that run training steps: compiled with TensorFlow or JAX, by Keras's own `fit` on other backends."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from baselines.augmentation import NUM_COEFFICIENTS
from harness.execution.training.engine_base import (
    EVALUATION_BATCH,
    Engine,
    Floats,
    Images,
    Order,
    scaled,
    transforms_of,
)
from harness.execution.training.keras_private import decays, moments
from harness.execution.training.kernels import fast_kernels


def make_engine(
    model: keras.Model, train: Images, validation: Images, batch_size: int, *, augments: bool = False, xla: bool
) -> Engine:
    """The fastest engine of the current backend for a model that is compiled with Adam.

    Args:
        model: A model whose optimizer variables are built.
        train: Training images.
        validation: Validation images; other images can be predicted too, after compiling for their number.
        batch_size: Images per step.
        augments: Whether each image gets a transform.
        xla: Let XLA compile a whole epoch, if it supports all layers; for GPUs. JAX has no other compiler.
    """
    if keras.backend.backend() == "tensorflow":
        return CompiledEpochs(model, train, validation, batch_size, augments=augments, xla=xla)
    if keras.backend.backend() == "jax":
        from harness.execution.training.jax_engine import JaxSteps

        return JaxSteps(model, train, validation, batch_size, augments=augments, whole_epochs=xla)
    return KerasFit(model, train, batch_size)


class CompiledEpochs:
    """Runs an epoch as one TensorFlow graph: batches are gathered on the device, Adam is one kernel per variable."""

    def __init__(
        self,
        model: keras.Model,
        train: Images,
        validation: Images,
        batch_size: int,
        *,
        augments: bool = False,
        xla: bool,
    ) -> None:
        import tensorflow as tf

        # XLA does not support TensorFlow's image transform.
        xla = xla and not augments and all(layer.supports_jit for layer in model.layers)
        self.name = "compiled+xla" if xla else "compiled"
        self._model, self._data, self._num_classes = model, train, model.output_shape[-1]
        self.num_wrong: int | None = None
        count, images = tf.TensorSpec((), tf.int32), tf.TensorSpec((None, *train.images.shape[1:]), train.images.dtype)
        order = tf.TensorSpec((None, batch_size), tf.int32)
        transforms = tf.TensorSpec((None, batch_size, NUM_COEFFICIENTS if augments else 0), tf.float32)
        train_function = tf.function(self._epoch, (order, transforms, count), jit_compile=xla, autograph=False)
        predict_function = tf.function(self._probabilities, (images, count), jit_compile=xla, autograph=False)
        with fast_kernels(model):
            self._train = train_function.get_concrete_function()
            self._predict = predict_function.get_concrete_function()
        # The first call of each function compiles; with 0 steps it does nothing else. XLA compiles for one shape only,
        # so the shapes are those of later calls.
        num_steps = train.num_images // batch_size
        none = [np.zeros((num_steps, *of.shape[1:]), of.dtype.as_numpy_dtype) for of in (order, transforms)]
        self._run(self._train, *none, count=0)
        self._run(self._predict, validation.images, count=0)

    def train(self, order: Order, transforms: Floats | None = None) -> float:
        loss, num_wrong = self._run(self._train, order, transforms_of(order, transforms), count=len(order))
        self.num_wrong = round(float(num_wrong))
        return float(loss) / len(order)

    def predict(self, images: Images, num_images: int) -> Floats:
        return self._run(self._predict, images.images, count=-(-num_images // EVALUATION_BATCH))[:num_images]

    @staticmethod
    def _run(function: Any, *data: Any, count: int) -> Floats:
        """Runs a function and reads its result. Reading waits for the device, so that timings do not overlap."""
        import tensorflow as tf

        return np.asarray(function(*map(tf.convert_to_tensor, data), tf.constant(count)))

    def _epoch(self, order: Any, transforms: Any, num_steps: Any) -> Any:
        """(sum of the losses, number of wrong images) of `num_steps` batches, shape (2,).

        With 0 steps the call compiles and trains nothing.
        """
        import tensorflow as tf

        def step(number: Any, loss: Any, num_wrong: Any) -> tuple[Any, Any, Any]:
            of_batch = self._step(order[number], transforms[number])
            return number + 1, loss + of_batch[0], num_wrong + of_batch[1]

        return tf.stack(tf.while_loop(lambda number, *_: number < num_steps, step, (0, 0.0, 0.0))[1:])

    def _step(self, positions: Any, transforms: Any) -> tuple[Any, Any]:
        """(loss, number of wrong images) of a batch."""
        import tensorflow as tf

        images = scaled(tf.gather(self._data.images, positions), transforms)
        classes = tf.gather(self._data.labels, positions)
        labels = tf.one_hot(classes, self._num_classes)
        with tf.GradientTape() as tape:
            predicted = self._model(images, training=True)
            loss = self._model.loss(labels, predicted)
        self._apply(tape.gradient(loss, [variable.value for variable in self._model.trainable_variables]))
        is_wrong = tf.argmax(predicted, -1, tf.int32) != tf.cast(classes, tf.int32)
        return loss, tf.reduce_sum(tf.cast(is_wrong, tf.float32))

    def _apply(self, gradients: Sequence[Any]) -> None:
        """Keras's Adam step in TensorFlow's own kernel, which passes over the memory once instead of ten times."""
        import tensorflow as tf

        adam = self._model.optimizer
        step, rate = tf.cast(adam.iterations.value + 1, tf.float32), tf.cast(adam.learning_rate, tf.float32)
        variables = self._model.trainable_variables, *moments(adam)
        for variable, momentum, velocity, gradient in zip(*variables, gradients, strict=True):
            if decays(adam, variable):
                variable.value.assign_sub(variable.value * (rate * adam.weight_decay))
            tf.raw_ops.ResourceApplyAdam(
                var=variable.value.handle,
                m=momentum.value.handle,
                v=velocity.value.handle,
                beta1_power=tf.pow(adam.beta_1, step),
                beta2_power=tf.pow(adam.beta_2, step),
                lr=rate,
                beta1=adam.beta_1,
                beta2=adam.beta_2,
                epsilon=adam.epsilon,
                grad=gradient,
            )
        adam.iterations.value.assign_add(1)

    def _probabilities(self, images: Any, num_batches: Any) -> Any:
        """Probabilities of all images, shape (-1, classes); zeros after the first `num_batches` evaluation batches."""
        import tensorflow as tf

        batches = tf.reshape(images, (-1, EVALUATION_BATCH, *images.shape[1:]))
        # The length is that of all images, not `num_batches`: XLA would compile again for each length.
        size = tf.shape(batches)[0]
        found = tf.TensorArray(tf.float32, size=size, element_shape=(EVALUATION_BATCH, self._num_classes))

        def batch(number: Any, found: Any) -> tuple[Any, Any]:
            return number + 1, found.write(number, self._model(scaled(batches[number]), training=False))

        return tf.while_loop(lambda number, _: number < num_batches, batch, (0, found))[1].concat()


class KerasFit:
    """Runs an epoch by `fit`, on any backend of Keras."""

    name = "fit"
    num_wrong: int | None = None

    def __init__(self, model: keras.Model, train: Images, batch_size: int) -> None:
        self._model, self._data, self._num_classes = model, train, model.output_shape[-1]
        variables = [*model.variables, *model.optimizer.variables]
        before = [keras.ops.convert_to_numpy(variable).copy() for variable in variables]
        self.train(np.zeros((1, batch_size), np.int32))
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        self.predict(train, EVALUATION_BATCH)

    def train(self, order: Order, transforms: Floats | None = None) -> float:
        if keras.backend.backend() == "torch":
            # Dropout uses PyTorch's generator, which is not in checkpoints. The order differs between epochs.
            importlib.import_module("torch").manual_seed(zlib.crc32(order.tobytes()))
        positions = order.reshape(-1)
        transforms = transforms_of(order, transforms)
        images = scaled(self._data.images[positions], transforms.reshape(len(positions), transforms.shape[-1]))
        labels = np.eye(self._num_classes, dtype=np.float32)[self._data.labels[positions]]
        history = self._model.fit(images, labels, batch_size=order.shape[1], shuffle=False, verbose=0)
        return float(history.history["loss"][0])

    def predict(self, images: Images, num_images: int) -> Floats:
        starts = range(0, num_images, EVALUATION_BATCH)
        batches = (scaled(images.images[start : start + EVALUATION_BATCH]) for start in starts)
        return np.concatenate([self._model.predict_on_batch(batch) for batch in batches])[:num_images]
