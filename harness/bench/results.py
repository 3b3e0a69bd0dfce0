"""Writes the results of benchmarks."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.execution.machine.devices import this_machine
from harness.support.atomic_files import replaced


def write_json(path: Path, packages: Sequence[str], measured: Mapping[str, object]) -> None:
    """Writes the measurements, with the machine and these packages' versions.

    Raises:
        TroubleError: the file cannot be written.
    """
    machine = this_machine()
    conditions = {
        "machine": machine.cpu_name,
        "gpus": machine.gpu_names,
        "num_cores": machine.num_cores,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    with replaced(path) as unfinished:
        unfinished.write_text(json.dumps(conditions | dict(measured), indent=1, allow_nan=False), encoding="utf-8")


def three_digits(value: float) -> float:
    """Rounds to three significant digits."""
    return float(f"{value:.3g}")
