"""Files written whole: a reader sees the old file or the new one, never half; what a killed process leaves is known."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from harness.errors import TroubleError


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A new name to write to; it takes the place of `path` at the end, flushed to disk, or goes if anything fails.

    Raises:
        TroubleError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in leftovers(path.parent):
            if left.name.startswith(f".{path.name}."):
                left.unlink(missing_ok=True)
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        why = error.strerror or error
        raise TroubleError(f"cannot write {path}: {why}; is there room, and is the folder writable?") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def leftovers(folder: Path) -> Iterator[Path]:
    """Files of a folder that were on their way to another's place when the process that wrote them was killed."""
    for path in folder.glob(".*.unfinished"):
        name = re.fullmatch(r"\..+\.(\d+)\.unfinished", path.name)
        with suppress(FileNotFoundError):  # it has got its name just now
            if name and not is_alive(int(name[1]), path.stat().st_mtime):
                yield path


def is_alive(pid: int, since: float) -> bool:
    """Whether process `pid` is there and was at `since`, in seconds since 1970; ids are given away again."""
    try:
        return psutil.Process(pid).create_time() <= since
    except (OverflowError, ValueError, psutil.Error):
        return False
