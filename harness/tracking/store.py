"""The store of runs: the home's SQLite file, or the one in MLFLOW_TRACKING_URI."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import psutil
from filelock import FileLock

from harness.errors import InputError, TroubleError
from harness.support.own_code import python
from harness.support.redaction import MAX_REASON, reason, redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Defaults of MLflow, here and in the server that shows the runs; the user's values take precedence.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # its errors are reported as one line of the harness
}
# Not for the user to change: pickles run code; a request that MLflow repeats by itself makes a second run; the links
# that it prints may hold a password; without its checks of hosts any web page reads the runs through the browser.
_FIXED = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_MAKER = "maker"  # file with the id of the process that makes the store
_SERVERS = ("http", "https", "databricks")
_DAMAGED = ("database disk image is malformed", "file is not a database")  # SQLite's words
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")

# Its standard input ends when the process that started it has ended.
_MLFLOW = """
import os, sys, threading
def end_with_parent():
    try:
        os.read(0, 1)
    finally:
        os._exit(1)
threading.Thread(target=end_with_parent, daemon=True).start()
from mlflow.cli import cli
cli(sys.argv[1:])
"""


def set_environment() -> None:
    """Sets MLflow's variables; call it before MLflow is imported or started as another process."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ.update(_FIXED)


def tracking_uri(home: Path) -> str:
    """The URI of the store of runs.

    Raises:
        InputError: MLFLOW_TRACKING_URI is neither a server nor a database.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        return f"sqlite:///{home / 'mlflow.db'}"
    if urlsplit(uri).scheme.split("+")[0] not in _SERVERS + _DATABASES:
        raise InputError(
            f"MLFLOW_TRACKING_URI is {redact(uri)!r}; allowed: a server (http://host:5000), a database"
            " (sqlite:///runs.db, postgresql://host/name), or unset for the home's own store"
        )
    return uri


def trouble(uri: str, error: Exception) -> str:
    """What is wrong with the store of `uri`, in one line."""
    return f"MLflow ({redact(uri)}): {why(uri, error)}"


def why(uri: str, error: Exception) -> str:
    """The reason of an error of the store, with what to do about a damaged file."""
    text = reason(error)
    if (file := sqlite_file(uri)) and any(sign in text for sign in _DAMAGED):
        return f"{text}; move {file} away: `harness sync` makes all runs again, `harness verdict STUDY` its champion"
    return text


def is_server(uri: str) -> bool:
    return urlsplit(uri).scheme in ("http", "https")


def artifact_location(home: Path, study: str) -> str | None:
    """The location of a study's artifacts; None: the tracking server decides."""
    is_local = urlsplit(tracking_uri(home)).scheme not in _SERVERS
    return (home / "artifacts" / study).as_uri() if is_local else None


def open_client(home: Path) -> MlflowClient:
    """A client of the store; creates a missing store.

    Raises:
        InputError: as `tracking_uri`.
        TroubleError: the store cannot be created.
    """
    set_environment()
    uri = tracking_uri(home)
    make_store(uri)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def sqlite_file(uri: str) -> Path | None:
    path = unquote(uri.removeprefix("sqlite:///").partition("?")[0])
    return Path(path) if uri.startswith("sqlite:///") and path not in ("", ":memory:") else None


def make_store(uri: str) -> None:
    """Creates the SQLite file of `uri`, if it is one and missing.

    MLflow itself would not do this safely: two first starts would collide, and a killed one would leave half a schema.

    Raises:
        TroubleError: the file cannot be created.
    """
    file = sqlite_file(uri)
    if file is None or file.exists():
        return
    file = Path(os.path.realpath(file))  # a link is kept and points to it
    set_environment()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            if not file.exists():
                _make_sqlite_store(file)
    except OSError as error:
        raise TroubleError(f"{file} cannot be made: {reason(error)}") from error


def _make_sqlite_store(file: Path) -> None:
    for abandoned in _unfinished(file):
        shutil.rmtree(abandoned, ignore_errors=True)
    # A new folder, since a child of an earlier process may outlive it briefly.
    folder = Path(tempfile.mkdtemp(prefix=f"{file.name}.new-", dir=file.parent))
    new = folder / file.name
    status, errors = _mlflow(folder / _MAKER, "db", "upgrade", f"sqlite:///{new}")
    if status:
        # Of SQLAlchemy's error the last line is an address on the web.
        lines = [line for line in errors.splitlines() if "Error" in line] or ["no reason given"]
        raise TroubleError(f"{file} cannot be made: {redact(lines[-1])[:MAX_REASON]}")
    with contextlib.closing(sqlite3.connect(new)) as db:
        db.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not block each other
    _set_aside_rest(file)
    new.replace(file)
    shutil.rmtree(folder, ignore_errors=True)


def _set_aside_rest(file: Path) -> None:
    """Renames the log of a file that was moved away, since SQLite would apply it to the new one.

    It is kept because it may have the last changes of the file that was moved, such as a user's own notes.
    """
    log = file.with_name(f"{file.name}-wal")
    if log.exists():
        log.replace(f"{log}.{log.stat().st_mtime_ns}")
    file.with_name(f"{file.name}-shm").unlink(missing_ok=True)  # an index of the log, without content of its own


def making_cpu_s(uri: str) -> float | None:
    """CPU seconds used by the processes that are creating the store of `uri`; None if there are none."""
    file = sqlite_file(uri)
    if file is None or file.exists():
        return None
    spent_s = []
    for folder in _unfinished(file):
        with contextlib.suppress(OSError, ValueError, psutil.Error):  # it has just begun, or is over
            spent_s.append(sum(psutil.Process(int((folder / _MAKER).read_text())).cpu_times()[:2]))
    return sum(spent_s) if spent_s else None


def _unfinished(file: Path) -> Iterator[Path]:
    """The folders in which a store is being made, and those that a killed process has left."""
    return file.parent.glob(f"{file.name}.new-*")


def _mlflow(pid_file: Path, *arguments: str) -> tuple[int, str]:
    """Runs the command `mlflow` as a process that ends with this one; returns its exit status and its complaints."""
    with subprocess.Popen(
        python("-c", _MLFLOW, *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # out of reach of a terminal's Ctrl-C, after which a sweep goes on for an epoch
    ) as process:
        pid_file.write_text(str(process.pid))
        assert process.stderr is not None  # noqa: S101 - for the type checker
        errors = process.stderr.read()
        return process.wait(), errors
