"""Folders: the checkout, and the home with all state."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

import baselines
from harness.errors import InputError

DATABASES = ("ledger.db", "mlflow.db")
_SQLITE = b"SQLite format 3\0"


def project_root() -> Path:
    """The checkout of this package, or the working directory if the package is installed elsewhere."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def code_folders() -> tuple[Path, Path]:
    """The folders of this package and of `baselines`: all code that affects results."""
    return Path(__file__).resolve().parents[1], Path(str(baselines.__file__)).resolve().parent


def sweeps_folder() -> Path:
    """The folder of the sweep files, beside this package in a checkout and in an installation."""
    return Path(__file__).resolve().parents[2] / "sweeps"


def home(moved: str | Path | None = None) -> Path:
    """The folder of all state: `moved`, or else HARNESS_HOME, or else `mlruns/` of the checkout.

    Raises:
        InputError: the folder cannot hold state.
    """
    name = "home" if moved else "HARNESS_HOME"
    moved = moved or os.environ.get("HARNESS_HOME")
    folder = named_folder(name, moved) if moved else project_root() / "mlruns"
    if set("?%") & set(str(folder)):  # MLflow and SQLAlchemy parse them differently
        raise InputError(f"{name} is '{folder}'; allowed: a path without ? and %, which runs' addresses garble")
    return folder


def is_database(path: Path) -> bool:
    """Whether a path is that of the ledger or of MLflow's runs in this home; they need not exist yet."""
    return Path(os.path.realpath(path)) in {home() / name for name in DATABASES}


def is_state(path: Path) -> bool:
    """Whether a file is, or would be, a part of the state that no export may replace, by any of its names.

    This holds for all SQLite databases, the ledger's copies and other homes' among them, and for locks.
    """
    real = Path(os.path.realpath(path))
    if is_database(path) or real.parent == home() / "locks":
        return True
    beside = re.sub("-(wal|shm|journal)$", "", str(real))
    with suppress(OSError), Path(beside).open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE
    return False


def named_folder(name: str, moved: str | Path) -> Path:
    """The absolute path of the folder in the variable or parameter `name`.

    Raises:
        InputError: the path is impossible.
    """
    try:
        folder = Path(moved).expanduser().resolve()
    except (RuntimeError, ValueError, OSError, TypeError) as error:  # no user, circular links; NUL; too long; no path
        raise InputError(f"{name} is {str(moved)!r}: {error}; allowed: a folder, which need not exist yet") from error
    if not str(folder).isprintable():  # control characters, and bytes that are no UTF-8
        raise InputError(f"{name} is {str(moved)!r}; allowed: a path that can be printed")
    if os.path.isfile(folder):  # noqa: PTH113 - Path.is_file raises where a folder above may not be searched
        raise InputError(f"{name} is '{folder}', which is a file; allowed: a folder, which need not exist yet")
    return folder
