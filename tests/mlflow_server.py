"""MLflow's own server as a process over HTTP, which tests start, stop, kill and freeze."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ports import free_port

from harness.tracking import store

START_TIMEOUT_S = 120.0


class Server:
    """A real MLflow server on 127.0.0.1, on a port of its own; it does not run yet.

    Args:
        folder: Gets its log and artifacts, and its SQLite file if `uri` is None.
        uri: Where the server keeps the runs.
        arguments: For the command, beside those that every server here gets.
        variables: Of its environment.
    """

    def __init__(
        self,
        folder: Path,
        uri: str | None = None,
        arguments: Sequence[str] = (),
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._folder, self._arguments = folder, arguments
        self.process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        kept = uri or f"sqlite:///{folder / 'server.db'}"
        store.set_environment()
        store.make_store(kept)
        self._variables = {
            "MLFLOW_BACKEND_STORE_URI": kept,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_LOGGING_LEVEL": "INFO",
            **variables,
        }

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        command += ["--artifacts-destination", str(self._folder / "artifacts"), *self._arguments]
        with (self._folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env={**os.environ, **self._variables}, stdout=log, stderr=log, start_new_session=True
            )

    def wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            assert time.monotonic() < deadline, f"no MLflow server after {START_TIMEOUT_S} s"
            assert self.process is None or self.process.poll() is None, (self._folder / "server.log").read_text()
            time.sleep(0.1)

    def _answers(self) -> bool:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)) as connection:
            try:
                connection.request("GET", "/health")
                return connection.getresponse().status == http.HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                return False

    def send(self, number: signal.Signals) -> None:
        """To the server and all it has started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def stop(self) -> None:
        """As an administrator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        self.send(number)
        if self.process is not None:
            self.process.wait()
        self.process = None
