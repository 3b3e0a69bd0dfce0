"""How training images are varied: one random affine transform per image and epoch, on every backend the same."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NUM_COEFFICIENTS = 8


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the transform; each is drawn evenly from minus to plus its value, and 0 changes nothing.

    Attributes:
        shift: Share of the image's width and height, in each direction by itself.
        rotation: Share of a full turn about the centre.
        zoom: Share by which the image is made smaller or larger about the centre.
        shear: Tangent of the angle by which the columns lean over.
    """

    shift: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0

    def __bool__(self) -> bool:
        return any(astuple(self))

    def transforms(
        self, shape: tuple[int, ...], size: tuple[int, int], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """A transform for each of so many images of `size` (height, width) in pixels, shape (*shape, 8).

        They are the coefficients a0, a1, a2, b0, b1, b2, c0, c1 of `keras.ops.image.affine_transform`: the pixel
        (x, y) of the result is read at (a0 x + a1 y + a2, b0 x + b1 y + b2). The image is shifted, then rotated, then
        zoomed, then sheared. Shape (*shape, 0) where nothing changes.
        """
        import numpy as np

        if not self:
            return np.empty((*shape, 0), np.float32)
        drawn, (height, width) = rng.uniform(-1.0, 1.0, (5, *shape)), size
        shift_x, shift_y = self.shift * width * drawn[0], self.shift * height * drawn[1]
        angle, scale = 2 * np.pi * self.rotation * drawn[2], 1.0 + self.zoom * drawn[3]
        lean, zero = self.shear * drawn[4], np.zeros(shape)
        x, y = (width - 1) / 2, (height - 1) / 2  # of the centre
        cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
        across = (cosine, cosine * lean - sine)
        down = (sine, sine * lean + cosine)
        # The quotients keep equal bits for square images, where they are 1.
        rows = [
            *(*across, x + shift_x - x * (across[0] + across[1] * (y / x))),
            *(*down, y + shift_y - y * (down[0] * (x / y) + down[1])),
            *(zero, zero),
        ]
        return np.stack(rows, axis=-1).astype(np.float32)


def augmentation(config: Any) -> Augmentation:
    """The ranges of a configuration; 0 for those that its architecture does not have."""
    return Augmentation(*(getattr(config, f"augment_{name}", 0.0) for name in ("shift", "rotation", "zoom", "shear")))
