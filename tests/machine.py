"""Faults of a machine that are real, made for one test and gone with it: a small disk, a limit of memory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psutil
import pytest


class SmallDisk:
    """A file system in memory, mounted on a folder for this object's commands only; nothing of it outlives the object.

    It lies in a mount namespace, which root may make, and others within a user namespace.

    Args:
        folder: An empty folder, from where it is mounted; `inside` and `outside` are the two ways to it.
        size_kb: How much it holds.
    """

    def __init__(self, folder: Path, size_kb: int = 64 * 1024) -> None:
        self.folder = folder
        mount = f"mount -t tmpfs -o size={size_kb}k tmpfs {str(folder)!r} && echo mounted && exec cat"
        self._holder = subprocess.Popen(
            [*_mounting(), "sh", "-c", mount], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "mounted\n"

    def inside(self, *command: str | Path) -> list[str]:
        """A command that sees the disk."""
        user = ["--user", "--preserve-credentials"] if "--user" in _mounting() else []
        enter = ["nsenter", f"--target={self._holder.pid}", "--mount", *user, f"--wd={Path.cwd()}"]
        return [*enter, *map(str, command)]

    def outside(self, path: Path) -> Path:
        """Where this process sees what `path` is inside."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def remount(self, options: str) -> None:
        # Not with the options it was mounted with: some of them are refused within a user namespace.
        command: list[str | Path] = ["mount", "--options-mode", "ignore", "-o", f"remount,{options}", self.folder]
        subprocess.run(self.inside(*command), check=True)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Not a byte more fits on it for as long as the block runs."""
        filler = self.outside(self.folder) / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        try:
            yield
        finally:
            filler.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


def _mounting() -> list[str]:
    return _namespace("--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt")


@functools.cache
def _namespace(kind: str, *check: str) -> list[str]:
    """How this user may run a command in a namespace of its own; skips the test where not at all."""
    for words in (["unshare", kind], ["unshare", "--user", "--map-root-user", kind]):
        with contextlib.suppress(OSError):
            if subprocess.run([*words, *check], capture_output=True, check=False).returncode == 0:
                return words
    pytest.skip(f"no namespace can be made here with unshare {kind}, by root or in a user namespace")


def without_network(*command: str | Path) -> list[str]:
    """A command that reaches nobody."""
    return [*_namespace("--net", "true"), *map(str, command)]


@contextlib.contextmanager
def bound_by_permissions() -> Iterator[None]:
    """In the block the permissions of files bind root as they do others."""
    if os.geteuid() != 0:
        yield
        return
    libc, header = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0)  # see capset(2)
    if not hasattr(libc, "capset"):
        pytest.skip("root cannot lay down its powers on this system")
    has = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, has) == 0
    less = (ctypes.c_uint32 * 6)(*has)
    less[0] &= ~(1 << 1 | 1 << 2)  # to read, write and search whatever the permissions say
    assert libc.capset(header, less) == 0
    try:
        yield
    finally:
        assert libc.capset(header, has) == 0


class MemoryGroup:
    """A control group whose processes have so much memory together.

    Raises:
        OSError: this user cannot make one.
    """

    def __init__(self, limit_mb: int) -> None:
        self._folder, limit = _memory_group()
        self._folder.mkdir()
        try:
            (self._folder / limit).write_text(str(limit_mb * 2**20))
        except OSError:
            self._folder.rmdir()
            raise

    def inside(self, *command: str | Path) -> list[str]:
        """A command that runs in the group with all it starts."""
        enter = 'echo $$ > "$0" && exec "$@"'
        return ["sh", "-c", enter, str(self._folder / "cgroup.procs"), *map(str, command)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for pid in map(int, (self._folder / "cgroup.procs").read_text().split()):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                process.kill()
                process.wait()
        self._folder.rmdir()


def _memory_group() -> tuple[Path, str]:
    """A group's folder, which is not there yet, and the name of the file with its limit."""
    groups = dict[str, str]()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        groups |= dict.fromkeys(controllers.split(","), group)
    name = f"harness-test-{os.getpid()}"
    root = Path("/sys/fs/cgroup")
    if "memory" in groups:
        return root / "memory" / groups["memory"].lstrip("/") / name, "memory.limit_in_bytes"
    return root / groups[""].lstrip("/") / name, "memory.max"


def limit_memory(pid: int, more_mb: int) -> None:
    """Denies a process more than so much memory on top of what it has."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("a process's memory can be limited from outside on Linux only")
    has = psutil.Process(pid).memory_info().data
    limit = has + more_mb * 2**20
    resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))
