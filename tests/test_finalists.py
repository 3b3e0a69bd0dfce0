"""Who gets the next seed, and how noisy an error is."""

from __future__ import annotations

import pytest
from filled_ledger import make_spec

from harness.search.finalists import next_finalist, seed_noise
from harness.study.comparability import Configuration, Configurations
from harness.study.records import EpochReport, Outcome, Record, Role, Seconds, Trial, TrialResult

SPEC = make_spec(validation_images=100)


def configurations(errors_pct: dict[int, list[float]]) -> dict[int, Configuration]:
    """By their units, with the errors of their seeds."""
    records = []
    for units, errors in errors_pct.items():
        for seed, error_pct in enumerate(errors):
            trial = Trial(f"{units}-{seed}", len(records), {"units_1": units}, seed, SPEC.epochs, Role.TRIAL)
            curve = (EpochReport(SPEC.epochs, 0.1, 0.1, error_pct, 10_000, Seconds()),)
            records.append(Record(trial, TrialResult(Outcome.COMPLETED, curve=curve)))
    return {int(one.params["units_1"]): one for one in Configurations(SPEC, records).all}


def chosen(errors_pct: dict[int, list[float]], open_: dict[int, int] | None = None) -> int | None:
    found = configurations(errors_pct)
    num_open = {found[units].key: number for units, number in (open_ or {}).items()}
    finalist = next_finalist(list(found.values()), found.values(), num_open)
    return None if finalist is None else int(finalist.params["units_1"])


def test_the_lowest_bound_is_next() -> None:
    assert chosen({}) is None
    assert chosen({8: [2.0], 16: [1.9], 32: [2.1]}) == 16
    # 0.2 apart with one seed, and a mean of many seeds is certain.
    assert chosen({8: [2.0], 16: [1.8, 2.2, 1.8, 2.2], 32: [2.3]}) == 8
    assert chosen({8: [2.0], 16: [1.5, 1.9, 1.5, 1.9], 32: [2.3]}) == 16


def test_trainings_under_way_count() -> None:
    errors = {8: [2.0], 16: [2.01], 32: [3.0, 3.4]}
    assert chosen(errors) == 8
    assert chosen(errors, {8: 1}) == 16
    assert chosen(errors, {8: 1, 16: 2}) == 8


def test_noise_is_pooled_over_seeds_relative_to_the_error() -> None:
    found = configurations({8: [1.0, 3.0], 16: [8.0, 8.0, 8.0], 32: [5.0]})
    assert seed_noise(found.values()) == pytest.approx((2.0 / 2.0 + 0.0) / (1 + 2))
    assert seed_noise(found.values()) * 2.0 == pytest.approx(2 / 3)


def test_without_repeats_noise_is_that_of_independent_images() -> None:
    found = configurations({8: [2.0], 16: [1.0]})
    assert seed_noise(found.values()) == pytest.approx(0.01)
    assert seed_noise([]) == 0.0
    assert chosen({8: [0.0], 16: [1.0]}) == 8
