"""A study's rows in the ledger's file: the readable cells, and a line for each unreadable one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from harness.ledger import checksums
from harness.ledger import rows as cells
from harness.ledger.rows import CellError, Cells, optional
from harness.study.records import EpochReport, Outcome, Role, Trial, TrialResult
from harness.study.spec import SweepSpec
from harness.support.strict_json import parse_json

Reader = Callable[[Any], Any]


@dataclass(frozen=True)
class AttemptRow:
    """A row of `attempts`, with its rows of `epochs` by epoch."""

    attempt: int
    worker: str
    started_at: float
    reserved_time_s: float
    outcome: Outcome | None
    told_at: int | None
    result: TrialResult | None
    wrong_images: tuple[int, ...] | None
    test_wrong_images: tuple[int, ...] | None
    session: int | None
    num_epochs: int
    reports: dict[int, EpochReport]


@dataclass(frozen=True)
class TrialRow:
    """A row of `trials`, with its attempts in order."""

    trial: Trial
    asked_at: int
    attempts: list[AttemptRow]

    @property
    def finals(self) -> list[AttemptRow]:
        """The attempts that are marked as the final result; there should be at most one."""
        return [attempt for attempt in self.attempts if attempt.told_at is not None]


@dataclass
class StudyRows:
    """All rows of a study.

    Attributes:
        study: Its name.
        spec: Its settings; None if they cannot be read.
        num_events: Number of events that the study has counted.
        trials: Trials with readable cells only, by number.
        sessions_s: Seconds of each session, by id.
        unreadable: One line for each cell with an invalid value.
    """

    study: str
    spec: SweepSpec | None = None
    num_events: int = 0
    trials: list[TrialRow] = field(default_factory=list)
    sessions_s: dict[int, float] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def find(self, uid: str) -> TrialRow | None:
        return next((row for row in self.trials if row.trial.uid == uid), None)

    def read(self, table: str, key: str, row: sqlite3.Row, **readers: Reader) -> dict[str, Any]:
        """The readable cells, by column; the others are added to `unreadable`."""
        found = {}
        for column, reader in readers.items():
            try:
                found[column] = Cells(table, key, row).read(column, reader)
            except CellError as error:
                self.unreadable.append(f"ledger: {error}")
        try:
            Cells(table, key, row).check("epoch_is_intact" if table == "epochs" else "is_intact")
        except CellError as error:
            self.unreadable.append(f"ledger: {error}")
        return found


def open_read_only(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
    db.row_factory = sqlite3.Row
    checksums.add_function(db)
    return db


def damage(db: sqlite3.Connection) -> Iterator[str]:
    """Errors of SQLite's integrity check, for all studies."""
    for (problem,) in db.execute("PRAGMA integrity_check"):
        if problem != "ok":
            yield str(problem)
    for table, row, parent, _ in db.execute("PRAGMA foreign_key_check"):
        which = "a row" if row is None else f"row {row}"
        yield f"{which} of table {table} belongs to a row of {parent} that is not there"


def unreadable(db: sqlite3.Connection) -> Iterator[str]:
    """Unreadable settings, and rows with a wrong checksum, for all studies."""
    for row in db.execute(cells.STUDY):
        try:
            Cells("studies", row["study"], row).read("study", cells.name)
            cells.study(row)
        except CellError as error:
            yield str(error)
    for table in checksums.CELLS:
        for key in checksums.broken_rows(db, table):
            yield cells.broken(table, "/".join(key))


