"""Time budgets: what is started, what is stopped, and how well they are kept by whole sweeps on a made-up clock."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import pytest
from clocked_sweep import run_clocked
from filled_ledger import CPU, DOCUMENTED, make_spec

from harness.ledger.ledger import Ledger
from harness.ledger.reader import Usage
from harness.planning.cost_model import CostModel, count_work, cpu_estimate
from harness.planning.forecast import Open, TimeLeft
from harness.planning.progress import MAX_PUT_OFF, Progress, StopReason
from harness.study.records import EpochReport, Outcome, Params, Record, Role, Seconds, Trial, TrialResult
from harness.study.settings import Budget, Flags
from harness.study.spec import SweepSpec
from harness.study.sweep_file import load_sweep
from harness.support.home import sweeps_folder

SMALL = {"units_1": 64, "units_2": 64}
WHOLE_S = 20.0  # what the documented configuration takes in all
BUSY_S = WHOLE_S - 3.0


class Running(NamedTuple):
    trial: Trial
    held_s: float


def progress(used_s: float = 0.0, wall_s: float | None = None, device_s: float | None = None) -> Progress:
    """A study of which the baseline's two seeds are done, on a device where the documented network takes WHOLE_S."""
    spec = make_spec(budget=Budget(trials=10, wall_s=wall_s, device_s=device_s))
    estimate = cpu_estimate(1e11)
    estimate *= BUSY_S / (count_work(spec, DOCUMENTED, spec.epochs) @ estimate)
    records = [ended(number, Role.BASELINE) for number in range(2)]
    return Progress(spec, records, Usage(0, used_s, used_s), CostModel(spec, estimate))


def trial(number: int = 7, role: Role = Role.TRIAL, params: Params = DOCUMENTED) -> Trial:
    return Trial(f"t{number}", number, params, number, 3, role)


def ended(
    number: int, role: Role = Role.TRIAL, outcome: Outcome = Outcome.COMPLETED, params: Params = DOCUMENTED
) -> Record:
    seconds = Seconds(compile=3.0, train=BUSY_S)
    curve = tuple(report(epoch) for epoch in (1, 2, 3))
    return Record(trial(number, role, params), TrialResult(outcome, curve=curve, seconds=seconds, device=CPU))


def report(epoch: int, train_s: float = BUSY_S / 3) -> EpochReport:
    return EpochReport(epoch, 0.1, 0.1, 5.0, 500, Seconds(train=train_s))


NOTHING = Open()


def test_a_trial_needs_room_in_what_is_left_of_the_time() -> None:
    study = progress(used_s=50.0, wall_s=100.0)
    assert study.reason_not_to_start(trial(), 29.0, NOTHING) is None
    assert study.reason_not_to_start(trial(), 31.0, NOTHING) is StopReason.WALL_TIME


def test_running_trials_have_a_claim_on_the_device_time() -> None:
    study = progress(used_s=50.0, device_s=100.0)
    assert study.reason_not_to_start(trial(), 1e6, NOTHING) is None
    assert study.reason_not_to_start(trial(), 0.0, Open(running=[Running(trial(1), 5.0)])) is None
    assert (
        study.reason_not_to_start(trial(), 0.0, Open(running=[Running(trial(1), 5.0), Running(trial(2), 1.0)]))
        is StopReason.DEVICE_TIME
    )
    assert study.reason_not_to_start(trial(), 0.0, Open(running=[Running(trial(1), 31.0)])) is StopReason.DEVICE_TIME


def test_the_baseline_is_run_whatever_the_budget_says() -> None:
    study = progress(used_s=500.0, wall_s=100.0)
    baseline = trial(0, Role.BASELINE)
    assert study.reason_not_to_start(baseline, 0.0, NOTHING) is None
    assert not study.has_to_stop(baseline, [report(1, 1000.0)], 0.0, NOTHING)
    assert study.reason_to_end(0.0, Open(pending=[baseline])) is None


def test_without_a_time_budget_there_is_always_room() -> None:
    study = progress(used_s=1e9)
    assert study.reason_not_to_start(trial(), 1e9, NOTHING) is None
    assert study.reason_not_to_propose(1e9, NOTHING) is None
    assert not study.has_to_stop(trial(), [report(1, 1e9)], 0.0, NOTHING)
    assert study.budget_left_s(0.0, NOTHING, 2) == float("inf")


