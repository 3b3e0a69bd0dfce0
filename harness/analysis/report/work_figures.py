"""Figures of the training: learning curves, timeline of the workers, use of device time."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from harness.analysis.report.drawing import (
    BASELINE,
    BEST,
    CARD,
    ERROR_AXIS,
    LOST,
    MAX_CURVES,
    PRUNED,
    SEARCHED,
    figure,
    hover,
    log_ticks,
    scaled_time,
)
from harness.analysis.report.facts import Facts, TrialAttempt
from harness.analysis.report.importance import thinned
from harness.analysis.report.time_use import Timeline, TimeUse
from harness.study.formatting import duration, setting
from harness.study.records import Outcome, Record, Role

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


def _attempt_text(attempt: TrialAttempt) -> str:
    outcome = attempt.outcome.replace("_", " ") if attempt.outcome else "not ended"
    return f"{attempt.role} {attempt.trial}: {outcome}, {duration(attempt.held_s)}"


def time_bars(found: TimeUse) -> go.Figure:
    """Device time by use."""
    scale, unit = scaled_time(found.device_s)
    made = figure(f"reserved time ({unit})", "", height=320, barmode="stack")
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


def curves_shown(facts: Facts) -> list[Record]:
    """A readable selection: the baseline, the best twenty, and others evenly spread."""
    trained = with_curves(facts)
    best = [record for configuration in facts.configurations.ranked[:20] for record in configuration.records]
    kept = {record.trial.uid for record in [*best, *facts.baselines[:20]]}
    others = thinned([record for record in trained if record.trial.uid not in kept], MAX_CURVES - len(kept))
    kept |= {record.trial.uid for record in others}
    return [record for record in trained if record.trial.uid in kept]


def with_curves(facts: Facts) -> list[Record]:
    """Ended trials with at least one epoch."""
    return [record for record in facts.ended if record.result and record.result.curve]


def learning_curves(facts: Facts) -> go.Figure:
    """Validation error by epoch; trials that were stopped early are dashed and end in a cross."""
    made, records = figure("epoch", ERROR_AXIS), curves_shown(facts)
    best = {record.trial.uid for record in facts.best.records} if facts.best else set()
    searched = [one for one in records if _kept(one, Role.TRIAL) and one.trial.uid not in best]
    groups = {
        "stopped early": [one for one in records if one.result and one.result.outcome is Outcome.PRUNED],
        "given fewer epochs": [one for one in searched if one.trial.epochs < facts.spec.epochs],
        "trained to the end": [one for one in searched if one.trial.epochs == facts.spec.epochs],
        "baseline": [one for one in records if _kept(one, Role.BASELINE)],
        "best trial": [one for one in records if one.trial.uid in best],
    }
    styles = {
        "stopped early": {"color": PRUNED, "width": 1.2, "dash": "dash"},
        "given fewer epochs": {"color": LOST, "width": 1.2, "dash": "dot"},
        "trained to the end": {"color": SEARCHED, "width": 1.2},
        "baseline": {"color": BASELINE, "width": 2.5},
        "best trial": {"color": BEST, "width": 3},
    }
    for name, group in groups.items():
        if group:
            _add_curves(made, facts, name, group, styles[name])
    errors = [error for trace in made.data for error in trace.y if error is not None]
    if min(errors) > 0:
        ticks = log_ticks(min(errors) / 1.1, max(errors) * 1.1)
        made.update_yaxes(type="log", tickvals=ticks, ticktext=[setting(tick) for tick in ticks])
    if facts.spec.epochs <= 20:
        made.update_xaxes(dtick=1)
    return made


def _kept(record: Record, role: Role) -> bool:
    return record.trial.role is role and bool(record.result and record.result.outcome is Outcome.COMPLETED)


def _add_curves(made: go.Figure, facts: Facts, name: str, records: Sequence[Record], line: dict[str, object]) -> None:
    """Adds all curves of one kind as one trace with gaps, since many traces are slow."""
    x: list[int | None] = []
    y: list[float | None] = []
    texts: list[str] = []
    symbols: list[str] = []
    for record in records:
        points = curve(facts, record)
        x += [epoch for epoch, _ in points] + [None]
        y += [error for _, error in points] + [None]
        texts += [f"{hover(record)}<br>epoch {epoch}: {error:.2f} %" for epoch, error in points] + [""]
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
    own = [(report.epoch, report.val_error_rate_pct) for report in (record.result.shown_curve if record.result else ())]
    before = facts.predecessor(record)
    joint = before.result.shown_curve[-1:] if before and before.result else ()
    return [(report.epoch, report.val_error_rate_pct) for report in joint] + own
