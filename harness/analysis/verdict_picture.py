"""A verdict as a still picture: test errors against what a training costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.pictures import COLORS, save_picture
from harness.analysis.verdict_findings import Configuration, Cost, Errors, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rated = tuple[Configuration, Errors, Cost]


def draw_verdict(verdict: Verdict, path: Path) -> None:
    """Draws the mean test error with its 95 % interval and the errors by seed, over device time.

    Where times come from several timing classes, parameters take their place. What failed is left out.

    Raises:
        TroubleError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    rated = [(one, one.errors, one.cost) for one in (verdict.baseline, *verdict.candidates) if one.errors and one.cost]
    has_one_class = len({name for _, _, cost in rated for name in cost.timing_classes}) == 1
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (one, errors, cost) in enumerate(rated):
        x = cost.device_time_s if has_one_class else cost.num_params
        _draw(axes, x, errors, COLORS[number % len(COLORS)], _label(one, cost))
    seeds = f"{len(verdict.seeds)} seeds, {verdict.epochs} epochs on {verdict.train_images:,} images"
    axes.set(
        title=f"{verdict.study}: {verdict.answer}\n({seeds})",
        xlabel="device time of a training (s)" if has_one_class else "parameters",
        ylabel=f"error on the {verdict.test_images:,} test images (%)",
    )
    axes.set_xlim(left=0)
    axes.margins(x=0.1)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_picture(figure, path)


def _draw(axes: Axes, x: float, errors: Errors, color: str, label: str) -> None:
    mean, interval = errors.mean_pct, errors.bootstrap_pct
    axes.errorbar(
        [x], [mean], yerr=[[mean - interval.low], [interval.high - mean]],
        marker="D", color=color, capsize=5, label=label,
    )  # fmt: skip
    axes.plot([x] * len(errors.by_seed_pct), errors.by_seed_pct, "o", color=color, alpha=0.35, markersize=5)


def _label(one: Configuration, cost: Cost) -> str:
    return f"{one.name}, {cost.num_params:,} parameters" + (f": {one.answer}" if one.answer else "")