def test_the_last_part_of_any_limit_is_for_the_finalists() -> None:
    def finals(
        num_trials: int, num_open: int = 0, passed_s: float = 0.0, share: float = 0.3, **settings: object
    ) -> bool:
        spec = make_spec(budget=Budget(trials=10, wall_s=100.0, finalists_share=share), **settings)
        records = [ended(number) for number in range(num_trials)] + [ended(20, Role.BASELINE)]
        made = Progress(spec, records, Usage(0, 0.0, 0.0), CostModel(spec, cpu_estimate(1e11)))
        running = [Running(trial(number), 0.0) for number in range(30, 30 + num_open)]
        return made.is_in_finals(passed_s, Open(running, [trial(40, Role.BASELINE)]))

    assert [finals(number) for number in (0, 6, 7, 10)] == [False, False, True, True]
    assert [finals(5, num_open=number) for number in (1, 2)] == [False, True]
    assert [finals(1, passed_s=seconds) for seconds in (69.0, 71.0)] == [False, True]
    assert not finals(10, share=0.0)
    assert not finals(10, objective=("error", "device_time"), pruner="none")


def test_a_running_trial_is_given_a_little_grace() -> None:
    study, third_s = progress(wall_s=100.0), BUSY_S / 3
    judging_s = study._costs.left_s(trial(), [report(1), report(2)]) - third_s
    assert not study.has_to_stop(trial(), [report(1)], 104.9 - 2 * third_s - judging_s, NOTHING)
    assert not study.has_to_stop(trial(), [report(1), report(2), report(3)], 200.0, NOTHING)
    assert study.has_to_stop(trial(), [report(1)], 105.1 - 2 * third_s - judging_s, NOTHING)
    assert study.reason_not_to_start(trial(), 0.0, NOTHING) is StopReason.WALL_TIME, "it has shown that it is too long"


def test_a_running_trial_overruns_the_device_time_of_all() -> None:
    study = progress(device_s=100.0)
    others = [Running(trial(1), 60.0), Running(trial(2), 33.0)]
    assert not study.has_to_stop(trial(), [report(1)], 1e6, Open(running=others[:1]))
    assert study.has_to_stop(trial(), [report(1)], 0.0, Open(running=others))


def test_used_trials_are_a_reason_to_stop_also_when_time_is_left() -> None:
    study = progress(wall_s=1e6)
    for number in range(8):
        study.add(ended(number))
    open_ = Open(running=[Running(trial(8), 1.0)], pending=[trial(9)])
    assert study.reason_not_to_propose(0.0, open_) is StopReason.TRIALS
    assert study.reason_not_to_propose(0.0, Open(running=open_.running)) is None
    assert study.reason_to_end(0.0, open_) is None, "what is pending is still to be run"


def test_the_search_is_asked_no_more_when_little_would_have_room() -> None:
    study = progress(wall_s=100.0)
    assert study.reason_not_to_propose(79.0, NOTHING) is None
    assert study.reason_not_to_propose(81.0, NOTHING) is StopReason.WALL_TIME


def test_the_search_is_asked_no_more_after_some_trials_that_were_too_long() -> None:
    spec = make_spec(budget=Budget(trials=10, wall_s=100.0))
    estimate = cpu_estimate(1e11) * 17.0 / (count_work(spec, DOCUMENTED, spec.epochs) @ cpu_estimate(1e11))
    records = [ended(number, Role.BASELINE) for number in range(2)]
    study = Progress(spec, records, Usage(0, 0.0, 0.0), CostModel(spec, estimate, typical=[SMALL]))
    put_off = [trial(number) for number in range(MAX_PUT_OFF)]
    assert study.reason_not_to_propose(85.0, Open(pending=put_off[1:])) is None
    assert study.reason_not_to_propose(85.0, Open(pending=put_off)) is StopReason.WALL_TIME
    assert study.reason_to_end(85.0, Open(pending=put_off[1:])) is None, "a small one may have room"
    assert study.reason_to_end(85.0, Open(pending=put_off[1:]), StopReason.EXHAUSTED) is StopReason.WALL_TIME


