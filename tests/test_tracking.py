"""MLflow as a projection of the ledger, on a real SQLite store: complete, repeatable, and mended after accidents."""

from __future__ import annotations

import json
import math
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filled_ledger import DOCUMENTED, GPU, RECIPE, FilledLedger, filled_verdict, make_spec
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType

from harness.analysis.leaderboard.leaderboard import leaderboard
from harness.audit.runs import run_differences
from harness.errors import InputError, TroubleError
from harness.ledger.ledger import Ledger
from harness.ledger.locks import InUseError, runs_lock, study_lock
from harness.study.records import Outcome, Role
from harness.study.spec import SweepSpec
from harness.support.provenance import diff_file
from harness.support.redaction import reason, redact
from harness.tracking import mlflow_runs, reports, store, study_runs
from harness.tracking.content import always_shown
from harness.tracking.mlflow_runs import Patience, SyncReport, Tracker, sync
from harness.tracking.study_runs import StudyRuns
from harness.tracking.views import _FILTERS

WAIT_S = 60.0


@pytest.fixture(autouse=True)
def no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine is none of what people are told of."""
    monkeypatch.setattr(mlflow_runs, "NEWS_S", math.inf)


@pytest.fixture
def home(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = tmp_path / "Höfe und Häuser"
    home.mkdir()
    shutil.copy(empty_store, home / "mlflow.db")
    return home


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with closing(Ledger(home / "ledger.db")) as ledger:
        yield ledger


class Study(FilledLedger):
    """With a data set whose content is known; the trials' uids begin at a number of choice."""

    def __init__(self, ledger: Ledger, spec: SweepSpec, first: int = 0) -> None:
        self.ledger, self.spec, self._number = ledger, spec, first
        ledger.create_study(spec, {"git_commit": "abc", "data_digest": "digits-0123456789abcdef"})


@pytest.fixture
def study(ledger: Ledger) -> Study:
    """Two baselines, a completed, a pruned, a diverged and an infeasible trial."""
    study = Study(ledger, make_spec(dataset="digits"))
    study.add_baseline(3.0, test_wrong=range(6))
    study.add_baseline(3.2)
    study.add(2.5)
    study.add(4.5, Outcome.PRUNED, epochs_done=1)
    study.add(90.2, Outcome.DIVERGED, epochs_done=1, error="training loss is not finite in epoch 2")
    study.add(None, Outcome.INFEASIBLE, train_s=0.0, error="9 MFLOP per image; allowed: 8")
    return study


def client(home: Path) -> MlflowClient:
    return store.open_client(home)


def experiments(home: Path) -> dict[str, Experiment]:
    return {e.name: e for e in client(home).search_experiments() if e.name != "Default"}


def runs(home: Path, study: str = "study", view: int = ViewType.ACTIVE_ONLY) -> dict[str, Run]:
    """A study's runs by name."""
    experiment = experiments(home)[study]
    found = list(client(home).search_runs([experiment.experiment_id], run_view_type=view))
    assert len({run.info.run_name for run in found}) == len(found), "two runs of one trial"
    return {run.info.run_name: run for run in found}


def all_points(home: Path) -> list[tuple[Any, ...]]:
    """Every number ever logged to the study, doubles and all."""
    mlflow = client(home)
    return sorted(
        (run.info.run_id, point.key, point.step, point.timestamp, point.value)
        for run in runs(home).values()
        for key in run.data.metrics
        for point in mlflow.get_metric_history(run.info.run_id, key)
    )


def synced(home: Path, *studies: str) -> SyncReport:
    return sync(home, studies or ["study"], pytest.fail)


# What a run shows


def test_every_finished_trial_has_one_run_that_shows_what_the_ledger_and_the_leaderboard_say(
    home: Path, study: Study
) -> None:
    study.ask()  # pending: no run yet
    synced(home)
    shown = {run.data.tags["trial_uid"]: run for run in runs(home).values() if run.data.tags["role"] != "sweep"}
    table = leaderboard(study.ledger, ["study"])
    assert set(shown) == set(table.index)
    for uid, row in table.iterrows():
        data = shown[str(uid)].data
        for column in table.columns.intersection(list(data.metrics)):
            assert data.metrics[column] == row[column], column
        numbers = {c for c in table.columns if c.endswith(("_pct", "_s", "_image", "num_params")) and pd.notna(row[c])}
        of_the_configuration = {column for column in numbers if column.startswith("mean_")}
        assert numbers - of_the_configuration <= set(data.metrics)
        for column in ("outcome", "role", "study", "profile", "dataset", "engine", "sampler"):
            assert data.tags[column] == row[column]
        for name in ("units_1", "units_2", "seed", "epochs"):
            assert data.params[name] == str(row[name])
        assert row["run_id"] == shown[str(uid)].info.run_id


def test_pruned_and_failed_trials_show_error_times_and_how_they_ended(home: Path, study: Study) -> None:
    synced(home)
    found = runs(home)
    status = {name: run.info.status for name, run in found.items()}
    assert status == {
        "study": "KILLED",
        "baseline": "FINISHED",
        "baseline-001": "FINISHED",
        "trial-002": "FINISHED",
        "trial-003": "FINISHED",
        "trial-004": "FAILED",
        "trial-005": "FINISHED",  # it was refused, which is no failure
    }
    assert "error_rate_pct" not in found["trial-003"].data.metrics, "only trainings that reached their end are ranked"
    assert found["trial-003"].data.metrics["val_error_rate_pct"] == 4.5
    assert found["trial-003"].data.metrics["val_images"] == 1000
    assert found["trial-004"].data.metrics["device_time_s"] == 10.0
    assert found["trial-004"].data.tags["error"] == "training loss is not finite in epoch 2"
    assert found["trial-005"].data.metrics["device_time_s"] == 0.0
    assert "error_rate_pct" not in found["trial-005"].data.metrics


