"""The standard streams of a process that was started without some of them, as `>&-` does."""

from __future__ import annotations

import io
import os
import sys

MAX_LINE = 600  # characters


def open_missing() -> None:
    """Opens the null device for each closed standard stream.

    Otherwise the next opened file gets its descriptor, and output of libraries goes into that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest free descriptor: this one
    sys.stdin = sys.stdin or os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def was_stdout_closed() -> bool:
    """Whether the process was started without standard output."""
    return sys.__stdout__ is None


def one_line(text: str) -> str:
    """`text` with unprintable characters escaped, truncated if it is very long."""
    line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE // 2]} ... {line[-MAX_LINE // 2 :]}"


def show_all_text() -> None:
    """Lets standard output escape unencodable text, as standard error does: file names may be any bytes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
