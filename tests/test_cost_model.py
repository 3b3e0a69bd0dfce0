"""What the cost model predicts, from made-up trials and from real ones that were measured once.

`fixtures/measured_trials.csv` holds trials of random and of searched configurations, without the first epoch of each:
on 2 threads of an AMD EPYC where the series is called `compiled`; on 1 thread for each of 2 workers, with an earlier
engine, where it is `fit`. The machine had much other work to do. Its noise in `wall_s` is no fault of a model, so
`cpu_s` is the judge of the model's form.
"""

import csv
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from filled_ledger import CPU, DOCUMENTED, make_spec
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

import baselines
from harness.planning.cost_model import (
    REST_S,
    CostModel,
    Floats,
    Measured,
    count_work,
    cpu_estimate,
    gpu_estimate,
    measured,
    non_negative_least_squares,
)
from harness.study.records import Device, EpochReport, Outcome, Params, Record, Seconds, Trial, TrialResult
from harness.study.settings import Flags
from harness.study.spec import SweepSpec
from harness.study.sweep_file import load_sweep
from harness.support.home import sweeps_folder

SPEC = make_spec()
ESTIMATE = cpu_estimate(1e11)
OTHER = replace(CPU, precision="mixed_float16")
SERIES = ("fc-compiled", "cnn-compiled", "cnn-fit-1", "cnn-fit-2", "cnn-fit-continued")


def of(params: Params) -> Floats:
    return count_work(SPEC, params, SPEC.epochs)


def trials(seconds: Callable[[Floats], float], count: int = 10, device: Device = CPU) -> list[Measured]:
    """Trials of all sizes that took as long as `seconds` makes of their work."""
    widths = np.random.default_rng(0).integers(64, 1024, (count, 2))
    works = [of({"units_1": int(a), "units_2": int(b)}) for a, b in widths]
    return [Measured(device, work, seconds(work), 4.0) for work in works]


def by_estimate(work: Floats) -> float:
    return float(work @ ESTIMATE)


@cache
def recorded(name: str) -> list[tuple[Floats, float]]:
    """(work, CPU seconds) of a series, in the order in which the trials ended."""
    with (Path(__file__).parent / "fixtures/measured_trials.csv").open() as file:
        return [_recorded(row) for row in csv.DictReader(file) if row["series"] == name]


def _recorded(row: dict[str, str]) -> tuple[Floats, float]:
    spec = load_sweep(sweeps_folder() / f"{row['baseline']}.toml", Flags(), "quick")
    fidelity = {key: int(row[key]) for key in ("train_images", "validation_images")}
    spec = spec.model_copy(update={**fidelity, "recipe": {**spec.recipe, "batch_size": int(row["batch_size"])}})
    params = {key: int(value) for key, value in (pair.split("=") for pair in row["params"].split())}
    work = count_work(spec, params, int(row["epochs"]), is_to_the_end=row["to_the_end"] == "1")
    return work, float(row["cpu_s"])


def errors(name: str, num_known: int) -> Floats:
    """Relative errors for the trials of a series after its first ones."""
    series = recorded(name)
    known = [Measured(CPU, work, seconds, 0.0) for work, seconds in series[:num_known]]
    work, seconds = (np.array(values) for values in zip(*series[num_known:], strict=True))
    return np.abs(CostModel(SPEC, ESTIMATE, known).busy_s(work) / seconds - 1)


@pytest.mark.parametrize("name", SERIES)
def test_recorded_trials_are_predicted_from_those_before_them(name: str) -> None:
    assert np.median(errors(name, 2)) < 0.16
    assert np.median(errors(name, 10)) < 0.1
    assert np.quantile(errors(name, 10), 0.9) < 0.25


@pytest.mark.parametrize("name", SERIES)
def test_the_estimate_has_the_right_form_for_recorded_trials(name: str) -> None:
    ratios = [seconds / by_estimate(work) for work, seconds in recorded(name)]
    assert np.quantile(ratios, 0.9) / np.quantile(ratios, 0.1) < 1.6


