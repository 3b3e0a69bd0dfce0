"""A network of one's own: convolutions with stride 2 instead of pooling, then the mean of each feature map.

layer                                      output shape    parameters
conv 3x3, 16, stride 2, batch norm, relu   (14, 14, 16)           224
conv 3x3, 32, stride 2, batch norm, relu   (7, 7, 32)           4,768
mean of each feature map                   (32,)                    0
dense 10, softmax                          (10,)                  330
total                                                           5,322
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from baselines.layers import (
    MNIST,
    Cost,
    Dropped,
    Normalised,
    Shear,
    Shift,
    Task,
    Turn,
    Zoom,
    conv2d_cost,
    dense_cost,
    dropout,
    hidden,
)
from baselines.settings import Whole

KERNEL = 3


@dataclass(frozen=True)
class Config:
    """The settings with their documented values; each says which values it allows."""

    filters: Annotated[int, Whole(1, 512)] = 16  # of the first convolution; each further one has twice as many
    convs: Annotated[int, Whole(1, 4)] = 2
    dropout: Dropped = 0.0
    batch_norm: Normalised = True
    augment_shift: Shift = 0.0
    augment_rotation: Turn = 0.0
    augment_zoom: Zoom = 0.0
    augment_shear: Shear = 0.0

    @property
    def widths(self) -> list[int]:
        return [self.filters * 2**position for position in range(self.convs)]


DOCUMENTED = Config()
NUM_PARAMS = 5_322  # of the table above


def build(config, task=MNIST):
    """The network: images (batch, *task.shape) to probabilities (batch, task.num_classes)."""
    import keras
    from keras import layers

    body = []
    for number, width in enumerate(config.widths, start=1):
        conv = layers.Conv2D(width, KERNEL, strides=2, padding="same", name=f"conv_{number}")
        body += hidden(conv, config.batch_norm)
    body += [layers.GlobalAveragePooling2D(name="mean"), *dropout(config.dropout, "mean_dropout")]
    # Probabilities are computed in float32, also where the rest is in bfloat16.
    classes = layers.Dense(task.num_classes, activation="softmax", dtype="float32", name="classes")
    return keras.Sequential([keras.Input(task.shape, name="image"), *body, classes], name="strided")


def cost(config: Config, task: Task = MNIST) -> Cost:
    """Parameters, operations and activations, which are known before the network is built."""
    height, width, channels = task.shape
    total = Cost(0, 0, 0)
    for filters in config.widths:
        height, width = math.ceil(height / 2), math.ceil(width / 2)
        total += conv2d_cost(height * width, channels, filters, KERNEL, config.batch_norm)
        channels = filters
    return total + dense_cost(channels, task.num_classes)
