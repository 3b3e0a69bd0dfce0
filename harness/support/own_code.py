"""The harness' own code: its folders, the part that trains, and the commands that run it.

`python -m` and `python -c` put the working folder, with all its modules, first on the path. So the harness starts no
process like that.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from harness.errors import TroubleError
from harness.support.home import code_folders

HARNESS, BASELINES = code_folders()
# For a child that starts Python itself: its children do not import from the working folder either.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
# All modules of `harness` that a worker loads: with `baselines`, all code that affects its numbers. A test compares.
_TRAINS = (
    "errors.py",
    "execution",
    "study/__init__.py",
    "study/data.py",
    "study/network.py",
    "study/options.py",
    "study/own_data.py",
    "study/records.py",
    "study/settings.py",
    "study/space.py",
    "study/spec.py",
    "support/__init__.py",
    "support/atomic_files.py",
    "support/failpoints.py",
    "support/given_files.py",
    "support/home.py",
    "support/keras_settings.py",
    "support/own_code.py",
    "support/splits.py",
    "support/standard_streams.py",
    "support/strict_json.py",
)


def python(*arguments: str) -> list[str]:
    """The command of this Python, without imports from the working folder."""
    return [sys.executable, "-P", *arguments]


def program(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of the harness as a program, from the same files as this process."""
    return python(str(HARNESS / "support" / "start.py"), str(BASELINES), module, *arguments)


def typed() -> str:
    """This command as the user can type it here: its name if it is on the path, else its file."""
    file = Path(sys.argv[0])
    if file.name != "harness" or shutil.which("harness"):
        return "harness"
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)


def check() -> None:
    """Checks that both packages are of one checkout or installation, whose commit is recorded with results.

    Raises:
        TroubleError: they are not, for example in a working folder with another `baselines`.
    """
    if BASELINES.parent != HARNESS.parent:
        raise TroubleError(f"the package baselines comes from {BASELINES}; allowed: {HARNESS.with_name('baselines')}")


@cache
def digest() -> str:
    """Digest of the training code. It is computed once, so that a running process detects changed files in workers that
    it starts later."""
    content = hashlib.sha256()
    for name, file in sorted(files_that_train()):
        content.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return content.hexdigest()[:16]


def files_that_train() -> Iterator[tuple[str, Path]]:
    """Name, such as `harness/study/spec.py`, and path of each file of the training code."""
    for package, parts in ((BASELINES, (".",)), (HARNESS, _TRAINS)):
        for part in (package / name for name in parts):
            for file in part.rglob("*.py") if part.is_dir() else [part]:
                yield f"{package.name}/{file.relative_to(package).as_posix()}", file


def described() -> str:
    """The training code in words."""
    return f"{digest()} in {HARNESS} and {BASELINES}"
