"""Converts rows of the ledger to records and back. Each cell is checked; invalid values are refused."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeVar

from harness.errors import InputError
from harness.ledger.checksums import is_intact
from harness.study.records import Attempt, EpochReport, Outcome, Record, Role, Scalar, Trial, TrialResult
from harness.study.space import Domain, Float, SearchSpace
from harness.study.spec import NAMES, SweepSpec, is_name
from harness.support.strict_json import parse_json, shown, shown_key

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

_TRIAL = (
    "SELECT s.study, s.spec, s.num_events, t.uid, t.number, t.role, t.params, t.seed, t.epochs, t.continues,"
    " t.asked_at, t.asks, t.search_time_s, f.attempt, f.told_at, f.outcome, f.result, f.wrong_images,"
    f" f.test_wrong_images, f.num_epochs, {is_intact('trials', 't')} AS is_intact,"
    f" (SELECT min(a.attempt) FROM attempts a WHERE a.uid = t.uid AND NOT {is_intact('attempts', 'a')}) AS broken,"
    " (SELECT count(*) FROM attempts a WHERE a.uid = t.uid) AS attempts,"
    " (SELECT coalesce(sum(a.reserved_time_s), 0) FROM attempts a WHERE a.uid = t.uid) AS reserved_time_s,"
    " (SELECT a.started_at FROM attempts a WHERE a.uid = t.uid ORDER BY a.attempt LIMIT 1) AS started_at,"
    " (SELECT a.started_at + a.reserved_time_s FROM attempts a WHERE a.uid = t.uid ORDER BY a.attempt DESC LIMIT 1)"
    " AS ended_at"
)
_FROM = (
    " FROM trials t JOIN studies s ON s.study = t.study"
    " LEFT JOIN attempts f ON f.uid = t.uid AND f.told_at IS NOT NULL "
)
TRIAL = _TRIAL + _FROM
_LAST_EPOCH = (
    "LEFT JOIN epochs e ON e.uid = f.uid AND e.attempt = f.attempt"
    " AND e.epoch = (SELECT max(x.epoch) FROM epochs x WHERE x.uid = f.uid AND x.attempt = f.attempt) "
)
# With the number of the attempt's epochs, and of the trials of the study, the query's first parameter.
TRIAL_AND_LAST_EPOCH = (
    _TRIAL + ", (SELECT count(*) FROM epochs x WHERE x.uid = f.uid AND x.attempt = f.attempt) AS num_reports,"
    " (SELECT count(*) FROM trials x WHERE x.study = ?1) AS num_trials,"
    f" e.epoch, e.report, {is_intact('epochs', 'e')} AS epoch_is_intact" + _FROM + _LAST_EPOCH
)
# The final attempts of a trial and of all trials that it continues, the first one first.
CHAIN = (
    "WITH RECURSIVE chain(uid) AS (VALUES (?) UNION SELECT t.continues FROM trials t JOIN chain USING (uid))"
    f" SELECT f.uid, f.attempt, f.told_at, f.outcome, f.result, {is_intact('attempts', 'f')} AS is_intact FROM chain"
    " JOIN attempts f ON f.uid = chain.uid AND f.told_at IS NOT NULL ORDER BY f.told_at"
)
ORIGIN = (
    "SELECT a.uid, a.attempt, coalesce(x.provenance, s.provenance) AS provenance,"
    f" (a.session IS NULL OR coalesce({is_intact('sessions', 'x')}, FALSE))"
    f" AND (x.provenance IS NOT NULL OR {is_intact('studies', 's')}) AS is_intact"
    " FROM attempts a JOIN trials t ON t.uid = a.uid JOIN studies s ON s.study = t.study"
    " LEFT JOIN sessions x ON x.id = a.session "
)
EPOCH = f"SELECT e.uid, e.attempt, e.epoch, e.report, {is_intact('epochs', 'e')} AS epoch_is_intact FROM epochs e "
STUDY = f"SELECT s.*, {is_intact('studies', 's')} AS is_intact FROM studies s "
TRIAL_ROW = f"SELECT t.*, {is_intact('trials', 't')} AS is_intact FROM trials t "
SESSION = f"SELECT x.*, {is_intact('sessions', 'x')} AS is_intact FROM sessions x "
ATTEMPT = f"SELECT a.*, {is_intact('attempts', 'a')} AS is_intact FROM attempts a "
# The last attempts of the trials of a study that have no final result.
OPEN_ATTEMPT = (
    ATTEMPT + "JOIN trials t ON t.uid = a.uid WHERE t.study = ?"
    " AND NOT EXISTS (SELECT 1 FROM attempts f WHERE f.uid = a.uid AND f.told_at IS NOT NULL)"
    " AND a.attempt = (SELECT max(x.attempt) FROM attempts x WHERE x.uid = a.uid) ORDER BY t.number"
)
# Trials by `TrialResult.training`, through an index of its own.
TRAINED = (
    "SELECT a.uid FROM attempts a WHERE a.told_at IS NOT NULL AND json_valid(a.result)"
    " AND json_extract(a.result, '$.training') = ?1 AND json_extract(a.result, '$.reused_from') IS NULL"
    " AND a.outcome = ?2 AND (NOT ?3 OR a.test_wrong_images IS NOT NULL) ORDER BY a.rowid"
)

_YEAR_10000 = 253_402_300_800  # seconds since 1970; datetime has no later dates


class CellError(ValueError):
    """A cell has an invalid value; the message has the cell, its value and the allowed values."""


@dataclass(frozen=True)
class Cells:
    """A row whose cells are checked as they are read."""

    table: str
    key: str  # of the row
    row: sqlite3.Row

    def read(self, column: str, reader: Callable[[Any], T]) -> T:
        """The result of `reader` for a cell. Its ValueError has the allowed values."""
        value = self.row[column]
        try:
            return reader(value)
        except ValueError as error:
            where = f"table {self.table}, row {shown(self.key)}, column {column}"
            raise CellError(f"{where} is {shown(value)}; {error}") from error

    def check(self, column: str = "is_intact") -> None:
        """Checks the checksum. Read the cells first: their errors are more specific."""
        if not self.row[column]:
            raise CellError(broken(self.table, self.key))


def broken(table: str, key: str, of: str = "") -> str:
    return f"table {table}, row {shown(key)}{of}, is not as it was written: its checksum differs"


def study(row: sqlite3.Row) -> tuple[SweepSpec, dict[str, Any], float]:
    """(settings, provenance, created_at) from a row of `STUDY`."""
    cells = Cells("studies", row["study"], row)
    settings = cells.read("spec", spec)
    cells.read("study", lambda value: _same_name(value, settings.study))
    known = settings, cells.read("provenance", json_object), cells.read("created_at", moment)
    cells.check()
    return known


def _same_name(value: object, name: str) -> None:
    if value != name:
        raise ValueError(f"allowed: {name!r}, as in its settings")


def trial_record(
    row: sqlite3.Row,
    reports: Iterable[EpochReport],
    before: Iterable[TrialResult],
    images: Collection[str],
    num_reports: int | None,
) -> Record:
    """The record of a row of `TRIAL`, the epochs of its final attempt and the results of the trials it continues.

    `images` names the columns of misclassified images to read. `num_reports` is the number of epochs if `reports` does
    not have all of them.
    """
    cells = Cells("trials", row["uid"], row)
    space = Cells("studies", row["study"], row).read("spec", _space)
    trial = Trial(
        cells.read("uid", name),
        cells.read("number", whole),
        cells.read("params", lambda value: params(space, value)),
        cells.read("seed", whole),
        cells.read("epochs", positive),
        cells.read("role", one_of(*Role)),
        cells.read("continues", optional(name)),
    )
    curve, attempts = tuple(reports), Cells("attempts", f"{trial.uid}/1 and so on", row)
    record = Record(
        trial,
        _result(row, curve, images),
        asked_at=cells.read("asked_at", whole),
        told_at=cells.read("told_at", optional(whole)),
        asks=cells.read("asks", whole),
        attempts=row["attempts"],
        started_at_s=attempts.read("started_at", optional(moment)),
        ended_at_s=row["ended_at"],
        reserved_time_s=attempts.read("reserved_time_s", number),
        search_time_s=cells.read("search_time_s", number),
        before=tuple(before),
    )
    _check_rows(row, len(curve) if num_reports is None else num_reports)
    return record


def _check_rows(row: sqlite3.Row, num_reports: int) -> None:
    """Checks that a row of `TRIAL` and its attempts and epochs are unchanged and complete."""
    of = f" (trial {row['number']} of {row['study']})"
    if not row["is_intact"]:
        raise CellError(broken("trials", row["uid"], of))
    if row["broken"] is not None:
        raise CellError(broken("attempts", f"{row['uid']}/{row['broken']}", of))
    if row["told_at"] is not None and num_reports != row["num_epochs"]:
        where = f"table epochs, rows of {shown(row['uid'])}{of}"
        raise CellError(f"{where}: {num_reports} are there, and {row['num_epochs']} were written")


def check_events(study: str, stated: int, found: int) -> None:
    """Checks a study's count of events: one for each proposal and one for each final result.

    Raises:
        CellError: the count differs.
    """
    if stated != found:
        where = f"table studies, row {shown(study)}, column num_events is {stated}"
        raise CellError(f"{where}; its trials make {found}: rows are missing, or too many")


def final_result(row: sqlite3.Row) -> TrialResult:
    """The result, without curve and images, from a row of `CHAIN`."""
    cells = Cells("attempts", f"{row['uid']}/{row['attempt']}", row)
    result = _stored_result(cells)
    cells.check()
    return result


def _stored_result(cells: Cells) -> TrialResult:
    result = cells.read("result", lambda text: parse_json(TrialResult, text))
    cells.read("outcome", one_of(result.outcome))
    return result


def epoch_report(row: sqlite3.Row) -> EpochReport:
    """An epoch from a row of `EPOCH`."""
    cells = Cells("epochs", f"{row['uid']}/{row['attempt']}/{row['epoch']}", row)
    report = cells.read("report", lambda text: parse_json(EpochReport, text))
    cells.check("epoch_is_intact")
    return report


def attempt(row: sqlite3.Row) -> Attempt:
    """From a row of `ATTEMPT`."""
    cells = Cells("attempts", f"{row['uid']}/{row['attempt']}", row)
    known = Attempt(
        number=cells.read("attempt", positive),
        outcome=cells.read("outcome", optional(one_of(*Outcome))),
        worker=cells.read("worker", text),
        started_at_s=cells.read("started_at", moment),
        held_s=cells.read("reserved_time_s", number),
    )
    cells.check()
    return known


def provenance(row: sqlite3.Row) -> dict[str, Any]:
    """Of an attempt, from a row of `ORIGIN`."""
    cells = Cells("sessions", f"of attempt {row['uid']}/{row['attempt']}", row)
    found = cells.read("provenance", _origin)
    cells.check()
    return found


def session_provenance(row: sqlite3.Row) -> dict[str, Any]:
    """From a row of `SESSION` that has one."""
    cells = Cells("sessions", str(row["id"]), row)
    found = cells.read("provenance", json_object)
    cells.check()
    return found


def num_events(row: sqlite3.Row) -> int:
    """From a row of `studies`."""
    return Cells("studies", row["study"], row).read("num_events", whole)


def session(row: sqlite3.Row) -> tuple[float, float]:
    """(started_at, wall_s) from a row of `SESSION`."""
    cells = Cells("sessions", str(row["id"]), row)
    known = cells.read("started_at", moment), cells.read("wall_s", number)
    cells.check()
    return known


def held_s(row: sqlite3.Row) -> float:
    """From a row of `ATTEMPT`."""
    cells = Cells("attempts", f"{row['uid']}/{row['attempt']}", row)
    seconds = cells.read("reserved_time_s", number)
    cells.check()
    return seconds


def uid(row: sqlite3.Row) -> str:
    """From a row of `trials`."""
    return Cells("trials", row["uid"], row).read("uid", name)


def spec_to_json(settings: SweepSpec) -> str:
    """JSON that `spec` reads as the same settings.

    Raises:
        InputError: `spec` would refuse them.
    """
    written = settings.model_dump_json()
    try:
        is_same = spec(written).model_dump_json() == written
    except ValueError as error:
        raise InputError(f"study {settings.study}: {error}; nothing was written") from None
    if not is_same:
        raise InputError(f"study {settings.study}: its settings are not read as they are written; nothing was written")
    return written


def result_to_json(result: TrialResult) -> str:
    """JSON of a result, without the parts that have their own columns."""
    data = dataclasses.asdict(dataclasses.replace(result, curve=(), wrong_images=None, test_wrong_images=None))
    return json.dumps(data, allow_nan=False)


def images_to_json(images: Sequence[int] | None) -> str | None:
    return None if images is None else json.dumps(images)


# Readers of cells: each raises ValueError with the allowed values.


def optional(reader: Callable[[Any], T]) -> Callable[[Any], T | None]:
    return lambda value: None if value is None else reader(value)


def one_of(*allowed: E) -> Callable[[Any], E]:
    def read(value: Any) -> E:
        found = {str(one): one for one in allowed}.get(value)
        if found is None:
            raise ValueError(f"allowed: {', '.join(allowed)}")
        return found

    return read


def name(value: Any) -> str:
    if not isinstance(value, str) or not is_name(value):
        raise ValueError(f"allowed: {NAMES}")
    return value


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("allowed: text")
    return value


def whole(value: Any, low: int = 0) -> int:
    if not isinstance(value, int) or value < low:
        raise ValueError(f"allowed: a whole number, at least {low}")
    return value


def positive(value: Any) -> int:
    return whole(value, 1)


def number(value: Any, below: float = float("inf")) -> float:
    if not isinstance(value, int | float) or not 0 <= value < below:
        raise ValueError("allowed: a finite number, at least 0")
    return value


def moment(value: Any) -> float:
    """Seconds since 1970."""
    return number(value, _YEAR_10000)


def json_object(value: Any) -> dict[str, Any]:
    return parse_json(dict[str, Any], value)


def spec(value: Any) -> SweepSpec:
    return parse_json(SweepSpec, value)


@lru_cache(maxsize=16)
def _origin(value: Any) -> dict[str, Any]:
    return json_object(value)


@lru_cache(maxsize=16)
def _space(value: str) -> SearchSpace:
    return spec(value).search_space


def params(space: SearchSpace, text: str) -> dict[str, Scalar]:
    values = json_object(text)
    for key, value in values.items():
        if key not in space.domains:
            raise ValueError(f"{shown_key(key)} is unknown; allowed: {', '.join(space) or 'none'}")
        if not _fits(space.domains[key], value):
            raise ValueError(f"{key} is {shown(value)}; allowed: {space.domains[key]}")
    return values


def _fits(domain: Domain, value: Any) -> bool:
    if not isinstance(domain, Float) or not isinstance(value, int | float):
        return value in domain
    # Engines work with logarithms and steps, and their bounds are off by a few last digits.
    slack = 1e-9 * max(abs(domain.low), abs(domain.high))
    return domain.low - slack <= value <= domain.high + slack


def _result(row: sqlite3.Row, curve: tuple[EpochReport, ...], images: Collection[str]) -> TrialResult | None:
    if row["told_at"] is None:
        return None
    cells = Cells("attempts", f"{row['uid']}/{row['attempt']}", row)
    known: dict[str, Any] = {column: cells.read(column, optional(positions)) for column in images}
    return dataclasses.replace(_stored_result(cells), curve=curve, **known)


def positions(text: str) -> tuple[int, ...]:
    images = parse_json(tuple[int, ...], text)
    if min(images, default=0) < 0:
        raise ValueError("allowed: positions of images")
    return images
