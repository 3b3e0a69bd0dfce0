"""MLflow that is down, hangs, answers with errors or is locked: the sweep continues, and nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import http.client
import math
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filled_ledger import FilledLedger, make_spec
from killed_sweeps import STUDY, Started, Sweeps
from mlflow import MlflowClient
from mlflow_server import Server

from harness.audit import audit
from harness.errors import TroubleError
from harness.ledger.ledger import Ledger
from harness.study.records import EpochReport, Outcome, Seconds, TrialResult
from harness.tracking import mlflow_runs, store
from harness.tracking.mlflow_runs import Tracker, sync

pytestmark = pytest.mark.slow

WAIT_S = 120.0


@pytest.fixture(scope="module", autouse=True)
def impatient() -> Iterator[None]:
    store.set_environment()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        patch.setattr(mlflow_runs, "FIRST_WAIT_S", 0.1)
        patch.setattr(mlflow_runs, "LONGEST_WAIT_S", 0.5)
        patch.setattr(mlflow_runs, "NEWS_S", math.inf)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


class Gate(ThreadingHTTPServer):
    """Stands before an MLflow server and lets requests through, or not.

    `mode` is one of: open; hangs; 500, 429 (the request is not passed on); lost (a run is created, and the answer
    is 500).
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), GateHandler)
        self.server_behind = port
        self.mode = "open"
        self.is_closing = threading.Event()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class GateHandler(BaseHTTPRequestHandler):
    server: Gate

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        mode = self.server.mode
        if mode == "hangs":
            self.server.is_closing.wait(WAIT_S)
            return
        if mode in ("500", "429"):
            self.answer(int(mode), b'{"error_code": "INTERNAL_ERROR", "message": "out of order"}')
            return
        status, content = self.pass_on(body)
        is_lost = mode == "lost" and self.path.endswith("runs/create")
        self.answer(500 if is_lost else status, b"the answer is lost" if is_lost else content)

    do_GET = do_POST = do_PUT = do_PATCH = handle_any  # noqa: N815 - http.server's names

    def pass_on(self, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_behind, timeout=WAIT_S)
        with contextlib.closing(connection):
            headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()

    def answer(self, status: int, content: bytes) -> None:
        with contextlib.suppress(OSError):  # who asked may have given up
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if status == 429:
                self.send_header("Retry-After", "3600")
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    try:
        with Gate(server.port) as gate:
            threading.Thread(target=gate.serve_forever, daemon=True).start()
            server.wait_until_it_answers()
            yield gate
            gate.is_closing.set()
            gate.shutdown()
    finally:
        server.stop()


