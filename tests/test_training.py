"""One trial, really trained, on digits."""

import dataclasses
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines import fc
from harness.errors import TroubleError
from harness.execution.base import Job, Place
from harness.execution.data import cache
from harness.execution.training import models
from harness.execution.training.trainer import Trainer
from harness.study.data import BUILT_IN
from harness.study.records import EpochReport, Outcome, Trial, TrialResult
from harness.study.spec import SweepSpec

PLACE = Place("worker-0", "a processor", threads=1, sharing=1)
TRIAL = Trial("uid", 0, {"units_1": 256, "units_2": 64}, seed=1, epochs=3)


@pytest.fixture(scope="module")
def trainer(smoke: SweepSpec, digits_folder: Path) -> Trainer:
    return Trainer(smoke, PLACE, digits_folder)


def go_on(report: EpochReport) -> bool:
    return True


def train(trainer: Trainer, trial: Trial = TRIAL, **job: Any) -> TrialResult:
    return trainer.run(Job(trial, **job), go_on)


def errors_pct(result: TrialResult) -> list[float]:
    return [report.val_error_rate_pct for report in result.curve]


def test_a_trial_learns_and_says_what_it_cost(trainer: Trainer, smoke: SweepSpec) -> None:
    seen: list[EpochReport] = []
    result = trainer.run(Job(TRIAL), lambda report: seen.append(report) or True)
    assert result.outcome is Outcome.COMPLETED
    assert result.curve == tuple(seen)
    assert [report.epoch for report in seen] == [1, 2, 3]
    assert result.error_rate_pct < 30.0  # chance is 90
    assert result.num_params == 256 * 785 + 64 * 257 + 10 * 65
    assert result.device.timing_class == " / ".join(
        ("a processor", result.device.backend, "float32", "compiled", "1 trials of 1 threads")
    )
    assert result.seconds.train > 0.0
    assert result.seconds.compile > 0.0
    assert result.seconds.cpu > 0.0
    assert result.gpu_train_time_s == 0.0
    assert result.train_time_s == result.seconds.train
    assert result.images_per_s == pytest.approx(3 * smoke.train_images / result.seconds.train)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("build", r"fc.py: what build\(\) made has 6,442 parameters; allowed: 669,706, as cost\(\) counts$"),
        ("cost", r"fc.py: NUM_PARAMS is 669706, and cost\(DOCUMENTED, Task.* has 6442$"),
    ],
)
def test_a_baseline_that_is_not_the_documented_one_ends_the_study(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, changed: str, message: str
) -> None:
    function, narrow = getattr(fc, changed), fc.Config(units_1=8, units_2=8)
    monkeypatch.setattr(fc, changed, lambda config, task: function(narrow))
    with pytest.raises(TroubleError, match=message):
        train(trainer, dataclasses.replace(TRIAL, params={"units_1": 512, "units_2": 512}))


def test_a_trial_is_judged_on_all_validation_images(trainer: Trainer, smoke: SweepSpec) -> None:
    result = train(trainer)
    assert [report.val_images for report in result.curve] == [200, 200, 297]
    assert result.error_rate_pct == result.last.val_error_rate_pct == 100 * len(result.wrong_images) / 297
    assert max(result.wrong_images) < 297


def test_a_trial_trained_to_its_end_is_calibrated_on_all_validation_images(trainer: Trainer) -> None:
    result, stopped = train(trainer), trainer.run(Job(TRIAL), lambda report: False)
    assert (stopped.soft_error_pct, stopped.cross_entropy, stopped.temperature) == (None, None, None)
    assert result.soft_error_pct == pytest.approx(result.error_rate_pct, rel=0.8)
    assert result.cross_entropy < result.last.val_loss * 1.5
    assert 0.2 < result.temperature < 5


def test_the_seed_decides_everything(trainer: Trainer) -> None:
    first, again = train(trainer), train(trainer)
    other = train(trainer, dataclasses.replace(TRIAL, seed=2))
    assert errors_pct(first) == errors_pct(again)
    assert [report.train_loss for report in first.curve] == [report.train_loss for report in again.curve]
    assert first.curve[0].train_loss != other.curve[0].train_loss


# Each has a state of its own beside the weights: moving averages, and what chance comes next.
RANDOM = {"dropout": 0.3, "batch_norm": True, "augment_shift": 0.1}


