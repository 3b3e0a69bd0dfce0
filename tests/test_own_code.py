"""What trains is the code that was started, wherever it was started from, or nothing is trained."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from test_execution import PLACES, Driver

import baselines
from harness.errors import TroubleError
from harness.execution.base import Job
from harness.execution.local import LocalExecutor
from harness.study.records import Trial
from harness.study.spec import SweepSpec
from harness.support import own_code
from harness.support.own_code import program

DOCUMENTED = Trial("uid", 0, {"units_1": 512, "units_2": 512}, seed=0, epochs=1)


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose modules end whatever imports them."""
    folder = tmp_path / "trap"
    for name in ("random.py", "numpy/__init__.py", "harness/__init__.py", "baselines/__init__.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"raise SystemExit('{name} of the working folder')")
    monkeypatch.chdir(folder)
    return folder


def test_a_worker_takes_nothing_from_the_working_folder(
    trap: Path, smoke: SweepSpec, digits_folder: Path, tmp_path: Path
) -> None:
    with closing(LocalExecutor(smoke, PLACES[:1], digits_folder, tmp_path / "logs")) as executor:
        driver = Driver(executor)
        result = driver.finish(driver.start(Job(DOCUMENTED)))
    assert result.num_params == 669_706


def test_programs_come_from_the_very_files_that_are_in_use_here(trap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the path would lead elsewhere."""
    code = (
        "import baselines, harness, json, sys; print(json.dumps([harness.__file__, baselines.__file__, *sys.argv[1:]]))"
    )
    monkeypatch.setenv("PYTHONPATH", str(trap))
    (trap / "random.py").unlink()
    shutil.rmtree(trap / "numpy")
    (trap / "probe.py").write_text(code)
    done = subprocess.run(program("probe", "a", "b c"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = [str(folder / "__init__.py") for folder in (own_code.HARNESS, own_code.BASELINES)]
    assert json.loads(done.stdout) == [*files, "a", "b c"]


def test_a_worker_with_other_code_than_its_coordinator_trains_nothing(
    smoke: SweepSpec, digits_folder: Path, tmp_path: Path
) -> None:
    with (
        closing(LocalExecutor(smoke, PLACES[:1], digits_folder, tmp_path / "logs", code="before")) as executor,
        pytest.raises(
            TroubleError, match=r"^worker-0 has other code than the command that started it .*start the comm"
        ),
    ):
        Driver(executor).wait_until_idle()


def test_every_file_that_a_worker_loads_is_in_the_digest() -> None:
    code = "import sys, baselines.cnn, baselines.fc, harness.execution.worker, harness.execution.training.trainer\n"
    code += "ours = [module for name, module in sys.modules.items() if name.startswith(('baselines', 'harness'))]\n"
    code += "print(*(module.__file__ for module in ours))"
    loaded = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    known = {str(path) for _, path in own_code.files_that_train()}
    # The package itself and what it offers from Python, which imports nothing until it is called.
    aside = set(map(str, [own_code.HARNESS / "__init__.py", *(own_code.HARNESS / "api").glob("*.py")]))
    assert set(loaded.split()) - known == aside
    assert str(own_code.HARNESS / "execution" / "training" / "jax_engine.py") in known


def test_the_digest_is_that_of_names_and_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(own_code.BASELINES, tmp_path / "baselines")
    monkeypatch.setattr(own_code, "BASELINES", tmp_path / "baselines")
    digest = own_code.digest.__wrapped__
    assert digest() == own_code.digest()
    with (tmp_path / "baselines" / "fc.py").open("a") as file:
        file.write("# changed")
    assert digest() != own_code.digest()


@pytest.mark.parametrize("command", [["sweep", "smoke"], ["status"]])
def test_a_baseline_of_another_place_is_refused_before_anything_is_written(command: list[str], tmp_path: Path) -> None:
    """`python -m` puts the working folder on the path, and so it is the coordinator that finds the wrong one."""
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "__init__.py").touch()  # with which most of what is to come cannot even be imported
    environment = {**os.environ, "HARNESS_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *command],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    allowed = Path(str(baselines.__file__)).parent
    line = f"harness: the package baselines comes from {tmp_path / 'baselines'}; allowed: {allowed}\n"
    assert (done.returncode, done.stderr) == (1, line)
    assert not (tmp_path / "home").exists()