def test_the_estimate_serves_while_nothing_is_known() -> None:
    model = CostModel(SPEC, ESTIMATE)
    work = of(DOCUMENTED)
    assert model.num_known == 0
    assert model.busy_s(work) == pytest.approx(work @ ESTIMATE)
    assert model.held_s(work) == pytest.approx(work @ ESTIMATE + REST_S)
    assert model.error == pytest.approx(0.5)


@pytest.mark.parametrize(
    "estimate", [ESTIMATE, *(gpu_estimate(baselines.load(name).GPU_STEP_S) for name in baselines.NAMES)]
)
def test_trials_say_more_than_the_estimate(estimate: Floats) -> None:
    model = CostModel(SPEC, estimate, trials(lambda work: 3 * by_estimate(work), 20))
    work = of({"units_1": 700, "units_2": 100})
    assert model.busy_s(work) == pytest.approx(3 * work @ ESTIMATE, rel=0.05)
    assert model.held_s(work) - model.busy_s(work) == pytest.approx(4.0)
    assert model.error < 0.17


def test_one_trial_tells_the_speed_and_leaves_the_form_to_the_estimate() -> None:
    model = CostModel(SPEC, ESTIMATE, trials(lambda work: 3 * by_estimate(work), 1))
    work = of({"units_1": 64, "units_2": 1024})
    assert model.busy_s(work) == pytest.approx(3 * work @ ESTIMATE, rel=0.01)


def test_other_timing_classes_are_never_mixed_in() -> None:
    mine, others = trials(by_estimate, 10), trials(lambda work: 50 * by_estimate(work), 9, OTHER)
    mixed = [one for pair in zip(mine, [*others, *others[:1]], strict=True) for one in pair][:-1]
    work = of(DOCUMENTED)
    alone, beside = CostModel(SPEC, ESTIMATE, mine), CostModel(SPEC, ESTIMATE, mixed)
    assert beside.busy_s(work) == alone.busy_s(work)
    assert beside.num_known == 10


def test_a_new_timing_class_takes_over() -> None:
    old, new = trials(lambda work: 50 * by_estimate(work), 60, OTHER), trials(by_estimate, 12)
    work = of(DOCUMENTED)
    assert CostModel(SPEC, ESTIMATE, [*old, *new]).busy_s(work) == CostModel(SPEC, ESTIMATE, new).busy_s(work)


