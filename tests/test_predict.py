"""`harness predict`: a registered network is found by its name, and says which digits pictures show."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import keras
import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from registered_champion import BETTER, NAME, SMALL, add_study, confirm

import baselines
from harness.cli import _parser
from harness.commands import COMMANDS
from harness.errors import InputError, TroubleError
from harness.execution.data import cache
from harness.execution.training import models
from harness.execution.training.trainer import save_weights
from harness.ledger.ledger import Ledger
from harness.tracking.registry import DATASET, Registered
from harness.workflows.champion import crown
from harness.workflows.predict import _only_champion, predict


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path, digits_folder: Path) -> Path:
    """Of its two champions, the one of `digits-fc` has learned digits; the newer one is not ours, and has no file."""
    home = tmp_path_factory.mktemp("predict") / "home"
    home.mkdir()
    shutil.copy(empty_store, home / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("HARNESS_DATA", str(digits_folder.parent))
        add_study(home)
        verdict = confirm(home, BETTER)
        for path in (home / "checkpoints" / "study.verdict").iterdir():
            if path.stat().st_size < 500_000:
                save_weights(trained(digits_folder), path)
        crown(home, verdict)
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    client.create_registered_model("theirs")
    client.create_model_version("theirs", str(home / "nowhere"), run_id="0" * 32)
    client.set_registered_model_alias("theirs", "champion", "1")
    client.set_registered_model_alias(NAME, "shipped", "1")
    return home


def trained(digits_folder: Path) -> keras.Model:
    images, labels = cache.load("digits", "train", digits_folder)
    fc = baselines.load("fc")
    keras.utils.set_random_seed(0)
    model = fc.build(fc.Config(**SMALL))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images[..., np.newaxis] / 255.0, labels, epochs=15, verbose=0)
    return model


@pytest.mark.parametrize("side", [56, 280])
def test_a_digit_is_known_at_any_size(home: Path, digits_folder: Path, tmp_path: Path, side: int) -> None:
    images, labels = cache.load("digits", "validation", digits_folder)
    paths = [tmp_path / f"{number}.png" for number in range(200)]
    for image, path in zip(images, paths, strict=False):
        Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC).save(path)
    _, predictions = predict(home, "champion", paths)
    right = [one.digit == label for one, label in zip(predictions, labels, strict=False)]
    assert np.mean(right) > 0.8  # in MNIST's layout it is half of them


@pytest.fixture(autouse=True)
def environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def pictures(tmp_path: Path, digits_folder: Path) -> list[Path]:
    """Forty digits that the network has not seen, half of them dark on light; the files' names begin with them."""
    images, labels = cache.load("digits", "validation", digits_folder)
    paths = [tmp_path / f"{label} number {i}.png" for i, label in enumerate(labels[:40])]
    for i, path in enumerate(paths):
        Image.fromarray(images[i] if i % 2 else 255 - images[i]).save(path)
    return paths


def command(*arguments: str | Path) -> int:
    options = _parser().parse_args(["predict", *map(str, arguments)])
    return COMMANDS["predict"](options)


def test_the_champion_knows_digits(home: Path, pictures: list[Path]) -> None:
    model, predictions = predict(home, "champion", pictures)
    assert str(model) == f"{NAME} version 1"
    assert [one.path for one in predictions] == pictures
    right = [one.digit == int(one.path.name[0]) for one in predictions]
    assert sum(right) >= 36
    assert sum(right[::2]) >= 17, "dark on light"
    for one in predictions:
        assert sum(one.probabilities) == pytest.approx(1.0, abs=1e-5)
        assert one.probability == max(one.probabilities) == one.probabilities[one.digit]


@pytest.mark.parametrize(
    "model", ["champion", NAME, f"{NAME}@champion", f"{NAME}@shipped", f"{NAME}/1", f"models:/{NAME}@champion"]
)
def test_a_model_is_found_by_any_of_its_names(home: Path, pictures: list[Path], model: str) -> None:
    assert str(predict(home, model, pictures[:1])[0]) == f"{NAME} version 1"


