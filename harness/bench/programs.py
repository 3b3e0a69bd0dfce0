"""Starts programs of benchmarks in new processes, so that no library is loaded before."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.errors import TroubleError


def output(name: str, command: Sequence[str], cwd: Path | None = None, **environment: str) -> str:
    """The output of `command` with these variables and without the user's MLflow store.

    Raises:
        TroubleError: it failed; the message has `name` and its last output.
    """
    variables = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    variables.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TroubleError(f"{name} failed: {(done.stderr or done.stdout).strip().splitlines()[-1][:300]}")
    return done.stdout
