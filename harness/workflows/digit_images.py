"""Converts pictures of digits to MNIST's format: 28 x 28, light on dark, the digit centred.

MNIST's digits were scaled into 20 x 20 pixels and laid into 28 x 28 by their centre of mass (LeCun et al., Proceedings
of the IEEE 86 (1998) 2278-2324).
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from harness.errors import InputError
from harness.support.given_files import open_given

Floats = NDArray[np.float32]

SIDE, BOX = 28, 20
MAX_PIXELS = 2**25
WORKING_SIDE = 512  # a larger picture is reduced first
FAINTEST = 16 / 255  # a picture with less contrast is empty
OF_THE_DIGIT = 0.2  # of the strongest ink; less is noise around it


def read_digit(path: Path) -> Floats:
    """The digit of a PNG file: (28, 28) in 0..1, light on dark.

    A picture with a light border is inverted. One of 28 x 28 pixels is otherwise unchanged; in any other the digit is
    cropped, scaled and centred.

    Raises:
        InputError: the file cannot be read, is no PNG, is too large, or is empty.
    """
    grey = _read(path)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ground = float(np.median(border))
    is_light = ground > (float(grey.min()) + float(grey.max())) / 2
    if grey.shape == (SIDE, SIDE):
        digit = 1.0 - grey if is_light else grey
    else:
        digit = np.clip(ground - grey if is_light else grey - ground, 0.0, None)
    if np.ptp(digit) < FAINTEST:
        raise InputError(f"{path} shows nothing: all of it is one shade; allowed: a digit")
    return digit if grey.shape == (SIDE, SIDE) else _centred(_fitted(digit / digit.max()))


def _read(path: Path) -> Floats:
    """Grey values in 0..1; transparent pixels become background."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with open_given(path) as file, Image.open(file, formats=["PNG"]) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                return _grey(image)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise InputError(f"{path} is too large; allowed: at most {MAX_PIXELS // 10**6} million pixels") from None
        except UnidentifiedImageError:
            raise InputError(f"{path} is no PNG picture; allowed: PNG files") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
        except Exception as error:  # a damaged file may raise nearly any exception
            raise InputError(f"{path} is damaged: {error}") from None


def _grey(image: Image.Image) -> Floats:
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


def _fitted(digit: Floats) -> Floats:
    """The cropped digit, its longer side scaled to the box."""
    rows, columns = (np.flatnonzero((digit > OF_THE_DIGIT).any(axis)) for axis in (1, 0))
    cut = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(BOX * side / max(cut.shape))) for side in cut.shape)
    scaled = np.asarray(Image.fromarray(cut).resize((width, height), Image.Resampling.BILINEAR))
    fitted: Floats = scaled / scaled.max()
    return fitted


def _centred(digit: Floats) -> Floats:
    """The digit with its centre of mass at 14, 14, as in MNIST, or as near as it fits."""
    picture = np.zeros((SIDE, SIDE), np.float32)
    top, left = (_offset(digit.sum(axis)) for axis in (1, 0))
    picture[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return picture


def _offset(mass: Floats) -> int:
    centre = float((np.arange(len(mass)) * mass).sum() / mass.sum())
    return min(max(0, round(SIDE / 2 - centre)), SIDE - len(mass))
