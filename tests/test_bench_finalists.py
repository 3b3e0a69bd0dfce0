"""The bench of the rules for finalists: who gets the next seed."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filled_ledger import make_spec
from test_bench_tables import made

from harness.bench import finalists
from harness.bench.finalists import OURS, RULES
from harness.study.comparability import Configuration, Configurations
from harness.study.records import EpochReport, Outcome, Record, Seconds, Trial, TrialResult


def ranked(*errors_pct: Sequence[float]) -> list[Configuration]:
    """Configurations whose seeds have these errors, by their means."""
    spec, found = make_spec(), Configurations(make_spec())
    for number, errors in enumerate(errors_pct):
        for seed, error_pct in enumerate(errors):
            trial = Trial(f"{number}-{seed}", 10 * number + seed, {"units_1": 64 + number}, seed, spec.epochs)
            report = EpochReport(spec.epochs, 0.0, 0.0, error_pct, 1000, Seconds(train=1.0))
            found.add(Record(trial, TrialResult(Outcome.COMPLETED, curve=(report,))))
    return found.ranked


def next_of(rule: str, *errors_pct: Sequence[float]) -> int:
    """The position among `errors_pct` of the configuration that the rule chooses."""
    return int(RULES[rule](ranked(*errors_pct), 0.01).params["units_1"]) - 64


def test_in_turn_those_that_were_best_with_their_first_seed() -> None:
    assert next_of("top 3 in turn", [1.0, 9.0], [2.0], [3.0], [4.0]) == 1
    assert next_of("top 3 in turn", [1.0, 9.0], [2.0, 2.0], [3.0], [4.0]) == 2
    assert next_of("top 3 in turn", [1.0, 9.0], [2.0, 2.0], [3.0, 3.0], [4.0]) == 0


def test_halving_gives_more_seeds_to_fewer() -> None:
    eight = [[float(number)] for number in range(1, 9)]
    assert next_of("successive halving", *eight, [9.0]) == 0
    twice = [[float(number)] * 2 for number in range(1, 9)]
    assert next_of("successive halving", *twice, [9.0]) == 0
    assert next_of("successive halving", *[[number] * 4 for number in (1.0, 2.0, 3.0, 4.0)], *twice[4:]) == 0
    assert next_of("successive halving", [1.0] * 8, *[[number] * 4 for number in (2.0, 3.0, 4.0)], *twice[4:]) == 1


def test_the_leader_and_its_challenger_take_turns() -> None:
    assert next_of("top two", [1.0] * 3, [1.1] * 2, [5.0]) == 1
    assert next_of("top two", [1.0] * 2, [1.1] * 3, [5.0]) == 0


def test_close_ones_get_more_of_the_computing_budget() -> None:
    assert next_of("computing budget", [1.0] * 6, [1.05], [5.0]) == 1
    assert next_of("computing budget", [1.0], [1.05] * 6, [5.0]) == 0


def test_it_writes_a_table_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finalists, "load_tables", lambda: [made(), made()])
    monkeypatch.setattr(finalists, "LOOKS", (8, 12))
    monkeypatch.setattr(finalists, "ProcessPoolExecutor", lambda *given, **more: ThreadPoolExecutor(1))
    frame = finalists.run(tmp_path, repeats=2)
    assert list(frame["rule"]) == [OURS, *RULES]
    assert set(frame["tables"]) == {2}
    with (tmp_path / "finalists.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(frame)
    assert (tmp_path / "finalists.png").read_bytes().startswith(b"\x89PNG")
