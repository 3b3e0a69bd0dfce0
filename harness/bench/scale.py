"""Measures the number of workers that one coordinator can serve, long studies, and parallel search quality.

Loop, ledger, search and MLflow's thread are those of a sweep; the workers sleep in real time. A thousand workers with
trials of a minute end about 17 trials and 83 epochs per second; fewer workers have shorter trials here, for the same
rate. Histories are filled in, not run. Parallel searches use a simulated clock (`harness.bench.parallel_search`).
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.files import write_csv
from harness.analysis.pictures import COLORS, make_logarithmic, save_picture
from harness.analysis.statistics import quartiles
from harness.bench import scripted_workers, synthetic_objective
from harness.bench.load import STUDY, Load, Measured
from harness.bench.parallel_search import Crowd, found_pct
from harness.bench.programs import output
from harness.bench.results import three_digits, write_json
from harness.ledger.ledger import Ledger
from harness.study.settings import Budget, Flags
from harness.study.spec import SweepSpec
from harness.study.sweep_file import load_sweep
from harness.support.home import sweeps_folder
from harness.support.own_code import program

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

TRIALS_PER_S = 1000 / 60  # a thousand workers with trials of a minute, if none is stopped early
SAMPLERS = ("random", "tpe")
WORKERS = (10, 100, 1000)
LONG_HISTORIES = (10_000, 100_000)
SHORT_HISTORY = 1000
OVERLOAD = 4  # times as many trials as offered else
MEASURED_S, MEASURED_S_QUICK = 30.0, 10.0
NEVER = Budget(trials=10**7, wall_s=1e8)  # a time budget, since predicting whether it is kept is a part of the work


@dataclass(frozen=True)
class Plan:
    """The measurements: loads, and searches with numbers of trials, workers and seeds."""

    loads: Sequence[Load]
    num_trials: Sequence[int]
    workers: Sequence[int]
    num_seeds: int

    @property
    def crowds(self) -> list[Crowd]:
        seeds = range(self.num_seeds)
        return [Crowd(sampler, workers, seed) for sampler in SAMPLERS for workers in self.workers for seed in seeds]


def full_plan(num_seeds: int | None) -> Plan:
    """Half an hour."""
    loads = [_load(sampler, SHORT_HISTORY, workers) for sampler in SAMPLERS for workers in WORKERS]
    loads += [_load(sampler, SHORT_HISTORY, WORKERS[-1], OVERLOAD) for sampler in SAMPLERS]
    loads += [_load(sampler, history, WORKERS[-1]) for history in LONG_HISTORIES for sampler in SAMPLERS]
    loads += [_load("tpe", 0, workers, with_mlflow=True) for workers in WORKERS]
    return Plan(loads, (200, 1000), (1, *WORKERS), num_seeds or 5)


def quick_plan(num_seeds: int | None) -> Plan:
    """Five minutes."""
    loads = [_load("tpe", SHORT_HISTORY, workers, measured_s=MEASURED_S_QUICK) for workers in WORKERS]
    loads.append(_load("tpe", 0, WORKERS[-1], with_mlflow=True, measured_s=MEASURED_S_QUICK))
    return Plan(loads, (100, 300), (1, 10, 100), num_seeds or 3)


def _load(
    sampler: str,
    history: int,
    num_workers: int,
    times: float = 1.0,
    *,
    with_mlflow: bool = False,
    measured_s: float = MEASURED_S,
) -> Load:
    trial_s = num_workers / (times * TRIALS_PER_S)
    warm_up_s = 5.0 + 0.03 * num_workers  # each has its first trial by then, if the coordinator keeps up
    return Load(sampler, history, num_workers, trial_s, with_mlflow, warm_up_s, measured_s)


def run(out_dir: Path, repeats: int | None = None, quick: bool = False) -> pd.DataFrame:
    """Runs all measurements; writes scale.json, scale.csv and scale.png into `out_dir`.

    Args:
        out_dir: Created if missing; has the studies while they are measured.
        repeats: Number of seeds of the parallel searches; None: 5, or 3 if quick.
        quick: No long histories, shorter times, fewer workers: within five minutes on two cores.

    Returns:
        The table of scale.csv: see `table`.

    Raises:
        TroubleError: a coordinator failed; with what it said last.
    """
    return carry_out(quick_plan(repeats) if quick else full_plan(repeats), out_dir)


def carry_out(plan: Plan, out_dir: Path) -> pd.DataFrame:
    """Like `run`, for any plan."""
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".scale-", dir=out_dir) as folder:
        histories = {size: filled(Path(folder), size) for size in sorted({load.history for load in plan.loads})}
        ledger_mb = {size: path.stat().st_size / 2**20 for size, path in histories.items()}
        measured = [(load, under(load, histories[load.history])) for load in plan.loads]
    found = {crowd: found_pct(crowd, plan.num_trials) for crowd in plan.crowds}
    frame = table(measured, ledger_mb, found, plan.num_trials)
    write_csv(frame, out_dir / "scale.csv")
    described = {
        "ledger_mb": ledger_mb,
        "loads": [asdict(load) | asdict(seen) for load, seen in measured],
        "num_trials": list(plan.num_trials),
        "best_error_pct": synthetic_objective.best_error_pct(),
        "searches": [asdict(crowd) | {"error_pct": list(errors)} for crowd, errors in found.items()],
    }
    write_json(out_dir / "scale.json", ("optuna", "mlflow", "scipy"), described)
    plot(measured, found, plan.num_trials, out_dir / "scale.png")
    return frame


def study() -> SweepSpec:
    """The CNN's sweep, without an end."""
    spec = load_sweep(sweeps_folder() / "cnn.toml", Flags(study=STUDY), "quick")
    return spec.changed(budget=NEVER)


