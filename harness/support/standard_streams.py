"""The standard streams of a process that was started without some of them, as `>&-` does."""

from __future__ import annotations

import io
import os
import shutil
import sys
import textwrap
from itertools import chain
from typing import TextIO

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


def at_words(line: str, width: int, *, indent: int = 0, max_lines: int | None = None) -> list[str]:
    """A line in parts of at most `width` characters, broken between words alone; a longer word is a part of its own.

    Parts after the first are indented; the last of `max_lines` ends in an ellipsis where something is left out.
    """
    parts = textwrap.wrap(
        line,
        width,
        subsequent_indent=" " * indent,
        max_lines=max_lines,
        placeholder=" ...",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return parts or [""]


def for_people(text: str, stream: TextIO, *, indent: int = 0) -> str:
    """`text` with its lines broken between words where `stream` is a terminal, which would break them anywhere."""
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    lines = (at_words(line, width, indent=indent) if len(line) > width else [line] for line in text.split("\n"))
    return "\n".join(chain.from_iterable(lines))


def show_all_text() -> None:
    """Lets standard output escape unencodable text, as standard error does: file names may be any bytes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
