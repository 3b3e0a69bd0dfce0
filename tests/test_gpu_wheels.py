"""The wheels for a machine without a network: which they are, and that the check needs nothing else."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from hidden_packages import environment_without
from packaging.utils import canonicalize_name
from test_project import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import gpu_wheels
from gpu_wheels import locked, main, missing, read_list

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
MODULES = (
    *("harness.commands", "harness.gpu_check.command", "harness.gpu_check.frameworks", "harness.gpu_check.speed"),
    *("harness.execution.worker", "harness.execution.training.trainer", "scipy.stats", "scipy.optimize"),
)


def test_what_is_there_in_a_version_that_fits_is_left_out() -> None:
    needed = missing({}, "3.12", whole=False)
    assert {"keras", "pydantic", "pydantic-core", "rich", "nvidia-ml-py", "jax", "numpy"} <= needed
    assert needed.isdisjoint({"tensorflow", "keras-tuner", "pandas", "mlflow"})
    have = {"jax": "0.11.2", "jaxlib": "0.11.2", "numpy": "1.26.4", "rich": "15.0.0"}
    assert needed - missing(have, "3.12", whole=False) >= {"jax", "jaxlib", "rich", "markdown-it-py"}
    assert "numpy" in missing(have, "3.12", whole=False), "the harness needs a newer one"
    assert {"pandas", "mlflow", "optuna"} <= missing({}, "3.12", whole=True)


def test_a_list_is_read_as_pip_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("ml_dtypes==0.6.0\n-e git+here\nJax==0.11.2\n")
    assert read_list(path) == {"ml-dtypes": "0.6.0", "jax": "0.11.2"}


def test_versions_and_hashes_are_locked() -> None:
    names = missing({}, "3.12", whole=True)
    entries = list(locked(names, "3.12"))
    assert {canonicalize_name(entry.partition("==")[0]) for entry in entries} == names
    assert len(entries) == len(names)
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_check_imports_nothing_else(tmp_path: Path) -> None:
    there = missing({}, VERSION, whole=False) | {"harness"}
    others = {
        module
        for module, packages in metadata.packages_distributions().items()
        if there.isdisjoint(map(canonicalize_name, packages))
    }
    assert {"pandas", "tensorflow", "mlflow"} <= others
    environment = environment_without(others, tmp_path) | {"KERAS_BACKEND": "jax", "KERAS_NNX_ENABLED": "false"}
    code = f"import importlib; [importlib.import_module(name) for name in {MODULES!r}]; print('all')"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "all\n", done.stderr


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands of pip, none of which is run."""
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(gpu_wheels, "_pip", lambda *arguments: commands.append(arguments))
    pixels = np.random.default_rng(0).integers(0, 256, 2**21, np.uint8)
    monkeypatch.setattr(gpu_wheels.cache, "fetch", lambda dataset, progress: {"x_train": pixels})
    return commands


def test_a_folder_is_filled_and_its_sizes_are_said(
    offline: list[tuple[str, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "new"), "--python", "3.13"]) == 0
    assert [command[0] for command in offline] == ["download", "wheel"]
    assert offline[0][offline[0].index("--python-version") + 1] == "3.13"
    assert capsys.readouterr().out == (f"   2.1 MB  mnist.npz\n   2.1 MB  in 1 files in {tmp_path / 'new'}\n")


def test_a_folder_that_is_not_empty_is_left_alone(
    offline: list[tuple[str, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").touch()
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"gpu_wheels: FOLDER is {tmp_path}, which is not empty; allowed: a new or an empty one\n"
    )
    assert offline == []


def test_too_much_is_said(
    offline: list[tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(gpu_wheels, "MAX_MB", 1.0)
    assert main([str(tmp_path)]) == 1
    assert " has 2 MB; allowed: 1; say with --have what is there already\n" in capsys.readouterr().err
