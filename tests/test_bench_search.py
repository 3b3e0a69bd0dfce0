"""The bench of the searches: fair accounts, whole files, and a function that is what it says."""

from __future__ import annotations

import csv
import json
import math
import statistics
from pathlib import Path

import pytest

import baselines
from harness.bench import search, synthetic_objective
from harness.bench.search import RANDOM, TWICE, Contender, Standing
from harness.study.records import Trial

BEST_PCT = 1.671
DOCUMENTED = {"filters_1": 32, "filters_2": 64, "kernel_1": 5, "kernel_2": 5, "dense_units": 1024}


def test_the_landscape_has_the_scale_of_the_real_thing() -> None:
    architecture = baselines.load("cnn").DOCUMENTED
    assert all(getattr(architecture, name) == value for name, value in DOCUMENTED.items())
    assert synthetic_objective.error_pct(DOCUMENTED) == pytest.approx(1.8, abs=0.05)
    small = {"filters_1": 16, "filters_2": 16, "kernel_1": 5, "kernel_2": 3, "dense_units": 512}
    assert synthetic_objective.error_pct(small) == pytest.approx(2.6, abs=0.15)


def test_the_least_error_is_below_the_documented_networks_and_within_the_limit() -> None:
    least = synthetic_objective.best_error_pct()
    assert least == pytest.approx(BEST_PCT, abs=0.001)
    assert least < synthetic_objective.error_pct(DOCUMENTED)
    assert synthetic_objective.error_pct({**DOCUMENTED, "filters_1": 64, "filters_2": 128, "dense_units": 900}) < least


def test_seeds_lie_a_tenth_of_a_point_apart_and_early_epochs_mislead() -> None:
    trials = [Trial("uid", 0, DOCUMENTED, seed, synthetic_objective.EPOCHS) for seed in range(200)]
    last = [synthetic_objective.report(trial, synthetic_objective.EPOCHS).val_error_rate_pct for trial in trials]
    assert statistics.fmean(last) == pytest.approx(synthetic_objective.error_pct(DOCUMENTED), abs=0.02)
    assert statistics.stdev(last) == pytest.approx(synthetic_objective.NOISE_PCT, rel=0.2)
    reports = [synthetic_objective.report(trials[0], epoch) for epoch in range(1, 6)]
    first = [report.val_error_rate_pct for report in reports]
    assert first == sorted(first, reverse=True)


def test_a_race_pays_for_epochs_and_looks_at_whole_trainings() -> None:
    regret, _, search_time_s = search.race(Contender("optuna", "tpe", "median"), 0, 12, BEST_PCT)
    assert len(regret) == 12
    assert search_time_s > 0
    whole = [value for value in regret if not math.isnan(value)]
    assert len(whole) >= 11
    assert len(set(whole)) > 1


def test_a_race_is_the_same_with_the_same_seed() -> None:
    contender = Contender("optuna", "nsga2")
    assert search.race(contender, 3, 10, BEST_PCT)[0] == search.race(contender, 3, 10, BEST_PCT)[0]
    assert search.race(contender, 3, 10, BEST_PCT)[0] != search.race(contender, 4, 10, BEST_PCT)[0]


def test_promoted_trials_pay_for_the_epochs_they_add() -> None:
    # 6 trials of 2 epochs and 3 of 1 more are three full trainings; then the first trial of 5 epochs ends.
    regret, _, _ = search.race(Contender("keras-tuner", "hyperband"), 0, 8, BEST_PCT)
    assert [math.isnan(value) for value in regret[:4]] == [True, True, True, False]


def test_random_with_twice_the_budget_is_random_search_at_half_the_price() -> None:
    plain = search.compete(RANDOM, 2, 20, BEST_PCT)
    twice = search.random_with_twice_the_budget(2, 10, BEST_PCT)
    assert twice.contender is TWICE
    assert [regret[9] for regret in twice.regret_pct] == [regret[19] for regret in plain.regret_pct]
    assert [regret[0] for regret in twice.regret_pct] == [regret[1] for regret in plain.regret_pct]


def test_the_table_ranks_by_the_median_and_compares_with_random_search() -> None:
    def standing(contender: Contender, *finals: float) -> Standing:
        return Standing(contender, [[1.0, final] for final in finals], [0.0] * len(finals), [0.5] * len(finals))

    frame = search.table(
        [
            standing(RANDOM, 0.2, 0.4, 0.3),
            standing(TWICE, 0.2, 0.2, 0.2),
            standing(Contender("optuna", "tpe", "median"), 0.1, 0.1, 0.3),
        ]
    )
    first = frame.iloc[0]
    assert list(frame["sampler"]) == ["tpe", "random with twice the budget", "random"]
    assert (first["pruner"], first["seeds"], first["trainings"]) == ("median", 3, 2)
    assert first["final_regret_pct"] == 0.1
    assert first["beats_random"] == pytest.approx((3 + 3 + 1.5) / 9, abs=1e-3)
    assert first["beats_random_twice"] == pytest.approx(6 / 9, abs=1e-3)
    assert frame.iloc[2]["beats_random"] == 0.5


def test_it_writes_a_table_numbers_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [RANDOM, Contender("optuna", "tpe", "median"), Contender("optuna", "cmaes")]
    monkeypatch.setattr(search, "contenders", lambda: shown)
    monkeypatch.setattr(search, "NUM_TRAININGS_QUICK", 6)
    frame = search.run(tmp_path / "bench", repeats=2, quick=True)
    assert len(frame) == 4
    with (tmp_path / "bench" / "search.csv").open() as file:
        assert [row["sampler"] for row in csv.DictReader(file)] == list(frame["sampler"])
    data = json.loads((tmp_path / "bench" / "search.json").read_text())
    assert len(data["standings"]) == 4
    assert [len(regret) for regret in data["standings"][0]["regret_pct"]] == [6, 6]
    assert (tmp_path / "bench" / "search.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (tmp_path / "bench").iterdir()} == {"search.csv", "search.json", "search.png"}


def test_every_installed_sampler_takes_part() -> None:
    names = {(contender.engine, contender.sampler) for contender in search.contenders()}
    assert {("optuna", "tpe"), ("optuna", "cmaes"), ("keras-tuner", "bayesian"), ("keras-tuner", "grid")} <= names
    assert ("optuna", "gp") not in names or search.importlib.util.find_spec("torch")
