"""Where state lies, and what cannot hold it."""

from pathlib import Path

import pytest

from harness.errors import InputError
from harness.home import home, project_root


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
