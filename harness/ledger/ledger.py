"""The ledger: the only source of truth about every study, in one SQLite file.

Each change, or a group of changes, is one durable transaction. It is committed before anything depends on it. A trial
has at most one final result, which the schema enforces. "Running" is not stored: it is an attempt without an outcome.
One process at a time writes a study (see `harness.ledger.locks`). Several studies may be written at the same time, and
any process may read.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from harness.errors import DamageError, InputError
from harness.ledger import rows as ledger_rows
from harness.ledger import schema
from harness.ledger.checksums import ADD_EPOCH
from harness.ledger.reader import Reader, Study
from harness.ledger.schema import transaction
from harness.study.records import EpochReport, Outcome, Trial, TrialResult
from harness.study.spec import SweepSpec
from harness.support.strict_json import shown
from harness.support.suggestions import did_you_mean

T = TypeVar("T")


class Ledger(Reader):
    """Reads and writes one ledger file: `Reader` has the arguments and errors."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """Commits all changes of the block in one transaction, with one flush to the disk."""
        with self._transaction():
            yield

    # Studies

    def create_study(self, spec: SweepSpec, provenance: dict[str, Any]) -> None:
        """Adds a study. It replaces a study of the same name that has no trial.

        Raises:
            sqlite3.IntegrityError: a study of this name has trials.
        """
        values = (spec.study, ledger_rows.spec_to_json(spec), json.dumps(provenance), time.time())
        insert = "INSERT INTO studies (study, spec, provenance, created_at) VALUES (?, ?, ?, ?)"
        with self._transaction():
            if not self.has_trials(spec.study):
                self._db.execute("DELETE FROM sessions WHERE study = ?", (spec.study,))
                insert += " ON CONFLICT DO UPDATE SET spec = excluded.spec, provenance = excluded.provenance"
            self._db.execute(insert, values)

    def update_budget(self, spec: SweepSpec) -> None:
        """Stores the latest budget. No other setting of a study changes."""
        with self._transaction():
            written = ledger_rows.spec_to_json(spec)
            self._db.execute("UPDATE studies SET spec = ? WHERE study = ?", (written, spec.study))

    def rename_study(self, study: str, new_name: str) -> None:
        """Renames a study."""
        spec = self.study(study).spec.changed(study=new_name)
        with self._transaction():
            self._db.execute(
                "UPDATE studies SET study = ?, spec = ? WHERE study = ?",
                (new_name, ledger_rows.spec_to_json(spec), study),
            )
            self._db.execute("UPDATE tracked SET uid = ? WHERE uid = ?", (new_name, study))

    def remove_study(self, name: str) -> int:
        """Removes a study and all rows without a study; returns the number of removed trials. Raises KeyError."""
        raw = self._raw_names()[name]
        self._db.execute("PRAGMA foreign_keys = OFF")  # rows of a damaged study may lack their parents
        try:
            with self._transaction():
                self._db.execute("DELETE FROM studies WHERE study = CAST(? AS TEXT)", (raw,))
                self._db.execute("DELETE FROM sessions WHERE study NOT IN (SELECT study FROM studies)")
                trials = self._db.execute("DELETE FROM trials WHERE study NOT IN (SELECT study FROM studies)")
                for table in ("attempts", "epochs"):
                    self._db.execute(f"DELETE FROM {table} WHERE uid NOT IN (SELECT uid FROM trials)")  # noqa: S608
                known = "SELECT uid FROM trials UNION ALL SELECT study FROM studies"
                self._db.execute(f"DELETE FROM tracked WHERE uid NOT IN ({known})")  # noqa: S608 - our own
        finally:
            self._db.execute("PRAGMA foreign_keys = ON")
        return trials.rowcount

    def add_studies(self, source: Reader, studies: Collection[str]) -> None:
        """Adds studies of another ledger with all their rows, and the checksums that these have there."""
        with self._transaction():
            self._db.execute("PRAGMA defer_foreign_keys = ON")  # a trial may stand before the one that it continues
            (last,) = self._db.execute("SELECT coalesce(max(id), 0) FROM sessions").fetchone()
            for table, row in source.rows(studies, last + 1):
                schema.insert(self._db, table, row)

    # Trials, in the order of their life cycle

    def propose(self, study: str, trial: Trial, asks: int, search_time_s: float) -> None:
        """Commits a trial that will be run. It is pending until it has a final result."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO trials (uid, study, number, role, params, seed, epochs, continues, asked_at, asks,"
                " search_time_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    trial.uid,
                    study,
                    trial.number,
                    trial.role,
                    json.dumps(dict(trial.params)),
                    trial.seed,
                    trial.epochs,
                    trial.continues,
                    self._next_event(study),
                    asks,
                    search_time_s,
                ),
            )

    def start_attempt(self, uid: str, worker: str) -> int:
        """Returns the attempt's number, from 1."""
        with self._transaction():
            (last,) = self._db.execute(
                "SELECT coalesce(max(attempt), 0) FROM attempts WHERE uid = ?", (uid,)
            ).fetchone()
            self._db.execute(
                "INSERT INTO attempts (uid, attempt, worker, started_at, session) VALUES (?, ?, ?, ?,"
                " (SELECT max(x.id) FROM sessions x JOIN trials t ON t.study = x.study WHERE t.uid = ?))",
                (uid, last + 1, worker, time.time(), uid),
            )
        return int(last) + 1

    def add_epoch(self, uid: str, attempt: int, report: EpochReport, reserved_time_s: float) -> None:
        with self._transaction():
            self._db.execute(
                ADD_EPOCH,
                (uid, attempt, report.epoch, json.dumps(dataclasses.asdict(report))),
            )
            self._db.execute(
                "UPDATE attempts SET reserved_time_s = ?, num_epochs = num_epochs + 1 WHERE uid = ? AND attempt = ?",
                (reserved_time_s, uid, attempt),
            )

    def finish_attempt(
        self, uid: str, attempt: int, result: TrialResult, reserved_time_s: float, *, is_final: bool
    ) -> None:
        """Commits the result of an attempt. With `is_final` it is also the trial's result and cannot change.

        The curve consists of the epochs stored by `add_epoch`; the curve in `result` is ignored.

        Raises:
            sqlite3.IntegrityError: the trial already has a final result.
        """
        with self._transaction():
            told_at = self._next_event(self.whereabouts(uid)[0]) if is_final else None
            self._db.execute(
                "UPDATE attempts SET outcome = ?, told_at = ?, result = ?, wrong_images = ?, test_wrong_images = ?,"
                " reserved_time_s = ? WHERE uid = ? AND attempt = ?",
                (
                    result.outcome,
                    told_at,
                    ledger_rows.result_to_json(result),
                    ledger_rows.images_to_json(result.wrong_images),
                    ledger_rows.images_to_json(result.test_wrong_images),
                    reserved_time_s,
                    uid,
                    attempt,
                ),
            )

    def add_search_time(self, uid: str, search_time_s: float) -> None:
        with self._transaction():
            self._db.execute("UPDATE trials SET search_time_s = search_time_s + ? WHERE uid = ?", (search_time_s, uid))

    def close_lost_attempts(self, study: str) -> int:
        """Marks attempts whose coordinator died as CANCELLED, charged up to their last epoch. Returns their number."""
        with self._transaction():
            cursor = self._db.execute(
                "UPDATE attempts SET outcome = ?, result = ? WHERE outcome IS NULL"
                " AND uid IN (SELECT uid FROM trials WHERE study = ?)",
                (
                    Outcome.CANCELLED,
                    ledger_rows.result_to_json(TrialResult(Outcome.CANCELLED, "the coordinator died")),
                    study,
                ),
            )
        return cursor.rowcount

    # Sessions: duration and place of the work on a study

    def start_session(self, study: str, provenance: Mapping[str, Any] | None = None) -> int:
        """Starts a session, to which later attempts belong; `provenance`: where they run, if that may differ."""
        origin = None if provenance is None else json.dumps(dict(provenance))
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO sessions (study, started_at, wall_s, provenance) VALUES (?, ?, 0, ?)",
                (study, time.time(), origin),
            )
        return int(cursor.lastrowid or 0)

    def touch_session(self, session: int, wall_s: float) -> None:
        with self._transaction():
            self._db.execute("UPDATE sessions SET wall_s = ? WHERE id = ?", (wall_s, session))

    # State of the MLflow runs; a cache that may be deleted, since runs are also found by their tag trial_uid

    def set_tracked(self, uid: str, run_id: str, state: str) -> None:
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO tracked VALUES (?, ?, ?)", (uid, run_id, state))

    def _next_event(self, study: str) -> int:
        row = self._db.execute(
            "UPDATE studies SET num_events = num_events + 1 WHERE study = ? RETURNING num_events", (study,)
        ).fetchone()
        if row is None:
            raise KeyError(study)
        return int(row[0])

    def _transaction(self) -> AbstractContextManager[None]:
        return nullcontext() if self._db.in_transaction else transaction(self._db, self.path, self._say)


