"""The machine fails: no room on the disk, no memory, a worker that hangs, a clock that jumps, a home that has moved.

Each fault is real and brought about from outside, while the command runs as people run it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filled_ledger import FilledLedger, make_spec
from killed_sweeps import Started
from machine import SmallDisk

from harness.ledger import Ledger

pytestmark = pytest.mark.slow

WAIT_S = 600.0

SWEEP = """
baseline = "fc"
dataset = "digits"
pruner = "none"
[recipe]
batch_size = 32
[space]
units_1 = { low = 8, high = 512, log = true }
units_2 = { low = 8, high = 512, log = true }
[profiles.quick]
train_images = 200
validation_images = 100
baseline_seeds = 1
epochs = 3
trials = 4
"""


class Home:
    """A home, a sweep file beside it, and the command that works on them.

    Args:
        folder: Where the home lies.
        data: The data cache.
        sweep: What the sweep file says.
        disk: Commands run where it is mounted, if there is one.
        runner: What else commands are run by.
    """

    def __init__(
        self,
        folder: Path,
        data: Path,
        sweep: str = SWEEP,
        disk: SmallDisk | None = None,
    ) -> None:
        self.folder, self._outputs, self._disk = folder / "home", folder, disk
        self.environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
        self.environment |= {"HARNESS_HOME": str(self.folder), "HARNESS_DATA": str(data), "NO_COLOR": "1"}
        (folder / "tiny.toml").write_text(sweep)
        self._sweep = ("sweep", str(folder / "tiny.toml"), "--as", "tiny")

    def start_sweep(self, *flags: str) -> Started:
        return Started(self._command(*self._sweep, *flags), self.environment, self._outputs)

    def sweep(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return self.run(*self._sweep, *flags)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(*arguments), env=self.environment, capture_output=True, text=True, timeout=WAIT_S, check=False
        )

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the ledger; asked where the disk is mounted."""
        code = (
            "import json, sqlite3, sys; print(json.dumps(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchall()))"
        )
        command = [sys.executable, "-c", code, str(self.folder / "ledger.db"), query]
        found = subprocess.run(self._inside(command), capture_output=True, check=True)
        return [tuple(row) for row in json.loads(found.stdout)]

    def assert_sound(self) -> None:
        audit = self.run("doctor", "--audit", "tiny")
        assert audit.returncode == 0, audit.stdout + audit.stderr

    def _command(self, *arguments: str) -> list[str]:
        return self._inside([sys.executable, "-m", "harness.cli", *arguments])

    def _inside(self, command: list[str]) -> list[str]:
        return self._disk.inside(*command) if self._disk else command


@pytest.fixture(scope="module")
def data(digits_folder: Path) -> Path:
    return digits_folder.parent


def assert_one_line(said: str, *words: str) -> None:
    """An error as people should see it."""
    assert said.startswith("harness: "), said
    assert said.count("\n") == 1, said
    assert all(word in said for word in words), said


# A full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    (tmp_path / "disk").mkdir()
    with SmallDisk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def home(disk: SmallDisk, tmp_path: Path, data: Path) -> Home:
    """Is to be on the disk in part."""
    home = Home(tmp_path, data, disk=disk)
    home.folder.mkdir()
    return home


def test_a_sweep_whose_disk_fills_up_stops_and_goes_on_when_there_is_room(
    disk: SmallDisk, tmp_path: Path, data: Path
) -> None:
    home = Home(tmp_path, data, disk=disk)
    home.folder.symlink_to(disk.folder)
    with home.start_sweep("--trials", "1000") as sweep:
        sweep.wait_until_it_says("trial 1 ")
        with disk.full():
            assert sweep.wait() == 1, sweep.output
            assert_one_line(
                sweep.errors, "ledger.db: ", "; what was written before is safe; mend that and run the same"
            )
            assert home.ask("PRAGMA integrity_check") == [("ok",)]
    done = home.ask("SELECT count(*) FROM attempts WHERE told_at IS NOT NULL")[0][0]
    again = home.sweep("--trials", str(done + 1))
    assert (again.returncode, again.stderr) == (0, "")
    home.assert_sound()


def test_no_room_for_the_leaderboard(home: Home, disk: SmallDisk) -> None:
    (home.folder / "leaderboards").symlink_to(disk.folder)
    with disk.full():
        full = home.sweep()
        assert full.returncode == 1
        assert_one_line(full.stderr, "tiny.csv: No space left on device; is there room")
        assert [path.name for path in disk.outside(disk.folder).iterdir()] == ["filler"]
    again = home.sweep()
    assert (again.returncode, again.stderr) == (0, "")
    assert "the budget was used before" in again.stdout
    home.assert_sound()


def test_no_room_for_a_checkpoint(home: Home, disk: SmallDisk) -> None:
    (home.folder / "checkpoints").symlink_to(disk.folder)
    rungs = ("--engine", "keras-tuner", "--sampler", "hyperband", "--trials", "6")
    with disk.full():
        full = home.sweep(*rungs)
        assert full.returncode == 1
        assert_one_line(full.stderr, "cannot write ", ".npz: No space left on device; is there room")
        assert [path.name for path in disk.outside(disk.folder / "tiny").iterdir()] == []
    outcomes = home.ask("SELECT DISTINCT outcome FROM attempts JOIN trials USING (uid) WHERE role = 'trial'")
    assert outcomes == [("cancelled",)], "no fault of the trial's"
    again = home.sweep(*rungs)
    assert (again.returncode, again.stderr) == (0, "")
    home.assert_sound()


def test_no_room_for_runs(home: Home, disk: SmallDisk) -> None:
    home.environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{disk.folder}/mlflow.db"
    with disk.full():
        full = home.sweep()
        assert (full.returncode, full.stderr) == (0, ""), "MLflow can be made anew at any time"
        assert "database or disk is full; the sweep goes on, its runs follow" in full.stdout
        assert "MLflow lacks 5 trials of tiny; `harness sync` brings that there" in full.stdout
        sync = home.run("sync")
        assert sync.returncode == 1
        assert_one_line(sync.stderr, "mlflow.db cannot be made: ")
    again = home.sweep()
    assert (again.returncode, again.stderr) == (0, "")
    home.assert_sound()


def test_no_room_for_artifacts(home: Home, disk: SmallDisk) -> None:
    with contextlib.closing(Ledger(home.folder / "ledger.db")) as ledger:
        FilledLedger(ledger, make_spec("tiny")).add_baseline(3.0)
    (home.folder / "artifacts").symlink_to(disk.folder)
    with disk.full():
        full = home.run("sync")
        assert full.returncode == 1
        assert "sweep.json was not saved to MLflow: [Errno 28] No space left on device" in full.stdout
    again = home.run("sync")
    assert (again.returncode, again.stdout) == (0, "tiny: as it should be\n")
    home.assert_sound()


def test_no_room_for_what_workers_print(home: Home, disk: SmallDisk) -> None:
    (home.folder / "logs").symlink_to(disk.folder)
    with disk.full():
        full = home.sweep()
    assert (full.returncode, full.stderr) == (0, "")
    home.assert_sound()


def test_no_room_for_the_files_that_workers_print_to(home: Home, disk: SmallDisk) -> None:
    (home.folder / "logs").symlink_to(disk.folder)
    disk.remount("nr_inodes=1")
    full = home.sweep()
    assert full.returncode == 1
    assert_one_line(full.stderr, "worker-0 cannot be started: ", "logs/tiny: No space left on device")