def filled(folder: Path, num_trials: int) -> Path:
    """A ledger with a study of this many trials, at least the baseline; extends the largest existing one."""
    path = folder / str(num_trials) / "ledger.db"
    path.parent.mkdir()
    smaller = max((int(other.name) for other in folder.iterdir() if int(other.name) < num_trials), default=None)
    if smaller is not None:
        shutil.copy(folder / str(smaller) / path.name, path)
    with closing(Ledger(path)) as ledger:
        spec = study()
        if smaller is None:
            ledger.create_study(spec, {"data_digest": "none"})
        scripted_workers.fill(ledger, spec, max(num_trials, spec.baseline_seeds))
    return path


def under(load: Load, ledger: Path) -> Measured:
    """Measures a new coordinator under a load, with a copy of this ledger and its own MLflow store.

    Raises:
        TroubleError: it failed; with what it said last.
    """
    with tempfile.TemporaryDirectory(prefix=".load-", dir=ledger.parent.parent.parent) as home:
        shutil.copy(ledger, home)
        settings = Path(home) / "load.json"
        settings.write_text(json.dumps(asdict(load)))
        printed = output("bench scale", program("harness.bench.load", str(settings), home))
    return Measured(**json.loads(printed.splitlines()[-1]))


def table(
    measured: Sequence[tuple[Load, Measured]],
    ledger_mb: Mapping[int, float],
    found: Mapping[Crowd, Sequence[float]],
    num_trials: Sequence[int],
) -> pd.DataFrame:
    """One row per load, then one per sampler and number of workers in a crowd; cells that do not apply are empty text.

    Columns: what ("load" or "search"), sampler, workers; of loads: trial_s, history, mlflow (whether runs go there),
    offered_per_s and reached_per_s (trials), waiting_pct (of the workers' time), busy_pct (of the loop's time),
    could_per_s (trials, at this busy share), cpu_ms (CPU time of the loop per trial), ask_ms, next_ms (a free worker's
    wait) and answer_ms (a wait at an epoch's end), each with a _p95, all_started_s, resume_s, loop_cpu_pct,
    other_cpu_pct, memory_mb, ledger_mb (of the history), mlflow_per_s, mlflow_behind; of searches: regret_N_pct with
    its quartiles _low and _high over seeds, the true error of what looks best after N trials above the least there is,
    in points.
    """
    import pandas as pd

    rows = [_load_row(load, seen, ledger_mb[load.history]) for load, seen in measured]
    searches = sorted({(crowd.sampler, crowd.num_workers) for crowd in found})
    rows += [_search_row(sampler, workers, found, num_trials) for sampler, workers in searches]
    frame = pd.DataFrame(rows, dtype=object)
    return frame.where(frame.notna(), "")


def offered_per_s(load: Load, seen: Measured) -> float:
    """Trials per second if no worker waited."""
    return load.num_workers / (load.trial_s * seen.trained_share)


def could_per_s(seen: Measured) -> float:
    """Trials per second that the coordinator could serve, from its busy time per trial."""
    return seen.trials_per_s / seen.busy_share