def of_each(ledger: Ledger, say: Callable[[str], None], make: Callable[[str], T]) -> list[T]:
    """The result of `make` for each study, oldest first; `say` gets the unreadable ones, which are left out."""
    unreadable = ledger.unreadable_studies()
    made = []
    for name in ledger.study_names():
        if name not in unreadable:
            try:
                made.append(make(name))
            except DamageError as error:
                unreadable[name] = str(error)
    for name, why in unreadable.items():
        say(f"study {name} is left out: {why}")
    return made


def sound_studies(ledger: Ledger, say: Callable[[str], None]) -> list[str]:
    """The names of the studies whose rows can all be read; `say` gets the others."""

    def checked(name: str) -> str:
        ledger.check_study(name)
        return name

    return of_each(ledger, say, checked)


def find_study(ledger: Ledger, name: str) -> Study:
    """The study called `name`.

    Raises:
        InputError: there is none of that name.
    """
    try:
        return ledger.study(name)
    except KeyError:
        raise no_such_study(ledger, name) from None


def no_such_study(ledger: Ledger, name: str, others: Iterable[str] = (), looked_up: str = "") -> InputError:
    """The error for a study that is not in the ledger.

    Args:
        ledger: The ledger.
        name: What was given.
        others: Further names that may have been meant.
        looked_up: What was looked up instead, after the name.
    """
    known = ledger.study_names()
    meant = did_you_mean(name, [*known, *others])
    return InputError(f"study is {shown(name)}{looked_up}; allowed: {', '.join(known) or none_yet(ledger)}{meant}")


def none_yet(ledger: Ledger) -> str:
    """Message for a ledger without studies, with the folder, which may be the wrong one."""
    folder = ledger.path.parent
    if ledger.unreadable_studies():
        return f"none in {folder} that can be read; `harness status` says why"
    return f"none yet in {folder}{'' if folder.exists() else ', which is not there'}; `harness sweep` makes one"
