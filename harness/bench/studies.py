"""Runs the studies whose trainings a bench looks at."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from harness.errors import TroubleError
from harness.ledger.ledger import Ledger
from harness.study.records import Record, Role
from harness.study.spec import SweepSpec
from harness.sweep.display import PlainDisplay
from harness.sweep.runner import run_study


def all_trained(spec: SweepSpec, home: Path) -> list[Record]:
    """Trains what is left to train of a study in a bench's own home; returns all of its trials.

    Raises:
        TroubleError: it was interrupted.
    """
    run_study(spec, home, PlainDisplay(sys.stderr), num_workers=None, fresh=False)
    with closing(Ledger(home / "ledger.db", makes=False)) as ledger:
        records = ledger.history(spec.study)
    num_searched = sum(record.trial.role is Role.TRIAL for record in records)
    if num_searched < spec.budget.trials or any(record.result is None for record in records):
        raise TroubleError(f"{spec.study} lacks trainings; the same command continues")
    return records
