"""Compares rules that stop trials early, on the curves of real trainings.

A random search without pruning is trained first. Then each rule is replayed on its trials, in many random orders, each
time until the epochs of a quarter of the trials are spent. The measure is the error of the best trial that was trained
to its end: a rule gains by the trials that it has time for, and loses by those that it stops wrongly. The studies are
in the folder of results, so an interrupted comparison continues.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scipy import stats

from harness.analysis.files import write_csv
from harness.analysis.pictures import save_picture
from harness.bench.results import write_json
from harness.bench.studies import all_trained
from harness.errors import TroubleError
from harness.search.factory import make_search
from harness.study.comparability import full_error_pct
from harness.study.records import EpochReport, Outcome, Record, Role, Trial, TrialResult
from harness.study.settings import Budget, Flags
from harness.study.spec import SweepSpec
from harness.study.sweep_file import load_sweep
from harness.support.home import sweeps_folder

if TYPE_CHECKING:
    import pandas as pd

SWEEPS = ("fc-recipe", "cnn-recipe")
NUM_TRIALS, NUM_TRIALS_QUICK = {"fc-recipe": 60, "cnn-recipe": 40}, 12
IMAGES, EPOCHS = 10_000, 6
IMAGES_QUICK, EPOCHS_QUICK = 1_000, 4
NUM_ORDERS, NUM_ORDERS_QUICK = 200, 20
NUM_BASELINES = 4
SHARE = 4  # of the trials: the budget

NONE, FIRST_EPOCH = "none", "first epoch"
PRUNERS = ("percentile", "median", "successive_halving", "hyperband")
AMONG_BASELINES = ", baseline counted"  # trials are compared with the baseline's trainings as well
RULES = (NONE, *PRUNERS, *(f"{pruner}{AMONG_BASELINES}" for pruner in PRUNERS[:2]), FIRST_EPOCH)


@dataclass(frozen=True)
class Curve:
    """A trial that was trained to its end: a report for each epoch, and the error on all validation images, percent."""

    trial: Trial
    reports: tuple[EpochReport, ...]
    final_pct: float


@dataclass(frozen=True)
class Replay:
    """What a rule finds in one order.

    Attributes:
        best_pct: Lowest final error among the trials trained to their end, percent; without any, the highest of all.
        num_started: Trials for which there was time.
    """

    best_pct: float
    num_started: int


def run(out_dir: Path, repeats: int | None = None, quick: bool = False) -> pd.DataFrame:
    """Trains and replays; writes pruning.json, .csv and .png into `out_dir`, and the studies into a folder there.

    Args:
        out_dir: Created if missing.
        repeats: Number of orders; None: 200, or 20 if quick.
        quick: Few trials, images and epochs: within five minutes on two cores.

    Returns:
        The table of pruning.csv: see `table`.

    Raises:
        TroubleError: a study was interrupted, or has too few trials.
    """
    import pandas as pd

    home = out_dir / ("pruning-quick" if quick else "pruning")
    num_orders = repeats or (NUM_ORDERS_QUICK if quick else NUM_ORDERS)
    found = {}
    for name in SWEEPS:
        spec = _study(name, quick=quick)
        baselines, curves = _trained(spec, home)
        found[name] = curves, {rule: replays(rule, spec, curves, baselines, num_orders) for rule in RULES}
    frame = pd.concat([table(name, *each) for name, each in found.items()], ignore_index=True)
    write_csv(frame, out_dir / "pruning.csv")
    measured = {
        name: {rule: [one.best_pct for one in each] for rule, each in by_rule.items()}
        for name, (_, by_rule) in found.items()
    }
    write_json(out_dir / "pruning.json", ("keras", "optuna"), {"best_pct": measured})
    plot({name: by_rule for name, (_, by_rule) in found.items()}, out_dir / "pruning.png")
    return frame


def replays(
    rule: str, spec: SweepSpec, curves: Sequence[Curve], baselines: Sequence[Curve], num_orders: int
) -> list[Replay]:
    """Replays a rule on the trials in this number of random orders, the same for each rule."""
    rng, found = random.Random(0), []  # noqa: S311
    num_trainings = _num_trainings(curves)
    for _ in range(num_orders):
        order = rng.sample(list(curves), len(curves))
        if rule == FIRST_EPOCH:
            found.append(_by_first_epoch(spec, order, num_trainings))
        else:
            before = baselines if rule.endswith(AMONG_BASELINES) else ()
            found.append(_by_pruner(rule.removesuffix(AMONG_BASELINES), spec, before, order, num_trainings))
    return found


def table(name: str, curves: Sequence[Curve], by_rule: dict[str, list[Replay]]) -> pd.DataFrame:
    """One row per rule, for the trials of one sweep.

    Columns: sweep, trials, trainings (the budget, in full trainings), rule; error_pct, the mean over orders of the best
    error found; gain_points, its mean difference from no pruning, with its standard error gain_se_points; started, the
    mean number of trials started; rank_correlation of the trials' errors after the first epoch with the final ones
    (Spearman's).
    """
    import pandas as pd

    first = [curve.reports[0].val_error_rate_pct for curve in curves]
    correlation = float(stats.spearmanr(first, [curve.final_pct for curve in curves]).statistic)
    plain = by_rule[NONE]

    def row(rule: str, each: Sequence[Replay]) -> dict[str, object]:
        gains = [without.best_pct - one.best_pct for without, one in zip(plain, each, strict=True)]
        return {
            "sweep": name,
            "trials": len(curves),
            "trainings": _num_trainings(curves),
            "rule": rule,
            "error_pct": round(statistics.fmean(one.best_pct for one in each), 3),
            "gain_points": round(statistics.fmean(gains), 3),
            "gain_se_points": round(statistics.stdev(gains) / len(gains) ** 0.5, 3) if len(gains) > 1 else None,
            "started": round(statistics.fmean(one.num_started for one in each), 1),
            "rank_correlation": round(correlation, 2),
        }

    return pd.DataFrame([row(rule, each) for rule, each in by_rule.items()])


def plot(found: dict[str, dict[str, list[Replay]]], path: Path) -> None:
    """The mean of the best error found by each rule, with its standard error, one panel per sweep."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 2.6), layout="constrained")
    for axis, (name, by_rule) in zip(figure.subplots(1, len(found), squeeze=False).flat, found.items(), strict=True):
        means = [statistics.fmean(one.best_pct for one in each) for each in by_rule.values()]
        errors = [statistics.pstdev(one.best_pct for one in each) / len(each) ** 0.5 for each in by_rule.values()]
        axis.errorbar(means, range(len(means)), xerr=errors, fmt="o", capsize=3)
        axis.set_yticks(range(len(means)), list(by_rule))
        axis.invert_yaxis()
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("error of the best trial found, percent")
        axis.grid(axis="x", alpha=0.3)
    save_picture(figure, path)


def _num_trainings(curves: Sequence[Curve]) -> int:
    """The budget of a replay, in full trainings."""
    return max(1, len(curves) // SHARE)


def _by_pruner(
    pruner: str, spec: SweepSpec, before: Sequence[Curve], order: Sequence[Curve], num_trainings: int
) -> Replay:
    """The trials one after the other, each until the pruner of a study stops it; "none" stops none."""
    search = make_search(spec.changed(pruner=pruner))
    for curve in before:
        search.add(curve.trial)
        for report in curve.reports:
            search.report(curve.trial, report)
        search.tell(curve.trial, TrialResult(Outcome.COMPLETED, curve=curve.reports))
    left, num_started = num_trainings * spec.epochs, 0
    best_pct = max(curve.final_pct for curve in order)
    for curve in order:
        if not left:
            break
        num_started += 1
        search.add(curve.trial)
        outcome, seen = Outcome.COMPLETED, list[EpochReport]()
        for report in curve.reports[:left]:
            seen.append(report)
            if not search.report(curve.trial, report) and report.epoch < spec.epochs:
                outcome = Outcome.PRUNED
                break
        left -= len(seen)
        if outcome is Outcome.COMPLETED and len(seen) == spec.epochs:
            best_pct = min(best_pct, curve.final_pct)
        search.tell(curve.trial, TrialResult(outcome, curve=tuple(seen)))
    return Replay(best_pct, num_started)


def _by_first_epoch(spec: SweepSpec, order: Sequence[Curve], num_trainings: int) -> Replay:
    """All for one epoch, then the best quarter of the trainings to their end.

    R. Egele et al., "Is One Epoch All You Need For Multi-Fidelity Hyperparameter Optimization?", arXiv 2307.15422.
    """
    num_kept = max(1, num_trainings // 4)
    num_started = min(len(order), num_trainings * spec.epochs - num_kept * (spec.epochs - 1))
    kept = sorted(order[:num_started], key=lambda curve: curve.reports[0].val_error_rate_pct)[:num_kept]
    return Replay(min(curve.final_pct for curve in kept), num_started)


def _study(name: str, *, quick: bool) -> SweepSpec:
    """A random search without pruning, at the fidelity of a short sweep."""
    flags = Flags(sampler="random", pruner="none", study=f"{name}-curves", seed=0)
    spec = load_sweep(sweeps_folder() / f"{name}.toml", flags, "quick")
    return spec.changed(
        prior="none",
        train_images=IMAGES_QUICK if quick else IMAGES,
        epochs=EPOCHS_QUICK if quick else EPOCHS,
        baseline_seeds=NUM_BASELINES,
        budget=Budget(trials=NUM_TRIALS_QUICK if quick else NUM_TRIALS[name]),
    )


def _trained(spec: SweepSpec, home: Path) -> tuple[list[Curve], list[Curve]]:
    """Trains what is left to train; returns the trials trained to the end: the baseline's, and the searched ones."""
    found: dict[Role, list[Curve]] = {Role.BASELINE: [], Role.TRIAL: []}
    for record in all_trained(spec, home):
        if curve := _curve(spec, record):
            found[record.trial.role].append(curve)
    if len(found[Role.TRIAL]) < SHARE:
        raise TroubleError(f"{spec.study} has {len(found[Role.TRIAL])} trials trained to the end; needed: {SHARE}")
    return found[Role.BASELINE], found[Role.TRIAL]


def _curve(spec: SweepSpec, record: Record) -> Curve | None:
    """None: it was not trained to its end."""
    final_pct = full_error_pct(spec, record)
    if final_pct is None or record.result is None:
        return None
    return Curve(record.trial, record.result.curve, final_pct)
