"""Figures of how the search went: best so far, what it cost, and what luck would have found."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from harness.analysis.report.drawing import (
    BASELINE,
    BEST,
    CARD,
    ERROR_AXIS,
    FAINT,
    LOST,
    PRUNED,
    SEARCHED,
    add_baseline_line,
    add_best,
    add_points,
    figure,
    hover,
    limit_errors,
    scaled_time,
    shown,
)
from harness.analysis.report.facts import Attempt, Facts, error_pct, timing_class
from harness.analysis.report.finding_cost import BestOf, Step
from harness.analysis.report.time_use import Timeline, TimeUse
from harness.records import Outcome, Record, Role
from harness.words import duration


def best_so_far(facts: Facts, steps: Sequence[Step]) -> go.Figure:
    """The lowest error so far against the device time used so far."""
    scale, unit = scaled_time(steps[-1].device_s)
    made = figure(f"device time used ({unit})", ERROR_AXIS)
    at = {step.trial: step.device_s / scale for step in steps}
    found = [step for step in steps if step.best_pct is not None]
    points = shown(facts.searched)
    add_points(
        made,
        "searched trial",
        [at[record.trial.number] for record in points],
        [error_pct(record) for record in points],
        [hover(facts, record) for record in points],
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
    """Error against training time, within the timing class that most trials have."""
    made = figure(f"{facts.time_word} of one training (s)", ERROR_AXIS)
    (main, _), *_ = facts.timing_classes.most_common()
    records = [record for record in facts.full if timing_class(record) == main]
    front = pareto_front([(facts.time_s(record), error_pct(record)) for record in records])
    made.add_scatter(
        x=[facts.time_s(records[place]) for place in front],
        y=[error_pct(records[place]) for place in front],
        mode="lines",
        line={"shape": "hv", "color": SEARCHED, "width": 2, "dash": "dot"},
        name="Pareto front",
        hoverinfo="skip",
    )
    groups = (
        ("searched trial", SEARCHED, "circle", 8, [one for one in records if one.trial.role is Role.TRIAL]),
        ("baseline", BASELINE, "diamond", 12, [one for one in records if one.trial.role is Role.BASELINE]),
    )
    for name, color, symbol, size, group in groups:
        points = shown(group)
        add_points(
            made,
            name,
            [facts.time_s(record) for record in points],
            [error_pct(record) for record in points],
            [hover(facts, record) for record in points],
            color=color,
            symbol=symbol,
            size=size,
            opacity=0.8,
        )
    if facts.best and timing_class(facts.best) == main:
        add_best(made, facts, facts.time_s(facts.best))
    limit_errors(made, [error_pct(record) for record in records])
    return made


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points that no other is as good as in both numbers and better in one, in rising order."""
    front: list[int] = []
    for place in sorted(range(len(points)), key=points.__getitem__):
        if not front or points[place][1] < points[front[-1]][1] or points[place] == points[front[-1]]:
            front.append(place)
    return front


def best_of_draws(facts: Facts, found: BestOf) -> go.Figure:
    """The lowest error expected of k trials drawn at random, beside the order in which the search found them."""
    made = figure("trials trained in full", "best validation error (%)")
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
    best: list[float] = []
    for record in facts.searched:
        best.append(min([error_pct(record), *best[-1:]]))
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


_BAR = {
    "completed": SEARCHED,
    "pruned": PRUNED,
    "baseline": BASELINE,
    "no result": LOST,
}


def workers(found: Timeline) -> go.Figure:
    """A bar per attempt, a row per worker."""
    last_s = max(one.start_s + one.attempt.held_s for one in found.stretches)
    scale, unit = scaled_time(last_s)
    names = sorted({one.attempt.worker for one in found.stretches}, reverse=True)
    made = figure(f"time since the first trial ({unit})", "", height=140 + 46 * len(names), barmode="overlay")
    made.update_yaxes(type="category", categoryorder="array", categoryarray=names, showgrid=False)
    for kind, color in _BAR.items():
        mine = [one for one in found.stretches if _kind(one.attempt.role, one.attempt.outcome) == kind]
        made.add_bar(
            orientation="h",
            name=kind,
            x=[one.attempt.held_s / scale for one in mine],
            base=[one.start_s / scale for one in mine],
            y=[one.attempt.worker for one in mine],
            marker={"color": color, "line": {"color": CARD, "width": 1}},
            hovertext=[_attempt_text(one.attempt) for one in mine],
            hoverinfo="text",
            showlegend=bool(mine),
        )
    for cut_s in found.cuts_s:
        made.add_vline(x=cut_s / scale, line={"color": LOST, "dash": "dot", "width": 2})
    return made


