"""A verdict's candidates against the documented network."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from harness.analysis.report.drawing import BASELINE, BEST, INK, MUTED, figure
from harness.analysis.report.tables import Table
from harness.analysis.verdict.findings import Comparison, Configuration, Verdict
from harness.analysis.verdict.trainings import Answer
from harness.study.formatting import signed

_COLORS = {Answer.BETTER: BEST, Answer.WORSE: BASELINE}

Pair = tuple[Configuration, Comparison]


def compared(verdict: Verdict) -> list[Pair]:
    """The candidates that could be compared."""
    return [(one, one.comparison) for one in verdict.candidates if one.comparison]


def differences(pairs: Sequence[Pair]) -> go.Figure:
    """Differences in test error with their corrected intervals, one line per candidate."""
    made = figure("difference in test error from the baseline (points)", "", height=130 + 44 * len(pairs))
    for candidate, comparison in pairs:
        low, high, points = comparison.corrected.low, comparison.corrected.high, comparison.points
        made.add_scatter(
            x=[points],
            y=[candidate.name],
            mode="markers",
            marker={"size": 11, "color": _COLORS.get(candidate.answer or Answer.OPEN, INK)},
            error_x={"type": "data", "symmetric": False, "array": [high - points], "arrayminus": [points - low]},
            hovertext=f"{candidate.name}: {candidate.answer}<br>"
            f"{signed(points)} points ({signed(low)} to {signed(high)})",
            hoverinfo="text",
            showlegend=False,
        )
    made.add_vline(x=0, line={"color": MUTED, "width": 1.5, "dash": "dash"})
    made.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return made


def errors_table(verdict: Verdict) -> Table:
    """Test errors and times of the baseline and the candidates."""
    rows = [_row(one) for one in (verdict.baseline, *verdict.candidates)]
    return Table(("", "answer", "test error %", "worst seed", "device time s", "parameters"), rows, frozenset({0}))


def _row(one: Configuration) -> list[str]:
    errors = ["", ""]
    if one.errors:
        errors = [f"{one.errors.mean_pct:.2f} ± {one.errors.sd_pct:.2f}", f"{one.errors.worst_pct:.2f}"]
    costs = [f"{one.cost.device_time_s:.1f}", f"{one.cost.num_params:,}"] if one.cost else ["", ""]
    return [one.name, one.answer or "", *errors, *costs]
