"""What may be compared, what is better, and which settings make a study another one."""

from __future__ import annotations

import pytest
from simulated_study import make_spec

from harness.study import comparability
from harness.study import spec as spec_module
from harness.study.comparability import best, differing, rank_key, ranked
from harness.study.records import Device, Outcome, Record, Role, Seconds, Trial, TrialResult
from harness.study.spec import Decides, SweepSpec, settings_that_decide
from harness.support.strict_json import parse_json

DEVICE = Device("CPU", "cpu", "tensorflow 2", "float32", "compiled", 1, 2)
SPEC = make_spec(epochs=3)


def trial(number: int, error_pct: float, time_s: float, role: Role = Role.TRIAL, epochs: int = 3) -> Record:
    result = TrialResult(
        Outcome.COMPLETED,
        seconds=Seconds(train=time_s),
        device=DEVICE,
        final_error_rate_pct=error_pct,
        final_val_images=1000,
    )
    return Record(Trial(f"uid{number}", number, {}, 0, epochs, role), result, told_at=number)


def test_every_setting_says_what_it_decides() -> None:
    fields = SweepSpec.model_fields.items()
    marks = {name: [mark for mark in field.metadata if isinstance(mark, Decides)] for name, field in fields}
    assert {name: found for name, found in marks.items() if len(found) != 1} == {}


def test_a_tie_goes_to_the_faster_and_the_baseline_is_no_candidate() -> None:
    records = [trial(0, 1.0, 1.0, Role.BASELINE), trial(1, 2.0, 9.0), trial(2, 2.0, 3.0), trial(3, 1.5, 1.0, epochs=1)]
    assert [record.trial.number for record in ranked(SPEC, records)] == [2, 1]
    assert best(SPEC, records) is records[2]
    assert best(SPEC, records[:1]) is None
    assert rank_key(SPEC, trial(4, 1.0, 1.0, Role.CONFIRM)) is None


def test_the_columns_that_rank_are_the_key() -> None:
    key = rank_key(SPEC, trial(1, 2.0, 9.0))
    assert key == (2.0, DEVICE.timing_class, 9.0)
    assert comparability.RANKING == ("error_rate_pct", "timing_class", "device_time_s")


def test_what_differs_is_found_among_what_decides_it() -> None:
    other = SPEC.changed(seed=5, epochs=4, study="other")
    assert differing(SPEC, other, Decides.ERRORS) == ["epochs"]
    assert differing(SPEC, other, *Decides) == ["study", "seed", "epochs"]


def test_a_setting_that_is_added_later_leaves_digests_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its default; another value makes another study."""
    before = SPEC.digest()
    first = spec_module._FIRST_SETTINGS - {"patience"}
    monkeypatch.setattr(spec_module, "_FIRST_SETTINGS", first)
    assert "patience" not in SPEC.identity()
    assert SPEC.changed(patience=1).identity()["patience"] == 1
    assert SPEC.differing_keys(SPEC.changed(patience=1)) == ["patience"]
    monkeypatch.undo()
    assert SPEC.digest() == before


def test_the_settings_of_the_first_studies_are_all_in_the_digest() -> None:
    assert set(SPEC.identity()) == spec_module._FIRST_SETTINGS
    assert set(SPEC.identity()["constraints"]) == spec_module._FIRST_CONSTRAINTS
    undecided = settings_that_decide(Decides.NOTHING)
    assert set(SweepSpec.model_fields) - set(undecided) >= spec_module._FIRST_SETTINGS


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
