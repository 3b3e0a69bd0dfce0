"""The page's main figures as PNG files, for MLflow's parent run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from harness.analysis.report import search_figures, space_figures, work_figures
from harness.analysis.report.sections import Material

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS_PER_PIXEL = 0.75
_DASHES = {None: "-", "dash": "--", "dot": ":"}
_MARKERS = {"circle": "o", "diamond": "D", "star": "*", "x": "x"}


def draw_stills(known: Material, folder: Path) -> list[Path]:
    """Writes the figures for which the study has data."""
    from matplotlib.figure import Figure

    paths = []
    for name, title, made in _figures(known):
        figure = Figure(figsize=(7.0, 4.2), layout="constrained")
        axes = figure.subplots()
        _draw(axes, made)
        axes.set_title(f"{known.facts.spec.study}: {title}")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=110, format="png")
    return paths


def _figures(known: Material) -> Iterator[tuple[str, str, go.Figure]]:
    facts = known.facts
    if facts.searched:
        yield "best_so_far", "best so far", search_figures.best_so_far(facts, known.steps)
        yield "error_against_time", f"error against {facts.time_word}", search_figures.error_against_time(facts)
    if known.importance:
        yield "importance", "what matters", space_figures.importances(known.importance)
    if work_figures.curves_shown(facts):
        yield "learning_curves", "learning curves", work_figures.learning_curves(facts)


def _draw(axes: Axes, made: go.Figure) -> None:
    """Draws a figure of the page; supports the Plotly features of these four figures only."""
    from matplotlib.ticker import MultipleLocator

    x_axis, y_axis = made.layout.xaxis, made.layout.yaxis
    for band in made.layout.shapes:
        axes.axhspan(band.y0, band.y1, color=_palette()[band.fillcolor], alpha=band.opacity, linewidth=0)
    for place, trace in enumerate(made.data):
        if trace.type == "bar":
            _draw_bars(axes, trace, place, len(made.data))
        else:
            _draw_scatter(axes, trace)
    axes.set(xlabel=x_axis.title.text, ylabel=y_axis.title.text)
    if y_axis.type == "log":
        axes.set_yscale("log")
        axes.set_yticks(y_axis.tickvals, y_axis.ticktext)
        axes.minorticks_off()
    elif y_axis.range:
        axes.set_ylim(y_axis.range)
    if x_axis.dtick:
        axes.xaxis.set_major_locator(MultipleLocator(x_axis.dtick))
    if x_axis.tickformat:
        axes.xaxis.set_major_formatter(f"{{x:{x_axis.tickformat}}}")
    if y_axis.autorange == "reversed":
        axes.invert_yaxis()
    if made.layout.showlegend is not False:
        axes.legend(frameon=False)


def _draw_bars(axes: Axes, trace: go.Bar, place: int, num_traces: int) -> None:
    """Draws horizontal bars, a group for each category."""
    categories = np.arange(len(trace.y))
    height = 0.8 / num_traces
    axes.barh(
        categories + (place - (num_traces - 1) / 2) * height,
        trace.x,
        height,
        xerr=[trace.error_x.arrayminus, trace.error_x.array],
        capsize=3,
        color=_palette()[trace.marker.color],
        ecolor=_palette()[trace.error_x.color],
        label=trace.name,
    )
    axes.set_yticks(categories, trace.y)


def _draw_scatter(axes: Axes, trace: go.Scatter) -> None:
    x, y = np.array(trace.x, float), np.array(trace.y, float)  # a gap, None, becomes NaN
    label = None if trace.showlegend is False else trace.name
    if "lines" in trace.mode:
        axes.plot(
            x, y, _DASHES[trace.line.dash],
            color=_palette()[trace.line.color], linewidth=_POINTS_PER_PIXEL * trace.line.width, alpha=trace.opacity,
            drawstyle="steps-post" if trace.line.shape == "hv" else "default", label=label,
        )  # fmt: skip
        label = None
    if "markers" in trace.mode:
        color = _palette()[trace.marker.color or trace.line.color]
        symbols = np.broadcast_to(np.array(trace.marker.symbol or "circle"), x.shape)
        for symbol in dict.fromkeys(symbols.tolist()):
            axes.plot(
                x[symbols == symbol], y[symbols == symbol], _MARKERS[symbol],
                color=color, markersize=_POINTS_PER_PIXEL * trace.marker.size,
                alpha=trace.marker.opacity or trace.opacity, label=label,
            )  # fmt: skip


@cache
def _palette() -> dict[str, str]:
    """The page's colours on a light background, by their names in its figures."""
    light, _, _ = (Path(__file__).parent / "page.css").read_text(encoding="utf-8").partition("@media")
    return {f"var(--{name})": color for name, color in re.findall(r"--([a-z]+): (#[0-9a-f]{6})", light)}
