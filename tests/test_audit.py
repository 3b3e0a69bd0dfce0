"""The audit finds nothing wrong with a sound study, and names each thing that is done to it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cached_property
from pathlib import Path

import pytest
from audited_study import edit
from click.testing import CliRunner
from filled_ledger import FilledLedger, make_spec
from mlflow import MlflowClient
from mlflow.cli import cli
from mlflow.entities import Run
from ports import free_port

from harness.audit import audit, runs
from harness.audit.difference import Advice
from harness.audit.files import write_missing_run_ids
from harness.audit.recount import recount
from harness.audit.rows import open_read_only, read_study
from harness.cli import main
from harness.errors import InputError, TroubleError
from harness.ledger.ledger import Ledger
from harness.ledger.locks import runs_lock, study_lock
from harness.ledger.reader import Usage
from harness.study.records import Record
from harness.tracking import store
from harness.tracking.mlflow_runs import sync


@pytest.fixture
def home(tmp_path: Path, sound_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = tmp_path / "ein Heim"
    shutil.copytree(sound_home, home, ignore=shutil.ignore_patterns("*-shm"))
    monkeypatch.setenv("HARNESS_HOME", str(home))
    return home


@pytest.mark.parametrize("study", ["study", "seeds"])
def test_nothing_is_wrong_with_a_sound_study(home: Path, study: str) -> None:
    assert audit(home, study) == []


def test_a_study_that_has_just_begun_is_sound(home: Path) -> None:
    with closing(Ledger(home / "ledger.db")) as ledger:
        FilledLedger(ledger, make_spec("young")).ask()
    sync(home, ["young"], pytest.fail)
    assert audit(home, "young") == []


def test_an_audit_changes_nothing(home: Path) -> None:
    def contents() -> dict[str, bytes]:
        files = (
            path for path in home.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal", ".lock"))
        )
        return {str(path.relative_to(home)): path.read_bytes() for path in files if path.parent.name != "locks"}

    before = contents()
    audit(home, "study")
    assert contents() == before


# The ledger against itself

CONTRADICTIONS = {
    "a gap in the numbers": (
        "UPDATE trials SET number = 19 WHERE uid = 'study-8'",
        "ledger: trial 8, 9, 10, 11, 12, 13, 14, 15, 16, 17 and more: not there, though later ones are",
    ),
    "a gap beyond all memory": (
        "UPDATE trials SET number = 4611686018427387904 WHERE uid = 'study-8'",
        "ledger: trial 8, 9, 10, 11, 12, 13, 14, 15, 16, 17 and more: not there, though later ones are",
    ),
    "a count of events beyond all memory": (
        "UPDATE studies SET num_events = 4611686018427387904 WHERE study = 'study'",
        "ledger: event 18, 19, 20, 21, 22, 23, 24, 25, 26, 27 and more: nothing happened there",
    ),
    "an event twice": (
        "UPDATE trials SET asked_at = 1 WHERE uid = 'study-2'",
        "ledger: trial 2 asked at event 1, as something else was",
    ),
    "an event that was never given away": (
        "UPDATE studies SET num_events = 16 WHERE study = 'study'",
        "ledger: trial 8 asked at event 17; the study has 1 to 16",
    ),
    "an event without anything": (
        "UPDATE studies SET num_events = 18 WHERE study = 'study'",
        "ledger: event 18: nothing happened there",
    ),
    "told before it was asked for": (
        "UPDATE attempts SET told_at = 1 WHERE uid = 'study-2'",
        "ledger: trial 2: told at event 1, before it was asked for at event 5",
    ),
    "an end that is not final": (
        "UPDATE attempts SET told_at = NULL WHERE uid = 'study-2'",
        "ledger: trial 2: attempt 1: ended as completed and is not the trial's final result",
    ),
    "an end that cannot be final": (
        "UPDATE attempts SET outcome = 'cancelled', result = json_set(result, '$.outcome', 'cancelled')"
        " WHERE uid = 'study-2'",
        "ledger: trial 2: attempt 1: is the trial's final result though it was cancelled",
    ),
    "an attempt after the end": (
        "UPDATE attempts SET attempt = 3 WHERE uid = 'study-7' AND attempt = 1",
        "ledger: trial 7: attempt 3 began though attempt 2 had ended the trial",
    ),
    "a lost attempt": (
        "DELETE FROM attempts WHERE uid = 'study-7' AND attempt = 1",
        "ledger: trial 7: attempts are 2; must count from 1",
    ),
    "more time trained than held": (
        "UPDATE attempts SET reserved_time_s = 1.0 WHERE uid = 'study-2'",
        "ledger: trial 2: attempt 1: took 14.000 s of the 1.000 s that its device was held",
    ),
    "a training time that its epochs do not make": (
        "UPDATE attempts SET result = json_set(result, '$.seconds.train', 9.0) WHERE uid = 'study-2'",
        "ledger: trial 2: attempt 1: trained for 9.0 s, its epochs for 10 s",
    ),
    "an error that its images do not make": (
        "UPDATE attempts SET wrong_images = '[1, 5]' WHERE uid = 'study-7' AND attempt = 2",
        "ledger: trial 7: attempt 2: error is 1.0101010101010102 %, its wrong images make 0.6734006734006734 %",
    ),
    "an image that is not there": (
        "UPDATE attempts SET wrong_images = '[1, 5, 297]' WHERE uid = 'study-7' AND attempt = 2",
        "ledger: trial 7: attempt 2: got image 297 of 297 validation images wrong",
    ),
    "a lost epoch within": (
        "DELETE FROM epochs WHERE uid = 'study-2' AND epoch = 2",
        "ledger: trial 2: attempt 1: epochs are 1, 3; must count from 1",
    ),
    "a lost epoch at the end": (
        "DELETE FROM epochs WHERE uid = 'study-2' AND epoch = 3",
        "ledger: trial 2: completed with epoch 2 of 3",
    ),
    "a lost first epoch of a continued trial": (
        "DELETE FROM epochs WHERE uid = 'study-7' AND attempt = 2 AND epoch = 2",
        "ledger: trial 7: attempt 2: epochs are 3; must count from 2",
    ),
    "an epoch too many": (
        "UPDATE trials SET epochs = 2 WHERE uid = 'study-2'",
        "ledger: trial 2: has epoch 3 of 2",
    ),
    "pruned before any epoch": (
        "DELETE FROM epochs WHERE uid = 'study-3'",
        "ledger: trial 3: pruned after epoch 0 of 3",
    ),
    "infeasible and trained": (
        "UPDATE attempts SET outcome = 'infeasible', result = json_set(result, '$.outcome', 'infeasible')"
        " WHERE uid = 'study-2'",
        "ledger: trial 2: infeasible, and has epochs",
    ),
    "continues a trial of another study": (
        "UPDATE trials SET continues = 'seeds-0' WHERE uid = 'study-7'",
        "ledger: trial 7: continues seeds-0, which is no trial of this study",
    ),
    "continues another configuration": (
        "UPDATE trials SET params = json_set(params, '$.units_1', 101) WHERE uid = 'study-7'",
        "ledger: trial 7: continues trial 6, which has other params",
    ),
    "continues what had got as far": (
        "UPDATE trials SET epochs = 3 WHERE uid = 'study-6'",
        "ledger: trial 7: continues trial 6 up to epoch 3, which that one had reached",
    ),
    "continues what had not ended": (
        "UPDATE trials SET continues = 'study-8' WHERE uid = 'study-7'",
        "ledger: trial 7: continues trial 8, which had not ended when this one was asked for",
    ),
    "too many epochs asked for": (
        "UPDATE trials SET epochs = 4 WHERE uid = 'study-8'",
        "ledger: trial 8: is to train for 4 epochs; the study's trials train for 1 to 3",
    ),
    "a baseline that is none": (
        "UPDATE trials SET role = 'baseline' WHERE uid = 'study-2'",
        "ledger: trial 2: role is baseline, and its params are not the documented ones",
    ),
    "a hyperparameter that is not set": (
        "UPDATE trials SET params = json_remove(params, '$.units_1') WHERE uid = 'study-2'",
        "ledger: trial 2: params set units_2; must set units_1, units_2",
    ),
    "a session of another study": (
        "UPDATE attempts SET session = 99 WHERE uid = 'study-2'",
        "ledger: trial 2: attempt 1: ran in session 99, which is none of this study's",
    ),
    "an image twice": (
        "UPDATE attempts SET wrong_images = '[1, 5, 5]' WHERE uid = 'study-7' AND attempt = 2",
        "ledger: trial 7: attempt 2: got one of the validation images wrong twice",
    ),
    "a look at the test images": (
        "UPDATE attempts SET test_wrong_images = '[1]' WHERE uid = 'study-2'",
        "ledger: trial 2: attempt 1: read the test images, which are sealed in a sweep",
    ),
}


@pytest.mark.parametrize("done", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions_within_the_ledger_are_named(home: Path, done: tuple[str, str]) -> None:
    statement, expected = done
    edit(home / "ledger.db", statement)
    assert f"{expected}; {Advice.COPY_OR_FRESH}" in audit(home, "study")


NEVER_ENDED = "UPDATE attempts SET outcome = NULL, result = NULL WHERE uid = 'study-7' AND attempt = 1"


def test_an_attempt_that_was_never_ended_is_named(home: Path) -> None:
    edit(home / "ledger.db", NEVER_ENDED)
    what = "ledger: trial 7: attempt 1: has no outcome, though no process works on the study"
    assert audit(home, "study") == [f"{what}; {Advice.START}"]


def test_a_row_of_nothing_is_named(home: Path) -> None:
    edit(home / "ledger.db", "UPDATE epochs SET uid = 'nobody' WHERE uid = 'study-7'")
    what = "ledger: a row of table epochs belongs to a row of attempts that is not there"
    assert f"{what}; {Advice.COPY}" in audit(home, "study")


def test_a_second_final_result_is_named(home: Path) -> None:
    edit(home / "ledger.db", "DROP INDEX one_final_result")
    edit(home / "ledger.db", "UPDATE attempts SET told_at = 15 WHERE uid = 'study-7'")
    with closing(open_read_only(home / "ledger.db")) as db:
        found = [difference.what for difference in recount(read_study(db, "study"))]
    assert "ledger: trial 7: has 2 final results; must have one at most" in found


def test_a_number_that_is_there_twice_is_named(home: Path) -> None:
    with closing(open_read_only(home / "ledger.db")) as db:
        rows = read_study(db, "study")
    rows.trials.append(rows.trials[2])
    assert "ledger: trial 2: is there 2 times" in [difference.what for difference in recount(rows)]


@pytest.mark.parametrize(
    ("what", "stated"),
    [
        ("trials used: stated as 99, recounted as 5", Usage(99, 90.0, 90.0)),
        ("wall time used: stated as 99.0, recounted as 90.0", Usage(5, 99.0, 90.0)),
        ("device time used: stated as 1.0, recounted as ", Usage(5, 90.0, 1.0)),
    ],
)
def test_sums_are_made_anew(home: Path, what: str, stated: Usage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "usage", lambda ledger, study: stated)
    assert [line for line in audit(home, "study") if line.startswith(f"ledger: {what}")]


def test_device_times_are_added_up_anew(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Record, "device_time_s", property(lambda record: record.result.train_time_s))
    line = "ledger: device time of trial 7: stated as 10.0, recounted as 20.0; put a copy of ledger.db back"
    assert any(difference.startswith(line) for difference in audit(home, "study"))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("num_pending", "ledger: trials pending: stated as 77, recounted as 1"),
        ("num_test_reads", "ledger: test reads: stated as 77, recounted as 0"),
    ],
)
def test_counts_are_made_anew(home: Path, method: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, method, lambda ledger, study: 77)
    assert f"{expected}; {Advice.COPY_OR_FRESH}" in audit(home, "study")


# Nonsense

NONSENSE = {
    ("trials", "params"): [
        "''",
        "'[]'",
        """'{"units_1": [64]}'""",
        """'{"units_1": "many"}'""",
        """'{"units_1": 7}'""",
    ],
    ("trials", "role"): ["'clown'"],
    ("trials", "search_time_s"): ["-1.0", "9e999"],
    ("attempts", "outcome"): ["'splendid'"],
    ("attempts", "reserved_time_s"): ["-1.0", "9e999"],
    ("attempts", "started_at"): ["9e999"],
    ("attempts", "result"): [
        "NULL",
        "'half a res'",
        "'null'",
        "json_remove(result, '$.outcome')",
        "json_set(result, '$.outcome', 'pruned')",
        "json_set(result, '$.color', 'red')",
        "json_set(result, '$.num_params', 'many')",
        "json_set(result, '$.seconds.train', -1.0)",
        "json_set(result, '$.device.threads', 'all')",
        "json_set(result, '$.final_error_rate_pct', 250.0)",
        "json_set(result, '$.final_error_rate_pct', 2.0)",  # of how many images?
    ],
    ("attempts", "wrong_images"): ["'7'", """'["7"]'""", "'[-1]'"],
    ("epochs", "report"): [
        "'{}'",
        "json_set(report, '$.epoch', 3)",
        "json_set(report, '$.val_images', 0)",
        "json_set(report, '$.val_error_rate_pct', 101)",
        "json_set(report, '$.seconds.train', 'long')",
    ],
    ("studies", "spec"): [
        "'{'",
        "json_set(spec, '$.study', 'other')",
        "json_set(spec, '$.space.units_1', json('{}'))",
        """json_set(spec, '$.space.luck', json('{"low": 1, "high": 2}'))""",
    ],
    ("studies", "provenance"): ["'[]'"],
    ("sessions", "wall_s"): ["-1.0"],
}
ROWS = {
    "studies": ("study", "study = 'study'"),
    "sessions": ("2", "id = 2"),
    "trials": ("study-2", "uid = 'study-2'"),
    "attempts": ("study-2/1", "uid = 'study-2'"),
    "epochs": ("study-2/1/2", "uid = 'study-2' AND epoch = 2"),
}


@pytest.mark.parametrize(("place", "value"), [(place, value) for place, values in NONSENSE.items() for value in values])
def test_cells_that_cannot_be_read_are_named(home: Path, place: tuple[str, str], value: str) -> None:
    table, column = place
    key, condition = ROWS[table]
    edit(home / "ledger.db", " ".join(["UPDATE", table, "SET", column, "=", value, "WHERE", condition]))
    found = audit(home, "study")
    where = f"ledger: table {table}, row '{key}', column {'result' if column == 'outcome' else column} is "
    assert [line for line in found if line.startswith(where) and "\n" not in line]
    not_compared = "MLflow and the leaderboard: not compared, since rows of the ledger cannot be read"
    assert found[-1] == f"{not_compared}; {Advice.COPY}"
    assert [line for line in found if "continues" in line] == []


def damage(file: Path, page: int, content: bytes) -> None:
    with closing(Ledger(file)):
        pass  # takes in what is in the write-ahead log
    pages = bytearray(file.read_bytes())
    size = int.from_bytes(pages[16:18], "big")
    pages[(page - 1) * size :] = content.ljust(size, b"\0") + pages[page * size :]
    file.write_bytes(pages)


def rootpage(file: Path, name: str) -> int:
    with closing(sqlite3.connect(file)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        return int(page)


def test_a_damaged_file_is_said(home: Path) -> None:
    ledger = home / "ledger.db"
    damage(ledger, rootpage(ledger, "attempts"), b"\xaa" * 100)
    assert f"ledger: database disk image is malformed; {Advice.COPY}" in audit(home, "study")


def test_an_index_that_lacks_rows_is_said(home: Path) -> None:
    ledger = home / "ledger.db"
    empty_index_page = bytes([0x0A, 0, 0, 0, 0, 0x10, 0, 0])
    damage(ledger, rootpage(ledger, "one_final_result"), empty_index_page)
    assert f"ledger: row 1 missing from index one_final_result; {Advice.COPY}" in audit(home, "study")


# MLflow against the ledger


@pytest.fixture
def mlflow(home: Path) -> MlflowClient:
    return store.open_client(home)


@pytest.fixture
def found_runs(home: Path, mlflow: MlflowClient) -> dict[str, Run]:
    """The study's runs by name."""
    experiment = mlflow.get_experiment_by_name("study")
    return {run.info.run_name: run for run in mlflow.search_runs([experiment.experiment_id])}


