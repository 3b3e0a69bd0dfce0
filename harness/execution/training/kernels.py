"""TensorFlow kernels that replace compositions of many operations in Keras: the same function in less time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import keras

ONEDNN_BLOCK = 16  # channels
RANDOM_LEVELS = 2**16  # of a random number of dropout
RANDOM_PER_WORD = 4  # such numbers in 64 bits


@contextmanager
def fast_kernels(model: keras.Model) -> Iterator[None]:
    """Within this context, calls of the model are traced with these kernels.

    The layers stay Keras's own and are restored afterwards, so a saved model knows nothing of this.
    """
    with ExitStack() as restored:

        def call(layer: keras.Layer, function: Any) -> None:
            layer.call = function
            restored.callback(delattr, layer, "call")  # the class's own is back

        for layer in model.layers:
            if type(layer) is keras.layers.BatchNormalization and _has_fast_normalisation(layer):
                call(layer, partial(_normalised, layer))
            elif type(layer) is keras.layers.Dropout and 0 < layer.rate < 1 and layer.noise_shape is None:
                call(layer, partial(_dropped, layer))
        for activated, pool in _relus_before_pools(model):
            if type(activated) is keras.layers.ReLU:
                call(activated, keras.activations.linear)
            else:
                restored.callback(setattr, activated, "activation", activated.activation)
                activated.activation = keras.activations.linear
            call(pool, partial(_pooled, pool))
        yield


def _normalised(layer: keras.layers.BatchNormalization, inputs: Any, training: bool = False, mask: None = None) -> Any:
    """`BatchNormalization.call` for feature maps (n, height, width, channels).

    Keras 3 computes moments and the normalised values from elementwise operations, which read the feature maps many
    times.
    """
    import tensorflow as tf

    known = {} if training else {"mean": layer.moving_mean.value, "variance": layer.moving_variance.value}
    outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        inputs, layer.gamma.value, layer.beta.value, epsilon=layer.epsilon, is_training=training, **known
    )
    if training:
        # The kernel returns the unbiased variance; Keras keeps the biased one.
        num_values = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
        for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance * (1.0 - 1.0 / num_values))):
            moving.assign(moving * layer.momentum + value * (1.0 - layer.momentum))
    return outputs


def _has_fast_normalisation(layer: keras.layers.BatchNormalization) -> bool:
    """Whether TensorFlow's fused kernel is faster than Keras's composition.

    On vectors it is not. In bfloat16 oneDNN has a fast one only for whole blocks of channels; for others it takes four
    thirds of the time of the composition.
    """
    is_map, num_channels = len(layer.input.shape) == 4, layer.input.shape[-1]
    return is_map and (layer.compute_dtype == "float32" or num_channels % ONEDNN_BLOCK == 0)


def _dropped(layer: keras.layers.Dropout, inputs: Any, training: bool = False) -> Any:
    """`Dropout.call` with 16 random bits for each value, a quarter of the time of a random real number.

    The rate is rounded to a multiple of 2**-16, but not to 1. The mask is multiplied instead of selected, in both
    directions.
    """
    import tensorflow as tf

    num_dropped = min(round(layer.rate * RANDOM_LEVELS), RANDOM_LEVELS - 1)
    if not training or num_dropped == 0:
        return inputs
    count = math.prod(inputs.shape)
    words = tf.random.stateless_uniform(
        (-(-count // RANDOM_PER_WORD),), tf.cast(layer.seed_generator.next(), tf.int32), None, None, tf.uint64
    )
    numbers = tf.reshape(tf.reshape(tf.bitcast(words, tf.uint16), (-1,))[:count], inputs.shape)
    kept = tf.cast(numbers >= num_dropped, inputs.dtype)
    return inputs * (kept * tf.cast(RANDOM_LEVELS / (RANDOM_LEVELS - num_dropped), inputs.dtype))


def _pooled(layer: keras.layers.MaxPooling2D, inputs: Any) -> Any:
    """The relu of the largest values instead of the largest values of the relu: a quarter of the memory traffic."""
    return keras.ops.relu(type(layer).call(layer, inputs))


def _relus_before_pools(model: keras.Model) -> Iterator[tuple[keras.Layer, keras.layers.MaxPooling2D]]:
    """Each layer that ends in a relu and feeds nothing but the max pooling after it, with that pooling."""
    chain = model.layers if isinstance(model, keras.Sequential) else []
    for before, after in pairwise(chain):
        if type(after) is keras.layers.MaxPooling2D and _ends_in_relu(before):
            yield before, after


def _ends_in_relu(layer: keras.Layer) -> bool:
    if type(layer) is keras.layers.ReLU:
        return (layer.max_value, layer.negative_slope, layer.threshold) == (None, 0.0, 0.0)
    return type(layer) is keras.layers.Conv2D and layer.activation is keras.activations.relu