class Screen:
    """What people are told, with the moments of trouble and of its end."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.trouble, self.again = threading.Event(), threading.Event()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        (self.again if "again" in line else self.trouble).set()


def statuses(uri: str, study: str) -> dict[str, str]:
    """Of the runs, by name."""
    client = MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name(study).experiment_id])
    assert len({run.info.run_name for run in found}) == len(found), "two runs of one trial"
    return {run.info.run_name: run.info.status for run in found}


def names_of_runs(uri: str, study: str) -> list[str]:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    return sorted(run.info.run_name for run in client.search_runs([experiment.experiment_id]))


@pytest.mark.parametrize("mode", ["hangs", "500", "429", "lost"])
def test_a_server_that_comes_to_itself_gets_each_run_once(
    gate: Gate, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", gate.uri)
    with contextlib.closing(Ledger(tmp_path / "ledger.db")) as ledger:
        study = FilledLedger(ledger, make_spec(f"study-{mode}"))
        study.add_baseline(3.0)
        screen = Screen()
        gate.mode = mode
        tracker = Tracker(ledger.path, tmp_path, f"study-{mode}", screen)
        assert screen.trouble.wait(WAIT_S)
        study.add(2.5)
        tracker.notify()
        gate.mode = "open"
        assert screen.again.wait(WAIT_S)
        gate.mode = mode
        study.add(2.4)
        tracker.notify()
        gate.mode = "open"
        assert tracker.close(WAIT_S) == 0
    assert names_of_runs(gate.uri, f"study-{mode}") == ["baseline", f"study-{mode}", "trial-001", "trial-002"]


@pytest.mark.parametrize("mode", ["hangs", "500", "lost"])
def test_a_running_trial_has_one_run_whenever_the_server_fails(
    gate: Gate, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails when the trial is handed out, while it trains, and when it ends."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", gate.uri)
    monkeypatch.setattr(mlflow_runs, "OPEN_S", 0.01)
    name = f"running-{mode}"
    gate.mode = "open"
    with contextlib.closing(Ledger(tmp_path / "ledger.db")) as ledger:
        study = FilledLedger(ledger, make_spec(name))
        trial = study.ask()
        screen = Screen()
        tracker = Tracker(ledger.path, tmp_path, name, screen)
        attempt = 0
        for epoch in range(4):
            screen.trouble.clear()
            screen.again.clear()
            gate.mode = mode
            if epoch == 0:
                attempt = ledger.start_attempt(trial.uid, "worker-0")
            else:
                seconds = Seconds(train=1.0)
                ledger.add_epoch(trial.uid, attempt, EpochReport(epoch, 0.1, 0.2, 9.0 - epoch, 100, seconds), 1.0)
            if mode != "lost" or epoch == 0:  # later on no run is created, so no answer is lost
                assert screen.trouble.wait(WAIT_S)
            gate.mode = "open"
            if mode != "lost" or epoch == 0:
                assert screen.again.wait(WAIT_S)
        result = TrialResult(Outcome.COMPLETED, seconds=Seconds(train=3.0), num_params=1000)
        ledger.finish_attempt(trial.uid, attempt, result, 4.0, is_final=True)
        tracker.notify()
        assert tracker.close(WAIT_S) == 0
    assert statuses(gate.uri, name) == {name: "KILLED", "trial-000": "FINISHED"}
    assert audit(tmp_path, name) == []


def test_a_kill_leaves_runs_running_which_a_sync_ends_and_a_resume_continues(
    digits_folder: Path, tmp_path: Path
) -> None:
    sweeps = Sweeps(tmp_path, digits_folder.parent, ("--profile", "endless", "--workers", "2"))
    uri = store.tracking_uri(sweeps.home)

    def are_running(started: Started) -> dict[str, str]:
        """Ids of the runs of both trials once they have a curve."""
        found: dict[str, str] = {}

        def look() -> bool:
            client = MlflowClient(tracking_uri=uri)
            experiment = client.get_experiment_by_name(STUDY) if (sweeps.home / "mlflow.db").exists() else None
            runs = client.search_runs([experiment.experiment_id]) if experiment else []
            trained = [run for run in runs if run.info.status == "RUNNING" and "epoch/train_loss" in run.data.metrics]
            found.update({run.info.run_name: run.info.run_id for run in trained})
            return len(trained) == 2

        started.wait_until(look)
        return found

    with sweeps.start() as started:
        first = are_running(started)
        table = sweeps.harness("status").stdout
        assert "  running   baseline 0, epoch " in table
        assert "            baseline 1, epoch " in table
    assert set(statuses(uri, STUDY).values()) == {"RUNNING"}
    assert "running" not in sweeps.harness("status").stdout
    assert sweeps.harness("sync").returncode == 0
    assert set(statuses(uri, STUDY).values()) == {"KILLED"}
    (line,) = {line.split(": ", 2)[2] for line in audit(sweeps.home, STUDY)}
    assert (
        line == "attempt 1: has no outcome, though no process works on the study; the next start of the study ends it"
    )
    with sweeps.start() as started:
        started.wait_until(lambda: bool(sweeps.ask("SELECT 1 FROM epochs WHERE attempt = 2")))
        assert are_running(started) == first
        started.send(signal.SIGINT)
        assert started.wait() == 130
    sync(sweeps.home, [STUDY], print)
    assert set(statuses(uri, STUDY).values()) == {"KILLED"}
    assert audit(sweeps.home, STUDY) == []


def test_a_server_that_never_comes_back_is_drained_later(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", gate.uri)
    with contextlib.closing(Ledger(tmp_path / "ledger.db")) as ledger:
        FilledLedger(ledger, make_spec("late")).add(2.5)
        screen = Screen()
        gate.mode = "hangs"
        tracker = Tracker(ledger.path, tmp_path, "late", screen)
        assert tracker.close(WAIT_S) == 1
    assert len(screen.lines) == 2
    with pytest.raises(TroubleError, match=r"^MLflow \(http://127.0.0.1:\d+\): "):
        sync(tmp_path, ["late"], pytest.fail)
    gate.mode = "open"
    assert sync(tmp_path, ["late"], pytest.fail).num_missing == 0
    assert names_of_runs(gate.uri, "late") == ["late", "trial-000"]


def test_a_server_that_starts_after_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    with contextlib.closing(Ledger(tmp_path / "ledger.db")) as ledger:
        FilledLedger(ledger, make_spec()).add(2.5)
        screen = Screen()
        tracker = Tracker(ledger.path, tmp_path, "study", screen)
        assert screen.trouble.wait(WAIT_S)
        server.start()
        try:
            assert screen.again.wait(WAIT_S)
            assert tracker.close(WAIT_S) == 0
            assert names_of_runs(server.uri, "study") == ["study", "trial-000"]
        finally:
            server.stop()
    assert len(screen.lines) == 2


def test_a_locked_store_is_waited_for(tmp_path: Path) -> None:
    store.make_store(store.tracking_uri(tmp_path))
    with contextlib.closing(Ledger(tmp_path / "ledger.db")) as ledger:
        FilledLedger(ledger, make_spec()).add(2.5)
        screen = Screen()
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            tracker = Tracker(ledger.path, tmp_path, "study", screen)
            assert screen.trouble.wait(WAIT_S)  # MLflow itself waits for 20 s
            other.execute("ROLLBACK")
        assert screen.again.wait(WAIT_S)
        assert tracker.close(WAIT_S) == 0
    assert "database is locked" in screen.lines[0]
    assert names_of_runs(store.tracking_uri(tmp_path), "study") == ["study", "trial-000"]


def test_four_first_starts_at_once_make_one_store(tmp_path: Path) -> None:
    with contextlib.closing(Ledger(tmp_path / "ledger.db")) as ledger:
        for number in range(4):
            FilledLedger(ledger, make_spec(f"study-{number}")).add(2.5)
    code = "import sys; from pathlib import Path; from harness.tracking.mlflow_runs import sync;"
    code += f"sync(Path({str(tmp_path)!r}), [sys.argv[1]], print)"
    starts = [subprocess.Popen([sys.executable, "-c", code, f"study-{number}"]) for number in range(4)]
    assert [start.wait() for start in starts] == [0, 0, 0, 0]
    for number in range(4):
        assert names_of_runs(store.tracking_uri(tmp_path), f"study-{number}") == [f"study-{number}", "trial-000"]
