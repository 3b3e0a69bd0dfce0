"""A comparison as a PNG picture: the incumbents' errors over cost."""

from __future__ import annotations

from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.comparison.comparison import Comparison, Standing
from harness.analysis.comparison.incumbents import Unit
from harness.analysis.pictures import COLORS, draw_median, save_picture
from harness.study.formatting import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM_POINTS = 400
_TITLES: dict[Unit, str] = {
    "device_s": "seconds a device was held",
    "trainings": "full trainings' worth of epochs",
}


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Draws a curve per method, with several seeds their median and middle half, against time and against trainings.

    Times are left out if they cannot be compared. A method is drawn up to the cost that all of its studies have
    reached; the dotted line is the budget of the table.

    Raises:
        TroubleError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    units: list[Unit] = ["device_s", "trainings"] if comparison.unit == "device_s" else ["trainings"]
    figure = Figure(figsize=(5.5 * len(units), 4.2), layout="constrained")
    axes = list(figure.subplots(1, len(units), sharey=True, squeeze=False).flat)
    for axis, unit in zip(axes, units, strict=True):
        _draw(axis, comparison, unit)
    axes[0].set_ylabel("incumbent's validation error, %")
    axes[-1].legend(fontsize=8)
    save_picture(figure, path)


def _draw(axis: Axes, comparison: Comparison, unit: Unit) -> None:
    looks = cycle(product(("-", "--", "-."), COLORS))
    for standing, (linestyle, color) in zip(comparison.standings, looks, strict=False):
        _draw_method(axis, comparison, standing, unit, linestyle, color)
    if comparison.baseline_pct is not None:
        label = f"documented network, mean of {comparison.num_baselines}"
        axis.axhline(comparison.baseline_pct, color="0.5", linewidth=1, linestyle=(0, (6, 3)), label=label)
    if unit == comparison.unit:
        axis.axvline(comparison.budget, color="0.5", linewidth=1, linestyle=":")
    axis.set_xlabel(_TITLES[unit])
    axis.set_xlim(left=0)
    axis.grid(alpha=0.3)


def _draw_method(
    axis: Axes, comparison: Comparison, standing: Standing, unit: Unit, linestyle: str, color: str
) -> None:
    studies = [comparison.studies[i] for i in standing.method.repeats]
    budgets = np.linspace(0, min(float(study.cost(unit)[-1]) for study in studies), NUM_POINTS)
    errors = np.array([study.at(budgets, unit) for study in studies])
    has_started = np.isfinite(errors).all(axis=0)
    num_seeds = len(studies)
    label = f"{standing.method.label} ({counted(num_seeds, 'seed')})"
    draw_median(
        axis, budgets[has_started], errors[:, has_started],
        color=color, label=label, linestyle=linestyle, band=num_seeds > 1,
    )  # fmt: skip
