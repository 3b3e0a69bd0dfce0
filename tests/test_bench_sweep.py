"""The bench of whole sweeps: the same list for all, from start to end."""

from pathlib import Path

import pytest

import baselines
from harness.bench import sweep
from harness.bench.sweep import OURS, PEERS, Job, Race
from harness.errors import TroubleError

JOB = Job("fc", ({"units_1": 512, "units_2": 512}, {"units_1": 64, "units_2": 96}), 400, 1, 100, "digits")


@pytest.mark.parametrize(("baseline", "count"), [("fc", 24), ("cnn", 12)])
def test_the_list_begins_with_the_documented_network_and_is_always_the_same(baseline: str, count: int) -> None:
    job = next(job for job in sweep.jobs(quick=False) if job.baseline == baseline)
    documented = baselines.load(baseline).DOCUMENTED
    assert len(job.configurations) == count
    assert all(getattr(documented, name) == value for name, value in job.configurations[0].items())
    assert job in sweep.jobs(quick=False)


@pytest.mark.slow
@pytest.mark.parametrize("contender", [*PEERS, OURS])
def test_every_contender_runs_the_list(contender: str, digits_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(digits_folder.parent))
    assert sweep.wall_seconds(contender, JOB) > 0


def test_a_contender_that_fails_is_not_timed() -> None:
    with pytest.raises(TroubleError, match=r"optuna failed: ValueError: baseline is .nowhere.;"):
        sweep.wall_seconds("optuna", Job("nowhere", JOB.configurations, 400, 1, 100, "digits"))


def test_ratios_are_to_the_better_peer_within_a_round() -> None:
    race = Race(JOB, {"keras-tuner": [30.0, 90.0], "optuna": [20.0, 60.0], OURS: [10.0, 30.0]})
    assert race.best_peer == "optuna"
    assert race.ratio(OURS) == 0.5
    assert race.ratio("keras-tuner") == 1.5
    frame = sweep.table([race])
    assert list(frame["contender"]) == ["keras-tuner", "optuna", OURS]
    assert list(frame["wall_s"]) == [60.0, 40.0, 20.0]


def test_the_picture_is_written(tmp_path: Path) -> None:
    sweep.plot([Race(JOB, {"keras-tuner": [3.0], "optuna": [2.0], OURS: [1.0]})], tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
