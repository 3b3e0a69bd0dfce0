"""The bench of the pruners: each rule on the same curves, within the same number of epochs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest
from simulated_study import NUMBERS, simulated_spec

from harness.bench import pruning
from harness.bench.pruning import FIRST_EPOCH, NONE, PRUNERS, RULES, Curve
from harness.study.records import EpochReport, Seconds, Trial
from harness.study.settings import Flags
from harness.study.sweep_file import load_sweep
from harness.support.home import sweeps_folder

EPOCHS = 5
SPEC = simulated_spec(space=NUMBERS, sampler="random", epochs=EPOCHS)


def curve(number: int, errors_pct: Sequence[float]) -> Curve:
    trial = Trial(f"uid-{number}", number, {"units_1": 64 + number, "dropout": 0.0}, 0, EPOCHS)
    reports = tuple(
        EpochReport(epoch, 0.1, 0.1, error_pct, 100, Seconds(train=1.0))
        for epoch, error_pct in enumerate(map(float, errors_pct), start=1)
    )
    return Curve(trial, reports, errors_pct[-1])


def steady(num: int) -> list[Curve]:
    """Which is better is seen from the first epoch on."""
    return [curve(number, [9 + number, 7 + number, 5 + number, 4 + number, 3 + number]) for number in range(num)]


def test_without_pruning_a_quarter_of_the_trials_is_trained() -> None:
    found = pruning.replays(NONE, SPEC, steady(40), [], 30)
    assert {one.num_started for one in found} == {10}
    assert len({one.best_pct for one in found}) > 3, "other orders"
    assert min(one.best_pct for one in found) == 3


@pytest.mark.parametrize("rule", PRUNERS)
def test_a_rule_has_time_for_more_trials_and_finds_better_ones_where_curves_do_not_cross(rule: str) -> None:
    plain, found = (pruning.replays(name, SPEC, steady(40), [], 60) for name in (NONE, rule))
    assert sum(one.num_started for one in found) > sum(one.num_started for one in plain) == 600
    assert sum(one.best_pct for one in found) < sum(one.best_pct for one in plain)


def test_counted_baselines_stop_what_is_worse_than_they_are() -> None:
    baselines = [curve(100 + seed, [9.5, 7.5, 5.5, 4.5, 3.5]) for seed in range(5)]
    alone, among = (
        pruning.replays(rule, SPEC, steady(40), baselines, 10)
        for rule in ("percentile", "percentile, baseline counted")
    )
    assert sum(one.num_started for one in among) > sum(one.num_started for one in alone)


def test_the_first_epoch_decides_for_all_at_once() -> None:
    (found,) = pruning.replays(FIRST_EPOCH, SPEC, steady(40), [], 1)
    assert (found.num_started, found.best_pct) == (40, 3)  # 10 trainings: 40 first epochs and at most 2 more trainings


def test_where_curves_cross_pruning_loses() -> None:
    crossing = [curve(number, [30 - number, 20, 20, 20, 3 + number]) for number in range(20)]
    plain, found = (pruning.replays(name, SPEC, crossing, [], 30) for name in (NONE, FIRST_EPOCH))
    assert sum(one.best_pct for one in found) > sum(one.best_pct for one in plain)


def test_it_trains_and_writes_a_table_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digits(path: Path, flags: Flags, profile: str) -> object:
        changed = {"dataset": "digits", "study": flags.study, "sampler": flags.sampler, "pruner": flags.pruner}
        return load_sweep(sweeps_folder() / "fc.toml", Flags(**changed), profile)

    monkeypatch.setattr(pruning, "load_sweep", digits)
    monkeypatch.setattr(pruning, "SWEEPS", ("fc-recipe",))
    monkeypatch.setattr(pruning, "NUM_TRIALS_QUICK", 8)
    frame = pruning.run(tmp_path, repeats=4, quick=True)
    assert list(frame["rule"]) == list(RULES)
    assert set(frame["trials"]) == {8}
    assert frame["gain_points"][0] == 0.0
    with (tmp_path / "pruning.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(RULES)
    assert (tmp_path / "pruning.png").read_bytes().startswith(b"\x89PNG")
    num_files = len(list((tmp_path / "pruning-quick").iterdir()))
    assert pruning.run(tmp_path, repeats=4, quick=True).equals(frame), "the same command trains nothing again"
    assert len(list((tmp_path / "pruning-quick").iterdir())) == num_files
