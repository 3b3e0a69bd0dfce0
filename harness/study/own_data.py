"""A data set of a user's own: an `.npz` file with the arrays of Keras's mnist.npz, read, checked, split and hashed."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import InputError
from harness.study.data import MAX_CHANNELS, MAX_CLASSES, MAX_SIDE, Content, OwnData, check_stem
from harness.support.given_files import open_given
from harness.support.splits import split_training

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
MAX_VALIDATION_IMAGES = 10_000
VALIDATION_SHARE = 6  # one of so many training images, as with MNIST

Array = NDArray[Any]

_FILES: dict[str, Path] = {}  # where a data set of this name was read


def read_data(path: Path) -> OwnData:
    """Reads a data set and describes it.

    Raises:
        InputError: one line with the file, the array, and what is allowed.
    """
    try:
        check_stem(path.stem)
        kept = read_arrays(path)
        found = OwnData(
            stem=path.stem,
            num_classes=int(max(kept["train_labels"].max(), kept["validation_labels"].max())) + 1,
            kept={name: _content(array) for name, array in kept.items()},
        )
    except OSError as error:
        raise InputError(f"dataset is '{path}': {error.strerror or error}; allowed: an .npz file") from None
    except (EOFError, zipfile.BadZipFile, zlib.error) as error:
        why = f"which is cut off, damaged or something else ({' '.join(str(error).split())})"
        allowed = f"an .npz file with {', '.join(ARRAYS)}, as numpy.savez writes it"
        raise InputError(f"dataset is '{path}', {why}; allowed: {allowed}") from None
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from None
    _FILES[found.name] = path
    return found


def file_of(name: str) -> Path | None:
    """The file from which this process has read a data set."""
    return _FILES.get(name)


def read_arrays(path: Path) -> dict[str, Array]:
    """Images and labels of each split, as they are kept.

    Raises:
        OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error: damaged, or something else.
    """
    with open_given(path) as file, zipfile.ZipFile(file) as archive:
        missing = [name for name in ARRAYS if f"{name}.npy" not in archive.namelist()]
        if missing:
            raise ValueError(f"it has no {', '.join(missing)}; needed: {', '.join(ARRAYS)}")
        raw = _checked({name: _read(archive, name) for name in ARRAYS})
    num_validation = min(MAX_VALIDATION_IMAGES, len(raw["y_train"]) // VALIDATION_SHARE)
    return split_training(raw, num_validation)


def _read(archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(f"{name}.npy") as file:
        array: Array = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _checked(raw: Mapping[str, Array]) -> dict[str, Array]:
    images = {name: _images(name, raw[name]) for name in ("x_train", "x_test")}
    if images["x_train"].shape[1:] != images["x_test"].shape[1:] or images["x_train"].dtype != images["x_test"].dtype:
        described = " and ".join(f"{array.dtype} {array.shape[1:]}" for array in images.values())
        raise ValueError(f"x_train and x_test are {described}; allowed: images of one shape and type")
    for part in ("train", "test"):
        num_images, labels = len(images[f"x_{part}"]), raw[f"y_{part}"]
        if labels.shape not in ((num_images,), (num_images, 1)) or labels.dtype.kind not in "iu":
            allowed = f"integers ({num_images},), one for each image of x_{part}"
            raise ValueError(f"y_{part} is {labels.dtype} {labels.shape}; allowed: {allowed}")
    return images | _labels(raw["y_train"].reshape(-1), raw["y_test"].reshape(-1))


def _images(name: str, array: Array) -> Array:
    _, *sides, channels = array.shape if array.ndim == 4 else (*array.shape, 1)
    sound = array.size and len(sides) == 2 and min(sides) >= 2 and max(sides) <= MAX_SIDE and channels <= MAX_CHANNELS
    if not sound:
        raise ValueError(
            f"{name} has shape {array.shape}; allowed: (n, height, width) or (n, height, width, channels), with sides"
            f" of 2 to {MAX_SIDE} and at most {MAX_CHANNELS} channels"
        )
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise ValueError(f"{name} is {array.dtype}; allowed: uint8 (0 to 255), or floats (used as they are)")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} has values that are not finite")
    grey = array[..., 0] if array.ndim == 4 and channels == 1 else array
    return np.ascontiguousarray(grey if array.dtype == np.uint8 else grey.astype("<f4"))


def _labels(train: Array, test: Array) -> dict[str, Array]:
    low, high = int(min(train.min(), test.min())), int(max(train.max(), test.max()))
    if low < 0 or high >= MAX_CLASSES or high < 1:
        raise ValueError(f"labels are {low} to {high}; allowed: from 0, 2 to {MAX_CLASSES} classes")
    counts = np.bincount(train, minlength=high + 1)
    if counts.min() < VALIDATION_SHARE:
        few = int(counts.argmin())
        raise ValueError(
            f"y_train has {int(counts.min())} images of class {few}; allowed: at least {VALIDATION_SHARE} of each class"
            f" from 0 to {high}"
        )
    kind = np.uint8 if high < 256 else np.dtype("<i4")
    return {"y_train": train.astype(kind), "y_test": test.astype(kind)}


def sha256(array: Array) -> str:
    """Of an array's bytes, hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _content(array: Array) -> Content:
    dtype: Any = array.dtype.name  # one of three, see above
    return Content(shape=array.shape, dtype=dtype, sha256=sha256(array))
