"""What every search keeps, whatever its engine: an entry in the catalogue brings these tests."""

from __future__ import annotations

import importlib.util

import pytest
from simulated_study import (
    CONDITIONAL,
    MIXED,
    NUMBERS,
    STEPPED,
    STEPPED_PARENT,
    TWELVE,
    SimulatedStudy,
    simulated_spec,
    some_fail,
)

from harness.search import catalogue
from harness.search.base import NoProposal
from harness.search.samplers import SAMPLERS, Sampler
from harness.study.records import Outcome, Role
from harness.study.spec import SweepSpec

PAIRS = [
    pytest.param(
        sampler,
        id=f"{sampler.engine}-{sampler.name}",
        marks=pytest.mark.skipif(
            sampler.module is not None and importlib.util.find_spec(sampler.module) is None,
            reason=f"{sampler.module} is not installed",
        ),
    )
    for sampler in SAMPLERS
]

# Asking KerasTuner's Gaussian process takes a second and more.
NUM_TRIALS = {"bayesian": 12}


def spec_for(sampler: Sampler, /, **settings: object) -> SweepSpec:
    """A study with whatever the sampler can do."""
    is_small = sampler.name == "grid" or sampler.asks_ahead
    space = NUMBERS if not sampler.categories else STEPPED if is_small else MIXED
    spec = simulated_spec(**({"engine": sampler.engine, "sampler": sampler.name, "space": space} | settings))
    catalogue.check(spec)
    return spec


def num_trials(sampler: Sampler) -> int:
    return NUM_TRIALS.get(sampler.name, 30)


