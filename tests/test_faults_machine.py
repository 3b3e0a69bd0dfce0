"""The machine fails: no room on the disk, no memory, a worker that hangs, a clock that jumps, a home that has moved.

Each fault is real and brought about from outside, while the command runs as people run it.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from filled_ledger import FilledLedger, make_spec
from killed_sweeps import Started
from machine import MemoryGroup, SmallDisk, limit_memory, without_network
from test_execution import Driver

from harness.execution import local
from harness.execution.base import Job, Place
from harness.execution.local import LocalExecutor
from harness.ledger.ledger import Ledger
from harness.study.records import Outcome, Trial
from harness.study.spec import SweepSpec
from harness.support import atomic_files

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
QUERY = """
import contextlib, json, sqlite3, sys
path, query = sys.argv[1:]
try:
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows = db.execute(query).fetchall()
except sqlite3.OperationalError:
    rows = []
print(json.dumps(rows))
"""


class Home:
    """A home, a sweep file beside it, and the command that works on them.

    Args:
        folder: Where the home lies.
        data: The data cache.
        sweep: What the sweep file says.
        disk: Commands run where it is mounted, if there is one.

    Attributes:
        group: Commands run in it, if there is one.
    """

    def __init__(
        self,
        folder: Path,
        data: Path,
        sweep: str = SWEEP,
        disk: SmallDisk | None = None,
    ) -> None:
        self._outputs, self._disk = folder, disk
        self.group: MemoryGroup | None = None
        self.environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
        self.environment |= {"HARNESS_DATA": str(data), "NO_COLOR": "1"}
        self.move(folder / "höme #1 & 'more' [x];")
        (folder / "tiny.toml").write_text(sweep)
        self.command_to_sweep = ("sweep", str(folder / "tiny.toml"), "--as", "tiny")

    def move(self, folder: Path) -> None:
        self.folder = folder
        self.environment["HARNESS_HOME"] = str(folder)

    def start_sweep(self, *flags: str) -> Started:
        return Started(self._command(*self.command_to_sweep, *flags), self.environment, self._outputs)

    def sweep(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return self.run(*self.command_to_sweep, *flags)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(*arguments), env=self.environment, capture_output=True, text=True, timeout=WAIT_S, check=False
        )

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the ledger, none before it is there; asked where the disk is mounted."""
        command = [sys.executable, "-c", QUERY, str(self.folder / "ledger.db"), query]
        found = subprocess.run(self._inside(command), capture_output=True, check=True)
        return [tuple(row) for row in json.loads(found.stdout)]

    def assert_sound(self) -> None:
        audit = self.run("doctor", "--audit", "tiny")
        assert audit.returncode == 0, audit.stdout + audit.stderr

    def _command(self, *arguments: str) -> list[str]:
        return self._inside([sys.executable, "-m", "harness.cli", *arguments])

    def _inside(self, command: list[str]) -> list[str]:
        command = self.group.inside(*command) if self.group else command
        return self._disk.inside(*command) if self._disk else command


@pytest.fixture(scope="module")
def data(digits_folder: Path) -> Path:
    return digits_folder.parent


def assert_one_line(said: str, *words: str) -> None:
    """An error as people should see it."""
    assert said.startswith("harness: "), said
    assert said.count("\n") == 1, said
    assert all(word in said for word in words), said


