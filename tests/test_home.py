"""Where state lies, and what cannot hold it."""

from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import InputError
from harness.support.home import home, project_root


def test_state_lies_in_the_checkout_unless_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_HOME", raising=False)
    assert home() == project_root() / "mlruns"


@pytest.mark.parametrize(
    ("moved", "expected"),
    [("state", "here/state"), ("../state", "state"), ("~/state", "user/state"), ("a b ü #&'", "here/a b ü #&'")],
)
def test_a_moved_home_is_one_place_wherever_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: str, expected: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("HARNESS_HOME", moved)
    assert home() == tmp_path / expected


@pytest.mark.parametrize("name", ["100%", "a%20b", "what?"])
def test_a_path_that_addresses_cannot_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / name / "state"))
    with pytest.raises(InputError, match=r"^HARNESS_HOME is '.*/state'; allowed: a path without \? and %"):
        home()


def test_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"^HARNESS_HOME is '.*/file', which is a file; allowed: a folder"):
        home()


NOTHING_THERE = [
    (["status"], 0),
    (["leaderboard"], 0),
    (["sync"], 0),
    (["status", "study"], 2),
    (["leaderboard", "study"], 2),
    (["leaderboard", "--out", "-"], 2),
    (["compare", "study", "other"], 2),
    (["report", "study"], 2),
    (["export", "study", "--csv", "study.csv"], 2),
    (["reproduce", "study", "0"], 2),
    (["verdict", "study"], 2),
    (["doctor", "--audit", "study"], 2),
    (["ui"], 2),
]


@pytest.mark.parametrize(("command", "status"), NOTHING_THERE, ids=str)
def test_reading_makes_nothing_and_says_where_it_looked(
    command: list[str], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_HOME", "misspelt")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(command) == status
    out, err = capfd.readouterr()
    line = err if status else out
    assert line.count("\n") == 1
    assert f"{tmp_path / 'misspelt'}" in line
    assert "which is not there; " in line
    assert "`harness sweep` makes" in line
    assert list(tmp_path.iterdir()) == []


def test_without_a_study_there_are_none_for_programs_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    assert main(["status", "--json"]) == 0
    assert capfd.readouterr().out == "[]\n"
    assert main(["status"]) == 0
    assert capfd.readouterr().out == f"studies: none yet in {tmp_path}; `harness sweep` makes one\n"
    assert list(tmp_path.iterdir()) == []
