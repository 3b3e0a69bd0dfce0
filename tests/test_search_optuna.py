"""What Optuna is told, shown and asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import optuna
import pytest
import scipy.special
from optuna.trial import FrozenTrial, TrialState
from simulated_study import (
    CONDITIONAL,
    MIXED,
    NUMBERS,
    STEPPED,
    SimulatedStudy,
    chance,
    epoch_report,
    simulated_spec,
    some_fail,
)

from harness.search import optuna_search
from harness.search.base import NoProposal
from harness.search.history_window import NUM_BEST_SHOWN, NUM_SHOWN
from harness.search.optuna_parts import HALVING, PercentilePruner, Storage, new_sampler
from harness.search.optuna_search import OptunaSearch
from harness.search.proposer import Proposer
from harness.study.records import Outcome, Record, Role, Seconds, Trial, TrialResult
from harness.study.spec import SweepSpec


def study_of(study: SimulatedStudy) -> optuna.Study:
    assert isinstance(study.search, OptunaSearch)
    return study.search._study


def told(spec: SweepSpec, *outcomes: Outcome) -> list[FrozenTrial]:
    """What Optuna knows of the searched trials when they have ended so, one after the other."""
    ends = iter(outcomes)
    study = SimulatedStudy(spec, fails=lambda trial: next(ends) if trial.role is Role.TRIAL else None)
    study.run(2 + len(outcomes))
    return study_of(study).trials[2:]


def plain(trial: FrozenTrial) -> tuple[object, ...]:
    """A trial without its times and internal notes; of a failed one only that it is there."""
    if trial.state is TrialState.FAIL:
        return trial.number, trial.state
    return trial.number, trial.state, trial.values, trial.params, trial.intermediate_values, trial.constraints


@pytest.mark.parametrize(
    ("pruner", "patience"),
    [("none", 0), ("median", 0), ("successive_halving", 0), ("successive_halving", 1), ("hyperband", 0)],
)
@pytest.mark.parametrize("space", [MIXED, CONDITIONAL], ids=["mixed", "conditional"])
def test_a_rebuilt_study_is_the_one_that_was(pruner: str, patience: int, space: dict[str, object]) -> None:
    spec = simulated_spec(space=space, pruner=pruner, patience=patience, constraints={"max_params": 900_000})
    study = SimulatedStudy(spec, fails=some_fail).run(40)
    rebuilt = SimulatedStudy(spec, study.records)
    before, after = study_of(study).trials, study_of(rebuilt).trials
    assert [plain(trial) for trial in after] == [plain(trial) for trial in before]
    rungs = [[{k: v for k, v in t.system_attrs.items() if "rung" in k} for t in each] for each in (before, after)]
    assert rungs[0] == rungs[1]
    assert any(rungs[0]) is (pruner in HALVING and not patience)  # the bowl's curves fall: patience never ends
    assert study_of(rebuilt).best_trial.number == study_of(study).best_trial.number


def test_good_results_are_told_in_percent_and_seconds() -> None:
    study = SimulatedStudy(simulated_spec(objective=("error", "device_time"))).run(3)
    record, trial = study.records[2], study_of(study).trials[2]
    assert record.result is not None
    assert trial.values == [record.result.error_rate_pct, record.device_time_s]
    assert trial.state is TrialState.COMPLETE
    assert all(value <= 0 for value in trial.constraints.values())


@pytest.mark.parametrize("outcome", [Outcome.DIVERGED, Outcome.OUT_OF_MEMORY, Outcome.TIMED_OUT])
def test_a_bad_end_is_a_broken_constraint_at_the_worst_value_seen(outcome: Outcome) -> None:
    good, bad, other, worse = told(simulated_spec(), Outcome.COMPLETED, outcome, Outcome.COMPLETED, outcome)
    assert (bad.state, worse.state) == (TrialState.COMPLETE, TrialState.COMPLETE)
    assert bad.constraints["trains"] > 0
    assert good.constraints["trains"] < 0
    baseline = simulated_spec().baseline_params
    worst_pct = max(
        epoch_report(simulated_spec(), Trial("uid", 0, baseline, seed, 5), 5).val_error_rate_pct for seed in (0, 1)
    )
    assert bad.values == [max(worst_pct, *good.values)]
    assert worse.values == [max(*bad.values, *other.values)]


def test_before_any_result_a_bad_end_is_as_bad_as_can_be() -> None:
    spec = simulated_spec(objective=("error", "device_time"))
    search = OptunaSearch(spec)
    first = Trial("uid", 0, {}, 0, 5)
    assert search.ask("uid", 0, 0)
    search.tell(first, TrialResult(Outcome.DIVERGED))
    assert search._study.trials[0].values == [100.0, 3600.0]


def test_an_infeasible_configuration_says_by_how_much() -> None:
    study = SimulatedStudy(simulated_spec(constraints={"max_params": 400_000})).run(30)
    trials = study_of(study).trials
    for record, trial in zip(study.records, trials, strict=True):
        assert record.result is not None
        is_infeasible = record.result.outcome is Outcome.INFEASIBLE
        assert (trial.constraints["limits"] > 0) is (is_infeasible or record.trial.role is Role.BASELINE)
        assert trial.constraints["trains"] < 0
    assert len({trial.constraints["limits"] for trial in trials}) > 10


@pytest.mark.parametrize("outcome", [Outcome.CRASHED, Outcome.CANCELLED])
def test_a_crash_teaches_nothing(outcome: Outcome) -> None:
    assert told(simulated_spec(), outcome)[0].state is TrialState.FAIL


def test_cmaes_is_told_by_values_alone() -> None:
    spec = simulated_spec(sampler="cmaes", space=NUMBERS)
    good, bad = told(spec, Outcome.COMPLETED, Outcome.DIVERGED)
    assert good.constraints == bad.constraints == {}
    assert bad.value is not None
    assert good.value is not None
    assert bad.value >= good.value


def fails_beyond(units: int) -> Callable[[Trial], Outcome | None]:
    return lambda trial: Outcome.OUT_OF_MEMORY if int(trial.params.get("units_1", 0)) > units else None


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "cmaes"])
def test_the_search_stays_away_from_what_fails(sampler: str) -> None:
    """Beyond 700 units all fails, where the bowl has its bottom near 514 and half of all draws lie beyond 362."""
    spec = simulated_spec(sampler=sampler, space=NUMBERS)
    study = SimulatedStudy(spec, fails=fails_beyond(700)).run(80)
    is_beyond = [int(trial.params["units_1"]) > 700 for trial in study.searched()]
    assert sum(is_beyond[-30:]) <= 6
    assert any(is_beyond[:12])


@pytest.mark.parametrize("pruner", ["median", "percentile"])
def test_a_pruner_compares_searched_configurations_with_each_other(pruner: str) -> None:
    """The baseline's six trainings are better than most, and stop none."""
    study = SimulatedStudy(simulated_spec(sampler="random", pruner=pruner, baseline_seeds=6)).run(30)
    outcomes = [record.result.outcome for record in study.records if record.result and record.asks]
    num_before = outcomes.index(Outcome.PRUNED)
    assert outcomes[:num_before].count(Outcome.COMPLETED) >= 5
    seeds = [record for record in study.records if record.trial.role is Role.BASELINE]
    assert all(record.result and record.result.outcome is Outcome.COMPLETED for record in seeds)