@pytest.mark.parametrize("more", [{}, RANDOM], ids=["plain", "with layers that have a state"])
def test_a_continued_trial_is_the_uninterrupted_one(
    trainer: Trainer, tmp_path: Path, more: dict[str, float | bool]
) -> None:
    checkpoint = tmp_path / "deep" / "uid.npz"
    trial = dataclasses.replace(TRIAL, params={**TRIAL.params, **more})
    whole = train(trainer, trial)
    start = train(trainer, dataclasses.replace(trial, epochs=1), save_to=checkpoint)
    rest = train(trainer, trial, load_from=checkpoint)
    assert [report.epoch for report in start.curve + rest.curve] == [1, 2, 3]
    assert [report.train_loss for report in start.curve + rest.curve] == [report.train_loss for report in whole.curve]
    assert rest.error_rate_pct == whole.error_rate_pct
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


@pytest.mark.parametrize("more", [{}, RANDOM], ids=["plain", "with layers that have a state"])
def test_without_its_checkpoint_a_continued_trial_trains_the_epochs_before_again(
    trainer: Trainer, tmp_path: Path, more: dict[str, float | bool]
) -> None:
    trial = dataclasses.replace(TRIAL, params={**TRIAL.params, **more})
    whole = train(trainer, trial)
    rest = train(trainer, trial, load_from=tmp_path / "gone.npz", epochs_before=2)
    assert [report.epoch for report in rest.curve] == [3]
    assert rest.curve[0].train_loss == whole.curve[2].train_loss
    assert (rest.error_rate_pct, rest.outcome) == (whole.error_rate_pct, Outcome.COMPLETED)


def test_a_checkpoint_with_augmentation_layers_is_still_continued(trainer: Trainer, tmp_path: Path) -> None:
    """Earlier versions had augmentation in the network, so that checkpoints began with its generators' states."""
    checkpoint = tmp_path / "uid.npz"
    trial = dataclasses.replace(TRIAL, params={**TRIAL.params, **RANDOM})
    train(trainer, dataclasses.replace(trial, epochs=1), save_to=checkpoint)
    expected = train(trainer, trial, load_from=checkpoint).curve
    with np.load(checkpoint) as saved:
        values = list(saved.values())
    for num_states, outcome in ((3, Outcome.COMPLETED), (4, Outcome.CRASHED)):
        np.savez(checkpoint, *[np.array([7, 1], np.int64)] * num_states, *values)
        rest = train(trainer, trial, load_from=checkpoint)
        assert rest.outcome is outcome
        assert num_states == 4 or [one.train_loss for one in rest.curve] == [one.train_loss for one in expected]


@pytest.mark.parametrize("more", [{}, RANDOM], ids=["plain", "with layers that have a state"])
def test_a_trial_trained_to_its_end_leaves_the_network_that_was_judged(
    trainer: Trainer, digits_folder: Path, tmp_path: Path, more: dict[str, float | bool]
) -> None:
    trial = dataclasses.replace(TRIAL, params={**TRIAL.params, **more})
    result = train(trainer, trial, save_to=tmp_path / "uid.npz")
    network = models.rebuild(trainer.spec, trial.params, tmp_path / "uid.npz")
    images, labels = cache.load("digits", "validation", digits_folder)
    answers = models.probabilities(network, images.astype(np.float32) / 255.0).argmax(axis=1)
    assert tuple(np.flatnonzero(answers != labels)) == result.wrong_images
    assert (tmp_path / "uid.npz").stat().st_size < 4.1 * result.num_params + 10_000, "no optimizer state"


def test_a_stopped_trial_is_pruned(trainer: Trainer) -> None:
    result = trainer.run(Job(TRIAL), lambda report: report.epoch < 2)
    assert (result.outcome, len(result.curve)) == (Outcome.PRUNED, 2)
    assert (result.error_rate_pct, result.val_error_rate_pct) == (None, result.last.val_error_rate_pct)
    assert result.val_images == 200


def test_no_at_the_last_epoch_changes_nothing(trainer: Trainer) -> None:
    assert trainer.run(Job(TRIAL), lambda report: report.epoch < 3).outcome is Outcome.COMPLETED


def test_a_diverging_trial_ends_within_its_epoch(smoke: SweepSpec, digits_folder: Path) -> None:
    recipe = {**smoke.recipe, "learning_rate": 1e30, "schedule": "constant"}
    result = train(Trainer(smoke.model_copy(update={"recipe": recipe}), PLACE, digits_folder))
    assert (result.outcome, len(result.curve)) == (Outcome.DIVERGED, 1)
    assert result.curve[0].has_diverged


