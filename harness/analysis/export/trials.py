"""Every trial of a study with its curve, as a file for other tools. docs/export.md explains each column."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.analysis.files import replaced, write_csv
from harness.analysis.hyperparameters import dtype, hyperparameter_columns
from harness.errors import TroubleError
from harness.ledger.ledger import Ledger, find_study
from harness.study.metrics import EPOCH_METRICS, epoch_values, metrics, values
from harness.study.records import Outcome, Record, Role, Shown
from harness.study.space import Domain
from harness.study.spec import SweepSpec

if TYPE_CHECKING:
    import pandera.pandas as pa

# Of a trial, before and after its hyperparameters, and of an epoch.
_TRIAL = {"study": "str", "trial": "int64", "uid": "str", "role": "str", "outcome": "str", "error": "str"}
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
_EPOCH = {metric.name: metric.dtype for metric in EPOCH_METRICS}

_ALWAYS = {"study", "trial", "uid", "role", "seed", "epochs", "attempts", "asked_at"}


def export_trials(ledger: Ledger, study: str, path: Path, form: str) -> None:
    """Writes a study to `path`; `form` is "csv", "parquet" or "json" (a list of objects).

    One row per trial and epoch, with the trial's values repeated in each; a trial without an epoch (infeasible, crashed
    at once, pending) has one row without one. The curve is that of the final attempt. Missing values are empty cells or
    null.

    Raises:
        InputError: there is no such study.
        TroubleError: the file cannot be written, or the ledger's contents break the schema.
    """
    from pandera.errors import SchemaError

    spec = find_study(ledger, study).spec
    frame = _table(ledger, spec)
    try:
        checked = schema(spec).validate(frame)
    except SchemaError as error:
        line = " ".join(str(error).split())
        why = f"its ledger holds a value that is not allowed: {line}"
        raise TroubleError(f"study {spec.study} cannot be exported: {why}") from error
    _WRITERS[form](checked, path)


def schema(spec: SweepSpec) -> pa.DataFrameSchema:
    """The schema of this study's export: columns in order, their types and allowed values."""
    import pandera.pandas as pa

    def column(name: str, kind: str) -> pa.Column:
        return pa.Column(kind, _check(name, kind), nullable=name not in _ALWAYS)

    return pa.DataFrameSchema(
        {
            **{name: column(name, kind) for name, kind in _TRIAL.items()},
            **{name: _hyperparameter(domain) for name, domain in spec.search_space.domains.items()},
            **{name: column(name, kind) for name, kind in {**_RESULT, **_EPOCH}.items()},
        },
        strict=True,
        ordered=True,
        unique=["uid", "epoch"],
    )


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


def _table(ledger: Ledger, spec: SweepSpec) -> pd.DataFrame:
    """A row per trial and epoch, not yet checked."""
    records = ledger.history(spec.study)
    numbers = {record.trial.uid: record.trial.number for record in records}
    curves = [(record, record.result.curve if record.result else ()) for record in records]
    pairs = [(record, epoch) for record, curve in curves for epoch in curve or (None,)]
    no_epoch = (None,) * len(_EPOCH)
    own = [
        (*_trial_row(spec, record, numbers), *(epoch_values(spec, epoch).values() if epoch else no_epoch))
        for record, epoch in pairs
    ]
    types = {**_TRIAL, **_RESULT, **_EPOCH}
    frame = pd.DataFrame.from_records(own, columns=list(types)).astype(types)
    searched = hyperparameter_columns(spec, [record.trial.params for record, _ in pairs], frame.index)
    return frame.assign(**searched)[[*_TRIAL, *searched, *_RESULT, *_EPOCH]]


def _trial_row(spec: SweepSpec, record: Record, numbers: dict[str, int]) -> tuple[Any, ...]:
    """The values of `_TRIAL` and `_RESULT`."""
    trial, result = record.trial, record.result
    outcome, error, device = (result.outcome.value, result.error, result.device) if result else (None, None, None)
    which = (spec.study, trial.number, trial.uid, trial.role.value, outcome, error)
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