def workers(sweep: Started) -> list[psutil.Process]:
    children = psutil.Process(sweep.process.pid).children()
    return [child for child in children if "harness.execution.worker" in child.cmdline()]


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
    with disk.full():
        first = home.sweep()
        assert first.returncode == 1
        assert_one_line(first.stderr, "cannot write ", ": No space left on device; is there room")
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
    assert "nothing to run, since all searched trials of the budget are done; --trials" in again.stdout
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
        assert "No space left on device; the sweep continues, its runs follow" in full.stdout
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_no_room_for_what_a_command_prints(tmp_path: Path, data: Path) -> None:
    home = Home(tmp_path, data)
    command = [sys.executable, "-m", "harness.cli", "status"]
    with Path("/dev/full").open("w") as full:
        status = subprocess.run(
            command, env=home.environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert status.returncode == 1
    assert_one_line(status.stderr, "No space left on device")


# Want of memory

HUGE = 16_384
WIDE = SWEEP.replace("high = 512", f"high = {HUGE}")


def tables(*trials: dict[str, float]) -> str:
    """Configurations to be tried first, as a file for --enqueue."""
    return "\n".join(
        "[[trial]]\n" + "\n".join(f"{name} = {value}" for name, value in trial.items()) for trial in trials
    )


@pytest.fixture
def ill_sized(tmp_path: Path, data: Path) -> Home:
    """Has a network that needs 4 GB among small ones."""
    home = Home(tmp_path, data, WIDE.replace("baseline_seeds = 1", "baseline_seeds = 2"))
    small = [{"units_1": width, "units_2": width} for width in (8, 9, 10, 11, 12)]
    (tmp_path / "first.toml").write_text(tables(*small[:4], {"units_1": HUGE, "units_2": HUGE}, small[4]))
    return home


def assert_one_trial_lacked_memory(home: Home) -> None:
    """Once and for all, and no other felt it."""
    attempts = home.ask("SELECT number, attempt, outcome FROM attempts JOIN trials USING (uid) ORDER BY number")
    assert attempts == [(n, 1, "out_of_memory" if n == 6 else "completed") for n in range(8)]
    home.assert_sound()


def test_a_trial_that_the_kernel_kills_for_its_memory(ill_sized: Home, tmp_path: Path) -> None:
    try:
        group = MemoryGroup(limit_mb=3000)
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    with group:
        ill_sized.group = group
        done = ill_sized.sweep("--workers", "2", "--trials", "6", "--enqueue", str(tmp_path / "first.toml"))
        assert (done.returncode, done.stderr) == (0, "")
    ill_sized.group = None
    assert_one_trial_lacked_memory(ill_sized)
    assert ill_sized.ask("SELECT json_extract(result, '$.error') FROM attempts WHERE outcome = 'out_of_memory'") == [
        ("worker killed for want of memory",)
    ]


def test_a_trial_that_is_refused_memory(ill_sized: Home, tmp_path: Path) -> None:
    with ill_sized.start_sweep("--workers", "2", "--trials", "6", "--enqueue", str(tmp_path / "first.toml")) as sweep:
        sweep.wait_until(lambda: len(ill_sized.ask("SELECT DISTINCT worker FROM attempts")) == 2)
        for worker in workers(sweep):
            limit_memory(worker.pid, more_mb=300)
        assert (sweep.wait(), sweep.errors) == (0, "")
    assert_one_trial_lacked_memory(ill_sized)
    (error,) = ill_sized.ask("SELECT json_extract(result, '$.error') FROM attempts WHERE outcome = 'out_of_memory'")
    assert "OOM when allocating tensor" in error[0] or error[0] == "worker killed for want of memory"


# Trials that go wrong


def test_a_trial_that_hangs_and_one_whose_loss_is_no_number(tmp_path: Path, data: Path) -> None:
    rates = SWEEP.replace("[space]\n", "[space]\nlearning_rate = { low = 1e-3, high = 1e9, log = true }\n")
    home = Home(tmp_path, data, 'trial_timeout = "15s"\n' + rates)
    wild = {"units_1": 64, "units_2": 64, "learning_rate": 1e9}
    tame = {"units_1": 64, "units_2": 64, "learning_rate": 1e-3}
    (tmp_path / "first.toml").write_text(tables(wild, tame, {**tame, "units_1": 65}))
    with home.start_sweep("--workers", "1", "--trials", "3", "--enqueue", str(tmp_path / "first.toml")) as sweep:
        sweep.wait_until_it_says("trial 1 ")
        (worker,) = workers(sweep)
        worker.suspend()
        assert (sweep.wait(), sweep.errors) == (0, "")
        assert not worker.is_running()
    outcomes = home.ask("SELECT number, attempt, outcome FROM attempts JOIN trials USING (uid) ORDER BY number")
    assert outcomes == [(0, 1, "completed"), (1, 1, "diverged"), (2, 1, "timed_out"), (3, 1, "completed")]
    assert home.ask("SELECT count(*) FROM epochs JOIN trials USING (uid) WHERE number = 1") == [(1,)]
    (held_s,) = home.ask("SELECT reserved_time_s FROM attempts WHERE outcome = 'timed_out'")[0]
    assert held_s >= 15.0
    with (home.folder / "leaderboards/tiny.csv").open() as file:
        ranks = {int(row["trial"]): row["rank"] for row in csv.DictReader(file)}
    assert ranks[1] == ranks[2] == ""
    assert ranks[3]
    home.assert_sound()


# Killed while a file is written

TABLE_WRITER = """
import itertools, pathlib, sys
import pandas as pd
from harness.analysis.files import write_csv
tables = [pd.DataFrame({"column": [letter * 50] * 20_000}) for letter in "ab"]
for table in itertools.cycle(tables):
    write_csv(table, pathlib.Path(sys.argv[1]))
    print("written", flush=True)
"""
WEIGHTS_WRITER = """
import itertools, pathlib, sys
import keras, numpy as np
from harness.execution.training.trainer import save_checkpoint
model = keras.Sequential([keras.Input((1000,)), keras.layers.Dense(1000, use_bias=False)])
model.compile("adam")
model.optimizer.build(model.trainable_variables)
for value in itertools.cycle([1.0, 2.0]):
    model.set_weights([np.full((1000, 1000), value)])
    save_checkpoint(model, pathlib.Path(sys.argv[1]))
    print("written", flush=True)
"""


def read_table(path: Path) -> None:
    with path.open() as file:
        header, *rows = csv.reader(file)
    assert header == ["column"]
    assert (len(rows), len({cell for row in rows for cell in row})) == (20_000, 1)


def read_weights(path: Path) -> None:
    with np.load(path, allow_pickle=False) as saved:
        arrays = [saved[name] for name in saved.files]
    assert [array.shape for array in arrays] == [(1000, 1000), (), (), (1000, 1000), (1000, 1000)]
    assert np.ptp(arrays[0]) == 0.0


@pytest.mark.parametrize(
    ("writer", "read", "num_kills"),
    [(TABLE_WRITER, read_table, 10), (WEIGHTS_WRITER, read_weights, 3)],
    ids=["table", "weights"],
)
def test_a_reader_never_sees_half_a_file(
    tmp_path: Path, writer: str, read: Callable[[Path], None], num_kills: int
) -> None:
    path, chance = tmp_path / "file", random.Random(0)
    num_left = 0
    for _ in range(num_kills):
        command = [sys.executable, "-c", writer, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"written\n"
            assert len(list(atomic_files.leftovers(tmp_path))) == 0, "what the one before left is gone"
            for _ in range(chance.randrange(1, 20)):
                read(path)
            process.kill()
        read(path)
        num_left += len(list(atomic_files.leftovers(tmp_path)))
    assert num_left > 0, "the kills did come while it was writing"
    with atomic_files.replaced(path) as unfinished:
        unfinished.touch()
    assert list(tmp_path.iterdir()) == [path]


# A home that cannot be written, and one that has moved


def test_a_home_that_may_only_be_read(disk: SmallDisk, tmp_path: Path, data: Path) -> None:
    home = Home(tmp_path, data, disk=disk)
    home.folder.symlink_to(disk.folder)
    with contextlib.closing(Ledger(tmp_path / "ledger.db")) as ledger:
        FilledLedger(ledger, make_spec("tiny")).add_baseline(3.0)
    disk.outside(disk.folder / "ledger.db").write_bytes((tmp_path / "ledger.db").read_bytes())
    disk.remount("ro")
    for command in (home.command_to_sweep, ("status",), ("leaderboard",), ("sync",), ("doctor", "--audit", "tiny")):
        refused = home.run(*command)
        assert refused.returncode == 1
        assert_one_line(refused.stderr, "ledger.db: unable to open database file; is the folder writable")


def test_a_home_that_has_moved(tmp_path: Path, data: Path) -> None:
    home = Home(tmp_path, data)
    with contextlib.closing(Ledger(home.folder / "ledger.db")) as ledger:
        FilledLedger(ledger, make_spec("tiny")).add_baseline(3.0)
    assert home.run("sync").returncode == 0
    old, new = home.folder, tmp_path / "elsewhere" / "new home"
    new.parent.mkdir()
    home.move(old.rename(new))
    moved = home.run("sync")
    assert moved.returncode == 1
    assert f"{new} has moved: MLflow still looks for artifacts of tiny in {old.as_uri()}" in moved.stdout
    assert "without mlflow.db, `harness sync` makes it again" in moved.stdout
    for file in new.glob("mlflow.db*"):
        file.unlink()
    assert home.run("sync").returncode == 0
    assert home.run("leaderboard").returncode == 0
    assert not old.exists()
    home.assert_sound()


# Many trials in one worker


@pytest.fixture
def driver(smoke: SweepSpec, digits_folder: Path, tmp_path: Path) -> Iterator[Driver]:
    """One worker."""
    executor = LocalExecutor(smoke, [Place("worker-0", "a processor", 2, 1)], digits_folder, tmp_path)
    with contextlib.closing(executor):
        yield Driver(executor)


def widths(number: int) -> Trial:
    """Every one of another shape, which is traced anew."""
    return Trial(f"uid-{number}", number, {"units_1": 16 + number, "units_2": 300 - number}, seed=number, epochs=1)


def the_worker() -> psutil.Process:
    (worker,) = (p for p in psutil.Process().children() if "harness.execution.worker" in p.cmdline())
    return worker


def test_a_worker_needs_no_more_memory_for_its_200th_trial(driver: Driver) -> None:
    memory_mb, took_s = [], []
    for number in range(200):
        started = time.monotonic()
        assert driver.finish(driver.start(Job(widths(number)))).outcome is Outcome.COMPLETED
        took_s.append(time.monotonic() - started)
        memory_mb.append(the_worker().memory_info().rss / 2**20)
    ratio = statistics.median(took_s[-10:]) / statistics.median(took_s[1:11])
    print(f"\nmemory of the worker {memory_mb[19]:.0f} MB after 20 trials, {memory_mb[-1]:.0f} MB after 200")
    print(f"the last ten trials took {ratio:.2f} times as long as the first ten")
    assert memory_mb[-1] - memory_mb[19] < 250


def test_a_worker_that_has_grown_is_replaced_and_nothing_is_lost(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = [widths(number) for number in range(3)]
    kept = [driver.finish(driver.start(Job(trial))) for trial in trials]
    monkeypatch.setattr(local, "MAX_WORKER_MEMORY_MB", 1.0)
    driver.wait_until_idle()
    ids, recycled = set(), []
    for trial in trials:
        worker = driver.start(Job(trial))
        ids.add(the_worker().pid)
        recycled.append(driver.finish(worker))
    assert len(ids) == len(trials)
    assert [result.error_rate_pct for result in recycled] == [result.error_rate_pct for result in kept]


# No data


def test_no_data_and_no_network(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    home = Home(tmp_path, cache, SWEEP.replace('dataset = "digits"\n', ""))
    home.environment["KERAS_HOME"] = str(tmp_path / "keras")
    (cache / "mnist").mkdir(parents=True)
    (cache / "mnist/mnist.npz").write_bytes(b"a user's file, cut short")
    command = without_network(sys.executable, "-m", "harness.cli", *home.command_to_sweep)
    sweep = subprocess.run(command, env=home.environment, capture_output=True, text=True, check=False)
    assert sweep.returncode == 1
    said = sweep.stderr.splitlines()
    assert said[0] == "harness: no place has this data set; tried:"
    assert f"  {cache}/mnist/mnist.npz: File is not a zip file" in said
    assert said[-1].startswith("Put mnist.npz as Keras keeps it, or ")
    assert f"into {cache}/mnist and try again" in said[-1]
    assert not home.folder.exists(), "nothing was begun"
    assert (cache / "mnist/mnist.npz").read_bytes() == b"a user's file, cut short"
