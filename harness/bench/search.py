"""Compares the samplers with random search on a known function, with several seeds.

Only the training is simulated: proposer, baseline first, repeats, limits, pruning and finalists are those of a sweep
with one worker. The measure is the noise-free error of the incumbent, the configuration with the lowest mean error so
far, since the lowest observed error is partly chance. How far that error is from the noise-free one is shown beside it.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.files import write_csv
from harness.analysis.pictures import draw_median, save_picture
from harness.analysis.statistics import quartiles, share_below
from harness.bench import synthetic_objective
from harness.bench.results import write_json
from harness.search import catalogue
from harness.search.base import NoProposal
from harness.search.factory import make_search
from harness.search.proposer import Next, Proposer
from harness.search.samplers import SAMPLERS
from harness.study.comparability import Configurations
from harness.study.records import EpochReport, Outcome, Record, Role, Seconds, Trial, TrialResult

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NUM_SEEDS, NUM_TRAININGS = 15, 60
NUM_SEEDS_QUICK, NUM_TRAININGS_QUICK = 5, 30


@dataclass(frozen=True)
class Contender:
    """One search method.

    Attributes:
        engine, sampler, pruner: As in a sweep file.
        has_finalists: The last part of its trainings are further seeds of the best.
        prior: As in a sweep file; "misplaced": around one of the worst configurations.
    """

    engine: str
    sampler: str
    pruner: str = "none"
    has_finalists: bool = False
    prior: str = "none"

    @property
    def name(self) -> str:
        pruner = f", {self.pruner} pruner" if self.pruner != "none" else ""
        prior = f", {self.prior} prior" if self.prior != "none" else ""
        return f"{self.engine} {self.sampler}{pruner}{', finalists' if self.has_finalists else ''}{prior}"


@dataclass(frozen=True)
class Standing:
    """The results of a contender.

    Attributes:
        contender: The contender.
        regret_pct: By seed and by cost in full trainings (1, 2, ...): the incumbent's true error minus the lowest
            possible one, in points; NaN before the end of the first full training.
        promised_points: By seed: the error shown for the last incumbent minus its true error.
        search_time_s: By seed: mean search seconds per trial.
    """

    contender: Contender
    regret_pct: list[list[float]]
    promised_points: list[float]
    search_time_s: list[float]

    @property
    def final_pct(self) -> list[float]:
        return [regret[-1] for regret in self.regret_pct]


RANDOM = Contender("optuna", "random")
TWICE = Contender("optuna", "random with twice the budget")
PRUNED = tuple(Contender("optuna", "tpe", pruner) for pruner in ("percentile", "median", "hyperband"))
WITH_FINALISTS = tuple(Contender("optuna", "tpe", pruner, has_finalists=True) for pruner in ("none", "percentile"))
FINALISTS_SHARE = 0.3  # as in the sweep files


def run(out_dir: Path, repeats: int | None = None, quick: bool = False) -> pd.DataFrame:
    """Runs every sampler; writes search.json, search.csv and search.png into `out_dir`.

    Args:
        out_dir: Created if missing.
        repeats: Number of runs of each; None: 15, or 5 if quick.
        quick: Half the budget: within five minutes on two cores.

    Returns:
        The table of search.csv, best first: see `table`.
    """
    num_trainings = NUM_TRAININGS_QUICK if quick else NUM_TRAININGS
    num_seeds = repeats or (NUM_SEEDS_QUICK if quick else NUM_SEEDS)
    best_pct = synthetic_objective.best_error_pct()
    standings = [compete(contender, num_seeds, num_trainings, best_pct) for contender in contenders()]
    standings.append(random_with_twice_the_budget(num_seeds, num_trainings, best_pct))
    frame = table(standings)
    write_csv(frame, out_dir / "search.csv")
    measured = {
        "best_error_pct": best_pct,
        "noise_pct": synthetic_objective.NOISE_PCT,
        "epochs_per_training": synthetic_objective.EPOCHS,
        "space": synthetic_objective.SPACE,
        "standings": [asdict(standing) | {"regret_pct": _with_gaps(standing)} for standing in standings],
    }
    write_json(out_dir / "search.json", ("optuna", "keras-tuner"), measured)
    plot(standings, out_dir / "search.png")
    return frame


def contenders() -> list[Contender]:
    """All installed samplers; the default one with each kind of pruner, and with finalists."""
    able = [s for s in SAMPLERS if s.module is None or importlib.util.find_spec(s.module) is not None]
    return [Contender(sampler.engine, sampler.name) for sampler in able] + [*PRUNED, *WITH_FINALISTS]


def compete(contender: Contender, num_seeds: int, num_trainings: int, best_pct: float) -> Standing:
    """Runs one contender with each seed."""
    races = [race(contender, seed, num_trainings, best_pct) for seed in range(num_seeds)]
    return Standing(contender, *(list(each) for each in zip(*races, strict=True)))


def random_with_twice_the_budget(num_seeds: int, num_trainings: int, best_pct: float) -> Standing:
    """Random search with twice the budget of the others."""
    twice = compete(RANDOM, num_seeds, 2 * num_trainings, best_pct)
    return replace(twice, contender=TWICE, regret_pct=[regret[1::2] for regret in twice.regret_pct])


def race(contender: Contender, seed: int, num_trainings: int, best_pct: float) -> tuple[list[float], float, float]:
    """Runs one study.

    Returns:
        The incumbent's regret by cost in full trainings; the error shown for the last one minus its true error; search
        seconds per trial.
    """
    spec = synthetic_objective.make_spec(contender.engine, contender.sampler, contender.pruner, seed)
    catalogue.check(spec)
    proposer, found, trials = Proposer(spec, make_search(spec), []), Configurations(spec), dict[str, Trial]()
    budget = num_trainings * synthetic_objective.EPOCHS
    before_finals = (1 - FINALISTS_SHARE) * budget if contender.has_finalists else budget
    regret, promised, num_epochs, search_time_s, num_asked = [float("nan")] * num_trainings, float("nan"), 0, 0.0, 0
    while num_epochs < budget:
        proposed = proposer.next(finals=num_epochs >= before_finals)
        if isinstance(proposed, NoProposal):
            break
        trial = proposed.trial
        trials[trial.uid] = trial
        result = _train(proposer, proposed, trials)
        proposer.tell(trial, result)
        found.add(Record(trial, result))
        if trial.role is Role.BASELINE:
            continue  # everybody has it: what counts is what is found besides
        num_epochs += len(result.curve)
        num_asked, search_time_s = num_asked + 1, search_time_s + proposed.search_time_s
        if found.best:
            true_pct = synthetic_objective.error_pct(found.best.params)
            promised = found.best.mean_error_pct - true_pct
            first = -(-num_epochs // synthetic_objective.EPOCHS) - 1
            regret[first:] = [true_pct - best_pct] * len(regret[first:])
    return regret, promised, search_time_s / max(1, num_asked)


def _train(proposer: Proposer, proposed: Next, trials: dict[str, Trial]) -> TrialResult:
    trial = proposed.trial
    if proposed.infeasible:
        return TrialResult(Outcome.INFEASIBLE, proposed.infeasible)
    curve: list[EpochReport] = []
    first = trials[trial.continues].epochs if trial.continues else 0
    for epoch in range(first + 1, trial.epochs + 1):
        curve.append(synthetic_objective.report(trial, epoch))
        if not proposer.report(trial, curve[-1]):
            return TrialResult(Outcome.PRUNED, curve=tuple(curve))
    return TrialResult(Outcome.COMPLETED, curve=tuple(curve), seconds=Seconds(train=float(len(curve))))


def table(standings: Sequence[Standing]) -> pd.DataFrame:
    """One row per contender, the lowest median regret first.

    Columns: engine, sampler, pruner, finalists; seeds, trainings; final_regret_pct and its quartiles _low_pct and
    _high_pct over seeds, in points above the least error there is; promised_points, the error shown for the last
    incumbent minus its true error, mean over seeds; beats_random and beats_random_twice, the share of pairs of seeds in
    which it ends below random search (with twice the budget), 0.5 being no difference; search_time_s per trial.
    """
    import pandas as pd

    finals = {standing.contender: standing.final_pct for standing in standings}
    rows = [_row(standing, finals) for standing in standings]
    return pd.DataFrame(rows).sort_values("final_regret_pct", kind="stable").reset_index(drop=True)


def _row(standing: Standing, finals: dict[Contender, list[float]]) -> dict[str, object]:
    final = standing.final_pct
    low, median, high = quartiles(final)
    return {
        "engine": standing.contender.engine,
        "sampler": standing.contender.sampler,
        "pruner": standing.contender.pruner,
        "finalists": standing.contender.has_finalists,
        "seeds": len(final),
        "trainings": len(standing.regret_pct[0]),
        "final_regret_pct": round(median, 4),
        "final_regret_low_pct": round(low, 4),
        "final_regret_high_pct": round(high, 4),
        "promised_points": round(statistics.fmean(standing.promised_points), 4),
        "beats_random": round(share_below(final, finals[RANDOM]), 3),
        "beats_random_twice": round(share_below(final, finals[TWICE]), 3),
        "search_time_s": round(statistics.fmean(standing.search_time_s), 4),
    }


def _with_gaps(standing: Standing) -> list[list[float | None]]:
    return [[None if math.isnan(value) else round(value, 6) for value in regret] for regret in standing.regret_pct]


def plot(standings: Sequence[Standing], path: Path) -> None:
    """Median regret over seeds against full trainings, with the band of the middle half; one panel per contender.

    Each panel also has random search and random search with twice the budget, in grey.
    """
    from matplotlib.figure import Figure

    by_contender = {standing.contender: standing for standing in standings}
    shown = [standing for standing in standings if standing.contender not in (RANDOM, TWICE)]
    num_columns = 4
    num_rows = -(-len(shown) // num_columns)
    figure = Figure(figsize=(3.4 * num_columns, 2.7 * num_rows), layout="constrained")
    axes = list(figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False).flat)
    for axis, standing in zip(axes, shown, strict=False):
        _draw(axis, by_contender[RANDOM], color="0.55", label="random")
        _draw(axis, by_contender[TWICE], color="0.55", label="random, twice the budget", linestyle="--", band=False)
        _draw(axis, standing, color="C0", label="")
        axis.set_title(standing.contender.name, fontsize=9)
        axis.set_yscale("log")
        axis.grid(alpha=0.3)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    figure.axes[0].legend(fontsize=7)
    seeds = len(standings[0].regret_pct)
    figure.supxlabel(f"full trainings paid for ({synthetic_objective.EPOCHS} epochs each)", fontsize=9)
    figure.supylabel("true error of the incumbent above the least, points", fontsize=9)
    figure.suptitle(f"Median and middle half of {seeds} seeds on a known function", fontsize=10)
    save_picture(figure, path)


def _draw(axis: Axes, standing: Standing, *, color: str, label: str, linestyle: str = "-", band: bool = True) -> None:
    import numpy as np

    regret = np.asarray(standing.regret_pct)
    has_started = ~np.isnan(regret).any(axis=0)
    trainings = np.arange(1.0, regret.shape[1] + 1)[has_started]
    draw_median(axis, trainings, regret[:, has_started], color=color, label=label, linestyle=linestyle, band=band)
