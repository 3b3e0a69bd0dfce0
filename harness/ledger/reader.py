"""What can be read of a ledger. Any process may read it, also while others write."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import DamageError, TroubleError
from harness.ledger import rows as ledger_rows
from harness.ledger.checksums import KEYS, changed
from harness.ledger.schema import STUDY_TABLES, Row, Say, ignore, open_database, patiently
from harness.study import network as networks
from harness.study.records import Attempt, EpochReport, Outcome, Record, Role, TrialResult
from harness.study.spec import NAMES, SweepSpec, is_name
from harness.support.redaction import reason
from harness.support.strict_json import shown

T = TypeVar("T")

REMOVE = "put a copy back, or take the study out with `harness doctor --remove STUDY`"


@dataclass(frozen=True)
class Study:
    """A study's settings and where they came from."""

    spec: SweepSpec
    provenance: dict[str, Any]
    created_at: float


@dataclass(frozen=True)
class Usage:
    """The used part of a study's budget.

    Attributes:
        trials: Trials with a final result, without those of the baseline and infeasible ones, which cost nothing.
        wall_s: Total duration of its sessions, seconds.
        device_s: Total time for which attempts held a device, seconds.
    """

    trials: int
    wall_s: float
    device_s: float


class Reader:
    """Reads one ledger file; a file of an older version is migrated. `Ledger` writes as well.

    Args:
        path: The file.
        makes: Create a missing file. If false, a missing file is read as an empty ledger and not created.
        checks: Run SQLite's integrity check, up to `MAX_CHECKED_BYTES`, and refuse a damaged file.
        say: Called with a message while another process holds the ledger.

    Raises:
        TroubleError: the file cannot be opened, is no ledger, is damaged, or was written by a newer version. Every
            method raises it if the file cannot be read or written.
        DamageError: every method raises it if rows differ from what the harness wrote.
    """

    def __init__(self, path: Path, *, makes: bool = True, checks: bool = True, say: Say = ignore) -> None:
        self.path = path
        self._say = say
        self._db = open_database(path, say, makes=makes, checks=checks)
        networks.look_in(path.parent)

    def close(self) -> None:
        self._db.close()

    # Studies

    def study_names(self) -> list[str]:
        """Names of the studies, oldest first. Invalid names are in `unreadable_studies` only."""
        return [name for name in self._raw_names() if is_name(name)]

    def study(self, name: str) -> Study:
        """Raises KeyError if there is no such study."""
        found = self._read(_study, ledger_rows.STUDY + "WHERE +s.study = ?", name) if is_name(name) else iter(())
        return self._only(found, name)

    def has_trials(self, study: str) -> bool:
        """Whether the study has trials; False if there is no such study."""
        return self._count("(SELECT uid FROM trials WHERE study = ? LIMIT 1)", study) > 0

    def studies(self) -> Iterator[Study]:
        """The readable studies, oldest first."""
        for name in self.study_names():
            with suppress(DamageError, KeyError):  # KeyError: another process has renamed or removed it
                yield self.study(name)

    def unreadable_studies(self) -> dict[str, str]:
        """The studies whose own row cannot be read: the reason by name."""
        found = {}
        for name in self._raw_names():
            try:
                if not is_name(name):
                    where = f"table studies, row {shown(name)}, column study is {shown(name)}"
                    raise DamageError(f"ledger {self.path}: {where}; allowed: {NAMES}; {REMOVE}")
                with suppress(KeyError):
                    self.study(name)
            except DamageError as error:
                found[name] = str(error)
        return found

    def check_study(self, name: str) -> None:
        """Reads all rows of a study.

        Raises:
            DamageError: a row differs from what the harness wrote.
        """
        self.study(name)
        self.history(name)
        self.usage(name)
        self.origins(name)

    def copy_to(self, path: Path) -> None:
        """Copies the ledger to another file page by page, which also works for a damaged one."""
        try:
            with closing(sqlite3.connect(path)) as copy:
                self._db.backup(copy)
        except sqlite3.Error as error:
            raise TroubleError(
                f"ledger {self.path} cannot be copied to {path}: {reason(error)}; is there room?"
            ) from error

    # All rows of studies, to move them to another ledger

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything that the block reads is of one moment, also while other processes write."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")

    def rows(self, studies: Collection[str], first_session: int = 1) -> Iterator[tuple[str, Row]]:
        """(table, row) for all rows of studies, each after the rows to which it refers.

        Sessions are renumbered from `first_session`, since their numbers are those of one ledger.
        """
        sessions: dict[object, int] = {}
        named = f"study IN ({', '.join('?' * len(studies))})"
        for table in STUDY_TABLES:
            of_trials = f"uid IN (SELECT uid FROM trials WHERE {named})"  # noqa: S608 - our own
            where = of_trials if table in ("attempts", "epochs") else named
            query = f"SELECT * FROM {table} WHERE {where} ORDER BY {', '.join(KEYS[table])}"  # noqa: S608 - our own
            for row in self._read(dict, query, *studies):
                if table == "sessions":
                    sessions[row["id"]] = first_session + len(sessions)
                    row = changed(table, row, id=sessions[row["id"]])
                elif table == "attempts" and row["session"] is not None:
                    row = changed(table, row, session=sessions.get(row["session"], 0))  # 0: there is none
                yield table, row

    # Trials

    def history(self, study: str) -> list[Record]:
        """All trials of a study in order of their numbers, including pending ones, without lists of wrong images."""
        stated = self._num_events(study)
        curves = self._final_curves(study)

        def record(row: sqlite3.Row) -> Record:
            nonlocal stated
            stated = row["num_events"]
            return self._record(row, curves.get(row["uid"], ()))

        found = list(self._read(record, ledger_rows.TRIAL + "WHERE t.study = ? ORDER BY t.number", study))
        self._check(ledger_rows.check_events, study, stated, len(found) + sum(one.told_at is not None for one in found))
        return found

    def finished(self, study: str) -> Iterator[Record]:
        """All trials with a final result in order of their numbers, read one at a time to limit memory.

        A curve has its last epoch only. Wrong images are those of the test split only.
        """

        stated, num_trials, num_ended = self._num_events(study), 0, 0

        def record(row: sqlite3.Row) -> Record:
            nonlocal stated, num_trials
            stated, num_trials = row["num_events"], row["num_trials"]
            last = [] if row["report"] is None else [ledger_rows.epoch_report(row)]
            return self._record(row, last, ["test_wrong_images"], row["num_reports"])

        ended = ledger_rows.TRIAL_AND_LAST_EPOCH + "WHERE t.study = ?1 AND f.uid IS NOT NULL ORDER BY t.number"
        for one in self._read(record, ended, study):
            num_ended += 1
            yield one
        if not num_ended:  # then no row has the count; trials may have been proposed since
            num_trials = min(stated, self._count("trials WHERE study = ?", study))
        self._check(ledger_rows.check_events, study, stated, num_trials + num_ended)

    def newest(self, study: str, count: int) -> list[Record]:
        """The last `count` trials that ended, in the order of their end, without lists of wrong images."""

        def record(row: sqlite3.Row) -> Record:
            return self._record(row, self._curve(row["uid"], row["attempt"]))

        ended = ledger_rows.TRIAL + "WHERE t.study = ? AND f.uid IS NOT NULL ORDER BY f.told_at DESC LIMIT ?"
        return list(self._read(record, ended, study, count))[::-1]

    def record(self, uid: str) -> Record:
        """One trial, with its misclassified images.

        Raises:
            KeyError: there is no such trial.
        """

        def record(row: sqlite3.Row) -> Record:
            return self._record(row, self._curve(uid, row["attempt"]), ["wrong_images", "test_wrong_images"])

        return self._only(self._read(record, ledger_rows.TRIAL + "WHERE t.uid = ?", uid), uid)

    def result(self, uid: str) -> TrialResult | None:
        """The result of one trial, with its misclassified images; None while it is pending."""
        return self.record(uid).result

    def trainings(self, training: str, *, has_test: bool) -> list[str]:
        """uids of the trials that were trained to the end as `TrialResult.training` says, the oldest first.

        With `has_test` only those whose test images were read. Trials that took over a result are not among them.
        """
        return list(self._read(ledger_rows.uid, ledger_rows.TRAINED, training, Outcome.COMPLETED, has_test))

    def whereabouts(self, uid: str) -> tuple[str, int]:
        """A trial's study and its number there. Raises KeyError if there is no such trial."""
        query = "SELECT study, number FROM trials WHERE uid = ?"
        return self._only(self._read(lambda row: (str(row["study"]), int(row["number"])), query, uid), uid)

    def with_settings(self, uid: str) -> tuple[SweepSpec, Record]:
        """A trial with its study's settings. Raises KeyError if there is no such trial."""
        return self.study(self.whereabouts(uid)[0]).spec, self.record(uid)

    def attempts(self, uid: str) -> list[Attempt]:
        """The attempts of a trial, in order."""
        return list(self._read(ledger_rows.attempt, ledger_rows.ATTEMPT + "WHERE a.uid = ? ORDER BY a.attempt", uid))

    def open_attempts(self, study: str) -> dict[str, Attempt]:
        """The last attempt of each trial that was started and has no final result, by uid, in order of number."""
        return dict(self._read(_with_uid, ledger_rows.OPEN_ATTEMPT, study))

    def curves(self, uid: str) -> dict[int, list[EpochReport]]:
        """The epochs of each attempt at a trial, by the attempt's number; attempts without an epoch are left out."""
        query = ledger_rows.EPOCH + "WHERE e.uid = ? ORDER BY e.attempt, e.epoch"
        found: dict[int, list[EpochReport]] = {}
        for attempt, report in self._read(lambda row: (row["attempt"], ledger_rows.epoch_report(row)), query, uid):
            found.setdefault(attempt, []).append(report)
        return found

    def last_epoch(self, uid: str, attempt: int) -> EpochReport | None:
        """The last finished epoch of an attempt; None if there is none yet."""
        return next(self._curve(uid, attempt, "ORDER BY e.epoch DESC LIMIT 1"), None)

    def origin(self, uid: str) -> dict[str, Any]:
        """Code, versions and machine of the last attempt at a trial, as far as recorded."""
        query = ledger_rows.ORIGIN + "WHERE a.uid = ? ORDER BY a.attempt DESC LIMIT 1"
        return self._only(self._read(ledger_rows.provenance, query, uid), uid)

    def origins(self, study: str) -> dict[str, dict[str, Any]]:
        """The same for every trial of a study that has a final result, by uid."""
        ended = self._read(
            lambda row: (row["uid"], row["session"]),
            "SELECT a.uid, a.session FROM attempts a JOIN trials t ON t.uid = a.uid"
            " WHERE t.study = ? AND a.told_at IS NOT NULL",
            study,
        )
        sessions = dict(ended)
        # Read once per session instead of once per trial: a diff may be long.
        one_of_each = {session: uid for uid, session in sessions.items()}
        found = {session: self.origin(uid) for session, uid in one_of_each.items()}
        return {uid: found[session] for uid, session in sessions.items()}

    def diffs(self, study: str) -> Iterator[str]:
        """The uncommitted changes of its sessions, one at a time, since each may be long."""
        sessions = ledger_rows.SESSION + "WHERE x.study = ? AND x.provenance IS NOT NULL ORDER BY x.id"
        found = (origin.get("git_diff") for origin in self._read(ledger_rows.session_provenance, sessions, study))
        return (str(diff) for diff in found if diff)

    def usage(self, study: str) -> Usage:
        trials = self._count(
            "trials t JOIN attempts a ON a.uid = t.uid AND a.told_at IS NOT NULL"
            " WHERE t.study = ? AND t.role != ? AND a.outcome != ?",
            study,
            Role.BASELINE,
            Outcome.INFEASIBLE,
        )
        sessions = self._read(ledger_rows.session, ledger_rows.SESSION + "WHERE x.study = ?", study)
        of_study = "JOIN trials t ON t.uid = a.uid WHERE t.study = ?"
        held = self._read(ledger_rows.held_s, ledger_rows.ATTEMPT + of_study, study)
        return Usage(trials, math.fsum(wall_s for _, wall_s in sessions), math.fsum(held))

    def num_pending(self, study: str) -> int:
        """Number of trials without a final result."""
        return self._count(
            "trials t LEFT JOIN attempts f ON f.uid = t.uid AND f.told_at IS NOT NULL"
            " WHERE t.study = ? AND f.uid IS NULL",
            study,
        )

    def num_test_reads(self, study: str) -> int:
        """Number of models of the study that were evaluated on the test images."""
        return self._count(
            "attempts a JOIN trials t ON t.uid = a.uid WHERE t.study = ? AND a.test_wrong_images IS NOT NULL", study
        )

    # Sessions

    def last_session(self, study: str) -> tuple[float, float] | None:
        """(started_at in seconds since 1970, wall_s) of the newest session; None if there was none."""
        newest = ledger_rows.SESSION + "WHERE x.study = ? ORDER BY x.id DESC LIMIT 1"
        return next(self._read(ledger_rows.session, newest, study), None)

    def num_workers(self, study: str) -> int:
        """Number of workers that ran trials in the newest session."""
        return self._count(
            "(SELECT DISTINCT worker FROM attempts WHERE worker != 'none'"
            " AND session = (SELECT max(id) FROM sessions WHERE study = ?))",
            study,
        )

    # State of the MLflow runs

    def tracked(self, uid: str) -> tuple[str, str] | None:
        """(run id, logged state) of a trial, or of a study's parent run."""
        return next(self._read(_pair, "SELECT run_id, state FROM tracked WHERE uid = ?", uid), None)

    def run_ids(self, study: str) -> dict[str, str]:
        """MLflow run ids by trial uid."""
        shown = "SELECT k.uid, k.run_id FROM tracked k JOIN trials t ON t.uid = k.uid WHERE t.study = ?"
        return dict(self._read(_pair, shown, study))

    def untracked(self, study: str) -> list[str]:
        """uids of the trials whose final result is not in MLflow yet, in the order of their end."""
        return list(
            self._read(
                ledger_rows.uid,
                "SELECT a.uid FROM attempts a JOIN trials t ON t.uid = a.uid LEFT JOIN tracked k ON k.uid = a.uid"
                " WHERE t.study = ? AND a.told_at IS NOT NULL AND k.state IS NOT a.outcome ORDER BY a.told_at",
                study,
            )
        )

    def _record(
        self,
        row: sqlite3.Row,
        curve: Iterable[EpochReport],
        images: Collection[str] = (),
        num_reports: int | None = None,
    ) -> Record:
        """The record of a row of `ledger_rows.TRIAL`, its curve and the trials that it continues."""
        continues = row["continues"]
        before = [] if continues is None else self._read(ledger_rows.final_result, ledger_rows.CHAIN, continues)
        return ledger_rows.trial_record(row, curve, before, images, num_reports)

    def _num_events(self, study: str) -> int:
        """The study's count of events, read before its trials: their rows must have at least as many."""
        return next(self._read(ledger_rows.num_events, "SELECT * FROM studies WHERE +study = ?", study), 0)

    def _final_curves(self, study: str) -> dict[str, list[EpochReport]]:
        rows = self._read(
            lambda row: (row["uid"], ledger_rows.epoch_report(row)),
            ledger_rows.EPOCH + "JOIN attempts a ON a.uid = e.uid AND a.attempt = e.attempt AND a.told_at IS NOT NULL"
            " JOIN trials t ON t.uid = e.uid WHERE t.study = ? ORDER BY e.uid, e.epoch",
            study,
        )
        curves: dict[str, list[EpochReport]] = {}
        for uid, report in rows:
            curves.setdefault(uid, []).append(report)
        return curves

    def _curve(self, uid: str, attempt: int | None, order: str = "ORDER BY e.epoch") -> Iterator[EpochReport]:
        where = "WHERE e.uid = ? AND e.attempt = ? "
        return self._read(ledger_rows.epoch_report, ledger_rows.EPOCH + where + order, uid, attempt)

    def _read(self, reader: Callable[[sqlite3.Row], T], query: str, *values: object) -> Iterator[T]:
        """Yields the result of `reader` for each row."""
        try:
            for row in patiently(lambda: self._db.execute(query, values), self.path, self._say):
                yield self._check(reader, row)
        except sqlite3.OperationalError as error:
            if hasattr(error, "sqlite_errorcode"):  # a failing disk, a lock held for too long
                hint = "mend that and run the same command again"
                raise TroubleError(f"ledger {self.path}: {reason(error)}; {hint}") from error
            raise DamageError(f"ledger {self.path}: {reason(error)}; {REMOVE}") from error  # bytes that are no text
        except (sqlite3.DatabaseError, UnicodeError) as error:
            raise DamageError(f"ledger {self.path}: {reason(error)}; put a copy back, or move the file away") from error

    def _check(self, reader: Callable[..., T], *values: Any) -> T:
        """The result of `reader`; raises DamageError if the rows differ from what the harness wrote."""
        try:
            return reader(*values)
        except ledger_rows.CellError as error:
            raise DamageError(f"ledger {self.path}: {error}; {REMOVE}") from error

    def _raw_names(self) -> dict[str, bytes]:
        """The stored names of the studies by their printable form; stored bytes may not be text."""
        rows = self._read(tuple, "SELECT CAST(study AS BLOB) FROM studies ORDER BY created_at, study")
        return {raw.decode(errors="backslashreplace"): raw for (raw,) in rows}

    def _count(self, rows: str, *values: object) -> int:
        return next(self._read(lambda row: int(row[0]), f"SELECT count(*) FROM {rows}", *values))  # noqa: S608 - our own

    def _only(self, found: Iterator[T], key: str) -> T:
        for one in found:
            return one
        raise KeyError(key)


def _study(row: sqlite3.Row) -> Study:
    return Study(*ledger_rows.study(row))


def _with_uid(row: sqlite3.Row) -> tuple[str, Attempt]:
    return str(row["uid"]), ledger_rows.attempt(row)


def _pair(row: sqlite3.Row) -> tuple[str, str]:
    first, second = row
    return str(first), str(second)
