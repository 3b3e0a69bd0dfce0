"""A study's rows as they lie in the ledger's file, each read with suspicion."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

import baselines
from harness.records import EpochReport, Outcome, Params, Role, Scalar, Seconds, Trial, TrialResult, epoch_from_json
from harness.spec import SweepSpec

_T = TypeVar("_T")

_PARAMS = TypeAdapter(dict[str, Scalar])
_REPORT = TypeAdapter(EpochReport)
_RESULT = TypeAdapter(TrialResult)
_IMAGES = TypeAdapter(tuple[int, ...])
_PROVENANCE = TypeAdapter(dict[str, Any])


@dataclass(frozen=True)
class AttemptRow:
    """A row of `attempts`, with its rows of `epochs` by epoch; None where there is nothing, or nothing readable."""

    attempt: int
    started_at: float
    reserved_time_s: float
    outcome: Outcome | None
    told_at: int | None
    result: TrialResult | None
    wrong_images: tuple[int, ...] | None
    test_wrong_images: tuple[int, ...] | None
    reports: dict[int, EpochReport]


@dataclass(frozen=True)
class TrialRow:
    """A row of `trials`, with its attempts in order."""

    trial: Trial
    asked_at: int
    search_time_s: float
    attempts: list[AttemptRow]

    @property
    def finals(self) -> list[AttemptRow]:
        """The attempts that are marked as the final result; there should be one at most."""
        return [attempt for attempt in self.attempts if attempt.told_at is not None]


@dataclass
class StudyRows:
    """All rows of a study.

    Attributes:
        study: Its name.
        spec: Its settings; None if they cannot be read.
        num_events: How many places in the order of events were given away.
        trials: By number, the unreadable ones apart.
        sessions_s: Seconds of each session.
        unreadable: One line for each column that cannot be read.
    """

    study: str
    spec: SweepSpec | None = None
    num_events: int = 0
    trials: list[TrialRow] = field(default_factory=list)
    sessions_s: list[float] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def parse(self, place: str, column: str, read: Callable[[str], _T], text: str | None) -> _T | None:
        """What `read` makes of a column; None, and a line in `unreadable`, if it cannot."""
        if text is None:
            return None
        try:
            return read(text)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            self.unreadable.append(f"ledger: {place}, column {column}: {_why(error)}")
            return None


def open_read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)


def damage(db: sqlite3.Connection) -> Iterator[str]:
    """What SQLite itself finds wrong with the file, whichever study it belongs to."""
    for (problem,) in db.execute("PRAGMA integrity_check"):
        if problem != "ok":
            yield f"ledger: {problem}"
    for table, row, parent, _ in db.execute("PRAGMA foreign_key_check"):
        which = "a row" if row is None else f"row {row}"
        yield f"ledger: {which} of {table} belongs to a row of {parent} that is not there"


def read_study(db: sqlite3.Connection, study: str) -> StudyRows:
    """Raises sqlite3.Error where the file itself cannot be read."""
    rows = StudyRows(study)
    spec, provenance, rows.num_events = db.execute(
        "SELECT spec, provenance, num_events FROM studies WHERE study = ?", (study,)
    ).fetchone()
    rows.spec = rows.parse(f"studies, {study}", "spec", partial(_spec, study), spec)
    rows.parse(f"studies, {study}", "provenance", _PROVENANCE.validate_json, provenance)
    rows.sessions_s = [s for (s,) in db.execute("SELECT wall_s FROM sessions WHERE study = ? ORDER BY id", (study,))]
    columns = "uid, number, role, params, seed, epochs, continues, asked_at, search_time_s"
    for row in db.execute(f"SELECT {columns} FROM trials WHERE study = ? ORDER BY number", (study,)):  # noqa: S608
        _read_trial(db, rows, *row)
    return rows


def _read_trial(
    db: sqlite3.Connection,
    rows: StudyRows,
    uid: str,
    number: int,
    role_text: str,
    params_text: str,
    seed: int,
    epochs: int,
    continues: str | None,
    asked_at: int,
    search_time_s: float,
) -> None:
    place = f"trials, trial {number}"
    role = rows.parse(place, "role", Role, role_text)
    params = rows.parse(place, "params", partial(_params, rows.spec), params_text)
    attempts = list(_attempts(db, rows, uid, number))
    if role is not None and params is not None:
        trial = Trial(uid, number, params, seed, epochs, role, continues)
        rows.trials.append(TrialRow(trial, asked_at, search_time_s, attempts))


def _attempts(db: sqlite3.Connection, rows: StudyRows, uid: str, number: int) -> Iterator[AttemptRow]:
    found = db.execute(
        "SELECT attempt, started_at, reserved_time_s, outcome, told_at, result, wrong_images, test_wrong_images"
        " FROM attempts WHERE uid = ? ORDER BY attempt",
        (uid,),
    )
    for attempt, started_at, reserved_time_s, outcome, told_at, result, wrong, test_wrong in found.fetchall():
        which = f"trial {number} attempt {attempt}"
        place = f"attempts, {which}"
        yield AttemptRow(
            attempt,
            started_at,
            reserved_time_s,
            rows.parse(place, "outcome", Outcome, outcome),
            told_at,
            rows.parse(place, "result", _result, result),
            rows.parse(place, "wrong_images", _images, wrong),
            rows.parse(place, "test_wrong_images", _images, test_wrong),
            dict(_reports(db, rows, uid, attempt, which)),
        )


def _reports(
    db: sqlite3.Connection, rows: StudyRows, uid: str, attempt: int, which: str
) -> Iterator[tuple[int, EpochReport]]:
    found = db.execute("SELECT epoch, report FROM epochs WHERE uid = ? AND attempt = ? ORDER BY epoch", (uid, attempt))
    for epoch, text in found.fetchall():
        report = rows.parse(f"epochs, {which} epoch {epoch}", "report", partial(_report, epoch), text)
        if report is not None:
            yield epoch, report


# Pydantic checks the types; what follows it is how the ledger itself reads the column, and what cannot be true.


def _spec(study: str, text: str) -> SweepSpec:
    spec = SweepSpec.model_validate_json(text)
    spec.baseline_params  # noqa: B018 - raises where space and recipe make no sense
    if spec.study != study:
        raise ValueError(f"study is {spec.study!r}; must be {study!r}")
    return spec


def _params(spec: SweepSpec | None, text: str) -> Params:
    params = _PARAMS.validate_json(text, strict=True)
    if spec is not None:
        baselines.load(spec.baseline).cost(spec.config(params))  # raises where no network can be made of them
    return params


def _report(epoch: int, text: str) -> EpochReport:
    _REPORT.validate_json(text, strict=True)
    report = epoch_from_json(json.loads(text))
    if report.epoch != epoch:
        raise ValueError(f"epoch is {report.epoch}; must be {epoch}")
    _check_error_rate("val_error_rate_pct", report.val_error_rate_pct, report.val_images)
    _check_seconds(report.seconds)
    return report


def _result(text: str) -> TrialResult:
    _RESULT.validate_json(text, strict=True)
    result = TrialResult.from_json(json.loads(text))
    if result.final_error_rate_pct is not None:
        _check_error_rate("final_error_rate_pct", result.final_error_rate_pct, result.final_val_images)
    _check_seconds(result.seconds)
    return result


def _images(text: str) -> tuple[int, ...]:
    images = _IMAGES.validate_json(text, strict=True)
    if len(set(images)) < len(images) or min(images, default=0) < 0:
        raise ValueError("holds an image twice, or a negative one")
    return images


def _check_error_rate(name: str, error_rate_pct: float, num_images: int | None) -> None:
    if not 0 <= error_rate_pct <= 100:
        raise ValueError(f"{name} is {error_rate_pct}; must be 0 to 100")
    if num_images is None or num_images < 1:
        raise ValueError(f"{name} is of {num_images} images; must be of at least 1")


def _check_seconds(seconds: Seconds) -> None:
    if not all(math.isfinite(part) and part >= 0 for part in astuple(seconds)):
        raise ValueError(f"seconds are {seconds}; must be finite and not negative")


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg']}" if where else str(first["msg"])
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return (str(error).splitlines() or [type(error).__name__])[0]
