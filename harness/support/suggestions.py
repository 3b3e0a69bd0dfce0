"""What a person may have meant by an unknown name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The known name that begins with `given` or is most like it, as an end of a message; empty if none is."""
    names = list(known)
    close = [name for name in names if given and name.startswith(given)] or get_close_matches(given, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""
