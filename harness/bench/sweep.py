"""Compares the wall time of a whole sweep: the same configurations and epochs with this harness and its peers.

Each is one command from start to end, in a new folder, alternating in rounds. The time is the user's waiting time:
loading the libraries, training, logging, writing.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import baselines
from harness.analysis.files import write_csv
from harness.analysis.pictures import save_picture
from harness.bench.programs import output
from harness.bench.results import write_json
from harness.execution.data import cache
from harness.study.records import Params
from harness.study.settings import Flags
from harness.study.sweep_file import load_sweep
from harness.support.home import sweeps_folder
from harness.support.own_code import program

if TYPE_CHECKING:
    import pandas as pd

NUM_ROUNDS, NUM_ROUNDS_QUICK = 3, 1
OURS, PEERS = "harness", ("keras-tuner", "optuna")


@dataclass(frozen=True)
class Job:
    """A list of configurations, the documented one first, and their training settings."""

    baseline: str
    configurations: tuple[Params, ...]
    train_images: int
    epochs: int
    validation_images: int = 2000
    dataset: str = "mnist"

    @property
    def name(self) -> str:
        return f"{len(self.configurations)} x {self.baseline}, {self.train_images:,} images x {self.epochs}"


@dataclass(frozen=True)
class Race:
    """Wall seconds of one job by contender, round by round."""

    job: Job
    wall_s: dict[str, list[float]]

    @property
    def best_peer(self) -> str:
        return min(PEERS, key=lambda peer: statistics.median(self.wall_s[peer]))

    def ratio(self, contender: str) -> float:
        """Median over rounds of the ratio to the better peer within a round."""
        pairs = zip(self.wall_s[contender], self.wall_s[self.best_peer], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)


def run(out_dir: Path, repeats: int | None = None, quick: bool = False) -> pd.DataFrame:
    """Runs all jobs with all contenders; writes sweep.json, sweep.csv and sweep.png into `out_dir`.

    Args:
        out_dir: Created if missing.
        repeats: Number of rounds; None: 3, or 1 if quick.
        quick: Fewer and shorter trials: within five minutes on two cores.

    Returns:
        The table of sweep.csv: see `table`.
    """
    cache.prepare("mnist", lambda line: None)
    num_rounds = repeats or (NUM_ROUNDS_QUICK if quick else NUM_ROUNDS)
    races = [race(job, num_rounds) for job in jobs(quick)]
    frame = table(races)
    write_csv(frame, out_dir / "sweep.csv")
    measured = {"races": [asdict(race) for race in races]}
    write_json(out_dir / "sweep.json", ("keras", "keras-tuner", "optuna", "mlflow"), measured)
    plot(races, out_dir / "sweep.png")
    return frame


def jobs(quick: bool) -> list[Job]:
    """24 networks of sweeps/fc.toml's space and 12 of sweeps/cnn.toml's, or half of them and shorter if quick."""
    if quick:
        return [_job("fc", 12, 5_000, 3), _job("cnn", 6, 1_500, 2)]
    return [_job("fc", 24, 20_000, 4), _job("cnn", 12, 4_000, 3)]


def race(job: Job, num_rounds: int) -> Race:
    wall_s = {contender: list[float]() for contender in (*PEERS, OURS)}
    for _ in range(num_rounds):
        for contender, seconds in wall_s.items():
            seconds.append(wall_seconds(contender, job))
    return Race(job, wall_s)


def wall_seconds(contender: str, job: Job) -> float:
    """Runs one job from start to end in a new folder.

    Raises:
        TroubleError: the contender failed; with what it said last.
    """
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as name:
        folder = Path(name)
        command = _ours(job, folder) if contender == OURS else _peer(contender, job, folder)
        started = time.monotonic()
        output(contender, command, folder, HARNESS_HOME=str(folder / "home"))
        return time.monotonic() - started


def table(races: Sequence[Race]) -> pd.DataFrame:
    """One row per job and contender: wall_s (median over rounds), ratio to the better peer, rounds."""
    import pandas as pd

    rows = [
        {
            "job": race.job.name,
            "contender": contender,
            "wall_s": round(statistics.median(seconds), 1),
            "ratio_to_better_peer": round(race.ratio(contender), 2),
            "rounds": len(seconds),
        }
        for race in races
        for contender, seconds in race.wall_s.items()
    ]
    return pd.DataFrame(rows)


def plot(races: Sequence[Race], path: Path) -> None:
    """Bars of wall seconds, one panel per job."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.8 * len(races), 3.0), layout="constrained")
    for axis, race in zip(figure.subplots(1, len(races), squeeze=False).flat, races, strict=True):
        names = list(race.wall_s)
        axis.bar(names, [statistics.median(race.wall_s[name]) for name in names], color=["0.6", "0.6", "C0"])
        axis.set_title(race.job.name, fontsize=9)
        axis.set_ylabel("wall seconds")
    save_picture(figure, path)


def _job(baseline: str, count: int, train_images: int, epochs: int) -> Job:
    """The documented network and a fixed draw of others."""
    spec = load_sweep(sweeps_folder() / f"{baseline}.toml", Flags(), "quick")
    rng = random.Random(0)  # noqa: S311 - a draw that is the same every time
    cost = baselines.load(baseline).cost
    space = spec.search_space
    limit = spec.constraints.max_mflops_per_image or float("inf")
    drawn: list[Params] = [spec.baseline_params]
    while len(drawn) < count:
        params = space.sample(rng)
        if cost(spec.config(params)).flops_per_image <= limit * 1e6:
            drawn.append(params)
    return Job(baseline, tuple(drawn), train_images, epochs)


def _ours(job: Job, folder: Path) -> list[str]:
    text = (sweeps_folder() / f"{job.baseline}.toml").read_text()
    space = text[text.index("[space]") : text.index("[profiles.quick]")]
    head = f'baseline = "{job.baseline}"\ndataset = "{job.dataset}"\nsampler = "random"\npruner = "none"\n'
    profile = {
        "train_images": job.train_images,
        "epochs": job.epochs,
        "validation_images": job.validation_images,
        "baseline_seeds": 1,
        "trials": len(job.configurations) - 1,
    }
    lines = "\n".join(f"{key} = {value}" for key, value in profile.items())
    (folder / "bench.toml").write_text(f"{head}\n{space}\n[profiles.quick]\n{lines}\n")
    trials = ["".join(f"{name} = {value}\n" for name, value in params.items()) for params in job.configurations[1:]]
    (folder / "listed.toml").write_text("\n".join(f"[[trial]]\n{trial}" for trial in trials))
    return program("harness.cli", "sweep", "bench.toml", "--profile", "quick", "--enqueue", "listed.toml")


def _peer(contender: str, job: Job, folder: Path) -> list[str]:
    path = folder / "job.json"
    path.write_text(json.dumps(asdict(job)))
    return program("harness.bench.peers", contender, str(path), str(folder))
