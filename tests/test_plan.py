import io
from dataclasses import replace

import pytest
from filled_ledger import CPU, DOCUMENTED, GPU, FilledLedger, make_spec

from harness.execution.base import Place
from harness.execution.machine import devices
from harness.ledger.ledger import Ledger
from harness.ledger.reader import Usage
from harness.planning import plan
from harness.planning.cost_model import CostModel, count_work, cpu_estimate
from harness.planning.forecast import TimeLeft
from harness.planning.plan import Plan, describe, make_costs, make_plan, status_with_time, time_left, typical_params
from harness.planning.progress import Progress
from harness.planning.status import render, status
from harness.search.constraints import broken_limit
from harness.study.records import Device, Role
from harness.study.settings import Budget
from harness.study.spec import SweepSpec

PLACES = [Place(f"worker-{i}", CPU.name, 1, 2) for i in range(2)]


def fill(ledger: Ledger, study: str, train_s: float = 10.0, device: Device = CPU, **settings: object) -> FilledLedger:
    filled = FilledLedger(ledger, make_spec(study, **settings))
    for _ in range(3):
        filled.add(5.0, params=DOCUMENTED, train_s=train_s, device=device)
    return filled


def busy_s(costs: CostModel, spec: SweepSpec) -> float:
    """What the documented network is predicted to take."""
    return float(costs.busy_s(count_work(spec, DOCUMENTED, spec.epochs)))


def test_trials_of_the_study_and_of_others_like_it_tell_what_a_trial_takes(ledger: Ledger) -> None:
    fill(ledger, "other")
    spec = make_spec("study")
    FilledLedger(ledger, spec)
    costs = make_costs(ledger, spec, PLACES)
    assert costs.num_known == 3
    assert busy_s(costs, spec) == pytest.approx(12.0)  # of training and of judging


@pytest.mark.parametrize(
    "other",
    [
        {"device": replace(CPU, name="another processor")},
        {"device": replace(CPU, sharing=1, threads=2)},
        {"device": replace(CPU, precision="bfloat16")},
        {"device": GPU},
        {"baseline": "cnn", "space": {}},
    ],
)
def test_what_ran_elsewhere_or_is_another_network_tells_nothing(ledger: Ledger, other: dict[str, object]) -> None:
    settings = dict(other)
    device = settings.pop("device", CPU)
    filled = FilledLedger(ledger, make_spec("other", **settings))
    filled.add(5.0, params={} if settings else DOCUMENTED, device=device)
    spec = make_spec("study")
    FilledLedger(ledger, spec)
    assert make_costs(ledger, spec, PLACES).num_known == 0


def test_the_study_itself_has_the_last_word(ledger: Ledger) -> None:
    fill(ledger, "older", train_s=100.0)
    study = fill(ledger, "study")
    fill(ledger, "newer", train_s=100.0)
    costs = make_costs(ledger, study.spec, PLACES)
    assert costs.num_known == 9
    assert busy_s(costs, study.spec) < 40.0


