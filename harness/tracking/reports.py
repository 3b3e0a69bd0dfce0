"""Logs a report's summary and figures to the parent run of its study."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from harness.errors import TroubleError
from harness.ledger.ledger import Ledger
from harness.ledger.locks import runs_lock
from harness.tracking.store import tracking_uri, trouble
from harness.tracking.study_runs import StudyRuns


def show_report(home: Path, study: str, text: str, files: Sequence[Path]) -> None:
    """Adds `text`, Markdown, to the parent run's note and `files` to its artifacts; replaces an earlier report's.

    Raises:
        InputError: MLFLOW_TRACKING_URI is not a valid address.
        TroubleError: MLflow is unavailable, or another process is logging the study's runs.
    """
    uri = tracking_uri(home)
    with runs_lock(home, study), closing(Ledger(home / "ledger.db", makes=False)) as ledger:
        try:
            StudyRuns(home, ledger, study).show_report(text, files)
        except TroubleError:  # for example the ledger's, which is not MLflow's fault
            raise
        except Exception as error:
            raise TroubleError(trouble(uri, error)) from error
