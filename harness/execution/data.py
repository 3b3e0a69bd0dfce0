"""The data sets: found, checked by hash, split once for all, and kept as arrays that workers map into memory.

`prepare` is called once before workers start, `load` in every worker. The cache holds one folder per data set with
six `.npy` files, images and labels of each split; the test images lie in files of their own, which nothing but
`load(..., "test", ...)` opens for training or judging.

The train and validation splits are stratified and shuffled, so that the first N images of either are a fair sample.
Every array in the cache is pinned by the SHA-256 of its bytes: that pins the images, the split and its order.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from platformdirs import user_cache_path

from harness.errors import InputError, TroubleError
from harness.execution.sources import IDX_FILES, Arrays, Images, Progress, Source, mnist_sources, reason

Split = Literal["train", "validation", "test"]

SPLIT_SEED = 20261122
LOCK_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Content:
    """What an array must hold: unsigned bytes of this shape with this SHA-256."""

    shape: tuple[int, ...]
    sha256: str

    def problem(self, array: NDArray[np.generic]) -> str | None:
        """What is wrong with `array`, in one line."""
        if array.dtype != np.uint8 or array.shape != self.shape:
            return f"holds {array.dtype} of shape {array.shape}; expected uint8 of shape {self.shape}"
        found = hashlib.sha256(np.ascontiguousarray(array)).hexdigest()
        return None if found == self.sha256 else f"its content is not the pinned one (SHA-256 {found[:12]}...)"


@dataclass(frozen=True)
class Dataset:
    """A data set: where it comes from and what it must hold.

    Attributes:
        raw: The arrays as a source hands them over, by name.
        cached: The arrays as they are kept, by file name without `.npy`.
        sources: Where to look, in this order, given the data set's folder in the cache.
        split: Makes the kept arrays from the raw ones.
        remedy: What people can do when no source has it; `{folder}` is the data set's folder in the cache.
    """

    raw: Mapping[str, Content]
    cached: Mapping[str, Content]
    sources: Callable[[Path], tuple[Source, ...]]
    split: Callable[[Arrays], Arrays]
    remedy: str


@dataclass(frozen=True)
class FileCheck:
    """A file of the cache and what is wrong with it; None when its content is the pinned one."""

    path: Path
    problem: str | None


def prepare(dataset: str, progress: Progress) -> Path:
    """The folder that holds `dataset`, every byte of it checked, fetched first if need be.

    Safe to call from several processes at once. A damaged file of our own is replaced, nothing is ever deleted.

    Raises:
        InputError: there is no such data set, or HARNESS_DATA is no folder.
        TroubleError: no source has it (the message has a line for each), or the cache cannot be written.
    """
    wanted, folder = _dataset(dataset), cache_folder() / dataset
    if not _problems(wanted, folder):
        return folder
    with _locked(folder, progress):
        problems = _problems(wanted, folder)  # another process may have put things right meanwhile
        for check in problems:
            if check.path.exists():
                progress(f"{check.path}: {check.problem}; it will be replaced")
        if problems:
            _write(folder, _split(wanted, _fetch(dataset, folder, progress)))
            progress(f"{dataset} is verified and lies in {folder}")
    return folder


def load(dataset: str, split: Split, folder: Path) -> tuple[Images, Images]:
    """Images (n, 28, 28) in 0..255 and labels (n,) of a split, both uint8, mapped read-only into memory.

    `folder` is what `prepare` returned.

    Raises:
        InputError: there is no such data set.
        TroubleError: a file is missing or is no array.
    """
    _dataset(dataset)
    return _map(folder / f"{split}_images.npy"), _map(folder / f"{split}_labels.npy")


def verify(dataset: str) -> tuple[FileCheck, ...]:
    """Checks every byte of `dataset` in the cache, one answer per file; changes nothing.

    Raises:
        InputError: there is no such data set, or HARNESS_DATA is no folder.
    """
    folder = cache_folder() / dataset
    cached = _dataset(dataset).cached
    return tuple(_check(folder / f"{name}.npy", content) for name, content in cached.items())


def data_digest(dataset: str) -> str:
    """The data set's name and 16 hex digits that stand for its images, its split and their order."""
    cached = {name: asdict(content) for name, content in _dataset(dataset).cached.items()}
    return f"{dataset}-{hashlib.sha256(json.dumps(cached, sort_keys=True).encode()).hexdigest()[:16]}"


def cache_folder() -> Path:
    """Where the data sets are kept: HARNESS_DATA, or the user's cache folder.

    Raises:
        InputError: HARNESS_DATA is something else than a folder.
    """
    moved = os.environ.get("HARNESS_DATA")
    folder = Path(moved).absolute() if moved else user_cache_path("harness")
    if moved and folder.exists() and not folder.is_dir():
        raise InputError(f"HARNESS_DATA is {moved!r}, which is no folder; allowed: a folder, which may not exist yet")
    return folder


def stratified_cut(labels: Images, num_held: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Shuffled positions of `labels`, cut in two: the rest, and `num_held` in which every class has its share."""
    # RandomState, because its stream is frozen: newer generators may change theirs with numpy's version.
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
    """Cuts the test split and then the validation split from all images."""
    rest, test = stratified_cut(raw["y"], num_test)
    train_part = {"x_train": raw["x"][rest], "y_train": raw["y"][rest]}
    return split_mnist({**train_part, "x_test": raw["x"][test], "y_test": raw["y"][test]}, num_validation)


def read_digits() -> Arrays:
    """scikit-learn's 1,797 grey 8x8 digits as `x` (1797, 28, 28) in 0..255, and their labels `y` (1797,)."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    small = (pixels.reshape(-1, 8, 8).astype(np.uint16) * 255 + 8) // 16  # 0..16 to 0..255, rounded
    large = small.astype(np.uint8).repeat(3, axis=1).repeat(3, axis=2)
    return {"x": np.pad(large, ((0, 0), (2, 2), (2, 2))), "y": labels.astype(np.uint8)}


def _dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise InputError(f"dataset is {name!r}; allowed: {', '.join(DATASETS)}")
    return DATASETS[name]


def _problems(dataset: Dataset, folder: Path) -> list[FileCheck]:
    checks = (_check(folder / f"{name}.npy", content) for name, content in dataset.cached.items())
    return [check for check in checks if check.problem]


def _check(path: Path, content: Content) -> FileCheck:
    try:
        return FileCheck(path, content.problem(_map(path)))
    except TroubleError as error:
        return FileCheck(path, str(error))


def _map(path: Path) -> Images:
    try:
        array: Images = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        raise TroubleError(f"{path}: {reason(error)}") from error
    return array


def _fetch(name: str, folder: Path, progress: Progress) -> Arrays:
    """The raw arrays from the first source that has the right ones."""
    dataset, tried = DATASETS[name], []
    for source in dataset.sources(folder):
        try:
            arrays = source.read(progress)
            _check_raw(dataset, arrays)
        except Exception as error:  # whatever a foreign file or server brings about, the next source may be sound
            tried.append(f"  {source.name}: {reason(error)}")
        else:
            return arrays
    lines = [f"no source has the data set {name}; tried:", *tried, dataset.remedy.format(folder=folder)]
    raise TroubleError("\n".join(lines))


def _check_raw(dataset: Dataset, arrays: Arrays) -> None:
    for name, content in dataset.raw.items():
        if problem := content.problem(arrays[name]):
            raise ValueError(f"{name}: {problem}")
