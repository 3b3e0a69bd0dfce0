"""The documented convolutional network: conv 5x5x32, pool, conv 5x5x64, pool, dense 1024, dense 10.

layer                      output shape    parameters
conv 5x5, 32, same, relu   (28, 28, 32)           832
max pooling 2x2            (14, 14, 32)             0
conv 5x5, 64, same, relu   (14, 14, 64)        51,264
max pooling 2x2            (7, 7, 64)               0
flatten                    (3136,)                  0
dense 1024, relu           (1024,)          3,212,288
dense 10, softmax          (10,)               10,250
total                                       3,274,634
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from baselines.layers import (
    Cost,
    Dropped,
    Normalised,
    Shift,
    Turn,
    Units,
    Zoom,
    conv2d_cost,
    dense_cost,
    dropout,
    hidden,
)
from baselines.settings import Whole

if TYPE_CHECKING:
    import keras

Filters = Annotated[int, Whole(1, 1024)]


@dataclass(frozen=True)
class Config:
    """The settings of the network; the defaults are the documented values.

    `augment_shift` and `augment_zoom` are shares of the image's side, `augment_rotation` is a share of a full
    turn; augmentation is random per image and acts in training only. `dropout` follows the dense layer,
    `conv_dropout` each pooling. `batch_norm` is between a hidden layer and its relu.
    """

    filters_1: Filters = 32
    filters_2: Filters = 64
    kernel_1: Annotated[int, Whole(1, 28)] = 5  # at most the side of its input
    kernel_2: Annotated[int, Whole(1, 14)] = 5
    dense_units: Units = 1024
    dropout: Dropped = 0.0
    conv_dropout: Dropped = 0.0
    batch_norm: Normalised = False
    augment_shift: Shift = 0.0
    augment_rotation: Turn = 0.0
    augment_zoom: Zoom = 0.0


DOCUMENTED = Config()
NUM_PARAMS = 3_274_634  # of the table above
GPU_STEP_S = 4e-3


def build(config: Config) -> keras.Model:
    """The network of `config`: (batch, 28, 28, 1) grey images in 0..1 to (batch, 10) class probabilities."""
    import keras
    from keras import layers

    conv_1 = layers.Conv2D(config.filters_1, config.kernel_1, padding="same", name="conv_1")
    conv_2 = layers.Conv2D(config.filters_2, config.kernel_2, padding="same", name="conv_2")
    dense = layers.Dense(config.dense_units, name="dense")
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            *hidden(conv_1, config.batch_norm),
            layers.MaxPooling2D(2, name="pool_1"),
            *dropout(config.conv_dropout, "pool_1_dropout"),
            *hidden(conv_2, config.batch_norm),
            layers.MaxPooling2D(2, name="pool_2"),
            *dropout(config.conv_dropout, "pool_2_dropout"),
            layers.Flatten(name="flatten"),
            *hidden(dense, config.batch_norm),
            *dropout(config.dropout, "dense_dropout"),
            layers.Dense(10, activation="softmax", dtype="float32", name="classes"),
        ],
        name="cnn",
    )


def cost(config: Config) -> Cost:
    """Parameters, operations and activations of `config`, in closed form."""
    return (
        conv2d_cost(28, 1, config.filters_1, config.kernel_1, config.batch_norm)
        + conv2d_cost(14, config.filters_1, config.filters_2, config.kernel_2, config.batch_norm)
        + dense_cost(7 * 7 * config.filters_2, config.dense_units, config.batch_norm)
        + dense_cost(config.dense_units, 10)
    )
