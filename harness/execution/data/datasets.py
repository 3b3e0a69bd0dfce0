"""The data sets: sources, splits, and the exact content of every array; built-in ones, and those of users' own.

The train and validation splits are stratified and shuffled, so that the first N images of either are a fair sample.
Every kept array is pinned by the SHA-256 of its bytes, which pins the images, the split and its order at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.execution.data.sources import IDX_FILES, Arrays, Progress, Source, mnist_sources
from harness.study.data import Content, OwnData
from harness.study.own_data import file_of, read_arrays, sha256
from harness.support.splits import split_training, stratified_cut


@dataclass(frozen=True)
class Dataset:
    """A data set: its sources and its required content.

    Attributes:
        raw: The arrays of a source, by name.
        kept: The arrays in the cache, by file name without `.npy`: images and labels of each split.
        sources: Sources in the order to try, given the data set's folder in the cache.
        split: Makes the kept arrays from the raw ones.
        remedy: Advice if no source has it; `{folder}` is the data set's folder in the cache.
    """

    raw: Mapping[str, Content]
    kept: Mapping[str, Content]
    sources: Callable[[Path], tuple[Source, ...]]
    split: Callable[[Arrays], Arrays]
    remedy: str


def problem(content: Content, array: NDArray[np.generic]) -> str | None:
    """The problem of an array that must have this content, in one line; None if it is correct."""
    if wrong := shape_problem(content, array):
        return wrong
    found = sha256(array)
    return None if found == content.sha256 else f"holds other bytes than it should (SHA-256 {found[:12]}...)"


def shape_problem(content: Content, array: NDArray[np.generic]) -> str | None:
    """Like `problem`, but without the SHA-256."""
    if array.dtype.name == content.dtype and array.shape == content.shape:
        return None
    return f"holds {array.dtype} of shape {array.shape}; expected {content.dtype} of shape {content.shape}"


def split_digits(raw: Arrays, num_validation: int, num_test: int) -> Arrays:
    """Cuts the test split from all images, then the validation split from the others."""
    rest, test = stratified_cut(raw["y"], num_test)
    parts = {"x_train": raw["x"][rest], "y_train": raw["y"][rest], "x_test": raw["x"][test], "y_test": raw["y"][test]}
    return split_training(parts, num_validation)


def read_digits() -> Arrays:
    """scikit-learn's 1,797 grey 8x8 digits as `x` (1797, 28, 28) in 0..255, and their labels `y` (1797,)."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    small = (pixels.reshape(-1, 8, 8).astype(np.uint16) * 255 + 8) // 16  # 0..16 to 0..255, rounded
    large = small.astype(np.uint8).repeat(3, axis=1).repeat(3, axis=2)
    return {"x": np.pad(large, ((0, 0), (2, 2), (2, 2))), "y": labels.astype(np.uint8)}


def _bytes(shape: tuple[int, ...], sha256: str) -> Content:
    return Content(shape=shape, dtype="uint8", sha256=sha256)


MNIST = Dataset(
    raw={
        "x_train": _bytes((60000, 28, 28), "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757"),
        "y_train": _bytes((60000,), "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13"),
        "x_test": _bytes((10000, 28, 28), "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161"),
        "y_test": _bytes((10000,), "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5"),
    },
    kept={
        "train_images": _bytes((50000, 28, 28), "691c4254c3b6dd68f61206b93280f0cb9fe9e342dd6ee7efbf8627fa537e112c"),
        "train_labels": _bytes((50000,), "ab2798ff500ec07a94c35fff9212aa9a3a6e36b5e743537055f044b02d24ca5b"),
        "validation_images": _bytes(
            (10000, 28, 28), "2fc9aab095f1fdfea3457251fb8f047a963b99cad7bad5acaa503a33cf7348b9"
        ),
        "validation_labels": _bytes((10000,), "d844795d280be9c36aeb0da14492fae33afd055404d630280653cd686f99af15"),
        "test_images": _bytes((10000, 28, 28), "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161"),
        "test_labels": _bytes((10000,), "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5"),
    },
    sources=mnist_sources,
    split=partial(split_training, num_validation=10000),
    remedy=f"Put mnist.npz as Keras keeps it, or {', '.join(IDX_FILES.values())} (plain or .gz), into {{folder}} and "
    "try again. The data set digits needs no download.",
)

DIGITS = Dataset(
    raw={
        "x": _bytes((1797, 28, 28), "331918d8109ff7047c13dba1cd71b6d83d36d80731fc70c2cbb4bf1cbd4cc56b"),
        "y": _bytes((1797,), "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0"),
    },
    kept={
        "train_images": _bytes((1200, 28, 28), "7661b76329e78870ef24550f60a7bd96d580afdc978e6104871042cce26c0961"),
        "train_labels": _bytes((1200,), "c6550eeac63da233c3ce5caeea8ea624cefc28cdbe36be77b4d1031f195d4adc"),
        "validation_images": _bytes((297, 28, 28), "a9a47729226d74643e5ba102df100c923b68687403b8b7bb5cb7783c6686e487"),
        "validation_labels": _bytes((297,), "e0fba9dc4bd4f0a7dfe3f50869a3aec6bb976f49dd7614073049c8866a6a064a"),
        "test_images": _bytes((300, 28, 28), "e747852c073d5fac6f53408c98265585c534a679e11d1751eea86d2e02419595"),
        "test_labels": _bytes((300,), "b4f52253dd4926221021059862dbc39770187e5df0e13e419cacef6028649fd8"),
    },
    sources=lambda _: (Source("scikit-learn's digits", lambda _: read_digits()),),
    split=partial(split_digits, num_validation=297, num_test=300),
    remedy="Install scikit-learn again.",
)

DATASETS: Mapping[str, Dataset] = {"mnist": MNIST, "digits": DIGITS}


def dataset(data: str | OwnData) -> Dataset:
    """A built-in data set by its name, or a user's own.

    Raises:
        KeyError: there is none of that name.
    """
    if isinstance(data, str):
        return DATASETS[data]

    def read(_: Progress) -> Arrays:
        file = file_of(data.name)
        if file is None:
            raise FileNotFoundError("no sweep file that names it was read")
        return read_arrays(file)

    return Dataset(
        raw=data.kept,
        kept=data.kept,
        sources=lambda _: (Source(f"{data.stem}.npz", read),),
        split=lambda arrays: arrays,
        remedy=f"Run the sweep file that names {data.stem}.npz with this content.",
    )
