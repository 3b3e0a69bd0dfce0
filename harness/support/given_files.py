"""Files that the user names."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from harness.errors import InputError
from harness.support.strict_json import shown


def path_of(name: str, given: object) -> str:
    """The path that a user gave as `name`. Raises InputError if it is none."""
    if not isinstance(given, str | os.PathLike) or isinstance(path := os.fspath(given), bytes):
        raise InputError(f"{name} is {shown(given)}; allowed: a path")
    return path


def open_given(path: Path) -> BinaryIO:
    """Opens a regular file for reading; opening a pipe without a writer would block.

    Raises:
        OSError: it cannot be opened, or is no regular file: a pipe, a device, a folder.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return os.fdopen(descriptor, "rb")
