"""The ledger's file: its tables, its versions, and how it is opened and written.

The version is that of the tables and of the JSON in their cells (settings, results, epochs, where something ran): what
adds a field to one of these adds a script here, empty where the field's default says how it was before. A harness that
does not know the field then refuses the file as a newer one, and does not take it for damaged.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

from harness.errors import TroubleError
from harness.ledger import checksums

# How long another process may hold the ledger: a database browser with an open change, say. Between two tries the
# interpreter hears signals.
BUSY_TIMEOUT_S = 5.0
NUM_TRIES = 120
HELD = f"is held by another process; waiting for it, {BUSY_TIMEOUT_S * NUM_TRIES / 60:.0f} minutes at most"

# SQLite's own check of a whole file takes a twentieth of what reading its studies does; of larger ones, the audit's.
MAX_CHECKED_BYTES = 16 * 2**20

T = TypeVar("T")
Say = Callable[[str], None]  # takes a line for people
MEMORY = Path(":memory:")  # SQLite's own name for a database that is nowhere

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
    wall_s REAL NOT NULL              -- monotonic, up to the last sign of life
) STRICT;
CREATE TABLE tracked (
    uid TEXT PRIMARY KEY,             -- a trial's uid, or a study's name for its parent run
    run_id TEXT NOT NULL,
    state TEXT NOT NULL               -- what the run shows: an outcome
) STRICT;
"""
# Where each session and so each attempt ran. Without a provenance: as when the study was made, as far as is known;
# attempts without a session are older than this.
_VERSION_2 = """
ALTER TABLE sessions ADD COLUMN provenance TEXT;
ALTER TABLE attempts ADD COLUMN session INTEGER REFERENCES sessions;
"""

# What tells a row that was changed by anything but the harness (`ledger_checksums`), and how many rows of `epochs` an
# attempt has. Rows of before get theirs as they are.
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

# What a study is for is one of its settings (`Kind`), which names and spaces told before. Settings that are no JSON, of
# a row that was damaged, stay as they are.
_VERSION_4 = """
UPDATE studies SET spec = json_set(spec, '$.kind', CASE
    WHEN study GLOB '*.verdict' THEN 'verdict'
    WHEN json_extract(spec, '$.space') = '{}' THEN 'baseline'
    ELSE 'search' END) WHERE json_valid(spec);
"""

# Each brings a ledger from the version before it, the first from nothing; none is ever changed.
MIGRATIONS = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4)
SCHEMA_VERSION = len(MIGRATIONS)
_FIRST_WITH_CHECKSUMS = 3


def open_database(path: Path, say: Say, *, makes: bool = True, checks: bool = True) -> sqlite3.Connection:
    """A connection to the ledger at `path`, made when it is not there, brought to this version when it is older.

    An older one is kept beside it as `ledger.db.v1`. Without `makes`, a ledger that is not there is an empty one, and
    nothing is written. Without `checks`, what SQLite itself may find wrong with the file is not looked for.

    Raises:
        TroubleError: the file cannot be opened or written, is no ledger, or was written by a newer version.
    """
    try:
        if not makes and not path.exists():
            return _connected(MEMORY, say, checks=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        return _connected(path, say, checks=checks)
    except (OSError, sqlite3.Error, UnicodeError) as error:  # the latter: SQLite quotes bytes of the file that are none
        raise TroubleError(f"ledger {path}: {error}; is the folder writable and the file a ledger?") from error


def patiently(action: Callable[[], T], path: Path, say: Say) -> T:
    """What `action` returns, tried again while another process holds the ledger, which is said once."""
    for _ in range(NUM_TRIES - 1):
        try:
            return action()
        except sqlite3.OperationalError as error:
            if not _is_held(error):
                raise
            say(f"ledger {path} {HELD}")
            say = nobody
    return action()


@contextmanager
def transaction(db: sqlite3.Connection, path: Path, say: Say) -> Iterator[None]:
    """Commits what the block writes, durably, or nothing of it.

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
            raise TroubleError(f"ledger {path}: {error}; {hint}") from error
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
    code = getattr(error, "sqlite_errorcode", 0)  # none where the complaint is the module's own
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def nobody(line: str) -> None:
    """For those who hear nothing."""


def _prepare(db: sqlite3.Connection, path: Path, say: Say, *, checks: bool) -> None:
    if path != MEMORY:
        _check_length(db, path)
    checksums.add_function(db)
    version = _version(db, path)  # before anything is written: the file may be somebody else's
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
    """SQLite itself reads a last page that is cut off as if it were empty, and a shorter file as a new one."""
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    is_in_use = path.with_name(f"{path.name}-wal").exists()  # what is in there makes the file whole
    if path.stat().st_size % page_bytes and not is_in_use:
        raise TroubleError(f"ledger {path}: the file is cut off, or no database; put a copy back, or move it away")


def _check_structure(db: sqlite3.Connection, path: Path) -> None:
    """That tables and indexes are whole and agree: of a page in another's place, lookups see too few rows."""
    (problem,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if problem != "ok":
        line = " ".join(str(problem).split())
        raise TroubleError(f"ledger {path} is damaged ({line}); put a copy back, or move the file away")


def _version(db: sqlite3.Connection, path: Path) -> int:
    # One statement, so that both are of the same moment.
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
    """Brings a ledger to this version, or makes a new one. Of several processes the first does, the others wait."""
    with transaction(db, path, say):
        version = _version(db, path)
        if 0 < version < SCHEMA_VERSION:
            _back_up(path, version)
        if version >= _FIRST_WITH_CHECKSUMS:
            checksums.mark_broken(db)
        for script in MIGRATIONS[version:]:
            for statement in filter(str.strip, script.split(";\n")):
                db.execute(statement)
        checksums.stamp(db)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _back_up(path: Path, version: int) -> None:
    """Keeps a copy beside the ledger, whole or not at all. The caller holds the write lock."""
    copy = path.with_name(f"{path.name}.v{version}")
    unfinished = copy.with_name(f"{copy.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as reader:  # the writer itself cannot make a copy within its transaction
        reader.execute("VACUUM INTO ?", (str(unfinished),))
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(copy)


@cache
def _expected_columns() -> frozenset[str]:
    """Those of a new ledger."""
    with closing(sqlite3.connect(":memory:")) as db:
        for script in MIGRATIONS:
            db.executescript(script)
        return _columns(db)


def _columns(db: sqlite3.Connection) -> frozenset[str]:
    """Every column with its type, and every index that was asked for."""
    columns = db.execute(
        "SELECT 'table ' || m.name || ', column ' || x.name || ' ' || x.type"
        " FROM sqlite_master m JOIN pragma_table_xinfo(m.name) x WHERE m.type = 'table'"
        " UNION SELECT 'index ' || name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    )
    return frozenset(row[0] for row in columns)
