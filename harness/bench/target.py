"""Compares the effort to find a network at least as good as the documented one: this harness, peers, random search.

All search the same space on the same images for the same epochs, and each with its own way of training. A find counts
when a second seed confirms it. Device seconds are seconds of the whole processor: a worker that holds one of two cores
for a second is charged half.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.analysis.files import write_csv
from harness.analysis.pictures import save_picture
from harness.bench.programs import output
from harness.bench.results import write_json
from harness.execution.data import cache
from harness.execution.machine.devices import this_machine
from harness.study.spec import SPLIT_SIZES, Budget, SweepSpec
from harness.study.sweep_file import Flags, load_sweep
from harness.support.home import sweeps_folder
from harness.support.own_code import program

if TYPE_CHECKING:
    import pandas as pd

NUM_SEEDS, NUM_SEEDS_QUICK = 5, 1
BASELINE_SEEDS = 3
CONFIRMING_SEED = 4711
OURS = "harness"
PEERS = ("keras-tuner hyperband", "optuna tpe, median pruner", "random")


@dataclass(frozen=True)
class Hunt:
    """One search for a network.

    Attributes:
        baseline: The documented network to match, in the space of its sweep file.
        seed: Seed of the search.
        train_images, epochs: Settings of each full training.
        target_pct: Validation error to reach, in percent.
        max_trials: Maximum number of trials.
    """

    baseline: str
    seed: int
    train_images: int
    epochs: int
    target_pct: float
    max_trials: int = 60
    dataset: Literal["mnist", "digits"] = "mnist"

    def spec(self) -> SweepSpec:
        spec = load_sweep(sweeps_folder() / f"{self.baseline}.toml", Flags(seed=self.seed), "quick")
        return spec.changed(
            dataset=self.dataset,
            train_images=self.train_images,
            validation_images=min(spec.validation_images, SPLIT_SIZES[self.dataset]["validation"]),
            epochs=self.epochs,
            baseline_seeds=1,
            budget=Budget(trials=self.max_trials),
        )


@dataclass(frozen=True)
class Effort:
    """The effort of one search, in seconds; `was_found` is False if it gave up."""

    wall_s: float
    device_s: float
    num_trainings: int
    was_found: bool


def run(out_dir: Path, repeats: int | None = None, quick: bool = False) -> pd.DataFrame:
    """Runs all searches with each seed; writes target.json, target.csv and target.png into `out_dir`.

    Args:
        out_dir: Created if missing.
        repeats: Number of seeds; None: 5, or 1 if quick.
        quick: One seed and short trainings: within five minutes on two cores.

    Returns:
        The table of target.csv: see `table`.
    """
    cache.prepare("mnist", lambda line: None)
    train_images, epochs = (4_000, 4) if quick else (10_000, 5)
    target_pct = baseline_error_pct("fc", train_images, epochs)
    seeds = range(repeats or (NUM_SEEDS_QUICK if quick else NUM_SEEDS))
    efforts: dict[str, list[Effort]] = {contender: [] for contender in (*PEERS, OURS)}
    for seed in seeds:
        for contender, done in efforts.items():
            done.append(effort(contender, Hunt("fc", seed, train_images, epochs, target_pct)))
    frame = table(efforts)
    write_csv(frame, out_dir / "target.csv")
    found = {name: [asdict(one) for one in done] for name, done in efforts.items()}
    measured = {"target_pct": target_pct, "efforts": found}
    write_json(out_dir / "target.json", ("keras", "keras-tuner", "optuna"), measured)
    plot(efforts, out_dir / "target.png")
    return frame


def baseline_error_pct(baseline: str, train_images: int, epochs: int) -> float:
    """Mean validation error of the documented network over a few seeds, in percent."""
    from harness.execution.base import Job
    from harness.execution.machine.devices import places
    from harness.execution.training.trainer import Trainer
    from harness.study.records import Role, Trial

    spec = Hunt(baseline, 0, train_images, epochs, 0.0).spec()
    trainer = Trainer(spec, places(this_machine(), 1)[0], cache.prepare(spec.dataset, lambda line: None))
    trials = [Trial("", n, spec.baseline_params, 100 + n, epochs, Role.BASELINE) for n in range(BASELINE_SEEDS)]
    results = [trainer.run(Job(trial), lambda report: True) for trial in trials]
    num_images = SPLIT_SIZES[spec.dataset]["validation"]
    return statistics.fmean(100.0 * len(result.wrong_images or ()) / num_images for result in results)


def effort(contender: str, hunt: Hunt) -> Effort:
    """One hunt from start to end in a new folder.

    Raises:
        TroubleError: the contender failed; with what it said last.
    """
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as name:
        folder = Path(name)
        (folder / "hunt.json").write_text(json.dumps(asdict(hunt)))
        command = program("harness.bench.time_to_target", contender, str(folder / "hunt.json"), name)
        printed = output(contender, command)
    return Effort(**json.loads(printed.splitlines()[-1]))


def table(efforts: dict[str, list[Effort]]) -> pd.DataFrame:
    """One row per contender: medians over seeds of device_s, wall_s and trainings; device_s as a ratio to the best peer
    (medians of each); how many seeds found nothing, which count with what they took."""
    import pandas as pd

    device_s = {name: statistics.median(one.device_s for one in done) for name, done in efforts.items()}
    best = min(device_s[peer] for peer in PEERS)
    rows = [
        {
            "contender": name,
            "device_s": round(device_s[name], 1),
            "ratio_to_best_peer": round(device_s[name] / best, 2),
            "wall_s": round(statistics.median(one.wall_s for one in done), 1),
            "trainings": statistics.median(one.num_trainings for one in done),
            "not_found": sum(not one.was_found for one in done),
            "seeds": len(done),
        }
        for name, done in efforts.items()
    ]
    return pd.DataFrame(rows)


def plot(efforts: dict[str, list[Effort]], path: Path) -> None:
    """Device seconds of each seed, and their median."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 2.8), layout="constrained")
    axis = figure.subplots()
    for place, done in enumerate(efforts.values()):
        axis.plot([one.device_s for one in done], [place] * len(done), "o", color="0.6")
        axis.plot(statistics.median(one.device_s for one in done), place, "|", color="C0", markersize=24)
    axis.set_yticks(range(len(efforts)), list(efforts))
    axis.set_xlabel("device seconds until a network as good as the documented one is found and confirmed")
    axis.set_xlim(left=0)
    axis.grid(axis="x", alpha=0.3)
    save_picture(figure, path)