def test_time_left_is_known_with_the_first_trial_and_ends_with_the_budget() -> None:
    study = progress(wall_s=100.0)
    assert study.time_left(0.0, NOTHING, 1) is None
    study.add(ended(2))
    left = study.time_left(0.0, NOTHING, 1)
    assert left is not None
    assert left == TimeLeft(100.0, 100.0)
    unlimited = progress()
    unlimited.add(ended(2))
    left = unlimited.time_left(0.0, NOTHING, 1)
    assert left is not None
    assert left.low_s < 9 * WHOLE_S < left.high_s


def test_every_seed_of_the_baseline_that_has_an_error_is_shown() -> None:
    study = progress()
    study.add(ended(2, Role.BASELINE, Outcome.CRASHED))
    assert study.configurations.baseline is not None
    assert study.configurations.baseline.errors_pct == (5.0, 5.0)
    assert study.num_baselines == 3


def test_the_best_is_a_searched_trial() -> None:
    study = progress()
    study.add(ended(2, Role.CONFIRM, params=SMALL))
    assert study.configurations.best is None
    study.add(ended(3, params=SMALL))
    assert study.configurations.best is not None
    assert (study.done, study.total, study.configurations.best.first.trial.number) == (4, 12, 3)


@pytest.fixture
def cnn() -> SweepSpec:
    return load_sweep(sweeps_folder() / "cnn.toml", Flags(study="study"), "quick")


@pytest.fixture
def ledger(tmp_path: Path, cnn: SweepSpec) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        ledger.create_study(cnn, {})
        yield ledger


@pytest.mark.parametrize(("wall_s", "num_workers", "most_idle"), [(300.0, 2, 0.2), (900.0, 2, 0.06), (900.0, 8, 0.1)])
def test_a_budget_is_kept_and_used(
    cnn: SweepSpec,
    tmp_path: Path,
    wall_s: float,
    num_workers: int,
    most_idle: float,
) -> None:
    spec = cnn.model_copy(update={"budget": Budget(trials=500, wall_s=wall_s)})
    runs = []
    for seed in range(3):
        with closing(Ledger(tmp_path / f"{seed}.db")) as ledger:
            ledger.create_study(spec, {})
            run = run_clocked(spec, ledger, baseline_s=70.0, num_workers=num_workers, seed=seed)
            runs.append(run)
    assert {run.reason for run in runs} == {StopReason.WALL_TIME}
    assert max(run.wall_s for run in runs) < 1.06 * wall_s
    assert median(run.wall_s for run in runs) < 1.02 * wall_s
    assert fmean(run.idle_share for run in runs) < most_idle


def test_what_had_no_room_is_first_when_there_is_more_time(cnn: SweepSpec, ledger: Ledger) -> None:
    budgets = [Budget(trials=500, wall_s=wall_s) for wall_s in (300.0, 900.0)]
    specs = [cnn.model_copy(update={"budget": budget}) for budget in budgets]
    run_clocked(specs[0], ledger, baseline_s=70.0)
    waiting = [record.trial.uid for record in ledger.history("study") if record.result is None]
    assert 0 < len(waiting) <= MAX_PUT_OFF
    again = run_clocked(specs[1], ledger, baseline_s=70.0)
    assert again.started[: len(waiting)] == waiting


def test_a_trial_that_turns_out_too_long_stays_pending(cnn: SweepSpec, ledger: Ledger) -> None:
    spec = cnn.model_copy(update={"budget": Budget(trials=500, wall_s=400.0)})
    run = run_clocked(spec, ledger, baseline_s=70.0, noise=0.8)
    assert run.wall_s < 1.05 * 400.0
    attempts = {record.trial.uid: ledger.attempts(record.trial.uid) for record in ledger.history(spec.study)}
    cut = [uid for uid, its in attempts.items() if [one.outcome for one in its] == [Outcome.CANCELLED]]
    assert len(cut) >= 1
    assert [ledger.record(uid).result for uid in cut] == [None] * len(cut)