def test_the_machine_is_measured_where_no_trial_tells(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    study = FilledLedger(ledger, make_spec("study"))
    speeds: list[float] = []
    for product_s in (0.01, 0.02):
        monkeypatch.setattr(plan, "_product_s", lambda matrix, product_s=product_s: product_s)
        speeds.append(busy_s(make_costs(ledger, study.spec, PLACES), study.spec))
    assert speeds[1] == pytest.approx(2 * speeds[0])
    alone = busy_s(make_costs(ledger, study.spec, [replace(PLACES[0], sharing=1)]), study.spec)
    assert alone == pytest.approx(speeds[1] / 2)


def test_typical_configurations_keep_the_limits() -> None:
    spec = make_spec(constraints={"max_params": 400_000})
    typical = typical_params(spec)
    assert 10 < len(typical) < plan.NUM_SAMPLES
    assert all(broken_limit(spec, params) is None for params in typical)
    assert typical_params(make_spec(space={})) == [{}]


def progress(budget: Budget) -> Progress:
    spec = make_spec(budget=budget)
    return Progress(spec, [], Usage(0, 0.0, 0.0), CostModel(spec, cpu_estimate(1e9)))


def test_a_plan_tells_how_long_it_will_take() -> None:
    found = make_plan(progress(Budget(trials=10)), [], 2)
    assert found.num_left == 12
    assert found.time_left.low_s < found.time_left.high_s < 10 * found.time_left.low_s


def test_a_plan_knows_the_time_budget_and_whether_any_trial_was_measured(ledger: Ledger) -> None:
    found = make_plan(progress(Budget(trials=10, wall_s=20.0)), [], 2)
    assert (found.limit_s, found.is_measured) == (20.0, False)
    study = fill(ledger, "study")
    costs = make_costs(ledger, study.spec, PLACES)
    known = Progress(study.spec, ledger.history("study"), Usage(0, 0.0, 0.0), costs)
    assert make_plan(known, [], 2).is_measured


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (Plan(12, 2, TimeLeft(540.0, 840.0)), "10 searched trials and 2 of the baseline, about 9 to 14 min"),
        (Plan(7, 0, TimeLeft(540.0, 840.0), 600.0), "7 searched trials, about 9 to 10 min"),
        (
            Plan(12, 2, TimeLeft(900.0, 1800.0), 600.0),
            "10 searched trials and 2 of the baseline, about 15 to 30 min in all; 10 min are left, so the last ones"
            " will not run",
        ),
        (
            Plan(2, 2, TimeLeft(60.0, 240.0), 600.0, is_measured=False),
            "2 seeds of the baseline, about 60 s to 4 min (a first guess)",
        ),
        (
            Plan(10, 0, TimeLeft(900.0, 1800.0), 600.0, is_measured=False),
            "10 searched trials, at most 10 min; the first trials on this device will tell how long",
        ),
        (Plan(1, 0, TimeLeft(15.0, 15.0)), "1 searched trial, about 15 s"),
        (Plan(0, 0, TimeLeft(15.0, 15.0)), "nothing"),
    ],
)
def test_a_plan_for_people(made: Plan, text: str) -> None:
    spec = make_spec(budget=Budget(trials=10, wall_s=900.0))
    assert describe(spec, PLACES, made)[-2:] == [
        "budget    10 searched trials and 2 of the baseline, or 15 minutes",
        f"to run    {text}",
    ]


@pytest.mark.parametrize(("seeds", "text"), [(1, "1 seed, always first"), (2, "2 seeds, always first")])
def test_a_plan_counts_the_seeds_of_the_baseline(seeds: int, text: str) -> None:
    lines = describe(make_spec(baseline_seeds=seeds), PLACES, Plan(1, 0, TimeLeft(1.0, 2.0)))
    assert lines[1].endswith(text)


def test_a_plan_says_on_how_many_images_errors_are_measured() -> None:
    plan = Plan(1, 0, TimeLeft(1.0, 2.0))
    lines = describe(make_spec(validation_images=1000), PLACES, plan)
    assert "errors    on 10,000 validation images at the end of a trial, on 1,000 before" in lines
    assert "errors    on 10,000 validation images at the end of a trial" in describe(
        make_spec(validation_images=10_000), PLACES, plan
    )


