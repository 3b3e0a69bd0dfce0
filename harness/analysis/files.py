"""Tables as files that other tools read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from harness.support import atomic_files
from harness.support.failpoints import Step, reach

# A spreadsheet takes a cell for a formula when it starts so (OWASP, "CSV Injection"); the wide forms count too.
_FORMULA = re.compile("'*[=+\\-@\t\n\uff1d\uff0b\uff0d\uff20]")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Writes `frame` without its index, as a whole file.

    Text that a spreadsheet would run as a formula gets an apostrophe in front, and so does text that is one behind
    apostrophes of its own: take one away and the text is back. Line ends within text become plain line feeds. Numbers
    are written with as many digits as it takes to read the same number back; what is missing is an empty cell.

    Raises:
        TroubleError: the file cannot be written.
    """
    with replaced(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        _safe(frame).to_csv(file, index=False, lineterminator="\n")


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A new name to write to; it takes the place of `path` at the end, or goes if anything fails.

    What a killed process has left of the same file goes as well.

    Raises:
        TroubleError: it cannot be written.
    """
    with atomic_files.replaced(path) as unfinished:
        yield unfinished
        reach(Step.BEFORE_FILE)
    reach(Step.AFTER_FILE)


def _safe(frame: pd.DataFrame) -> pd.DataFrame:
    safe = frame.rename(columns=_cell)
    for name in safe:
        # Most text columns have few values, so each is looked at once.
        cells = {value: _cell(value) for value in safe[name].unique() if isinstance(value, str)}
        changed = {value: cell for value, cell in cells.items() if cell != value}
        if changed:
            safe[name] = safe[name].replace(changed)
    return safe


def _cell(text: str) -> str:
    # A lone carriage return would end the row for some readers, and the csv module does not quote it.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if _FORMULA.match(text) else text