def test_each_run_has_all_settings_of_its_training(home: Path, ledger: Ledger) -> None:
    space = {"units_1": {"low": 64, "high": 1024}, "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}
    study = Study(ledger, make_spec(space=space, dataset="digits"))
    study.add(2.5, params={"units_1": 96, "learning_rate": 0.01})
    synced(home)
    params = runs(home)["trial-000"].data.params
    searched = {"units_1": "96", "learning_rate": "0.01"}
    fixed = {"units_2": "512", "schedule": "warmup_cosine", "batch_size": "128", "weight_decay": "0.0"}
    fixed |= {"augment_shift": "0.0", "dropout": "0.0", "precision": "float32", "seed": "0", "epochs": "3"}
    assert (searched | fixed).items() <= params.items()


def test_the_baseline_has_a_colour_of_its_own_in_charts(home: Path, study: Study) -> None:
    synced(home)
    colours = {name: run.data.tags.get("mlflow.runColor") for name, run in runs(home).items()}
    assert {name for name, colour in colours.items() if colour} == {"baseline", "baseline-001"}


def test_curves_go_by_epoch_and_leave_out_what_is_not_finite(home: Path, study: Study) -> None:
    synced(home)
    run = runs(home)["trial-002"]
    history = client(home).get_metric_history(run.info.run_id, "epoch/val_error_rate_pct")
    assert [(point.step, point.value) for point in history] == [(1, 4.5), (2, 3.5), (3, 2.5)]
    assert run.info.start_time < history[0].timestamp < history[-1].timestamp <= run.info.end_time
    assert "epoch/val_loss" not in run.data.metrics  # None in every epoch


def test_gpu_time_is_zero_and_so_marked_where_there_is_no_gpu(home: Path, study: Study) -> None:
    study.add(2.0, device=GPU)
    synced(home)
    on_cpu, on_gpu = runs(home)["trial-002"].data, runs(home)["trial-006"].data
    assert (on_cpu.metrics["gpu_time_s"], on_cpu.tags["gpu_time_source"]) == (0.0, "none")
    assert (on_gpu.metrics["gpu_time_s"], on_gpu.tags["gpu_time_source"]) == (5.0, "reserved")


def test_what_was_read_off_a_gpu_is_shown_and_what_could_not_be_is_not(home: Path, study: Study) -> None:
    study.add(2.0, device=GPU, gpu={"gpu_energy_j": 1250.5, "gpu_busy_time_s": 4.5})
    synced(home)
    metrics = runs(home)["trial-006"].data.metrics
    assert {name: value for name, value in metrics.items() if name.startswith("gpu_")} == {
        "gpu_time_s": 5.0,
        "gpu_energy_j": 1250.5,
        "gpu_busy_time_s": 4.5,
    }


def test_trials_hang_under_the_parent_and_name_the_trial_they_go_on_from(home: Path, study: Study) -> None:
    before = study.add(2.9)
    study.add(2.7, continues=before)
    synced(home)
    found = runs(home)
    parent = found.pop("study")
    assert {run.data.tags["mlflow.parentRunId"] for run in found.values()} == {parent.info.run_id}
    tags = found["trial-007"].data.tags
    assert (tags["continues"], tags["continues_run_id"]) == (before, found["trial-006"].info.run_id)
    metrics = found["trial-007"].data.metrics
    assert [metrics[name] for name in ("device_time_s", "train_time_s", "reserved_time_s")] == [20.0, 10.0, 14.0]


def test_parent_run_says_what_was_searched_and_what_came_of_it(home: Path, study: Study) -> None:
    study.add(1.0, epochs=1)  # less work, so not to be compared
    study.add(0.5, role=Role.CONFIRM)
    synced(home)
    parent = runs(home)["study"]
    note = parent.data.tags["mlflow.note.content"]
    assert "| documented baseline (mean of 2 seeds) | 3.10 % | 2.19 to 4.37 % |" in note
    assert "| trial 2, the best of 1 trained in full | 2.50 % | 1.70 to 3.66 % | 1,002 | 10.0 s | trial-002 |" in note
    assert "| units_1 | whole numbers 64 to 1024 | 512 | 66 |" in note
    assert "8 trials (5 completed, 1 pruned, 1 diverged, 1 infeasible)" in note
    assert "harness leaderboard study" in note
    assert parent.data.params["space.units_1"] == "whole numbers 64 to 1024"
    assert parent.data.params["recipe.learning_rate"] == "0.002"
    best = client(home).get_metric_history(parent.info.run_id, "best_error_rate_pct")
    assert [(point.step, point.value) for point in best] == [(0, 2.5)]
    (artifact,) = client(home).list_artifacts(parent.info.run_id)
    saved = home / "artifacts" / "study" / parent.info.run_id / "artifacts" / artifact.path
    assert json.loads(saved.read_text()) == study.spec.model_dump(mode="json")


def test_a_study_with_nothing_finished_and_one_without_a_search_have_a_summary(home: Path, ledger: Ledger) -> None:
    Study(ledger, make_spec("new")).ask()
    Study(ledger, make_spec("plain", space={}, budget={"trials": 0})).add(2.0, role=Role.BASELINE, params={})
    synced(home, "new", "plain")
    assert "No trial has been trained in full yet." in runs(home, "new")["new"].data.tags["mlflow.note.content"]
    plain = runs(home, "plain")["plain"]
    assert plain.data.tags["mlflow.note.content"].startswith("Training of the documented fc on mnist, profile quick")
    assert plain.info.status == "FINISHED"


def test_the_experiment_has_views_and_says_that_it_is_model_training(home: Path, study: Study) -> None:
    synced(home)
    experiment = experiments(home)["study"]
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    for key in ("leaderboard", "search-space", "curves"):
        assert f"mlflow.sharedViewState.{key}" in experiment.tags
        assert f"](#/experiments/{experiment.experiment_id}/runs?" in experiment.tags["mlflow.note.content"]


def test_an_error_has_no_character_that_postgresql_refuses(home: Path, ledger: Ledger) -> None:
    Study(ledger, make_spec(dataset="digits")).add(None, Outcome.CRASHED, error="before\0after")
    synced(home)
    assert runs(home)["trial-000"].data.tags["error"] == "before\N{REPLACEMENT CHARACTER}after"


def test_the_runs_of_a_verdict_say_what_they_confirm_and_show_test_errors_alone(home: Path, ledger: Ledger) -> None:
    filled_verdict(ledger)
    synced(home, "study.verdict")
    shown = runs(home, "study.verdict")
    assert set(shown) == {"study.verdict", "baseline-seed-40", "trial-007-seed-40", "trial-007-seed-41"}
    run = shown["trial-007-seed-41"].data
    assert (run.tags["role"], run.tags["confirms"]) == ("confirm", "trial-007")
    assert run.metrics["test_error_rate_pct"] == pytest.approx(100 * 2 / 300)
    assert (
        not {
            "error_rate_pct",
            "error_rate_ci_low_pct",
            "val_error_rate_pct",
            "epoch/val_error_rate_pct",
            "epoch/val_loss",
        }
        & run.metrics.keys()
    )
    assert "epoch/train_loss" in run.metrics
    assert "mlflow.runColor" in shown["baseline-seed-40"].data.tags
    parent = shown["study.verdict"]
    note = parent.data.tags["mlflow.note.content"]
    assert parent.info.status == "FINISHED"
    assert note.startswith("Verdict on study: its best trials and the documented fc, trained again with fresh seeds")
    assert "| documented baseline | 1.00 % | 1 |" in note
    assert "| trial 7 | 0.50 % | 2 |" in note
    assert "`harness verdict study` continues it" in note


def test_the_data_set_has_its_schema(home: Path, study: Study) -> None:
    synced(home)
    (data,) = runs(home)["trial-002"].inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("digits", "digits-0123456789abcdef")
    features = json.loads(json.loads(data.dataset.schema)["mlflow_tensorspec"]["features"])
    assert features == [{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, 28, 28]}}]
    assert json.loads(data.dataset.profile)["used_train_images"] == 1000


