"""Common functions of PNG pictures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.support.atomic_files import replaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

# Eight colours for colour-blind readers: M. Okabe and K. Ito, "Color Universal Design" (2008); yellow, which
# is faint on white, comes last.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442")


def draw_median(
    axis: Axes, x: Floats, curves: Floats, *, color: str, label: str, linestyle: str = "-", band: bool = True
) -> None:
    """Draws the median of curves (repeat, x) and, with `band`, the middle half of them."""
    low, median, high = np.quantile(curves, [0.25, 0.5, 0.75], axis=0)
    axis.plot(x, median, color=color, linestyle=linestyle, label=label)
    if band:
        axis.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)


def make_logarithmic(axes: Iterable[Axes], xlabel: str) -> None:
    """Finishes plots with two logarithmic axes: scales, a label for x, grid, legend."""
    for axis in axes:
        axis.set(xscale="log", yscale="log", xlabel=xlabel)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)


def save_picture(figure: Figure, path: Path) -> None:
    """Writes a PNG atomically."""
    with replaced(path) as unfinished:
        figure.savefig(unfinished, dpi=110, format="png")
