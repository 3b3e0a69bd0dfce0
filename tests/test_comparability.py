"""What may be compared, what is better, and which settings make a study another one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from filled_ledger import DOCUMENTED, make_spec

from harness.study import spec
from harness.study.comparability import Configuration, Configurations, by_uid, differing
from harness.study.records import Device, Outcome, Params, Record, Role, Seconds, Trial, TrialResult
from harness.study.settings import Decides, settings_that_decide
from harness.study.spec import SweepSpec
from harness.support.strict_json import parse_json

DEVICE = Device("CPU", "cpu", "tensorflow 2", "float32", "compiled", 1, 2)
SPEC = make_spec(epochs=3)


SMALL, LARGE = {**DOCUMENTED, "units_1": 64}, {**DOCUMENTED, "units_1": 1024}


def trial(
    number: int,
    error_pct: float,
    params: Params = SMALL,
    *,
    time_s: float = 1.0,
    role: Role = Role.TRIAL,
    epochs: int = 3,
    seed: int | None = None,
    device: Device = DEVICE,
) -> Record:
    result = TrialResult(
        Outcome.COMPLETED,
        seconds=Seconds(train=time_s),
        device=device,
        final_error_rate_pct=error_pct,
        final_val_images=1000,
    )
    made = Trial(f"uid{number}", number, params, number if seed is None else seed, epochs, role)
    return Record(made, result, told_at=number)


def numbers(found: Configuration | None) -> list[int]:
    return [record.trial.number for record in found.records] if found else []


def test_every_setting_says_what_it_decides() -> None:
    fields = SweepSpec.model_fields.items()
    marks = {name: [mark for mark in field.metadata if isinstance(mark, Decides)] for name, field in fields}
    assert {name: found for name, found in marks.items() if len(found) != 1} == {}


def test_a_tie_goes_to_the_faster_and_the_baseline_is_no_candidate() -> None:
    records = [
        trial(0, 1.0, DOCUMENTED, role=Role.BASELINE),
        trial(1, 2.0, SMALL, time_s=9.0),
        trial(2, 2.0, LARGE, time_s=3.0),
        trial(3, 1.5, LARGE, epochs=1),
        trial(4, 1.0, LARGE, role=Role.CONFIRM),
    ]
    found = Configurations(SPEC, records)
    assert list(map(numbers, found.ranked)) == [[2], [1]]
    assert numbers(found.best) == [2]
    assert numbers(found.baseline) == [0]
    assert Configurations(SPEC, records[:1]).best is None


def test_of_what_is_equal_in_all_the_first_tried_ranks_first_whichever_ended_first() -> None:
    tie = [trial(5, 2.0, SMALL), trial(4, 2.0, LARGE)]
    assert numbers(Configurations(SPEC, tie).best) == numbers(Configurations(SPEC, tie[::-1]).best) == [4]


def test_a_configuration_counts_by_the_mean_over_its_seeds() -> None:
    lucky, other = trial(1, 1.0, SMALL), trial(2, 1.4, LARGE)
    found = Configurations(SPEC, [lucky, other])
    assert numbers(found.best) == [1]
    changed = found.add(trial(3, 2.0, SMALL))
    assert changed is not None
    assert (changed.first, changed.errors_pct, changed.num_seeds, changed.mean_error_pct) == (lucky, (1.0, 2.0), 2, 1.5)
    assert numbers(found.best) == [2], "its second seed was worse"
    found.add(trial(4, 1.0, SMALL))
    assert numbers(found.best) == [1, 3, 4], "and its third one better: (1.0 + 2.0 + 1.0) / 3 is below 1.4"


def test_a_second_training_of_one_seed_is_no_second_seed() -> None:
    found = Configurations(SPEC, [trial(1, 1.0, seed=7), trial(2, 3.0, seed=7)]).best
    assert found is not None
    assert (numbers(found), found.errors_pct, found.num_seeds) == ([1, 2], (1.0,), 1)


def test_the_documented_configuration_is_the_baseline_whoever_asked_for_it() -> None:
    found = Configurations(SPEC, [trial(0, 2.0, DOCUMENTED, role=Role.BASELINE), trial(1, 1.0, DOCUMENTED)])
    assert found.best is None
    assert found.baseline is not None
    assert found.baseline.mean_error_pct == 1.5


def test_trainings_on_two_devices_have_a_timing_class_of_their_own() -> None:
    found = Configurations(SPEC, [trial(1, 1.0), trial(2, 1.0, device=replace(DEVICE, name="GPU"))]).best
    assert found is not None
    assert found.timing_class == f"{DEVICE.timing_class} + {replace(DEVICE, name='GPU').timing_class}"


def test_what_trains_on_the_validation_images_has_no_error_to_rank() -> None:
    verdict = SPEC.changed(train_images=60_000)
    assert Configurations(verdict, [trial(1, 1.0)]).all == []


def test_each_number_of_epochs_has_configurations_of_its_own() -> None:
    found = by_uid(SPEC, [trial(1, 3.0, epochs=1), trial(2, 2.0), trial(3, 1.0)])
    assert {uid: numbers(configuration) for uid, configuration in found.items()} == {
        "uid1": [1],
        "uid2": [2, 3],
        "uid3": [2, 3],
    }


def test_what_differs_is_found_among_what_decides_it() -> None:
    other = SPEC.changed(seed=5, epochs=4, study="other")
    assert differing(SPEC, other, Decides.ERRORS) == ["epochs"]
    assert differing(SPEC, other, *Decides) == ["study", "seed", "epochs"]


def test_a_setting_that_is_added_later_leaves_digests_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its default; another value makes another study."""
    before = SPEC.digest()
    first = spec._FIRST_SETTINGS - {"patience"}
    monkeypatch.setattr(spec, "_FIRST_SETTINGS", first)
    assert "patience" not in SPEC.identity()
    assert SPEC.changed(patience=1).identity()["patience"] == 1
    assert SPEC.differing_keys(SPEC.changed(patience=1)) == ["patience"]
    monkeypatch.undo()
    assert SPEC.digest() == before


