"""The search bench: its known function, and that what it reports is what happened."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from harness.bench import landscape, search
from harness.bench.search import RANDOM, Contender

DOCUMENTED = {"filters_1": 32, "filters_2": 64, "kernel_1": 5, "kernel_2": 5, "dense_units": 1024}


def test_the_landscape_has_the_scale_of_the_real_thing() -> None:
    small = {"filters_1": 16, "filters_2": 16, "kernel_1": 5, "kernel_2": 3, "dense_units": 512}
    assert landscape.error_pct(DOCUMENTED) == pytest.approx(1.8, abs=0.05)
    assert landscape.error_pct(small) == pytest.approx(2.6, abs=0.2)
    assert 1.6 < landscape.best_error_pct() < landscape.error_pct(DOCUMENTED)


def test_a_race_counts_what_it_paid_for_and_can_be_repeated() -> None:
    best_pct = landscape.best_error_pct()
    contender = Contender("optuna", "tpe", "percentile")
    regret, search_time_s = search.race(contender, seed=3, num_trainings=6, best_pct=best_pct)
    assert len(regret) == 6
    assert all(value >= 0.0 for value in regret if not math.isnan(value))
    assert search_time_s > 0.0
    again, _ = search.race(contender, seed=3, num_trainings=6, best_pct=best_pct)
    other, _ = search.race(contender, seed=4, num_trainings=6, best_pct=best_pct)
    assert again == regret != other


def test_a_run_leaves_table_numbers_and_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [RANDOM, Contender("optuna", "tpe"), Contender("keras-tuner", "hyperband")]
    monkeypatch.setattr(search, "contenders", lambda: few)
    monkeypatch.setattr(search, "NUM_TRAININGS_QUICK", 6)
    frame = search.run(tmp_path, seeds=2, quick=True)
    assert list(frame["final_regret_pct"]) == sorted(frame["final_regret_pct"])
    assert set(frame["sampler"]) == {"random", "tpe", "hyperband", "random with twice the budget"}
    assert frame.set_index("sampler").loc["random", "beats_random"] == 0.5
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "search.csv"), frame, check_dtype=False)
    data = json.loads((tmp_path / "search.json").read_text())
    assert [len(standing["regret_pct"]) for standing in data["standings"]] == [2] * 4
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")
