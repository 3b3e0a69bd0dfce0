"""The console for tables."""

from __future__ import annotations

from typing import Literal, TextIO

from rich.console import Console, RenderableType
from rich.measure import Measurement

_UNLIMITED = 10_000  # columns


def plain_console(stream: TextIO) -> Console:
    """A console without markup: bold on a terminal, no control codes elsewhere.

    In a notebook rich would write HTML, or control codes, since a kernel sets FORCE_COLOR.
    """
    color_system: Literal["auto"] | None = "auto" if stream.isatty() else None
    return Console(
        file=stream, highlight=False, markup=False, emoji=False, force_jupyter=False, color_system=color_system
    )


def natural_width(shown: RenderableType, console: Console) -> int:
    """The columns that it takes where the terminal does not limit it."""
    return Measurement.get(console, console.options.update(max_width=_UNLIMITED), shown).maximum
