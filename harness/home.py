"""Where things lie: the checkout, and the home that holds all state."""

from __future__ import annotations

import os
from pathlib import Path


def project_root() -> Path:
    """The checkout this package runs from, or the working directory where the package is installed elsewhere."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def sweeps_folder() -> Path:
    return project_root() / "sweeps"


def home() -> Path:
    """The folder of all state: `mlruns/` of the checkout, moved by HARNESS_HOME."""
    moved = os.environ.get("HARNESS_HOME")
    return Path(moved).expanduser().resolve() if moved else project_root() / "mlruns"
