"""Trials in MLflow while they train: a run from the first attempt on, a growing curve, and one run after accidents."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from filled_ledger import CPU, FilledLedger, make_spec
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from harness.audit import audit
from harness.errors import TroubleError
from harness.ledger.ledger import Ledger
from harness.ledger.locks import study_lock
from harness.study.records import Attempt, EpochReport, Outcome, Seconds, Trial, TrialResult
from harness.sweep.runner import bring_to_mlflow
from harness.tracking import mlflow_runs, store
from harness.tracking.mlflow_runs import Pace, Tracker, sync
from harness.tracking.shown_curve import shown_curve
from harness.tracking.study_runs import StudyRuns

WAIT_S = 60.0
ERRORS = (9.0, 7.0, 5.0)  # by epoch


@pytest.fixture
def home(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow_runs, "NEWS_S", math.inf)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with closing(Ledger(home / "ledger.db")) as ledger:
        yield ledger


class Study(FilledLedger):
    """With trials that are seen at each of their steps."""

    def start(self, trial: Trial) -> int:
        return self.ledger.start_attempt(trial.uid, "worker-0")

    def train(self, trial: Trial, attempt: int, *epochs: int, error_pct: Sequence[float] = ERRORS) -> None:
        for epoch in epochs:
            report = EpochReport(epoch, 0.1, 0.2, error_pct[epoch - 1], 1000, Seconds(train=1.0 + attempt))
            self.ledger.add_epoch(trial.uid, attempt, report, 3.0 * epoch)

    def stop(self, trial: Trial, attempt: int, outcome: Outcome = Outcome.CANCELLED) -> None:
        """The trial waits for another attempt."""
        self.ledger.finish_attempt(trial.uid, attempt, TrialResult(outcome, "stopped"), 9.0, is_final=False)

    def complete(self, trial: Trial, attempt: int, outcome: Outcome = Outcome.COMPLETED) -> None:
        epochs = self.ledger.curves(trial.uid).get(attempt, [])
        trained = sum((epoch.seconds for epoch in epochs), Seconds())
        result = TrialResult(outcome, seconds=trained, num_params=1000, device=CPU)
        self.ledger.finish_attempt(trial.uid, attempt, result, 10.0, is_final=True)


@pytest.fixture
def study(ledger: Ledger) -> Study:
    return Study(ledger, make_spec(dataset="digits"), data_digest="digits-0123456789abcdef")


@pytest.fixture
def live(home: Path, study: Study) -> StudyRuns:
    """As the thread of a sweep has it."""
    return opened(home, study)


def opened(home: Path, study: Study) -> StudyRuns:
    runs = StudyRuns(home, study.ledger, "study")
    runs.reconcile("RUNNING")
    return runs


def runs(home: Path, view: int = ViewType.ACTIVE_ONLY) -> dict[str, Run]:
    """The runs by name."""
    client = store.open_client(home)
    experiment = client.get_experiment_by_name("study")
    found = list(client.search_runs([experiment.experiment_id], run_view_type=view))
    if view == ViewType.ACTIVE_ONLY:
        assert len({run.info.run_name for run in found}) == len(found), "two runs of one trial"
    return {run.info.run_name: run for run in found}


def curve(home: Path, name: str = "trial-000") -> list[tuple[int, float]]:
    history = store.open_client(home).get_metric_history(runs(home)[name].info.run_id, "epoch/val_error_rate_pct")
    return sorted((point.step, point.value) for point in history)


def shown(*epochs: int) -> list[tuple[int, float]]:
    return [(epoch, ERRORS[epoch - 1]) for epoch in epochs]


def differences(home: Path) -> list[str]:
    """What the audit finds, without the attempt that a killed process left in the ledger."""
    return [line for line in audit(home, "study") if "has no outcome, though no process works" not in line]


def assert_sound(home: Path) -> None:
    """It was so before a sync, and nobody works on the study."""
    assert differences(home) == []
    assert str(sync(home, ["study"], pytest.fail)) == "study: as it should be"


# A trial that trains


def test_a_trial_has_a_run_when_it_is_handed_out_and_a_curve_that_grows(
    home: Path, study: Study, live: StudyRuns
) -> None:
    trial = study.ask()
    live.show_open()
    assert set(runs(home)) == {"study"}  # proposed, and on no worker
    attempt = study.start(trial)
    live.show_open()
    run = runs(home)["trial-000"]
    assert (run.info.status, run.info.end_time, run.data.metrics) == ("RUNNING", None, {})
    assert (run.data.tags["outcome"], run.data.tags["trial_uid"]) == ("running", trial.uid)
    assert run.data.params["units_1"] == "64"
    study.train(trial, attempt, 1)
    live.show_open()
    assert curve(home) == shown(1)
    study.train(trial, attempt, 2, 3)
    live.show_open()
    assert curve(home) == shown(1, 2, 3)
    study.complete(trial, attempt)
    live.add_new()
    ended = runs(home)["trial-000"]
    assert (ended.info.run_id, ended.info.status, ended.data.tags["outcome"]) == (
        run.info.run_id,
        "FINISHED",
        "completed",
    )
    assert ended.data.metrics["device_time_s"] == 6.0
    live.finish("KILLED")
    assert_sound(home)


def test_only_what_is_new_is_sent(home: Path, study: Study, live: StudyRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, int]] = []
    log_batch = MlflowClient.log_batch

    def spy(client: MlflowClient, run_id: str, metrics: Sequence[Any] = (), *rest: Any) -> None:
        sent.extend((metric.key, metric.step) for metric in metrics)
        log_batch(client, run_id, metrics, *rest)

    monkeypatch.setattr(MlflowClient, "log_batch", spy)
    trial = study.ask()
    attempt = study.start(trial)
    for epoch in (1, 2, 3):
        study.train(trial, attempt, epoch)
        live.show_open()
        live.show_open()  # nothing has changed
    study.complete(trial, attempt)
    live.add_new()
    assert [step for key, step in sent if key == "epoch/val_error_rate_pct"] == [1, 2, 3]


def test_a_trial_that_ends_between_two_looks_has_one_run(home: Path, study: Study, live: StudyRuns) -> None:
    known, unknown = study.ask(), study.ask()
    first = study.start(known)
    live.show_open()
    second = study.start(unknown)
    for trial, attempt in ((known, first), (unknown, second)):
        study.train(trial, attempt, 1, 2, 3)
        study.complete(trial, attempt)
    live.show_open()
    live.add_new()
    live.finish("KILLED")
    assert set(runs(home, ViewType.ALL)) == {"study", "trial-000", "trial-001"}
    assert_sound(home)


# Further attempts


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.CRASHED])
def test_a_further_attempt_with_the_same_numbers_goes_on_in_the_same_run(
    home: Path, study: Study, live: StudyRuns, outcome: Outcome
) -> None:
    trial = study.ask()
    attempt = study.start(trial)
    study.train(trial, attempt, 1, 2)
    study.stop(trial, attempt, outcome)
    live.show_open()
    first = runs(home)["trial-000"]
    assert (first.info.status, first.data.tags["outcome"]) == ("KILLED", outcome)
    attempt = study.start(trial)
    study.train(trial, attempt, 1)
    live.show_open()
    again = runs(home)["trial-000"]
    assert (again.info.run_id, again.info.status, again.data.tags["attempts"]) == (first.info.run_id, "RUNNING", "2")
    assert curve(home) == shown(1, 2)
    study.train(trial, attempt, 2, 3)
    study.complete(trial, attempt)
    live.add_new()
    assert (curve(home), runs(home)["trial-000"].info.run_id) == (shown(1, 2, 3), first.info.run_id)
    live.finish("KILLED")
    assert_sound(home)


def test_a_further_attempt_with_other_numbers_replaces_the_run_once(home: Path, study: Study, live: StudyRuns) -> None:
    """As on a GPU, which adds in an order that varies."""
    trial, others = study.ask(), (9.5, 6.5, 4.5)
    attempt = study.start(trial)
    study.train(trial, attempt, 1, 2)
    study.stop(trial, attempt, Outcome.CRASHED)
    live.show_open()
    first = runs(home)["trial-000"].info.run_id
    store.open_client(home).set_tag(first, "reviewed", "yes")
    attempt = study.start(trial)
    ids = []
    for epoch in (1, 2, 3):
        study.train(trial, attempt, epoch, error_pct=others)
        live.show_open()
        ids.append(runs(home)["trial-000"].info.run_id)
    assert first not in ids
    assert len(set(ids)) == 1
    assert curve(home) == list(zip((1, 2, 3), others, strict=True))
    assert runs(home)["trial-000"].data.tags["reviewed"] == "yes"
    study.complete(trial, attempt)
    live.add_new()
    live.finish("KILLED")
    assert_sound(home)


def test_a_final_attempt_that_was_pruned_sooner_shows_no_later_epoch(home: Path, study: Study, live: StudyRuns) -> None:
    trial = study.ask()
    attempt = study.start(trial)
    study.train(trial, attempt, 1, 2)
    study.stop(trial, attempt)
    live.show_open()
    attempt = study.start(trial)
    study.train(trial, attempt, 1)
    study.complete(trial, attempt, Outcome.PRUNED)
    live.add_new()
    assert curve(home) == shown(1)
    live.finish("KILLED")
    assert_sound(home)


def test_the_last_of_several_crashes_is_logged(home: Path, study: Study, live: StudyRuns) -> None:
    trial = study.ask()
    study.stop(trial, study.start(trial), Outcome.CRASHED)
    live.show_open()
    assert runs(home)["trial-000"].info.status == "KILLED"  # it waits for another attempt
    study.complete(trial, study.start(trial), Outcome.CRASHED)
    live.add_new()
    assert runs(home)["trial-000"].info.status == "FAILED"
    live.finish("KILLED")
    assert_sound(home)


def attempts(*starts_s: float) -> list[Attempt]:
    return [Attempt(i + 1, None, "w", start_s, 10.0) for i, start_s in enumerate(starts_s)]


def report(epoch: int, error_pct: float = 1.0, train_s: float = 2.0) -> EpochReport:
    return EpochReport(epoch, 0.1, 0.2, error_pct, 100, Seconds(train=train_s))


CURVES: dict[str, tuple[dict[int, list[EpochReport]], bool, int, list[tuple[int, float]]]] = {
    "none": ({}, False, 1, []),
    "one": ({1: [report(1), report(2)]}, False, 1, [(1, 102.0), (2, 104.0)]),
    "same again": ({1: [report(1)], 2: [report(1, 1.0, 5.0), report(2)]}, True, 1, [(1, 102.0), (2, 117.0)]),
    "behind": ({1: [report(1), report(2)], 2: [report(1)]}, False, 1, [(1, 102.0), (2, 104.0)]),
    "ends behind": ({1: [report(1), report(2)], 2: [report(1)]}, True, 2, [(1, 1002.0)]),
    "other numbers": ({1: [report(1)], 2: [report(1, 3.0)]}, False, 2, [(1, 1002.0)]),
    "earlier epochs, later": ({1: [report(2)], 2: [report(1), report(2)]}, True, 1, [(2, 102.0), (1, 112.0)]),
}


@pytest.mark.parametrize(("curves", "is_final", "since", "epochs"), CURVES.values(), ids=CURVES)
def test_the_curve_over_two_attempts(
    curves: dict[int, list[EpochReport]], is_final: bool, since: int, epochs: list[tuple[int, float]]
) -> None:
    """The second one starts after a pause, which the curve does not show; times in seconds."""
    found = shown_curve(attempts(100.0, 1000.0), curves, is_final=is_final)
    assert found.since_attempt == since
    assert [(timed.report.epoch, timed.at_ms / 1000) for timed in found.epochs] == epochs
    assert (found.start_ms, found.end_ms) == ((100_000, 120_000) if since == 1 else (1_000_000, 1_010_000))


# Accidents


def test_a_run_that_a_kill_left_running_is_ended_by_a_sync_and_continued_by_a_resume(
    home: Path, study: Study, live: StudyRuns
) -> None:
    trial = study.ask()
    attempt = study.start(trial)
    study.train(trial, attempt, 1, 2)
    live.show_open()
    study.train(trial, attempt, 3)  # and the process is killed
    first = runs(home)["trial-000"].info.run_id
    assert [line for line in differences(home) if "trial 0" in line and "system/" not in line] == [
        "MLflow: trial 0: status is RUNNING, should be KILLED; `harness sync` mends it",
        "MLflow: trial 0: tag outcome is running, should be cancelled; `harness sync` mends it",
        "MLflow: trial 0: tag progress is epoch 2 of 3, 7.00 %, should be epoch 3 of 3, 5.00 %;"
        " `harness sync` mends it",
        "MLflow: trial 0: metric epoch/val_error_rate_pct is 7.0, should be 5.0; `harness sync` mends it",
        *(
            f"MLflow: trial 0: curve epoch/{key}, step 3 is missing, should be {value}; `harness sync` mends it"
            for key, value in (("train_loss", 0.1), ("val_loss", 0.2), ("val_error_rate_pct", 5.0))
        ),
    ]
    with study_lock(home, "study"):  # a sweep whose thread has trouble with MLflow
        sync(home, ["study"], pytest.fail)
    assert {run.info.status for run in runs(home).values()} == {"RUNNING"}
    sync(home, ["study"], pytest.fail)
    assert {run.info.status for run in runs(home).values()} == {"KILLED"}
    assert curve(home) == shown(1, 2, 3)
    assert_sound(home)
    study.ledger.close_lost_attempts("study")
    assert_sound(home)
    attempt = study.start(trial)
    resumed = opened(home, study)
    study.train(trial, attempt, 1, 2, 3)
    study.complete(trial, attempt)
    resumed.add_new()
    resumed.finish("FINISHED")
    assert (runs(home)["trial-000"].info.run_id, runs(home)["trial-000"].info.status) == (first, "FINISHED")


@pytest.mark.parametrize("was_done", [True, False], ids=["answer-lost", "not-done"])
@pytest.mark.parametrize(
    ("step", "look"),
    [
        ("create_run", 1),
        ("log_batch", 1),
        ("log_inputs", 1),
        ("log_batch", 2),
        ("get_run", 2),
        ("log_batch", 3),
        ("update_run", 4),
        ("delete_run", 5),
        ("set_terminated", 6),
    ],
)
def test_an_end_in_the_middle_is_made_good_by_the_next_start(
    home: Path, study: Study, monkeypatch: pytest.MonkeyPatch, step: str, look: int, was_done: bool
) -> None:
    """Each look at the trial is one more event of its life; the one with the accident is done again."""
    trial = study.ask()
    numbers: list[int] = []

    def fail(outcome: Outcome | None = None) -> None:
        if outcome is None:
            study.complete(trial, numbers[-1])
        else:
            study.stop(trial, numbers[-1], outcome)

    events: list[Callable[[], object]] = [
        lambda: numbers.append(study.start(trial)),
        lambda: study.train(trial, numbers[-1], 1, 2),
        lambda: fail(Outcome.CANCELLED),
        lambda: numbers.append(study.start(trial)),
        lambda: study.train(trial, numbers[-1], 1, 2, 3, error_pct=(8.0, 6.0, 4.0)),
        fail,
    ]
    live = opened(home, study)
    for number, event in enumerate(events, 1):
        event()
        if number == look:
            with monkeypatch.context() as patch:
                patch.setattr(MlflowClient, step, failing(getattr(MlflowClient, step), was_done))
                with pytest.raises(RuntimeError, match="the plug was pulled"):
                    show(live)
            live = opened(home, study)
        show(live)
        status = {1: "RUNNING", 2: "RUNNING", 3: "KILLED", 4: "RUNNING", 5: "RUNNING", 6: "FINISHED"}[number]
        assert {run.info.status for name, run in runs(home).items() if name != "study"} == {status}
    live.finish("KILLED")
    assert curve(home) == [(1, 8.0), (2, 6.0), (3, 4.0)]
    assert_sound(home)


def show(live: StudyRuns) -> None:
    live.show_open()
    live.add_new()


def failing(method: Callable[..., Any], was_done: bool) -> Callable[..., Any]:
    """`method`, which the world does not survive."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if was_done:
            method(*args, **kwargs)
        raise RuntimeError("the plug was pulled")

    return call


