"""Connects to a Ray cluster, or starts one on this machine, without Ray's output and within a time limit."""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from harness.errors import InputError, TroubleError
from harness.execution.machine import backends, devices
from harness.support.home import code_folders

CONNECT_TIMEOUT_S = 5.0
OBJECT_STORE_BYTES = 500 * 2**20  # of a cluster that is started here: a data set of 55 MB, and weights on their way
# Ray's warnings of future changes and the output of the cluster's processes would disturb the display.
_SILENCE = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": ".*"}
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_SETTINGS = 4  # type of a server's first frame, RFC 9113


def connect(address: str | None) -> ModuleType:
    """Ray, connected as this process's own job. The harness's code travels with the job.

    Args:
        address: As in `Ray`.

    Raises:
        InputError: Ray is not installed, the address is invalid, or this process is connected already.
        TroubleError: no Ray cluster answers at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    for name, value in _SILENCE.items():
        os.environ.setdefault(name, value)
    if address is None:
        _lock_with_token()
    ray = _load()
    if ray.is_initialized():
        raise InputError("this process is connected to Ray already; allowed: after ray.shutdown()")
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
    if address not in (None, "auto"):
        _check_answers(str(address))
    try:
        with _own_signals(), tempfile.TemporaryDirectory(prefix="harness-") as nowhere:
            ray.init(
                address=address or "local",
                runtime_env=_runtime_environment(nowhere),
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else _local_size()),
            )
    except Exception as error:  # of many kinds
        raise TroubleError(f"{_named(address)}: {' '.join(str(error).split())[:500]}") from error
    return ray


def _load() -> ModuleType:
    try:
        import ray
    except ImportError:
        raise InputError("--executor ray needs Ray, which is not installed: pip install 'harness[cluster]'") from None
    return ray


def _named(address: str | None) -> str:
    return f"no Ray cluster at {address}" if address else "Ray cannot be started here"


def _lock_with_token() -> None:
    """Sets a token, so that no other user can use a cluster started here; Ray would write one into the user's home."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _local_size() -> dict[str, Any]:
    machine = devices.this_machine()
    return {
        "num_cpus": machine.num_cores,
        "num_gpus": len(machine.gpus),
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }


def _runtime_environment(nowhere: str) -> dict[str, Any]:
    """Sends the code of this process to every node, where it comes before installed versions.

    An empty working folder prevents Ray from putting the folders of this process and its script before it.
    """
    packages = list(map(str, code_folders()))
    # Explicit, because a node may have Keras settings of its own.
    variables = {backends.VARIABLE: backends.backend()}
    return {"working_dir": nowhere, "py_modules": packages, "env_vars": variables, "excludes": ["__pycache__"]}


def _check_answers(address: str) -> None:
    """Checks the address within a time limit; Ray itself would try for minutes and ignore signals meanwhile."""
    host, _, port = address.rpartition(":")
    if not (host and host.isprintable() and re.fullmatch("[0-9]{1,5}", port)):
        raise InputError(f"--address is {address!r}; allowed: auto, or HOST:PORT of a cluster's head")
    try:
        with socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S) as connection:
            connection.sendall(_HTTP2_HELLO)
            answer = connection.recv(9)
    except (OSError, OverflowError, ValueError) as error:  # UnicodeError: an invalid host name
        raise TroubleError(f"no Ray cluster at {address}: {error}") from error
    if len(answer) < 4 or answer[3] != _SETTINGS:
        raise TroubleError(f"no Ray cluster at {address}: something else answers there")


@contextmanager
def _own_signals() -> Iterator[None]:
    """Restores the handler that Ray replaces."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)