def test_runs_that_are_not_there_are_named(home: Path, mlflow: MlflowClient, found_runs: dict[str, Run]) -> None:
    mlflow.delete_run(found_runs["trial-002"].info.run_id)
    assert audit(home, "study") == ["MLflow: trial 2: has no runs; must have one; `harness sync` mends it"]
    mlflow.delete_run(found_runs["study"].info.run_id)
    assert "MLflow: parent run: has no runs; must have one; `harness sync` mends it" in audit(home, "study")


def test_second_runs_are_named(home: Path, mlflow: MlflowClient, found_runs: dict[str, Run]) -> None:
    for name in ("trial-002", "study"):
        run = found_runs[name]
        mlflow.create_run(run.info.experiment_id, tags=run.data.tags)
    assert audit(home, "study") == [
        "MLflow: parent run: has 2 runs; must have one; `harness sync` mends it",
        "MLflow: trial 2: has 2 runs; must have one; `harness sync` mends it",
    ]


def test_a_run_of_a_trial_that_was_not_started_is_named(
    home: Path, mlflow: MlflowClient, found_runs: dict[str, Run]
) -> None:
    mlflow.create_run(found_runs["study"].info.experiment_id, tags={"trial_uid": "study-8"}, run_name="trial-008")
    mlflow.create_run(found_runs["study"].info.experiment_id, run_name="a colleague's own")
    (line,) = audit(home, "study")
    assert line.startswith("MLflow: run trial-008: is RUNNING, and of no trial that was started; if it is not need")


