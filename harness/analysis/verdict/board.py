"""A verdict as a leaderboard on the terminal: a row per network with what its trainings measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.console import Console

from harness.analysis.leaderboard.columns import INTERVAL
from harness.analysis.terminal import natural_width
from harness.analysis.verdict.findings import Configuration, Verdict, find_verdict
from harness.analysis.verdict.sentences import sentences
from harness.analysis.verdict.statistics import LOOKS
from harness.analysis.verdict.table import DIFFERENCE, P_VALUE, Columns, difference, p_value, table_of
from harness.analysis.verdict.trainings import configurations
from harness.ledger.ledger import Ledger
from harness.study.formatting import CHANGES, changes
from harness.study.metrics import test_error_rate_pct
from harness.study.records import Record
from harness.study.spec import SweepSpec

MIN_CHANGES = 25  # least width of the column of changes, which may be broken
POINTS, P_VALUES, TIME = "difference, points\n(corrected 95 %)", "p-value", "device\ntime s"
# Left out where there is no room, in this order; the answer stands in the sentence under the table.
OPTIONAL = (CHANGES, "params", "seeds", P_VALUES, TIME, POINTS, "answer")


@dataclass(frozen=True)
class _Trained:
    """The means over the trainings of a network so far, also before the first look at the results."""

    num_seeds: int
    error_pct: float
    device_time_s: float
    num_params: int | None


def show_board(ledger: Ledger, spec: SweepSpec, console: Console) -> None:
    """Prints the networks of a verdict, the study with these settings, what the columns mean, and the answer."""
    verdict = find_verdict(ledger, spec)
    rows = [verdict.baseline, *verdict.candidates]
    trained = _trained(spec, [record for record in ledger.finished(spec.study) if record.result])
    if any(trained):
        columns, hidden = _that_fit(_columns(rows, trained, verdict), console)
        console.print(table_of(columns))
        if hidden:
            names = ", ".join(title.replace("\n", " ") for title in hidden)
            console.print(f"no room in {console.width} columns for {names}: `harness verdict {spec.about}` shows them")
        if verdict.seeds:
            console.print(_about(columns))
        else:
            console.print(f"test error: mean over the seeds so far; the first look is after {min(LOOKS)} seeds of each")
        if len({name for row in rows if row.cost for name in row.cost.timing_classes}) > 1:
            console.print("device times come from several timing classes and cannot be compared")
    for line in [*sentences(verdict), *(f"{row.name} failed with {why}" for row in rows for why in row.failures)]:
        console.print(line)
    console.print(f"`harness verdict {spec.about}` shows further tests, after training the seeds that are left, if any")


def _about(columns: Columns) -> str:
    """What these columns mean."""
    parts = ["test error: mean over the seeds, and its interval for other seeds and images"]
    parts += [DIFFERENCE] if POINTS in columns else []
    corrected = [what for what, title in (("its interval", POINTS), ("p-value", P_VALUES)) if title in columns]
    if corrected:
        parts.append(f"{' and '.join(corrected)} corrected for the number of candidates and looks")
    parts += [f"{P_VALUE}, decides below 0.05"] if P_VALUES in columns else []
    return "; ".join(parts)


def _trained(spec: SweepSpec, records: Sequence[Record]) -> list[_Trained | None]:
    """In the order of `configurations`; None without a training that has read the test images."""
    return [_means(spec, [one for one in records if one.trial.params == params]) for params in configurations(spec)]


def _means(spec: SweepSpec, records: Sequence[Record]) -> _Trained | None:
    found = [
        (one, error) for one in records if one.result and (error := test_error_rate_pct(spec, one.result)) is not None
    ]
    if not found:
        return None
    return _Trained(
        num_seeds=len(found),
        error_pct=fmean(error for _, error in found),
        device_time_s=fmean(one.device_time_s for one, _ in found),
        num_params=next((one.result.num_params for one, _ in found if one.result), None),
    )


def _columns(rows: Sequence[Configuration], trained: Sequence[_Trained | None], verdict: Verdict) -> Columns:
    """With the numbers of the last look; before the first one those of the trainings so far."""
    baseline, comparisons = rows[0], [row.comparison for row in rows]
    return {
        "network": [row.name for row in rows],
        "answer": [(row.answer or "").replace(" ", "\n") for row in rows],
        "seeds": [
            str(len(verdict.seeds)) if row.errors else str(one.num_seeds if one else 0)
            for row, one in zip(rows, trained, strict=True)
        ],
        f"test error %{INTERVAL if verdict.seeds else ''}": [
            _error(row, one) for row, one in zip(rows, trained, strict=True)
        ],
        POINTS: [difference(one, baseline.errors) for one in comparisons],
        P_VALUES: [p_value(one.p_value) if one else "" for one in comparisons],
        TIME: [_time(row, one) for row, one in zip(rows, trained, strict=True)],
        "params": [f"{one.num_params:,}" if one and one.num_params else "" for one in trained],
        CHANGES: [changes(row.params, baseline.params) for row in rows],
    }


def _error(row: Configuration, trained: _Trained | None) -> str:
    if row.errors:
        limits = row.errors.bootstrap_pct
        return f"{row.errors.mean_pct:.2f} ({limits.low:.2f}-{limits.high:.2f})"
    return f"{trained.error_pct:.2f}" if trained else ""


def _time(row: Configuration, trained: _Trained | None) -> str:
    seconds = row.cost.device_time_s if row.cost else trained.device_time_s if trained else None
    return "" if seconds is None else f"{seconds:.1f}"


def _that_fit(columns: Columns, console: Console) -> tuple[Columns, list[str]]:
    """The columns for which there is room, and the titles of the others."""
    hidden: list[str] = []
    while _least_width(columns, console) > console.width and len(hidden) < len(OPTIONAL):
        hidden.append(OPTIONAL[len(hidden)])
        columns = {title: texts for title, texts in columns.items() if title not in hidden}
    return columns, hidden


def _least_width(columns: Mapping[str, Sequence[str]], console: Console) -> int:
    """With the column of changes broken into lines."""
    others = {title: list(texts) for title, texts in columns.items() if title != CHANGES}
    return natural_width(table_of(others), console) + MIN_CHANGES * (CHANGES in columns)