def test_the_views_show_running_trials_and_the_study_itself_only_in_the_table(home: Path, study: Study) -> None:
    study.ledger.start_attempt(study.ask().uid, "worker-0")
    with study_lock(home, "study"):
        synced(home)

    def found(view: str) -> set[str]:
        experiment = experiments(home)["study"]
        return {run.info.run_name for run in client(home).search_runs([experiment.experiment_id], _FILTERS[view])}

    completed = {"baseline", "baseline-001", "trial-002"}
    assert found("search-space") == completed
    assert found("leaderboard") == completed | {"trial-006", "study"}
    assert found("curves") == completed | {"trial-003", "trial-004", "trial-006"}


def test_the_first_row_of_a_table_is_there_before_a_trial_is(home: Path, ledger: Ledger) -> None:
    Study(ledger, make_spec())
    with study_lock(home, "study"):
        synced(home)
    (experiment,) = experiments(home).values()
    (row,) = client(home).search_runs([experiment.experiment_id], _FILTERS["leaderboard"])
    assert row.info.status == "RUNNING"
    assert (row.data.tags["outcome"], row.data.tags["progress"]) == ("running", "0 trials ended")


def test_progress_is_shown_from_the_start_of_a_trial_to_its_end(home: Path, study: Study) -> None:
    study.ledger.start_attempt(study.ask().uid, "worker-0")
    with study_lock(home, "study"):
        synced(home)
    shown = {name: run.data.tags["progress"] for name, run in runs(home).items()}
    assert shown["study"] == "6 trials ended, best 2.50 %"
    assert shown["trial-006"] == "epoch 0 of 3"
    assert shown["trial-002"] == "epoch 3 of 3, 2.50 %"
    assert shown["trial-003"] == "epoch 1 of 3, 4.50 %"
    assert shown["trial-005"] == "epoch 0 of 3"  # infeasible


def test_each_training_of_a_configuration_has_the_mean_over_its_seeds(home: Path, study: Study) -> None:
    runs_of_study = StudyRuns(home, study.ledger, "study")
    runs_of_study.reconcile("RUNNING")
    means = {name: run.data.tags.get("mean_error") for name, run in runs(home).items()}
    both = "3.10 % of 2 seeds"
    assert {name: mean for name, mean in means.items() if mean} == {"baseline": both, "baseline-001": both}
    study.add_baseline(3.4)
    study.add(4.5, Outcome.PRUNED, epochs_done=1)
    study.add(5.0, epochs=1, params={"units_1": 70, "units_2": 70})  # as in a rung of Hyperband
    study.add(6.0, epochs=1, params={"units_1": 70, "units_2": 70})
    runs_of_study.add_new()
    runs_of_study.show_progress("RUNNING")
    means = {name: run.data.tags.get("mean_error") for name, run in runs(home).items()}
    baselines = dict.fromkeys(("baseline", "baseline-001", "baseline-006"), "3.20 % of 3 seeds")
    rung = dict.fromkeys(("trial-008", "trial-009"), "5.50 % of 2 seeds")
    assert {name: mean for name, mean in means.items() if mean} == baselines | rung
    runs_of_study.finish("FINISHED")
    assert str(synced(home)) == "study: as it should be"
    client(home).set_tag(runs(home)["baseline"].info.run_id, "mean_error", "3.00 % of 3 seeds")
    assert str(synced(home)) == "study: runs 1 completed"


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_tag_of_ours_without_reason_is_removed_and_those_of_people_stay(
    home: Path, study: Study, is_replaced: bool
) -> None:
    """Such as the mean over a seed that the ledger, an older copy of which was put back, does not have."""
    synced(home)
    run_id = runs(home)["trial-002"].info.run_id
    for key in ("mean_error", "error", "uncommitted_changes", "remark"):
        client(home).set_tag(run_id, key, "2.45 % of 2 seeds")
    if is_replaced:
        client(home).log_param(run_id, "a_parameter", 1)
    assert len(list(run_differences(home, study.ledger, "study"))) == 3 + is_replaced
    assert str(synced(home)) == f"study: runs 1 {'replaced' if is_replaced else 'completed'}"
    tags = runs(home)["trial-002"].data.tags
    assert {"mean_error", "error", "uncommitted_changes", "remark"} & tags.keys() == {"remark"}
    assert str(synced(home)) == "study: as it should be"


def test_uncommitted_changes_are_said_of_the_attempt_that_counts(home: Path, study: Study) -> None:
    study.ledger.start_session("study", {"git_commit": "abc", "git_diff": "a change"})
    trial = study.ask()
    study.ledger.start_attempt(trial.uid, "worker-0")
    synced(home)
    assert "uncommitted_changes" in runs(home)["trial-006"].data.tags
    study.ledger.close_lost_attempts("study")
    study.ledger.start_session("study", {"git_commit": "def"})
    study.end(trial, 3.0)
    synced(home)
    assert "uncommitted_changes" not in runs(home)["trial-006"].data.tags


