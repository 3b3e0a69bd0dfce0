"""What each change of a study's best configuration is worth: its error with and without the change."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TextIO

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from scipy.special import stdtrit

from harness.analysis.files import write_csv
from harness.analysis.terminal import plain_console
from harness.study.comparability import Configuration, Configurations, error_pct, key_of
from harness.study.formatting import changed, of_seeds, setting, signed
from harness.study.noise import pooled_sd
from harness.study.records import Params, Record
from harness.study.spec import SweepSpec

GROUPS = ("augment_",)  # settings with this start are also taken back together


@dataclass(frozen=True)
class Worth:
    """The worth of one change.

    Attributes:
        change: Its hyperparameter, or the common start of several that are taken back together.
        best, documented: Its values; empty for several.
        num_seeds: Number of seeds with which the best was trained with and without it.
        error_pct: Mean validation error without the change over these seeds, percent.
        points: By how much that is above the best's mean over the same seeds.
        low, high: 95 % interval of `points`; None if no change has two seeds.
    """

    change: str
    best: str
    documented: str
    num_seeds: int
    error_pct: float
    points: float
    low: float | None = None
    high: float | None = None


def without_each(spec: SweepSpec, best: Params) -> dict[str, Params]:
    """By change, the best configuration with the documented value in its place.

    A setting that the documented network does not have, such as the size of a kernel that is not there, is no change of
    its own; it goes with the setting that it depends on.
    """
    documented = spec.baseline_params
    names = [name for name in changed(best, documented) if name in documented]
    together = {f"{start}*": [name for name in names if name.startswith(start)] for start in GROUPS}
    changes = {name: [name] for name in names} | {start: group for start, group in together.items() if len(group) > 1}
    everything = {**spec.documented, **spec.recipe}

    def without(names: Sequence[str]) -> Params:
        return spec.search_space.restrict({**everything, **best, **{name: everything[name] for name in names}})

    return {change: without(names) for change, names in changes.items()}


def worths(spec: SweepSpec, best: Params, records: Sequence[Record]) -> list[Worth]:
    """The changes of `best` that were trained, by their worth, the largest first.

    Differences are paired by seed. Their variance is pooled over the changes, since few seeds of one say little; the
    interval is that of Student's t for the mean of each.
    """
    found = {key_of(one.params): _errors_pct(one) for one in Configurations(spec, records).all}
    with_all = found.get(key_of(best), {})
    made, differences = [], []
    for change, params in without_each(spec, best).items():
        other = found.get(key_of(params), {})
        seeds = sorted(with_all.keys() & other.keys())
        if seeds:
            points = [other[seed] - with_all[seed] for seed in seeds]
            values = ("", "") if change not in best else (setting(best[change]), setting(params[change]))
            made.append(Worth(change, *values, len(seeds), fmean(other[seed] for seed in seeds), fmean(points)))
            differences.append(points)
    sd, degrees = pooled_sd(differences), sum(len(points) - 1 for points in differences)
    return sorted((_with_interval(one, sd, degrees) for one in made), key=lambda one: -one.points)


def _errors_pct(configuration: Configuration) -> dict[int, float]:
    """Validation errors by seed."""
    return {record.trial.seed: error_pct(record) for record in configuration.records}


def _with_interval(worth: Worth, sd: float | None, degrees: int) -> Worth:
    if sd is None:
        return worth
    half = float(stdtrit(degrees, 0.975)) * sd / math.sqrt(worth.num_seeds)
    return dataclasses.replace(worth, low=worth.points - half, high=worth.points + half)


def show_worths(spec: SweepSpec, best: Params, records: Sequence[Record], stream: TextIO) -> None:
    """Prints the table."""
    console, found = plain_console(stream), worths(spec, best, records)
    configurations = Configurations(spec, records)
    with_all = next((one for one in configurations.all if key_of(one.params) == key_of(best)), None)
    if not found or with_all is None:
        console.print("no change was trained yet with a seed of the best")
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in ("change", "best", "documented", "seeds", "error %\nwithout it", "worth, points\n(95 % interval)"):
        table.add_column(title, justify="left" if title == "change" else "right", no_wrap=True)
    for one in found:
        interval = "" if one.low is None or one.high is None else f" ({signed(one.low)} to {signed(one.high)})"
        worth = f"{signed(one.points)}{interval}"
        table.add_row(one.change, one.best, one.documented, str(one.num_seeds), f"{one.error_pct:.2f}", worth)
    console.print(table)
    console.print(f"with all changes {with_all.mean_error_pct:.2f} %{of_seeds(with_all.num_seeds)}", soft_wrap=True)
    if configurations.baseline:
        baseline = configurations.baseline
        console.print(f"documented network {baseline.mean_error_pct:.2f} %{of_seeds(baseline.num_seeds)}")


def write_worths(spec: SweepSpec, best: Params, records: Sequence[Record], path: Path) -> None:
    """Writes a row per change as CSV, with the attributes of `Worth` as columns.

    Raises:
        TroubleError: the file cannot be written.
    """
    names = [field.name for field in dataclasses.fields(Worth)]
    write_csv(pd.DataFrame([asdict(one) for one in worths(spec, best, records)], columns=names), path)
