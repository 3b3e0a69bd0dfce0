"""A ledger edited by hand into nonsense: each command that reads the cell says which one, and nothing else happens."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import audited_study
import pytest
from filled_ledger import FilledLedger, make_spec, read_all

from harness.cli import main
from harness.errors import DamageError, InputError, TroubleError
from harness.ledger.ledger import Ledger
from harness.ledger.locks import InUseError, study_lock
from harness.study.records import Outcome
from harness.study.spec import SweepSpec
from harness.tracking.store import make_store
from harness.workflows.doctor import Level, examine
from harness.workflows.removal import remove

SPEC = json.loads(make_spec(dataset="digits").model_dump_json())
READING = [
    ["status"],
    ["leaderboard", "study", "--out", "-"],
    ["export", "study", "--csv", "export.csv"],
    ["export", "study", "--optuna", "sqlite:///optuna.db"],
    ["sync"],
]


def result(**changes: object) -> str:
    return f"result = json_patch(result, '{json.dumps(changes)}')"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a ledger of one study."""
    home = tmp_path_factory.mktemp("filled")
    with closing(Ledger(home / "ledger.db")) as ledger:
        study = FilledLedger(ledger, make_spec(dataset="digits"))
        study.add_baseline(3.0, wrong=[1, 2])
        study.add_baseline(3.5, wrong=[1, 3], test_wrong=[4])
        study.add(2.5, wrong=[2])
        study.add(4.0, Outcome.PRUNED, epochs_done=1)
        study.add(None, Outcome.CRASHED, device=None, error="ValueError: no")
        study.ask()
        ledger.touch_session(ledger.start_session("study"), 5.0)
    return home


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store, which takes seconds to make."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    make_store(f"sqlite:///{path}")
    return path


