"""Common parts of all figures: colours from the page's style sheet, points, hover texts, ranges."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from html import escape
from itertools import accumulate, repeat
from typing import Any

import numpy as np
import plotly.graph_objects as go

from harness.analysis.report.facts import Facts, time_s
from harness.analysis.report.importance import thinned
from harness.study.comparability import Configuration, error_pct
from harness.study.formatting import duration, of_seeds, setting
from harness.study.records import Record, Role

# The page's script puts in what its style sheet says for light or dark.
INK, MUTED, GRID, CARD = "var(--ink)", "var(--muted)", "var(--grid)", "var(--card)"
SEARCHED, BASELINE, BEST = "var(--searched)", "var(--baseline)", "var(--best)"
PRUNED, LOST = "var(--pruned)", "var(--lost)"
FAINT = "var(--faint)"

MAX_POINTS = 600  # of one figure; SVG is slow with more
MAX_CURVES = 150
MIN_TICKS = 3
ERROR_AXIS = "validation error (%)"


def figure(x_title: str, y_title: str, height: int = 420, **layout: Any) -> go.Figure:
    """An empty figure in the page's style."""
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": MUTED, "automargin": True, "ticks": "outside"}
    made = go.Figure(
        layout={
            "template": go.layout.Template(),
            "font": {"color": INK, "size": 13, "family": "system-ui, sans-serif"},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 60, "r": 16, "t": 16, "b": 48},
            "height": height,
            "hovermode": "closest",
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": MUTED, "activecolor": INK},
            "hoverlabel": {"bgcolor": CARD, "bordercolor": MUTED, "font": {"color": INK}, "align": "left"},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "bgcolor": "rgba(0,0,0,0)"},
            "xaxis": axis | {"title": {"text": x_title}},
            "yaxis": axis | {"title": {"text": y_title}},
        }
    )
    made.update_layout(**layout)
    return made


def shown(records: Sequence[Record]) -> list[Record]:
    """At most `MAX_POINTS` of trials trained in full: the best ones, and as many of the others, evenly spread."""
    if len(records) <= MAX_POINTS:
        return list(records)
    ranked = sorted(records, key=error_pct)
    half = MAX_POINTS // 2
    return ranked[:half] + thinned(ranked[half:], half)


def hover(record: Record) -> str:
    """The hover text of a training, escaped."""
    error = record.result.val_error_rate_pct if record.result else None
    return _hover(record, "" if error is None else f"{error:.2f} % in {duration(time_s(record))}")


def hover_mean(facts: Facts, one: Configuration) -> str:
    """That of a configuration, with the means over its seeds."""
    mean_s = facts.mean_time_s(one)
    took = "" if mean_s is None else f" in {duration(mean_s)}"
    return _hover(one.first, f"{one.mean_error_pct:.2f} %{took}{of_seeds(one.num_seeds)}")


def _hover(record: Record, measured: str) -> str:
    name = "baseline" if record.trial.role is Role.BASELINE else "trial"
    settings = [escape(f"{key} = {setting(value)}") for key, value in record.trial.params.items()]
    return "<br>".join([f"<b>{name} {record.trial.number}</b>", *([measured] if measured else []), *settings])


def errors_range(errors_pct: Sequence[float]) -> tuple[float, float] | None:
    """The relevant range of errors; None: all of them. Networks that learned nothing would compress the axis."""
    errors = np.asarray(errors_pct, float)
    low, middle, most = np.quantile(errors, [0.0, 0.5, 0.9])
    high = most + 0.25 * (most - low)
    if errors.max() <= low + 4 * (most - low) or middle == low:
        return None
    return max(0.0, float(low - 0.05 * (high - low))), float(high)


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks 1, 2, 5, 10, 20 and so on within these bounds, both above 0; more if these are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ("1 2 5", "1 1.5 2 3 5 7", "1 1.2 1.4 1.6 1.8 2 2.5 3 3.5 4 5 6 7 8 9"):
        ticks = [float(f"{digit}e{decade}") for decade in decades for digit in digits.split()]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= MIN_TICKS:
            break
    return ticks


def whole_step(most: float) -> int:
    """Distance of at most ten ticks on an axis of whole numbers from 0 to `most`: 1, 2, 5, 10, 20 and so on."""
    powers: Iterator[int] = accumulate(repeat(10), operator.mul, initial=1)
    steps = (digit * power for power in powers for digit in (1, 2, 5))
    return next(step for step in steps if most <= 10 * step)


def limit_errors(made: go.Figure, errors_pct: Sequence[float]) -> None:
    """Limits a figure to the relevant range of errors; a double click shows all."""
    limits = errors_range(errors_pct)
    if limits:
        made.layout.yaxis.range = limits


def scaled_time(most_s: float) -> tuple[float, str]:
    """The divisor of seconds, and the resulting unit."""
    if most_s < 300:
        return 1.0, "s"
    return (60.0, "minutes") if most_s < 3 * 3600 else (3600.0, "hours")


def add_points(
    made: go.Figure, name: str, x: Sequence[Any], y: Sequence[float], texts: Sequence[str], **how: Any
) -> None:
    """Adds points with hover texts."""
    made.add_scatter(
        x=list(x), y=list(y), mode="markers", name=name, hovertext=list(texts), hoverinfo="text", marker=how
    )


def add_best(made: go.Figure, facts: Facts, x: Any) -> None:
    """Adds a star for the best configuration."""
    if facts.best:
        style = {"symbol": "star", "size": 15, "color": BEST, "line": {"color": CARD, "width": 1}}
        add_points(made, "best trial", [x], [facts.best.mean_error_pct], [hover_mean(facts, facts.best)], **style)


def add_baseline_line(made: go.Figure, facts: Facts, x: Sequence[Any]) -> None:
    """Adds a line at the baseline's mean, in a band from its lowest seed to its highest."""
    if facts.baseline is None:
        return
    mean_pct, errors = facts.baseline.mean_error_pct, facts.baseline.errors_pct
    if len(errors) > 1:
        made.add_hrect(y0=min(errors), y1=max(errors), fillcolor=BASELINE, opacity=0.16, line_width=0, layer="below")
    seeds = f", {len(errors)} seeds" if len(errors) > 1 else ""
    line = {"color": BASELINE, "dash": "dash", "width": 2}
    text = f"baseline {mean_pct:.2f} %"
    made.add_scatter(
        x=list(x),
        y=[mean_pct, mean_pct],
        mode="lines",
        name=f"baseline{seeds}",
        line=line,
        hovertext=text,
        hoverinfo="text",
    )
