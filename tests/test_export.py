import csv
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import optuna
import pandas as pd
import pytest
from filled_ledger import CPU, DOCUMENTED, FilledLedger, filled_verdict, make_spec
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from harness.analysis.export.optuna_storage import export_optuna
from harness.analysis.export.trials import Table, export_table, schema
from harness.analysis.leaderboard.leaderboard import leaderboard
from harness.cli import main
from harness.errors import InputError, TroubleError
from harness.ledger.ledger import Ledger
from harness.study.records import Outcome, Role, Seconds, TrialResult
from harness.support.home import project_root
from harness.support.strict_json import shown

SPACE = {
    "units_1": {"low": 64, "high": 1024, "log": True},
    "dropout": {"low": 0.0, "high": 0.5, "step": 0.1},
    "batch_norm": {"values": [False, True]},
    "schedule": {"values": ["constant", "cosine"], "when": {"batch_norm": [True]}},
}
PLAIN = {"units_1": 512, "dropout": 0.0, "batch_norm": False}
BRANCH = {"units_1": 64, "dropout": 0.30000000000000004, "batch_norm": True, "schedule": "cosine"}


@pytest.fixture
def study(tmp_path: Path) -> Iterator[FilledLedger]:
    """A baseline, one trial on the other branch of the space, and one of each way to have no curve."""
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        study = FilledLedger(ledger, make_spec(space=SPACE))
        study.add(1 / 3, params=PLAIN, role=Role.BASELINE)
        study.add(2.0, Outcome.PRUNED, params=BRANCH, epochs_done=2, gpu={"gpu_energy_j": 1250.5})
        study.add(outcome=Outcome.INFEASIBLE, params=BRANCH, error="=too many parameters")
        study.ask(PLAIN, continues="study-1")
        yield study


# Files


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".csv":
        return pd.read_csv(path)
    return pd.DataFrame(json.loads(path.read_text()))


@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
def test_every_trial_is_exported(study: FilledLedger, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"trials.{form}"
    export_table(study.ledger, "study", path, form)
    frame = read(path)
    third = 0.333333 if form == "csv" else 1 / 3
    assert list(frame["trial"]) == [0, 1, 2, 3]
    assert list(frame["error_rate_pct"].dropna()) == [third]
    assert list(frame["val_error_rate_pct"].dropna()) == [third, 2.0]
    assert [value if isinstance(value, str) else None for value in frame["outcome"]] == [
        *("completed", "pruned", "infeasible"),
        None,
    ]
    assert list(frame["dropout"].dropna()) == pytest.approx([0.0, 0.3, 0.3, 0.0], abs=1e-15)
    assert list(frame["schedule"].dropna()) == ["cosine"] * 2
    assert list(frame["continues"].dropna()) == [1]
    assert list(frame)[:6] == ["study", "trial", "uid", "role", "outcome", "message"]
    marked = "'=too many parameters" if form == "csv" else "=too many parameters"
    assert list(frame["message"].dropna()) == [marked]
    assert {name.name for name in tmp_path.iterdir() if "trials" in name.name} == {path.name}


@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
def test_every_epoch_is_exported(study: FilledLedger, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"epochs.{form}"
    export_table(study.ledger, "study", path, form, Table.EPOCHS)
    frame = read(path)
    assert list(frame["trial"]) == [0, 0, 0, 1, 1]
    assert list(frame["epoch"]) == [1, 2, 3, 1, 2]
    errors_pct = [1 / 3 + 2, 1 / 3 + 1, 1 / 3, 3.0, 2.0]
    assert list(frame["val_error_rate_pct"]) == (
        [float(f"{pct:.6g}") for pct in errors_pct] if form == "csv" else errors_pct
    )
    assert frame["train_loss"].notna().sum() == 5
    assert frame["val_loss"].isna().all()  # None in the ledger: it was not finite


def test_a_csv_file_has_six_digits_and_utc_times(study: FilledLedger, tmp_path: Path) -> None:
    study.add(2.0, params={"units_1": 512, "dropout": 0.0, "batch_norm": False}, train_s=1234567.891)
    export_table(study.ledger, "study", tmp_path / "trials.csv", "csv")
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    (attempt,) = study.ledger.attempts(rows[-1]["uid"])
    assert rows[-1]["device_time_s"] == "1.23457e+06"
    for name, moment_s in (("started_at", attempt.started_at_s), ("ended_at", attempt.ended_at_s)):
        assert rows[-1][name] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment_s))
    pending = rows[-2]
    assert (pending["outcome"], pending["ended_at"]) == ("", "")