@pytest.mark.parametrize(("name", "whose"), [("trial-002", "trial 2"), ("study", "parent run")])
def test_runs_left_running_are_named(
    home: Path, mlflow: MlflowClient, found_runs: dict[str, Run], name: str, whose: str
) -> None:
    mlflow.update_run(found_runs[name].info.run_id, "RUNNING")
    (line,) = audit(home, "study")
    assert line.startswith(f"MLflow: {whose}: status is RUNNING, ")


CHANGES: dict[str, tuple[Callable[[MlflowClient, str], None], list[str]]] = {
    "metric": (
        lambda mlflow, run: mlflow.log_metric(run, "error_rate_pct", 0.1, step=1),
        ["metric error_rate_pct is 0.1, should be 2.5"],
    ),
    "metric of nobody's": (
        lambda mlflow, run: mlflow.log_metric(run, "beauty", 1.0),
        ["metric beauty is 1.0, should not be there"],
    ),
    "point": (
        lambda mlflow, run: mlflow.log_metric(run, "epoch/val_error_rate_pct", 0.7, timestamp=1, step=2),
        ["curve epoch/val_error_rate_pct, step 2 is 0.7 and 3.5, should be 3.5"],
    ),
    "point beyond the end": (
        lambda mlflow, run: mlflow.log_metric(run, "epoch/train_loss", 0.1, step=4),
        ["curve epoch/train_loss, step 4 is 0.1, should not be there"],
    ),
    "tag": (
        lambda mlflow, run: mlflow.set_tag(run, "outcome", "splendid"),
        ["tag outcome is splendid, should be completed"],
    ),
    "tag that is gone": (
        lambda mlflow, run: mlflow.delete_tag(run, "role"),
        ["tag role is missing, should be trial"],
    ),
    "parent": (
        lambda mlflow, run: mlflow.set_tag(run, "mlflow.parentRunId", "nobody"),
        ["tag mlflow.parentRunId is nobody, should be {parent}"],
    ),
    "parameter": (
        lambda mlflow, run: mlflow.log_param(run, "luck", 7),
        ["parameter luck is 7, should not be there"],
    ),
    "tag of a colleague's own": (lambda mlflow, run: mlflow.set_tag(run, "reviewed", "yes"), []),
}


