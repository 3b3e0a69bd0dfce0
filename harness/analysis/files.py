"""Tables as files for other tools."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.support import atomic_files
from harness.support.failpoints import Step, reach

if TYPE_CHECKING:
    import pandas as pd

# A spreadsheet reads a cell with this start as a formula (OWASP, "CSV Injection"), also in full-width forms.
_FORMULA = re.compile("'*[=+\\-@\t\n\uff1d\uff0b\uff0d\uff20]")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Writes `frame` without its index, atomically.

    Text that a spreadsheet would run as a formula gets an apostrophe in front, also after apostrophes of its own:
    remove one to restore the text. Line ends within text become line feeds. Numbers that are not whole have at most
    six significant digits. Missing values are empty cells.

    Raises:
        TroubleError: the file cannot be written.
    """
    with replaced(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        _safe(frame).to_csv(file, index=False, lineterminator="\n", float_format="%.6g")


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary file, which replaces `path` at the end, or is removed on an error.

    Unfinished files of killed processes for the same path are removed as well.

    Raises:
        TroubleError: the file cannot be written.
    """
    with atomic_files.replaced(path) as unfinished:
        yield unfinished
        reach(Step.BEFORE_FILE)
    reach(Step.AFTER_FILE)


def _safe(frame: pd.DataFrame) -> pd.DataFrame:
    safe = frame.rename(columns=_cell)
    for name in safe:
        # Most text columns have few distinct values, so each one is checked once.
        cells = {value: _cell(value) for value in safe[name].unique() if isinstance(value, str)}
        changed = {value: cell for value, cell in cells.items() if cell != value}
        if changed:
            safe[name] = safe[name].replace(changed)
    return safe


def _cell(text: str) -> str:
    # A lone carriage return would end the row for some readers, and the csv module does not quote it.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if _FORMULA.match(text) else text