def test_trials_and_epochs_are_asked_for_apart(
    study: FilledLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    assert main(["export", "study", "--csv", "-"]) == 0
    trials = capfd.readouterr().out
    assert main(["export", "study", "--csv", "-", "--epochs"]) == 0
    epochs = capfd.readouterr().out
    assert (trials.count("\n"), epochs.count("\n")) == (1 + 4, 1 + 5)
    assert main(["export", "study", "--optuna", f"sqlite:///{tmp_path}/o.db", "--epochs"]) == 2
    assert capfd.readouterr().err.startswith("harness: --epochs goes with --csv, --parquet or --json")
    assert not (tmp_path / "o.db").exists()


def test_a_row_holds_what_the_ledger_holds(study: FilledLedger, tmp_path: Path) -> None:
    study.ledger.add_search_time("study-1", 0.5)
    export_table(study.ledger, "study", tmp_path / "trials.json", "json")
    row = next(row for row in json.loads((tmp_path / "trials.json").read_text()) if row["trial"] == 1)
    assert row == {
        "study": "study",
        "trial": 1,
        "uid": "study-1",
        "role": "trial",
        "outcome": "pruned",
        "message": None,
        "started_at": row["started_at"],
        "ended_at": row["ended_at"],
        "units_1": 64,
        "dropout": 0.30000000000000004,
        "batch_norm": True,
        "schedule": "cosine",
        "seed": 1,
        "epochs": 3,
        "continues": None,
        "attempts": 1,
        "asked_at": 3,
        "told_at": 4,
        "reused_from": None,
        "error_rate_pct": None,
        "val_error_rate_pct": 2.0,
        "val_images": 1000,
        "gpu_time_s": 0.0,
        "device_time_s": 10.0,
        "train_time_s": 10.0,
        "build_time_s": 0.5,
        "compile_time_s": 1.5,
        "eval_time_s": 2.0,
        "cpu_time_s": 20.0,
        "reserved_time_s": 14.0,
        "search_time_s": 0.75,
        "num_params": 1001,
        "images_per_s": 500.0,
        "peak_memory_mb": None,
        "gpu_busy_time_s": None,
        "gpu_energy_j": 1250.5,
        "gpu_peak_memory_mb": None,
        "soft_error_pct": None,
        "cross_entropy": None,
        "temperature": None,
        "device": CPU.name,
        "backend": CPU.backend,
        "timing_class": CPU.timing_class,
    }


def test_parquet_keeps_the_types(study: FilledLedger, tmp_path: Path) -> None:
    export_table(study.ledger, "study", tmp_path / "trials.parquet", "parquet")
    schema(study.spec, Table.TRIALS).validate(pd.read_parquet(tmp_path / "trials.parquet"))


def test_a_study_without_trials_has_columns_and_no_rows(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        FilledLedger(ledger, make_spec(space={}))
        export_table(ledger, "study", tmp_path / "trials.csv", "csv")
    with (tmp_path / "trials.csv").open() as file:
        assert len(list(csv.reader(file))) == 1


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("csv", "trials.json"),
        ("csv", "trials.csv.gz"),
        ("csv", "trials"),
        ("json", "trials.csv"),
        ("parquet", "trials.xlsx"),
        ("parquet", "parquet"),
    ],
)
def test_a_name_that_promises_another_form_is_refused(
    study: FilledLedger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    form: str,
    name: str,
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    before = sorted(tmp_path.iterdir())
    assert main(["export", "study", f"--{form}", str(tmp_path / name)]) == 2
    err = capfd.readouterr().err
    allowed = f"a name that ends in .{form}, a pipe, or -"
    assert err == f"harness: --{form} is {shown(str(tmp_path / name))}; allowed: {allowed}\n"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
def test_an_export_goes_to_standard_output_as_into_a_file(
    study: FilledLedger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    form: str,
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    file = tmp_path / f"TRIALS.{form.upper()}"
    assert main(["export", "study", f"--{form}", str(file)]) == 0
    assert capfdbinary.readouterr().out == f"wrote {file}\n".encode()
    assert main(["export", "study", f"--{form}", "-"]) == 0
    assert capfdbinary.readouterr().out == file.read_bytes()


def test_an_unknown_study_is_refused(study: FilledLedger, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="study is 'other'; allowed: study"):
        export_table(study.ledger, "other", tmp_path / "trials.csv", "csv")
    with pytest.raises(InputError, match="study is 'other'; allowed: study"):
        export_optuna(study.ledger, "other", f"sqlite:///{tmp_path}/optuna.db")


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ("UPDATE trials SET params = replace(params, '64', '63')", "units_1"),
        ("UPDATE epochs SET report = replace(report, '3.0', '300.0')", "val_error_rate_pct"),
        ("UPDATE attempts SET reserved_time_s = -1", "reserved_time_s"),
    ],
)
def test_a_ledger_that_holds_nonsense_is_not_exported(
    study: FilledLedger, tmp_path: Path, change: str, column: str
) -> None:
    with closing(sqlite3.connect(study.ledger.path)) as edited:
        edited.execute(change)
        edited.commit()
    with pytest.raises(TroubleError, match=rf"^ledger .*{column} is .*$"):
        export_table(study.ledger, "study", tmp_path / "trials.csv", "csv")
    assert not (tmp_path / "trials.csv").exists()


