"""The cache of data sets: each is fetched, verified by hash, split once, and kept as memory-mapped arrays.

`prepare` is called once before workers start, `load` in every worker. The cache has a folder per data set with images
and labels of each split as `.npy` files, so that workers share one copy in memory and the test images are separate.
Only these files are written or replaced; nothing is deleted, and users' files are not changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import BaseFileLock, FileLock, Timeout
from platformdirs import user_cache_path

from harness.errors import InputError, TroubleError
from harness.execution.data import datasets
from harness.execution.data.datasets import Dataset, problem, shape_problem
from harness.execution.data.sources import Arrays, Images, Progress, reason
from harness.study.data import Content, OwnData
from harness.support.home import named_folder

Split = Literal["train", "validation", "test"]
Data = str | OwnData  # a built-in data set by its name, or a user's own

LOCK_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class FileCheck:
    """A file of the cache and its problem, in one line; None if it is correct."""

    path: Path
    problem: str | None


def prepare(data: Data, progress: Progress) -> Path:
    """The folder of a data set, verified by hash; a missing data set is fetched first.

    Several processes may call it at once. `progress` gets messages, none if the data set is complete.

    Raises:
        InputError: there is no such data set, or HARNESS_DATA is no folder.
        TroubleError: no source has it (a line for each, and what to do), or the cache cannot be written.
    """
    wanted, folder = _dataset(data), dataset_folder(data)
    return _put_right(data, progress, lambda: _split(wanted, _fetch(wanted, folder, progress)))


def fetch(data: Data, progress: Progress) -> Arrays:
    """The raw arrays of a data set from its first source that has the right ones; nothing is kept.

    Raises:
        InputError, TroubleError: as `prepare`.
    """
    return _fetch(_dataset(data), dataset_folder(data), progress)


def keep(data: Data, arrays: Arrays) -> Path:
    """Like `prepare`, with arrays from another machine's cache instead of a source; they are verified as well.

    Raises:
        InputError: as `prepare`.
        TroubleError: the arrays differ, or the cache cannot be written.
    """

    def checked() -> Arrays:
        try:
            _require(_dataset(data).kept, arrays)
        except (KeyError, ValueError) as error:
            raise TroubleError(f"{_name(data)}: another machine's copy is not what it should be: {error}") from error
        return arrays

    return _put_right(data, lambda line: None, checked)


def files(data: Data, folder: Path) -> dict[str, Path]:
    """The files in the folder that `prepare` returned for a data set, by the names of their arrays."""
    return {name: _file(folder, name) for name in _dataset(data).kept}


def _put_right(data: Data, progress: Progress, make: Callable[[], Arrays]) -> Path:
    """The folder of a data set; wrong or missing files are replaced by the arrays that `make` returns."""
    wanted, folder = _dataset(data), dataset_folder(data)
    if not _problems(wanted, folder):
        return folder
    with _writing(folder, progress):
        problems = _problems(wanted, folder)  # another process may have repaired it meanwhile
        for check in problems:
            if check.path.exists():
                progress(f"{check.path}: {check.problem}; it will be replaced")
        if problems:
            _write(folder, make())
            progress(f"{_name(data)}: verified, kept in {folder}")
    return folder


def load(data: Data, split: Split, folder: Path) -> tuple[Images, Images]:
    """Images (n, height, width[, channels]) and labels (n,) of a split, memory-mapped read-only.

    Images are uint8 in 0..255, or float32; labels are uint8 or int32.

    Train and validation are shuffled and stratified: their first N images are a fair sample. `folder` is the result of
    `prepare`, which has verified the hashes; they are not verified again.

    Raises:
        InputError: there is no such data set.
        TroubleError: a file is missing, unreadable or of another shape.
    """
    kept = _dataset(data).kept
    images, labels = (_load_file(folder, name, kept[name]) for name in (f"{split}_images", f"{split}_labels"))
    return images, labels


def verify(data: Data) -> tuple[FileCheck, ...]:
    """Verifies a data set in the cache by hash, one result per file. Fetches and changes nothing.

    Raises:
        InputError: there is no such data set, or HARNESS_DATA is no folder.
    """
    folder = dataset_folder(data)
    return tuple(_check(_file(folder, name), content) for name, content in _dataset(data).kept.items())


def data_digest(data: Data) -> str:
    """The data set's name and 16 hex digits, which identify its images, split and order; reads no file.

    Raises:
        InputError: there is no such data set.
    """
    kept = {name: _pinned(content) for name, content in _dataset(data).kept.items()}
    # MLflow allows 36 characters.
    return f"{_name(data)[:19]}-{hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]}"


def cache_folder() -> Path:
    """The folder of the data sets: HARNESS_DATA, or else the user's cache folder.

    Raises:
        InputError: HARNESS_DATA cannot be a folder.
    """
    moved = os.environ.get("HARNESS_DATA")
    return named_folder("HARNESS_DATA", moved) if moved else user_cache_path("harness")


def _dataset(data: Data) -> Dataset:
    try:
        return datasets.dataset(data)
    except KeyError:
        raise InputError(f"dataset is {data!r}; allowed: {', '.join(datasets.DATASETS)}") from None


def _name(data: Data) -> str:
    return data if isinstance(data, str) else data.name


def _pinned(content: Content) -> dict[str, object]:
    """What the digest rests on; bytes had no type at first."""
    plain = content.model_dump()
    return plain if content.dtype != "uint8" else {name: plain[name] for name in ("shape", "sha256")}


def dataset_folder(data: Data) -> Path:
    """The folder of a data set in this machine's cache, which may not exist."""
    return cache_folder() / _name(data)


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _problems(dataset: Dataset, folder: Path) -> list[FileCheck]:
    checks = (_check(_file(folder, name), content) for name, content in dataset.kept.items())
    return [check for check in checks if check.problem]


