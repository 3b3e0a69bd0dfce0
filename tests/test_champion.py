"""What a verdict registers in MLflow: which network, with what beside it, once, whatever comes in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import yaml
from machine import SmallDisk
from mlflow import MlflowClient
from registered_champion import BETTER, NAME, SMALL, TIE, add_study, confirm

from harness.analysis.verdict.findings import Verdict
from harness.analysis.verdict.trainings import Answer
from harness.audit.runs import run_differences
from harness.cli import _parser
from harness.commands import COMMANDS
from harness.errors import TroubleError
from harness.execution.training import models
from harness.ledger.ledger import Ledger
from harness.study.records import Outcome
from harness.workflows.champion import crown

NOT_YET = "the champion is not registered yet, the same command tries again: "
HARNESS = [sys.executable, "-m", "harness.cli"]
# The steps of the way to the registry, in their order; `test_faults_kill` has the others.
CHAMPION_KILLS = ["before_model", "after_model", "before_version", "after_version", "after_alias"]


@pytest.fixture(scope="module")
def seed_home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A home with a study that has no verdict yet."""
    home = tmp_path_factory.mktemp("champion") / "home"
    home.mkdir()
    shutil.copy(empty_store, home / "mlflow.db")
    add_study(home)
    return home


@pytest.fixture
def home(seed_home: Path, tmp_path: Path, digits_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_DATA", str(digits_folder.parent))
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path(shutil.copytree(seed_home, tmp_path / "home"))


def client(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home}/mlflow.db")


def differences(home: Path) -> list[str]:
    """Of the runs from the ledger."""
    with closing(Ledger(home / "ledger.db")) as ledger:
        return list(map(str, run_differences(home, ledger, "study.verdict")))


def as_a_tie(verdict: Verdict) -> Verdict:
    candidates = tuple(replace(one, answer=Answer.NOT_DISTINGUISHABLE) for one in verdict.candidates)
    return replace(verdict, answer=Answer.NOT_DISTINGUISHABLE, candidates=candidates)


def weights(home: Path, study: str = "study") -> set[str]:
    return {path.stem for path in (home / "checkpoints" / f"{study}.verdict").iterdir()}


def registry_story(home: Path) -> dict[str, Any]:
    """All that the registry, the logged models and their folders show, less times and names that chance gave."""
    server = client(home)
    experiments = [experiment.experiment_id for experiment in server.search_experiments()]
    logged = server.search_logged_models(experiments)
    runs = [run for run in server.search_runs(experiments) if run.outputs and run.outputs.model_outputs]
    return {
        "versions": [
            (one.version, one.run_id, {k: v for k, v in one.tags.items() if k != "champion_since"}, one.description)
            for one in server.search_model_versions(f"name = '{NAME}'")
        ],
        "aliases": server.get_registered_model(NAME).aliases,
        "models": [(one.status, one.params, one.tags, len(one.metrics), one.source_run_id) for one in logged],
        "files": sorted(path.name for path in home.glob("artifacts/*/models/*/artifacts/**/*")),
        "outputs": [(run.info.run_id, len(run.outputs.model_outputs)) for run in runs],
    }


# Which network


def test_a_better_candidate_is_registered_with_all_that_is_known_of_it(home: Path) -> None:
    verdict = confirm(home, BETTER)
    with closing(Ledger(home / "ledger.db")) as ledger:
        documented, first, *_ = ledger.finished("study.verdict")
        run_id = ledger.run_ids("study.verdict")[first.trial.uid]
    found = crown(home, verdict)
    assert (found.name, found.version, found.is_champion) == (NAME, "1", True)
    version = client(home).get_model_version_by_alias(NAME, "champion")
    assert version.run_id == run_id
    assert version.tags.items() >= {
        "study": "study", "network": "trial 1", "answer": "BETTER", "seed": str(first.trial.seed), "seeds": "3",
        "test_error_pct": "0.00 ± 0.00", "device_time_ratio": "0.40", "training": first.trial.uid,
    }.items()  # fmt: skip
    assert version.description.startswith("BETTER: trial 1 of study has an error 20.00 points lower than the docume")
    assert "units_1=64 units_2=64" in version.description
    assert "units_3=" not in version.description
    assert "`harness predict --model digits-fc/VERSION IMAGE...`" in version.description
    for name in ("error_rate_pct", "num_params", "device_time_s"):
        explained = f"| `{name}` | " in version.description
        assert explained == (name in client(home).get_run(run_id).data.metrics)
    model = client(home).get_logged_model(client(home).get_run(run_id).outputs.model_outputs[0].model_id)
    assert (model.source_run_id, str(model.status)) == (run_id, "READY")
    assert {
        "units_1": "64",
        "units_2": "64",
        "seed": str(first.trial.seed),
        "epochs": "3",
    }.items() <= model.params.items()
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": NAME, "version": 1}]
    (error,) = (metric for metric in model.metrics if metric.key == "test_error_rate_pct")
    (dataset,) = client(home).get_run(run_id).inputs.dataset_inputs
    assert (error.value, error.dataset_name, error.dataset_digest) == (0.0, "digits", dataset.dataset.digest)
    assert differences(home) == []
    assert weights(home) == {first.trial.uid, documented.trial.uid}, "another verdict may take over the baseline"


def test_the_model_says_what_it_takes_and_gives_and_what_it_needs(home: Path) -> None:
    folder = Path(crown(home, confirm(home, BETTER)).file).parents[1]
    info = yaml.safe_load((folder / "MLmodel").read_text())
    shapes = [json.loads(info["signature"][side])[0]["tensor-spec"]["shape"] for side in ("inputs", "outputs")]
    assert shapes == [[-1, 28, 28, 1], [-1, 10]]
    assert np.array(json.loads((folder / "input_example.json").read_text())).shape == (1, 28, 28, 1)
    requirements = (folder / "requirements.txt").read_text().split()
    assert {line.split("==")[0] for line in requirements} == {"mlflow", "keras", "tensorflow", "numpy"}
    assert all("==" in line for line in requirements)
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle", ".joblib")]
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    served = mlflow.pyfunc.load_model(str(folder))
    assert served.predict(np.array(json.loads((folder / "input_example.json").read_text()), np.float32)).shape == (
        1,
        10,
    )


LOAD = """
import sys
import keras, numpy as np
model = keras.saving.load_model(sys.argv[1])
assert not [name for name in sys.modules if name.split(".")[0] in ("harness", "baselines", "mlflow")]
np.save(sys.argv[2], model.predict(np.load(sys.argv[3]), verbose=0))
"""


def test_the_file_loads_with_plain_keras_and_is_the_network_that_was_trained(home: Path, tmp_path: Path) -> None:
    verdict = confirm(home, BETTER)
    found = crown(home, verdict)
    with closing(Ledger(home / "ledger.db")) as ledger:
        spec = ledger.study("study.verdict").spec
        _, first, *_ = ledger.finished("study.verdict")
    uid = first.trial.uid
    network = models.rebuild(spec, SMALL, home / "checkpoints" / "study.verdict" / f"{uid}.npz")
    images = np.random.default_rng(0).random((5, 28, 28), np.float32)
    np.save(tmp_path / "images.npy", images[..., np.newaxis])
    command = [sys.executable, "-I", "-c", LOAD, str(found.file), "answers.npy", "images.npy"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert np.load(tmp_path / "answers.npy") == pytest.approx(models.probabilities(network, images), abs=1e-6)


def test_where_nothing_is_better_the_baseline_is_champion_until_something_is(home: Path) -> None:
    verdict = confirm(home, BETTER)
    assert (
        crown(home, as_a_tie(verdict)).tags.items() >= {"network": "baseline", "answer": "NOT DISTINGUISHABLE"}.items()
    )
    assert len(weights(home)) == 2, "with more seeds the candidate may win yet"
    assert crown(home, verdict).tags.items() >= {"network": "trial 1", "answer": "BETTER"}.items()
    versions = client(home).search_model_versions(f"name = '{NAME}'")
    assert {one.version: one.tags["network"] for one in versions} == {1: "baseline", 2: "trial 1"}
    assert client(home).get_registered_model(NAME).aliases == {"champion": 2}
    assert len(weights(home)) == 2


def test_a_verdict_that_finds_nothing_better_leaves_the_champion_of_another_study(home: Path) -> None:
    first = crown(home, confirm(home, BETTER))
    add_study(home, "other")
    assert crown(home, confirm(home, TIE, "other")) == first
    assert [one.version for one in client(home).search_model_versions(f"name = '{NAME}'")] == [1]


def test_without_an_answer_or_a_baseline_there_is_no_champion(home: Path) -> None:
    verdict = confirm(home, TIE)
    assert crown(home, replace(verdict, answer=Answer.OPEN)) is None
    add_study(home, "other")
    failed = confirm(home, TIE, "other", baseline=Outcome.DIVERGED)
    assert (failed.answer, crown(home, failed)) == (Answer.FAILED, None)
    assert client(home).search_registered_models() == []


# Once


def test_registering_twice_changes_nothing(home: Path) -> None:
    verdict = confirm(home, BETTER)
    first = crown(home, verdict)
    before, files = registry_story(home), {path: path.stat().st_mtime_ns for path in home.rglob("artifacts/**/*")}
    assert crown(home, verdict) == first
    assert registry_story(home) == before
    assert {path: path.stat().st_mtime_ns for path in home.rglob("artifacts/**/*")} == files


def test_an_alias_that_people_have_moved_stays_where_they_put_it(home: Path) -> None:
    verdict = confirm(home, BETTER)
    crown(home, as_a_tie(verdict))
    crown(home, verdict)
    client(home).set_registered_model_alias(NAME, "champion", "1")
    again = crown(home, verdict)
    assert (again.version, again.is_champion) == ("2", False)
    assert client(home).get_registered_model(NAME).aliases == {"champion": 1}


class Killed(BaseException):
    """An end at which nothing more can be done."""


@pytest.mark.parametrize("step", CHAMPION_KILLS)
def test_a_registration_that_was_cut_short_is_completed(
    home: Path, step: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    verdict = confirm(home, BETTER)

    def die(reached: str) -> None:
        if reached == step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("harness.tracking.champion.reach", die)
        patch.setattr("harness.workflows.champion.reach", die)
        with pytest.raises(Killed):
            crown(home, verdict)
    found = crown(home, verdict)
    assert (found.version, found.is_champion) == ("1", True)
    story = registry_story(home)
    assert len(story["versions"]) == len(story["models"]) == 1
    assert [number for _, number in story["outputs"]] == [1]
    assert differences(home) == []


def test_where_mlflows_store_was_lost_the_champion_is_registered_anew(home: Path, empty_store: Path) -> None:
    verdict = confirm(home, BETTER)
    crown(home, verdict)
    for path in home.glob("mlflow.db*"):
        path.unlink()
    shutil.copy(empty_store, home / "mlflow.db")
    confirm(home, BETTER)  # brings the runs there
    assert crown(home, verdict).is_champion


# When something is in the way


def command(*arguments: str) -> int:
    return COMMANDS[arguments[0]](_parser().parse_args(arguments))


def test_the_command_shows_the_verdict_and_names_champion_and_file(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    confirm(home, BETTER)
    assert command("verdict", "study") == 0
    *_, champion, file = capsys.readouterr().out.splitlines()
    assert champion.startswith(f"champion: {NAME} version 1: trial 1 of study, trained with seed ")
    assert Path(file).name == "model.keras"
    assert Path(file).is_file()


def test_mlflow_is_down_and_the_verdict_is_shown_all_the_same(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    confirm(home, BETTER)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        assert command("verdict", "study") == 0
    said = capsys.readouterr().out
    assert "BETTER: trial 1 of study" in said
    last = said.splitlines()[-1]
    assert last.startswith(f"{NOT_YET}MLflow (http://127.0.0.1:1): ")
    assert command("verdict", "study") == 0
    assert f"champion: {NAME} version 1" in capsys.readouterr().out


def test_weights_that_are_gone_or_damaged_are_told_in_one_line(home: Path) -> None:
    verdict = confirm(home, BETTER)
    (winner,) = (path for path in (home / "checkpoints" / "study.verdict").iterdir() if path.stat().st_size < 500_000)
    for content in (winner.read_bytes()[:5000], b"", b"no weights"):
        winner.write_bytes(content)
        with pytest.raises(TroubleError, match=r"^its weights cannot be read from \S+\.npz: [^\n]+$"):
            crown(home, verdict)
    winner.unlink()
    again = "an imported study comes without; `harness verdict STUDY --fresh` trains again"
    with pytest.raises(TroubleError, match=rf"^its weights are gone \(\S+\.npz\); {again}$"):
        crown(home, verdict)


def test_a_run_that_is_not_in_mlflow_yet(home: Path) -> None:
    verdict = confirm(home, BETTER)
    with closing(Ledger(home / "ledger.db")) as ledger:
        ledger._db.execute("DELETE FROM tracked")
        ledger._db.commit()
    with pytest.raises(TroubleError, match=r"^MLflow does not have the training's run yet$"):
        crown(home, verdict)


# Slow: real kills and a real disk


def run(home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1", **variables}
    return subprocess.run([*HARNESS, "verdict", "study"], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_verdict_that_is_killed_at_each_step_registers_in_the_end(home: Path) -> None:
    confirm(home, BETTER)
    for step in CHAMPION_KILLS:
        killed = run(home, HARNESS_FAILPOINT=step)
        assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
        assert "BETTER: trial 1 of study" in killed.stdout
    done = run(home)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"champion: {NAME} version 1: trial 1 of study" in done.stdout
    assert len(registry_story(home)["versions"]) == len(registry_story(home)["models"]) == 1
    assert differences(home) == []


def run_on(disk: SmallDisk, **variables: str) -> subprocess.CompletedProcess[str]:
    command = disk.inside(*HARNESS, "verdict", "study")
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)


def assert_not_yet(full: subprocess.CompletedProcess[str]) -> None:
    """The verdict is shown, and one line says why there is no champion."""
    assert (full.returncode, full.stderr) == (0, ""), full.stdout + full.stderr
    assert "BETTER: trial 1 of study" in full.stdout
    last = full.stdout.splitlines()[-1]
    assert last.startswith(NOT_YET)
    assert "No space left on device" in last


@pytest.mark.slow
@pytest.mark.parametrize("where", ["artifacts", "temporary"])
def test_a_full_disk_is_one_line_and_the_verdict_is_kept(home: Path, tmp_path: Path, where: str) -> None:
    confirm(home, BETTER)
    folder = tmp_path / "disk"
    folder.mkdir()
    with SmallDisk(folder, size_kb=1024 if where == "artifacts" else 128) as disk:
        if where == "artifacts":
            shutil.move(home / "artifacts", tmp_path / "kept")
            (home / "artifacts").symlink_to(folder)
            with disk.full():
                assert_not_yet(run_on(disk))
        else:  # it has room for the file that Python tries it with, and not for a model
            assert_not_yet(run_on(disk, TMPDIR=str(folder)))
        assert f"champion: {NAME} version 1: trial 1 of study" in run_on(disk).stdout
    assert len(registry_story(home)["models"]) == 1
