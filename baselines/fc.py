"""The documented fully connected network: 784 - 512 - 512 - 10.

layer               output shape    parameters
flatten             (784,)                   0
dense 512, relu     (512,)             401,920
dense 512, relu     (512,)             262,656
dense 10, softmax   (10,)                5,130
total                                  669,706
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from baselines.layers import (
    MNIST,
    Cost,
    Dropped,
    Normalised,
    Shear,
    Shift,
    Task,
    Turn,
    Units,
    Zoom,
    dense_cost,
    dropout,
    hidden,
)
from baselines.settings import Needs, Whole

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Config:
    """The settings of the network; the defaults are the documented values.

    `layers` counts the hidden layers; `units_2` and `units_3` apply only if their layer exists.
    `input_dropout` acts on the pixels, `dropout` after each hidden layer; `batch_norm` is between a hidden
    layer and its relu. Augmentation is as in the convolutional network.
    """

    units_1: Units = 512
    units_2: Annotated[Units, Needs("layers", (2, 3))] = 512
    units_3: Annotated[Units, Needs("layers", (3,))] = 512
    layers: Annotated[int, Whole(1, 3)] = 2
    dropout: Dropped = 0.0
    input_dropout: Dropped = 0.0
    batch_norm: Normalised = False
    augment_shift: Shift = 0.0
    augment_rotation: Turn = 0.0
    augment_zoom: Zoom = 0.0
    augment_shear: Shear = 0.0

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.units_1, self.units_2, self.units_3)[: self.layers]


DOCUMENTED = Config()
NUM_PARAMS = 669_706  # of the table above
GPU_STEP_S = 1.3e-3


def build(config: Config, task: Task = MNIST) -> keras.Model:
    """The network of `config`: images (batch, height, width, channels) to class probabilities (batch, classes)."""
    import keras
    from keras import layers

    body = []
    for i, units in enumerate(config.widths, start=1):
        body += hidden(layers.Dense(units, name=f"dense_{i}"), config.batch_norm)
        body += dropout(config.dropout, f"dense_{i}_dropout")
    return keras.Sequential(
        [
            keras.Input(task.shape, name="image"),
            layers.Flatten(name="flatten"),
            *dropout(config.input_dropout, "input_dropout"),
            *body,
            layers.Dense(task.num_classes, activation="softmax", dtype="float32", name="classes"),
        ],
        name="fc",
    )


def cost(config: Config, task: Task = MNIST) -> Cost:
    """Parameters, operations and activations of `config`, in closed form."""
    widths = (task.num_pixels, *config.widths)
    total = dense_cost(widths[-1], task.num_classes)
    for units_in, units in pairwise(widths):
        total += dense_cost(units_in, units, config.batch_norm)
    return total