@pytest.mark.parametrize("pruner", ["median", "percentile", "successive_halving", "hyperband"])
def test_pruners_stop_the_worse_trials(pruner: str) -> None:
    study = SimulatedStudy(simulated_spec(sampler="random", pruner=pruner)).run(40)
    results = [record.result for record in study.records if record.result and record.asks]
    last = {outcome: [r.val_error_rate_pct or 0.0 for r in results if r.outcome is outcome] for outcome in Outcome}
    assert len(last[Outcome.PRUNED]) >= 5
    assert len(last[Outcome.COMPLETED]) >= (3 if pruner == "successive_halving" else 5)  # an eighth, without ties
    assert min(last[Outcome.COMPLETED]) < min(last[Outcome.PRUNED])
    if pruner in ("median", "percentile"):
        stopped_after = [len(result.curve) for result in results if result.outcome is Outcome.PRUNED]
        assert min(stopped_after) == 2  # the first quarter of the schedule is spared


def test_patience_waits_until_a_trial_gets_worse() -> None:
    # The bowl's curves fall all the time, so that nobody who is patient is ever stopped.
    impatient = SimulatedStudy(simulated_spec(sampler="random", pruner="median")).run(40)
    patient = SimulatedStudy(simulated_spec(sampler="random", pruner="median", patience=1)).run(40)
    assert any(record.result and record.result.outcome is Outcome.PRUNED for record in impatient.records)
    assert not any(record.result and record.result.outcome is Outcome.PRUNED for record in patient.records)


