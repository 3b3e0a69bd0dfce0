"""How tables are printed."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console


def plain_console(stream: TextIO) -> Console:
    """Prints text as it is, and in a notebook too to `stream`, where rich would show a web page of its own instead."""
    return Console(file=stream, highlight=False, markup=False, emoji=False, force_jupyter=False)
