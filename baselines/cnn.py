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

import math
from collections.abc import Iterator
from dataclasses import dataclass
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
    conv2d_cost,
    dense_cost,
    dropout,
    hidden,
)
from baselines.settings import Needs, OneOf, Whole

if TYPE_CHECKING:
    import keras

Filters = Annotated[int, Whole(1, 1024)]
Size = tuple[int, int]  # (height, width) in pixels


@dataclass(frozen=True)
class Config:
    """The settings of the network; the defaults are the documented values.

    The network has `stages`, after each of which the resolution is half (rounded up), and a head. A stage has
    `stage_convs` convolutions: the first with its own kernel, further ones with `inner_kernel`. It ends (`stage_end`)
    with a pooling, or with another convolution of stride 2, `stride_kernel` and its own relu. With the padding "valid"
    a convolution of stride 1 has no padding, except where its kernel does not fit into its input. The head is a dense
    layer, or the mean of each feature map; `dense_units` and `dropout` belong to the dense layer. `conv_dropout`
    follows each stage. `batch_norm` is between a hidden layer and its relu. `filters_3` and `kernel_3` apply only if
    there is a third stage.

    `augment_shift` and `augment_zoom` are shares of the image's side, `augment_rotation` is a share of a full turn,
    `augment_shear` the tangent of an angle; augmentation is random per image and acts in training only.
    """

    filters_1: Filters = 32
    filters_2: Filters = 64
    kernel_1: Annotated[int, Whole(1, 28)] = 5  # at most the side of its input
    kernel_2: Annotated[int, Whole(1, 14)] = 5
    dense_units: Annotated[Units, Needs("head", ("dense",))] = 1024
    dropout: Annotated[Dropped, Needs("head", ("dense",))] = 0.0
    conv_dropout: Dropped = 0.0
    batch_norm: Normalised = False
    augment_shift: Shift = 0.0
    augment_rotation: Turn = 0.0
    augment_zoom: Zoom = 0.0
    augment_shear: Shear = 0.0
    stages: Annotated[int, Whole(2, 3)] = 2
    stage_convs: Annotated[int, Whole(1, 3)] = 1
    inner_kernel: Annotated[int, Whole(1, 7), Needs("stage_convs", (2, 3))] = 3
    stage_end: Annotated[str, OneOf(("max_pool", "average_pool", "stride"))] = "max_pool"
    stride_kernel: Annotated[int, Whole(2, 7), Needs("stage_end", ("stride",))] = 5
    padding: Annotated[str, OneOf(("same", "valid"))] = "same"
    head: Annotated[str, OneOf(("dense", "global_average"))] = "dense"
    filters_3: Annotated[Filters, Needs("stages", (3,))] = 64
    kernel_3: Annotated[int, Whole(1, 7), Needs("stages", (3,))] = 3


DOCUMENTED = Config()
NUM_PARAMS = 3_274_634  # of the table above
GPU_STEP_S = 4e-3


@dataclass(frozen=True)
class _Conv:
    """A convolution of the network: `size` and `size_out` are (height, width) of its input and output in pixels."""

    name: str
    filters: int
    kernel: int
    strides: int
    padding: str
    channels_in: int
    size: Size

    @property
    def size_out(self) -> Size:
        if self.strides == 2:
            return _half(self.size)
        height, width = self.size
        lost = 0 if self.padding == "same" else self.kernel - 1
        return height - lost, width - lost


@dataclass(frozen=True)
class _Stage:
    number: int
    convs: tuple[_Conv, ...]
    size_out: Size


def build(config: Config, task: Task = MNIST) -> keras.Model:
    """The network of `config`: images (batch, height, width, channels) to class probabilities (batch, classes)."""
    import keras
    from keras import layers

    body: list[keras.Layer] = []
    for stage in _stages(config, task):
        for conv in stage.convs:
            layer = layers.Conv2D(conv.filters, conv.kernel, conv.strides, padding=conv.padding, name=conv.name)
            body += hidden(layer, config.batch_norm)
        if config.stage_end != "stride":
            pooling = layers.MaxPooling2D if config.stage_end == "max_pool" else layers.AveragePooling2D
            body.append(pooling(2, padding="same", name=f"pool_{stage.number}"))
        body += dropout(config.conv_dropout, f"pool_{stage.number}_dropout")
    if config.head == "dense":
        dense = layers.Dense(config.dense_units, name="dense")
        body += [layers.Flatten(name="flatten"), *hidden(dense, config.batch_norm)]
        body += dropout(config.dropout, "dense_dropout")
    else:
        body.append(layers.GlobalAveragePooling2D(name="mean"))
    classes = layers.Dense(task.num_classes, activation="softmax", dtype="float32", name="classes")
    return keras.Sequential([keras.Input(task.shape, name="image"), *body, classes], name="cnn")


def cost(config: Config, task: Task = MNIST) -> Cost:
    """Parameters, operations and activations of `config`, in closed form."""
    total, stages = Cost(0, 0, 0), list(_stages(config, task))
    for stage in stages:
        for conv in stage.convs:
            total += conv2d_cost(
                math.prod(conv.size_out), conv.channels_in, conv.filters, conv.kernel, config.batch_norm
            )
    channels, num_positions = stages[-1].convs[-1].filters, math.prod(stages[-1].size_out)
    if config.head == "global_average":
        return total + dense_cost(channels, task.num_classes)
    dense = dense_cost(num_positions * channels, config.dense_units, config.batch_norm)
    return total + dense + dense_cost(config.dense_units, task.num_classes)


def _half(size: Size) -> Size:
    """Pixels after a pooling or a stride of 2."""
    height, width = size
    return (height + 1) // 2, (width + 1) // 2


def _stages(config: Config, task: Task) -> Iterator[_Stage]:
    *_, channels = task.shape
    size = task.shape[:2]
    own = (config.filters_1, config.kernel_1), (config.filters_2, config.kernel_2), (config.filters_3, config.kernel_3)
    for number, (filters, first_kernel) in enumerate(own[: config.stages], start=1):
        kernels = [first_kernel] + [config.inner_kernel] * (config.stage_convs - 1)
        convs = []
        for position, kernel in enumerate(kernels, start=1):
            name = f"conv_{number}" if position == 1 else f"conv_{number}_{position}"
            padding = config.padding if kernel <= min(size) else "same"
            convs.append(_Conv(name, filters, kernel, 1, padding, channels, size))
            size, channels = convs[-1].size_out, filters
        if config.stage_end == "stride":
            convs.append(_Conv(f"stride_{number}", filters, config.stride_kernel, 2, "same", channels, size))
        size = _half(size)
        yield _Stage(number, tuple(convs), size)
