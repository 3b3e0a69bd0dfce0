"""`harness ui`: MLflow's pages for the home's store, with links to the saved views."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from harness.errors import InputError, TroubleError
from harness.support.own_code import SAFE_PATH, python
from harness.support.strict_json import check_count
from harness.tracking.store import is_server, make_store, open_client, set_environment, tracking_uri, trouble
from harness.tracking.views import View, link

MAX_PORT = 65_535
HOST = "127.0.0.1"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0
MAX_STUDIES = 10
NEWS_S = 5.0  # after this time a new study is looked for
_POLL_S = 0.2

Server = subprocess.Popen[bytes]


def serve(home: Path, port: int) -> int:
    """Shows the runs until the user stops it; returns the exit status.

    If MLFLOW_TRACKING_URI is a server, it shows the runs and only the links are printed.

    Raises:
        InputError: there is no such port, or MLFLOW_TRACKING_URI is not a valid address.
        TroubleError: the port is in use, or MLflow is unavailable.
    """
    check_count("--port", port, MAX_PORT)
    uri = tracking_uri(home)
    if is_server(uri):
        _say(_overview(_experiments(home), _without_login(uri)))
        return 0
    _check_port(port)
    if not home.exists():
        raise InputError(f"home is '{home}', which is not there; allowed: one with studies; `harness sweep` makes it")
    set_environment()
    make_store(uri)
    log_path = home / "logs" / "ui.log"
    with suppress(KeyboardInterrupt), _server(home, uri, port, log_path) as server:
        experiments = _experiments(home)
        _show_links(experiments, server, port, log_path)
        _show_new_links(home, server, port, experiments)
        raise TroubleError(f"MLflow's server has ended; {log_path} says why")
    return 0


def _show_links(experiments: Sequence[tuple[str, str]], server: Server, port: int, log_path: Path) -> None:
    """Waits for the starting server, and opens the newest study if there is a screen."""
    base_url = f"http://{HOST}:{port}"
    _wait_until_it_answers(server, port, log_path)
    _say(f"{_overview(experiments, base_url)}\nCtrl-C ends it")
    has_display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform in ("darwin", "win32")
    if experiments and has_display:
        webbrowser.open(link(base_url, experiments[0][1], View.LEADERBOARD))


def _show_new_links(home: Path, server: Server, port: int, shown: Sequence[tuple[str, str]]) -> None:
    """Says the link of each study that begins, until the server ends."""
    known = {experiment_id for _, experiment_id in shown}
    while True:
        with suppress(subprocess.TimeoutExpired):
            server.wait(NEWS_S)
            return
        with suppress(TroubleError):  # the store is busy; it is asked again
            for name, experiment_id in reversed(_experiments(home)):
                if experiment_id not in known:
                    known.add(experiment_id)
                    _say(_named_link(name, experiment_id, f"http://{HOST}:{port}"))


def _experiments(home: Path) -> list[tuple[str, str]]:
    """Name and id of the studies' experiments, newest first."""
    try:
        found = open_client(home).search_experiments(
            max_results=MAX_STUDIES, filter_string="tags.study_id LIKE '%'", order_by=["creation_time DESC"]
        )
    except Exception as error:
        raise TroubleError(trouble(tracking_uri(home), error)) from error
    return [(experiment.name, experiment.experiment_id) for experiment in found]


def _overview(experiments: Sequence[tuple[str, str]], base_url: str) -> str:
    if not experiments:
        return f"{base_url} shows no study yet: `harness sweep` makes one, `harness sync` brings those of the ledger"
    (newest, experiment_id), *others = experiments
    more = ", ".join(view.label for view in View if view is not View.LEADERBOARD)
    lines = [
        f"open this link, not MLflow's start page, to see the runs of {newest}:",
        link(base_url, experiment_id, View.LEADERBOARD),
        f"above its table are links to the study's other views ({more})",
        *(_named_link(name, other_id, base_url) for name, other_id in others),
    ]
    return "\n".join(lines)


def _named_link(name: str, experiment_id: str, base_url: str) -> str:
    return f"{name}:\n{link(base_url, experiment_id, View.LEADERBOARD)}"


def _without_login(uri: str) -> str:
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in state TIME_WAIT counts as free
        try:
            probe.bind((HOST, port))
        except OSError as error:
            advice = "is MLflow open there already? --port (make: PORT=) chooses another"
            raise TroubleError(f"port {port} of {HOST}: {error.strerror}; {advice}") from error


@contextmanager
def _server(home: Path, uri: str, port: int, log_path: Path) -> Iterator[Server]:
    """Runs MLflow's server as a child process until the block ends; it may not answer yet."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    before = {n: signal.signal(n, signal.default_int_handler) for n in (signal.SIGINT, signal.SIGTERM)}
    command = python("-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1")
    command += ["--artifacts-destination", (home / "artifacts").as_uri()]
    # The address is passed in the environment, where other users of the machine cannot read its password.
    variables = {**SAFE_PATH, "MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log_path.open("wb") as log:
        # Its own session: this process passes Ctrl-C on, and its children end with it.
        child = subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield child
    finally:
        _stop(child)
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_until_it_answers(server: Server, port: int, log_path: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _answers(port):
        if server.poll() is not None or time.monotonic() > deadline:
            raise TroubleError(f"MLflow's server did not start; {log_path} says why")
        time.sleep(_POLL_S)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(child: Server) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_TIMEOUT_S)
            return


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
