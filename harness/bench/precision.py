"""Compares errors in float32 and in bfloat16: the same networks, seeds and images, judged as in a verdict.

Each network in each precision is a study in the folder of results, so an interrupted comparison goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import baselines
from harness.analysis.files import write_csv
from harness.analysis.pictures import save_picture
from harness.analysis.verdict.statistics import Wrong, differences
from harness.bench.engine import RECIPE_PARAMS
from harness.bench.results import write_json
from harness.errors import TroubleError
from harness.ledger.ledger import Ledger
from harness.study.records import Params
from harness.study.settings import Budget, Flags, Kind, Precision
from harness.study.spec import SweepSpec
from harness.study.sweep_file import load_sweep
from harness.support.home import sweeps_folder
from harness.sweep.display import PlainDisplay
from harness.sweep.runner import run_study

if TYPE_CHECKING:
    import pandas as pd

NUM_SEEDS, NUM_SEEDS_QUICK = 20, 2
IMAGES_QUICK, EPOCHS_QUICK = 1_000, 2
CONFIDENCE = 0.95
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


@dataclass(frozen=True)
class Network:
    """A network to compare; `study` is the name of its studies, without the precision."""

    name: str
    study: str
    baseline: str
    params: Params


NETWORKS = (
    Network("fc, documented", "fc", "fc", {}),
    Network("cnn, documented", "cnn", "cnn", {}),
    Network("cnn 32-64, recipe", "cnn-recipe", "cnn", RECIPE_PARAMS),
)


@dataclass(frozen=True)
class Pair:
    """One network in both precisions.

    Attributes:
        network: Its name.
        train_images, epochs: The amount of training.
        errors_pct: Validation errors by precision, in the order of the seeds.
        points: bfloat16's mean error minus float32's, percentage points.
        low, high: Limits of `points` at a confidence of 95 %, for other seeds and other images.
        p_value: Two-sided, of this comparison alone.
    """

    network: str
    train_images: int
    epochs: int
    errors_pct: Mapping[str, Sequence[float]]
    points: float
    low: float
    high: float
    p_value: float


def run(out_dir: Path, repeats: int | None = None, quick: bool = False) -> pd.DataFrame:
    """Trains and compares; writes precision.json, .csv and .png into `out_dir`, and the studies into a folder there.

    Args:
        out_dir: Created if missing.
        repeats: Number of seeds; None: 20, or 2 if quick.
        quick: Few images and epochs: within five minutes on two cores.

    Returns:
        The table of precision.csv: see `table`.

    Raises:
        TroubleError: it was interrupted, or a training failed.
    """
    num_seeds = repeats or (NUM_SEEDS_QUICK if quick else NUM_SEEDS)
    home = out_dir / ("precision-quick" if quick else "precision")
    pairs = [compare(network, num_seeds, home, quick=quick) for network in NETWORKS]
    frame = table(pairs)
    plot(pairs, out_dir / "precision.png")
    write_csv(frame, out_dir / "precision.csv")
    write_json(out_dir / "precision.json", ("keras", "tensorflow"), {"pairs": [asdict(pair) for pair in pairs]})
    return frame


def compare(network: Network, num_seeds: int, home: Path, *, quick: bool) -> Pair:
    """Trains a network in both precisions, at the fidelity of its sweep file's profile `quick`."""
    specs = [_study(network, precision, num_seeds, quick=quick) for precision in PRECISIONS]
    wrong = np.stack([_trained(spec, home) for spec in specs])
    num_images = wrong.shape[-1]
    found = differences(wrong, num_images)
    low, high = found.interval(CONFIDENCE)
    return Pair(
        network.name,
        specs[0].train_images,
        specs[0].epochs,
        {spec.precision: (100 * each.mean(-1)).tolist() for spec, each in zip(specs, wrong, strict=True)},
        *(float(each[0]) for each in (found.points, low, high, found.p_values)),
    )


def table(pairs: Sequence[Pair]) -> pd.DataFrame:
    """One row per network.

    Columns: network, train_images, epochs, seeds; for each precision the mean validation error and its standard
    deviation over seeds (`float32_error_pct`, `float32_sd_pct`); difference_points, its limits low_points and
    high_points, and p_value, see `Pair`.
    """
    import pandas as pd

    def row(pair: Pair) -> dict[str, object]:
        errors = {name: np.asarray(pair.errors_pct[name]) for name in PRECISIONS}
        of_precisions = {
            f"{name}_{what}_pct": round(float(value), 3)
            for name, found in errors.items()
            for what, value in (("error", found.mean()), ("sd", found.std(ddof=1)))
        }
        return {
            "network": pair.network,
            "train_images": pair.train_images,
            "epochs": pair.epochs,
            "seeds": len(errors["float32"]),
            **of_precisions,
            "difference_points": round(pair.points, 3),
            "low_points": round(pair.low, 3),
            "high_points": round(pair.high, 3),
            "p_value": round(pair.p_value, 3),
        }

    return pd.DataFrame([row(pair) for pair in pairs])


def plot(pairs: Sequence[Pair], path: Path) -> None:
    """The difference of each network with its interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 0.8 + 0.5 * len(pairs)), layout="constrained")
    axis = figure.subplots()
    points = np.array([pair.points for pair in pairs])
    limits = np.array([(pair.low, pair.high) for pair in pairs]).T
    axis.errorbar(points, range(len(pairs)), xerr=np.abs(limits - points), fmt="o", capsize=3)
    axis.axvline(0.0, color="0.6", linewidth=1)
    axis.set_yticks(range(len(pairs)), [pair.network for pair in pairs])
    axis.set_ylim(len(pairs) - 0.5, -0.5)
    axis.set_xlabel("validation error in bfloat16 minus in float32, points (95 % interval)")
    save_picture(figure, path)


def _study(network: Network, precision: Precision, num_seeds: int, *, quick: bool) -> SweepSpec:
    spec = load_sweep(sweeps_folder() / f"{network.baseline}.toml", Flags(), "quick")
    documented = asdict(baselines.load(network.baseline).DOCUMENTED)
    # A configuration gets another seed each time.
    repeated = (dict(network.params),) * num_seeds if network.params else ()
    return spec.changed(
        study=f"{network.study}-{precision}",
        kind=Kind.SEARCH if network.params else Kind.BASELINE,
        precision=precision,
        pruner="none",
        space={
            name: {"values": list(dict.fromkeys((documented[name], value)))} for name, value in network.params.items()
        },
        train_images=IMAGES_QUICK if quick else spec.train_images,
        epochs=EPOCHS_QUICK if quick else spec.epochs,
        baseline_seeds=0 if repeated else num_seeds,
        enqueue=repeated,
        budget=Budget(trials=len(repeated)),
    )


def _trained(spec: SweepSpec, home: Path) -> Wrong:
    """Trains what is left to train; returns the misclassified validation images (seed, image)."""
    run_study(spec, home, PlainDisplay(sys.stderr), num_workers=None, fresh=False)
    num_seeds = spec.baseline_seeds + len(spec.enqueue)
    found = np.zeros((num_seeds, spec.sizes["validation"]), np.bool_)
    with closing(Ledger(home / "ledger.db", makes=False)) as ledger:
        results = [ledger.record(record.trial.uid).result for record in ledger.history(spec.study)]
    for row, result in zip(found, results, strict=False):
        row[list(result.wrong_images or ()) if result else []] = True
    if len(results) < len(found) or not all(result and result.outcome.is_ranked for result in results):
        raise TroubleError(f"{spec.study} lacks trainings; the same command goes on")
    return found