@pytest.mark.parametrize("done", CHANGES.values(), ids=CHANGES)
def test_changes_to_a_run_are_named(
    home: Path,
    mlflow: MlflowClient,
    found_runs: dict[str, Run],
    done: tuple[Callable[[MlflowClient, str], None], list[str]],
) -> None:
    change, expected = done
    change(mlflow, found_runs["trial-002"].info.run_id)
    parent = found_runs["study"].info.run_id
    assert audit(home, "study") == [
        f"MLflow: trial 2: {line.format(parent=parent)}; {Advice.SYNC}" for line in expected
    ]


def test_changes_behind_mlflows_back_are_named(home: Path, found_runs: dict[str, Run]) -> None:
    run_id = found_runs["trial-007"].info.run_id
    for statement in (
        "DELETE FROM metrics WHERE run_uuid = ? AND key = 'epoch/val_loss' AND step = 2",
        "DELETE FROM latest_metrics WHERE run_uuid = ? AND key = 'gpu_time_s'",
        "UPDATE params SET value = '101' WHERE run_uuid = ? AND key = 'units_1'",
    ):
        edit(home / "mlflow.db", statement, run_id)
    assert audit(home, "study") == [
        "MLflow: trial 7: parameter units_1 is 101, should be 100; `harness sync` mends it",
        "MLflow: trial 7: metric gpu_time_s is missing, should be 0.0; `harness sync` mends it",
        "MLflow: trial 7: curve epoch/val_loss, step 2 is missing, should be 0.2; `harness sync` mends it",
    ]