@pytest.fixture
def home(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(home: Path, change: str) -> None:
    """By hand, checksums included: nothing holds the tables together."""
    audited_study.edit(home / "ledger.db", change)


# What is changed, and what the refusal says.
NONSENSE = [
    ("studies SET spec = '{'", "studies, row 'study', column spec is '{'; not JSON (EOF"),
    ("studies SET spec = '[]'", "studies, row 'study', column spec is '[]'; the value is []; allowed"),
    (f"studies SET spec = '{json.dumps(SPEC | {'epochs': 0})}'", "column spec is '{"),
    (f"studies SET spec = '{json.dumps(SPEC | {'epochs': 'three'})}'", "epochs is 'three'; allowed: a valid integer"),
    (f"studies SET spec = '{json.dumps(SPEC | {'colour': 'red'})}'", "colour is unknown"),
    ("studies SET spec = replace(spec, '0.002', 'NaN')", "recipe.learning_rate is nan"),
    ("studies SET spec = replace(spec, '\"low\":64', '\"low\":2048')", "space.units_1: range 2048 to 1024 is empty"),
    ("studies SET study = 'renamed'", "row 'renamed', column study is 'renamed'; allowed: 'study', as in its settings"),
    ("studies SET study = '../../study'", "row '../../study', column study is '../../study'; allowed: 1 to 64 letters"),
    ("studies SET provenance = '[]'", "column provenance is '[]'"),
    ("studies SET created_at = 1e300", "column created_at is 1e+300; allowed: a finite number"),
    ("trials SET role = 'boss'", "trials, row 'study-0', column role is 'boss'; allowed: baseline, trial, confirm"),
    ("trials SET uid = '../x' WHERE number = 0", "column uid is '../x'; allowed: 1 to 64 letters"),
    ("trials SET number = -1 WHERE number = 0", "column number is -1; allowed: a whole number, at least 0"),
    ("trials SET epochs = 0", "column epochs is 0; allowed: a whole number, at least 1"),
    ("trials SET params = '[1]'", "column params is '[1]'"),
    ('trials SET params = \'{"units_1": "many"}\'', "units_1 is 'many'; allowed: whole numbers 64 to 1024"),
    ("trials SET params = '{\"units_1\": NaN}'", "units_1 is nan"),
    ("trials SET params = '{\"layers\": 3}'", "layers is unknown; allowed: units_1, units_2"),
    ("trials SET search_time_s = -1", "column search_time_s is -1.0; allowed: a finite number, at least 0"),
    ("attempts SET outcome = 'done'", "attempts, row 'study-0/1', column outcome is 'done'; allowed: completed"),
    ("attempts SET outcome = 'pruned' WHERE uid = 'study-0'", "column outcome is 'pruned'; allowed: completed"),
    ("attempts SET result = NULL", "column result is None"),
    (f"attempts SET {result(outcome='done')}", "outcome is 'done'; allowed: 'completed', 'pruned'"),
    (f"attempts SET {result(num_params='many')}", "num_params is 'many'; allowed: a valid integer"),
    (f"attempts SET {result(seconds={'train': -1.0})}", "seconds: train is -1.0; allowed: a finite number"),
    ("attempts SET result = replace(result, '10.0', 'NaN')", "train is nan"),
    ("attempts SET result = replace(result, '10.0', '1e999')", "train is inf"),
    (f"attempts SET {result(colour='red')}", "colour is unknown"),
    ("attempts SET result = json_remove(result, '$.outcome')", "outcome is missing; it must be set"),
    ("attempts SET reserved_time_s = 9e999", "column reserved_time_s is inf; allowed: a finite number"),
    ("attempts SET started_at = -1", "column started_at is -1.0; allowed: a finite number"),
    ("attempts SET wrong_images = '[\"x\"]'", "column wrong_images is '[\"x\"]'; 0 is 'x'; allowed: a valid int"),
    ("attempts SET wrong_images = '[-1]'", "column wrong_images is '[-1]'; allowed: positions of images"),
    ("attempts SET test_wrong_images = '7' WHERE test_wrong_images IS NOT NULL", "test_wrong_images is '7'"),
    ("epochs SET report = 'x'", "epochs, row 'study-0/1/1', column report is 'x'; not JSON"),
    ("epochs SET report = json_patch(report, '{\"val_images\": -1}')", "val_images is -1; allowed: a finite"),
    (
        "epochs SET report = json_patch(report, '{\"val_images\": 0}')",
        "of 0 images; allowed: at most 100, of 1 or more",
    ),
    ("epochs SET report = json_patch(report, '{\"val_error_rate_pct\": 300.0}')", "val_error_rate_pct is 300.0"),
    ("sessions SET wall_s = -1", "sessions, row '1', column wall_s is -1.0; allowed: a finite number"),
    ("sessions SET started_at = 1e300", "sessions, row '1', column started_at is 1e+300"),
]


@pytest.mark.parametrize(("change", "message"), NONSENSE)
def test_nonsense_is_one_line_that_says_where(home: Path, change: str, message: str) -> None:
    read_all(home / "ledger.db")
    edit(home, f"UPDATE {change}")
    with pytest.raises(TroubleError) as caught:
        read_all(home / "ledger.db")
    line = str(caught.value)
    assert line.startswith(f"ledger {home / 'ledger.db'}: table ")
    assert message in line
    assert "\n" not in line


@pytest.mark.slow
@pytest.mark.parametrize(("change", "message"), NONSENSE)
def test_every_command_refuses_nonsense_that_it_comes_upon(
    home: Path, store: Path, change: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(store, home)
    edit(home, f"UPDATE {change}")
    refusals = [line for line in (refusal(home, command, capfd) for command in READING) if line]
    assert any(message in line for line in refusals)


def refusal(home: Path, command: list[str], capfd: pytest.CaptureFixture[str]) -> str | None:
    """What a command says against the ledger, if anything."""
    status = main(command)
    errors = capfd.readouterr().err
    if status == 0 or "study is 'study'; allowed:" in errors:  # the row has another name
        return None
    assert (status, errors.count("\n")) == (1, 1), errors
    ledger = re.escape(str(home / "ledger.db"))
    assert re.match(rf"harness: (study \S+ is left out: )?ledger {ledger}: ", errors), errors
    return errors


@pytest.mark.parametrize("command", [["sweep", "smoke", "--as", "study"], *READING], ids=lambda command: command[0])
def test_every_command_refuses_a_file_that_is_no_ledger(
    home: Path,
    command: list[str],
    digits_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(digits_folder.parent))
    (home / "ledger.db").write_text("a text file\n" * 1000)
    assert "no database" in (refusal(home, command, capfd) or "")
    assert (home / "ledger.db").read_text() == "a text file\n" * 1000


def test_a_sweep_refuses_nonsense_before_anything_is_trained(
    tmp_path: Path,
    smoke: SweepSpec,
    digits_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    monkeypatch.setenv("HARNESS_DATA", str(digits_folder.parent))
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        FilledLedger(ledger, smoke).add(3.0)
    edit(tmp_path, "UPDATE trials SET params = '{'")
    assert "table trials, row 'smoke-quick-0', column params" in (refusal(tmp_path, ["sweep", "smoke"], capfd) or "")
    assert not (tmp_path / "logs").exists()


# One study's damage is no other's


@pytest.fixture
def mixed(home: Path, empty_store: Path) -> Path:
    """A home with a sound study beside the one that is damaged in the tests."""
    shutil.copy(empty_store, home)
    with closing(Ledger(home / "ledger.db")) as ledger:
        FilledLedger(ledger, make_spec("sound", dataset="digits")).add(2.0, wrong=[1])
    return home


DAMAGE = {
    "settings": (
        "UPDATE studies SET spec = json_set(spec, '$.baseline_seeds', -1) WHERE study = 'study'",
        "baseline_seeds is -1",
    ),
    "a name": ("UPDATE studies SET study = '../../x' WHERE study = 'study'", "column study is '../../x'"),
    "bytes": ("UPDATE studies SET spec = CAST(x'7bff' AS TEXT) WHERE study = 'study'", "UTF-8"),
    "bytes in a name": ("UPDATE studies SET study = CAST(x'61ff' AS TEXT) WHERE study = 'study'", "xff"),
    "a result": ("UPDATE attempts SET result = '{' WHERE uid = 'study-0'", "column result is '{'"),
}
ALL = [["status"], ["leaderboard"], ["leaderboard", "--out", "all.csv"], ["sync"]]


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_a_study_that_cannot_be_read_is_named_and_left_out(
    mixed: Path, what: str, command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    change, why = DAMAGE[what]
    edit(mixed, change)
    assert main(command) == 1
    out, err = capfd.readouterr()
    assert "sound" in (out if command[-1] != "all.csv" else (mixed / "all.csv").read_text())
    assert err.startswith("harness: study ")
    assert " is left out: ledger " in err
    assert why in err
    assert "`harness doctor --remove STUDY`" in err
    assert err.count("\n") == 1
    assert main(["status", "sound"]) == 0


@pytest.mark.parametrize("what", DAMAGE)
def test_a_study_that_cannot_be_read_can_be_removed(mixed: Path, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    edit(mixed, DAMAGE[what][0])
    main(["status"])
    _, _, name, *_ = capfd.readouterr().err.split(" ")
    assert main(["doctor", "--remove", name]) == 0
    out = capfd.readouterr().out
    copy = Path(re.search(r"is kept as (\S+)\n", out)[1])
    assert copy.parent == mixed
    assert main(["status"]) == 0
    assert main(["doctor", "--audit", "sound"]) == 1
    assert "ledger: " not in capfd.readouterr().out  # it has no run in MLflow, and nothing else
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("SELECT count(*) FROM trials").fetchone() == (7,)
    with closing(sqlite3.connect(mixed / "ledger.db")) as db:
        assert db.execute("SELECT DISTINCT uid FROM trials").fetchall() == [("sound-0",)]
        assert db.execute("SELECT study FROM studies").fetchall() == [("sound",)]


def test_a_removed_study_takes_along_what_is_remembered_of_its_runs(mixed: Path) -> None:
    with closing(Ledger(mixed / "ledger.db")) as ledger:
        for uid in ("study", "study-0", "sound", "sound-0"):
            ledger.set_tracked(uid, "run", "completed")
        assert remove(mixed, "study").num_trials == 6
        assert [uid for uid in ("study", "study-0", "sound", "sound-0") if ledger.tracked(uid)] == ["sound", "sound-0"]
        with pytest.raises(InputError, match=r"study is 'study'; allowed: sound; did"):
            remove(mixed, "study")
        FilledLedger(ledger, make_spec(dataset="digits")).add(1.0)  # its name is free


def test_a_study_in_use_is_not_removed(mixed: Path) -> None:
    with study_lock(mixed, "study"), pytest.raises(InUseError, match="study study is in use"):
        remove(mixed, "study")
    assert sorted(file.name for file in mixed.glob("ledger.db*") if not file.name.endswith(("-wal", "-shm"))) == [
        "ledger.db"
    ]


def test_a_sweep_beside_a_study_that_cannot_be_read_goes_on(
    mixed: Path, digits_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(digits_folder.parent))
    edit(mixed, DAMAGE["settings"][0])
    assert main(["sweep", "smoke", "--trials", "1", "--workers", "1"]) == 0
    assert "study study is left out: ledger " in capfd.readouterr().out
    with closing(Ledger(mixed / "ledger.db")) as ledger:
        assert len(ledger.history("smoke-quick")) == 3


def test_a_changed_trial_is_not_taken_for_a_changed_attempt(mixed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(mixed / "ledger.db")) as db, db:
        db.execute("UPDATE trials SET seed = seed + 1 WHERE uid = 'study-2'")
    assert main(["status", "study"]) == 1
    why = "table trials, row 'study-2' (trial 2 of study), is not as it was written: its checksum differs"
    assert why in capfd.readouterr().err


def test_a_row_that_was_changed_is_named_and_the_audit_and_the_doctor_say_so(
    mixed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """To a value that could have been written: only its checksum tells."""
    with closing(sqlite3.connect(mixed / "ledger.db")) as db, db:
        db.execute("UPDATE attempts SET reserved_time_s = reserved_time_s + 1 WHERE uid = 'study-2'")
    why = "table attempts, row 'study-2/1'"
    assert main(["leaderboard", "study", "--out", "-"]) == 1
    assert f"{why} (trial 2 of study), is not as it was written: its checksum differs" in capfd.readouterr().err
    assert main(["doctor", "--audit", "study"]) == 1
    assert f"study: ledger: {why}, is not as it was written" in capfd.readouterr().out
    assert [finding.text for finding in examine(mixed) if finding.level is Level.PROBLEM and why in finding.text]
    assert main(["leaderboard", "sound", "--out", "-"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("DELETE FROM epochs WHERE uid = 'study-2' AND epoch = 1", "rows of 'study-2' (trial 2 of study): 2 are"),
        ("DELETE FROM attempts WHERE uid = 'study-2'", "column num_events is 11; its trials make 10: rows are missing"),
        ("DELETE FROM trials WHERE uid = 'study-5'", "column num_events is 11; its trials make 10: rows are missing"),
    ],
)
def test_rows_that_are_missing_are_noticed_by_whoever_reads_a_study(mixed: Path, change: str, message: str) -> None:
    with closing(sqlite3.connect(mixed / "ledger.db")) as db, db:
        assert db.execute(change).rowcount == 1
    with closing(Ledger(mixed / "ledger.db")) as ledger:
        for read in (ledger.history, ledger.finished):
            with pytest.raises(DamageError) as caught:
                list(read("study"))
            assert message in str(caught.value)
        assert len(ledger.history("sound")) == 1
