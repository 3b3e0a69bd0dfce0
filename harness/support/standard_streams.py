"""The standard streams of a process that was started without some of them, as `>&-` does."""

from __future__ import annotations

import io
import os
import sys

MAX_LINE = 600  # characters


def open_missing() -> None:
    """Puts the null device in the place of each standard stream that is closed.

    Else the next file that is opened takes its descriptor, and what a library prints goes into that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest that is free: this one
    sys.stdin = sys.stdin or os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def was_stdout_closed() -> bool:
    """Whether the process was started without standard output."""
    return sys.__stdout__ is None


def one_line(text: str) -> str:
    """`text` with what is no letter, digit, mark or space escaped, cut where it is very long."""
    line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE // 2]} ... {line[-MAX_LINE // 2 :]}"


def show_all_text() -> None:
    """Lets standard output escape what it cannot hold, as standard error does: names of files may be any bytes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