def test_a_second_attempt_reports_the_same_epochs_again() -> None:
    spec = simulated_spec(pruner="median")
    study = SimulatedStudy(spec).run(3)
    proposed = study.proposer.next()
    assert not isinstance(proposed, str)
    trial: Trial = proposed.trial  # type: ignore[union-attr]
    for epoch in (1, 1, 2):
        study.proposer.report(trial, epoch_report(spec, trial, epoch))
    assert list(study_of(study).trials[3].intermediate_values) == [1, 2]


def test_brute_force_lists_every_point_once() -> None:
    study = SimulatedStudy(simulated_spec(sampler="grid", space=STEPPED)).run(100)
    points = [tuple(trial.params.values()) for trial in study.trials[1:]]  # the baseline ran with two seeds
    assert len(points) == len(set(points)) == 18


def test_a_long_study_is_shown_by_its_best_and_latest_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = simulated_spec(space=NUMBERS)
    past = list(past_records(spec, NUM_SHOWN + 200))
    search = OptunaSearch(spec)
    search.replay(past)
    shown: list[list[FrozenTrial]] = []
    sampler = optuna_search.new_sampler

    def spy(spec: SweepSpec, seed: int) -> optuna.samplers.BaseSampler:
        made = sampler(spec, seed)
        infer = made.infer_relative_search_space

        def infer_and_look(study: optuna.Study, trial: FrozenTrial) -> dict[str, object]:
            shown.append(study.get_trials(deepcopy=False))
            return infer(study, trial)

        monkeypatch.setattr(made, "infer_relative_search_space", infer_and_look)
        return made

    monkeypatch.setattr(optuna_search, "new_sampler", spy)
    search.ask("one", 1000, 0)
    numbers = {trial.number for trial in shown[0]}
    assert NUM_SHOWN - NUM_BEST_SHOWN < len(numbers) <= NUM_SHOWN
    assert set(range(len(past) - (NUM_SHOWN - NUM_BEST_SHOWN), len(past))) <= numbers
    ranked = sorted(range(len(past)), key=lambda i: past[i].result.error_rate_pct or 0.0)  # type: ignore[union-attr]
    assert set(ranked[:NUM_BEST_SHOWN]) <= numbers
    search.ask("two", 1001, 0)
    assert len(past) in {trial.number for trial in shown[1]}  # still running, so that it repels
    assert len(search._study.trials) == len(past) + 2


@pytest.mark.parametrize("percentile", [50.0, 75.0])
@pytest.mark.parametrize("num_past", [0, 4, 7, 300])
def test_the_percentile_pruner_decides_as_optunas_does(percentile: float, num_past: int) -> None:
    ours, theirs = PercentilePruner(percentile, 2), optuna.pruners.PercentilePruner(percentile, n_warmup_steps=2)
    study = optuna.create_study(storage=Storage(), sampler=optuna.samplers.RandomSampler(0))
    for i in range(num_past):
        curve = {step: round(chance(i, step), 1) for step in range(1, 6 if i % 3 else 3)}
        state = TrialState.COMPLETE if i % 4 else TrialState.PRUNED
        study.add_trial(optuna.trial.create_trial(state=state, value=1.0, intermediate_values=curve))
    stopped = 0
    for i in range(60):
        trial = study.ask()
        for step in range(1, 6):
            trial.report(round(chance("new", i) + chance("new", i, step) / 10, 2), step)
            frozen = study.trials[trial.number]
            assert ours.prune(study, frozen) == theirs.prune(study, frozen)
            stopped += ours.prune(study, frozen)
        study.tell(trial, 0.5)
    assert stopped > 10


