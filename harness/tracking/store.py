"""Where runs go: the home's own SQLite store, or what MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from harness.errors import InputError, TroubleError

if TYPE_CHECKING:
    from mlflow import MlflowClient

# How MLflow is used, here and in the server that shows the runs; what the user has set stays.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # its errors reach people as one line of ours
}
# Not for the user to change: pickles run code, and a request that MLflow repeats by itself makes a second run.
_FIXED = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
_SERVERS = ("http", "https", "databricks")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_MAX_REASON = 300


def set_environment() -> None:
    """To be called before MLflow is imported."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ.update(_FIXED)


def tracking_uri(home: Path) -> str:
    """The URI that runs go to.

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


def is_server(uri: str) -> bool:
    return urlsplit(uri).scheme in ("http", "https")


def artifact_location(home: Path, study: str) -> str | None:
    """Where a study's artifacts lie; None: the tracking server knows."""
    is_local = urlsplit(tracking_uri(home)).scheme not in _SERVERS
    return (home / "artifacts" / study).as_uri() if is_local else None


def open_client(home: Path) -> MlflowClient:
    """A client of the store, which is made when it is not there.

    Raises:
        InputError: as `tracking_uri`.
        TroubleError: the store cannot be made.
    """
    set_environment()
    uri = tracking_uri(home)
    make_store(uri)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def reason(error: BaseException) -> str:
    """What went wrong, as one line without credentials."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redact(lines[0] if lines else type(error).__name__)[:_MAX_REASON]


def redact(text: str) -> str:
    """`text` without the user names and passwords of URIs, and without the tracking server's wherever they stand."""
    secrets = {os.environ.get("MLFLOW_TRACKING_PASSWORD"), os.environ.get("MLFLOW_TRACKING_TOKEN")}
    with contextlib.suppress(ValueError):
        password = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", "")).password
        secrets |= {password, unquote(password or "")}
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return re.sub(r"(\w+://)?\S*@", r"\1***@", text)


def sqlite_file(uri: str) -> Path | None:
    path = unquote(uri.removeprefix("sqlite:///").partition("?")[0])
    return Path(path) if uri.startswith("sqlite:///") and path not in ("", ":memory:") else None


def make_store(uri: str) -> None:
    """Makes the SQLite file of `uri`, if it is one and not there.

    MLflow is not left to do this: two first starts would collide, and a killed one would leave half a schema.

    Raises:
        TroubleError: it cannot be made.
    """
    file = sqlite_file(uri)
    if file is None or file.exists():
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            if not file.exists():
                _make_sqlite_store(file)
    except OSError as error:
        raise TroubleError(f"{file} cannot be made: {reason(error)}") from error


def _make_sqlite_store(file: Path) -> None:
    for abandoned in file.parent.glob(f"{file.name}.new-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    # A folder of its own, since what an earlier process has started outlives that by seconds, and writes into its own.
    folder = Path(tempfile.mkdtemp(prefix=f"{file.name}.new-", dir=file.parent))
    new = folder / file.name
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{new}"]
    # Out of reach of a terminal's Ctrl-C, which lets a sweep go on to the end of its epochs.
    made = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
    if made.returncode:
        lines = made.stderr.strip().splitlines() or ["no reason given"]
        raise TroubleError(f"{file} cannot be made: {redact(lines[-1])[:_MAX_REASON]}")
    with contextlib.closing(sqlite3.connect(new)) as db:
        db.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait for each other
    new.replace(file)
    shutil.rmtree(folder, ignore_errors=True)
