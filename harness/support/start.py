"""Runs a module of the harness as a program, also if the path has another module of the same name.

    python -P harness/support/start.py BASELINES MODULE [ARGUMENT...]

`harness` is the folder above this file's, `baselines` the folder BASELINES; `own_code.program` makes the command.
"""

from __future__ import annotations

import runpy
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def load(folder: Path) -> None:
    """Loads the package that lies in a folder, under the folder's name."""
    spec = spec_from_file_location(folder.name, folder / "__init__.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} is no package")
    package = sys.modules[folder.name] = module_from_spec(spec)
    spec.loader.exec_module(package)


if __name__ == "__main__":
    load(Path(sys.argv[1]))
    load(Path(__file__).resolve().parents[1])
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