def test_changes_to_the_parent_run_are_named(home: Path, mlflow: MlflowClient, found_runs: dict[str, Run]) -> None:
    run_id = found_runs["study"].info.run_id
    mlflow.set_tag(run_id, "mlflow.note.content", "all is well")
    mlflow.log_metric(run_id, "best_error_rate_pct", 0.0, step=0)
    lines = audit(home, "study")
    assert len(lines) == 2
    assert lines[0].startswith("MLflow: parent run: tag mlflow.note.content is all is well, should be Search around")
    what = "MLflow: parent run: curve best_error_rate_pct, step 0 is 2.5 and 0.0, should be 2.5"
    assert lines[1] == f"{what}; {Advice.SYNC}"


def test_what_the_ledger_takes_for_a_run_is_looked_at(home: Path, found_runs: dict[str, Run]) -> None:
    edit(home / "ledger.db", "UPDATE tracked SET run_id = 'elsewhere' WHERE uid = 'study-2'")
    run_id = found_runs["trial-002"].info.run_id
    (line, cell) = audit(home, "study")
    assert line == (
        f"MLflow: trial 2: the ledger takes its run to be elsewhere, it is {run_id}; `harness sync` mends it"
    )
    assert cell.startswith("study.csv: trial 2: run_id is ")


def test_an_experiment_that_is_gone_or_doubled_is_named(
    home: Path, mlflow: MlflowClient, found_runs: dict[str, Run]
) -> None:
    experiment = mlflow.get_experiment(found_runs["study"].info.experiment_id)
    second = mlflow.create_experiment("second", tags={"study_id": experiment.tags["study_id"]})
    mlflow.create_run(second, tags={"trial_uid": "study-2"})
    assert audit(home, "study") == [
        f"MLflow: experiments {experiment.experiment_id}, {second} are all of this study; must be one; {Advice.SYNC}",
        "MLflow: trial 2: has 2 runs; must have one; `harness sync` mends it",
    ]
    for each in (second, experiment.experiment_id):
        mlflow.delete_experiment(each)
    assert audit(home, "study") == ["MLflow: no experiment of this study, or a deleted one; `harness sync` mends it"]


def test_long_texts_are_shown_from_where_they_part(
    home: Path, mlflow: MlflowClient, found_runs: dict[str, Run]
) -> None:
    run = found_runs["study"]
    note = run.data.tags["mlflow.note.content"]
    mlflow.set_tag(run.info.run_id, "mlflow.note.content", note.replace("the test images: 0", "the test images: 7"))
    (line,) = audit(home, "study")
    assert "is ...wn the test images: 7. " in line
    assert "should be ...wn the test images: 0. " in line
    assert len(line) < 300


def test_a_store_that_is_not_there_is_said_and_not_made(home: Path) -> None:
    for file in home.glob("mlflow.db*"):
        file.unlink()
    assert audit(home, "study") == [f"MLflow: no store at {home / 'mlflow.db'}; `harness sync` mends it"]
    assert not (home / "mlflow.db").exists()


def test_many_runs_are_read_page_by_page(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_PAGE", 3)
    assert audit(home, "study") == []


def test_mlflow_that_cannot_be_reached_is_trouble(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    with pytest.raises(TroubleError, match=rf"^MLflow \(http://\*\*\*@127.0.0.1:{port}\): .*") as caught:
        audit(home, "study")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_store_that_is_none_is_trouble(home: Path) -> None:
    for file in home.glob("mlflow.db*"):
        file.unlink()
    (home / "mlflow.db").write_bytes(b"this is no database, " * 1000)
    with pytest.raises(TroubleError, match=r"^MLflow \(sqlite:.*\): [^\n]*$"):
        audit(home, "study")


# The exported leaderboard against the ledger

AGAIN = "; `harness leaderboard study` writes it again"


@pytest.fixture
def board(home: Path) -> Path:
    return home / "leaderboards" / "study.csv"


def test_each_cell_that_differs_is_named(home: Path, board: Path) -> None:
    text = board.read_text()
    board.write_text(text.replace("Z,2.5,", "Z,2.4,").replace(",1,study,3,", ",,study,3,"))
    (first, *others) = audit(home, "study")
    assert first == f"study.csv: trial 2: mean_error_rate_pct is 2.4, should be 2.5{AGAIN}"
    assert others == []


def test_rows_that_are_lost_or_out_of_place_are_named(home: Path, board: Path) -> None:
    header, first, second, *others = board.read_text().splitlines(keepends=True)
    board.write_text("".join([header, second, *others]))
    trial = first.split(",")[2]
    assert audit(home, "study") == [f"study.csv: trial {trial}: has no row{AGAIN}"]
    board.write_text("".join([header, second, first, *others]))
    assert audit(home, "study") == [f"study.csv: the rows stand in another order{AGAIN}"]
    board.write_text("".join([header, first, second, *others, first.replace(f",study,{trial},", ",study,88,")]))
    assert audit(home, "study") == [f"study.csv: trial 88: has a row, and is no finished trial{AGAIN}"]


def test_other_columns_are_named(home: Path, board: Path) -> None:
    board.write_text(board.read_text().replace("gpu_time_s", "gpu_hours"))
    assert audit(home, "study") == [f"study.csv: other columns (gpu_hours, gpu_time_s){AGAIN}"]


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"a,b\n1,2\n", b'trial\n"1', b"trial\n1\n1\n", b"trial,a\n1\n"]
)
def test_a_file_that_is_no_leaderboard_is_said(home: Path, board: Path, content: bytes) -> None:
    board.write_bytes(content)
    (line,) = audit(home, "study")
    assert line.startswith("study.csv: cannot be read (")
    assert line.endswith(AGAIN)


