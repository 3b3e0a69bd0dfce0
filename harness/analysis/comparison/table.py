"""A comparison on the terminal, and as files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.table import Table

from harness.analysis.comparison.comparison import ALPHA, Comparison, least_p_value
from harness.analysis.comparison.picture import draw_comparison
from harness.analysis.files import write_csv
from harness.analysis.statistics import share_below
from harness.analysis.terminal import plain_console
from harness.study.formatting import duration

MAX_NAME = 64


def show_comparison(comparison: Comparison, stream: TextIO) -> None:
    """Prints a row per method, best first, and the conclusions."""
    console = plain_console(stream)
    console.print(_table(comparison))
    for line in sentences(comparison):
        console.print(line, soft_wrap=True)


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Writes NAME.csv with a row per method, NAME.curves.csv with a row per trial, NAME.png; returns the first's path.

    Raises:
        TroubleError: a file cannot be written.
    """
    name = _file_name([study.spec.study for study in comparison.studies])
    path = folder / f"{name}.csv"
    write_csv(comparison.table, path)
    write_csv(comparison.curves, folder / f"{name}.curves.csv")
    draw_comparison(comparison, folder / f"{name}.png")
    return path


def sentences(comparison: Comparison) -> list[str]:
    """The compared data, the conclusions, and their limits."""
    at = f"compared at {duration(comparison.budget)} of reserved time, which every study has reached"
    if comparison.unit != "device_s":
        at = (
            f"compared at {comparison.budget:.1f} full trainings' worth of epochs, which every study has reached; times"
            " come from several timing classes and are not compared"
        )
    baseline = []
    if comparison.baseline_pct is not None:
        mean_of = f"mean of {comparison.num_baselines} trainings"
        baseline.append(f"the documented network: {comparison.baseline_pct:.2f} %, {mean_of}")
    return [at, *_reused(comparison), *baseline, *_answer(comparison), *_cautions(comparison)]


def _reused(comparison: Comparison) -> Iterator[str]:
    """The studies that did not pay for all of their trials; searches are compared by what they would cost alone."""
    for study in comparison.studies:
        if study.num_reused:
            took_over = f"{study.num_reused} of {len(study.trials)} trials of {study.spec.study} took over results"
            cost = "their epochs count"
            if comparison.unit == "device_s":
                cost = f"the {duration(study.reused_s)} of those trainings count"
            yield f"{took_over} of equal trainings: {cost} as if the study had trained them, which it has not paid"


def _table(comparison: Comparison) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("method")
    for title in ("seeds", "mean\nrank", "incumbent's error %\nmedian (middle half)", "lower in\npairs, %"):
        table.add_column(title, justify="right", no_wrap=True)
    shares = comparison.table["beats_others"]
    for standing, share in zip(comparison.standings, shares, strict=True):
        seeds = str(len(standing.error_pct))
        share_text = "" if share is None else f"{100 * share:.0f}"
        low, median, high = (f"{value:.2f}" for value in standing.quartiles_pct)
        error = median if len(standing.error_pct) == 1 else f"{median} ({low}-{high})"
        error = "none by then" if median == "inf" else error
        table.add_row(standing.method.label, seeds, f"{standing.mean_rank:.2f}", error, share_text)
    return table


def _answer(comparison: Comparison) -> Iterator[str]:
    """The methods that differ by more than chance."""
    standings, num_pairs = comparison.standings, len(comparison.p_values)
    if num_pairs == 0:
        yield "one method only: these studies differ in nothing but seed and budget"
        return
    if least_p_value(standings) > ALPHA:
        yield (
            "too few seeds to say which is better: even the clearest difference could be chance"
            f" (p = {least_p_value(standings):.2f}; `harness sweep NAME --seed 1` adds one)"
        )
        return
    corrected = f", corrected for {num_pairs} pairs" if num_pairs > 1 else ""
    errors_pct = {standing.method.label: standing.error_pct for standing in standings}
    clear = [(pair, p) for pair, p in comparison.p_values.items() if p <= ALPHA]
    for (one, other), p in clear:
        is_lower = share_below(errors_pct[one], errors_pct[other]) > 0.5
        lower, higher = (one, other) if is_lower else (other, one)
        yield f"{lower} ends below {higher}: p = {p:.2g} (Mann-Whitney{corrected})"
    if len(clear) < num_pairs:
        rest = min(p for p in comparison.p_values.values() if p > ALPHA)
        which = "the other pairs differ" if clear else "the methods differ" if num_pairs > 1 else "the two differ"
        yield f"{which} by no more than chance could do: least p = {rest:.2g} (Mann-Whitney{corrected})"


def _cautions(comparison: Comparison) -> Iterator[str]:
    single = [standing.method.label for standing in comparison.standings if len(standing.error_pct) == 1]
    if single:
        yield f"one seed says little: {'; '.join(single)}"
    for standing in comparison.standings:
        specs = [comparison.studies[i].spec for i in standing.method.repeats]
        if len({spec.seed for spec in specs}) < len(specs):
            names = ", ".join(spec.study for spec in specs)
            yield f"not independent, since some have the same seed: {names}"


def _file_name(studies: Sequence[str]) -> str:
    """The studies' names; if they are too long together, the first one and a short digest of all."""
    name = "-vs-".join(studies)
    if len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(" ".join(studies).encode()).hexdigest()[:8]
    return f"{studies[0][: MAX_NAME - 30]}-and-{len(studies) - 1}-more-{digest}"
