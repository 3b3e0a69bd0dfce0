"""The provenance of results: code, versions, machine."""

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
    """Git commit and whether the tree differs from it, digest of the training code, Keras's settings, versions of
    Python and the libraries, machine."""
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "code_digest": own_code.digest(),
        "keras_settings": keras_settings.described(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        **versions(),
    }


def is_code_committed() -> bool:
    """Whether git says that all files of the code are those of a commit; False if it cannot say."""
    folder = own_code.HARNESS.parent
    is_tracked = bool(_git("ls-files", "--", "harness/__init__.py", folder=folder))
    changes = _git("status", "--porcelain", "--untracked-files=all", "--", "baselines", "harness", folder=folder)
    return is_tracked and changes == ""


def versions() -> dict[str, str]:
    """Versions of the installed packages among PACKAGES."""
    return {name: version for name in PACKAGES if (version := _version(name))}


def session_provenance() -> dict[str, str | bool | None]:
    """`provenance()`, and the uncommitted changes of tracked files, if any, as `git_diff`."""
    diff = uncommitted_diff(project_root())
    return provenance() | ({"git_diff": diff} if diff else {})


def uncommitted_diff(folder: Path) -> str:
    """The diff of a checkout's tracked files from its commit, for `git apply`; empty without changes or a checkout.

    Passwords are removed, and it is truncated with a note after MAX_DIFF_BYTES. Untracked files are not read.
    """
    git = shutil.which("git")
    if git is None:
        return ""
    # Without the user's settings of diffs, so that it can be applied.
    plainly = ["--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/"]
    command = [*_reading(git), "diff", "HEAD", *plainly]
    with subprocess.Popen(command, cwd=folder, stdout=PIPE, stderr=DEVNULL) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        diff = process.stdout.read(MAX_DIFF_BYTES + 1)
    text = redact_code(diff[:MAX_DIFF_BYTES].decode(errors="replace"))
    return text if len(diff) <= MAX_DIFF_BYTES else f"{text}\n[cut here: it is longer than {MAX_DIFF_BYTES:,} bytes]\n"


def diff_file(diff: str) -> str:
    """The file name of a diff."""
    return f"uncommitted-{hashlib.sha256(diff.encode()).hexdigest()[:8]}.diff"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _reading(git: str) -> list[str]:
    """The start of a git command that takes no optional locks, which could disturb a commit by the user."""
    return [git, "--no-optional-locks", "-c", "diff.autoRefreshIndex=false"]


def _git(*arguments: str, folder: Path | None = None) -> str | None:
    """What git prints in a folder, by default the checkout; None if it fails or is not installed."""
    git = shutil.which("git")
    if git is None:
        return None
    command, cwd = [*_reading(git), *arguments], folder or project_root()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
