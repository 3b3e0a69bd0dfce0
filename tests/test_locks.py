"""One process works on a study, and whatever an earlier one has left behind holds nobody up."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from filelock import Timeout

from harness.errors import TroubleError
from harness.ledger.ledger import Ledger
from harness.ledger.locks import InUseError, runs_lock, study_lock
from harness.support.home import sweeps_folder

Lock = Callable[[Path, str], AbstractContextManager[None]]
HOLD = """
import sys
from pathlib import Path
from harness.ledger import locks
with getattr(locks, sys.argv[1])(Path(sys.argv[2]), "study"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(lock: Lock, home: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock of `study`."""
    command = [sys.executable, "-c", HOLD, lock.__name__, str(home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_study_in_use_is_refused_with_who_has_it_and_since_when(tmp_path: Path) -> None:
    with holder(study_lock, tmp_path) as other, pytest.raises(InUseError) as caught, study_lock(tmp_path, "study"):
        pytest.fail("both have it")
    line = (
        rf"study study is in use by process {other.pid} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d; wait for it, or stop it"
    )
    assert re.fullmatch(line, str(caught.value))


def test_runs_in_hand_are_refused(tmp_path: Path) -> None:
    with (
        holder(runs_lock, tmp_path),
        pytest.raises(InUseError, match=r"^study: another process is bringing its runs to MLflow$"),
        runs_lock(tmp_path, "study"),
    ):
        pytest.fail("both have it")


@pytest.mark.parametrize("lock", [study_lock, runs_lock])
def test_other_studies_and_other_homes_are_free(tmp_path: Path, lock: Lock) -> None:
    with holder(lock, tmp_path), lock(tmp_path, "other"), lock(tmp_path / "other home", "study"):
        pass


@pytest.mark.parametrize("lock", [study_lock, runs_lock])
def test_a_killed_holder_leaves_no_lock(tmp_path: Path, lock: Lock) -> None:
    with holder(lock, tmp_path) as other:
        other.kill()
        other.wait()
        with lock(tmp_path, "study"):
            pass


@pytest.mark.parametrize("left", [json.dumps({"pid": os.getppid(), "since": "2001-01-01 00:00:00"}), "", "{", "[1]"])
def test_what_lies_there_from_before_a_reboot_is_taken_over(tmp_path: Path, left: str) -> None:
    """The id may be another process's by now, alive and well; only the operating system knows who holds a lock."""
    folder = tmp_path / "locks"
    folder.mkdir()
    for name in ("study.lock", "study.mlflow", "study.json"):
        (folder / name).write_text(left)
    with study_lock(tmp_path, "study"), runs_lock(tmp_path, "study"):
        assert json.loads((folder / "study.json").read_text())["pid"] == os.getpid()
    assert not (folder / "study.json").exists()


@pytest.mark.parametrize("left", ["", "{", "[1]", '{"pid": "x\\ny", "since": 1}'])
def test_without_a_readable_holder_the_refusal_is_still_one_line(tmp_path: Path, left: str) -> None:
    with holder(study_lock, tmp_path):
        (tmp_path / "locks" / "study.json").write_text(left)
        with (
            pytest.raises(InUseError, match=r"^study study is in use by another process; wait"),
            study_lock(tmp_path, "study"),
        ):
            pytest.fail("both have it")


@pytest.mark.parametrize("lock", [study_lock, runs_lock])
@pytest.mark.parametrize("error", [ValueError, Timeout])
def test_what_goes_wrong_inside_frees_the_lock(tmp_path: Path, lock: Lock, error: type[Exception]) -> None:
    with pytest.raises(error), lock(tmp_path, "study"):
        raise error("inside")
    with lock(tmp_path, "study"):
        pass


@pytest.mark.parametrize("lock", [study_lock, runs_lock])
def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path, lock: Lock) -> None:
    (tmp_path / "locks").write_text("in the way")
    with pytest.raises(TroubleError, match=r"^cannot write .*locks: File exists; is there room"), lock(tmp_path, "a"):
        pytest.fail("there is no folder")


def harness(*arguments: str, env: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", "harness.cli", *arguments]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_first_starts_at_once_in_an_empty_home_all_work(
    tmp_path: Path, environment_of: Callable[[Path], dict[str, str]]
) -> None:
    home = tmp_path / "home"
    env = environment_of(home)
    studies = ["one", "two", "three", "four"]
    sweeps = [harness("sweep", "smoke", "--as", study, "--trials", "1", "--workers", "1", env=env) for study in studies]
    for sweep in sweeps:
        output, _ = sweep.communicate()
        assert sweep.returncode == 0, output
    # On a busy machine MLflow is still behind when a sweep ends, which says so.
    output, _ = (sync := harness("sync", env=env)).communicate()
    assert sync.returncode == 0, output
    with closing(Ledger(home / "ledger.db")) as ledger:
        assert sorted(ledger.study_names()) == sorted(studies)
        for study in studies:
            assert [record.result is not None for record in ledger.history(study)] == [True] * 3
            assert (len(ledger.run_ids(study)), ledger.untracked(study)) == (3, [])


@pytest.mark.slow
def test_a_file_changed_under_a_running_study_is_refused_and_the_study_goes_on(
    tmp_path: Path, environment_of: Callable[[Path], dict[str, str]]
) -> None:
    env = environment_of(tmp_path / "home")
    text = (sweeps_folder() / "smoke.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with harness("sweep", str(path), "--trials", "2", env=env) as running:
        while "started" not in (line := running.stdout.readline()):
            assert line, "the sweep ended before its first trial"
        same = harness("sweep", str(path), "--trials", "2", env=env)
        in_use, _ = same.communicate()
        path.write_text(text.replace("high = 512", "high = 1024"))
        other = harness("sweep", str(path), "--trials", "2", env=env)
        refused, _ = other.communicate()
        running.stdout.read()
        assert running.wait() == 0
    assert (same.returncode, f"mine-quick is in use by process {running.pid} since 2" in in_use) == (1, True)
    assert (other.returncode, "mine-quick was started with other settings (space)" in refused) == (2, True)
    with closing(Ledger(tmp_path / "home" / "ledger.db")) as ledger:
        assert len(ledger.history("mine-quick")) == 4
        assert ledger.study("mine-quick").spec.space["units_1"]["high"] == 512
    beside, _ = (second := harness("sweep", str(path), "--as", "wider", "--trials", "1", env=env)).communicate()
    assert second.returncode == 0, beside
