"""A verdict on the terminal, and as JSON, CSV and PNG."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from harness.analysis.files import replaced, write_csv
from harness.analysis.terminal import plain_console
from harness.analysis.verdict.findings import Comparison, Configuration, Errors, Verdict
from harness.analysis.verdict.picture import draw_verdict
from harness.analysis.verdict.sentences import sentences
from harness.study.formatting import CHANGES, changes, signed

Columns = dict[str, list[str]]  # texts by title, top to bottom

# What the columns of a table mean, in a line below it.
DIFFERENCE = "difference: from the baseline, negative is better"
ABOUT_ERRORS = f"sd: between seeds; {DIFFERENCE}, its interval corrected for the number of candidates and looks"
P_VALUE = "p-value: chance of so large a difference between equal networks"
ABOUT_P_VALUES = (
    f"{P_VALUE}; the corrected one decides, below 0.05, and grows with the number of candidates and looks, to at most"
    " 1; t ignores the choice of images, McNemar that of seeds; probability of improvement: that a training of the"
    " candidate has a lower error than one of the baseline"
)


def show_verdict(verdict: Verdict, stream: TextIO) -> None:
    """Prints the sentences and the tables behind them."""
    console = plain_console(stream)
    rows = [verdict.baseline, *verdict.candidates]
    failures = [f"{row.name} failed with {failure}" for row in rows for failure in row.failures]
    for line in [*sentences(verdict), *failures]:
        console.print(line, soft_wrap=not console.is_terminal)  # a terminal breaks words
    if any(row.errors for row in rows):
        for columns, about in (
            (_error_columns(rows), ABOUT_ERRORS),
            (_test_columns(rows), ABOUT_P_VALUES),
            (_cost_columns(rows), ""),
        ):
            console.print()
            console.print(table_of(columns))
            if about:
                console.print(about)


def write_verdict(verdict: Verdict, folder: Path) -> list[Path]:
    """Writes `STUDY.json` with all numbers, `STUDY.csv` with a row per configuration and `STUDY.png`.

    Returns:
        The written files; a picture only if there is a comparison.

    Raises:
        TroubleError: a file cannot be written.
    """
    paths = [folder / f"{verdict.study}.{suffix}" for suffix in ("json", "csv", "png")]
    with replaced(paths[0]) as unfinished:
        data = {"answer": verdict.answer, "sentences": sentences(verdict), **dataclasses.asdict(verdict)}
        unfinished.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    # A row per configuration; nested numbers have joined names, sequences are text, None has no cell.
    rows = [verdict.baseline, *verdict.candidates]
    frame = pd.DataFrame([{"name": row.name, **dict(_flat(dataclasses.asdict(row)))} for row in rows])
    write_csv(frame.drop(columns="trial"), paths[1])
    if not verdict.baseline.errors:
        return paths[:2]
    draw_verdict(verdict, paths[2])
    return paths


def _error_columns(rows: list[Configuration]) -> Columns:
    errors = [row.errors for row in rows]
    return {
        "": [row.name for row in rows],
        "answer": [row.answer or "" for row in rows],
        "test error %\nmean ± sd": [f"{one.mean_pct:.2f} ± {one.sd_pct:.2f}" if one else "" for one in errors],
        "worst\nseed": [f"{one.worst_pct:.2f}" if one else "" for one in errors],
        "difference, points\n(corrected 95 %)": [difference(row.comparison, rows[0].errors) for row in rows],
    }


def _test_columns(rows: list[Configuration]) -> Columns:
    comparisons = [row.comparison for row in rows]
    return {
        "p-values": [row.name for row in rows],
        "corrected\n(decides)": [p_value(one.p_value) if one else "" for one in comparisons],
        "paired t\non seeds": [p_value(one.paired_p_value) if one else "" for one in comparisons],
        "McNemar\npooled": [p_value(one.mcnemar_pooled_p_value) if one else "" for one in comparisons],
        "McNemar\nby seed": [
            f"{p_value(min(one.mcnemar_p_values))} to {p_value(max(one.mcnemar_p_values))}" if one else ""
            for one in comparisons
        ],
        "probability of\nimprovement": [f"{one.probability_of_improvement:.2f}" if one else "" for one in comparisons],
    }


def _cost_columns(rows: list[Configuration]) -> Columns:
    costs, comparisons = [row.cost for row in rows], [row.comparison for row in rows]
    ratios = [one.device_time_ratio if one else None for one in comparisons]
    gpu_times = [f"{cost.gpu_time_s:.1f}" if cost else "" for cost in costs]
    return {
        "": [row.name for row in rows],
        "device\ntime s": [f"{cost.device_time_s:.1f}" if cost else "" for cost in costs],
        "ratio": ["" if ratio is None else f"{ratio:.2f}x" for ratio in ratios],
        **({"GPU\ntime s": gpu_times} if any(cost and cost.gpu_time_s for cost in costs) else {}),
        "parameters": [f"{cost.num_params:,}" if cost else "" for cost in costs],
        "MFLOP\nper image": [
            f"{cost.flops_per_image / 1e6:.1f}" if cost and cost.flops_per_image else "" for cost in costs
        ],
        CHANGES: [changes(row.params, rows[0].params) for row in rows],
    }


def table_of(columns: Columns) -> Table:
    """A table with one row per configuration, the baseline first."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for position, title in enumerate(columns):
        is_text = position == 0 or title in ("answer", CHANGES)
        table.add_column(title, justify="left" if is_text else "right", no_wrap=title != CHANGES)
    for number, cells in enumerate(zip(*columns.values(), strict=True)):
        table.add_row(*cells, style=None if number else "bold")
    return table


def difference(comparison: Comparison | None, baseline: Errors | None) -> str:
    """A difference with its interval, if that is narrow enough to say something; empty where there is none."""
    if comparison is None or baseline is None:
        return ""
    if not comparison.says_something(baseline):
        return f"{signed(comparison.points)} (too few seeds)"
    limits = comparison.corrected
    return f"{signed(comparison.points)} ({signed(limits.low)} to {signed(limits.high)})"


def p_value(value: float) -> str:
    """A p-value with three digits."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _flat(data: dict[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, tuple):
            yield prefix + key, " ".join(map(str, value))
        elif value is not None:
            yield prefix + key, value
