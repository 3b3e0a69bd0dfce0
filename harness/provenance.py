"""Where a result comes from: the code, the versions, the machine."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess

from harness.home import project_root

PACKAGES = ("tensorflow", "jax", "torch", "keras", "keras-tuner", "optuna", "mlflow", "numpy", "pandas")


def provenance() -> dict[str, str | bool | None]:
    """Git commit and whether the tree differs from it, Python's and the libraries' versions, the machine."""
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        **{name: version for name in PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run([git, *arguments], cwd=project_root(), capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
