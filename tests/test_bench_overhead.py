"""The bench of what a trial costs besides its training: real parts but for the workers, and true accounts."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from contextlib import closing
from pathlib import Path

import pytest

from harness.bench import overhead, scripted_workers
from harness.bench.overhead import OTHER_PARTS, TRIAL_PARTS, Stopwatch, Timing
from harness.ledger.ledger import Ledger
from harness.study.records import Outcome, Role
from harness.study.settings import Flags
from harness.study.sweep_file import load_sweep
from harness.support.home import sweeps_folder
from harness.tracking import store

WORKER_S = {"build": 0.5, "evaluate": 0.25}


@pytest.fixture
def home(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def test_a_growing_study_is_timed_at_each_size_and_is_real_in_all_but_training(home: Path) -> None:
    timings = overhead.grow(home, [6, 12], num_trials=2)
    assert [timing.num_trials for timing in timings] == [6, 12]
    for timing in timings:
        assert set(timing.trial_s) == set(timing.trial_cpu_s) == set(TRIAL_PARTS)
        assert set(timing.other_s) == set(timing.other_cpu_s) == set(OTHER_PARTS)
        assert min(*timing.trial_s.values(), *timing.other_s.values()) > 0
    with closing(Ledger(home / "ledger.db")) as ledger:
        records = ledger.history(overhead.STUDY)
        assert ledger.untracked(overhead.STUDY) == []
    assert sum(record.result.outcome is not Outcome.INFEASIBLE for record in records if record.result) == 14
    client = store.open_client(home)
    experiment = client.get_experiment_by_name(overhead.STUDY)
    runs = client.search_runs([experiment.experiment_id] if experiment else [])
    assert len(runs) == len(records) + 1  # the parent's


def test_filled_trials_are_like_those_of_a_study(tmp_path: Path) -> None:
    spec = load_sweep(sweeps_folder() / "cnn.toml", Flags(study="study"), "quick")
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        ledger.create_study(spec, {})
        for num_trials in (8, 20):
            scripted_workers.fill(ledger, spec, num_trials)
        records = ledger.history("study")
        image_by_image = [ledger.record(record.trial.uid).result for record in records]
    assert [record.trial.number for record in records] == list(range(20))
    num_baselines = sum(record.trial.role is Role.BASELINE for record in records)
    assert num_baselines == spec.baseline_seeds
    assert all(record.trial.role is Role.BASELINE for record in records[:num_baselines])
    assert {result.outcome for result in image_by_image if result} == {Outcome.COMPLETED, Outcome.PRUNED}
    for result in image_by_image:
        assert result is not None
        if result.outcome is Outcome.COMPLETED:
            assert len(result.curve) == spec.epochs
            assert len(result.wrong_images or ()) == round(100 * (result.error_rate_pct or 0))


def test_parts_within_the_loop_are_taken_off_it() -> None:
    watch = Stopwatch({"loop": 10.0, "ask": 1.0, "commit": 2.0, "worker": 3.0, "log to MLflow": 4.0}, {"loop": 1.0})
    for clock in (watch.wall_s, watch.cpu_s):
        clock |= dict.fromkeys(OTHER_PARTS, 0.5)
    trial_s, trial_cpu_s, other_s, _ = overhead._parts(watch, num_added=2)
    assert trial_s == {"ask": 0.5, "report and tell": 0.0, "commit": 1.0, "loop": 2.0, "log to MLflow": 2.0}
    assert trial_cpu_s["loop"] == 0.5
    assert other_s["leaderboard"] == 0.5


def test_it_writes_a_table_numbers_and_a_picture_and_leaves_the_users_store_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    def grow(home: Path, sizes: object, num_trials: int) -> list[Timing]:
        seen.append(os.environ.get("MLFLOW_TRACKING_URI"))
        trial_s, other_s = dict.fromkeys(TRIAL_PARTS, 0.012345), dict.fromkeys(OTHER_PARTS, 0.5)
        return [Timing(size, trial_s, trial_s, other_s, other_s) for size in (10, 1000)]

    monkeypatch.setattr(overhead, "grow", grow)
    monkeypatch.setattr(overhead, "worker_seconds", lambda home: WORKER_S)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    frame = overhead.run(tmp_path / "bench", quick=True)
    assert seen == [None]
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://somewhere:5000"
    assert list(frame.columns) == ["per", "part", "10 trials", "1,000 trials"]
    by_part = frame.set_index("part")["1,000 trials"]
    assert by_part["ask"] == 0.0123
    assert by_part["all of these"] == 0.0617
    assert by_part["worker: build"] == 0.5
    with (tmp_path / "bench" / "overhead.csv").open() as file:
        assert [row["part"] for row in csv.DictReader(file)] == list(frame["part"])
    data = json.loads((tmp_path / "bench" / "overhead.json").read_text())
    assert data["machine"]
    assert [timing["num_trials"] for timing in data["timings"]] == [10, 1000]
    assert (tmp_path / "bench" / "overhead.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "bench").iterdir()) == [
        f"overhead.{kind}" for kind in ("csv", "json", "png")
    ]


@pytest.mark.slow
def test_a_worker_is_timed_in_a_study_that_is_trained(
    tmp_path: Path, digits_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(digits_folder.parent))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    started = time.monotonic()
    seconds = overhead.worker_seconds(tmp_path)
    assert set(seconds) == {"build", "trace and compile", "evaluate", "hand over"}
    assert 0 < sum(seconds.values()) < time.monotonic() - started
