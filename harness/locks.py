"""One process at a time works on a study; the operating system frees the lock when its holder dies."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import TroubleError


@contextmanager
def study_lock(home: Path, study: str) -> Iterator[None]:
    """Holds the study for as long as the block runs.

    Raises:
        TroubleError: another process holds it, and the message says which and since when; or nothing can be written.
    """
    folder = home / "locks"
    holder = folder / f"{study}.json"
    lock = FileLock(folder / f"{study}.lock")
    try:
        _take(lock, holder)
    except Timeout:
        raise TroubleError(f"study {study} is in use {_by_whom(holder)}; wait for it, or stop it") from None
    except OSError as error:
        lock.release()
        raise TroubleError(
            f"cannot write {folder}: {error.strerror}; is there room, and may you write there?"
        ) from error
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _take(lock: FileLock, holder: Path) -> None:
    holder.parent.mkdir(parents=True, exist_ok=True)
    lock.acquire(timeout=0)
    holder.write_text(json.dumps({"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}))


def _by_whom(holder: Path) -> str:
    try:
        data = json.loads(holder.read_text())
        return f"by process {data['pid']} since {data['since']}"
    except (OSError, ValueError, KeyError):
        return "by another process"  # it is just starting or ending
