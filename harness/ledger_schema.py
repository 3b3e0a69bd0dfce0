"""The ledger's file: its tables, its version, and how it is opened and written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import TroubleError

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 30.0

_SCHEMA = """
CREATE TABLE studies (
    study TEXT PRIMARY KEY,
    spec TEXT NOT NULL,               -- JSON of SweepSpec
    provenance TEXT NOT NULL,         -- JSON: git commit, versions, data digest
    created_at REAL NOT NULL,         -- seconds since 1970
    num_events INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE trials (
    uid TEXT PRIMARY KEY,
    study TEXT NOT NULL REFERENCES studies ON UPDATE CASCADE,
    number INTEGER NOT NULL,
    role TEXT NOT NULL,
    params TEXT NOT NULL,             -- JSON
    seed INTEGER NOT NULL,
    epochs INTEGER NOT NULL,
    continues TEXT REFERENCES trials,
    asked_at INTEGER NOT NULL,        -- position in the study's order of events
    asks INTEGER NOT NULL,
    search_time_s REAL NOT NULL,
    UNIQUE (study, number)
) STRICT;
CREATE TABLE attempts (
    uid TEXT NOT NULL REFERENCES trials,
    attempt INTEGER NOT NULL,         -- from 1
    worker TEXT NOT NULL,
    started_at REAL NOT NULL,         -- seconds since 1970
    reserved_time_s REAL NOT NULL DEFAULT 0,
    outcome TEXT,                     -- NULL: running, or its coordinator was killed
    told_at INTEGER,                  -- set on the attempt that is the trial's final result
    result TEXT,                      -- JSON of TrialResult, without its curve and its images
    wrong_images TEXT,                -- JSON
    test_wrong_images TEXT,           -- JSON; each non-NULL value is one read of the test images
    PRIMARY KEY (uid, attempt)
) STRICT;
CREATE UNIQUE INDEX one_final_result ON attempts (uid) WHERE told_at IS NOT NULL;
CREATE TABLE epochs (
    uid TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    report TEXT NOT NULL,             -- JSON of EpochReport
    PRIMARY KEY (uid, attempt, epoch),
    FOREIGN KEY (uid, attempt) REFERENCES attempts
) STRICT, WITHOUT ROWID;
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    study TEXT NOT NULL REFERENCES studies ON UPDATE CASCADE,
    started_at REAL NOT NULL,         -- seconds since 1970
    wall_s REAL NOT NULL              -- monotonic, up to the last sign of life
) STRICT;
CREATE TABLE tracked (
    uid TEXT PRIMARY KEY,             -- a trial's uid, or a study's name for its parent run
    run_id TEXT NOT NULL,
    state TEXT NOT NULL               -- what the run shows: an outcome
) STRICT;
"""


def open_database(path: Path) -> sqlite3.Connection:
    """A connection to the ledger at `path`, which is made when it is not there.

    Raises:
        TroubleError: the file cannot be opened, is no ledger, or was written by a newer version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        _migrate(db, path)
    except (OSError, sqlite3.Error) as error:
        raise TroubleError(f"ledger {path}: {error}; is the folder writable and the file a ledger?") from error
    return db


@contextmanager
def transaction(db: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Commits what the block writes, durably, or nothing of it.

    Raises:
        TroubleError: the disk is full or fails, or another process holds the file for too long.
    """
    try:
        # IMMEDIATE takes the write lock at once: two writers wait for each other instead of failing half-way.
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    except BaseException as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError):
            hint = "what was written before is safe; mend that and run the same command again"
            raise TroubleError(f"ledger {path}: {error}; {hint}") from error
        raise


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    with transaction(db, path):
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise TroubleError(
                f"ledger {path} has schema {version}, this version knows up to {SCHEMA_VERSION};"
                " install a newer version, or set HARNESS_HOME to another folder"
            )
        if version == 0:
            for statement in _statements(_SCHEMA):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _statements(script: str) -> Iterable[str]:
    return (statement for statement in script.split(";\n") if statement.strip())