@pytest.mark.parametrize("model", ["nope", f"{NAME}@nope", f"{NAME}/2", "mnist-cnn", "a/b/c", "", "a@b@c", "x" * 300])
def test_a_model_that_is_not_there(home: Path, pictures: list[Path], model: str) -> None:
    with pytest.raises(InputError) as refused:
        predict(home, model, pictures[:1])
    assert str(refused.value).startswith(f"--model is {model!r}")
    assert "allowed: champion, NAME, NAME@ALIAS or NAME/VERSION" in str(refused.value)


def test_the_champions_that_there_are_are_named(home: Path, pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"NAME is one of {NAME}; did you mean {NAME}\?$"):
        predict(home, f"{NAME}x", pictures[:1])
    with pytest.raises(InputError, match=rf"NAME is one of {NAME}$"):
        predict(home, f"{NAME}/9", pictures[:1])
    with pytest.raises(InputError, match=r"none is registered yet; `harness verdict` does it$"):
        predict(tmp_path / "home", NAME, pictures[:1])


def test_before_any_verdict_no_store_is_made(tmp_path: Path, pictures: list[Path]) -> None:
    with pytest.raises(InputError, match=r"^no champion is registered yet; `harness verdict STUDY` registers one$"):
        predict(tmp_path / "home", "champion", pictures[:1])
    assert not (tmp_path / "home").exists()


def test_the_table(home: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*pictures[:2]) == 0
    first, file, blank, head, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{NAME} version 1: trial 1 of study, trained with seed ")
    assert (Path(file).name, Path(file).is_file(), blank) == ("model.keras", True, "")
    assert head.split() == ["digit", "probability", "file"]
    for row, path in zip(rows, pictures, strict=False):
        digit, probability, name = row.split(maxsplit=2)
        assert (digit, name) == (path.name[0], str(path))
        assert 0 < float(probability.removesuffix("%")) <= 100


def test_for_programs(home: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--json", "--model", NAME, *pictures[:2]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["model"]["name"], said["model"]["version"], said["model"]["tags"]["answer"]) == (NAME, "1", "BETTER")
    assert Path(said["model"]["file"]).is_file()
    assert [one["file"] for one in said["predictions"]] == [str(path) for path in pictures[:2]]
    assert [len(one["probabilities"]) for one in said["predictions"]] == [10, 10]


def test_predicting_reads_no_test_images(home: Path, pictures: list[Path]) -> None:
    with closing(Ledger(home / "ledger.db")) as ledger:
        before = [ledger.num_test_reads(study) for study in ledger.study_names()]
        predict(home, "champion", pictures)
        assert [ledger.num_test_reads(study) for study in ledger.study_names()] == before


def test_a_missing_picture_is_one_line_and_exit_status_2(home: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "harness.cli", "predict", str(tmp_path / "nope.png")]
    done = subprocess.run(arguments, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"harness: {tmp_path}/nope.png cannot be read: No such file or directory\n"


def test_a_model_whose_file_is_not_where_mlflow_has_it(home: Path, pictures: list[Path]) -> None:
    with pytest.raises(TroubleError, match=r"^theirs version 1 is not where MLflow looks for it"):
        predict(home, "theirs", pictures[:1])


# Files of models


def test_a_model_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Lambda(lambda x: x)]).save(path)
    with pytest.raises(TroubleError, match=r"model\.keras cannot be loaded: "):
        models.open_model(path)


def test_a_model_of_other_shapes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(TroubleError, match=r"allowed: images \(height, width, channels\) to a number of classes$"):
        models.open_model(path)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"no model")
    with pytest.raises(TroubleError, match=r"model\.keras cannot be loaded: "):
        models.open_model(tmp_path / "model.keras")


def test_the_newest_champion_is_taken_only_if_all_are_of_one_data_set() -> None:
    first, other, foreign = (
        Registered(name, "1", True, {DATASET: dataset}, "file:///x")
        for name, dataset in (("mnist-fc", "mnist"), ("mnist-cnn", "mnist"), ("digits-fc", "digits"))
    )
    assert _only_champion([first, other]) is first
    with pytest.raises(InputError, match=r"several data sets; --model takes one of them: mnist-fc, digits-fc$"):
        _only_champion([first, foreign])
