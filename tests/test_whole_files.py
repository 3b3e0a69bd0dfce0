"""Files written whole, and what a file that is named may be: a link, a pipe, a device, nothing that is lost by it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from filled_ledger import FilledLedger, make_spec

from harness.analysis.files import replaced, write_csv
from harness.cli import main
from harness.errors import TroubleError
from harness.ledger.ledger import Ledger

TABLE = pd.DataFrame({"a": [1]})
NULL, FULL = os.makedev(1, 3), os.makedev(1, 7)


def test_a_reader_keeps_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "board.csv"
    path.write_text("old")
    with path.open() as reader:
        write_csv(TABLE, path)
        assert reader.read() == "old"
    assert path.read_text() == "a\n1\n"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "board.csv"
    path.write_text("old")

    def fail() -> None:
        with replaced(path) as unfinished:
            unfinished.write_text("half")
            assert path.read_text() == "old"
            raise OSError(28, "No space left on device")

    with pytest.raises(TroubleError, match=r"cannot write .*board.csv: No space left on device"):
        fail()
    assert [(name.name, name.read_text()) for name in tmp_path.iterdir()] == [("board.csv", "old")]


def test_what_a_killed_process_left_of_a_file_goes_with_the_next_write(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    names = [f".a[1].csv.{process}.unfinished" for process in (ended.pid, os.getppid())] + [".b.csv.1.unfinished"]
    for name in names:
        (tmp_path / name).touch()
    write_csv(TABLE, tmp_path / "a[1].csv")
    assert {path.name for path in tmp_path.iterdir()} == {"a[1].csv", *names[1:]}


def test_a_folder_that_cannot_be_is_trouble_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TroubleError, match=r"^cannot write .*: (File exists|Not a directory).*$"):
        write_csv(TABLE, tmp_path / "file" / "board.csv")


# What stands there already


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_a_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "board.csv"
    path.write_text("old")
    path.chmod(mode)
    with replaced(path) as unfinished:
        assert stat.S_IMODE(unfinished.stat().st_mode) == 0o600, "nobody else reads it meanwhile"
        unfinished.write_text("new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "board.csv"
    path.write_text("old")
    os.chown(path, 12345, 23456)
    write_csv(TABLE, path)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


def test_a_new_file_has_the_usual_mode(tmp_path: Path) -> None:
    write_csv(TABLE, tmp_path / "board.csv")
    (tmp_path / "other").touch()
    assert (tmp_path / "board.csv").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_may_not_be_written_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "board.csv"
    path.write_text("old")
    path.chmod(0o400)
    with pytest.raises(TroubleError, match=r"board\.csv: it is read-only$"):
        write_csv(TABLE, path)
    assert path.read_text() == "old"


@pytest.mark.parametrize("there", [True, False], ids=["a file", "nothing"])
def test_a_link_stays_and_leads_to_the_new_file(tmp_path: Path, there: bool) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "board.csv"
    if there:
        target.write_text("old")
    (tmp_path / "one").symlink_to("real/board.csv")
    (tmp_path / "two").symlink_to("one")
    write_csv(TABLE, tmp_path / "two")
    assert (tmp_path / "one").readlink() == Path("real/board.csv")
    assert (tmp_path / "two").readlink() == Path("one")
    assert target.read_text() == "a\n1\n"
    assert [path.name for path in target.parent.iterdir()] == ["board.csv"]


def test_links_in_a_circle_are_trouble(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(TroubleError, match="one: Too many levels of symbolic links"):
        write_csv(TABLE, tmp_path / "one")


def test_a_directory_stays(tmp_path: Path) -> None:
    (tmp_path / "board.csv").mkdir()
    with pytest.raises(TroubleError, match=r"board\.csv: it is a directory$"):
        write_csv(TABLE, tmp_path / "board.csv")
    assert (tmp_path / "board.csv").is_dir()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("is_linked", [False, True], ids=["itself", "through a link"])
def test_a_pipe_gets_the_whole_file(tmp_path: Path, is_linked: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = tmp_path / "link" if is_linked else pipe
    if is_linked:
        path.symlink_to(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    with replaced(path) as unfinished, unfinished.open("wb") as file:
        file.write(b"second")
        file.seek(0)  # as some formats are written
        file.write(b"f")
    reader.join()
    assert got == [b"fecond"]
    assert pipe.is_fifo()


def test_a_pipe_gets_nothing_of_half_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    def fail() -> None:
        with replaced(tmp_path / "pipe") as unfinished:
            unfinished.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(TroubleError, match="pipe: No space left on device"):
        fail()  # nobody reads, so opening the pipe would wait


def device(path: Path, number: int) -> Path:
    """A device of this test's own: it may be lost."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, number)
        path.open("wb").close()
    except OSError as error:
        pytest.skip(f"no device can be made here: {error}")
    return path


