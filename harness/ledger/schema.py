"""The ledger's file: its tables, its versions, and how it is opened and written.

The version covers the tables and the JSON in their cells (settings, results, epochs, provenance). A change of the
tables or of older JSON is a script here. A field that is added to a record states its version itself (`Since`), and its
default describes older rows. A harness that does not know the field then refuses the file as newer instead of reporting
damage.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from baselines.recipe import Recipe
from baselines.settings import Since, marked
from harness.errors import TroubleError
from harness.ledger import checksums
from harness.study.records import Device, EpochReport, Seconds, TrialResult
from harness.study.settings import Budget, Constraints
from harness.study.spec import SweepSpec
from harness.support.redaction import reason

# How long another process may hold the ledger, for example a database browser with an open transaction. The
# interpreter handles signals between two tries.
BUSY_TIMEOUT_S = 5.0
NUM_TRIES = 120
HELD = f"is held by another process; waiting for it, {BUSY_TIMEOUT_S * NUM_TRIES / 60:.0f} minutes at most"

# SQLite's integrity check takes a twentieth of the time of reading the studies. Larger files are left to the audit.
MAX_CHECKED_BYTES = 16 * 2**20

T = TypeVar("T")
Say = Callable[[str], None]  # takes a line for people
MEMORY = Path(":memory:")  # SQLite's name for a database in memory

_VERSION_1 = """
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
    wall_s REAL NOT NULL              -- monotonic, up to its last update
) STRICT;
CREATE TABLE tracked (
    uid TEXT PRIMARY KEY,             -- a trial's uid, or a study's name for its parent run
    run_id TEXT NOT NULL,
    state TEXT NOT NULL               -- logged state: an outcome
) STRICT;
"""
# Where each session, and so each attempt, ran. Without a provenance, that of the study applies. Attempts without a
# session are older than this version.
_VERSION_2 = """
ALTER TABLE sessions ADD COLUMN provenance TEXT;
ALTER TABLE attempts ADD COLUMN session INTEGER REFERENCES sessions;
"""

# Checksums of rows (`harness.ledger.checksums`), and the number of epochs of an attempt. Earlier rows get the values of
# their present cells.
_VERSION_3 = """
ALTER TABLE studies ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE trials ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE epochs ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN num_epochs INTEGER NOT NULL DEFAULT 0;
UPDATE attempts SET num_epochs =
    (SELECT count(*) FROM epochs e WHERE e.uid = attempts.uid AND e.attempt = attempts.attempt);
"""

# The kind of a study is a setting (`Kind`). Before, its name and space determined it. Settings that are not JSON, in a
# damaged row, are kept.
_VERSION_4 = """
UPDATE studies SET spec = json_set(spec, '$.kind', CASE
    WHEN study GLOB '*.verdict' THEN 'verdict'
    WHEN json_extract(spec, '$.space') = '{}' THEN 'baseline'
    ELSE 'search' END) WHERE json_valid(spec);
"""

# Finds trainings by `TrialResult.training`, which results of earlier versions do not have.
_VERSION_6 = """
CREATE INDEX trainings ON attempts (json_extract(result, '$.training'))
    WHERE told_at IS NOT NULL AND json_valid(result);
