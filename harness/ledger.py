"""The ledger: the one truth about every study, in one SQLite file.

Each change is one durable transaction, committed before anybody acts on it. A trial has one final result at most,
which the schema itself enforces. "Running" is never stored: it is an attempt without an outcome. One process writes a
study at a time (see `harness.locks`); several studies may be written at once, and anybody may read.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import ledger_rows
from harness.ledger_schema import open_database, transaction
from harness.records import EpochReport, Outcome, Record, Role, Trial, TrialResult
from harness.spec import SweepSpec


@dataclass(frozen=True)
class Study:
    """A study's settings and where they came from."""

    spec: SweepSpec
    provenance: dict[str, Any]
    created_at: float


@dataclass(frozen=True)
class Usage:
    """What of a study's budget is used.

    Attributes:
        trials: Searched trials with a final result, infeasible ones (which cost nothing) apart.
        wall_s: Seconds its sessions took together.
        device_s: Seconds a device was held, over all attempts.
    """

    trials: int
    wall_s: float
    device_s: float


class Ledger:
    """Reads and writes one ledger file; made when it is not there.

    Raises:
        TroubleError: the file cannot be opened, is no ledger, or was written by a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = open_database(path)

    def close(self) -> None:
        self._db.close()

    # Studies

    def create_study(self, spec: SweepSpec, provenance: dict[str, Any]) -> None:
        with self._transaction():
            self._db.execute(
                "INSERT INTO studies (study, spec, provenance, created_at) VALUES (?, ?, ?, ?)",
                (spec.study, spec.model_dump_json(), json.dumps(provenance), time.time()),
            )

    def update_budget(self, spec: SweepSpec) -> None:
        """Remembers the budget last asked for; nothing else of a study ever changes."""
        with self._transaction():
            self._db.execute("UPDATE studies SET spec = ? WHERE study = ?", (spec.model_dump_json(), spec.study))

    def rename_study(self, study: str, new_name: str) -> None:
        """Keeps a study under another name."""
        spec = self.study(study).spec.model_copy(update={"study": new_name})
        with self._transaction():
            self._db.execute(
                "UPDATE studies SET study = ?, spec = ? WHERE study = ?", (new_name, spec.model_dump_json(), study)
            )
            self._db.execute("UPDATE tracked SET uid = ? WHERE uid = ?", (new_name, study))

    def study_names(self) -> list[str]:
        """Oldest first."""
        return [row[0] for row in self._db.execute("SELECT study FROM studies ORDER BY created_at, study")]

    def study(self, name: str) -> Study:
        """Raises KeyError if there is no such study."""
        row = self._db.execute("SELECT spec, provenance, created_at FROM studies WHERE study = ?", (name,)).fetchone()
        if row is None:
            raise KeyError(name)
        return Study(SweepSpec.model_validate_json(row[0]), json.loads(row[1]), row[2])

    # Trials, in the order a trial lives through

    def propose(self, study: str, trial: Trial, asks: int, search_time_s: float) -> None:
        """Commits what is to be run; from here on the trial is pending until it has a final result."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                "INSERT INTO attempts (uid, attempt, worker, started_at) VALUES (?, ?, ?, ?)",
                (uid, last + 1, worker, time.time()),
            )
        return int(last) + 1

    def add_epoch(self, uid: str, attempt: int, report: EpochReport, reserved_time_s: float) -> None:
        with self._transaction():
            self._db.execute(
                "INSERT INTO epochs VALUES (?, ?, ?, ?)",
                (uid, attempt, report.epoch, json.dumps(dataclasses.asdict(report))),
            )
            self._db.execute(
                "UPDATE attempts SET reserved_time_s = ? WHERE uid = ? AND attempt = ?", (reserved_time_s, uid, attempt)
            )

    def finish_attempt(
        self, uid: str, attempt: int, result: TrialResult, reserved_time_s: float, *, is_final: bool
    ) -> None:
        """Commits how an attempt ended; with `is_final`, this is the trial's result, once and for ever.

        The curve is what `add_epoch` has stored; the result's own is not looked at.

        Raises:
            sqlite3.IntegrityError: the trial already has a final result.
        """
        with self._transaction():
            told_at = self._next_event(self._study_of(uid)) if is_final else None
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
        """Ends attempts whose coordinator died: CANCELLED, charged up to their last epoch. Returns how many."""
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

    # Reading

    def history(self, study: str) -> list[Record]:
        """Every trial of a study by number, pending ones included; without the lists of wrong images."""
        rows = self._db.execute(
            ledger_rows.COLUMNS + ledger_rows.TRIALS + "WHERE t.study = ? ORDER BY t.number", (study,)
        ).fetchall()
        curves = self._final_curves(study)
        return [ledger_rows.record(row, curves.get(row[0], ())) for row in rows]

    def finished(self, study: str) -> Iterator[Record]:
        """Every trial with a final result, by number, read one at a time so that a long study needs little memory.

        Of a curve only the last epoch is there, and of the wrong images only those of the test split.
        """
        columns = ledger_rows.COLUMNS + ledger_rows.LAST_REPORT + ", f.test_wrong_images"
        rows = self._db.execute(
            columns + ledger_rows.TRIALS + "WHERE t.study = ? AND f.uid IS NOT NULL ORDER BY t.number", (study,)
        )
        for *row, last_report, test_wrong in rows:
            record = ledger_rows.record(tuple(row), (last_report,) if last_report else ())
            yield record if test_wrong is None else ledger_rows.with_images(record, None, test_wrong)

    def record(self, uid: str) -> Record:
        """One trial, with the images its model got wrong.

        Raises:
            KeyError: there is no such trial.
        """
        row = self._db.execute(ledger_rows.COLUMNS + ledger_rows.TRIALS + "WHERE t.uid = ?", (uid,)).fetchone()
        if row is None:
            raise KeyError(uid)
        wrong, test_wrong = self._db.execute(
            "SELECT max(wrong_images), max(test_wrong_images) FROM attempts WHERE uid = ? AND told_at IS NOT NULL",
            (uid,),
        ).fetchone()
        reports = self._db.execute(
            "SELECT report FROM epochs WHERE uid = ? AND attempt = ? ORDER BY epoch", (uid, row[10])
        )
        return ledger_rows.with_images(ledger_rows.record(row, [report for (report,) in reports]), wrong, test_wrong)

    def attempts(self, uid: str) -> list[tuple[int, Outcome | None, str, float, float]]:
        """(attempt, outcome, worker, started_at, reserved_time_s) of each attempt, in order."""
        rows = self._db.execute(
            "SELECT attempt, outcome, worker, started_at, reserved_time_s FROM attempts WHERE uid = ? ORDER BY attempt",
            (uid,),
        )
        return [(n, Outcome(o) if o else None, worker, started, held) for n, o, worker, started, held in rows]

    def usage(self, study: str) -> Usage:
        (trials,) = self._db.execute(
            "SELECT count(*) FROM trials t JOIN attempts a ON a.uid = t.uid AND a.told_at IS NOT NULL"
            " WHERE t.study = ? AND t.role = ? AND a.outcome != ?",
            (study, Role.TRIAL, Outcome.INFEASIBLE),
        ).fetchone()
        (wall_s,) = self._db.execute(
            "SELECT coalesce(sum(wall_s), 0) FROM sessions WHERE study = ?", (study,)
        ).fetchone()
        (device_s,) = self._db.execute(
            "SELECT coalesce(sum(a.reserved_time_s), 0) FROM attempts a JOIN trials t ON t.uid = a.uid"
            " WHERE t.study = ?",
            (study,),
        ).fetchone()
        return Usage(trials, wall_s, device_s)

    def num_pending(self, study: str) -> int:
        """How many trials have no final result yet."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM trials t LEFT JOIN attempts f ON f.uid = t.uid AND f.told_at IS NOT NULL"
            " WHERE t.study = ? AND f.uid IS NULL",
            (study,),
        ).fetchone()
        return int(count)

    def num_test_reads(self, study: str) -> int:
        """How many models of the study were shown the test images."""
        (reads,) = self._db.execute(
            "SELECT count(*) FROM attempts a JOIN trials t ON t.uid = a.uid"
            " WHERE t.study = ? AND a.test_wrong_images IS NOT NULL",
            (study,),
        ).fetchone()
        return int(reads)

    # Sessions: how long somebody has worked on a study

    def start_session(self, study: str) -> int:
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO sessions (study, started_at, wall_s) VALUES (?, ?, 0)", (study, time.time())
            )
        return int(cursor.lastrowid or 0)

    def touch_session(self, session: int, wall_s: float) -> None:
        with self._transaction():
            self._db.execute("UPDATE sessions SET wall_s = ? WHERE id = ?", (wall_s, session))

    def last_session(self, study: str) -> tuple[float, float] | None:
        """(started_at in seconds since 1970, wall_s) of the newest session; None if there was none."""
        row: tuple[float, float] | None = self._db.execute(
            "SELECT started_at, wall_s FROM sessions WHERE study = ? ORDER BY id DESC LIMIT 1", (study,)
        ).fetchone()
        return row

    # What MLflow shows; a cache that may be deleted, since runs are found by their trial_uid tag as well

    def tracked(self, uid: str) -> tuple[str, str] | None:
        """(run id, state shown) of a trial, or of a study's parent run."""
        row: tuple[str, str] | None = self._db.execute(
            "SELECT run_id, state FROM tracked WHERE uid = ?", (uid,)
        ).fetchone()
        return row

    def set_tracked(self, uid: str, run_id: str, state: str) -> None:
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO tracked VALUES (?, ?, ?)", (uid, run_id, state))

    def run_ids(self, study: str) -> dict[str, str]:
        """MLflow run ids by trial uid."""
        rows = self._db.execute(
            "SELECT k.uid, k.run_id FROM tracked k JOIN trials t ON t.uid = k.uid WHERE t.study = ?", (study,)
        )
        return dict(rows.fetchall())

    def untracked(self, study: str) -> list[str]:
        """uids of the trials whose final result MLflow does not show yet, in the order they ended."""
        rows = self._db.execute(
            "SELECT a.uid FROM attempts a JOIN trials t ON t.uid = a.uid LEFT JOIN tracked k ON k.uid = a.uid"
            " WHERE t.study = ? AND a.told_at IS NOT NULL AND k.state IS NOT a.outcome ORDER BY a.told_at",
            (study,),
        )
        return [row[0] for row in rows]

    def _final_curves(self, study: str) -> dict[str, list[str]]:
        rows = self._db.execute(
            "SELECT e.uid, e.report FROM epochs e"
            " JOIN attempts a ON a.uid = e.uid AND a.attempt = e.attempt AND a.told_at IS NOT NULL"
            " JOIN trials t ON t.uid = e.uid WHERE t.study = ? ORDER BY e.uid, e.epoch",
            (study,),
        )
        curves: dict[str, list[str]] = {}
        for uid, report in rows:
            curves.setdefault(uid, []).append(report)
        return curves

    def _study_of(self, uid: str) -> str:
        row = self._db.execute("SELECT study FROM trials WHERE uid = ?", (uid,)).fetchone()
        if row is None:
            raise KeyError(uid)
        return str(row[0])

    def _next_event(self, study: str) -> int:
        row = self._db.execute(
            "UPDATE studies SET num_events = num_events + 1 WHERE study = ? RETURNING num_events", (study,)
        ).fetchone()
        if row is None:
            raise KeyError(study)
        return int(row[0])

    def _transaction(self) -> AbstractContextManager[None]:
        return transaction(self._db, self.path)
