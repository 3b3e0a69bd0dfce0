"""Where a result comes from: the code, the versions, the machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import shutil
import subprocess
from pathlib import Path
from subprocess import DEVNULL, PIPE

from harness.support import keras_settings, own_code
from harness.support.home import project_root
from harness.support.redaction import redact_code

MAX_DIFF_BYTES = 1_000_000
PACKAGES = ("tensorflow", "jax", "torch", "keras", "keras-tuner", "optuna", "mlflow", "numpy", "pandas")


def provenance() -> dict[str, str | bool | None]:
    """Git commit and whether the tree differs from it, the code that trains, which each worker holds its own against,
    Keras's settings, Python's and the libraries' versions, the machine."""
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "code_folder": str(own_code.HARNESS),
        "code_digest": own_code.digest(),
        "keras_settings": keras_settings.described(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        **versions(),
    }


def versions() -> dict[str, str]:
    """Of those of PACKAGES that are installed."""
    return {name: version for name in PACKAGES if (version := _version(name))}


def session_provenance() -> dict[str, str | bool | None]:
    """`provenance()`, and as `git_diff` what tracked files have in them that is in no commit, where there is any."""
    diff = uncommitted_diff(project_root())
    return provenance() | ({"git_diff": diff} if diff else {})


def uncommitted_diff(folder: Path) -> str:
    """How the tracked files of a checkout differ from its commit, for `git apply`; empty if they do not, or it is none.

    Without passwords, and cut with a note after MAX_DIFF_BYTES. Untracked files are never looked at.
    """
    git = shutil.which("git")
    if git is None:
        return ""
    # Not as the user likes to see it, but as it can be applied.
    plainly = ["--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/"]
    command = [*_reading(git), "diff", "HEAD", *plainly]
    with subprocess.Popen(command, cwd=folder, stdout=PIPE, stderr=DEVNULL) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        diff = process.stdout.read(MAX_DIFF_BYTES + 1)
    text = redact_code(diff[:MAX_DIFF_BYTES].decode(errors="replace"))
    return text if len(diff) <= MAX_DIFF_BYTES else f"{text}\n[cut here: it is longer than {MAX_DIFF_BYTES:,} bytes]\n"


def diff_file(diff: str) -> str:
    """The name under which a diff is kept as a file."""
    return f"uncommitted-{hashlib.sha256(diff.encode()).hexdigest()[:8]}.diff"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _reading(git: str) -> list[str]:
    """Without the lock that git takes to note what it has seen: somebody else may want to commit."""
    return [git, "--no-optional-locks", "-c", "diff.autoRefreshIndex=false"]


def _git(*arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run([*_reading(git), *arguments], cwd=project_root(), capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