def test_the_settings_of_the_first_studies_are_all_in_the_digest() -> None:
    assert set(SPEC.identity()) == spec._FIRST_SETTINGS
    assert set(SPEC.identity()["constraints"]) == spec._FIRST_CONSTRAINTS
    undecided = settings_that_decide(Decides.NOTHING)
    assert set(SweepSpec.model_fields) - set(undecided) >= spec._FIRST_SETTINGS


def test_the_digest_of_a_study_stays_what_it_was() -> None:
    """As written on 29 November 2026, with its digest then."""
    digest = "0d98b7f62c84ca02b7e7cd1396405e00f2f8ddb51bac205dfae34483cc3017a0"
    assert parse_json(SweepSpec, CNN_QUICK).digest() == digest


CNN_QUICK = """{
"study":"cnn-quick","baseline":"cnn","dataset":"mnist","engine":"optuna","sampler":"tpe","pruner":"percentile",
"patience":0,"objective":["error"],"seed":0,"max_repeats":1,"max_attempts":2,"trial_timeout_s":null,
"recipe":{"learning_rate":0.003,"schedule":"warmup_cosine","warmup_share":0.1,"batch_size":128},
"space":{"filters_1":{"low":8,"high":64,"step":8},"filters_2":{"low":16,"high":128,"step":16},
"kernel_1":{"values":[3,5,7]},"kernel_2":{"values":[3,5,7]},"dense_units":{"low":64,"high":2048,"log":true}},
"constraints":{"max_params":null,"max_mflops_per_image":56.0,"max_memory_mb":null},"enqueue":[],"learn_from":null,
"profile":"quick","epochs":5,"train_images":8000,"validation_images":2000,"baseline_seeds":2,"full_epochs":12,
"confirms":[],"reads_test":false,"budget":{"trials":24,"wall_s":1080.0,"device_s":null}}"""
