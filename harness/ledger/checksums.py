"""A checksum for each row of the ledger, so that a change by anything but the harness is noticed when it is read.

A disk that flips bits, a page that lands in another's place, an edit by hand: SQLite reads all of them without a word.
The checksum is set by triggers that live in the harness' own connections, so no statement of it can forget one, and
other programs can still read the file and write to it, which is then noticed.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator

# By table, what a checksum is over. A study's `num_events`, which changes with each event, is held against the events.
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
    """Lets a connection check rows."""
    db.create_function("checksum_of", -1, _checksum, deterministic=True)


def add_triggers(db: sqlite3.Connection) -> None:
    """Lets a connection set the checksum of each row that it writes."""
    db.execute("PRAGMA temp_store = MEMORY")
    for table, cells in CELLS.items():
        row = " AND ".join(f"{column} = NEW.{column}" for column in KEYS[table])
        stamp = f"BEGIN UPDATE {table} SET checksum = {_expression(table)} WHERE {row}; END"
        db.execute(f"CREATE TEMP TRIGGER new_{table} AFTER INSERT ON main.{table} WHEN NEW.checksum = 0 {stamp}")
        db.execute(f"CREATE TEMP TRIGGER changed_{table} AFTER UPDATE OF {', '.join(cells)} ON main.{table} {stamp}")


# Of epochs, of which there are many, with its checksum: the row is written once instead of twice.
ADD_EPOCH = (
    "INSERT INTO epochs (uid, attempt, epoch, report, checksum)"
    " VALUES (?1, ?2, ?3, ?4, checksum_of(CAST(?1 AS BLOB), ?2, ?3, CAST(?4 AS BLOB)))"
)


# The checksum of a row that was found broken: no row has it.
_BROKEN = -1


def mark_broken(db: sqlite3.Connection) -> None:
    """Has every row that is not as it was written stay so, though rows are changed and stamped."""
    for table in CELLS:
        db.execute(f"UPDATE {table} SET checksum = {_BROKEN} WHERE checksum != {_expression(table)}")


def stamp(db: sqlite3.Connection) -> None:
    """Sets the checksum of every row as it is now, but of those that are marked as broken."""
    for table in CELLS:
        db.execute(f"UPDATE {table} SET checksum = {_expression(table)} WHERE checksum != {_BROKEN}")


def is_intact(table: str, alias: str) -> str:
    """An SQL expression: whether a row is as it was written; NULL where there is none, as in an outer join."""
    return f"({_expression(table, f'{alias}.')} = {alias}.checksum)"


def broken_rows(db: sqlite3.Connection, table: str) -> Iterator[tuple[str, ...]]:
    """The keys of the rows that are not as they were written."""
    keys = ", ".join(f"CAST(x.{column} AS BLOB)" for column in KEYS[table])
    query = f"SELECT {keys} FROM {table} x WHERE NOT {is_intact(table, 'x')}"
    for row in db.execute(query):
        yield tuple(bytes(cell).decode(errors="backslashreplace") for cell in row)


def _expression(table: str, prefix: str = "") -> str:
    cells = (f"CAST({prefix}{cell} AS BLOB)" if cell in _TEXTS else f"{prefix}{cell}" for cell in CELLS[table])
    return f"checksum_of({', '.join(cells)})"


def _checksum(*cells: bytes | float | None) -> int:
    return zlib.crc32(b"\0".join([cell if isinstance(cell, bytes) else repr(cell).encode() for cell in cells]))