@pytest.mark.parametrize("space", [MIXED, CONDITIONAL, STEPPED], ids=["mixed", "conditional", "stepped"])
def test_tpe_knows_the_space_that_optuna_would_find(space: dict[str, object]) -> None:
    spec = simulated_spec(space=space)
    study = study_of(SimulatedStudy(spec).run(40))
    trial = study.trials[-1]
    found = optuna.samplers.TPESampler(seed=1).infer_relative_search_space(study, trial)
    assert list(new_sampler(spec, 1).infer_relative_search_space(study, trial).items()) == list(found.items())


def test_optuna_uses_the_faster_function_and_its_own_is_the_same() -> None:
    from optuna.samplers._tpe import _truncnorm

    at = np.concatenate([np.linspace(-40, 10, 1001), [-1e3, 0.0]])
    own = np.array([_truncnorm._log_ndtr_single(value) for value in at])
    np.testing.assert_allclose(_truncnorm._log_ndtr(at), own, rtol=1e-9, atol=1e-15)
    assert _truncnorm._log_ndtr is scipy.special.log_ndtr


@pytest.mark.parametrize("pruner", ["percentile", "hyperband"])
def test_ten_thousand_trials_are_taken_in(pruner: str) -> None:
    spec = simulated_spec(pruner=pruner)
    past = list(past_records(spec, 10_000))
    source = Proposer(spec, OptunaSearch(spec), past)
    proposed = source.next()
    assert proposed.trial.number == 10_000  # type: ignore[union-attr]


def past_records(spec: SweepSpec, count: int) -> list[Record]:
    records = []
    for i in range(count):
        params = {"units_1": 64 + i % 1900, "dropout": chance(i) / 2, "units_2": 128, "batch_norm": i % 2 == 0}
        trial = Trial(f"uid{i}", i, {name: params[name] for name in spec.search_space}, 0, 5)
        report = epoch_report(spec, trial, 5)
        result = TrialResult(Outcome.COMPLETED, curve=(report,), seconds=Seconds(train=1.0))
        records.append(Record(trial, result, asked_at=2 * i, told_at=2 * i + 1))
    return records


@pytest.mark.parametrize("sampler", ["nsga2", "cmaes", "qmc"])
def test_what_an_altered_past_proposes_otherwise_is_taken_as_it_ran(sampler: str) -> None:
    spec = simulated_spec(sampler=sampler, space=NUMBERS)
    study = SimulatedStudy(spec).run(12)
    altered = dataclasses.replace(study.records[6].trial, params={"units_1": 777, "dropout": 0.123})
    records = [*study.records[:6], dataclasses.replace(study.records[6], trial=altered), *study.records[7:]]
    resumed = SimulatedStudy(spec, records).run(16)
    assert any(trial.params.get("units_1") == 777 for trial in study_of(resumed).trials)
    assert len(resumed.records) == 16


def test_a_tpe_over_a_conditional_space_learns_its_branches() -> None:
    """One layer is the worst here, and a third of all random draws."""
    for seed in range(3):
        study = SimulatedStudy(simulated_spec(space=CONDITIONAL, seed=seed)).run(30)
        assert sum(trial.params["layers"] == 1 for trial in study.searched()[-14:]) <= 1


def test_a_small_space_is_searched_to_its_end() -> None:
    study = SimulatedStudy(simulated_spec(space=CONDITIONAL)).run(200)
    assert study.end is NoProposal.EXHAUSTED
    assert len({tuple(sorted(trial.params.items())) for trial in study.trials}) >= 50  # of 58


def test_trials_of_three_workers_are_open_again_after_a_resume() -> None:
    spec = simulated_spec(space=CONDITIONAL, pruner="hyperband", constraints={"max_params": 900_000})
    whole = SimulatedStudy(spec, fails=some_fail, num_open=3).run(45)
    for num_events in (20, 26, 33, 60):
        resumed = SimulatedStudy(spec, whole.stopped_at(num_events), fails=some_fail, num_open=3).run(45)
        assert resumed.story() == whole.story()