def read_study(db: sqlite3.Connection, study: str) -> StudyRows:
    """Reads all rows of a study. Raises sqlite3.Error if the file cannot be read."""
    rows = StudyRows(study)
    for row in db.execute(cells.STUDY + "WHERE s.study = ?", (study,)):
        found = rows.read(
            "studies",
            study,
            row,
            spec=partial(_spec, study),
            provenance=cells.json_object,
            created_at=cells.moment,
            num_events=cells.whole,
        )
        rows.spec, rows.num_events = found.get("spec"), found.get("num_events", 0)
    for row in db.execute(cells.SESSION + "WHERE x.study = ? ORDER BY x.id", (study,)):
        rows.sessions_s[row["id"]] = rows.read(
            "sessions",
            str(row["id"]),
            row,
            started_at=cells.moment,
            wall_s=cells.number,
            provenance=optional(cells.json_object),
        ).get("wall_s", 0.0)
    for row in db.execute(cells.TRIAL_ROW + "WHERE t.study = ? ORDER BY t.number", (study,)):
        _read_trial(db, rows, row)
    return rows


def _read_trial(db: sqlite3.Connection, rows: StudyRows, row: sqlite3.Row) -> None:
    num_unreadable = len(rows.unreadable)
    found = rows.read(
        "trials",
        row["uid"],
        row,
        uid=cells.name,
        number=cells.whole,
        role=cells.one_of(*Role),
        params=partial(cells.params, rows.spec.search_space) if rows.spec else cells.json_object,
        seed=cells.whole,
        epochs=cells.positive,
        continues=optional(cells.name),
        asked_at=cells.whole,
        asks=cells.whole,
        search_time_s=cells.number,
    )
    attempts = list(_attempts(db, rows, row["uid"]))
    if len(rows.unreadable) == num_unreadable:
        trial = Trial(**{column.name: found[column.name] for column in fields(Trial)})
        rows.trials.append(TrialRow(trial, found["asked_at"], attempts))


def _attempts(db: sqlite3.Connection, rows: StudyRows, uid: str) -> Iterator[AttemptRow]:
    """The attempts with readable cells only."""
    for row in db.execute(cells.ATTEMPT + "WHERE a.uid = ? ORDER BY a.attempt", (uid,)).fetchall():
        num_unreadable = len(rows.unreadable)
        found = rows.read(
            "attempts",
            f"{uid}/{row['attempt']}",
            row,
            attempt=cells.positive,
            worker=cells.text,
            started_at=cells.moment,
            reserved_time_s=cells.number,
            outcome=optional(cells.one_of(*Outcome)),
            told_at=optional(cells.whole),
            result=partial(_result, row["outcome"]),
            wrong_images=optional(cells.positions),
            test_wrong_images=optional(cells.positions),
            session=optional(cells.whole),
            num_epochs=cells.whole,
        )
        reports = _reports(db, rows, uid, row["attempt"])
        if len(rows.unreadable) == num_unreadable:
            yield AttemptRow(**found, reports=reports)


def _reports(db: sqlite3.Connection, rows: StudyRows, uid: str, attempt: int) -> dict[int, EpochReport]:
    query = cells.EPOCH + "WHERE e.uid = ? AND e.attempt = ? ORDER BY e.epoch"
    reports: dict[int, EpochReport] = {}
    for row in db.execute(query, (uid, attempt)).fetchall():
        key = f"{uid}/{attempt}/{row['epoch']}"
        found = rows.read("epochs", key, row, report=partial(_report, row["epoch"]))
        if "report" in found:
            reports[row["epoch"]] = found["report"]
    return reports


def _spec(study: str, text: str) -> SweepSpec:
    spec = cells.spec(text)
    if spec.study != study:
        raise ValueError(f"allowed: the settings of {study}")
    try:
        spec.baseline_params  # noqa: B018 - raises where space and recipe do not go together
    except KeyError as error:
        raise ValueError(f"allowed: hyperparameters of the network or the recipe, which {error} is not") from error
    return spec


def _result(outcome: str | None, text: str | None) -> TrialResult | None:
    if text is None and outcome is None:
        return None
    result = parse_json(TrialResult, text or "")
    if result.outcome != outcome:
        raise ValueError(f"allowed: a result whose outcome is {outcome}, as the column of that name has it")
    return result


def _report(epoch: int, text: str) -> EpochReport:
    report = parse_json(EpochReport, text)
    if report.epoch != epoch:
        raise ValueError(f"allowed: a report of epoch {epoch}")
    return report