def test_predictions_follow_a_machine_that_slows_down() -> None:
    known = [replace(one, busy_s=one.busy_s * (2 if n >= 36 else 1)) for n, one in enumerate(trials(by_estimate, 40))]
    work = of(DOCUMENTED)
    assert CostModel(SPEC, ESTIMATE, known).busy_s(work) > 1.5 * work @ ESTIMATE


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 8),
    st.integers(1, 30),
    st.integers(500, 20_000),
    st.tuples(st.integers(64, 1000), st.integers(64, 1000)),
)
def test_more_of_anything_never_takes_less(
    seed: int, num_known: int, epochs: int, images: int, units: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    model = CostModel(SPEC, ESTIMATE, trials(lambda work: float(rng.lognormal(0.0, 1.0)), num_known))

    def busy_s(epochs: int, images: int, units_1: int, units_2: int) -> float:
        spec = SPEC.model_copy(update={"train_images": images})
        return float(model.busy_s(count_work(spec, {"units_1": units_1, "units_2": units_2}, epochs)))

    least = busy_s(epochs, images, *units)
    assert least > 0
    assert busy_s(epochs + 1, images, *units) > least
    assert busy_s(epochs, images + 500, *units) > least
    assert busy_s(epochs, images, units[0] + 1, units[1]) >= least
    assert busy_s(epochs, images, units[0], units[1] + 1) >= least


def test_the_whole_validation_split_counts_at_a_trials_end_only() -> None:
    to_the_end, stopped = of(DOCUMENTED), count_work(SPEC, DOCUMENTED, SPEC.epochs, is_to_the_end=False)
    forward = count_work(SPEC.model_copy(update={"validation_images": 10_000}), DOCUMENTED, 1, is_to_the_end=False)
    before = count_work(SPEC, DOCUMENTED, 1, is_to_the_end=False)
    assert to_the_end - stopped == pytest.approx(forward - before)


def test_a_continued_trial_has_only_the_rest_to_train() -> None:
    spec, trial = SPEC.model_copy(update={"epochs": 9}), Trial("t", 0, DOCUMENTED, 0, 9)
    model = CostModel(spec, ESTIMATE)
    assert model.work(trial, 3) == pytest.approx(count_work(spec, DOCUMENTED, 6))


def report(epoch: int, train_s: float) -> EpochReport:
    return EpochReport(epoch, 0.1, 0.1, 5.0, 500, Seconds(train=train_s))


def test_the_rest_of_a_running_trial_goes_by_its_own_pace() -> None:
    spec, trial = SPEC.model_copy(update={"epochs": 9}), Trial("t", 0, DOCUMENTED, 0, 9)
    model = CostModel(spec, ESTIMATE)
    judging_s = model.busy_s(count_work(spec, DOCUMENTED, 1)) / model.busy_s(
        count_work(spec, DOCUMENTED, 1, is_to_the_end=False)
    )
    left_s = model.left_s(trial, [report(4, 2.0), report(5, 2.0)])
    assert left_s == pytest.approx(2.0 * (3 + judging_s))


def ended(outcome: Outcome = Outcome.COMPLETED, attempts: int = 1, **changes: object) -> Record:
    curve = tuple(report(epoch, 10.0) for epoch in (1, 2, 3))
    result = TrialResult(outcome, curve=curve, seconds=Seconds(1.0, 2.0, 30.0, 6.0), device=CPU)
    trial = Trial("t", 0, DOCUMENTED, 0, 3)
    return Record(trial, replace(result, **changes), attempts=attempts, reserved_time_s=41.0)  # type: ignore[arg-type]


def test_what_a_trial_tells() -> None:
    found = measured(SPEC, ended())
    assert found is not None
    assert (found.device, found.busy_s, found.rest_s) == (CPU, 36.0, 5.0)
    assert found.work == pytest.approx(of(DOCUMENTED))
    pruned = measured(SPEC, ended(Outcome.PRUNED, curve=(report(1, 10.0),)))
    assert pruned is not None
    assert pruned.work == pytest.approx(count_work(SPEC, DOCUMENTED, 1, is_to_the_end=False))


def test_lost_attempts_are_not_taken_for_building() -> None:
    found = measured(SPEC, replace(ended(attempts=2), reserved_time_s=500.0))
    assert found is not None
    assert found.rest_s == 3.0


@pytest.mark.parametrize(
    "record",
    [
        Record(Trial("t", 0, DOCUMENTED, 0, 3)),
        ended(Outcome.INFEASIBLE, curve=(), device=None),
        ended(Outcome.CRASHED),
        ended(Outcome.TIMED_OUT),
        ended(device=None),
        ended(seconds=Seconds()),
    ],
)
def test_what_did_not_train_as_it_should_tells_nothing(record: Record) -> None:
    assert measured(SPEC, record) is None
    model = CostModel(SPEC, ESTIMATE)
    model.learn(record)
    assert model.num_known == 0


def test_a_trial_is_learned_from_when_it_ends() -> None:
    model = CostModel(SPEC, ESTIMATE)
    model.learn(ended())
    assert model.num_known == 1
    assert model.busy_s(of(DOCUMENTED)) == pytest.approx(36.0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_least_squares_are_those_of_scipy(seed: int, num_rows: int) -> None:
    rng = np.random.default_rng(seed)
    rows, values = rng.normal(size=(num_rows, 4)), rng.normal(size=num_rows)
    mine, theirs = non_negative_least_squares(rows, values), nnls(rows, values)[0]
    assert (mine >= 0).all()
    assert np.linalg.norm(rows @ mine - values) == pytest.approx(np.linalg.norm(rows @ theirs - values), abs=1e-9)


def test_work_follows_the_batch_size() -> None:
    spec: SweepSpec = make_spec(space={"batch_size": {"values": [64, 128]}})
    small, large = (count_work(spec, {"batch_size": size}, 1) for size in (64, 128))
    assert small[[0, 2]] == pytest.approx(large[[0, 2]])
    assert (small[3], large[3]) == (15, 7)
