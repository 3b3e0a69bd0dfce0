"""The leaderboard: a row per finished trial, or per configuration on the terminal; ranks are within one fidelity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis.hyperparameters import hyperparameter_columns, hyperparameters
from harness.analysis.statistics import pareto_front
from harness.errors import InputError
from harness.ledger.ledger import Ledger, find_study
from harness.ledger.reader import Study
from harness.study.comparability import FIDELITY, Configuration, by_uid
from harness.study.formatting import utc
from harness.study.metrics import LEADERBOARD, metrics, names, values
from harness.study.records import Outcome, Record, Role, Shown, TrialResult
from harness.study.spec import SweepSpec

# What each row says of its trial beside its numbers (`METRICS`), with the type of the column.
_OF_A_TRIAL = {
    "uid": "str",
    "trial": "int64",
    "role": "str",
    "outcome": "str",
    "message": "str",
    "started_at": "str",
    "ended_at": "str",
    "epochs": "int64",
    "seed": "int64",
    "backend": "str",
    "device": "str",
    "timing_class": "str",
    "continues": "Int64",
    "attempts": "int64",
    "reused_from": "str",
}
_OF_A_STUDY = ["train_images", "profile", "dataset", "engine", "sampler"]
# And of its configuration, where that is ranked; the first four are columns of the table.
_OF_A_CONFIGURATION = {
    "mean_error_rate_pct": "float64",
    "mean_error_rate_ci_low_pct": "float64",
    "mean_error_rate_ci_high_pct": "float64",
    "num_seeds": "Int64",
    "by_class": "str",
    "by_time": "float64",
    "by_number": "Int64",
}
_BEFORE_NUMBERS = [
    "rank",
    "study",
    "trial",
    "role",
    "outcome",
    "message",
    "started_at",
    "ended_at",
    "mean_error_rate_pct",
    "mean_error_rate_ci_low_pct",
    "mean_error_rate_ci_high_pct",
    "num_seeds",
]
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


def leaderboard(ledger: Ledger, studies: Sequence[str]) -> pd.DataFrame:
    """Every trial of `studies` that has ended, indexed by trial uid, best first.

    Trials are grouped by fidelity (`FIDELITY`), the one with most training first. Within a fidelity, completed trials
    of the baseline and of the search come first. Only they have a `rank`, from 1, that of their configuration
    (`Configuration.rank_key`): trainings of one configuration share it and are adjacent. Then come trainings of a
    verdict (role confirm), which are trained on the validation images and so have no error on them, then pruned trials,
    then failed ones.

    Columns: those of docs/export.md, in that order, with one per hyperparameter that any of the studies searches,
    empty where a study does not search it. Error rates in percent with 95 % Wilson intervals; times in seconds, of
    a trial that `continues` another one (its number) that one's included (`Record`), but `reserved_time_s` its own.
    What is read off a GPU is there only if it could be for any trial, `reused_from` only if a trial took over a result
    (STUDY:NUMBER of the trained one, or its uid if it is gone), `pareto` only if a study has two objectives:
    whether no other configuration of the same fidelity and timing class is at least as good in the mean error and in
    the mean device time, and better in one.

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
        *(name for name in [*names(Shown.LEADERBOARD_IF_KNOWN), "reused_from"] if frame[name].notna().any()),
    ]
    if any(len(study.spec.objective) > 1 for study in found):
        frame["pareto"] = _pareto(frame)
        columns.append("pareto")
    return frame[columns]


def _study_frame(ledger: Ledger, study: Study) -> pd.DataFrame:
    """One study's rows by number, without ranks."""
    spec = study.spec
    records, origins = list(ledger.finished(spec.study)), ledger.origins(spec.study)
    numbers: dict[str | None, int] = {record.trial.uid: record.trial.number for record in records}
    found = by_uid(spec, records)
    rows = [
        (
            *_row(ledger, one, one.result, spec, numbers.get(one.trial.continues)),
            *_ranking(found.get(one.trial.uid)),
        )
        for one in records
        if one.result
    ]
    params = [one.trial.params for one in records if one.result]
    types = _OF_A_TRIAL | {metric.name: metric.dtype for metric in metrics(LEADERBOARD)} | _OF_A_CONFIGURATION
    frame = pd.DataFrame.from_records(rows, columns=list(types)).astype(types).set_index("uid")
    return frame.assign(
        **hyperparameter_columns(spec, params, frame.index),
        study=spec.study,
        **{name: getattr(spec, name) for name in [*_OF_A_STUDY, *_MORE_FIDELITY]},
        run_id=pd.Series(ledger.run_ids(spec.study), frame.index, dtype="str"),
        git_commit=pd.Series([origins[uid].get("git_commit") for uid in frame.index], frame.index, dtype="str"),
    )


