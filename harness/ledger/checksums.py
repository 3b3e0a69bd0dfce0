"""A checksum for each row of the ledger: a change by anything but the harness is detected when the row is read.

SQLite does not detect flipped bits, misplaced pages or edits by hand. Temporary triggers in the harness' own
connections set the checksum, so no statement can omit it. Other programs can still read the file. A write by them is
detected.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

# The columns that a checksum covers, by table. `num_events` changes with each event and is checked against the events.
CELLS = {
    "studies": ("study", "spec", "provenance", "created_at"),
    "trials": (
        *("uid", "study", "number", "role", "params", "seed", "epochs", "continues", "asked_at", "asks"),
        "search_time_s",
    ),
    "attempts": (
        *("uid", "attempt", "worker", "started_at", "reserved_time_s", "outcome", "told_at", "result"),
        *("wrong_images", "test_wrong_images", "session", "num_epochs"),
    ),
    "epochs": ("uid", "attempt", "epoch", "report"),
    "sessions": ("id", "study", "started_at", "wall_s", "provenance"),
}
KEYS = {
    "studies": ("study",),
    "trials": ("uid",),
    "attempts": ("uid", "attempt"),
    "epochs": ("uid", "attempt", "epoch"),
    "sessions": ("id",),
}
# Given to the function as bytes, since not all bytes are text.
_TEXTS = {
    *("study", "spec", "provenance", "uid", "role", "params", "continues", "worker", "outcome", "result"),
    *("wrong_images", "test_wrong_images", "report"),
}


def add_function(db: sqlite3.Connection) -> None:
    """Adds the SQL function that checks rows."""
    db.create_function("checksum_of", -1, _checksum, deterministic=True)


def add_triggers(db: sqlite3.Connection) -> None:
    """Adds triggers that set the checksum of each row that this connection writes."""
    db.execute("PRAGMA temp_store = MEMORY")
    for table, cells in CELLS.items():
        row = " AND ".join(f"{column} = NEW.{column}" for column in KEYS[table])
        stamp = f"BEGIN UPDATE {table} SET checksum = {_expression(table)} WHERE {row}; END"
        db.execute(f"CREATE TEMP TRIGGER new_{table} AFTER INSERT ON main.{table} WHEN NEW.checksum = 0 {stamp}")
        db.execute(f"CREATE TEMP TRIGGER changed_{table} AFTER UPDATE OF {', '.join(cells)} ON main.{table} {stamp}")


# There are many epochs: with its checksum in the INSERT, a row is written once instead of twice.
ADD_EPOCH = (
    "INSERT INTO epochs (uid, attempt, epoch, report, checksum)"
    " VALUES (?1, ?2, ?3, ?4, checksum_of(CAST(?1 AS BLOB), ?2, ?3, CAST(?4 AS BLOB)))"
)


# Marks a row that was found broken. No valid checksum has this value.
_BROKEN = -1


def mark_broken(db: sqlite3.Connection) -> None:
    """Marks every row whose checksum differs, so that a migration does not make it valid."""
    for table in CELLS:
        db.execute(f"UPDATE {table} SET checksum = {_BROKEN} WHERE checksum != {_expression(table)}")


def stamp(db: sqlite3.Connection) -> None:
    """Sets the checksum of every row from its present cells, except for rows marked as broken."""
    for table in CELLS:
        db.execute(f"UPDATE {table} SET checksum = {_expression(table)} WHERE checksum != {_BROKEN}")


def is_intact(table: str, alias: str) -> str:
    """An SQL expression: whether the checksum of a row matches; NULL without a row, as in an outer join."""
    return f"({_expression(table, f'{alias}.')} = {alias}.checksum)"


def broken_rows(db: sqlite3.Connection, table: str) -> Iterator[tuple[str, ...]]:
    """The keys of the rows whose checksum differs."""
    keys = ", ".join(f"CAST(x.{column} AS BLOB)" for column in KEYS[table])
    query = f"SELECT {keys} FROM {table} x WHERE NOT {is_intact(table, 'x')}"
    for row in db.execute(query):
        yield tuple(bytes(cell).decode(errors="backslashreplace") for cell in row)


def changed(table: str, row: Mapping[str, Any], **cells: Any) -> dict[str, Any]:
    """A row with other cells. Its checksum is right if it was right before."""
    new = {**row, **cells}
    return new | {"checksum": _of(table, new)} if row["checksum"] == _of(table, row) else new


def _of(table: str, row: Mapping[str, Any]) -> int:
    cells = ((column, row[column]) for column in CELLS[table])
    return _checksum(*(cell.encode() if column in _TEXTS and isinstance(cell, str) else cell for column, cell in cells))


def _expression(table: str, prefix: str = "") -> str:
    cells = (f"CAST({prefix}{cell} AS BLOB)" if cell in _TEXTS else f"{prefix}{cell}" for cell in CELLS[table])
    return f"checksum_of({', '.join(cells)})"


def _checksum(*cells: bytes | float | None) -> int:
    return zlib.crc32(b"\0".join([cell if isinstance(cell, bytes) else repr(cell).encode() for cell in cells]))
