"""Our own code: where it lies, which part of it trains, and how another Python is started that runs it.

`python -m` and `python -c` put the working folder first on the path, and with it whatever modules lie there. No process
of ours is started like that.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from harness.errors import TroubleError
from harness.support.home import code_folders

HARNESS, BASELINES = code_folders()
# For a child that starts Pythons of its own: they take nothing from the working folder either.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
# All that a worker loads of `harness`, and so all that its numbers may come from besides `baselines`. A test compares.
_TRAINS = (
    "errors.py",
    "execution",
    "study/__init__.py",
    "study/records.py",
    "study/space.py",
    "study/spec.py",
    "support/__init__.py",
    "support/atomic_files.py",
    "support/failpoints.py",
    "support/home.py",
    "support/keras_settings.py",
    "support/own_code.py",
    "support/standard_streams.py",
    "support/strict_json.py",
)


def python(*arguments: str) -> list[str]:
    """The command of a Python like this one that takes nothing from the working folder."""
    return [sys.executable, "-P", *arguments]


def program(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours as a program, from the very files that are in use here."""
    return python(str(HARNESS / "support" / "start.py"), str(BASELINES), module, *arguments)


def check() -> None:
    """Makes sure that both packages are of one checkout or installation, whose commit is recorded with results.

    Raises:
        TroubleError: they are not, such as in a working folder with a `baselines` of its own.
    """
    if BASELINES.parent != HARNESS.parent:
        raise TroubleError(f"the package baselines comes from {BASELINES}; allowed: {HARNESS.with_name('baselines')}")


@cache
def digest() -> str:
    """Of the code that trains. It is read once, so that a process which goes on while files change notices it in the
    workers that it starts later."""
    content = hashlib.sha256()
    for name, file in sorted(files_that_train()):
        content.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return content.hexdigest()[:16]


def files_that_train() -> Iterator[tuple[str, Path]]:
    """Name, such as `harness/study/spec.py`, and path of each file of the code that trains."""
    for package, parts in ((BASELINES, (".",)), (HARNESS, _TRAINS)):
        for part in (package / name for name in parts):
            for file in part.rglob("*.py") if part.is_dir() else [part]:
                yield f"{package.name}/{file.relative_to(package).as_posix()}", file


def described() -> str:
    """The code that trains, for people."""
    return f"{digest()} in {HARNESS} and {BASELINES}"
