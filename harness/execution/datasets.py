"""What each data set is: where it comes from, how it is split, and the exact content of every array.

The train and validation splits are stratified and shuffled, so that the first N images of either are a fair sample.
Every kept array is pinned by the SHA-256 of its bytes, which pins the images, the split and its order at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.execution.sources import IDX_FILES, Arrays, Images, Source, mnist_sources

SPLIT_SEED = 1998


@dataclass(frozen=True)
class Content:
    """What an array must hold: unsigned bytes of this shape with this SHA-256."""

    shape: tuple[int, ...]
    sha256: str

    def problem(self, array: NDArray[np.generic]) -> str | None:
        """What is wrong with `array`, in one line; None if nothing is."""
        if array.dtype != np.uint8 or array.shape != self.shape:
            return f"holds {array.dtype} of shape {array.shape}; expected uint8 of shape {self.shape}"
        found = hashlib.sha256(np.ascontiguousarray(array)).hexdigest()
        return None if found == self.sha256 else f"holds other bytes than it should (SHA-256 {found[:12]}...)"


@dataclass(frozen=True)
class Dataset:
    """A data set: where it comes from and what it must hold.

    Attributes:
        raw: The arrays as a source hands them over, by name.
        kept: The arrays as they lie in the cache, by file name without `.npy`: images and labels of each split.
        sources: Where to look, in this order, given the data set's folder in the cache.
        split: Makes the kept arrays from the raw ones.
        remedy: What people can do when no source has it; `{folder}` is the data set's folder in the cache.
    """

    raw: Mapping[str, Content]
    kept: Mapping[str, Content]
    sources: Callable[[Path], tuple[Source, ...]]
    split: Callable[[Arrays], Arrays]
    remedy: str


def stratified_cut(labels: Images, num_held: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Shuffled positions of `labels`, cut in two: the rest, and `num_held` in which every class has its share."""
    # RandomState, because its stream is frozen for good; the newer generators' may change with numpy's version.
    order = np.random.RandomState(SPLIT_SEED).permutation(len(labels))
    held = np.zeros(len(labels), bool)
    for label, quota in enumerate(_quotas(np.bincount(labels), num_held)):
        held[order[labels[order] == label][:quota]] = True
    return order[~held[order]], order[held[order]]


def _quotas(counts: NDArray[np.intp], total: int) -> NDArray[np.intp]:
    """`total` shared out in proportion to `counts`, the largest remainders rounded up (Hamilton's method)."""
    quotas, remainders = np.divmod(counts * total, counts.sum())
    rounded_up = np.argsort(-remainders, kind="stable")[: total - quotas.sum()]
    quotas[rounded_up] += 1
    return quotas


def split_mnist(raw: Arrays, num_validation: int) -> Arrays:
    """Cuts the validation split from the training images; the test images keep their published order."""
    train, validation = stratified_cut(raw["y_train"], num_validation)
    return {
        "train_images": raw["x_train"][train],
        "train_labels": raw["y_train"][train],
        "validation_images": raw["x_train"][validation],
        "validation_labels": raw["y_train"][validation],
        "test_images": raw["x_test"],
        "test_labels": raw["y_test"],
    }


def split_digits(raw: Arrays, num_validation: int, num_test: int) -> Arrays:
    """Cuts the test split from all images, then the validation split from the others."""
    rest, test = stratified_cut(raw["y"], num_test)
    parts = {"x_train": raw["x"][rest], "y_train": raw["y"][rest], "x_test": raw["x"][test], "y_test": raw["y"][test]}
    return split_mnist(parts, num_validation)


def read_digits() -> Arrays:
    """scikit-learn's 1,797 grey 8x8 digits as `x` (1797, 28, 28) in 0..255, and their labels `y` (1797,)."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    small = (pixels.reshape(-1, 8, 8).astype(np.uint16) * 255 + 8) // 16  # 0..16 to 0..255, rounded
    large = small.astype(np.uint8).repeat(3, axis=1).repeat(3, axis=2)
    return {"x": np.pad(large, ((0, 0), (2, 2), (2, 2))), "y": labels.astype(np.uint8)}


MNIST = Dataset(
    raw={
        "x_train": Content((60000, 28, 28), "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757"),
        "y_train": Content((60000,), "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13"),
        "x_test": Content((10000, 28, 28), "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161"),
        "y_test": Content((10000,), "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5"),
    },
    kept={},
    sources=mnist_sources,
    split=partial(split_mnist, num_validation=10000),
    remedy=f"Put mnist.npz as Keras keeps it, or {', '.join(IDX_FILES.values())} (plain or .gz), into {{folder}} and "
    "try again. The data set digits needs no download.",
)

DIGITS = Dataset(
    raw={},
    kept={},
    sources=lambda _: (Source("scikit-learn's digits", lambda _: read_digits()),),
    split=partial(split_digits, num_validation=297, num_test=300),
    remedy="Install scikit-learn again.",
)

DATASETS: Mapping[str, Dataset] = {"mnist": MNIST, "digits": DIGITS}