@pytest.mark.parametrize("sampler", PAIRS)
class TestEverySearch:
    def test_proposes_points_of_the_space_after_the_baseline(self, sampler: Sampler) -> None:
        spec = spec_for(sampler)
        study = SimulatedStudy(spec).run(num_trials(sampler))
        assert [trial.number for trial in study.trials] == list(range(len(study.trials)))
        baselines, searched = study.trials[:2], study.trials[2:]
        assert [(trial.role, trial.params, trial.seed) for trial in baselines] == [
            (Role.BASELINE, spec.baseline_params, 0),
            (Role.BASELINE, spec.baseline_params, 1),
        ]
        assert len(searched) >= 10
        for trial in searched:
            assert trial.role is Role.TRIAL
            spec.search_space.validate(trial.params)
        runs = [(sorted(trial.params.items()), trial.seed) for trial in study.trials if trial.continues is None]
        assert all(runs.count(run) == 1 for run in runs)

    @pytest.mark.parametrize("ends", [{}, {"step": 0.5}, {"log": True}])
    def test_a_range_of_a_single_value_is_no_obstacle(self, sampler: Sampler, ends: dict[str, object]) -> None:
        low = 2e-3 if "log" in ends else 0.0  # as documented
        name = "learning_rate" if "log" in ends else "dropout"
        space = {"units_1": {"low": 506, "high": 512, "step": 1}, name: {"low": low, "high": low, **ends}}
        study = SimulatedStudy(spec_for(sampler, space=space)).run(6)
        assert {trial.params[name] for trial in study.trials} == {low}
        assert len({trial.params["units_1"] for trial in study.trials}) > 2

    def test_resumes_as_if_it_had_never_stopped(self, sampler: Sampler) -> None:
        pruner = "median" if sampler.engine == "optuna" else "none"
        spec = spec_for(sampler, pruner=pruner, constraints={"max_params": 900_000})
        whole = SimulatedStudy(spec, fails=some_fail).run(num_trials(sampler))
        outcomes = {record.result.outcome for record in whole.records if record.result}
        assert {Outcome.INFEASIBLE, Outcome.COMPLETED} < outcomes
        for share in (0.0, 0.1, 0.45, 0.8):
            stopped = whole.stopped_at(int(share * whole.num_events))
            resumed = SimulatedStudy(spec, stopped, fails=some_fail).run(num_trials(sampler))
            assert resumed.story() == whole.story()

    @pytest.mark.parametrize("num_open", [1, 2])
    def test_gives_the_best_further_seeds_in_the_end_and_resumes_there(self, sampler: Sampler, num_open: int) -> None:
        spec, settings = spec_for(sampler), {"fails": some_fail, "num_open": num_open, "finals_from": 8}
        whole = SimulatedStudy(spec, **settings).run(num_trials(sampler))
        seeds = [trial.seed for trial in whole.trials if trial.role is Role.TRIAL and trial.continues is None]
        assert max(seeds) >= 1, "no further seed"
        for num_events in (whole.num_events - 3, whole.num_events - 10):
            stopped = whole.stopped_at(num_events)
            assert SimulatedStudy(spec, stopped, **settings).run(num_trials(sampler)).story() == whole.story()

    @pytest.mark.parametrize("num_open", [1, 2])
    def test_draws_from_the_prior_and_resumes_there(self, sampler: Sampler, num_open: int) -> None:
        spec, settings = spec_for(sampler, prior="documented"), {"fails": some_fail, "num_open": num_open}
        whole = SimulatedStudy(spec, **settings).run(num_trials(sampler))
        drawn = [record.trial for record in whole.records if record.trial.role is Role.TRIAL and not record.asks]
        assert len(drawn) >= 2
        for trial in drawn:
            spec.search_space.validate(trial.params)
        for share in (0.1, 0.3, 0.6, 0.9):
            stopped = whole.stopped_at(int(share * whole.num_events))
            assert SimulatedStudy(spec, stopped, **settings).run(num_trials(sampler)).story() == whole.story()

    @pytest.mark.parametrize("num_open", [2, 3])
    def test_resumes_where_trials_are_asked_for_ahead(self, sampler: Sampler, num_open: int) -> None:
        spec = spec_for(sampler)
        whole = SimulatedStudy(spec, fails=some_fail, num_open=num_open).run(num_trials(sampler))
        for num_events in (17, 18):
            stopped = whole.stopped_at(num_events)
            resumed = SimulatedStudy(spec, stopped, fails=some_fail, num_open=num_open).run(num_trials(sampler))
            assert resumed.story() == whole.story()

    def test_ends_a_space_of_twelve_points(self, sampler: Sampler) -> None:
        if not sampler.categories:
            pytest.skip("numbers only")
        spec = spec_for(sampler, space=TWELVE)
        study = SimulatedStudy(spec).run(50)
        assert study.end is NoProposal.EXHAUSTED
        fresh = [trial for trial in study.trials if trial.continues is None]
        points = {tuple(trial.params.values()) for trial in fresh}
        assert len(points) >= 11
        for point in points - {tuple(spec.baseline_params.values())}:
            seeds = [trial.seed for trial in fresh if tuple(trial.params.values()) == point]
            assert seeds in ([0], [0, 1])
        resumed = SimulatedStudy(spec, study.stopped_at(study.num_events - 5)).run(50)
        assert (resumed.story(), resumed.end) == (study.story(), study.end)

    def test_searches_conditional_spaces(self, sampler: Sampler) -> None:
        if not sampler.conditional:
            pytest.skip("cannot")
        names = ("layers", "units_2") if sampler.asks_ahead else tuple(CONDITIONAL)
        spec = spec_for(sampler, space={name: CONDITIONAL[name] for name in names})
        study = SimulatedStudy(spec).run(num_trials(sampler))
        for trial in study.searched():
            spec.search_space.validate(trial.params)
        assert len({tuple(trial.params) for trial in study.searched()}) >= 2
        resumed = SimulatedStudy(spec, study.stopped_at(study.num_events - 4)).run(num_trials(sampler))
        assert resumed.story() == study.story()

    def test_a_condition_on_a_number_with_a_step_holds(self, sampler: Sampler) -> None:
        if not sampler.conditional or not sampler.categories:
            pytest.skip("cannot")
        spec = spec_for(sampler, space=STEPPED_PARENT)
        study = SimulatedStudy(spec).run(num_trials(sampler))
        for trial in study.searched():
            spec.search_space.validate(trial.params)
            assert ("input_dropout" in trial.params) == (trial.params["dropout"] in (0.3, 0.6))
        points = {tuple(trial.params.items()) for trial in study.trials}
        if sampler.name == "grid":
            assert (len(points), study.end) == (5 + 2 * 3, NoProposal.EXHAUSTED)

    def test_searches_for_two_objectives(self, sampler: Sampler) -> None:
        if not sampler.two_objectives:
            pytest.skip("cannot")
        spec = spec_for(sampler, objective=("error", "device_time"), constraints={"max_params": 900_000})
        study = SimulatedStudy(spec, fails=some_fail).run(30)
        assert len(study.searched()) >= 10
        resumed = SimulatedStudy(spec, study.stopped_at(study.num_events // 2), fails=some_fail).run(30)
        assert resumed.story() == study.story()

    def test_is_another_search_with_another_seed(self, sampler: Sampler) -> None:
        studies = [SimulatedStudy(spec_for(sampler, seed=seed)).run(8) for seed in (0, 1)]
        told = [[dict(trial.params) for trial in study.searched()] for study in studies]
        if sampler.engine == "keras-tuner" and sampler.name == "grid":
            assert told[0] == told[1]
        else:
            assert told[0] != told[1]

    def test_says_nothing(self, sampler: Sampler, capfd: pytest.CaptureFixture[str]) -> None:
        SimulatedStudy(spec_for(sampler), fails=some_fail).run(10)
        assert capfd.readouterr() == ("", "")

    def test_learns_or_says_that_it_does_not(self, sampler: Sampler) -> None:
        if not sampler.learns_from_others:
            pytest.skip("does not")
        spec = spec_for(sampler, space=NUMBERS)
        others = SimulatedStudy(spec_for(sampler, space=NUMBERS, sampler="random", seed=5)).run(30).records
        alone, taught = SimulatedStudy(spec), SimulatedStudy(spec, learned=others)
        assert alone.run(5).story()[2:] != taught.run(5).story()[2:]
        assert len(taught.records) == 5
        resumed = SimulatedStudy(spec, taught.stopped_at(7), learned=others).run(5)
        assert resumed.story() == taught.story()
