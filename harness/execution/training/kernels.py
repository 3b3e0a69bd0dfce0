"""TensorFlow kernels that replace compositions of many operations in Keras: the same numbers in less time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras


@contextmanager
def fused_normalisation(model: keras.Model) -> Iterator[None]:
    """Within this context, batch normalisation of a training step is traced as one kernel.

    Keras 3 computes moments and the normalised values from elementwise operations, which read the feature maps many
    times. The layers stay Keras's own and are restored afterwards.
    """
    normalising = [layer for layer in model.layers if type(layer) is keras.layers.BatchNormalization]
    for layer in normalising:
        layer.call = partial(_normalised, layer)
    try:
        yield
    finally:
        for layer in normalising:
            del layer.call  # the class's own is back


def _normalised(layer: keras.layers.BatchNormalization, inputs: Any, training: bool, mask: None = None) -> Any:
    """`BatchNormalization.call` in training, for channels last: (n, channels) or (n, height, width, channels)."""
    import tensorflow as tf

    images = inputs if len(inputs.shape) == 4 else inputs[:, tf.newaxis, tf.newaxis, :]
    outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        images, layer.gamma.value, layer.beta.value, epsilon=layer.epsilon, is_training=True
    )
    # The kernel returns the unbiased variance; Keras keeps the biased one.
    num_values = tf.cast(tf.reduce_prod(tf.shape(images)[:3]), tf.float32)
    for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance * (1.0 - 1.0 / num_values))):
        moving.assign(moving * layer.momentum + value * (1.0 - layer.momentum))
    return outputs if len(inputs.shape) == 4 else outputs[:, 0, 0, :]