def test_a_machine_with_bfloat16_is_expected_to_be_faster(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_product_s", lambda matrix: 0.01)

    def expected_s(precision: str, *, has_bfloat16: bool) -> float:
        study = FilledLedger(ledger, make_spec(f"{precision}-{has_bfloat16}", precision=precision))
        places = [replace(place, has_bfloat16=has_bfloat16) for place in PLACES]
        return busy_s(make_costs(ledger, study.spec, places), study.spec)

    plain_s = expected_s("float32", has_bfloat16=True)
    assert plain_s == pytest.approx(plan.BFLOAT16_SPEEDUP * expected_s("bfloat16", has_bfloat16=True))
    assert plain_s == pytest.approx(expected_s("float32", has_bfloat16=False))
    assert expected_s("bfloat16", has_bfloat16=False) > 5 * plain_s


def test_a_plan_says_that_the_data_set_has_no_more_training_images() -> None:
    plan = Plan(1, 0, TimeLeft(1.0, 2.0))
    assert "profile   quick: 1,000 training images, 3 epochs" in describe(make_spec(), PLACES, plan)
    whole = make_spec(dataset="digits", train_images=1200)
    assert "profile   quick: all 1,200 training images of digits, 3 epochs" in describe(whole, PLACES, plan)


def test_the_time_left_on_another_machine_is_said_to_be_of_it(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(ledger, "study", budget=Budget(trials=10), baseline_seeds=1)
    found = status_with_time(ledger, "study")
    assert found.elsewhere == CPU.name
    out = io.StringIO()
    render([found], out)
    (line,) = (line for line in out.getvalue().splitlines() if line.startswith("  left "))
    assert line.endswith(f" on {CPU.name}")
    here = replace(devices.this_machine(), cpu_name=CPU.name)
    monkeypatch.setattr(devices, "this_machine", lambda: here)
    assert status_with_time(ledger, "study").elsewhere is None


def begin(study: FilledLedger, num_workers: int = 1) -> None:
    """A session whose workers have each been given a trial."""
    study.ledger.start_session("study")
    for number in range(num_workers):
        study.ledger.start_attempt(study.ask(DOCUMENTED).uid, f"worker-{number}")


def test_a_plan_names_the_part_for_the_finalists() -> None:
    budget = Budget(trials=10, wall_s=900.0, finalists_share=0.3)
    plan = Plan(12, 2, TimeLeft(60.0, 120.0))
    lines = describe(make_spec(budget=budget), PLACES, plan)
    expected = (
        "budget    10 searched trials and 2 of the baseline, or 15 minutes, the last 30 % for further seeds of the best"
    )
    assert expected in lines
    both = make_spec(budget=budget, objective=("error", "device_time"), pruner="none")
    assert "budget    10 searched trials and 2 of the baseline, or 15 minutes" in describe(both, PLACES, plan)


def test_a_resting_study_tells_how_long_it_would_go_on(ledger: Ledger) -> None:
    narrow = {"units_1": {"low": 510, "high": 514}, "units_2": {"low": 510, "high": 514}}
    study = fill(ledger, "study", budget=Budget(trials=10), baseline_seeds=1, space=narrow)
    assert time_left(ledger, status(ledger, "study")) is not None
    begin(study, 1)
    alone = time_left(ledger, status(ledger, "study"))
    begin(study, 4)
    four = time_left(ledger, status(ledger, "study"))
    assert alone is not None
    assert four is not None
    # 7 trials and a seed of the baseline are left, of 14 s each.
    assert alone.low_s < 8 * 14.0 < alone.high_s
    assert four.high_s < alone.low_s


def test_no_time_is_left_where_no_trial_is(ledger: Ledger) -> None:
    study = fill(ledger, "study", budget=Budget(trials=3), baseline_seeds=1)
    study.add_baseline(5.0)
    assert time_left(ledger, status(ledger, "study")) is None


def test_no_time_is_left_where_nothing_has_room(ledger: Ledger) -> None:
    fill(ledger, "study", budget=Budget(trials=10, wall_s=100.0))
    ledger.touch_session(ledger.start_session("study"), 50.0)
    assert time_left(ledger, status(ledger, "study")) is not None
    ledger.touch_session(ledger.start_session("study"), 49.0)
    assert time_left(ledger, status(ledger, "study")) is None


def test_nothing_is_said_of_a_study_that_has_no_trial(ledger: Ledger) -> None:
    study = FilledLedger(ledger, make_spec("study"))
    study.ask(role=Role.BASELINE)
    assert time_left(ledger, status(ledger, "study")) is None