def test_a_command_that_holds_an_idle_study_ends_what_runs(home: Path, study: Study, live: StudyRuns) -> None:
    """As a sweep does whose budget was used before it was killed."""
    study.train(trial := study.ask(), study.start(trial), 1)
    live.show_open()
    with study_lock(home, "study"):
        bring_to_mlflow(home, "study", pytest.fail)
    assert {run.info.status for run in runs(home).values()} == {"KILLED"}


def test_a_store_that_was_removed_gets_the_running_trials_too(
    home: Path, study: Study, live: StudyRuns, empty_store: Path
) -> None:
    trial = study.ask()
    study.train(trial, study.start(trial), 1, 2)
    live.show_open()
    other = home / "other"
    other.mkdir()
    study.ledger.copy_to(other / "ledger.db")
    shutil.copy(empty_store, other / "mlflow.db")
    assert sync(other, ["study"], pytest.fail).repairs["study"].created == 2
    assert (runs(other)["trial-000"].info.status, curve(other)) == ("KILLED", shown(1, 2))
    assert_sound(other)


# Beside a sweep


def test_the_thread_of_a_sweep_shows_what_runs_and_leaves_nothing_running(
    home: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_runs, "OPEN_S", 0.01)
    trial = study.ask()
    study.train(trial, study.start(trial), 1)
    has_looked, show_open = threading.Event(), StudyRuns.show_open

    def look(runs: StudyRuns) -> None:
        show_open(runs)
        has_looked.set()

    monkeypatch.setattr(StudyRuns, "show_open", look)
    tracker = Tracker(study.ledger.path, home, "study", pytest.fail)
    assert has_looked.wait(WAIT_S)
    assert runs(home)["trial-000"].info.status == "RUNNING"
    assert tracker.close(WAIT_S) == 0  # its attempt has no end: the ledger could not be written
    assert {run.info.status for run in runs(home).values()} == {"KILLED"}
    assert_sound(home)


