"""Figures of the search: best so far, error over training time, and expected results of random draws."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import plotly.graph_objects as go

from harness.analysis.report.drawing import (
    BASELINE,
    BEST,
    ERROR_AXIS,
    FAINT,
    SEARCHED,
    add_baseline_line,
    add_best,
    add_points,
    figure,
    hover,
    limit_errors,
    scaled_time,
    shown,
    whole_step,
)
from harness.analysis.report.facts import Facts, time_s
from harness.analysis.report.finding_cost import BestOf, Step
from harness.analysis.statistics import pareto_front
from harness.study.comparability import error_pct
from harness.study.formatting import duration


def best_so_far(facts: Facts, steps: Sequence[Step]) -> go.Figure:
    """The error of the best configuration so far against the device time used so far."""
    scale, unit = scaled_time(steps[-1].device_s)
    made = figure(f"reserved time used ({unit})", ERROR_AXIS)
    at = {step.trial: step.device_s / scale for step in steps}
    errors = [None, *(step.best_pct for step in steps)]
    is_shown = [step.best_pct != before for step, before in zip(steps, errors, strict=False)]
    found = [step for step, is_corner in zip(steps, is_shown, strict=True) if is_corner or step is steps[-1]]
    found = [step for step in found if step.best_pct is not None]
    points = shown(facts.searched)
    add_points(
        made,
        "searched trial",
        [at[record.trial.number] for record in points],
        [error_pct(record) for record in points],
        [hover(record) for record in points],
        color=SEARCHED,
        size=6,
        opacity=0.45,
    )
    add_baseline_line(made, facts, [0, steps[-1].device_s / scale])
    made.add_scatter(
        x=[step.device_s / scale for step in found],
        y=[step.best_pct for step in found],
        mode="lines",
        line={"shape": "hv", "color": BEST, "width": 3},
        name="best so far",
        hoverinfo="skip",
    )
    new = [step for step in found if step.is_new_best]
    texts = [f"trial {step.trial}: {step.best_pct:.2f} % after {duration(step.device_s)}" for step in new]
    add_points(
        made,
        "new best",
        [at[step.trial] for step in new],
        [step.best_pct or 0.0 for step in new],
        texts,
        color=BEST,
        size=9,
    )
    made.data[-1].showlegend = False
    limit_errors(made, [error_pct(record) for record in facts.full])
    return made


def error_against_time(facts: Facts) -> go.Figure:
    """Error against training time, within the timing class that most trials have.

    The front is of configurations: the mean error of all their seeds, and the mean time of those of this class.
    """
    made = figure(f"{facts.time_word} of one training (s)", ERROR_AXIS)
    means = [
        (mean_s, one.mean_error_pct)
        for one in facts.configurations.all
        if (mean_s := facts.main_time_s(one)) is not None
    ]
    front = [means[place] for place in pareto_front(means)]
    made.add_scatter(
        x=[mean_s for mean_s, _ in front],
        y=[mean_pct for _, mean_pct in front],
        mode="lines",
        line={"shape": "hv", "color": SEARCHED, "width": 2, "dash": "dot"},
        name="Pareto front (means over seeds)",
        hoverinfo="skip",
    )
    groups = (
        ("searched trial", SEARCHED, "circle", 8, facts.in_main_class(facts.searched)),
        ("baseline", BASELINE, "diamond", 12, facts.in_main_class(facts.baselines)),
    )
    for name, color, symbol, size, group in groups:
        points = shown(group)
        add_points(
            made,
            name,
            [time_s(record) for record in points],
            [error_pct(record) for record in points],
            [hover(record) for record in points],
            color=color,
            symbol=symbol,
            size=size,
            opacity=0.8,
        )
    if facts.best and (best_s := facts.main_time_s(facts.best)) is not None:
        add_best(made, facts, best_s)
    limit_errors(made, [error_pct(record) for record in facts.in_main_class(facts.full)])
    return made


def best_of_draws(facts: Facts, found: BestOf) -> go.Figure:
    """The lowest error expected of k configurations drawn at random, beside the order in which they were found."""
    made = figure("configurations trained in full", "best validation error (%)")
    made.update_xaxes(dtick=whole_step(len(facts.configurations.searched)))
    line = {"width": 0}
    band = {"mode": "lines", "line": line, "hoverinfo": "skip"}
    made.add_scatter(x=found.num_draws, y=found.high_pct, showlegend=False, **band)
    made.add_scatter(
        x=found.num_draws, y=found.low_pct, fill="tonexty", fillcolor=FAINT, name="in 8 of 10 random orders", **band
    )
    texts = [
        f"best of {number} at random: {expected:.2f} % ({low:.2f} to {high:.2f})"
        for number, expected, low, high in zip(
            found.num_draws, found.expected_pct, found.low_pct, found.high_pct, strict=True
        )
    ]
    made.add_scatter(
        x=found.num_draws,
        y=found.expected_pct,
        mode="lines",
        line={"color": SEARCHED, "width": 2},
        name="expected in random order",
        hovertext=texts,
        hoverinfo="text",
    )
    best = list(accumulate((one.mean_error_pct for one in facts.configurations.searched), min))
    made.add_scatter(
        x=list(range(1, len(best) + 1)),
        y=best,
        mode="lines",
        line={"shape": "hv", "color": BEST, "width": 3},
        name="as the search found it",
    )
    add_baseline_line(made, facts, [1, len(best)])
    limit_errors(made, [*best, *found.expected_pct])
    return made
