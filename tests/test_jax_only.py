"""JAX is enough: what works where neither TensorFlow nor KerasTuner can be imported, in this process or in a worker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hidden_packages import environment_without
from PIL import Image

from harness.cli import EXIT_INPUT
from harness.execution.data import cache
from harness.execution.machine import backends

pytestmark = pytest.mark.skipif("jax" not in backends.installed(), reason="jax is not installed")

Harness = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def environment(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    hidden = environment_without(("tensorflow", "keras_tuner"), tmp_path_factory.mktemp("site"))
    hidden.pop("MLFLOW_TRACKING_URI", None)
    changed = {"HARNESS_HOME": str(home), "HARNESS_DATA": str(home / "data"), "KERAS_BACKEND": "jax", "NO_COLOR": "1"}
    return hidden | changed


@pytest.fixture(scope="module")
def harness(environment: dict[str, str]) -> Harness:
    def run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness.cli", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def study(harness: Harness) -> str:
    harness("data", "fetch", "--dataset", "digits")
    assert ", jax, float32\n" in harness("sweep", "smoke", "--trials", "2").stdout
    return "smoke-quick"


def test_they_are_hidden(environment: dict[str, str]) -> None:
    code = """
from importlib import metadata, util
print([util.find_spec(name) for name in ("tensorflow", "keras_tuner")])
metadata.version("tensorflow")
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "[None, None]\n"
    assert "PackageNotFoundError" in done.stderr


def test_a_study_is_ranked_reported_and_sound(study: str, harness: Harness, home: Path) -> None:
    board = harness("leaderboard", study).stdout
    assert "0 baseline" in board
    harness("report", study)
    page = (home / "reports" / f"{study}.html").read_text()
    assert "jax" in page
    assert f"{study}: no differences" in harness("doctor", "--audit", study).stdout


def test_a_verdict_is_reached_and_its_champion_reads_digits(study: str, harness: Harness, home: Path) -> None:
    said = harness("verdict", study, "--top", "1", "--seeds", "3", "--epochs", "1").stdout
    assert "champion: digits-fc version 1" in said
    images, labels = cache.load("digits", "test", home / "data" / "digits")
    Image.fromarray(np.asarray(images[0])).save(home / "digit.png")
    (answer,) = json.loads(harness("predict", "--json", str(home / "digit.png")).stdout)["predictions"]
    assert 0 <= answer["digit"] <= 9
    assert labels.shape == (300,)


def test_what_needs_them_is_refused_in_one_line(harness: Harness) -> None:
    refused = harness("sweep", "smoke", "--engine", "keras-tuner", "--as", "other", status=EXIT_INPUT)
    assert refused.stderr == "harness: engine is keras-tuner, which is not installed; allowed here: optuna\n"


def test_the_doctor_does_not_miss_them(study: str, harness: Harness) -> None:
    lines = {line.split()[1]: line for line in harness("doctor").stdout.splitlines()}
    assert lines["libraries"].startswith("ok ")
    assert lines["libraries"].endswith("; without keras-tuner, tensorflow")
    assert lines["backend"].startswith("ok       backend    jax ")