def _row(
    ledger: Ledger,
    record: Record,
    result: TrialResult,
    spec: SweepSpec,
    continues: int | None,
) -> tuple[Any, ...]:
    """The values of `_OF_A_TRIAL`, then the numbers."""
    trial, device = record.trial, result.device
    return (
        trial.uid,
        trial.number,
        trial.role.value,
        result.outcome.value,
        result.error,
        utc(record.started_at_s),
        utc(record.ended_at_s),
        trial.epochs,
        trial.seed,
        device and device.backend,
        device and device.name,
        record.timing_class,
        continues,
        record.attempts,
        result.reused_from and _name(ledger, result.reused_from),
        *values(LEADERBOARD, spec, record).values(),
    )


def _name(ledger: Ledger, uid: str) -> str:
    """STUDY:NUMBER of a trial, or its uid if it is gone."""
    try:
        study, number = ledger.whereabouts(uid)
    except KeyError:
        return uid
    return f"{study}:{number}"


def _ranking(configuration: Configuration | None) -> tuple[Any, ...]:
    """The values of `_OF_A_CONFIGURATION`."""
    if configuration is None:
        return (None,) * len(_OF_A_CONFIGURATION)
    mean_error_pct, *ties = configuration.rank_key
    return mean_error_pct, *configuration.interval_pct, configuration.num_seeds, *ties


def _ranked(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows in the order of a leaderboard, with their ranks."""
    outcome, is_ranked = frame["outcome"], frame["mean_error_rate_pct"].notna()
    tiers = [is_ranked, outcome == Outcome.PRUNED, outcome != Outcome.COMPLETED]
    frame = frame.assign(tier=np.select(tiers, [0, 2, 3], 1))
    of_configuration = ["mean_error_rate_pct", "by_class", "by_time", "study", "by_number"]
    by = {name: name == "dataset" for name in FIDELITY} | dict.fromkeys(["tier", *of_configuration, "trial"], True)
    frame = frame.sort_values(list(by), ascending=list(by.values()))
    is_first = is_ranked[frame.index] & (frame["trial"] == frame["by_number"])
    ranks = is_first.groupby([frame[name] for name in FIDELITY], dropna=False).cumsum()
    return frame.assign(rank=ranks.where(frame["tier"] == 0).astype("Int64"))


def _pareto(frame: pd.DataFrame) -> pd.Series:
    """Whether the configuration of each row is on the front of its fidelity and timing class."""
    front = pd.Series(False, index=frame.index)
    ranked = frame[frame["rank"].notna()].dropna(subset=["mean_error_rate_pct", "by_time"])
    for _, group in ranked.groupby([*FIDELITY, "by_class"], dropna=False):
        points = list(zip(group["by_time"], group["mean_error_rate_pct"], strict=True))
        front[group.index[pareto_front(points)]] = True
    return front


def by_configuration(leaderboard: pd.DataFrame) -> pd.DataFrame:
    """A leaderboard with one row per ranked configuration instead of one per training; other rows are unchanged.

    It is the row of the first training with the means of the configuration as its numbers; whole numbers stay those of
    the first training. What depends on the device has no mean over several timing classes.
    """
    is_ranked, configuration = leaderboard["rank"].notna(), [*fidelity_columns(leaderboard), "rank"]
    rows = leaderboard.assign(is_baseline=(leaderboard["role"] == Role.BASELINE).astype(int))
    groups = rows.groupby(configuration, sort=False, dropna=False)

    def of_ranked(name: str, values: pd.Series) -> pd.Series:
        return values.where(is_ranked, rows[name])

    has_times = groups["timing_class"].transform("nunique") < 2
    shown = {}
    for metric in metrics(LEADERBOARD):
        if metric.kind == "float" and metric.name in leaderboard:
            mean = groups[metric.name].transform("mean")
            shown[metric.name] = mean.where(has_times) if metric.depends_on_device else mean
    shown |= {f"error_rate{which}_pct": rows[f"mean_error_rate{which}_pct"] for which in ("", "_ci_low", "_ci_high")}
    shown["role"] = rows["role"].mask(groups["is_baseline"].transform("max") > 0, Role.BASELINE.value)
    board = leaderboard.assign(**{name: of_ranked(name, values) for name, values in shown.items()})
    return board[~is_ranked | ~leaderboard.duplicated(configuration)]


def fidelity_columns(leaderboard: pd.DataFrame) -> list[str]:
    """The columns of the fidelity; settings that are equal everywhere may have no column."""
    return [name for name in FIDELITY if name in leaderboard]