"""

# By version. Each migrates from the version before it, the first from an empty file. Never change one.
MIGRATIONS = {1: _VERSION_1, 2: _VERSION_2, 3: _VERSION_3, 4: _VERSION_4, 6: _VERSION_6}
# What the cells hold as JSON.
JSON_RECORDS = (SweepSpec, Constraints, Budget, Recipe, TrialResult, Seconds, Device, EpochReport)


def added_fields(record: type) -> dict[str, int]:
    """The fields that were added to a record of `JSON_RECORDS`, with the versions that added them."""
    if not issubclass(record, BaseModel):
        return {name: mark.version for name, mark in marked(record, Since).items()}
    fields = record.model_fields.items()
    return {name: mark.version for name, field in fields for mark in field.metadata if isinstance(mark, Since)}


# The tables with a study's rows, each after the tables to which it refers; `tracked` is a cache.
STUDY_TABLES = ("studies", "sessions", "trials", "attempts", "epochs")
Cell = str | int | float | None
Row = dict[str, Cell]  # by column

SCHEMA_VERSION = max(*MIGRATIONS, *(version for record in JSON_RECORDS for version in added_fields(record).values()))
_FIRST_WITH_CHECKSUMS = 3


def open_database(path: Path, say: Say, *, makes: bool = True, checks: bool = True) -> sqlite3.Connection:
    """Connects to the ledger at `path`; creates a missing one and migrates an older one.

    A copy of an older one is kept beside it, for example `ledger.db.v1`. Without `makes`, a missing ledger is an empty
    one, and nothing is written. Without `checks`, SQLite's integrity check is skipped.

    Raises:
        TroubleError: the file cannot be opened or written, is no ledger, or was written by a newer version.
    """
    try:
        if not makes and not path.exists():
            return _connected(MEMORY, say, checks=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        return _connected(path, say, checks=checks)
    except (OSError, sqlite3.Error, UnicodeError) as error:  # UnicodeError: SQLite quotes bytes of the file
        raise TroubleError(f"ledger {path}: {reason(error)}; is the folder writable and the file a ledger?") from error


def patiently(action: Callable[[], T], path: Path, say: Say) -> T:
    """Calls `action` until no other process holds the ledger; reports the wait once."""
    for _ in range(NUM_TRIES - 1):
        try:
            return action()
        except sqlite3.OperationalError as error:
            if not _is_held(error):
                raise
            say(f"ledger {path} {HELD}")
            say = ignore
    return action()


@contextmanager
def transaction(db: sqlite3.Connection, path: Path, say: Say) -> Iterator[None]:
    """Commits the changes of the block durably, all or none.

    Raises:
        TroubleError: the disk is full or fails, the file is damaged, or another process holds it for too long.
    """
    try:
        # IMMEDIATE takes the write lock at once: two writers wait for each other instead of failing half-way.
        patiently(lambda: db.execute("BEGIN IMMEDIATE"), path, say)
        yield
        db.execute("COMMIT")
    except BaseException as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.IntegrityError):
            hint = "what was written before is safe; mend that and run the same command again"
            raise TroubleError(f"ledger {path}: {reason(error)}; {hint}") from error
        raise


def _connected(path: Path, say: Say, *, checks: bool) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        patiently(lambda: _prepare(db, path, say, checks=checks), path, say)
        checksums.add_triggers(db)
    except BaseException:
        db.close()
        raise
    return db


def _is_held(error: sqlite3.OperationalError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)  # the sqlite3 module's own errors have none
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def ignore(line: str) -> None:
    """The default of `say`: drops the message."""


def _prepare(db: sqlite3.Connection, path: Path, say: Say, *, checks: bool) -> None:
    if path != MEMORY:
        _check_length(db, path)
    checksums.add_function(db)
    version = _version(db, path)  # before any write: the file may belong to another program
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    if checks and path.stat().st_size <= MAX_CHECKED_BYTES:
        _check_structure(db, path)
    if version < SCHEMA_VERSION:
        _migrate(db, path, say)
    if lack := missing(db):
        raise TroubleError(f"ledger {path}: {lack} is missing; put a copy back, or move the file away")
    db.row_factory = sqlite3.Row


def missing(db: sqlite3.Connection) -> str | None:
    """The first column or index of this version that a ledger lacks."""
    return min(_expected_columns() - _columns(db), default=None)


def _check_length(db: sqlite3.Connection, path: Path) -> None:
    """Refuses a truncated file: SQLite reads a truncated last page as empty, and a shorter file as new."""
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    is_in_use = path.with_name(f"{path.name}-wal").exists()  # it completes the file
    if path.stat().st_size % page_bytes and not is_in_use:
        raise TroubleError(f"ledger {path}: the file is cut off, or no database; put a copy back, or move it away")


def _check_structure(db: sqlite3.Connection, path: Path) -> None:
    """Checks that tables and indexes are whole and agree: with a misplaced page, lookups miss rows."""
    (problem,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if problem != "ok":
        line = " ".join(str(problem).split())
        raise TroubleError(f"ledger {path} is damaged ({line}); put a copy back, or move the file away")


def _version(db: sqlite3.Connection, path: Path) -> int:
    # One statement, so that both values are consistent.
    version, tables = db.execute(
        "SELECT user_version, (SELECT group_concat(name, ', ') FROM sqlite_master WHERE type = 'table')"
        " FROM pragma_user_version"
    ).fetchone()
    if version > SCHEMA_VERSION:
        raise TroubleError(
            f"ledger {path} has schema {version}, this version knows up to {SCHEMA_VERSION};"
            " install a newer version, or set HARNESS_HOME to another folder"
        )
    if version < 0 or (version == 0 and tables):
        raise TroubleError(f"{path} is no ledger but another database (tables: {tables}); move it away")
    return int(version)


def _migrate(db: sqlite3.Connection, path: Path, say: Say) -> None:
    """Migrates a ledger to this version, or creates one. Other processes wait meanwhile."""
    with transaction(db, path, say):
        version = _version(db, path)
        if 0 < version < SCHEMA_VERSION:
            _back_up(path, version)
        if version >= _FIRST_WITH_CHECKSUMS:
            checksums.mark_broken(db)
        run_scripts(db, version, SCHEMA_VERSION)
        checksums.stamp(db)


def run_scripts(db: sqlite3.Connection, after: int, version: int) -> None:
    """Changes the tables of version `after` (0: an empty file) to those of `version`."""
    for script in (script for its_version, script in MIGRATIONS.items() if after < its_version <= version):
        for statement in filter(str.strip, script.split(";\n")):
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {version}")


def insert(db: sqlite3.Connection, table: str, row: Mapping[str, Cell]) -> None:
    """Inserts a row with all its columns, whose names the caller has checked."""
    places = ", ".join(f":{column}" for column in row)
    db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", row)  # noqa: S608 - our own


def _back_up(path: Path, version: int) -> None:
    """Copies the ledger atomically to a file beside it. The caller holds the write lock."""
    copy = path.with_name(f"{path.name}.v{version}")
    unfinished = copy.with_name(f"{copy.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as reader:  # the writer cannot copy within its transaction
        reader.execute("VACUUM INTO ?", (str(unfinished),))
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(copy)


@cache
def _expected_columns() -> frozenset[str]:
    """The columns and indexes of a new ledger."""
    with closing(sqlite3.connect(":memory:")) as db:
        for script in MIGRATIONS.values():
            db.executescript(script)
        return _columns(db)


def _columns(db: sqlite3.Connection) -> frozenset[str]:
    """All columns with their types, and all explicit indexes."""
    columns = db.execute(
        "SELECT 'table ' || m.name || ', column ' || x.name || ' ' || x.type"
        " FROM sqlite_master m JOIN pragma_table_xinfo(m.name) x WHERE m.type = 'table'"
        " UNION SELECT 'index ' || name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    )
    return frozenset(row[0] for row in columns)