def test_a_device_stays_one(tmp_path: Path) -> None:
    path = device(tmp_path / "null", NULL)
    write_csv(TABLE, path)
    assert path.is_char_device()
    assert list(tmp_path.iterdir()) == [path]


# Flags


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a study; MLflow is out of reach."""
    home = tmp_path / "home"
    with closing(Ledger(home / "ledger.db")) as ledger:
        study = FilledLedger(ledger, make_spec(dataset="digits"))
        study.add_baseline(3.0)
        study.add(2.5)
    monkeypatch.setenv("HARNESS_HOME", str(home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    return home


WRITERS = [
    ["leaderboard", "study", "--out"],
    ["report", "study", "--out"],
    *(["export", "study", f"--{form}"] for form in ("csv", "json", "parquet", "study")),
]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("command", WRITERS, ids=" ".join)
def test_a_full_device_is_trouble_in_one_line(
    command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = device(tmp_path / "full", FULL)
    assert main([*command, str(path)]) == 1
    err = capfd.readouterr().err
    assert err.startswith(f"harness: cannot write {path}: No space left on device")
    assert err.count("\n") == 1
    assert path.is_char_device()


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("command", WRITERS, ids=" ".join)
@pytest.mark.parametrize(
    "named", ["new/", "new/x", "to-new", "folder", "file/x", "socket", "loop", "x" * 5000], ids=ascii
)
def test_what_can_be_no_file_is_refused(
    command: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").touch()
    Path("loop").symlink_to("loop")
    Path("to-new").symlink_to("new/x")
    os.mknod("socket", stat.S_IFSOCK)
    before = sorted(tmp_path.rglob("*"))
    assert main([*command, named]) == 2
    out, err = capfd.readouterr()
    assert err.startswith(f"harness: {command[-1]} is '")
    assert "allowed: a file" in err
    assert err.count("\n") == 1
    assert len(err) < 500
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", WRITERS, ids=" ".join)
@pytest.mark.parametrize(
    "named", ["home/ledger.db", "home/ledger.db-wal", "home/mlflow.db", "link", "hard", "home/locks/study.lock", "copy"]
)
def test_no_export_replaces_a_database_or_a_lock(
    command: list[str],
    named: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (home / "locks").mkdir(exist_ok=True)
    Path("link").symlink_to(home / "ledger.db")
    Path("hard").hardlink_to(home / "ledger.db")
    shutil.copy(home / "ledger.db", "copy")
    before = (home / "ledger.db").read_bytes()
    assert main([*command, named]) == 2
    out, err = capfd.readouterr()
    assert err == (
        f"harness: {command[-1]} is '{named}', a database or a lock, which no export replaces;"
        " allowed: a file in a folder that exists\n"
    )
    assert out == ""
    assert (home / "ledger.db").read_bytes() == before
    assert not (home / "mlflow.db").exists()


def test_a_leaderboard_goes_to_standard_output_as_into_a_file(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "study", "--out", "-"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert main(["leaderboard", "study"]) == 0
    assert out == (home / "leaderboards" / "study.csv").read_text()
