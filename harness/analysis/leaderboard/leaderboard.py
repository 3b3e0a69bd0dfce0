"""The leaderboard: one row per finished trial, best first, ranked only among trials of the same fidelity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis.hyperparameters import hyperparameter_columns, hyperparameters
from harness.errors import InputError
from harness.ledger.ledger import Ledger, Study, find_study
from harness.study.comparability import FIDELITY, RANKING
from harness.study.metrics import Shown, metrics, names, values
from harness.study.records import Outcome, Record, Role, TrialResult
from harness.study.spec import SweepSpec

# What each row says of its trial beside its numbers (`METRICS`), with the type of the column.
_OF_A_TRIAL = {
    "uid": "str",
    "trial": "int64",
    "role": "str",
    "outcome": "str",
    "epochs": "int64",
    "seed": "int64",
    "backend": "str",
    "device": "str",
    "timing_class": "str",
    "continues": "Int64",
    "attempts": "int64",
}
_OF_A_STUDY = ["train_images", "profile", "dataset", "engine", "sampler"]
_BEFORE_NUMBERS = ["rank", "study", "trial", "role", "outcome"]
_AFTER_HYPERPARAMETERS = [
    "epochs",
    "train_images",
    "profile",
    "dataset",
    "seed",
    "engine",
    "sampler",
    "backend",
    "device",
    "timing_class",
    "run_id",
    "git_commit",
    "continues",
    "attempts",
]
# What trials have to agree in besides these columns. Each is a column where a study has another value than the default,
# which is how studies were before there was such a setting.
_MORE_FIDELITY = [name for name in FIDELITY if name not in _AFTER_HYPERPARAMETERS]
_NUMBERS = Shown.LEADERBOARD | Shown.LEADERBOARD_END | Shown.LEADERBOARD_IF_KNOWN


def leaderboard(ledger: Ledger, studies: Sequence[str]) -> pd.DataFrame:
    """Every trial of `studies` that has ended, indexed by trial uid, best first.

    Trials of one fidelity (`FIDELITY`) stand together, the fidelity with most training first. Within one, completed
    trials of the baseline and of the search come first, in the order of `RANKING`; they alone have a `rank`, from 1.
    Then come a verdict's own trainings (role confirm), which learn from the validation images and so have no error on
    them, then pruned trials, then failed ones.

    Columns: those of docs/export.md, in that order, with one per hyperparameter that any of the studies searches,
    empty where a study does not search it. Error rates in percent with 95 % Wilson intervals; times in seconds, of
    a trial that `continues` another one (its number) that one's included (`Record`), but `reserved_time_s` its own.
    What is read off a GPU is there only if it could be for any trial, `pareto` only if a study has two objectives:
    whether no ranked trial of the same fidelity and timing class is at least as good in error and in device time, and
    better in one.

    Raises:
        InputError: there is no such study, or none is named.
    """
    if not studies:
        raise InputError("no study is named; allowed: at least one")
    found = [find_study(ledger, name) for name in dict.fromkeys(studies)]
    frame = _ranked(pd.concat([_study_frame(ledger, study) for study in found]))
    columns = [
        *_BEFORE_NUMBERS,
        *names(Shown.LEADERBOARD),
        *hyperparameters(study.spec for study in found),
        *_AFTER_HYPERPARAMETERS,
        *(name for name in _MORE_FIDELITY if any(study.spec.sets(name) for study in found)),
        *names(Shown.LEADERBOARD_END),
        *(name for name in names(Shown.LEADERBOARD_IF_KNOWN) if frame[name].notna().any()),
    ]
    if any(len(study.spec.objective) > 1 for study in found):
        frame["pareto"] = _pareto(frame)
        columns.append("pareto")
    return frame[columns]


def _study_frame(ledger: Ledger, study: Study) -> pd.DataFrame:
    """One study's rows by number, without ranks."""
    spec = study.spec
    rows, params, origins = [], [], ledger.origins(spec.study)
    numbers: dict[str | None, int] = {}
    for record in ledger.finished(spec.study):
        numbers[record.trial.uid] = record.trial.number
        if record.result:
            rows.append(_row(record, record.result, spec, numbers.get(record.trial.continues)))
            params.append(record.trial.params)
    types = _OF_A_TRIAL | {metric.name: metric.dtype for metric in metrics(_NUMBERS)}
    frame = pd.DataFrame.from_records(rows, columns=list(types)).astype(types).set_index("uid")
    return frame.assign(
        **hyperparameter_columns(spec, params, frame.index),
        study=spec.study,
        **{name: getattr(spec, name) for name in [*_OF_A_STUDY, *_MORE_FIDELITY]},
        run_id=pd.Series(ledger.run_ids(spec.study), frame.index, dtype="str"),
        git_commit=pd.Series([origins[uid].get("git_commit") for uid in frame.index], frame.index, dtype="str"),
    )


def _row(record: Record, result: TrialResult, spec: SweepSpec, continues: int | None) -> tuple[Any, ...]:
    """The values of `_OF_A_TRIAL`, then the numbers."""
    trial, device = record.trial, result.device
    return (
        trial.uid,
        trial.number,
        trial.role.value,
        result.outcome.value,
        trial.epochs,
        trial.seed,
        device and device.backend,
        device and device.name,
        record.timing_class,
        continues,
        record.attempts,
        *values(_NUMBERS, spec, record).values(),
    )


def _ranked(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows in the order of a leaderboard, with their ranks."""
    outcome = frame["outcome"]
    tiers = [outcome == Outcome.PRUNED, outcome != Outcome.COMPLETED, frame["role"] == Role.CONFIRM]
    frame = frame.assign(tier=np.select(tiers, [2, 3, 1], 0))
    ranked = frame["tier"] == 0
    keys = {f"{column}, where it ranks": frame[column].where(ranked) for column in RANKING}
    by = {name: name == "dataset" for name in FIDELITY} | dict.fromkeys(["tier", *keys, "study", "trial"], True)
    frame = frame.assign(**keys).sort_values(list(by), ascending=list(by.values()))
    ranks = frame.groupby(list(FIDELITY), dropna=False).cumcount() + 1
    return frame.assign(rank=ranks.where(frame["tier"] == 0).astype("Int64"))


def _pareto(frame: pd.DataFrame) -> pd.Series:
    """Whether each row is on the front of error and device time of its fidelity and timing class."""
    front = pd.Series(False, index=frame.index)
    for _, group in frame[frame["rank"].notna()].groupby([*FIDELITY, "timing_class"], dropna=False):
        error, time_s = group["error_rate_pct"], group["device_time_s"]
        best_at = error.groupby(time_s).min()
        best_before = best_at.cummin().shift(fill_value=np.inf)
        front[group.index] = (error == time_s.map(best_at)) & (error < time_s.map(best_before))
    return front
