"""Finished trials of another study, in the terms of this one."""

from __future__ import annotations

import pytest
from simulated_study import CONDITIONAL, MIXED, NUMBERS, SimulatedStudy, simulated_spec, some_fail

from harness.errors import InputError
from harness.search.warm_start import check_fidelity, learnable
from harness.study.records import Outcome, Record, Role, Trial, TrialResult
from harness.study.settings import Decides, settings_that_decide

SMALL = {"units_1": {"low": 256, "high": 1024, "log": True}}


def record(params: dict[str, object], outcome: Outcome = Outcome.COMPLETED, epochs: int = 5) -> Record:
    trial = Trial("uid", 3, params, 0, epochs)  # type: ignore[arg-type]
    return Record(trial, TrialResult(outcome), asked_at=5, told_at=6)


def test_what_one_space_leaves_out_stands_at_its_documented_value() -> None:
    narrow, wide = simulated_spec(space=SMALL), simulated_spec(space=NUMBERS)
    assert learnable(wide, narrow, [record({"units_1": 300})])[0].trial.params == {"units_1": 300, "dropout": 0.0}
    (learned,) = learnable(
        narrow,
        wide,
        [
            record({"units_1": 300, "dropout": 0.0}),
            record({"units_1": 301, "dropout": 0.1}),  # dropout is not in the narrow space
            record({"units_1": 100, "dropout": 0.0}),  # out of its range
        ],
    )
    assert learned.trial.params == {"units_1": 300}


def test_conditional_parameters_are_set_where_they_are_active() -> None:
    spec = simulated_spec(space=CONDITIONAL)
    source = simulated_spec(space={"layers": {"low": 1, "high": 3}})
    learned = learnable(spec, source, [record({"layers": 1}), record({"layers": 2}), record({"layers": 3})])
    assert [dict(each.trial.params) for each in learned] == [
        {"layers": 1, "batch_norm": False},
        {"layers": 2, "units_2": 512, "batch_norm": False},
        {"layers": 3, "units_2": 512, "batch_norm": False},
    ]


def test_a_fixed_recipe_must_be_the_same() -> None:
    spec = simulated_spec(space=SMALL)
    slow = simulated_spec(space=SMALL, recipe=dict(spec.recipe) | {"learning_rate": 1e-4})
    with pytest.raises(InputError, match="no finished trial within this space"):
        learnable(spec, slow, [record({"units_1": 300})])


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_ends_that_the_configuration_is_to_blame_for_teach(outcome: Outcome) -> None:
    spec = simulated_spec(space=SMALL)
    records = [record({"units_1": 300}), record({"units_1": 301}, outcome)]
    teaches = outcome in (Outcome.COMPLETED, Outcome.PRUNED, Outcome.DIVERGED)
    assert len(learnable(spec, spec, records)) == 1 + teaches


def test_unfinished_and_shortened_trials_teach_nothing() -> None:
    spec = simulated_spec(space=SMALL)
    pending = Record(record({"units_1": 300}).trial)
    with pytest.raises(InputError, match="no finished trial"):
        learnable(spec, spec, [pending, record({"units_1": 300}, epochs=2)])


OF_ANOTHER_FIDELITY: dict[str, object] = {
    "baseline": "cnn",
    "dataset": "digits",
    "train_images": 50_000,
    "epochs": 12,
    "precision": "bfloat16",
    "validation_images": 200,
}


def test_every_setting_that_decides_errors_or_curves_is_held_against() -> None:
    assert set(settings_that_decide(Decides.ARCHITECTURE, Decides.ERRORS, Decides.CURVES)) == set(OF_ANOTHER_FIDELITY)


@pytest.mark.parametrize("key", OF_ANOTHER_FIDELITY)
def test_only_equal_fidelities_can_be_compared(key: str) -> None:
    spec, theirs = simulated_spec(space={}, pruner="median"), OF_ANOTHER_FIDELITY[key]
    check_fidelity(spec, simulated_spec(study="other", space={}, pruner="none"))
    with pytest.raises(InputError) as refused:
        check_fidelity(spec, simulated_spec(study="other", space={}, **{key: theirs}))
    message = f"learn_from is other, where {key} is {theirs}; allowed: studies with {getattr(spec, key)}"
    assert str(refused.value).removesuffix(", since pruner median compares curves") == message


def test_all_that_differs_is_said() -> None:
    with pytest.raises(InputError) as refused:
        check_fidelity(simulated_spec(pruner="median"), simulated_spec(study="other", epochs=12, validation_images=200))
    assert str(refused.value) == (
        "learn_from is other, where epochs is 12 and validation_images is 200; allowed: studies with 5 and 100"
    )


def test_how_many_images_curves_are_measured_on_matters_to_pruners_alone() -> None:
    other = simulated_spec(study="other", validation_images=200)
    check_fidelity(simulated_spec(pruner="none"), other)
    with pytest.raises(InputError, match="; allowed: studies with 100, since pruner percentile compares curves"):
        check_fidelity(simulated_spec(pruner="percentile"), other)


def test_learned_trials_teach_without_being_counted() -> None:
    spec = simulated_spec(space=MIXED, learn_from="other", pruner="median")
    source = simulated_spec(space=NUMBERS, seed=9, pruner="median")
    others = learnable(spec, source, SimulatedStudy(source, fails=some_fail).run(40).records)
    study = SimulatedStudy(spec, learned=others).run(5)
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3, 4]
    assert [trial.role for trial in study.trials[:2]] == [Role.BASELINE] * 2
    assert [trial.seed for trial in study.trials[:2]] == [0, 1]
