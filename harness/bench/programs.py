"""Programs of their own that benchmarks start, so that each begins with nothing loaded."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.errors import TroubleError


def output(name: str, command: Sequence[str], cwd: Path | None = None, **environment: str) -> str:
    """What `command` prints when it is run with these variables and without the user's MLflow store.

    Raises:
        TroubleError: it failed; with `name` and what it said last.
    """
    variables = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    variables.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TroubleError(f"{name} failed: {(done.stderr or done.stdout).strip().splitlines()[-1][:300]}")
    return done.stdout