def test_whatever_a_configuration_does_is_its_outcome(trainer: Trainer) -> None:
    result = train(trainer, dataclasses.replace(TRIAL, params={"units_1": -1, "units_2": 32}))
    assert result.outcome is Outcome.CRASHED
    assert "units" in result.error
    assert "\n" not in result.error
    assert train(trainer).outcome is Outcome.COMPLETED


def test_a_missing_checkpoint_is_a_crash_with_its_name(trainer: Trainer, tmp_path: Path) -> None:
    result = train(trainer, load_from=tmp_path / "gone.npz")
    assert result.outcome is Outcome.CRASHED
    assert "gone.npz" in result.error


def test_a_checkpoint_cut_short_or_of_another_configuration_is_a_crash(trainer: Trainer, tmp_path: Path) -> None:
    checkpoint = tmp_path / "uid.npz"
    train(trainer, dataclasses.replace(TRIAL, epochs=1), save_to=checkpoint)
    other = dataclasses.replace(TRIAL, params={"units_1": 255, "units_2": 64})
    assert train(trainer, other, load_from=checkpoint).outcome is Outcome.CRASHED
    os.truncate(checkpoint, checkpoint.stat().st_size // 2)
    assert train(trainer, load_from=checkpoint).outcome is Outcome.CRASHED


def test_a_checkpoint_that_cannot_be_written_is_trouble_and_leaves_no_half(trainer: Trainer, tmp_path: Path) -> None:
    checkpoint = tmp_path / "uid.npz"
    short = dataclasses.replace(TRIAL, epochs=1)
    train(trainer, short, save_to=checkpoint)
    before = checkpoint.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(TroubleError, match=r"^cannot write .*/uid\.npz: File too large; is there room"):
            train(trainer, dataclasses.replace(short, seed=9), save_to=checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [checkpoint]
    assert checkpoint.read_bytes() == before


def test_want_of_memory_is_recognised(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def build(config: object, task: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr("baselines.fc.build", build)
    assert train(trainer).outcome is Outcome.OUT_OF_MEMORY


def test_a_batch_larger_than_the_data_is_refused(smoke: SweepSpec, digits_folder: Path) -> None:
    spec = smoke.model_copy(update={"recipe": {**smoke.recipe, "batch_size": 4096}})
    result = train(Trainer(spec, PLACE, digits_folder))
    assert result.error == "ValueError: batch_size is 4096; allowed: at most the 800 training images"


def test_test_images_are_opened_only_when_asked_for(
    smoke: SweepSpec, digits_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    load = cache.load

    def watched(dataset: str, split: cache.Split, folder: Path) -> object:
        opened.append(split)
        return load(dataset, split, folder)

    monkeypatch.setattr(cache, "load", watched)
    assert train(Trainer(smoke, PLACE, digits_folder)).test_wrong_images is None
    assert opened == ["train", "validation"]
    result = train(Trainer(smoke.model_copy(update={"reads_test": True}), PLACE, digits_folder))
    assert opened[2:] == ["train", "validation", "test"]
    assert 0 < len(result.test_wrong_images) < 100


def test_data_that_are_gone_are_no_fault_of_the_trial(smoke: SweepSpec, digits_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(digits_folder, tmp_path / "digits")
    trainer = Trainer(smoke.model_copy(update={"reads_test": True}), PLACE, folder)
    (folder / "test_images.npy").unlink()
    with pytest.raises(TroubleError, match=r"test_images\.npy: not there; run `harness data fetch`$"):
        train(trainer)


def test_the_timing_class_says_how_a_step_was_really_run(smoke: SweepSpec, digits_folder: Path) -> None:
    trainer = Trainer(smoke, PLACE, digits_folder)
    trainer.uses_xla = True
    assert train(trainer).device.engine == "compiled+xla"
    augmented = dataclasses.replace(TRIAL, params={**TRIAL.params, "augment_shift": 0.1}, epochs=1)
    assert train(trainer, augmented).device.engine == "compiled"


def test_a_verdicts_training_learns_from_the_validation_images_and_is_not_judged_by_them(
    smoke: SweepSpec, digits_folder: Path
) -> None:
    sizes = BUILT_IN["digits"].sizes
    everything = sizes["train"] + sizes["validation"]
    trainer = Trainer(smoke.model_copy(update={"train_images": everything, "reads_test": True}), PLACE, digits_folder)
    assert trainer.train_images.num_images == everything
    result = train(trainer)
    assert result.outcome is Outcome.COMPLETED
    assert result.wrong_images is None
    assert 0 < len(result.test_wrong_images) < 100
