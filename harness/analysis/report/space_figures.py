"""Figures of the search space: the error by the searched hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from harness.analysis.report.drawing import (
    BASELINE,
    BEST,
    CARD,
    ERROR_AXIS,
    FAINT,
    INK,
    MUTED,
    SEARCHED,
    add_best,
    add_points,
    errors_range,
    figure,
    hover,
    limit_errors,
    shown,
)
from harness.analysis.report.facts import Facts
from harness.analysis.report.importance import Importance, Surface, position
from harness.study.comparability import error_pct
from harness.study.formatting import setting
from harness.study.records import Record, Scalar
from harness.study.space import Choice, Domain, Float, Int

MAX_TICKS = 6


def parallel_coordinates(facts: Facts) -> go.Figure:
    """A line per trial through all its settings to its error; the darkest lines are the best."""
    records = sorted(shown(facts.searched), key=error_pct, reverse=True)  # the best on top
    errors = [error_pct(record) for record in records]
    low, high = errors_range(errors) or (min(errors), max(errors))
    low, high = math.floor(100 * low) / 100, math.ceil(100 * high) / 100  # shown without a logarithm
    made = figure("", "", height=460, margin={"l": 60, "r": 60, "t": 80, "b": 30})
    dimensions = [
        _dimension(name, domain, [record.trial.params.get(name) for record in records])
        for name, domain in facts.spec.search_space.domains.items()
    ]
    dimensions.append({"label": "error %", "values": [min(error, high) for error in errors], "range": [low, high]})
    made.add_parcoords(
        dimensions=dimensions,
        line={"color": errors, "cmin": low, "cmax": high, "colorscale": [[0, BEST], [0.3, SEARCHED], [1, FAINT]]},
        labelfont={"color": INK, "size": 12},
        tickfont={"color": INK, "size": 11},
        rangefont={"color": MUTED, "size": 10},
        unselected={"line": {"color": FAINT, "opacity": 0.1}},
        labelangle=-20,
    )
    return made


def _dimension(name: str, domain: Domain, values: Sequence[Scalar | None]) -> dict[str, Any]:
    """An axis; inactive settings have a tick below the others."""
    label = escape(name)
    if isinstance(domain, Choice):
        places: list[float | None] = [None if value is None else float(domain.options.index(value)) for value in values]
        ticks = [(float(place), escape(setting(option))) for place, option in enumerate(domain.options)]
        low, high = 0.0, max(1.0, len(domain.options) - 1.0)
    else:
        places = [None if value is None else _scaled(domain, float(value)) for value in values]
        low, high = _scaled(domain, domain.low), _scaled(domain, domain.high)
        ticks = [(_scaled(domain, value), setting(value)) for value in _ticks(domain)]
    if None in places:
        unset = low - 0.12 * (high - low)
        places, ticks, low = [unset if one is None else one for one in places], [(unset, "unset"), *ticks], unset
    return {
        "label": label,
        "values": places,
        "range": [low, high if high > low else low + 1],
        "tickvals": [place for place, _ in ticks],
        "ticktext": [text for _, text in ticks],
    }


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
        [hover(facts, record) for record in records],
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
        [hover(facts, record) for record in baselines],
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
    low, high = min(one.error_pct.min() for one in found), max(one.error_pct.max() for one in found)
    return [_contour(facts, surface, float(low), float(high)) for surface in found]


def _contour(facts: Facts, surface: Surface, low: float, high: float) -> go.Figure:
    domains = facts.spec.search_space.domains
    made = figure(surface.x, surface.y, height=360, showlegend=False, margin={"l": 50, "r": 12, "t": 12, "b": 44})
    made.add_contour(
        x=surface.edge,
        y=surface.edge,
        z=surface.error_pct,
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
        add_points(made, "", x, y, [hover(facts, record) for record in records], **style)
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


def importances(found: Importance) -> go.Figure:
    """Importances, a bar per hyperparameter."""
    names = list(found.of_error)
    made = figure("share of the differences between trials", "", height=120 + 34 * len(names), barmode="group")
    made.update_xaxes(tickformat=".0%", rangemode="tozero")
    made.update_yaxes(type="category", autorange="reversed", showgrid=False)
    made.update_layout(showlegend=bool(found.of_time))
    for title, shares, color in (("error", found.of_error, SEARCHED), ("device time", found.of_time, BASELINE)):
        if shares:
            made.add_bar(
                orientation="h",
                name=title,
                y=names,
                x=[shares.get(name, 0.0) for name in names],
                marker={"color": color},
                text=[f"{shares.get(name, 0.0):.0%}" for name in names],
                textposition="outside",
                cliponaxis=False,
                hoverinfo="skip",
            )
    return made
