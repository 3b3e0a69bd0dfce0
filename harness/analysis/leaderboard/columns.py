"""The columns of tables of configurations for people: on the terminal, and in a report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from harness.study.formatting import setting
from harness.study.metrics import metrics
from harness.study.records import Role, Shown
from harness.study.spec import SweepSpec
from harness.support.intervals import error_rate_interval_pct

Columns = dict[str, list[str]]  # texts by title, top to bottom

INTERVAL = "\n(95 % interval)"


def columns(rows: pd.DataFrame, specs: Iterable[SweepSpec]) -> Columns:
    """The columns before the hyperparameters, of rows of a leaderboard of these studies by configuration.

    The metrics are those with `Shown.TABLE` that any row has. Device time is left out where GPU time is shown.
    """
    num_test_images = {spec.study: spec.sizes["test"] for spec in specs}
    found = {"rank": [cell(rank) for rank in rows["rank"]]}
    if "pareto" in rows:
        found["front"] = ["*" if on_front else "" for on_front in rows["pareto"]]
    if rows["study"].nunique() > 1:
        found["study"] = list(rows["study"])
    found["trial"] = [_trial(*pair) for pair in zip(rows["trial"], rows["role"], strict=True)]
    if (rows["num_seeds"] > 1).any():
        found["seeds"] = [cell(number) for number in rows["num_seeds"]]
    limits = ("error_rate_pct", "error_rate_ci_low_pct", "error_rate_ci_high_pct")
    found[f"error %{INTERVAL}"] = [_error(*row) for row in zip(*(rows[name] for name in limits), strict=True)]
    used_gpu = bool((rows["gpu_time_s"] > 0).any())
    for metric in metrics(Shown.TABLE):
        is_other_time = metric.name == ("device_time_s" if used_gpu else "gpu_time_s")
        if is_other_time or metric.name not in rows or rows[metric.name].isna().all():
            continue
        if metric.name == "test_error_rate_pct":
            pairs = zip(rows[metric.name], rows["study"].map(num_test_images), strict=True)
            found[f"{metric.title}{INTERVAL}"] = [_test_error(*pair) for pair in pairs]
        else:
            found[metric.title] = [metric.text(None if pd.isna(value) else value) for value in rows[metric.name]]
    return found


def cell(value: Any) -> str:
    """A setting; empty where there is none."""
    return "" if pd.isna(value) else setting(value)


def _trial(number: int, role: str) -> str:
    return str(number) if role == Role.TRIAL else f"{number} {role}"


def _error(error: float, low: float, high: float) -> str:
    return "" if pd.isna(error) else f"{error:.2f} ({low:.2f}-{high:.2f})"


def _test_error(error: float, num_images: int) -> str:
    return "" if pd.isna(error) else _error(error, *error_rate_interval_pct(error, num_images))