def test_the_page_on_exports_names_every_column(study: FilledLedger) -> None:
    page = (project_root() / "docs" / "export.md").read_text(encoding="utf-8")
    searched = set(study.spec.space)
    board = leaderboard(study.ledger, ["study"])
    for name in {
        *schema(study.spec, Table.TRIALS).columns,
        *schema(study.spec, Table.EPOCHS).columns,
        *board,
        "pareto",
    } - searched:
        assert f"`{name}`" in page, name


# Optuna


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/optuna.db"


@contextmanager
def opened(url: str) -> Iterator[optuna.storages.RDBStorage]:
    storage = optuna.storages.RDBStorage(url)
    yield storage
    storage.remove_session()
    storage.engine.dispose()


@contextmanager
def exported(url: str, study: str = "study") -> Iterator[optuna.Study]:
    with opened(url) as storage:
        yield optuna.load_study(study_name=study, storage=storage)


def trials(url: str, study: str = "study") -> list[optuna.trial.FrozenTrial]:
    with exported(url, study) as found:
        return found.get_trials(deepcopy=False)


@pytest.mark.parametrize("name", ["ledger.db", "mlflow.db", "other.db"])
def test_a_database_of_something_else_is_no_storage(
    study: FilledLedger, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.add(2.0)
    home = study.ledger.path.parent
    monkeypatch.setenv("HARNESS_HOME", str(home))
    with closing(sqlite3.connect(home / "other.db")) as db, db:
        db.execute("CREATE TABLE trials (trial_id INTEGER)")
    with closing(sqlite3.connect(study.ledger.path)) as db:
        tables = db.execute("SELECT name FROM sqlite_master").fetchall()
    with pytest.raises(InputError, match=r"^storage is 'sqlite:///.*', a database of something else; allowed: "):
        export_optuna(study.ledger, "study", f"sqlite:///{home / name}")
    with closing(sqlite3.connect(study.ledger.path)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == tables
    assert not (home / "mlflow.db").exists()


def test_optuna_sees_the_trials_as_if_it_had_run_them(study: FilledLedger, url: str) -> None:
    assert export_optuna(study.ledger, "study", url) == 4
    first, pruned, infeasible, pending = trials(url)
    assert [trial.number for trial in (first, pruned, infeasible, pending)] == [0, 1, 2, 3]
    assert (first.state, first.value) == (TrialState.COMPLETE, 1 / 3)
    assert first.intermediate_values == {1: 1 / 3 + 2, 2: 1 / 3 + 1, 3: 1 / 3}
    assert (pruned.state, pruned.value) == (TrialState.PRUNED, 2.0)
    assert (infeasible.state, infeasible.values) == (TrialState.FAIL, None)
    assert pending.state is TrialState.RUNNING
    assert first.params == PLAIN
    assert pruned.params == BRANCH
    assert pruned.distributions == {
        "units_1": IntDistribution(64, 1024, log=True),
        "dropout": FloatDistribution(0.0, 0.5, step=0.1),
        "batch_norm": CategoricalDistribution((False, True)),
        "schedule": CategoricalDistribution(("constant", "cosine")),
    }
    assert pruned.user_attrs == {
        "uid": "study-1",
        "trial": 1,
        "role": "trial",
        "seed": 1,
        "epochs": 3,
        "reserved_time_s": 14.0,
        "outcome": "pruned",
        "device_time_s": 10.0,
        "gpu_time_s": 0.0,
        "num_params": 1001,
        "timing_class": CPU.timing_class,
    }
    assert infeasible.user_attrs["error"] == "=too many parameters"
    assert pending.user_attrs["continues"] == "study-1"
    started_at = study.ledger.attempts("study-0")[0].started_at_s
    assert first.datetime_start is not None
    assert first.datetime_complete is not None
    assert first.datetime_start.timestamp() == pytest.approx(started_at, abs=1e-3)
    assert (first.datetime_complete - first.datetime_start).total_seconds() == pytest.approx(14.0)
    with exported(url) as whole:
        assert whole.direction is optuna.study.StudyDirection.MINIMIZE
        assert whole.metric_names == ["error_rate_pct"]
        assert whole.user_attrs["engine"] == "optuna"


def test_export_again_adds_what_is_new_and_ends_what_was_running(study: FilledLedger, url: str) -> None:
    export_optuna(study.ledger, "study", url)
    assert export_optuna(study.ledger, "study", url) == 0
    running = study.ledger.record("study-3").trial
    study.end(running, 1.0)
    study.add(2.0, params=PLAIN)
    study.add(0.1, params=PLAIN, role=Role.CONFIRM)
    study.add(outcome=Outcome.CRASHED, params=PLAIN)
    assert export_optuna(study.ledger, "study", url) == 3
    found = trials(url)
    assert [trial.user_attrs["uid"] for trial in found] == [f"study-{number}" for number in (0, 1, 2, 3, 4, 6)]
    assert (found[3].state, found[3].value) == (TrialState.COMPLETE, 1.0)
    assert found[3].intermediate_values == {1: 3.0, 2: 2.0, 3: 1.0}
    assert found[3].user_attrs["outcome"] == "completed"
    assert found[5].state is TrialState.FAIL
    assert export_optuna(study.ledger, "study", url) == 0


def test_what_ran_at_the_first_export_ends_when_it_ended_and_not_at_the_second(study: FilledLedger, url: str) -> None:
    running, waiting = study.ledger.record("study-3").trial, study.ask(PLAIN)
    attempt = study.ledger.start_attempt(running.uid, "w")
    export_optuna(study.ledger, "study", url)
    result = TrialResult(Outcome.COMPLETED, final_error_rate_pct=1.0, final_val_images=100, seconds=Seconds(train=20.0))
    study.ledger.finish_attempt(running.uid, attempt, result, 24.6, is_final=True)
    study.end(waiting, 2.0, train_s=6.0)
    assert export_optuna(study.ledger, "study", url) == 2
    found = {trial.user_attrs["uid"]: trial for trial in trials(url)}
    for trial, took_s in ((running, 24.6), (waiting, 10.0)):
        shown = found[trial.uid]
        assert shown.number == trial.number
        assert shown.datetime_start is not None
        assert shown.datetime_start.timestamp() == pytest.approx(
            study.ledger.attempts(trial.uid)[0].started_at_s, abs=1e-3
        )
        assert shown.duration == timedelta(seconds=took_s)


def test_a_time_that_an_earlier_export_got_wrong_is_put_right(study: FilledLedger, url: str) -> None:
    export_optuna(study.ledger, "study", url)
    storage = optuna.storages.RDBStorage(url)
    study.end(study.ledger.record("study-3").trial, 1.0, train_s=20.0)
    # As versions did that let Optuna take the time, and as a kill in between leaves it.
    storage.set_trial_state_values(storage.get_trial_id_from_study_id_trial_number(1, 3), TrialState.COMPLETE, [1.0])
    storage.remove_session()
    storage.engine.dispose()
    assert export_optuna(study.ledger, "study", url) == 1
    assert trials(url)[3].duration == timedelta(seconds=24.0)
    assert export_optuna(study.ledger, "study", url) == 0


def test_a_clock_that_is_set_back_between_two_attempts_shortens_no_trial(
    study: FilledLedger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = study.ask(PLAIN)
    lost = TrialResult(Outcome.CRASHED, "no")
    study.ledger.finish_attempt(trial.uid, study.ledger.start_attempt(trial.uid, "w"), lost, 5.0, is_final=False)
    before = time.time()
    monkeypatch.setattr(time, "time", lambda: before - 3600.0)
    study.end(trial, 3.0)
    export_optuna(study.ledger, "study", url)
    assert trials(url)[trial.number].duration == timedelta(seconds=5.0 + 14.0)


def test_trials_of_fewer_epochs_count_as_pruned(study: FilledLedger, url: str) -> None:
    study.add(0.2, params=PLAIN, epochs=1)
    export_optuna(study.ledger, "study", url)
    short = trials(url)[4]
    assert (short.state, short.value, short.intermediate_values) == (TrialState.PRUNED, 0.2, {1: 0.2})


def test_two_objectives_and_a_study_that_keras_tuner_drove(study: FilledLedger, url: str) -> None:
    spec = make_spec("both", objective=("error", "device_time"), engine="keras-tuner", sampler="random")
    both = FilledLedger(study.ledger, spec)
    both.add(1.0, params=DOCUMENTED, train_s=5.0)
    both.add(2.0, params=DOCUMENTED, train_s=3.0)
    both.add(3.0, params=DOCUMENTED, train_s=9.0)
    export_optuna(study.ledger, "both", url)
    export_optuna(study.ledger, "study", url)
    with exported(url, "both") as found:
        assert found.metric_names == ["error_rate_pct", "device_time_s"]
        assert [trial.values for trial in found.best_trials] == [[1.0, 5.0], [2.0, 3.0]]
    assert len(trials(url)) == 4


def test_optunas_importances_work_on_the_export(tmp_path: Path, url: str) -> None:
    with closing(Ledger(tmp_path / "other.db")) as ledger:
        study = FilledLedger(ledger, make_spec())
        for number in range(12):
            study.add(number / 10, params={"units_1": 64 + 10 * number, "units_2": 64 + number % 7})
        export_optuna(ledger, "study", url)
    with exported(url) as found:
        importances = optuna.importance.get_param_importances(found)
    assert importances["units_1"] > importances["units_2"]


def test_another_study_of_that_name_is_refused(study: FilledLedger, url: str, tmp_path: Path) -> None:
    export_optuna(study.ledger, "study", url)
    with closing(Ledger(tmp_path / "other.db")) as other:
        FilledLedger(other, make_spec(space=SPACE))  # the same settings, another study
        with pytest.raises(InputError, match=r"^the storage has another study called 'study'; allowed: "):
            export_optuna(other, "study", url)
    assert len(trials(url)) == 4


def test_somebody_elses_study_is_refused_and_left_alone(study: FilledLedger, url: str) -> None:
    with opened(url) as storage:
        theirs = optuna.create_study(study_name="study", storage=storage)
        theirs.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(InputError, match="another study called 'study'"):
        export_optuna(study.ledger, "study", url)
    assert len(trials(url)) == 1
    with exported(url) as left:
        assert left.user_attrs == {}


@pytest.mark.parametrize("wrong", ["nonsense", "nodb://bob:secret@host/x", "postgresql://bob:secret@127.0.0.1:1/x"])
def test_a_wrong_url_is_refused_without_its_password(study: FilledLedger, wrong: str) -> None:
    with pytest.raises((InputError, TroubleError)) as refusal:
        export_optuna(study.ledger, "study", wrong)
    assert "storage" in str(refusal.value)
    assert "secret" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_storage_that_cannot_be_written_is_trouble(study: FilledLedger, tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_text("no database at all, " * 100)
    with pytest.raises(TroubleError, match=r"^storage sqlite:.*: .*not a database"):
        export_optuna(study.ledger, "study", f"sqlite:///{tmp_path}/optuna.db")


def test_a_verdicts_trainings_have_no_validation_error(study: FilledLedger, tmp_path: Path) -> None:
    filled_verdict(study.ledger)
    export_table(study.ledger, "study.verdict", tmp_path / "verdict.csv", "csv")
    table = pd.read_csv(tmp_path / "verdict.csv")
    assert len(table) == 3
    assert table[["error_rate_pct", "val_error_rate_pct", "val_images"]].isna().all(axis=None)
    export_table(study.ledger, "study.verdict", tmp_path / "epochs.csv", "csv", Table.EPOCHS)
    epochs = pd.read_csv(tmp_path / "epochs.csv")
    assert len(epochs) == 3 * 3
    assert epochs[["val_loss", "val_error_rate_pct", "val_images"]].isna().all(axis=None)
    assert epochs["train_loss"].notna().all()


def test_a_storage_in_no_folder_is_refused(study: FilledLedger, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder '.*/new'; allowed: a file in a folder that exists"):
        export_optuna(study.ledger, "study", f"sqlite:///{tmp_path / 'new' / 'trials.db'}")
    assert not (tmp_path / "new").exists()
