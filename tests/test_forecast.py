import math
from dataclasses import replace
from typing import NamedTuple

import pytest
from filled_ledger import CPU, DOCUMENTED, make_spec

from harness.planning.cost_model import CostModel, count_work, cpu_estimate
from harness.planning.forecast import Forecast, Open, TimeLeft
from harness.study.records import EpochReport, Outcome, Params, Record, Role, Seconds, Trial, TrialResult

SPEC = make_spec()
ESTIMATE = cpu_estimate(1e9)  # slow enough for seconds
SMALL, LARGE = {"units_1": 64, "units_2": 64}, {"units_1": 1024, "units_2": 1024}


class Running(NamedTuple):
    trial: Trial
    held_s: float


def record(number: int, params: Params = DOCUMENTED, epochs_done: int = 3, role: Role = Role.TRIAL) -> Record:
    """A trial that took as long as the estimate says, stopped early unless three epochs were done."""
    is_to_the_end = epochs_done == 3
    busy_s = float(count_work(SPEC, params, epochs_done, is_to_the_end=is_to_the_end) @ ESTIMATE)
    curve = tuple(EpochReport(epoch, 0.1, 0.1, 5.0, 500, Seconds()) for epoch in range(1, epochs_done + 1))
    outcome = Outcome.COMPLETED if is_to_the_end else Outcome.PRUNED
    seconds = Seconds(compile=3.0, train=round(busy_s, 3))
    return Record(
        Trial(f"t{number}", number, params, 0, 3, role),
        TrialResult(outcome, curve=curve, seconds=seconds, device=CPU),
        attempts=1,
        reserved_time_s=busy_s + 3.0,
    )


def forecast(*records: Record, typical: tuple[Params, ...] = (DOCUMENTED,)) -> Forecast:
    costs = CostModel(SPEC, ESTIMATE, typical=typical)
    for one in records:
        costs.learn(one)
    return Forecast(SPEC, costs, records)


def middle(left: TimeLeft) -> float:
    return math.sqrt(left.low_s * left.high_s)


def whole_s(params: Params = DOCUMENTED) -> float:
    return float(count_work(SPEC, params, 3) @ ESTIMATE) + 3.0


def test_time_left_is_what_the_trials_take_shared_among_the_workers() -> None:
    found = forecast(*(record(n) for n in range(20)))
    alone, two = found.time_left(Open(), 0, 10, 1), found.time_left(Open(), 0, 10, 2)
    assert middle(alone) == pytest.approx(10 * whole_s(), rel=0.01)
    assert middle(two) == pytest.approx((10 * whole_s() + whole_s() / 2) / 2, rel=0.01)
    assert two.low_s < middle(two) < two.high_s


def test_nothing_left_takes_no_time() -> None:
    assert forecast(record(0)).time_left(Open(), 0, 0, 2) == TimeLeft(0.0, 0.0)


def test_the_range_narrows_as_trials_are_known() -> None:
    ratios = [left.high_s / left.low_s for n in (0, 2, 20) if (left := known(n).time_left(Open(), 0, 10, 2))]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 2.0 > ratios[-1]


def known(count: int) -> Forecast:
    return forecast(*(record(n) for n in range(count)))


def test_baseline_seeds_are_the_documented_configuration() -> None:
    found = forecast(record(0), typical=(SMALL,))
    assert middle(found.time_left(Open(), 2, 0, 1)) == pytest.approx(2 * whole_s(), rel=0.01)


def test_running_trials_have_only_the_rest_left() -> None:
    trial = replace(record(9).trial, role=Role.BASELINE)
    found = forecast(record(0))
    left = found.time_left(Open(running=[Running(trial, 0.75 * whole_s())]), 0, 0, 2)
    assert middle(left) == pytest.approx(0.25 * whole_s(), rel=0.01)
    late = found.time_left(Open(running=[Running(trial, 5 * whole_s())]), 0, 0, 2)
    assert late == TimeLeft(0.0, 0.0)


def test_one_long_trial_is_not_shared_among_workers() -> None:
    trial = Trial("t9", 9, DOCUMENTED, 0, 3, Role.BASELINE)
    left = forecast(record(0)).time_left(Open(running=[Running(trial, 0.0)]), 0, 0, 4)
    assert middle(left) == pytest.approx(whole_s(), rel=0.01)


def test_pruning_makes_the_rest_shorter() -> None:
    pruned = [record(n, epochs_done=1 if n % 2 else 3) for n in range(15)]
    full = [record(n) for n in range(15)]
    times = [middle(forecast(*records).time_left(Open(), 0, 10, 1)) for records in (pruned, full)]
    assert 0.5 < times[0] / times[1] < 0.85


def test_the_search_tells_what_size_it_proposes() -> None:
    space = forecast(typical=(SMALL,)).time_left(Open(), 0, 10, 1)
    drifted = forecast(*(record(n, LARGE) for n in range(15)), typical=(SMALL,)).time_left(Open(), 0, 10, 1)
    running = [Running(Trial(f"t{n}", n, LARGE, 0, 3), 0.0) for n in range(5)]
    open_only = forecast(typical=(SMALL,)).time_left(Open(running=running), 0, 10, 1)
    assert middle(space) < middle(open_only) - 5 * whole_s(LARGE)
    assert middle(drifted) > 0.6 * 10 * whole_s(LARGE)


def test_a_continued_trial_is_predicted_without_what_was_trained_before() -> None:
    found = forecast(replace(record(0), trial=Trial("first", 0, DOCUMENTED, 0, 1)))
    continued, anew = Trial("t", 1, DOCUMENTED, 0, 3, continues="first"), Trial("u", 1, DOCUMENTED, 0, 3)
    assert found.held_s(continued) < 0.9 * found.held_s(anew)


def test_the_cheapest_quarter_is_of_what_is_proposed_or_else_of_the_space() -> None:
    sizes = [{"units_1": units, "units_2": 64} for units in (64, 128, 512, 1024)]
    found = forecast(typical=(*sizes, sizes[-1]))
    assert found.quarter_s() == pytest.approx(whole_s(sizes[1]))
    found = forecast(*(record(n, LARGE) for n in range(4)), typical=(SMALL,))
    assert found.quarter_s() == pytest.approx(whole_s(LARGE), rel=0.01)
