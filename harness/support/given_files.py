"""Files that the user names."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_given(path: Path) -> BinaryIO:
    """Opens a plain file to be read; a pipe that nobody writes to would be waited for without end.

    Raises:
        OSError: it cannot be opened, or is something else: a pipe, a device, a folder.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return os.fdopen(descriptor, "rb")