def test_the_search_time_of_a_trial_whose_end_another_update_sees_first_is_logged_in_the_end(
    home: Path, study: Study
) -> None:
    runs_of_study = StudyRuns(home, study.ledger, "study")
    runs_of_study.reconcile("RUNNING")
    further = study.ask(DOCUMENTED, role=Role.BASELINE)
    study.ledger.start_attempt(further.uid, "worker-0")
    runs_of_study.show_open()
    study.end(further, 3.4)
    runs_of_study.show_progress("RUNNING")  # brings the mean, and with it the result
    study.ledger.add_search_time(further.uid, 5.0)
    runs_of_study.add_new()
    runs_of_study.finish("FINISHED")
    assert str(synced(home)) == "study: as it should be"


def test_a_report_asks_for_no_run_of_a_training(home: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes none, and one that was deleted for good would fail it."""
    synced(home)
    asked = []
    monkeypatch.setattr(MlflowClient, "get_run", lambda _, run_id: asked.append(run_id))
    reports.show_report(home, "study", "a report", [])
    assert not asked


def test_each_metric_is_explained_in_the_note_that_a_runs_note_leads_to(home: Path, study: Study) -> None:
    synced(home)
    found = runs(home)
    parent = found.pop("study")
    explained = parent.data.tags["mlflow.note.content"]
    for run in found.values():
        assert f"/runs/{parent.info.run_id}" in run.data.tags["mlflow.note.content"]
        for name in run.data.metrics:
            assert f"| `{name}` | " in explained, name
    for name in parent.data.metrics:
        assert f"`{name}` is " in explained


def test_a_note_that_was_written_by_hand_stays(home: Path, study: Study) -> None:
    synced(home)
    run_id = runs(home)["trial-002"].info.run_id
    client(home).set_tag(run_id, "mlflow.note.content", "mine")
    assert str(synced(home)) == "study: as it should be"
    assert client(home).get_run(run_id).data.tags["mlflow.note.content"] == "mine"


@pytest.mark.parametrize(("fixed", "drawn"), [("cosine", set()), ("warmup_cosine", {"warmup_share"})])
def test_only_what_every_run_has_is_drawn_as_a_line_through_all(fixed: str, drawn: set[str]) -> None:
    space: dict[str, dict[str, float]] = {
        "layers": {"low": 1, "high": 2},
        "units_1": {"low": 64, "high": 512},
        "units_2": {"low": 64, "high": 512},
    }
    space["warmup_share"] = {"low": 0.0, "high": 0.5}
    spec = make_spec(space=space, recipe={**RECIPE, "schedule": fixed})
    assert set(always_shown(spec)) == {"layers", "units_1"} | drawn
    del space["layers"]  # two in the documented network
    assert "units_2" in always_shown(make_spec(space=space))


def test_settings_without_effect_are_left_out_but_stay_in_runs_that_have_them(home: Path, ledger: Ledger) -> None:
    space = {"layers": {"low": 1, "high": 2}, "schedule": {"values": ["cosine", "warmup_cosine"]}}
    study = Study(ledger, make_spec(space=space))
    study.add(2.5, params={"layers": 1, "schedule": "cosine"})
    study.add(2.6, params={"layers": 2, "schedule": "warmup_cosine"})
    synced(home)
    one, two = runs(home)["trial-000"], runs(home)["trial-001"]
    assert one.data.params.keys() ^ two.data.params.keys() == {"units_2", "warmup_share"}
    assert not {"units_2", "warmup_share"} & one.data.params.keys()
    assert "units_3" not in two.data.params
    client(home).log_param(one.info.run_id, "units_2", "512")  # as earlier versions did
    assert str(synced(home)) == "study: as it should be"
    client(home).log_param(one.info.run_id, "units_3", "7")
    assert synced(home).repairs["study"].replaced == 1


# Repeating, and mending what went wrong


def test_doing_it_again_changes_nothing(home: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    assert synced(home).repairs["study"].created == 7
    before = all_points(home)
    assert str(synced(home)) == "study: as it should be"
    monkeypatch.setattr(study_runs, "run_differences", lambda run, content: ["all"])  # so that it is sent once more
    again = StudyRuns(home, study.ledger, "study")
    again.reconcile()
    assert again.repairs.completed == 7
    assert all_points(home) == before


TRIAL, PARENT = 2, 1  # in the order of creation


@pytest.mark.parametrize("was_done", [True, False], ids=["answer-lost", "not-done"])
@pytest.mark.parametrize(
    ("step", "run"),
    [
        ("create_run", TRIAL),
        ("log_batch", TRIAL),
        ("log_inputs", TRIAL),
        ("set_terminated", TRIAL),
        ("create_run", PARENT),
        ("log_batch", PARENT),
    ],
)
def test_an_end_in_the_middle_is_made_good_by_the_next_start(
    home: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, step: str, run: int, was_done: bool
) -> None:
    Study(ledger, make_spec()).add(2.5)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, failing_at(run, getattr(MlflowClient, step), was_done))
        with pytest.raises(TroubleError, match="the plug was pulled"):
            synced(home)
    synced(home)
    found = runs(home, view=ViewType.ALL)
    assert {name: run.info.status for name, run in found.items()} == {"study": "KILLED", "trial-000": "FINISHED"}
    assert str(synced(home)) == "study: as it should be"


def failing_at(number: int, method: Callable[..., Any], was_done: bool) -> Callable[..., Any]:
    """`method`, which the world does not survive when it is called for the `number`th time."""
    calls = []

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == number and not was_done:
            raise RuntimeError("the plug was pulled")
        result = method(*args, **kwargs)
        if len(calls) == number:
            raise RuntimeError("the plug was pulled")
        return result

    return call


def test_second_runs_of_a_trial_are_deleted_and_reported(home: Path, study: Study) -> None:
    synced(home)
    first = runs(home)
    for name in ("trial-002", "study"):
        client(home).create_run(experiments(home)["study"].experiment_id, tags=first[name].data.tags)
    assert str(synced(home)) == "study: runs 2 surplus ones deleted"
    assert {name: run.info.run_id for name, run in runs(home).items()} == {n: r.info.run_id for n, r in first.items()}


def test_deleted_runs_come_back(home: Path, study: Study) -> None:
    synced(home)
    before = all_points(home)
    for name in ("trial-003", "study"):
        client(home).delete_run(runs(home)[name].info.run_id)
    assert str(synced(home)) == "study: runs 2 completed"
    assert all_points(home) == before


def test_a_deleted_experiment_comes_back(home: Path, study: Study) -> None:
    synced(home)
    before = all_points(home)
    client(home).delete_experiment(experiments(home)["study"].experiment_id)
    synced(home)
    assert all_points(home) == before


def test_a_store_that_was_removed_is_rebuilt(home: Path, study: Study, empty_store: Path) -> None:
    synced(home)
    before = {name: run.data.metrics for name, run in runs(home).items()}
    study.ledger.close()
    # Another home in place of deleting the file, which this process still has open.
    new_home = home.with_name("new")
    new_home.mkdir()
    shutil.copy(empty_store, new_home / "mlflow.db")
    shutil.copy(home / "ledger.db", new_home / "ledger.db")
    assert synced(new_home).repairs["study"].created == 7
    assert {name: run.data.metrics for name, run in runs(new_home).items()} == before
    with closing(Ledger(new_home / "ledger.db")) as ledger:
        known = {*ledger.run_ids("study").values(), (ledger.tracked("study") or ("",))[0]}
    assert known == {run.info.run_id for run in runs(new_home).values()}


def test_a_run_with_other_parameters_is_replaced(home: Path, study: Study) -> None:
    synced(home)
    client(home).log_param(runs(home)["trial-002"].info.run_id, "units_9", "1")
    assert str(synced(home)) == "study: runs 1 replaced"
    assert "units_9" not in runs(home)["trial-002"].data.params


BY_HAND: dict[str, dict[str, Any]] = {
    "a later step": {"key": "error_rate_pct", "value": 0.1, "step": 1},
    "a later time": {"key": "error_rate_pct", "value": 0.1, "timestamp": 2**42},
    "not a number": {"key": "error_rate_pct", "value": float("nan"), "step": 1},
    "a point of a curve": {"key": "epoch/val_error_rate_pct", "value": 0.1, "timestamp": 1, "step": 2},
    "beyond the curve's end": {"key": "epoch/train_loss", "value": 0.1, "step": 9},
    "another metric": {"key": "beauty", "value": 1.0},
}


@pytest.mark.parametrize("logged", BY_HAND.values(), ids=BY_HAND)
def test_a_run_with_a_number_that_was_logged_by_hand_is_replaced(
    home: Path, study: Study, logged: dict[str, Any]
) -> None:
    """MLflow shows the newest point, and no point can be taken back."""
    synced(home)
    before, mlflow = runs(home), client(home)
    points = [point[1:] for point in all_points(home)]
    mlflow.log_metric(before["trial-002"].info.run_id, **logged)
    mlflow.set_tag(before["trial-002"].info.run_id, "reviewed", "yes")
    assert str(synced(home)) == "study: runs 1 replaced"
    after = runs(home)
    assert sorted(point[1:] for point in all_points(home)) == sorted(points)
    assert after["trial-002"].data.metrics == before["trial-002"].data.metrics
    assert after["trial-002"].data.tags["reviewed"] == "yes"
    assert study.ledger.run_ids("study")["study-2"] == after["trial-002"].info.run_id
    assert str(synced(home)) == "study: as it should be"


def test_a_parent_run_that_is_replaced_keeps_its_trials_its_end_and_its_report(
    home: Path, study: Study, tmp_path: Path
) -> None:
    before = study.add(2.9)
    study.add(2.7, continues=before)
    StudyRuns(home, study.ledger, "study").reconcile("FINISHED")
    (figure := tmp_path / "figure.png").write_bytes(b"a figure")
    StudyRuns(home, study.ledger, "study").show_report("### Report", [figure])
    old = runs(home)
    for name, key in (("study", "best_error_rate_pct"), ("trial-006", "error_rate_pct")):
        client(home).log_metric(old[name].info.run_id, key, 0.1, step=99)
    assert str(synced(home)) == "study: runs 7 completed, 2 replaced"
    found = runs(home)
    parent = found.pop("study")
    assert parent.info.run_id != old["study"].info.run_id
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mlflow.note.content"].endswith("### Report")
    assert {artifact.path for artifact in client(home).list_artifacts(parent.info.run_id)} == {"report", "sweep.json"}
    (kept,) = client(home).list_artifacts(parent.info.run_id, "report")
    assert Path(client(home).download_artifacts(parent.info.run_id, kept.path)).read_bytes() == b"a figure"
    assert {run.data.tags["mlflow.parentRunId"] for run in found.values()} == {parent.info.run_id}
    assert found["trial-007"].data.tags["continues_run_id"] == found["trial-006"].info.run_id
    assert str(synced(home)) == "study: as it should be"


def test_a_kill_between_a_new_run_and_the_end_of_the_old_leaves_one(
    home: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced(home)
    client(home).log_metric(runs(home)["trial-002"].info.run_id, "error_rate_pct", 0.1, step=1)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "delete_run", failing_at(1, MlflowClient.delete_run, was_done=False))
        with pytest.raises(TroubleError, match="the plug was pulled"):
            synced(home)
    assert str(synced(home)) == "study: runs 1 surplus ones deleted"
    assert runs(home)["trial-002"].data.metrics["error_rate_pct"] == 2.5
    assert str(synced(home)) == "study: as it should be"


def test_what_could_not_be_mended_is_not_said_to_be(home: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    synced(home)
    run_id = runs(home)["trial-002"].info.run_id
    client(home).set_tag(run_id, "outcome", "splendid")
    log_batch = MlflowClient.log_batch

    def without_tags(client: MlflowClient, run_id: str, metrics: Any, params: Any = (), tags: Any = ()) -> None:
        log_batch(client, run_id, metrics, params)

    monkeypatch.setattr(MlflowClient, "log_batch", without_tags)
    report = synced(home)
    assert not report.is_complete
    assert report.repairs["study"].problems == [
        "trial-002: tag outcome is splendid, should be completed, and cannot be changed"
    ]


@pytest.mark.parametrize(("key", "value"), [("trial_uid", "nobody"), ("role", "sweep"), ("outcome", "splendid")])
def test_tags_that_were_changed_by_hand_are_set_again(home: Path, study: Study, key: str, value: str) -> None:
    synced(home)
    before = runs(home)["trial-002"]
    client(home).set_tag(before.info.run_id, key, value)
    assert str(synced(home)) == "study: runs 1 completed"
    after = runs(home)["trial-002"]
    assert (after.info.run_id, after.data.tags) == (before.info.run_id, before.data.tags)


def test_a_run_that_was_deleted_while_it_ran_is_left_alone(home: Path, study: Study) -> None:
    synced(home)
    run = client(home).create_run(experiments(home)["study"].experiment_id, tags={"trial_uid": "of another ledger"})
    client(home).delete_run(run.info.run_id)
    assert str(synced(home)) == "study: as it should be"


def test_texts_that_are_too_long_for_mlflow_are_cut_once(home: Path, ledger: Ledger) -> None:
    Study(ledger, make_spec(dataset="digits")).add(2.5)
    synced(home)
    StudyRuns(home, ledger, "study").show_report("ä" * 9000, [])
    assert len(runs(home)["study"].data.tags["mlflow.note.content"]) == 8000
    assert str(synced(home)) == "study: as it should be"


def test_runs_left_running_are_ended_and_foreign_runs_are_left_alone(home: Path, study: Study) -> None:
    synced(home)
    experiment_id = experiments(home)["study"].experiment_id
    client(home).create_run(experiment_id, run_name="lost", tags={"trial_uid": "of a ledger that is gone"})
    client(home).create_run(experiment_id, run_name="foreign")
    client(home).update_run(runs(home)["study"].info.run_id, "RUNNING")
    report = synced(home).repairs["study"]
    assert (report.ended, report.completed) == (1, 1)
    status = {name: run.info.status for name, run in runs(home).items()}
    assert (status["lost"], status["foreign"], status["study"]) == ("KILLED", "RUNNING", "KILLED")


def test_a_renamed_study_keeps_its_experiment_and_makes_room(home: Path, study: Study) -> None:
    synced(home)
    old_id = experiments(home)["study"].experiment_id
    study.ledger.rename_study("study", "study.old")
    Study(study.ledger, make_spec(), first=100).add(2.0)
    synced(home, "study")
    assert experiments(home)["study.old"].experiment_id == old_id
    assert set(runs(home)) == {"study", "trial-100"}
    synced(home, "study.old")
    assert {run.data.tags["study"] for run in runs(home, "study.old").values()} == {"study.old"}
    assert len(runs(home, "study.old")) == 7


def test_a_name_that_another_ledger_has_taken_is_left_to_it(
    home: Path, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced(home)
    other_home = tmp_path / "other"
    with closing(Ledger(other_home / "ledger.db")) as other:
        Study(other, make_spec()).add(2.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    synced(other_home)
    ours, theirs = sorted(experiments(home))
    assert ours == "study"
    assert theirs.startswith("study-2")
    assert set(runs(home, theirs)) == {"study", "trial-000"}
    assert str(synced(other_home)) == str(synced(home)) == "study: as it should be"


def parents_files(home: Path) -> dict[str, str]:
    """The artifacts of the parent run."""
    run = runs(home)["study"]
    files = [artifact.path for artifact in client(home).list_artifacts(run.info.run_id)]
    folder = home / "artifacts" / "study" / run.info.run_id / "artifacts"
    return {name: (folder / name).read_text() for name in files}


def test_each_run_says_on_which_code_it_rests_and_the_parent_keeps_what_is_in_no_commit(
    home: Path, study: Study
) -> None:
    versions = {"python": "3.11.2", "keras": "3.15.1", "host": "here"}
    diffs = ["--- a/one\n+++ b/one\n", "--- a/two\n+++ b/zwei, ä\n"]
    for diff in (diffs[0], diffs[1], diffs[0]):
        study.ledger.start_session("study", {"git_commit": "def", "git_dirty": True, "git_diff": diff, **versions})
        study.add(2.0)
    study.ledger.start_session("study", {"git_commit": "def", "git_dirty": False, **versions})
    study.add(2.1)
    synced(home)
    names = [diff_file(diff) for diff in diffs]
    tags = {name: run.data.tags for name, run in runs(home).items()}
    kept = [tags[f"trial-{number:03}"].get("uncommitted_changes") for number in (5, 6, 7, 8, 9)]
    assert kept == [None, names[0], names[1], names[0], None]
    assert tags["trial-009"]["versions"] == "python 3.11.2, keras 3.15.1"
    assert {run["digest"] for run in tags.values()} == {study.spec.digest()}
    files = parents_files(home)
    assert {name: files[name] for name in names} == dict(zip(names, diffs, strict=True))
    assert SweepSpec.model_validate_json(files["sweep.json"]) == study.spec
    assert str(synced(home)) == "study: as it should be"


def test_what_a_new_session_ran_with_is_kept_when_it_ends(home: Path, study: Study) -> None:
    """The first look at MLflow may come before the session is in the ledger."""
    tracked = StudyRuns(home, study.ledger, "study")
    tracked.reconcile("RUNNING")
    assert set(parents_files(home)) == {"sweep.json"}
    study.ledger.start_session("study", {"git_commit": "def", "git_dirty": True, "git_diff": "a diff"})
    study.add(2.0)
    tracked.add_new()
    tracked.finish("FINISHED")
    assert set(parents_files(home)) == {"sweep.json", diff_file("a diff")}


def test_an_artifact_store_out_of_reach_holds_up_no_run(home: Path, study: Study) -> None:
    (home / "artifacts").write_text("a file where a folder should be")
    report = synced(home)
    assert "sweep.json was not saved to MLflow" in str(report)
    assert len(runs(home)) == 7


def test_a_home_that_was_moved_is_said_to_be_so(home: Path, study: Study) -> None:
    synced(home)
    study.ledger.close()
    moved = home.rename(home.with_name("moved"))
    report = str(synced(moved))
    assert "moved has moved: MLflow still looks for artifacts of study in file:///" in report
    assert len(runs(moved)) == 7
    assert not home.exists()


def test_a_study_in_the_hands_of_another_process_is_left_to_it(home: Path, study: Study) -> None:
    said: list[str] = []
    with runs_lock(home, "study"):
        report = sync(home, ["study"], said.append)
    assert report.num_missing == 6
    assert str(report) == "6 finished trials are not in MLflow yet"
    assert said == ["study: another process is bringing its runs to MLflow"]


def test_sync_of_an_unknown_study(home: Path, study: Study) -> None:
    with pytest.raises(InputError, match=r"^study is 'no'; allowed: study$"):
        synced(home, "no")


# Beside a sweep


def test_runs_come_while_the_sweep_goes_on(home: Path, ledger: Ledger) -> None:
    study = Study(ledger, make_spec())
    tracker = Tracker(ledger.path, home, "study", pytest.fail)
    study.add_baseline(3.0)
    tracker.notify()
    study.add(2.5)
    assert tracker.close(WAIT_S) == 0
    assert {name: run.info.status for name, run in runs(home).items()} == {
        "study": "KILLED",  # its budget is not used
        "baseline": "FINISHED",
        "trial-001": "FINISHED",
    }
    assert str(synced(home)) == "study: as it should be"


def test_the_parent_runs_while_a_session_works_and_then_shows_how_it_ended(home: Path, ledger: Ledger) -> None:
    Study(ledger, make_spec()).add(2.5)
    runs_of_study = StudyRuns(home, ledger, "study")
    for status in ("RUNNING", "FINISHED", "RUNNING", "KILLED"):
        runs_of_study.reconcile(status)
        assert runs(home)["study"].info.status == status
    Tracker(ledger.path, home, "study", pytest.fail).close(WAIT_S, is_finished=True)
    assert runs(home)["study"].info.status == "FINISHED"


@pytest.mark.parametrize(
    ("wall_s", "begun", "status"), [(90.0, False, "FINISHED"), (70.0, False, "KILLED"), (90.0, True, "KILLED")]
)
def test_a_study_whose_time_has_no_room_for_another_trial_is_finished(
    home: Path, ledger: Ledger, wall_s: float, begun: bool, status: str
) -> None:
    study = Study(ledger, make_spec(budget={"trials": 10, "wall_s": 100.0}))
    study.add(2.5, train_s=16.0)  # holds its worker for 20 s
    waiting = study.ask()
    if begun:
        ledger.start_attempt(waiting.uid, "worker-0")
    ledger.touch_session(ledger.start_session("study"), wall_s)
    synced(home)
    assert runs(home)["study"].info.status == status


def test_search_seconds_that_come_after_the_result_are_shown_in_the_end(home: Path, ledger: Ledger) -> None:
    uid = Study(ledger, make_spec()).add(2.5)
    synced(home)
    ledger.add_search_time(uid, 0.5)
    assert str(synced(home)) == "study: runs 1 completed"
    assert runs(home)["trial-000"].data.metrics["search_time_s"] == 0.75


def test_a_session_sends_what_is_new_and_in_the_end_what_has_changed(
    home: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    log_batch = MlflowClient.log_batch

    def spy(client: MlflowClient, run_id: str, metrics: Sequence[Any] = (), *rest: Any) -> None:
        sent.extend(metric.key for metric in metrics)
        log_batch(client, run_id, metrics, *rest)

    monkeypatch.setattr(MlflowClient, "log_batch", spy)
    study = Study(ledger, make_spec())
    study.add_baseline(3.0)
    runs_of_study = StudyRuns(home, ledger, "study")
    runs_of_study.reconcile("RUNNING")
    uids = [study.add(2.5), study.add(2.0)]
    runs_of_study.add_new()
    runs_of_study.show_progress("RUNNING")
    assert sent.count("best_error_rate_pct") == 2
    study.add(2.2)
    ledger.add_search_time(uids[1], 0.5)
    runs_of_study.add_new()
    runs_of_study.finish("FINISHED")
    assert sent.count("best_error_rate_pct") == 3
    assert sent.count("search_time_s") == 5
    assert runs(home)["trial-002"].data.metrics["search_time_s"] == 0.75
    assert runs(home)["study"].info.status == "FINISHED"
    assert str(synced(home)) == "study: as it should be"


def test_a_run_that_the_ledger_has_forgotten_is_taken_up_again(home: Path, ledger: Ledger) -> None:
    study = Study(ledger, make_spec())
    pending = study.ask()  # its result was in a ledger that has been put back since
    runs_of_study = StudyRuns(home, ledger, "study")
    store.open_client(home).create_run(runs_of_study.experiment_id, tags={"trial_uid": pending.uid})
    runs_of_study.reconcile("RUNNING")
    study.end(pending, 2.5)
    study.add(2.0)
    runs_of_study.add_new()
    runs_of_study.finish("FINISHED")
    assert set(runs(home)) == {"study", "trial-000", "trial-001"}
    assert str(synced(home)) == "study: as it should be"


def test_without_a_server_the_sweep_ends_with_two_lines_and_nothing_lost(
    home: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:  # bound, and never listening
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna:geheim@127.0.0.1:{nobody.getsockname()[1]}")
        warnings: list[str] = []
        Study(ledger, make_spec()).add(2.5)
        tracker = Tracker(ledger.path, home, "study", warnings.append)
        assert tracker.close(WAIT_S) == 1
    assert len(warnings) == 2
    assert warnings[0].startswith("MLflow (http://***@127.0.0.1:")
    assert "harness sync" in warnings[1]
    assert "geheim" not in "".join(warnings)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    synced(home)
    assert set(runs(home)) == {"study", "trial-000"}


def test_trouble_is_told_once_and_so_is_its_end(home: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_runs, "FIRST_WAIT_S", 0.01)
    Study(ledger, make_spec()).add(2.5)
    warnings: list[str] = []
    is_well = threading.Event()

    def warn(line: str) -> None:
        warnings.append(line)
        if "again" in line:
            is_well.set()

    attempts = []

    def open_runs(*args: Any) -> StudyRuns:
        attempts.append(args)
        if len(attempts) < 4:
            raise OSError("out of order")
        return StudyRuns(*args)

    monkeypatch.setattr(mlflow_runs, "StudyRuns", open_runs)
    tracker = Tracker(ledger.path, home, "study", warn)
    assert is_well.wait(WAIT_S)
    assert tracker.close(WAIT_S) == 0
    assert len(warnings) == 2
    assert "out of order; the sweep continues" in warnings[0]
    assert set(runs(home)) == {"study", "trial-000"}


def test_a_close_lasts_while_something_moves_and_says_what_it_waits_for(
    home: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_runs, "NEWS_S", 0.0)
    study = Study(ledger, make_spec())
    study.add(2.5)
    study.add(2.4)
    news: list[str] = []
    is_told = threading.Event()

    def warn(line: str) -> None:
        news.append(line)
        is_told.set()

    create_run = MlflowClient.create_run

    def slow(client: MlflowClient, *args: Any) -> Run:
        assert is_told.wait(WAIT_S)
        return create_run(client, *args)

    monkeypatch.setattr(MlflowClient, "create_run", slow)
    assert Tracker(ledger.path, home, "study", warn).close(is_finished=True) == 0
    assert news[0] == "MLflow: 2 of 2 runs to bring; Ctrl-C leaves the rest to `harness sync`"
    assert runs(home)["study"].info.status == "FINISHED"


def test_a_close_ends_when_nothing_moves(home: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_runs, "PATIENCE_S", 0.01)
    monkeypatch.setattr(mlflow_runs, "_LOOK_S", 0.02)
    Study(ledger, make_spec()).add(2.5)
    stands_still = threading.Event()
    monkeypatch.setattr(mlflow_runs, "StudyRuns", lambda *how: stands_still.wait(WAIT_S))
    warnings: list[str] = []
    tracker = Tracker(ledger.path, home, "study", warnings.append)
    assert tracker.close() == 1
    assert warnings == ["MLflow lacks 1 trials of study; `harness sync` brings that there"]
    stands_still.set()
    tracker._thread.join()  # in the command it ends with the process


def test_patience_lasts_while_something_moves() -> None:
    times_s = [0.0]
    patience = Patience(60.0, lambda: times_s[-1])
    looks = [(50.0, "a", True), (100.0, "b", True), (159.0, "b", True), (160.0, "b", False), (161.0, "c", True)]
    for time_s, trace, lasts in looks:
        times_s.append(time_s)
        assert patience.lasts(trace) is lasts


def test_a_store_that_is_being_made_moves_on(tmp_path: Path) -> None:
    """And first runs are brought there however long that takes."""
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        Study(ledger, make_spec(dataset="digits")).add(2.5)
        uri = store.tracking_uri(tmp_path)
        assert store.making_cpu_s(uri) is None
        seen: set[float | None] = set()
        tracker = Tracker(ledger.path, tmp_path, "study", pytest.fail)
        while not store.sqlite_file(uri).exists() and len(seen) < 4:
            seen.add(store.making_cpu_s(uri))
        assert len(seen) == 4
        assert tracker.close() == 0
        assert store.making_cpu_s(uri) is None
    assert set(runs(tmp_path)) == {"study", "trial-000"}
    assert list(tmp_path.glob("mlflow.db.new-*")) == []


def test_trouble_at_the_end_is_tried_again_as_long_as_runs_come(
    home: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(ledger, make_spec())
    study.add(2.5)
    study.add(2.4)
    log_inputs = MlflowClient.log_inputs
    is_closing = threading.Event()
    calls: list[object] = []

    def unsteady(client: MlflowClient, *args: Any) -> None:
        assert is_closing.wait(WAIT_S)
        calls.append(args)
        if len(calls) in (3, 5):  # of the trials: the parent comes first
            raise OSError("out of order")
        log_inputs(client, *args)

    monkeypatch.setattr(MlflowClient, "log_inputs", unsteady)
    tracker = Tracker(ledger.path, home, "study", lambda line: None)
    tracker._closing.set()
    is_closing.set()
    assert tracker.close(WAIT_S) == 0
    assert set(runs(home)) == {"study", "trial-000", "trial-001"}


def test_an_end_that_could_not_be_shown_is_told(home: Path, ledger: Ledger) -> None:
    Study(ledger, make_spec()).add(2.5)
    synced(home)
    warnings: list[str] = []
    with runs_lock(home, "study"):
        assert Tracker(ledger.path, home, "study", warnings.append).close(WAIT_S) == 0
    assert warnings[-1] == "MLflow lacks the summary of study; `harness sync` brings that there"


def test_only_one_process_brings_a_studys_runs(home: Path) -> None:
    with runs_lock(home, "study"):
        with runs_lock(home, "other"):
            pass
        with pytest.raises(InUseError), runs_lock(home, "study"):
            pass
    with runs_lock(home, "study"):
        pass


# The store


@pytest.mark.parametrize("uri", ["./mlruns", "file:///runs", "anna:geheim@host:5000", "ftp://host/runs"])
def test_an_address_that_runs_cannot_go_to(home: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError, match=r"^MLFLOW_TRACKING_URI is .*; allowed: a server") as caught:
        Tracker(home / "ledger.db", home, "study", pytest.fail)
    assert "geheim" not in str(caught.value)


def test_the_store_is_quick_to_read_beside_a_writer(home: Path) -> None:
    with closing(sqlite3.connect(home / "mlflow.db")) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_store_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(TroubleError, match=r"mlflow\.db cannot be made"):
        store.make_store(f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}")


def test_a_link_to_a_store_that_is_not_there_yet_stays(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").symlink_to("elsewhere/runs.db")
    store.make_store(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert (tmp_path / "mlflow.db").is_symlink()
    assert (tmp_path / "elsewhere" / "runs.db").is_file()
    assert not list(tmp_path.glob("*.new-*"))


def test_credentials_are_kept_out_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://anna:ge%2Fheim@host/x")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    error = RuntimeError("\n  no answer from https://anna:ge%2Fheim@host/x: 'ge/heim' with t0ken\nmore")
    assert reason(error) == "no answer from https://***@host/x: '***' with ***"
    assert redact("postgresql://u:p/@w@host/db") == "postgresql://***@host/db"
    assert redact("postgresql+psycopg2://u:p@host/db") == "postgresql+psycopg2://***@host/db"


def test_of_a_databases_error_the_line_that_says_what_is_wrong_is_shown() -> None:
    error = RuntimeError("(raised as a result of Query-invoked autoflush; ...)\n(DataError) value too long\n[SQL: ...]")
    assert reason(error) == "(DataError) value too long"


def test_mlflow_is_set_to_be_quiet_quick_to_give_up_and_free_of_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "9")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
    store.set_environment()
    assert store.os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "9"
    assert store.os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert store.os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert store.os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
