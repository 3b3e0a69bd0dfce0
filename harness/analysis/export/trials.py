"""The trials of a study, or their epochs, as a file for other tools. docs/export.md explains each column."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.analysis.files import replaced, write_csv
from harness.analysis.hyperparameters import dtype, hyperparameter_columns
from harness.errors import TroubleError
from harness.ledger.ledger import Ledger, find_study
from harness.study.formatting import utc
from harness.study.metrics import EPOCH_METRICS, epoch_values, metrics, values
from harness.study.records import Outcome, Record, Role, Shown
from harness.study.space import Domain
from harness.study.spec import SweepSpec

if TYPE_CHECKING:
    import pandera.pandas as pa

# Of a trial before its hyperparameters, after them, and of an epoch.
_TRIAL = {
    "study": "str",
    "trial": "int64",
    "uid": "str",
    "role": "str",
    "outcome": "str",
    "message": "str",
    "started_at": "str",
    "ended_at": "str",
}
_ORDER = {
    "seed": "int64",
    "epochs": "int64",
    "continues": "Int64",
    "attempts": "int64",
    "asked_at": "int64",
    "told_at": "Int64",
    "reused_from": "str",
}
_RESULT = _ORDER | {metric.name: metric.dtype for metric in metrics(Shown.EXPORT)}
_RESULT |= {"device": "str", "backend": "str", "timing_class": "str"}
_EPOCH = {"study": "str", "trial": "int64", "uid": "str"} | {metric.name: metric.dtype for metric in EPOCH_METRICS}

_ALWAYS = {"study", "trial", "uid", "role", "seed", "epochs", "attempts", "asked_at", "epoch"}


class Table(Enum):
    """What an export has a row for."""

    TRIALS = auto()
    EPOCHS = auto()  # of the final attempt at each trial that has ended


def export_table(ledger: Ledger, study: str, path: Path, form: str, table: Table = Table.TRIALS) -> None:
    """Writes a study to `path`; `form` is "csv", "parquet" or "json" (a list of objects).

    Missing values are empty cells or null.

    Raises:
        InputError: there is no such study.
        TroubleError: the file cannot be written, or the ledger's contents break the schema.
    """
    _WRITERS[form](checked_table(ledger, study, table), path)


def checked_table(ledger: Ledger, study: str, table: Table) -> pd.DataFrame:
    """The trials of a study, or their epochs, as exported.

    Raises:
        InputError: there is no such study.
        TroubleError: the ledger's contents break the schema.
    """
    from pandera.errors import SchemaError

    spec = find_study(ledger, study).spec
    frame = (_trials if table is Table.TRIALS else _epochs)(ledger, spec)
    try:
        checked: pd.DataFrame = schema(spec, table).validate(frame)
    except SchemaError as error:
        line = " ".join(str(error).split())
        why = f"its ledger holds a value that is not allowed: {line}"
        raise TroubleError(f"study {spec.study} cannot be exported: {why}") from error
    return checked


def schema(spec: SweepSpec, table: Table) -> pa.DataFrameSchema:
    """The schema of this study's export: columns in order, their types and allowed values."""
    import pandera.pandas as pa

    def columns(types: Mapping[str, str]) -> dict[str, pa.Column]:
        return {name: pa.Column(kind, _check(name, kind), nullable=name not in _ALWAYS) for name, kind in types.items()}

    if table is Table.EPOCHS:
        return pa.DataFrameSchema(columns(_EPOCH), strict=True, ordered=True, unique=["uid", "epoch"])
    searched = {name: _hyperparameter(domain) for name, domain in spec.search_space.domains.items()}
    every = {**columns(_TRIAL), **searched, **columns(_RESULT)}
    return pa.DataFrameSchema(every, strict=True, ordered=True, unique=["uid"])


def _check(name: str, kind: str) -> pa.Check | None:
    from pandera.pandas import Check

    if name in ("role", "outcome"):
        return Check.isin(list(Role) if name == "role" else list(Outcome))
    if name.endswith("_pct"):
        return Check.in_range(0, 100)
    return None if kind == "str" else Check.ge(1 if name == "epoch" else 0)


def _hyperparameter(domain: Domain) -> pa.Column:
    import pandera.pandas as pa

    inside = pa.Check(lambda column: all(value in domain for value in column.unique().tolist()), error=str(domain))
    return pa.Column(dtype(domain), inside, nullable=True)


def _trials(ledger: Ledger, spec: SweepSpec) -> pd.DataFrame:
    """A row per trial, not yet checked."""
    records = ledger.history(spec.study)
    numbers = {record.trial.uid: record.trial.number for record in records}
    rows = [_trial_row(spec, record, numbers) for record in records]
    frame = _frame(rows, _TRIAL | _RESULT)
    searched = hyperparameter_columns(spec, [record.trial.params for record in records], frame.index)
    return frame.assign(**searched)[[*_TRIAL, *searched, *_RESULT]]


def _epochs(ledger: Ledger, spec: SweepSpec) -> pd.DataFrame:
    """A row per epoch, not yet checked."""
    ended = [(record.trial, record.result) for record in ledger.history(spec.study) if record.result]
    rows = [
        (spec.study, trial.number, trial.uid, *epoch_values(spec, report).values())
        for trial, result in ended
        for report in result.shown_curve
    ]
    return _frame(rows, _EPOCH)


def _frame(rows: Sequence[tuple[Any, ...]], types: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame.from_records(rows, columns=list(types)).astype(dict(types))


def _trial_row(spec: SweepSpec, record: Record, numbers: Mapping[str, int]) -> tuple[Any, ...]:
    """The values of `_TRIAL` and `_RESULT`."""
    trial, result = record.trial, record.result
    outcome, error, device = (result.outcome.value, result.error, result.device) if result else (None, None, None)
    started_at, ended_at = utc(record.started_at_s), utc(record.ended_at_s) if result else None
    which = (spec.study, trial.number, trial.uid, trial.role.value, outcome, error, started_at, ended_at)
    asked = (trial.seed, trial.epochs, numbers.get(trial.continues or ""), record.attempts)
    where = (device and device.name, device and device.backend, record.timing_class)
    order = (record.asked_at, record.told_at, result.reused_from if result else None)
    return *which, *asked, *order, *values(Shown.EXPORT, spec, record).values(), *where


def _write_parquet(frame: pd.DataFrame, path: Path) -> None:
    with replaced(path) as unfinished:
        frame.to_parquet(unfinished, index=False)


def _write_json(frame: pd.DataFrame, path: Path) -> None:
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    with replaced(path) as unfinished:
        unfinished.write_text(json.dumps(rows, indent=1, allow_nan=False), encoding="utf-8")


_WRITERS: Mapping[str, Callable[[pd.DataFrame, Path], None]] = {
    "csv": write_csv,
    "parquet": _write_parquet,
    "json": _write_json,
}
FORMS = tuple(_WRITERS)
