"""Locks, so that one process at a time works on a study. The operating system frees a lock when its process ends.

The lock is on the open file: a lock file left by a crash or a reboot blocks no process.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import TroubleError

_GLANCE_S = 0.2  # `is_in_use` holds a lock for less


class InUseError(TroubleError):
    """Another process holds the lock."""


@contextmanager
def study_lock(home: Path, study: str) -> Iterator[None]:
    """Holds the study for as long as the block runs.

    Raises:
        InUseError: another process holds it; the message has its number and start.
        TroubleError: the folder cannot be written.
    """
    holder = _folder(home) / f"{study}.json"
    lock = _take(holder.with_name(f"{study}.lock"))
    if lock is None:
        raise InUseError(f"study {study} is in use {_by_whom(holder)}; wait for it, or stop it")
    try:
        with _writing(holder.parent):
            holder.write_text(json.dumps({"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def is_in_use(home: Path, study: str) -> bool:
    """Whether a process holds the study; also False if this process may not write there, and so cannot tell."""
    path = home / "locks" / f"{study}.lock"
    if not path.exists():
        return False
    with suppress(TroubleError):
        lock = _take(path)
        if lock is None:
            return True
        lock.release()
    return False


@contextmanager
def runs_lock(home: Path, study: str) -> Iterator[None]:
    """Holds the right to write a study's runs to MLflow for as long as the block runs.

    Raises:
        InUseError: another process holds it.
        TroubleError: the folder cannot be written.
    """
    lock = _take(_folder(home) / f"{study}.mlflow")
    if lock is None:
        raise InUseError(f"{study}: another process is bringing its runs to MLflow")
    try:
        yield
    finally:
        lock.release()


def _folder(home: Path) -> Path:
    folder = home / "locks"
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _take(path: Path) -> FileLock | None:
    """Takes a lock; None if another process holds it for longer than `is_in_use` does."""
    lock = FileLock(path)
    with _writing(path.parent):
        try:
            lock.acquire(timeout=_GLANCE_S, poll_interval=_GLANCE_S / 4)
        except Timeout:
            return None
    return lock


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, NotImplementedError) as error:  # NotImplementedError: the file system has no locks
        why = getattr(error, "strerror", None) or error
        raise TroubleError(f"cannot write {folder}: {why}; is there room, and may you write there?") from error


def _by_whom(holder: Path) -> str:
    try:
        data = json.loads(holder.read_text())
        return f"by process {int(data['pid'])} since {data['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "by another process"  # it is just starting or ending
