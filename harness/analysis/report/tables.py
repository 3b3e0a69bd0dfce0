"""Tables of a report: rows of text, which the page escapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis.report.facts import Facts
from harness.records import Role
from harness.words import duration, setting

TOP = 15


@dataclass(frozen=True)
class Table:
    """Texts, a row each.

    Attributes:
        head: Titles of the columns; empty: each row is a name and its value.
        rows: All of one length.
        marked: Which rows are the baseline's.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[int] = frozenset()


def top_trials(facts: Facts) -> Table:
    """The first rows of the leaderboard, and the baseline's wherever they stand."""
    ranked = facts.board[facts.board["rank"].notna() & (facts.board["epochs"] == facts.spec.epochs)]
    is_baseline = ranked["role"] == Role.BASELINE
    rows = ranked[is_baseline | (np.arange(len(ranked)) < TOP)]
    names = list(facts.spec.space)
    time = "gpu_time_s" if facts.time_word == "GPU time" else "device_time_s"
    test = bool(rows["test_error_rate_pct"].notna().any())
    head = ["rank", "trial", "error % (95 % interval)", *(["test error %"] if test else [])]
    head += [f"{facts.time_word} s", "parameters", *names]
    return Table(
        head,
        [
            [*_start(row, test=test), f"{row[time]:.1f}", f"{row['num_params']:,}", *_cells(row, names)]
            for row in _rows(rows)
        ],
        frozenset(place for place, role in enumerate(rows["role"]) if role == Role.BASELINE),
    )


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _start(row: dict[str, Any], *, test: bool) -> list[str]:
    name = str(row["trial"]) if row["role"] == Role.TRIAL else f"{row['trial']} {row['role']}"
    low, high = row["error_rate_ci_low_pct"], row["error_rate_ci_high_pct"]
    cells = [str(row["rank"]), name, f"{row['error_rate_pct']:.2f} ({low:.2f} to {high:.2f})"]
    if test:
        cells.append("" if pd.isna(row["test_error_rate_pct"]) else f"{row['test_error_rate_pct']:.2f}")
    return cells


def _cells(row: dict[str, Any], names: Sequence[str]) -> list[str]:
    return ["" if pd.isna(row[name]) else setting(row[name]) for name in names]


def provenance(facts: Facts) -> Table:
    """Settings, code, versions and machines, a name and a value each."""
    spec, study = facts.spec, facts.study
    budget = spec.budget
    limits = [f"{budget.trials} trials"]
    limits += [
        f"{duration(seconds)} {what}"
        for seconds, what in ((budget.wall_s, "in all"), (budget.device_s, "of device time"))
        if seconds
    ]
    origin = {
        key: value for key, value in study.provenance.items() if key not in ("lessons", "git_commit", "git_dirty")
    }
    rows = [
        ("study", spec.study),
        ("begun", datetime.fromtimestamp(study.created_at).isoformat(" ", "minutes")),
        ("budget", ", ".join(limits)),
        ("baseline", f"{spec.baseline}, {spec.baseline_seeds} seeds"),
        (
            "data",
            f"{spec.dataset}, {spec.train_images:,} training images, {spec.validation_images:,} for each epoch's error",
        ),
        ("recipe", ", ".join(f"{key} = {setting(value)}" for key, value in spec.recipe.items())),
        *[(f"space.{name}", str(domain)) for name, domain in spec.search_space.domains.items()],
        *[
            (f"constraints.{key}", setting(value))
            for key, value in spec.constraints.model_dump(exclude_none=True).items()
        ],
        ("digest of the settings", spec.digest()),
        ("code", ", ".join(_commits(facts)) or "not known"),
        *[("timing class", f"{name} ({number} trials)") for name, number in facts.timing_classes.most_common()],
        *[(key.replace("_", " "), str(value)) for key, value in origin.items() if value is not None],
    ]
    return Table((), rows)


def _commits(facts: Facts) -> list[str]:
    """The commits that trials ran on, each once."""
    origins = [facts.study.provenance, *facts.origins.values()]
    found = {
        str(one["git_commit"]) + " with changes" * bool(one.get("git_dirty"))
        for one in origins
        if one.get("git_commit")
    }
    return sorted(found)
