"""The sweep command as a process that is killed, signalled and started again, and what it leaves behind."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from harness.ledger.ledger import Ledger
from harness.study.records import Record

WAIT_S = 300.0
HARNESS = [sys.executable, "-m", "harness.cli"]
STUDY = "tiny"
# About a third of what is proposed breaks the limit; `endless` ones end when they are told to.
TINY = """
baseline = "fc"
dataset = "digits"
pruner = "successive_halving"
[recipe]
batch_size = 32
[space]
units_1 = { low = 4, high = 512, log = true }
units_2 = { low = 4, high = 512, log = true }
[constraints]
max_params = 100_000
[profiles.quick]
train_images = 96
validation_images = 100
baseline_seeds = 1
epochs = 3
trials = 40
[profiles.finals]
train_images = 96
validation_images = 100
baseline_seeds = 1
epochs = 3
trials = 16
finalists_share = 0.5
[profiles.endless]
train_images = 96
validation_images = 100
baseline_seeds = 2
epochs = 100_000
trials = 1
[profiles.storm]
train_images = 96
validation_images = 100
baseline_seeds = 1
epochs = 2
trials = 100_000
"""


class Started:
    """A command that runs; what it says goes to files, so that it never waits for its reader."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self._said, self._complained = folder / "said.txt", folder / "complained.txt"
        with self._said.open("wb") as said, self._complained.open("wb") as complained:
            # In a session of its own, so that it can be sent what a terminal sends to all it runs.
            self.process = subprocess.Popen(
                command, env=environment, stdout=said, stderr=complained, start_new_session=True
            )

    @property
    def output(self) -> str:
        return self._said.read_text()

    @property
    def errors(self) -> str:
        return self._complained.read_text()

    def wait(self) -> int:
        """Returns the exit status, negative for a signal."""
        return self.process.wait(WAIT_S)

    @property
    def is_listening(self) -> bool:
        """Whether the command has begun: before, it is Python that gets a signal."""
        with contextlib.suppress(FileNotFoundError):
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
            return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
        return False

    def goes_on_for(self, seconds: float) -> None:
        """Lets it work for a while, if it does not end before."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def wait_until_it_says(self, words: str, times: int = 1) -> None:
        self.wait_until(lambda: self.output.count(words) >= times)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            has_ended = self.process.poll() is not None and not condition()
            assert not has_ended, f"it has ended: {self.output}{self.errors}"
            assert time.monotonic() < deadline, f"{WAIT_S} s have passed: {self.output}{self.errors}"
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Sweeps:
    """Runs `harness sweep` on a tiny study in a home of its own.

    Args:
        folder: Gets the home and the sweep file.
        data: The data cache.
        flags: For every start.
        variables: Of the environment, for every command.
    """

    folder: Path
    data: Path
    flags: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self.file = self.folder / "tiny.toml"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file.write_text(TINY)

    def start(self, failpoint: str | None = None) -> Started:
        environment = self._environment() | ({"HARNESS_FAILPOINT": failpoint} if failpoint else {})
        command = [*HARNESS, "sweep", str(self.file), "--as", STUDY, "--workers", "1", *self.flags]
        return Started(command, environment, self.folder)

    def run_to_the_end(self) -> None:
        with self.start() as started:
            assert (started.wait(), started.errors) == (0, "")

    def harness(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command on the same home."""
        return subprocess.run(
            [*HARNESS, *arguments], env=self._environment(), capture_output=True, text=True, check=False
        )

    def _environment(self) -> dict[str, str]:
        changed = {"HARNESS_HOME": str(self.home), "HARNESS_DATA": str(self.data), "NO_COLOR": "1", **self.variables}
        kept = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "HARNESS_FAILPOINT")}
        return kept | changed

    def ask(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        """Rows of the ledger, which may not be there yet."""
        with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(self._connection()) as ledger:
            return list(ledger.execute(query, values))
        return []

    def _connection(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.home}/ledger.db?mode=ro", uri=True)

    def workers(self) -> dict[str, psutil.Process]:
        """The workers of this home that are alive, orphans too, by name."""
        found = {}
        for process in psutil.process_iter(["cmdline"]):
            if "harness.execution.worker" in (process.info["cmdline"] or []):
                with contextlib.suppress(psutil.Error):
                    variables = process.environ()
                    if variables.get("HARNESS_HOME") == str(self.home):
                        found[variables["HARNESS_WORKER"]] = process
        return found

    def assert_workers_end(self) -> None:
        """Within 5 s."""
        assert psutil.wait_procs(list(self.workers().values()), timeout=5.0)[1] == []


def ledger_story(home: Path) -> list[Any]:
    """What the ledger says of the study, less names that chance gave, times, and what was tried in vain."""
    with contextlib.closing(Ledger(home / "ledger.db")) as ledger:
        numbers = {record.trial.uid: record.trial.number for record in ledger.history(STUDY)} | {None: None}
        return [
            (_trial_story(record, numbers), _result_story(ledger.record(record.trial.uid)))
            for record in ledger.history(STUDY)
        ]


def _trial_story(record: Record, numbers: Mapping[str | None, int | None]) -> tuple[Any, ...]:
    trial = record.trial
    return (
        trial.number,
        trial.role,
        dict(trial.params),
        trial.seed,
        trial.epochs,
        numbers[trial.continues],
        record.asks,
    )


def _result_story(record: Record) -> tuple[Any, ...]:
    result = record.result
    assert result is not None
    curve = [(e.epoch, e.train_loss, e.val_loss, e.val_error_rate_pct, e.val_images) for e in result.curve]
    return result.outcome, result.error, result.error_rate_pct, result.num_params, result.wrong_images, curve


def runs_story(home: Path) -> dict[str, Any]:
    """What MLflow shows, by the runs' names."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiments = [experiment for experiment in client.search_experiments() if experiment.name != "Default"]
    assert [experiment.name for experiment in experiments] == [STUDY]
    runs = client.search_runs([experiments[0].experiment_id], max_results=1000)
    story = {run.info.run_name: _run_story(client, run) for run in runs}
    assert len(story) == len(runs)
    return story


VARYING_TAGS = {"trial_uid", "attempts", "curve_since_attempt", "continues", "continues_run_id", "mlflow.parentRunId"}
VARYING_TAGS |= {"mlflow.note.content", "mlflow.source.git.commit"}
VARYING_METRICS = {"images_per_s", "peak_memory_mb"}


def _run_story(client: Any, run: Any) -> tuple[Any, ...]:
    fixed = [key for key in run.data.metrics if not (key.endswith("_time_s") or key.startswith("system/"))]
    metrics = {key for key in fixed if key not in VARYING_METRICS}
    histories = {key: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, key)] for key in metrics}
    tags = {key: value for key, value in run.data.tags.items() if key not in VARYING_TAGS}
    return (
        run.info.status,
        run.data.params,
        histories,
        tags,
        [data.dataset.digest for data in run.inputs.dataset_inputs],
    )


VARYING_COLUMNS = {"run_id", "git_commit", "attempts", "reserved_time_s", "device_time_s", "gpu_time_s", "rank"}
VARYING_COLUMNS |= {"started_at", "ended_at"}


def table_story(home: Path) -> dict[str, dict[str, str]]:
    """The leaderboard file by trial; equal errors may be ranked by what took how long."""
    with (home / "leaderboards" / f"{STUDY}.csv").open() as file:
        rows = {row["trial"]: row for row in csv.DictReader(file)}
    return {
        trial: {key: cell for key, cell in row.items() if key not in VARYING_COLUMNS} for trial, row in rows.items()
    }
