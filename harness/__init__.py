"""Hyperparameter sweeps around two documented MNIST networks.

The functions of the command in Python:

    from harness import best, leaderboard, load_sweep, run_sweep, verdict

    spec = load_sweep("smoke", trials=4)
    run_sweep(spec)
    print(leaderboard(spec))
    print(best(spec).config)
    print(verdict(spec, top=1, seeds=3).answer)
"""

import sys

if sys.platform == "win32":  # before the first import that fails there
    raise SystemExit("harness: the system is Windows; allowed: Linux or macOS, or Linux inside Windows (WSL)")

from harness.api.files import export_optuna, export_study, export_trials, import_study
from harness.api.results import (
    BestConfiguration,
    best,
    compare,
    leaderboard,
    predict,
    report,
    status,
    tracking_uri,
    trials,
)
from harness.api.sweeps import load_baseline, load_sweep
from harness.api.training import reproduce, run_sweep, verdict
from harness.errors import InputError, TroubleError

__version__ = "0.1.0"

__all__ = [
    "BestConfiguration",
    "InputError",
    "TroubleError",
    "best",
    "compare",
    "export_optuna",
    "export_study",
    "export_trials",
    "import_study",
    "leaderboard",
    "load_baseline",
    "load_sweep",
    "predict",
    "report",
    "reproduce",
    "run_sweep",
    "status",
    "tracking_uri",
    "trials",
    "verdict",
]