def test_an_export_that_is_stale_is_named(home: Path, board: Path) -> None:
    with closing(Ledger(home / "ledger.db")) as ledger:
        attempt = ledger.start_attempt("study-8", "worker-0")
        result = ledger.record("study-3").result
        assert result is not None
        for report in result.curve:
            ledger.add_epoch("study-8", attempt, report, 10.0)
        ledger.finish_attempt("study-8", attempt, result, 14.0, is_final=True)
    sync(home, ["study"], pytest.fail)
    assert audit(home, "study") == [f"study.csv: trial 8: has no row{AGAIN}"]


def test_a_sync_writes_a_leaderboard_anew_if_its_runs_are_others(
    home: Path, board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = board.read_text()
    with closing(Ledger(home / "ledger.db")) as ledger:
        assert write_missing_run_ids(home, ledger, "study") is None
        assert write_missing_run_ids(home, ledger, "seeds") is None
        board.write_text("my own notes")
        assert write_missing_run_ids(home, ledger, "study") is None
        assert board.read_text() == "my own notes"
        for run_id in ledger.run_ids("study").values():
            whole = whole.replace(run_id, "")
    board.write_text(whole)  # as at the end of a sweep that MLflow has not followed
    assert len(audit(home, "study")) == 8
    main(["sync"])
    assert f"wrote {board} again, since the runs have changed" in capsys.readouterr().out
    assert audit(home, "study") == []


# Leftovers, locks, and the command


def test_files_left_unfinished_are_named(home: Path) -> None:
    dead, alive = 2**22 - 1, os.getpid()  # process ids end below the first
    for pid in (dead, alive):
        for name in (f"leaderboards/.study.csv.{pid}.unfinished", f"checkpoints/study/.x.npz.{pid}.unfinished"):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).touch()
    (home / f"leaderboards/.other.csv.{dead}.unfinished").touch()
    assert audit(home, "study") == [
        f"checkpoints/study/.x.npz.{dead}.unfinished: left unfinished by a process that is gone; delete it",
        f"leaderboards/.study.csv.{dead}.unfinished: left unfinished by a process that is gone; delete it",
    ]


def test_a_file_is_left_over_when_its_process_id_was_given_away_again(home: Path) -> None:
    path = home / f"leaderboards/.study.csv.{os.getpid()}.unfinished"
    path.touch()
    os.utime(path, (1.0, 1.0))
    assert len(audit(home, "study")) == 1


def test_a_study_in_use_is_refused(home: Path) -> None:
    with (
        study_lock(home, "study"),
        pytest.raises(TroubleError, match=rf"^study study is in use by process {os.getpid()}"),
    ):
        audit(home, "study")
    with runs_lock(home, "study"), pytest.raises(TroubleError, match=r"^study: another process is bringing its runs"):
        audit(home, "study")
    assert audit(home, "study") == []


def test_a_study_that_is_not_there_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^study is 'nope'; allowed: study, seeds$"):
        audit(home, "nope")
    with pytest.raises(InputError, match=r"^study is 'nope'; allowed: none yet"):
        audit(tmp_path / "new", "nope")
    assert not (tmp_path / "new").exists()


