"""Known results of tiny trainings: who changes the numbers of trainings has to raise `TRAINING_VERSION`.

The two networks together have all layers and settings. A further one needs no results, since its file counts as well.

Results of equal trainings are taken over from the ledger, also across commits. `python tests/test_training_version.py`
stores the present results, after the version was raised or when versions of libraries have changed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from test_execution import Driver

import baselines
from baselines.recipe import RECIPE, SCHEDULES
from harness.execution.base import Job, Place
from harness.execution.data import cache
from harness.execution.local import LocalExecutor
from harness.execution.machine import devices
from harness.execution.training.version import TRAINING_VERSION
from harness.study.records import Params, Trial, TrialResult
from harness.study.spec import SweepSpec
from harness.sweep.reuse import conditions

KNOWN = Path(__file__).parent / "fixtures" / "known_trainings.json"
ADVICE = "trainings give other numbers: raise TRAINING_VERSION, then run `python tests/test_training_version.py`"
EPOCHS = 2
# What other processors may round differently. A change of the code in which this is all that differs is found only on
# the processor and with the versions of the known results.
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
STUDIES = [("fc", "float32"), ("cnn", "float32"), ("fc", "bfloat16")]

# Everything that differs from the documented networks and from the recipe; together all of their settings.
MOVED = {"augment_shift": 0.1, "augment_rotation": 0.05, "augment_zoom": 0.1, "augment_shear": 0.1}
SMALL = {"filters_1": 4, "dense_units": 32}
VARIATIONS: dict[str, Sequence[Params]] = {
    "fc": (
        {"units_1": 48, "units_2": 40, "units_3": 24, "layers": 3, "dropout": 0.2, "input_dropout": 0.1},
        {"units_1": 32, "batch_norm": True, "schedule": "cosine", "learning_rate": 2e-3, "batch_size": 16},
        {"units_1": 32, **MOVED, "schedule": "constant", "weight_decay": 0.01},
        {"units_1": 32, "warmup_share": 0.5, "label_smoothing": 0.1},
    ),
    "cnn": (
        {**SMALL, "filters_2": 6, "kernel_1": 3, "kernel_2": 3, "stages": 3, "filters_3": 8, "kernel_3": 2},
        {**SMALL, "dropout": 0.2, "conv_dropout": 0.1, "batch_norm": True, "stage_convs": 2, "inner_kernel": 2},
        {**SMALL, **MOVED, "batch_size": 16, "stage_end": "stride", "stride_kernel": 3, "padding": "valid"},
        {"filters_1": 4, "head": "global_average", "schedule": "cosine", "learning_rate": 2e-3, "warmup_share": 0.5},
        {**SMALL, "stage_end": "average_pool", "weight_decay": 0.01, "label_smoothing": 0.1},
    ),
}


def study(network: str, precision: str) -> SweepSpec:
    """Whose recipe the trials' params replace."""
    settings = {
        "study": "known",
        "kind": "baseline",
        "baseline": network,
        "dataset": "digits",
        "recipe": dataclasses.asdict(RECIPE) | {"batch_size": 32},
        "space": {},
        "profile": "known",
        "train_images": 256,
        "epochs": EPOCHS,
        "validation_images": 200,
        "baseline_seeds": 1,
        "precision": precision,
        "budget": {"trials": 0},
    }
    return SweepSpec.model_validate(settings, strict=False)


def place() -> Place:
    return dataclasses.replace(devices.places(devices.this_machine(), 2)[0], gpu=None, threads=1)


def train(spec: SweepSpec, params: Sequence[Params], data: Path, logs: Path) -> Iterator[TrialResult]:
    with closing(LocalExecutor(spec, [place()], data, logs)) as executor:
        driver = Driver(executor)
        for number, one in enumerate(params):
            yield driver.finish(driver.start(Job(Trial(f"t{number}", number, one, seed=number, epochs=EPOCHS))))


def losses(result: TrialResult) -> list[float | None]:
    return [loss for report in result.curve for loss in (report.train_loss, report.val_loss)]


def results(data: Path, logs: Path) -> dict[str, list[list[float | None]]]:
    return {
        f"{network} {precision}": [
            losses(result) for result in train(study(network, precision), VARIATIONS[network], data, logs)
        ]
        for network, precision in STUDIES
    }


def here() -> dict[str, Any]:
    """What the last bits of the numbers depend on beside the code."""
    return {"processor": place().processor, **conditions("digits"), "code": TRAINING_VERSION}


@pytest.fixture(scope="module")
def now(digits_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[float | None]]]:
    return results(digits_folder, tmp_path_factory.mktemp("logs"))


def test_the_known_results_are_of_this_version() -> None:
    assert json.loads(KNOWN.read_text())["here"]["code"] == TRAINING_VERSION, ADVICE


@pytest.mark.parametrize("which", [f"{network} {precision}" for network, precision in STUDIES])
def test_trainings_give_the_known_results(now: dict[str, list[list[float | None]]], which: str) -> None:
    known = json.loads(KNOWN.read_text())
    is_exact = known["here"] == here()
    tolerance = 0.0 if is_exact else TOLERANCE[which.split()[1]]
    for params, found, expected in zip(VARIATIONS[which.split()[0]], now[which], known["results"][which], strict=True):
        if params.get("batch_norm") and not is_exact:
            # A bias before it has no gradient but rounding errors, and its moving mean is late to take them out.
            found, expected = found[::2], expected[::2]
        assert found == pytest.approx(expected, rel=tolerance, abs=0.0), f"{params}: {ADVICE}"


def test_a_training_gives_the_same_bits_again(
    now: dict[str, list[list[float | None]]], digits_folder: Path, tmp_path: Path
) -> None:
    """In another process."""
    again = train(study("fc", "float32"), VARIATIONS["fc"][:2], digits_folder, tmp_path)
    assert [losses(result) for result in again] == now["fc float32"][:2]


@pytest.mark.parametrize("network", VARIATIONS)
def test_each_setting_of_network_and_recipe_is_varied(network: str) -> None:
    known = dataclasses.asdict(baselines.load(network).DOCUMENTED) | study(network, "float32").recipe
    varied = {name for params in VARIATIONS[network] for name, value in params.items() if value != known[name]}
    assert varied == set(known)
    schedules = {params.get("schedule", RECIPE.schedule) for of in VARIATIONS.values() for params in of}
    assert schedules == set(SCHEDULES)


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with tempfile.TemporaryDirectory() as folder:
        stored = {"here": here(), "results": results(cache.prepare("digits", print), Path(folder))}
    KNOWN.write_text(json.dumps(stored, indent=1) + "\n")
    sys.stdout.write(f"wrote {KNOWN}\n")