def test_trouble_with_a_running_trial_is_trouble_of_sync(
    home: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.start(study.ask())
    monkeypatch.setattr(MlflowClient, "create_run", failing(MlflowClient.create_run, was_done=False))
    with pytest.raises(TroubleError, match="the plug was pulled"):
        sync(home, ["study"], pytest.fail)


def test_a_pace_takes_a_share_of_the_time_at_most() -> None:
    now_s = [0.0]
    pace = Pace(2.0, 10, lambda: now_s[0])
    done: list[float] = []

    def act(takes_s: float) -> None:
        done.append(now_s[0])
        now_s[0] += takes_s

    for at_s, takes_s, wait_s in [
        (1.9, 0.1, 0.1),
        (2.0, 0.1, 2.0),
        (4.0, 0.1, 0.1),
        (4.1, 1.0, 10.0),
        (14.0, 0.0, 1.1),
    ]:
        now_s[0] = at_s
        pace.run_if_due(lambda takes_s=takes_s: act(takes_s))
        assert pace.wait_s == pytest.approx(wait_s)
    assert done == [2.0, 4.1]


def test_a_study_that_is_stopped_before_its_first_result_ends_with_its_last_attempt(home: Path, study: Study) -> None:
    trial = study.ask()
    attempt = study.start(trial)
    study.stop(trial, attempt)
    sync(home, ["study"], pytest.fail)
    stopped, run = runs(home)["study"], runs(home)["trial-000"]
    assert (stopped.info.status, stopped.data.tags["outcome"]) == ("KILLED", "stopped")
    assert stopped.info.end_time == run.info.end_time > stopped.info.start_time