def _load_row(load: Load, seen: Measured, ledger_mb: float) -> dict[str, Any]:
    return {
        "what": "load",
        "sampler": load.sampler,
        "workers": load.num_workers,
        "trial_s": round(load.trial_s, 2),
        "history": load.history,
        "mlflow": load.with_mlflow,
        "offered_per_s": round(offered_per_s(load, seen), 2),
        "reached_per_s": round(seen.trials_per_s, 2),
        "waiting_pct": round(100 * seen.waiting_share, 1),
        "busy_pct": round(100 * seen.busy_share, 1),
        "could_per_s": round(could_per_s(seen), 1),
        "cpu_ms": three_digits(10 * seen.loop_cpu_pct / seen.trials_per_s) if seen.trials_per_s else None,
        **_milliseconds("ask", seen.ask_s),
        **_milliseconds("next", seen.next_s),
        **_milliseconds("answer", seen.answer_s),
        "all_started_s": None if seen.all_started_s is None else round(seen.all_started_s, 1),
        "resume_s": round(seen.resume_s, 1),
        "loop_cpu_pct": round(seen.loop_cpu_pct, 1),
        "other_cpu_pct": round(seen.other_cpu_pct, 1),
        "memory_mb": round(seen.memory_mb),
        "ledger_mb": round(ledger_mb, 1),
        "mlflow_per_s": None if seen.mlflow_per_s is None else round(seen.mlflow_per_s, 1),
        "mlflow_behind": seen.mlflow_behind,
    }


def _milliseconds(name: str, seconds: Sequence[float]) -> dict[str, float | None]:
    """Median and 95th percentile; None if there are no values."""
    import numpy as np

    middle, high = map(three_digits, np.quantile(seconds, [0.5, 0.95]) * 1000) if seconds else (None, None)
    return {f"{name}_ms": middle, f"{name}_ms_p95": high}


def _search_row(
    sampler: str, workers: int, found: Mapping[Crowd, Sequence[float]], num_trials: Sequence[int]
) -> dict[str, Any]:
    row: dict[str, Any] = {"what": "search", "sampler": sampler, "workers": workers}
    for place, trials in enumerate(num_trials):
        low, median, high = quartiles(_regrets(found, sampler, workers, place))
        row |= {f"regret_{trials}_pct": round(median, 4)}
        row |= {f"regret_{trials}_pct_low": round(low, 4), f"regret_{trials}_pct_high": round(high, 4)}
    return row


def _regrets(found: Mapping[Crowd, Sequence[float]], sampler: str, workers: int, place: int) -> list[float]:
    best_pct = synthetic_objective.best_error_pct()
    return [
        errors[place] - best_pct
        for crowd, errors in found.items()
        if (crowd.sampler, crowd.num_workers) == (sampler, workers)
    ]


def plot(
    measured: Sequence[tuple[Load, Measured]],
    found: Mapping[Crowd, Sequence[float]],
    num_trials: Sequence[int],
    path: Path,
) -> None:
    """Left: trials per second that the coordinator could do. Right: what the searches find. Both against workers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_loads(left, measured)
    _draw_searches(right, found, num_trials)
    make_logarithmic((left, right), "workers")
    save_picture(figure, path)


def _draw_loads(axis: Axes, measured: Sequence[tuple[Load, Measured]]) -> None:
    series: dict[str, list[tuple[int, float]]] = {}
    for load, seen in measured:
        name = f"{load.sampler}, {'MLflow' if load.with_mlflow else f'history of {load.history:,}'}"
        is_overload = load.trial_s * TRIALS_PER_S < 0.9 * load.num_workers
        if not is_overload:
            series.setdefault(name, []).append((load.num_workers, could_per_s(seen)))
    for color, (name, points) in zip(COLORS, series.items(), strict=False):
        axis.plot(*zip(*points, strict=True), marker="o", color=color, label=name)
    axis.axhline(TRIALS_PER_S, color="0.5", linestyle="--", label="1,000 workers with trials of a minute")
    axis.set_ylabel("trials per second that one coordinator could do")


def _draw_searches(axis: Axes, found: Mapping[Crowd, Sequence[float]], num_trials: Sequence[int]) -> None:
    workers = sorted({crowd.num_workers for crowd in found})
    samplers = list(dict.fromkeys(crowd.sampler for crowd in found))
    for place, trials in enumerate(num_trials):
        for color, sampler in zip(COLORS, samplers, strict=False):
            medians = [statistics.median(_regrets(found, sampler, one, place)) for one in workers]
            style = "--" if place == 0 else "-"
            axis.plot(workers, medians, style, marker="o", color=color, label=f"{sampler}, {trials:,} trials")
    axis.set_ylabel("true error of the best above the least, points")
