"""Audits a study: the consistency of the ledger, and MLflow and the exported leaderboard against the ledger.

Counts and caches of the harness are not used: sums are computed from the rows, runs are searched in MLflow, and the
leaderboard is written again and compared cell by cell.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from harness.audit.difference import Advice, Difference
from harness.audit.files import csv_differences, leftovers
from harness.audit.recount import recount, total_differences
from harness.audit.reused import gone_sources, reuse_differences
from harness.audit.rows import StudyRows, damage, open_read_only, read_study
from harness.audit.runs import run_differences
from harness.errors import DamageError
from harness.ledger.ledger import Ledger, find_study
from harness.ledger.locks import runs_lock, study_lock


def audit(home: Path, study: str) -> list[str]:
    """All problems of a study, one line each with advice; empty if there are none.

    The study is locked meanwhile, so that no process starts it. Nothing is repaired in the ledger, MLflow or files.

    Args:
        home: Folder of all state.
        study: The study's name.

    Raises:
        InputError: there is no such study, or MLFLOW_TRACKING_URI is not a valid address.
        TroubleError: a process works on the study, the ledger cannot be opened, or MLflow is unavailable.
    """
    with closing(Ledger(home / "ledger.db", makes=False, checks=False)) as ledger:
        if study not in ledger.study_names():
            find_study(ledger, study)  # raises InputError with the known studies
        with study_lock(home, study), runs_lock(home, study):
            return list(map(str, _differences(home, ledger, study)))


def notes(home: Path, study: str) -> list[str]:
    """What the audit could not check, without being a problem: trials whose result is from a study that was removed."""
    with closing(Ledger(home / "ledger.db", makes=False, checks=False)) as ledger:
        try:
            return list(gone_sources(ledger, study))
        except DamageError:
            return []  # the audit says so


def _differences(home: Path, ledger: Ledger, study: str) -> Iterator[Difference]:
    rows: StudyRows | None = None
    try:
        with closing(open_read_only(ledger.path)) as db:
            yield from (Difference(f"ledger: {problem}", Advice.COPY) for problem in damage(db))
            rows = read_study(db, study)
    except (sqlite3.Error, UnicodeError) as error:
        yield Difference(f"ledger: {error}", Advice.COPY)
    if rows is not None:
        yield from (Difference(problem, Advice.COPY) for problem in rows.unreadable)
        yield from recount(rows)
    yield from leftovers(home, study)
    if rows is None or rows.unreadable:
        what = "MLflow and the leaderboard: not compared, since rows of the ledger cannot be read"
        yield Difference(what, Advice.COPY)
        return
    try:
        yield from total_differences(rows, ledger)
        yield from reuse_differences(rows, ledger)
        yield from run_differences(home, ledger, study)
        yield from csv_differences(home, ledger, study)
    except DamageError as error:
        yield Difference(f"MLflow and the leaderboard: not compared any further: {error}", Advice.COPY)
