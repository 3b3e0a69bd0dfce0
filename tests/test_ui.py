"""`harness ui`: links that open on the saved views, and a server that ends with the command."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from filled_ledger import FilledLedger, make_spec
from ports import free_port

from harness.errors import InputError, TroubleError
from harness.ledger.ledger import Ledger
from harness.tracking import ui
from harness.tracking.mlflow_runs import sync


def test_each_link_is_alone_on_its_line_and_the_newest_study_comes_first() -> None:
    lines = ui._overview([("new", "3"), ("old", "1")], "http://127.0.0.1:5000").splitlines()
    assert [line for line in lines if "http" in line] == [
        f"http://127.0.0.1:5000/#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey=leaderboard"
        for number in (3, 1)
    ]
    assert lines[0].endswith("the runs of new:")
    assert lines[2].endswith("(Search space, Curves)")
    assert lines[3] == "old:"


def test_without_a_study_it_says_how_to_get_one() -> None:
    assert "`harness sweep` makes one" in ui._overview([], "http://127.0.0.1:5000")


def test_a_port_in_use_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(TroubleError, match=rf"^port {port} of 127.0.0.1: .* in use; is MLflow open there"):
            ui.serve(tmp_path, port)


def test_a_server_of_others_that_does_not_answer_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:  # bound, and never listening
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna:geheim@127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(TroubleError, match=r"^MLflow \(http://\*\*\*@127.0.0.1:\d+\): ") as caught:
            ui.serve(tmp_path, 5000)
    assert "geheim" not in str(caught.value)


def test_a_wrong_address_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI"):
        ui.serve(tmp_path, 5000)


def test_links_are_without_the_login() -> None:
    assert ui._without_login("https://anna:geheim@host:8443/mlflow") == "https://host:8443/mlflow"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_answers_behind_the_links_and_ends_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        FilledLedger(ledger, make_spec()).add(2.5)
    sync(tmp_path, ["study"], pytest.fail)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    imports = "from pathlib import Path; from harness.tracking import ui"
    code = f"{imports}; ui.NEWS_S = 0.2; ui.serve(Path({str(tmp_path)!r}), {port})"
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as command:
        assert command.stdout
        shown = []
        for line in command.stdout:
            shown.append(line.strip())
            if shown[-1] == "Ctrl-C ends it":
                break
        assert shown[-1:] == ["Ctrl-C ends it"]
        (link,) = [line for line in shown if line.startswith("http://")]
        children = psutil.Process(command.pid).children(recursive=True)
        assert status_of(link, "127.0.0.1") == 200
        assert status_of(link, "evil.example") == 403  # no page of others reads through the browser
        with closing(Ledger(tmp_path / "ledger.db")) as ledger:
            FilledLedger(ledger, make_spec("later")).add(2.5)
        sync(tmp_path, ["later"], pytest.fail)
        assert command.stdout.readline() == "later:\n"
        assert command.stdout.readline().strip() == link.replace("/experiments/1/", "/experiments/2/")
        command.send_signal(number)
        assert command.wait() == 0
    assert len(children) >= 2
    assert not any(child.is_running() for child in children)


def status_of(url: str, host: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.request("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", headers={"Host": host})
    with closing(connection):
        return connection.getresponse().status


@pytest.mark.parametrize("damage", ["cut off", "overwritten"])
def test_a_damaged_store_is_said_with_what_to_do_which_brings_all_runs_back(
    damage: str, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    file = tmp_path / "mlflow.db"
    whole = empty_store.read_bytes()
    file.write_bytes(whole[:60_000] if damage == "cut off" else b"no database " * 1000)
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        FilledLedger(ledger, make_spec()).add(2.0)
    advice = r"; move .*/mlflow\.db away: `harness sync` makes all runs again, `harness verdict STUDY` its champion$"
    for ask in (lambda: sync(tmp_path, ["study"], print), lambda: ui.serve(tmp_path, free_port())):
        with pytest.raises(TroubleError, match=advice) as caught:
            ask()
        assert "\n" not in str(caught.value)
    file.rename(tmp_path / "moved")
    file.with_name("mlflow.db-wal").write_bytes(b"of the one that was moved away")
    command = [sys.executable, "-m", "harness.cli", "sync"]  # MLflow keeps the damaged file open in this process
    environment = os.environ | {"HARNESS_HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "study: runs 2 created" in done.stdout
    (kept,) = tmp_path.glob("mlflow.db-wal.*")
    assert kept.read_bytes() == b"of the one that was moved away"
