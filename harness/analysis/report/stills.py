"""The main figures as PNG files, for places that show no page: MLflow's parent run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.report.drawing import ERROR_AXIS, errors_range, scaled_time
from harness.analysis.report.facts import Facts, error_pct, timing_class
from harness.analysis.report.search_figures import pareto_front
from harness.analysis.report.sections import Material
from harness.analysis.report.work_figures import curve, curves_shown
from harness.study.records import Outcome, Record, Role

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, as on the page.
_SEARCHED, _BASELINE, _BEST, _PRUNED, _SHORT = "#0072b2", "#d55e00", "#009e73", "#8b929b", "#b04a8c"


def draw_stills(known: Material, folder: Path) -> list[Path]:
    """Writes as many of the figures as the study has something for."""
    from matplotlib.figure import Figure

    paths = []
    for name, draw in _drawings(known):
        figure = Figure(figsize=(7.0, 4.2), layout="constrained")
        axes = figure.subplots()
        draw(axes, known)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=110, format="png")
    return paths


def _drawings(known: Material) -> Iterator[tuple[str, Callable[[Axes, Material], None]]]:
    if known.facts.searched:
        yield "best_so_far", _best_so_far
        yield "error_against_time", _error_against_time
    if known.importance:
        yield "importance", _importance
    if curves_shown(known.facts):
        yield "learning_curves", _learning_curves


def _best_so_far(axes: Axes, known: Material) -> None:
    facts, steps = known.facts, known.steps
    scale, unit = scaled_time(steps[-1].device_s)
    at = {step.trial: step.device_s / scale for step in steps}
    x = [at[record.trial.number] for record in facts.searched]
    axes.plot(x, list(map(error_pct, facts.searched)), "o", color=_SEARCHED, alpha=0.4, markersize=4, label="trial")
    found = [step for step in steps if step.best_pct is not None]
    best = [step.best_pct or 0.0 for step in found]
    x = [step.device_s / scale for step in found]
    axes.plot(x, best, color=_BEST, linewidth=2.5, drawstyle="steps-post", label="best so far")
    _add_baseline(axes, facts)
    axes.set(xlabel=f"device time used ({unit})", ylabel=ERROR_AXIS, title=f"{facts.spec.study}: best so far")
    _limit(axes, facts)
    axes.legend(frameon=False)


def _error_against_time(axes: Axes, known: Material) -> None:
    facts = known.facts
    (main, _), *_ = facts.timing_classes.most_common()
    records = [record for record in facts.full if timing_class(record) == main]
    points = [(facts.time_s(record), error_pct(record)) for record in records]
    front = [points[place] for place in pareto_front(points)]
    axes.plot(*zip(*front, strict=True), ":", color=_SEARCHED, drawstyle="steps-post", label="Pareto front")
    for role, color, marker, label in (
        (Role.TRIAL, _SEARCHED, "o", "trial"),
        (Role.BASELINE, _BASELINE, "D", "baseline"),
    ):
        mine = [point for point, record in zip(points, records, strict=True) if record.trial.role is role]
        if mine:
            axes.plot(*zip(*mine, strict=True), marker, color=color, alpha=0.75, markersize=6, label=label)
    best = facts.best
    if best and best.timing_class == main and (best_s := facts.mean_time_s(best)) is not None:
        axes.plot(best_s, best.mean_error_pct, "*", color=_BEST, markersize=15, label="best trial")
    axes.set(
        xlabel=f"{facts.time_word} of one training (s)",
        ylabel=ERROR_AXIS,
        title=f"{facts.spec.study}: error against {facts.time_word}",
    )
    _limit(axes, facts)
    axes.legend(frameon=False)


def _importance(axes: Axes, known: Material) -> None:
    shares = known.importance.of_error if known.importance else {}
    names = list(shares)[::-1]
    bars = axes.barh(names, [100 * shares[name] for name in names], color=_SEARCHED)
    axes.margins(x=0.12)
    axes.bar_label(bars, fmt="%.0f %%", padding=3)
    axes.set(xlabel="share of the differences between trials (%)", title=f"{known.facts.spec.study}: what matters")


def _learning_curves(axes: Axes, known: Material) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator

    facts = known.facts
    seen: set[str] = set()
    lowest = math.inf
    for record in curves_shown(facts):
        label, style = _curve_style(facts, record)
        epochs, errors = zip(*curve(facts, record), strict=True)
        axes.plot(epochs, errors, label=None if label in seen else label, **style)
        seen.add(label)
        lowest = min(lowest, *errors)
    if lowest > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel=ERROR_AXIS, title=f"{facts.spec.study}: learning curves")
    axes.legend(frameon=False)


def _curve_style(facts: Facts, record: Record) -> tuple[str, dict[str, Any]]:
    if facts.best and record in facts.best.records:
        return "best trial", {"color": _BEST, "linewidth": 2.5, "zorder": 4}
    if record.trial.role is Role.BASELINE:
        return "baseline", {"color": _BASELINE, "linewidth": 2.0, "zorder": 3}
    if record.trial.epochs < facts.spec.epochs:
        return "given fewer epochs", {"color": _SHORT, "linewidth": 0.9, "linestyle": ":"}
    if record.result and record.result.outcome is Outcome.COMPLETED:
        return "trained to the end", {"color": _SEARCHED, "linewidth": 0.9, "alpha": 0.6}
    return "stopped early", {"color": _PRUNED, "linewidth": 0.9, "linestyle": "--", "marker": "x", "markevery": [-1]}


def _add_baseline(axes: Axes, facts: Facts) -> None:
    if facts.baseline is None:
        return
    errors = facts.baseline.errors_pct
    axes.axhline(facts.baseline.mean_error_pct, color=_BASELINE, linestyle="--", label="baseline")
    if len(errors) > 1:
        axes.axhspan(min(errors), max(errors), color=_BASELINE, alpha=0.13, linewidth=0)


def _limit(axes: Axes, facts: Facts) -> None:
    limits = errors_range([error_pct(record) for record in facts.full])
    if limits:
        axes.set_ylim(limits)
