"""`harness doctor --remove`: removes one study from the ledger, also with invalid rows, and keeps a copy."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from harness.ledger.ledger import Ledger, no_such_study
from harness.ledger.locks import runs_lock, study_lock
from harness.study.spec import is_name
from harness.support.atomic_files import replaced


@dataclass(frozen=True)
class Removal:
    """The number of removed trials, and the copy of the ledger from before."""

    num_trials: int
    copy: Path


def remove(home: Path, study: str) -> Removal:
    """Removes a study's rows and the ledger's ids of its runs; MLflow and files are not changed.

    Raises:
        InputError: there is no such study.
        TroubleError: a process works on it, or the ledger cannot be copied or written.
    """
    with closing(Ledger(home / "ledger.db", makes=False)) as ledger:
        known = [*ledger.study_names(), *ledger.unreadable_studies()]
        if study not in known:
            raise no_such_study(ledger, study)
        with ExitStack() as locks:
            if is_name(study):  # with an invalid name no process can work on it, and its lock's path could be anywhere
                locks.enter_context(study_lock(home, study))
                locks.enter_context(runs_lock(home, study))
            copy = ledger.path.with_name(f"{ledger.path.name}.{time.strftime('%Y%m%d-%H%M%S')}")
            with replaced(copy) as unfinished:
                ledger.copy_to(unfinished)
            return Removal(ledger.remove_study(study), copy)
