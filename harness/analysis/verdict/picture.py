"""A verdict as a PNG picture: test error over the cost of a training."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

from harness.analysis.pictures import COLORS, save_picture
from harness.analysis.verdict.findings import Configuration, Cost, Errors, Verdict


def draw_verdict(verdict: Verdict, path: Path) -> None:
    """Draws test errors by seed and their mean over device time.

    If times come from several timing classes, the number of parameters replaces them. Failed configurations are left
    out. There are no intervals: their width is mostly due to the test images, which are the same for all, so they
    overlap even if the paired test is significant.

    Raises:
        TroubleError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    rated = [(one, one.errors, one.cost) for one in (verdict.baseline, *verdict.candidates) if one.errors and one.cost]
    has_one_class = len({name for _, _, cost in rated for name in cost.timing_classes}) == 1
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    costs = [cost.device_time_s if has_one_class else cost.num_params for _, _, cost in rated]
    for x, (one, errors, cost), color in zip(costs, rated, cycle(COLORS), strict=False):
        axes.plot([x] * len(errors.by_seed_pct), errors.by_seed_pct, "o", color=color, alpha=0.35, markersize=6)
        # Hollow, since a seed's error may lie on the mean.
        axes.plot(
            [x], [errors.mean_pct], "D", color=color, fillstyle="none", markersize=10, label=_label(one, errors, cost)
        )
    seeds = f"{len(verdict.seeds)} seeds, {verdict.trained}"
    axes.set(
        title=f"{verdict.study}: {verdict.answer}\n({seeds})",
        xlabel="device time of a training (s)" if has_one_class else "parameters",
        ylabel=f"error on the {verdict.test_images:,} test images (%)",
    )
    axes.set_xlim(0, 1.1 * max(costs))
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside lower center")  # at a place without errors
    save_picture(figure, path)


def _label(one: Configuration, errors: Errors, cost: Cost) -> str:
    answer = f": {one.answer}" if one.answer else ""
    return f"{one.name}, {errors.mean_pct:.2f} %, {cost.num_params:,} parameters{answer}"
