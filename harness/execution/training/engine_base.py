"""The protocol of engines, and images on the device.

Images stay bytes until they are in a batch. So they need a quarter of the memory and are on the device once for all
trials of a worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
from numpy.typing import NDArray

EVALUATION_BATCH = 500

Pixels = NDArray[np.uint8] | NDArray[np.float32]
Labels = NDArray[np.uint8] | NDArray[np.int32]
Floats = NDArray[np.float32]
Order = NDArray[np.int32]


@dataclass(frozen=True)
class Images:
    """Images (n, height, width[, channels]) and labels (n,) in the backend's memory; n is at least `num_images`.

    Images are uint8 in 0..255, or float32.
    """

    images: Any
    labels: Any
    num_images: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of an image in pixels."""
        return int(self.images.shape[1]), int(self.images.shape[2])


class Engine(Protocol):
    """Trains one model. Its constructor traces and compiles everything and leaves the model unchanged.

    `num_wrong` is the number of images that the last call of `train` classified wrongly, each before its own step; None
    if the engine does not count them.
    """

    name: str
    num_wrong: int | None

    def train(self, order: Order, transforms: Floats | None = None) -> float:
        """Trains on batches of these positions, shape (steps, batch size); returns the mean loss over them.

        `transforms` (steps, batch size, 8) has the coefficients of each image's affine transform, for an engine made
        with `augments`.
        """

    def predict(self, images: Images, num_images: int) -> Floats:
        """Class probabilities (num_images, classes) of the first images."""


def hold(images: Pixels, labels: Labels) -> Images:
    """Copies images to the device, for the lifetime of the result."""
    # Padded to whole batches, since another shape of batch would need its own compilation.
    fill = -len(images) % EVALUATION_BATCH
    padded = tuple(np.pad(array, ((0, fill), *[(0, 0)] * (array.ndim - 1))) for array in (images, labels))
    if keras.backend.backend() == "torch":
        return Images(padded[0], padded[1], len(images))  # `fit` takes them from here
    on_device = keras.ops.convert_to_tensor
    return Images(on_device(padded[0]), on_device(padded[1]), len(images))


def scaled(images: Any, transforms: Any | None = None) -> Any:
    """What networks get, (n, height, width, channels), each image moved by its transform (n, 8).

    Bytes are scaled to 0..1, and floats are used as they are. Grey images, (n, height, width), get a channel.
    """
    is_bytes = keras.backend.standardize_dtype(images.dtype) == "uint8"
    shown = keras.ops.cast(images, "float32") / 255.0 if is_bytes else images
    shown = keras.ops.expand_dims(shown, -1) if len(shown.shape) == 3 else shown
    if transforms is None or transforms.shape[-1] == 0:
        return shown
    return keras.ops.image.affine_transform(shown, transforms, interpolation="bilinear", fill_mode="constant")


def transforms_of(order: Order, transforms: Floats | None) -> Floats:
    """The given ones, or, for images that are shown as they are, none for each of a batch: (steps, batch size, 0)."""
    return np.empty((*order.shape, 0), np.float32) if transforms is None else transforms
