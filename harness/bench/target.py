"""Compares the time until a network is found that is clearly better than the documented one: this harness and peers.

The spaces are those of the recipe sweeps. All search on the same images for the same epochs, and each with its own way
of training. The error to reach is a share of the documented network's, and counts when a fresh seed confirms it. The
measure is the wall time of the whole program. Device seconds are seconds of the whole processor: a worker that holds
one of two cores for a second is charged half.
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
from harness.study.data import BUILT_IN
from harness.study.settings import Budget, Flags
from harness.study.spec import SweepSpec
from harness.study.sweep_file import load_sweep
from harness.support.home import sweeps_folder
from harness.support.own_code import program

if TYPE_CHECKING:
    import pandas as pd

NUM_SEEDS, NUM_SEEDS_QUICK = 3, 1
BASELINE_SEEDS = 3
GAIN = 0.2  # the error to reach is lower than the documented network's by this share
# Sweep file: training images and epochs of each full training.
FIDELITIES = {"fc-recipe": (10_000, 6), "cnn-recipe": (4_000, 5)}
FIDELITIES_QUICK = {"fc-recipe": (4_000, 4)}
CONFIRMING_SEED = 4711
OURS = "harness"
PEERS = ("keras-tuner hyperband", "optuna tpe, median pruner", "random")


@dataclass(frozen=True)
class Hunt:
    """One search for a network.

    Attributes:
        sweep: The sweep file with the space.
        seed: Seed of the search.
        train_images, epochs: Settings of each full training.
        target_pct: Validation error to reach, in percent.
        max_trials: Maximum number of trials.
    """

    sweep: str
    seed: int
    train_images: int
    epochs: int
    target_pct: float
    max_trials: int = 60
    dataset: Literal["mnist", "digits"] = "mnist"

    def spec(self) -> SweepSpec:
        spec = load_sweep(sweeps_folder() / f"{self.sweep}.toml", Flags(seed=self.seed), "quick")
        return spec.changed(
            dataset=self.dataset,
            train_images=self.train_images,
            validation_images=min(spec.validation_images, BUILT_IN[self.dataset].sizes["validation"]),
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
        repeats: Number of seeds; None: 3, or 1 if quick.
        quick: One seed, one network and short trainings: within ten minutes on two cores.

    Returns:
        The table of target.csv: see `table`.
    """
    import pandas as pd

    cache.prepare("mnist", lambda line: None)
    num_seeds = repeats or (NUM_SEEDS_QUICK if quick else NUM_SEEDS)
    found = {
        name: hunts(name, num_seeds, *given) for name, given in (FIDELITIES_QUICK if quick else FIDELITIES).items()
    }
    frame = pd.concat([table(name, *each) for name, each in found.items()], ignore_index=True)
    write_csv(frame, out_dir / "target.csv")
    measured = {
        name: {"target_pct": pct, "efforts": {who: [asdict(one) for one in done] for who, done in efforts.items()}}
        for name, (pct, efforts) in found.items()
    }
    write_json(out_dir / "target.json", ("keras", "keras-tuner", "optuna"), measured)
    plot({name: efforts for name, (_, efforts) in found.items()}, out_dir / "target.png")
    return frame


def hunts(sweep: str, num_seeds: int, train_images: int, epochs: int) -> tuple[float, dict[str, list[Effort]]]:
    """(the error to reach in percent, the efforts of each contender by seed) for one space."""
    target_pct = (1 - GAIN) * baseline_error_pct(sweep, train_images, epochs)
    efforts: dict[str, list[Effort]] = {contender: [] for contender in (*PEERS, OURS)}
    for seed in range(num_seeds):
        for contender, done in efforts.items():
            done.append(effort(contender, Hunt(sweep, seed, train_images, epochs, target_pct)))
    return target_pct, efforts


def baseline_error_pct(sweep: str, train_images: int, epochs: int) -> float:
    """Mean validation error of the documented network over a few seeds, in percent."""
    from harness.execution.base import Job
    from harness.execution.machine.devices import places
    from harness.execution.training.trainer import Trainer
    from harness.study.records import Role, Trial

    spec = Hunt(sweep, 0, train_images, epochs, 0.0).spec()
    trainer = Trainer(spec, places(this_machine(), 1)[0], cache.prepare(spec.data, lambda line: None))
    trials = [Trial("", n, spec.baseline_params, 100 + n, epochs, Role.BASELINE) for n in range(BASELINE_SEEDS)]
    results = [trainer.run(Job(trial), lambda report: True) for trial in trials]
    num_images = spec.sizes["validation"]
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


def table(sweep: str, target_pct: float, efforts: dict[str, list[Effort]]) -> pd.DataFrame:
    """One row per contender.

    Columns: sweep, target_pct (the error to reach), contender; medians over seeds of wall_s, device_s and trainings;
    wall_ratio and device_ratio, to the best peer's median; not_found, the number of seeds that found nothing, which
    count with what they took; seeds.
    """
    import pandas as pd

    wall_s = {name: statistics.median(one.wall_s for one in done) for name, done in efforts.items()}
    device_s = {name: statistics.median(one.device_s for one in done) for name, done in efforts.items()}
    best_wall, best_device = (min(seconds[peer] for peer in PEERS) for seconds in (wall_s, device_s))
    rows = [
        {
            "sweep": sweep,
            "target_pct": round(target_pct, 2),
            "contender": name,
            "wall_s": round(wall_s[name], 1),
            "wall_ratio": round(wall_s[name] / best_wall, 2),
            "device_s": round(device_s[name], 1),
            "device_ratio": round(device_s[name] / best_device, 2),
            "trainings": statistics.median(one.num_trainings for one in done),
            "not_found": sum(not one.was_found for one in done),
            "seeds": len(done),
        }
        for name, done in efforts.items()
    ]
    return pd.DataFrame(rows)


def plot(found: dict[str, dict[str, list[Effort]]], path: Path) -> None:
    """Wall seconds of each seed, and their median; one panel per space."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 0.6 + 2.2 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), 1, squeeze=False).flat
    for axis, (name, efforts) in zip(axes, found.items(), strict=True):
        for place, done in enumerate(efforts.values()):
            axis.plot([one.wall_s for one in done], [place] * len(done), "o", color="0.6")
            axis.plot(statistics.median(one.wall_s for one in done), place, "|", color="C0", markersize=24)
        axis.set_yticks(range(len(efforts)), list(efforts))
        axis.set_title(name, fontsize=9)
        axis.set_xlim(left=0)
        axis.grid(axis="x", alpha=0.3)
    figure.supxlabel("seconds until a network is found and confirmed", fontsize=9)
    save_picture(figure, path)