def test_the_command_lists_differences_and_says_what_it_did_not_compare(
    home: Path, board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--audit", "study"]) == 0
    assert capsys.readouterr().out == "study: no differences\n"
    board.unlink()
    edit(home / "ledger.db", "UPDATE trials SET asked_at = 1 WHERE uid = 'study-8'")
    assert main(["doctor", "--audit", "study", "seeds"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[:4] == [
        f"study: ledger: trial 0 asked at event 1, as something else was; {Advice.COPY_OR_FRESH}",
        f"study: ledger: trial 8 asked at event 1, as something else was; {Advice.COPY_OR_FRESH}",
        f"study: ledger: event 17: nothing happened there; {Advice.COPY_OR_FRESH}",
        "study: there is no exported leaderboard to compare; `harness leaderboard study` writes it",
    ]
    assert "seeds: no differences" in out.splitlines()
    assert err == ""


# What an audit advises: nothing is named that could not be taken away


def run_sync(home: Path, line: str) -> None:
    assert main(["sync"]) == 0


def write_leaderboard(home: Path, line: str) -> None:
    assert main(["leaderboard", "study"]) == 0


def begin_a_start(home: Path, line: str) -> None:
    with closing(Ledger(home / "ledger.db")) as ledger:
        ledger.close_lost_attempts("study")


def delete_file(home: Path, line: str) -> None:
    (home / line.split(": ")[0]).unlink()


def run_what_is_said(home: Path, line: str) -> None:
    setting, _, *arguments = shlex.split(line.split("if it is not needed: ")[1])
    assert CliRunner().invoke(cli, arguments, env=dict([setting.split("=", 1)])).exit_code == 0


def put_a_copy_back(home: Path, line: str) -> None:
    for file in home.glob("ledger.db*"):
        file.unlink()
    for file in (home / "kept").glob("ledger.db*"):
        shutil.copy(file, home)


FOLLOWED: dict[Advice, Callable[[Path, str], None]] = {
    Advice.SYNC: run_sync,
    Advice.LEADERBOARD: write_leaderboard,
    Advice.START: begin_a_start,
    Advice.DELETE: delete_file,
    Advice.DELETE_RUN: run_what_is_said,
    Advice.COPY: put_a_copy_back,
    Advice.COPY_OR_FRESH: put_a_copy_back,
}


def advice_of(line: str) -> Advice:
    """By what a line ends with."""
    (advice,) = (advice for advice in Advice if re.search(re.escape(advice).replace(r"\{\}", ".*") + "$", line))
    return advice


class Hand:
    """Does to a home what nobody should."""

    def __init__(self, home: Path) -> None:
        self.home = home

    @cached_property
    def mlflow(self) -> MlflowClient:
        return store.open_client(self.home)

    @cached_property
    def runs(self) -> dict[str, Run]:
        experiment = self.mlflow.get_experiment_by_name("study")
        return {run.info.run_name: run for run in self.mlflow.search_runs([experiment.experiment_id])}

    @property
    def trial(self) -> str:
        return str(self.runs["trial-002"].info.run_id)

    @property
    def parent(self) -> str:
        return str(self.runs["study"].info.run_id)

    @property
    def experiment(self) -> str:
        return str(self.runs["study"].info.experiment_id)

    def tell(self, file: str, statement: str, *values: str) -> None:
        edit(self.home / file, statement, *values)

    def change_board(self, old: str, new: str) -> None:
        board = self.home / "leaderboards" / "study.csv"
        text = board.read_text()
        assert old in text
        board.write_text(text.replace(old, new))

    def leave(self, name: str) -> None:
        (self.home / name).parent.mkdir(parents=True, exist_ok=True)
        (self.home / name).touch()

    def delete_store(self) -> None:
        for file in self.home.glob("mlflow.db*"):
            file.unlink()

    def double_experiment(self) -> None:
        tag = self.mlflow.get_experiment(self.experiment).tags["study_id"]
        second = self.mlflow.create_experiment("second", tags={"study_id": tag})
        self.mlflow.create_run(second, tags={"trial_uid": "study-2"})

    def move(self, run_id: str) -> None:
        other = self.mlflow.create_experiment("other")
        self.tell("mlflow.db", "UPDATE runs SET experiment_id = ? WHERE run_uuid = ?", other, run_id)


DEAD = 2**22 - 1  # process ids end below that
NAN = float("nan")
DONE: dict[str, tuple[Callable[[Hand], object], set[Advice]]] = {
    "no store": (lambda hand: hand.delete_store(), {Advice.SYNC}),
    "deleted experiment": (lambda hand: hand.mlflow.delete_experiment(hand.experiment), {Advice.SYNC}),
    "second experiment": (lambda hand: hand.double_experiment(), {Advice.SYNC}),
    "deleted run": (lambda hand: hand.mlflow.delete_run(hand.trial), {Advice.SYNC}),
    "deleted parent": (lambda hand: hand.mlflow.delete_run(hand.parent), {Advice.SYNC}),
    "second run": (
        lambda hand: hand.mlflow.create_run(hand.experiment, tags=hand.runs["trial-002"].data.tags),
        {Advice.SYNC},
    ),
    "second parent": (
        lambda hand: hand.mlflow.create_run(hand.experiment, tags=hand.runs["study"].data.tags),
        {Advice.SYNC},
    ),
    "run in another experiment": (lambda hand: hand.move(hand.trial), {Advice.SYNC}),
    "parent in another experiment": (lambda hand: hand.move(hand.parent), {Advice.SYNC}),
    "running": (lambda hand: hand.mlflow.update_run(hand.trial, "RUNNING"), {Advice.SYNC}),
    "running parent": (lambda hand: hand.mlflow.update_run(hand.parent, "RUNNING"), {Advice.SYNC}),
    "failed parent": (lambda hand: hand.mlflow.update_run(hand.parent, "FAILED"), {Advice.SYNC}),
    "run of no finished trial": (
        lambda hand: hand.mlflow.create_run(hand.experiment, tags={"trial_uid": "study-8"}),
        {Advice.DELETE_RUN},
    ),
    "tracked elsewhere": (
        lambda hand: hand.tell("ledger.db", "UPDATE tracked SET run_id = 'elsewhere' WHERE uid = 'study-2'"),
        {Advice.SYNC, Advice.LEADERBOARD},
    ),
    "nothing tracked": (lambda hand: hand.tell("ledger.db", "DELETE FROM tracked"), {Advice.SYNC, Advice.LEADERBOARD}),
    "not a number": (lambda hand: hand.mlflow.log_metric(hand.trial, "error_rate_pct", NAN, step=1), {Advice.SYNC}),
    "not a number in a curve": (
        lambda hand: hand.mlflow.log_metric(hand.trial, "epoch/train_loss", NAN, timestamp=1, step=2),
        {Advice.SYNC},
    ),
    "metric of the parent": (
        lambda hand: hand.mlflow.log_metric(hand.parent, "best_error_rate_pct", 0.0, step=9),
        {Advice.SYNC},
    ),
    "metric behind MLflow's back": (
        lambda hand: hand.tell(
            "mlflow.db", "DELETE FROM metrics WHERE run_uuid = ? AND key = 'epoch/train_loss' AND step = 2", hand.trial
        ),
        {Advice.SYNC},
    ),
    "parameter behind MLflow's back": (
        lambda hand: hand.tell("mlflow.db", "UPDATE params SET value = '1' WHERE run_uuid = ?", hand.trial),
        {Advice.SYNC},
    ),
    "trial_uid of nobody": (lambda hand: hand.mlflow.set_tag(hand.trial, "trial_uid", "nobody"), {Advice.SYNC}),
    "trial_uid of another": (lambda hand: hand.mlflow.set_tag(hand.trial, "trial_uid", "study-3"), {Advice.SYNC}),
    "trial_uid that is gone": (lambda hand: hand.mlflow.delete_tag(hand.trial, "trial_uid"), {Advice.SYNC}),
    "a trial's role is the parent's": (lambda hand: hand.mlflow.set_tag(hand.trial, "role", "sweep"), {Advice.SYNC}),
    "the parent's role is gone": (lambda hand: hand.mlflow.delete_tag(hand.parent, "role"), {Advice.SYNC}),
    "report": (lambda hand: hand.mlflow.set_tag(hand.parent, "report", "all is well"), {Advice.SYNC}),
    **{
        f"{name} of a trial": (lambda hand, change=change: change(hand.mlflow, hand.trial), {Advice.SYNC})
        for name, (change, expected) in CHANGES.items()
        if expected
    },
    "run ids": (lambda hand: hand.change_board(hand.trial, ""), {Advice.LEADERBOARD}),
    "a cell": (lambda hand: hand.change_board("Z,2.5,", "Z,2.4,"), {Advice.LEADERBOARD}),
    "columns": (lambda hand: hand.change_board("gpu_time_s", "gpu_hours"), {Advice.LEADERBOARD}),
    "no leaderboard": (lambda hand: hand.change_board("trial,", "trail,"), {Advice.LEADERBOARD}),
    "leftovers": (
        lambda hand: [
            hand.leave(name)
            for name in (
                f"leaderboards/.study.csv.{DEAD}.unfinished",
                f"checkpoints/study/.x.npz.{DEAD}.unfinished",
            )
        ],
        {Advice.DELETE},
    ),
    "an attempt that was never ended": (lambda hand: hand.tell("ledger.db", NEVER_ENDED), {Advice.START}),
    "a contradiction": (
        lambda hand: hand.tell("ledger.db", "UPDATE trials SET asked_at = 1 WHERE uid = 'study-2'"),
        {Advice.COPY_OR_FRESH},
    ),
    "a cell that cannot be read": (
        lambda hand: hand.tell("ledger.db", "UPDATE trials SET role = 'clown' WHERE uid = 'study-2'"),
        {Advice.COPY},
    ),
}


@pytest.fixture
def settled_home(home: Path, sound_home: Path) -> Path:
    """With its artifacts where MLflow looks for them, and a copy of the ledger."""
    for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
        statement = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"  # noqa: S608 - our own
        edit(home / "mlflow.db", statement, sound_home.as_uri(), home.as_uri())
    (home / "kept").mkdir()
    for file in home.glob("ledger.db*"):
        shutil.copy(file, home / "kept")
    return home


@pytest.mark.parametrize(("change", "expected"), DONE.values(), ids=DONE)
def test_whoever_does_what_the_audit_says_finds_nothing_wrong_afterwards(
    settled_home: Path, change: Callable[[Hand], object], expected: set[Advice]
) -> None:
    home = settled_home
    change(Hand(home))
    lines = audit(home, "study")
    assert {advice_of(line) for line in lines} == expected
    if Advice.SYNC in expected:  # which takes care of the leaderboard's run ids too
        lines = next([line] for line in lines if advice_of(line) is Advice.SYNC)
    done = set[Advice]()
    for line in lines:
        if (advice := advice_of(line)) not in done or advice in (Advice.DELETE, Advice.DELETE_RUN):
            FOLLOWED[advice](home, line)
        done.add(advice)
    assert audit(home, "study") == []
    assert str(sync(home, ["study"], pytest.fail)) == "study: as it should be"


def test_each_advice_is_tried() -> None:
    assert set(FOLLOWED) == set(Advice) == set().union(*(expected for _, expected in DONE.values()))