def _check(path: Path, content: Content) -> FileCheck:
    try:
        return FileCheck(path, problem(content, _map(path)))
    except Exception as error:  # a damaged header may raise nearly any exception
        return FileCheck(path, reason(error))


def _map(path: Path) -> Images:
    array: Images = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _load_file(folder: Path, name: str, content: Content) -> Images:
    path = _file(folder, name)
    try:
        array = _map(path)
    except Exception as error:  # as in _check
        raise TroubleError(f"{path}: {reason(error)}; run `harness data fetch`") from error
    if wrong := shape_problem(content, array):
        raise TroubleError(f"{path}: {wrong}; run `harness data fetch`")
    return array


def _fetch(dataset: Dataset, folder: Path, progress: Progress) -> Arrays:
    """The raw arrays from the first source with the correct ones."""
    tried = []
    for source in dataset.sources(folder):
        try:
            arrays = source.read(progress)
            _require(dataset.raw, arrays)
        except Exception as error:  # a file or server may raise any exception; the next source may be correct
            tried.append(f"{source.name}: {reason(error)}")
            if not isinstance(error, FileNotFoundError):
                progress(tried[-1])
        else:
            return arrays
    places = "\n  ".join(tried)
    raise TroubleError(f"no place has this data set; tried:\n  {places}\n{dataset.remedy.format(folder=folder)}")


def _split(dataset: Dataset, raw: Arrays) -> Arrays:
    kept = dataset.split(raw)
    try:
        _require(dataset.kept, kept)
    except ValueError as error:
        raise TroubleError(f"numpy {np.__version__} splits this data set otherwise than it should: {error}") from error
    return kept


def _require(contents: Mapping[str, Content], arrays: Arrays) -> None:
    for name, content in contents.items():
        if wrong := problem(content, arrays[name]):
            raise ValueError(f"{name} {wrong}")


def _write(folder: Path, arrays: Arrays) -> None:
    for name, array in arrays.items():
        part = folder / f".{name}.part"
        try:
            with part.open("wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            part.replace(_file(folder, name))
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def _writing(folder: Path, progress: Progress) -> Iterator[None]:
    """Holds the folder's lock: one process fetches, and the others wait."""
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock, folder, progress)
        try:
            yield
        finally:
            lock.release()
    except Timeout as error:
        raise TroubleError(f"another process has been writing {folder} for half an hour; end it, try again") from error
    except OSError as error:
        where = error.filename2 or error.filename or folder
        raise TroubleError(
            f"cannot write {where}: {reason(error)}; make room, make it writable, or move the cache with HARNESS_DATA"
        ) from error


def _acquire(lock: BaseFileLock, folder: Path, progress: Progress) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"waiting for another process that writes {folder}")
        lock.acquire(timeout=LOCK_TIMEOUT_S)
