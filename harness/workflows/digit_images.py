"""Reads pictures: of digits as the data set of the network has them, 28 x 28, light on dark; others as they are.

MNIST's digits were scaled into 20 x 20 pixels and laid into 28 x 28 by their centre of mass (LeCun et al., Proceedings
of the IEEE 86 (1998) 2278-2324). Those of `digits` were scaled into 8 x 8 cells (E. Alpaydin and C. Kaynak, Kybernetika
34 (1998) 369-374), which fill 24 x 24 of the pixels here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from harness.errors import InputError
from harness.support.given_files import open_given

Floats = NDArray[np.float32]

SIDE = 28
MAX_PIXELS = 2**25
WORKING_SIDE = 512  # a larger picture is reduced first
FAINTEST = 16 / 255  # a picture with less contrast is empty
OF_THE_DIGIT = 0.2  # of the strongest ink; less is noise around it


@dataclass(frozen=True)
class Layout:
    """How a data set lays digits out.

    Attributes:
        box: Side of the square into which a digit is scaled, in cells.
        cell: Side of a cell, pixels.
        by_mass: The centre of mass is in the middle; otherwise the middle of the digit.
    """

    box: int
    cell: int = 1
    by_mass: bool = True


LAYOUTS: dict[str, Layout] = {"mnist": Layout(20), "digits": Layout(8, cell=3, by_mass=False)}


def read_digit(path: Path, dataset: str = "mnist") -> Floats:
    """The digit of a PNG file: (28, 28) in 0..1, light on dark, laid out as in `dataset`.

    A picture with a light border is inverted. One of 28 x 28 pixels is otherwise unchanged; in any other the digit is
    cropped, scaled and centred.

    Raises:
        InputError: the file cannot be read, is no PNG, is too large, or is empty.
    """
    grey = _read(path, _grey)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ground = float(np.median(border))
    is_light = ground > (float(grey.min()) + float(grey.max())) / 2
    if grey.shape == (SIDE, SIDE):
        digit = 1.0 - grey if is_light else grey
    else:
        digit = np.clip(ground - grey if is_light else grey - ground, 0.0, None)
    if np.ptp(digit) < FAINTEST:
        raise InputError(f"{path} shows nothing: all of it is one shade; allowed: a digit")
    return digit if grey.shape == (SIDE, SIDE) else _laid_out(digit / digit.max(), LAYOUTS[dataset])


def read_picture(path: Path, shape: tuple[int, int, int]) -> Floats:
    """A PNG file scaled to `shape` (height, width, channels), in 0..1; grey with one channel, colours with three.

    Raises:
        InputError: the file cannot be read, is no PNG, or is too large, or no picture has so many channels.
    """
    height, width, channels = shape
    if channels not in (1, 3):
        raise InputError(f"{path} cannot have {channels} channels; allowed: a network of images with 1 or 3 channels")

    def scaled(image: Image.Image) -> Floats:
        layers = image.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BOX)
        return np.asarray(layers, np.float32).reshape(shape) / np.float32(255.0)

    return _read(path, scaled)


def _read(path: Path, convert: Callable[[Image.Image], Floats]) -> Floats:
    """The values of a PNG file, as `convert` takes them from the picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with open_given(path) as file, Image.open(file, formats=["PNG"]) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                return convert(image)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise InputError(f"{path} is too large; allowed: at most {MAX_PIXELS // 10**6} million pixels") from None
        except UnidentifiedImageError:
            raise InputError(f"{path} is no PNG picture; allowed: PNG files") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
        except Exception as error:  # a damaged file may raise nearly any exception
            raise InputError(f"{path} is damaged: {error}") from None


def _grey(image: Image.Image) -> Floats:
    """Grey values in 0..1; transparent pixels become background."""
    if image.mode.startswith("I"):  # 16 bits, which `convert` would clip
        deep = np.asarray(image).astype(np.float32) / 257.0
        image = Image.fromarray(np.clip(deep, 0, 255).astype(np.uint8))
    layers = image.convert("LA")
    if max(layers.size) > WORKING_SIDE and layers.size != (SIDE, SIDE):
        layers.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BOX)
    light, cover = np.moveaxis(np.asarray(layers, np.float32) / 255.0, -1, 0)
    ink_is_light = bool((light * cover).sum() > cover.sum() / 2)
    ground = 0.0 if ink_is_light else 1.0
    grey: Floats = light * cover + ground * (1.0 - cover)
    return grey


def _laid_out(digit: Floats, layout: Layout) -> Floats:
    fitted = _fitted(digit, layout)
    num_cells = SIDE // layout.cell if layout.by_mass else layout.box
    cells = np.zeros((num_cells, num_cells), np.float32)
    top, left = (
        _by_mass(fitted.sum(axis), num_cells) if layout.by_mass else (num_cells - len(fitted.sum(axis))) // 2
        for axis in (1, 0)
    )
    cells[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    pixels = cells.repeat(layout.cell, axis=0).repeat(layout.cell, axis=1)
    return np.pad(pixels, (SIDE - len(pixels)) // 2)


def _fitted(digit: Floats, layout: Layout) -> Floats:
    """The cropped digit, its longer side scaled to the box; in cells."""
    rows, columns = (np.flatnonzero((digit > OF_THE_DIGIT).any(axis)) for axis in (1, 0))
    cut = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(layout.box * side / max(cut.shape))) for side in cut.shape)
    scaled = np.asarray(Image.fromarray(cut).resize((width, height), Image.Resampling.BILINEAR))
    fitted: Floats = scaled / scaled.max()
    return fitted


def _by_mass(mass: Floats, room: int) -> int:
    """Where a digit begins whose centre of mass is in the middle, or as near as it fits."""
    centre = float((np.arange(len(mass)) * mass).sum() / mass.sum())
    return min(max(0, round(room / 2 - centre)), room - len(mass))
