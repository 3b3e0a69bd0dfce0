"""Keras's own settings, which a user may have changed for other work, change no number here."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import keras
import numpy as np
import pytest
from test_execution import PLACES, Driver

from harness.execution.base import Job
from harness.execution.local import LocalExecutor
from harness.execution.training import models
from harness.execution.training.trainer import build, save_weights
from harness.study.records import Trial, TrialResult
from harness.study.settings import Flags
from harness.study.spec import SweepSpec
from harness.study.sweep_file import load_sweep
from harness.support import keras_settings
from harness.support.home import sweeps_folder

HOSTILE = {"floatx": "float64", "image_data_format": "channels_first", "epsilon": 0.5, "nnx_enabled": True}


@pytest.fixture
def changed() -> Iterator[None]:
    """This process's Keras, set otherwise."""
    with keras_settings.pinned():  # to put everything back
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("mixed_bfloat16")
        keras.config.set_image_data_format("channels_first")
        keras.config.set_epsilon(0.5)
        keras.config.set_max_epochs(1)
        keras.config.set_max_steps_per_epoch(1)
        yield


def shown() -> list[object]:
    config = keras.config
    lengths = [config.max_epochs(), config.max_steps_per_epoch()]
    return [config.floatx(), config.dtype_policy().name, config.image_data_format(), config.epsilon(), *lengths]


def test_all_are_set_and_put_back(changed: None) -> None:
    before = shown()
    with keras_settings.pinned():
        assert shown() == ["float32", "float32", "channels_last", 1e-7, None, None]
        keras.backend.clear_session()
        assert shown() == ["float32", "float32", "channels_last", 1e-7, None, None]
    assert shown() == before == ["float64", "mixed_bfloat16", "channels_first", 0.5, 1, 1]


def test_keras_has_no_others() -> None:
    settable = {name.removeprefix("set_") for name in dir(keras.config) if name.startswith("set_")}
    assert settable == {*keras_settings.SETTINGS, "backend"}


def test_a_trained_network_answers_the_same(changed: None, tmp_path: Path) -> None:
    spec = load_sweep(sweeps_folder() / "cnn.toml", Flags(dataset="digits", precision="float32"), "quick")
    images = np.random.default_rng(0).random((70, 28, 28), np.float32)
    with keras_settings.pinned():
        network = build(spec, SMALL)
        save_weights(network, tmp_path / "weights.npz")
        network.save(tmp_path / "network.keras")
        expected = network.predict(images[..., np.newaxis], verbose=0)
    for again in (models.rebuild(spec, SMALL, tmp_path / "weights.npz"), models.open_model(tmp_path / "network.keras")):
        answers = models.probabilities(again, images)
        assert answers.dtype == np.float32
        np.testing.assert_array_equal(answers, expected)
    assert shown()[0] == "float64"


SMALL = {"filters_1": 4, "filters_2": 4, "kernel_1": 3, "kernel_2": 3, "dense_units": 16}
PARAMS = {"fc": {"units_1": 32, "units_2": 16}, "cnn": SMALL}


@pytest.mark.parametrize("baseline", PARAMS)
def test_a_worker_trains_the_same_whatever_keras_json_says(
    baseline: str, digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_sweep(sweeps_folder() / f"{baseline}.toml", Flags(dataset="digits", precision="float32"), "quick")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    found = []
    for settings in ({}, HOSTILE):
        (tmp_path / "keras.json").write_text(json.dumps(settings))
        found.append(trained(spec, Trial("uid", 0, PARAMS[baseline], seed=0, epochs=1), digits_folder, tmp_path))
    assert found[1].error is None
    numbers = [(result.curve[0].train_loss, result.curve[0].val_loss, result.wrong_images) for result in found]
    assert numbers[0] == numbers[1]


def trained(spec: SweepSpec, trial: Trial, data_folder: Path, folder: Path) -> TrialResult:
    with closing(LocalExecutor(spec, PLACES[:1], data_folder, folder / "logs")) as executor:
        driver = Driver(executor)
        return driver.finish(driver.start(Job(trial)))
