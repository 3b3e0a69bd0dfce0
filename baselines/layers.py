"""Pieces that the architectures share: a hidden layer with its options, and costs of layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from baselines.settings import YES_OR_NO, Real, Whole

if TYPE_CHECKING:
    import keras


# The allowed values of the settings of both. With these widths every network has fewer than 2**31 parameters.
Units = Annotated[int, Whole(1, 16_384)]  # of a dense layer
Dropped = Annotated[float, Real(0, 1, is_below_high=True)]
Shift = Annotated[float, Real(0, 1)]  # share of the side
Turn = Annotated[float, Real(0, 1)]  # share of a full turn
Zoom = Annotated[float, Real(0, 1, is_below_high=True)]  # zoom by 1 would shrink the image to one point
Shear = Annotated[float, Real(0, 1)]  # tangent of the angle
Normalised = Annotated[bool, YES_OR_NO]


@dataclass(frozen=True)
class Task:
    """What a network classifies: images of shape (height, width, channels) into so many classes."""

    shape: tuple[int, int, int]
    num_classes: int

    @property
    def num_pixels(self) -> int:
        """Input values of an image, all channels counted."""
        return math.prod(self.shape)


MNIST = Task((28, 28, 1), 10)


@dataclass(frozen=True)
class Cost:
    """The cost of a configuration, computed without building it.

    Attributes:
        num_params: Parameters, those of batch normalisation's moving statistics included (as Keras counts).
        flops_per_image: Floating point operations of one forward pass over one image, a multiply and an add
            counted as two; training takes about three times as many. Only convolutions and dense layers count.
        activations_per_image: Outputs of the hidden layers for one image.
    """

    num_params: int
    flops_per_image: int
    activations_per_image: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.num_params + other.num_params,
            self.flops_per_image + other.flops_per_image,
            self.activations_per_image + other.activations_per_image,
        )

    def training_memory_mb(self, batch_size: int) -> float:
        """MiB to train with Adam in float32: weights, gradients and two moments; activations with their gradients."""
        return 4 * (4 * self.num_params + 2 * batch_size * self.activations_per_image) / 2**20


def conv2d_cost(positions: int, channels_in: int, filters: int, kernel: int, batch_norm: bool = False) -> Cost:
    """Cost of a convolution with bias, a square kernel and outputs of each filter at so many positions."""
    weights = kernel * kernel * channels_in * filters
    plain = Cost(weights + filters, 2 * positions * weights, positions * filters)
    return plain + _norm_cost(positions, filters, batch_norm)


def dense_cost(units_in: int, units: int, batch_norm: bool = False) -> Cost:
    """Cost of a dense layer with bias."""
    return Cost(units_in * units + units, 2 * units_in * units, units) + _norm_cost(1, units, batch_norm)


def _norm_cost(positions: int, channels: int, batch_norm: bool) -> Cost:
    # Gain, offset, moving mean and moving variance per channel.
    return Cost(4 * channels, 0, positions * channels) if batch_norm else Cost(0, 0, 0)


def hidden(layer: keras.Layer, batch_norm: bool) -> list[keras.Layer]:
    """A layer with its relu: inside the layer as documented, or after batch normalisation of the layer's output."""
    import keras

    if not batch_norm:
        layer.activation = keras.activations.relu
        return [layer]
    # With Keras's default, 0.99, the initial statistics last about 500 steps; short trials have fewer than 200.
    norm = keras.layers.BatchNormalization(momentum=0.9, name=f"{layer.name}_norm")
    return [layer, norm, keras.layers.ReLU(name=f"{layer.name}_relu")]


def dropout(rate: float, name: str) -> list[keras.Layer]:
    """A dropout layer, or none if the rate is 0."""
    import keras

    return [keras.layers.Dropout(rate, name=name)] if rate else []
