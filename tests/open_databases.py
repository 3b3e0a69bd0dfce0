"""Which SQLite databases this process has opened and not closed, the same on every version of Python.

Python 3.13 warns of a connection that is given up without being closed, the versions before it do not. All raise an
audit event for each connection.
"""

from __future__ import annotations

import sqlite3
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = tuple(str(ROOT / folder) for folder in ("harness", "tests"))

_opened: list[tuple[sqlite3.Connection, str]] = []  # held, so that none is closed by being forgotten


def _opener() -> str | None:
    """The line of ours that opens a database now; None for MLflow's own, which it keeps until the process ends."""
    ours = None
    for frame, line in traceback.walk_stack(sys._getframe(2)):
        if frame.f_globals.get("__name__", "").startswith("mlflow."):
            return None
        file = frame.f_code.co_filename
        if ours is None and file.startswith(OURS):
            ours = f"{Path(file).relative_to(ROOT)}:{line}"
    return ours or "a library"


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "sqlite3.connect/handle" and (opener := _opener()):
        connection = arguments[0]
        assert isinstance(connection, sqlite3.Connection)
        _opened.append((connection, opener))


sys.addaudithook(_note)


def num_opened() -> int:
    return len(_opened)


def left_open(since: int = 0) -> list[str]:
    """Where those were opened that are not closed, of all after the first `since`; these are forgotten."""
    connections = _opened[since:]
    del _opened[since:]
    return [opener for connection, opener in connections if _is_open(connection)]


def _is_open(connection: sqlite3.Connection) -> bool:
    try:
        return connection.total_changes >= 0  # may be asked by any thread
    except sqlite3.ProgrammingError:
        return False
