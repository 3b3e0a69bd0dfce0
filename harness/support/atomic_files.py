"""Atomic writes: a reader sees the old file or the new one; unfinished files of killed processes can be found."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from harness.errors import InputError, TroubleError
from harness.support.given_files import path_of
from harness.support.home import is_state
from harness.support.standard_streams import was_stdout_closed
from harness.support.strict_json import shown

STDOUT = "-"


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary file, which replaces `path` at the end, flushed to disk, or is removed on an error.

    Only a regular file is replaced, and the new one gets its owner and mode. A link is kept, its target is replaced.
    The content for a pipe or a character device is written at the end.

    Raises:
        TroubleError: the file cannot be written.
    """
    try:
        with _streamed(path) if is_stream(path) else _renamed(path) as unfinished:
            yield unfinished
    except OSError as error:
        why = error.strerror or error
        raise TroubleError(f"cannot write {path}: {why}; is there room, and is the folder writable?") from error


def is_stream(path: Path) -> bool:
    """Whether `path` is a pipe or a device.

    Raises:
        OSError: its status cannot be read.
    """
    mode = _mode(path)
    return mode is not None and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode))


@contextmanager
def destination(flag: str, given: str | Path, ending: str = "") -> Iterator[Path]:
    """The path to write for the file in `flag`; for `-`, its content is written to standard output at the end.

    A file's name must end in `ending`, and its folder must exist: a misspelt one would be made otherwise.

    Raises:
        InputError: no file can be written there.
        TroubleError: standard output is closed.
    """
    named = path_of(flag, given)
    if named != STDOUT:
        path = _checked(flag, named)
        if not path.name.lower().endswith(ending) and not is_stream(path):
            raise InputError(f"{flag} is {shown(named)}; allowed: a name that ends in {ending}, a pipe, or {STDOUT}")
        yield path
        return
    if was_stdout_closed():
        raise TroubleError(f"cannot write {flag} {STDOUT}: standard output is closed")
    with TemporaryDirectory(prefix="harness-") as folder:
        whole = Path(folder) / "whole"
        yield whole
        sys.stdout.flush()
        with whole.open("rb") as source:
            shutil.copyfileobj(source, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def leftovers(folder: Path) -> Iterator[Path]:
    """Temporary files in a folder whose writing process was killed."""
    for path in folder.glob(".*.unfinished"):
        name = re.fullmatch(r"\..+\.(\d+)\.unfinished", path.name)
        with suppress(FileNotFoundError):  # it has just been renamed
            if name and not is_alive(int(name[1]), path.stat().st_mtime):
                yield path


def is_alive(pid: int, since: float) -> bool:
    """Whether process `pid` exists and existed at `since`, in seconds since 1970, since ids are reused."""
    try:
        return psutil.Process(pid).create_time() <= since
    except (OverflowError, ValueError, psutil.Error):
        return False


@contextmanager
def _streamed(path: Path) -> Iterator[Path]:
    with TemporaryDirectory(prefix="harness-") as folder:
        whole = Path(folder) / "whole"
        yield whole
        with whole.open("rb") as source, path.open("wb") as stream:
            shutil.copyfileobj(source, stream)


@contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    path = Path(os.path.realpath(path))  # Path.resolve raises RuntimeError for circular links
    before = path.stat() if path.exists() else None
    if before and (kind := _refused(before.st_mode)):
        raise TroubleError(f"cannot write {path}: it is {kind}")
    if before and not os.access(path, os.W_OK):
        raise PermissionError("it is read-only")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in leftovers(path.parent):
        if left.name.startswith(f".{path.name}."):
            left.unlink(missing_ok=True)
    try:
        if before:
            unfinished.touch(0o600)  # it may be secret
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        if before:
            with suppress(PermissionError):
                os.chown(unfinished, before.st_uid, before.st_gid)
            unfinished.chmod(stat.S_IMODE(before.st_mode))
        unfinished.replace(path)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _checked(flag: str, named: str) -> Path:
    allowed = "allowed: a file in a folder that exists"
    if not named or named.endswith(os.sep):
        raise InputError(f"{flag} is {shown(named)}; {allowed}")
    try:
        mode = _mode(Path(named))
    except (OSError, ValueError) as error:  # ValueError: NUL
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{flag} is {shown(named)}: {why}; {allowed}") from error
    folder = os.path.dirname(os.path.realpath(named))  # noqa: PTH120 - as in _renamed
    if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises where a folder above may not be searched
        raise InputError(f"{flag} is {shown(named)}, and there is no folder {shown(folder)}; {allowed}")
    if mode is not None and (kind := _refused(mode)):
        raise InputError(f"{flag} is {shown(named)}, which is {kind}; {allowed}")
    if (mode is None or stat.S_ISREG(mode)) and is_state(Path(named)):
        raise InputError(f"{flag} is {shown(named)}, a database or a lock, which no export replaces; {allowed}")
    return Path(named)


def _mode(path: Path) -> int | None:
    """Mode of the file, with links followed; None if it does not exist."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _refused(mode: int) -> str | None:
    """The kind of a file that can be neither replaced nor written; None for others."""
    if stat.S_ISDIR(mode):
        return "a directory"
    return None if any(is_kind(mode) for is_kind in (stat.S_ISREG, stat.S_ISFIFO, stat.S_ISCHR)) else "no regular file"
