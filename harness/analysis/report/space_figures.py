"""Figures of the search space: the error by the searched hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from harness.analysis.report.drawing import (
    BASELINE,
    BEST,
    CARD,
    ERROR_AXIS,
    FAINT,
    GRID,
    INK,
    MUTED,
    SEARCHED,
    add_best,
    add_points,
    errors_range,
    figure,
    hover,
    hover_mean,
    limit_errors,
    shown,
)
from harness.analysis.report.facts import Facts
from harness.analysis.report.importance import Importance, Share, Surface, position, thinned
from harness.study.comparability import Configuration, error_pct
from harness.study.formatting import setting
from harness.study.records import Record, Scalar
from harness.study.space import Choice, Domain, Float, Int

MAX_TICKS = 6
MAX_LINES = 150  # of configurations, on parallel axes
MAX_IN_A_ROW = 10  # titles of parallel axes; more are in several rows in turn, else they overlap
UNSET = -0.14  # position of a setting that is not active, below its axis


def parallel_coordinates(facts: Facts) -> go.Figure:
    """A line per configuration through all its settings to its error, on parallel axes that go from 0 to 1."""
    ranked = facts.configurations.ranked
    others = thinned(ranked[1:], MAX_LINES)
    num_good = max(1, len(ranked) // 4) - 1
    errors = [one.mean_error_pct for one in (*ranked, *([facts.baseline] if facts.baseline else ()))]
    low, high = errors_range(errors) or (min(errors), max(errors))
    axes = [*(_axis(name, domain) for name, domain in facts.spec.search_space.domains.items()), _error_axis(low, high)]
    num_rows = math.ceil(len(axes) / MAX_IN_A_ROW)
    made = figure("", "", height=430 + 50 * num_rows, margin={"l": 40, "r": 40, "t": 60 + 50 * num_rows, "b": 16})
    made.update_xaxes(visible=False, range=[-0.3, len(axes) - 0.7])
    lowest = min(at for axis in axes for at, _ in axis.ticks)
    made.update_yaxes(visible=False, range=[lowest - 0.04, 1.04])
    made.update_layout(legend={"y": 1 + 0.14 * num_rows})
    groups: tuple[tuple[str, str, float, Sequence[Configuration]], ...] = (
        ("other trials", FAINT, 1.5, others[num_good:][::-1]),
        ("best quarter", SEARCHED, 2, others[:num_good][::-1]),
        ("baseline", BASELINE, 3.5, [facts.baseline] if facts.baseline else []),
        ("best trial", BEST, 4.5, ranked[:1]),
    )
    for name, color, width, configurations in groups:
        _add_lines(made, facts, axes, configurations, name=name, line={"color": color, "width": width})
    for place, axis in enumerate(axes):
        made.add_shape(type="line", x0=place, x1=place, y0=0, y1=1, line={"color": MUTED, "width": 1})
        title = {"text": f"<b>{axis.title}</b>", "yanchor": "bottom", "font": {"color": INK, "size": 12}}
        made.add_annotation(x=place, y=1, yref="paper", yshift=50 * (place % num_rows), showarrow=False, **title)
        for at, text in axis.ticks:
            small = {"font": {"color": INK, "size": 10}, "bgcolor": CARD, "opacity": 0.85, "borderpad": 1}
            made.add_annotation(x=place, y=at, text=text, xanchor="right", xshift=-4, showarrow=False, **small)
    return made


@dataclass(frozen=True)
class _Axis:
    """One of the parallel axes.

    Attributes:
        title: Its name, escaped, in lines.
        ticks: (position, text) of its values, also of "unset" if the setting is not always active.
        place: Gives a configuration's position.
    """

    title: str
    ticks: Sequence[tuple[float, str]]
    place: Callable[[Configuration], float]


def _axis(name: str, domain: Domain) -> _Axis:
    if isinstance(domain, Choice):
        places = {option: place / max(1, len(domain.options) - 1) for place, option in enumerate(domain.options)}
        values: Sequence[Scalar] = domain.options
    else:
        values = _ticks(domain)
        places = {}

    def at(value: Scalar) -> float:
        return places[value] if isinstance(domain, Choice) else position(domain, value)

    ticks = [(at(value), escape(setting(value))) for value in values]
    if domain.when:
        ticks.append((UNSET, "unset"))
    return _Axis(
        escape(name).replace("_", "<br>"),
        ticks,
        lambda one: at(one.params[name]) if name in one.params else UNSET,
    )


def _error_axis(low: float, high: float) -> _Axis:
    span = high - low or 1.0
    ticks = [(share, f"{low + share * span:.2f}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return _Axis("error %", ticks, lambda one: min(1.0, (one.mean_error_pct - low) / span))


def _add_lines(
    made: go.Figure, facts: Facts, axes: Sequence[_Axis], configurations: Sequence[Configuration], **style: Any
) -> None:
    """Adds one trace with all these lines, separated by gaps."""
    x: list[int | None] = []
    y: list[float | None] = []
    texts: list[str] = []
    for one in configurations:
        x += [*range(len(axes)), None]
        y += [*(axis.place(one) for axis in axes), None]
        texts += [hover_mean(facts, one)] * len(axes) + [""]
    if configurations:
        made.add_scatter(x=x, y=y, mode="lines+markers", marker={"size": 5}, hovertext=texts, hoverinfo="text", **style)


def _scaled(domain: Domain, value: float) -> float:
    return math.log10(value) if not isinstance(domain, Choice) and domain.log else float(value)


def _ticks(domain: Domain) -> list[int | float]:
    """Tick values of a range, including its ends."""
    if isinstance(domain, Choice):
        raise TypeError(f"{domain} has no order")
    number = MAX_TICKS
    shares = [place / (number - 1) for place in range(number)]
    values = domain.values()
    if values is not None and not domain.log:  # only possible proposals
        places = [round(share * (len(values) - 1)) for share in shares]
        return [values[place] for place in sorted(set(places))]
    ticks = [_at(domain, share) for share in shares]
    return list(dict.fromkeys(map(round, ticks))) if isinstance(domain, Int) else ticks


def _at(domain: Int | Float, share: float) -> float:
    """The reverse of `position`."""
    if domain.log:
        return float(domain.low * (domain.high / domain.low) ** share)
    return domain.low + share * (domain.high - domain.low)


def slices(facts: Facts) -> list[go.Figure]:
    """Error by each hyperparameter alone, one figure each."""
    return [_slice(facts, name, domain) for name, domain in facts.spec.search_space.domains.items()]


def _slice(facts: Facts, name: str, domain: Domain) -> go.Figure:
    made = figure(name, ERROR_AXIS, height=300, showlegend=False, margin={"l": 50, "r": 12, "t": 12, "b": 44})
    records = [record for record in shown(facts.searched) if name in record.trial.params]
    order = {record.trial.uid: place for place, record in enumerate(facts.searched)}
    add_points(
        made,
        "searched trial",
        [_shown_value(domain, record, name) for record in records],
        [error_pct(record) for record in records],
        [hover(record) for record in records],
        color=[order[record.trial.uid] for record in records],
        colorscale=[[0, FAINT], [1, SEARCHED]],
        size=8,
        line={"color": SEARCHED, "width": 0.6},
    )
    baselines = [record for record in facts.baselines if name in record.trial.params]
    add_points(
        made,
        "baseline",
        [_shown_value(domain, record, name) for record in baselines],
        [error_pct(record) for record in baselines],
        [hover(record) for record in baselines],
        color=BASELINE,
        symbol="diamond",
        size=11,
        line={"color": CARD, "width": 1},
    )
    if facts.best and name in facts.best.params:
        add_best(made, facts, _shown_value(domain, facts.best.first, name))
    _scale_axis(made.layout.xaxis, domain)
    limit_errors(made, [error_pct(record) for record in facts.full])
    return made


def _shown_value(domain: Domain, record: Record, name: str) -> Scalar:
    value = record.trial.params[name]
    return escape(setting(value)) if isinstance(domain, Choice) else value


def _scale_axis(axis: Any, domain: Domain) -> None:
    """Shows the whole domain, with a margin at its ends."""
    if isinstance(domain, Choice):
        options = [escape(setting(option)) for option in domain.options]
        axis.update(type="category", categoryorder="array", categoryarray=options, range=[-0.5, len(options) - 0.5])
        return
    low, high = _scaled(domain, domain.low), _scaled(domain, domain.high)
    room = 0.05 * (high - low) or 1.0
    ticks = _ticks(domain)
    axis.update(range=[low - room, high + room], tickvals=ticks, ticktext=[setting(tick) for tick in ticks])
    if domain.log:
        axis.type = "log"


def contours(facts: Facts, found: Sequence[Surface]) -> list[go.Figure]:
    """Error by two hyperparameters, one figure for each pair, all in the same colours."""
    if not found:
        return []
    low, high = (limit([limit(one.error_pct) for one in found]) for limit in (np.nanmin, np.nanmax))
    return [_contour(facts, surface, float(low), float(high)) for surface in found]


def _contour(facts: Facts, surface: Surface, low: float, high: float) -> go.Figure:
    domains = facts.spec.search_space.domains
    made = figure(surface.x, surface.y, height=360, showlegend=False, margin={"l": 50, "r": 12, "t": 12, "b": 44})
    made.update_layout(plot_bgcolor=GRID)  # seen where the surface has no value
    made.add_contour(
        x=surface.edge,
        y=surface.edge,
        z=surface.error_pct,
        connectgaps=False,
        colorscale=[[0, BEST], [0.5, FAINT], [1, CARD]],
        zmin=low,
        zmax=high,
        line={"color": MUTED, "width": 0.6},
        contours={
            "start": low,
            "end": high,
            "size": max(0.01, (high - low) / 12),
            "showlabels": True,
            "labelformat": ".2f",
            "labelfont": {"color": INK, "size": 10},
        },
        showscale=False,
        hovertemplate="about %{z:.2f} %<extra></extra>",
    )
    for records, style in (
        (shown(facts.searched), {"color": SEARCHED, "size": 6, "line": {"color": CARD, "width": 0.8}}),
        (
            facts.baselines[:1],
            {"color": BASELINE, "symbol": "diamond", "size": 11, "line": {"color": CARD, "width": 1}},
        ),
        (
            [facts.best.first] if facts.best else [],
            {"color": INK, "symbol": "star", "size": 15, "line": {"color": CARD, "width": 1.5}},
        ),
    ):
        x, y = ([position(domains[name], one.trial.params[name]) for one in records] for name in (surface.x, surface.y))
        add_points(made, "", x, y, [hover(record) for record in records], **style)
    _name_positions(made.layout.xaxis, domains[surface.x])
    _name_positions(made.layout.yaxis, domains[surface.y])
    return made


def _name_positions(axis: Any, domain: Domain) -> None:
    """Names values on an axis that goes from 0 to 1."""
    values = domain.options if isinstance(domain, Choice) else _ticks(domain)
    axis.update(
        tickvals=[position(domain, value) for value in values],
        ticktext=[setting(value) for value in values],
        range=[-0.04, 1.04],
        showgrid=False,
        zeroline=False,
    )


_NO_SHARE = Share(0.0, 0.0, 0.0)


def importances(found: Importance) -> go.Figure:
    """Importances, a bar with its interval per hyperparameter."""
    names = list(found.of_error)
    made = figure("share of the differences between trials", "", height=120 + 34 * len(names), barmode="group")
    widest = max(share.high for shares in (found.of_error, found.of_time) for share in shares.values())
    made.update_xaxes(tickformat=".0%", range=[0, 1.02 * widest])
    made.update_yaxes(type="category", autorange="reversed", showgrid=False)
    made.update_layout(showlegend=bool(found.of_time))
    for title, shares, color in (("error", found.of_error, SEARCHED), ("device time", found.of_time, BASELINE)):
        if shares:
            known = {name: shares.get(name, _NO_SHARE) for name in names}
            made.add_bar(
                orientation="h",
                name=title,
                y=names,
                x=[known[name].mean for name in names],
                error_x={
                    "array": [known[name].high - known[name].mean for name in names],
                    "arrayminus": [known[name].mean - known[name].low for name in names],
                    "color": INK,
                    "thickness": 1.5,
                    "width": 5,
                },
                marker={"color": color},
                hovertext=[f"{share.mean:.0%} ({share.low:.0%} to {share.high:.0%})" for share in known.values()],
                hoverinfo="text",
            )
    return made