def _kind(role: Role, outcome: Outcome | None) -> str:
    if outcome is Outcome.PRUNED:
        return "pruned"
    if outcome is not Outcome.COMPLETED:
        return "no result"
    return "baseline" if role is Role.BASELINE else "completed"


def _attempt_text(attempt: Attempt) -> str:
    outcome = attempt.outcome.replace("_", " ") if attempt.outcome else "not ended"
    return f"{attempt.role} {attempt.trial}: {outcome}, {duration(attempt.held_s)}"


def time_bars(found: TimeUse) -> go.Figure:
    """Device time by what it was used for."""
    scale, unit = scaled_time(found.device_s)
    made = figure(f"device time ({unit})", "", height=320, barmode="stack")
    made.update_layout(legend_traceorder="normal")
    names = list(found.completed)
    made.update_yaxes(
        type="category",
        categoryorder="array",
        categoryarray=[*names, "lost to failures", "search"][::-1],
        showgrid=False,
    )
    for label, parts, color in (
        ("trained to the end", found.completed, SEARCHED),
        ("stopped early", found.pruned, PRUNED),
        ("failed or lost", {"lost to failures": found.lost_s}, LOST),
        ("search, beside the devices", {"search": found.search_s}, BEST),
    ):
        if sum(parts.values()):
            made.add_bar(
                orientation="h",
                name=label,
                y=list(parts),
                x=[seconds / scale for seconds in parts.values()],
                marker={"color": color},
                hovertext=[f"{name}, {label}: {duration(seconds)}" for name, seconds in parts.items()],
                hoverinfo="text",
            )
    return made


def learning_curves(facts: Facts, records: Sequence[Record]) -> go.Figure:
    """Validation error by epoch; trials that were stopped early are dashed and end in a cross."""
    made = figure("epoch", ERROR_AXIS)
    best = facts.best.trial.uid if facts.best else ""
    groups = {
        "stopped early": [one for one in records if one.result and one.result.outcome is Outcome.PRUNED],
        "trained to the end": [one for one in records if _kept(one, Role.TRIAL) and one.trial.uid != best],
        "baseline": [one for one in records if _kept(one, Role.BASELINE)],
        "best trial": [one for one in records if one.trial.uid == best],
    }
    styles = {
        "stopped early": {"color": PRUNED, "width": 1.2, "dash": "dash"},
        "trained to the end": {"color": SEARCHED, "width": 1.2},
        "baseline": {"color": BASELINE, "width": 2.5},
        "best trial": {"color": BEST, "width": 3},
    }
    for name, group in groups.items():
        if group:
            _add_curves(made, facts, name, group, styles[name])
    if all(error > 0 for trace in made.data for error in trace.y if error is not None):
        made.update_yaxes(type="log")
    if facts.spec.epochs <= 20:
        made.update_xaxes(dtick=1)
    return made


def _kept(record: Record, role: Role) -> bool:
    return record.trial.role is role and bool(record.result and record.result.outcome is Outcome.COMPLETED)


def _add_curves(made: go.Figure, facts: Facts, name: str, records: Sequence[Record], line: dict[str, object]) -> None:
    """All of one kind as one trace, which many traces would be too slow for; a gap ends each."""
    x: list[int | None] = []
    y: list[float | None] = []
    texts: list[str] = []
    symbols: list[str] = []
    for record in records:
        points = curve(facts, record)
        x += [epoch for epoch, _ in points] + [None]
        y += [error for _, error in points] + [None]
        texts += [f"{hover(facts, record)}<br>epoch {epoch}: {error:.2f} %" for epoch, error in points] + [""]
        symbols += ["circle"] * (len(points) - 1) + ["x" if name == "stopped early" else "circle", "circle"]
    made.add_scatter(
        x=x,
        y=y,
        mode="lines+markers",
        name=name,
        line=line,
        opacity=1.0 if name in ("baseline", "best trial") else 0.55,
        marker={"size": 6 if name == "stopped early" else 4, "symbol": symbols},
        hovertext=texts,
        hoverinfo="text",
        connectgaps=False,
    )


def curve(facts: Facts, record: Record) -> list[tuple[int, float]]:
    """(epoch, error) of a trial, from the last epoch of the trial that it continues on."""
    own = [(report.epoch, report.val_error_rate_pct) for report in (record.result.curve if record.result else ())]
    before = facts.predecessor(record)
    joint = before.result.curve[-1:] if before and before.result else ()
    return [(report.epoch, report.val_error_rate_pct) for report in joint] + own
