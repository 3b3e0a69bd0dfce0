"""Which trial a run of a study's experiment belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.ledger.ledger import Ledger

if TYPE_CHECKING:
    from mlflow.entities import Run

PARENT = "sweep"  # the role of the parent run, which stands for its owner too


class Owners:
    """Knows the runs of one study: by their tags, and where these were changed by hand, by the ledger's memory."""

    def __init__(self, ledger: Ledger, study: str) -> None:
        self._finished = {record.trial.uid for record in ledger.finished(study)}
        self._tracked = {run_id: uid for uid, run_id in ledger.run_ids(study).items()}
        if parent := ledger.tracked(study):
            self._tracked[parent[0]] = PARENT

    def of(self, run: Run) -> str | None:
        """The uid of a trial, finished or not, or `PARENT`; None: it is somebody else's run."""
        tags, run_id = run.data.tags, str(run.info.run_id)
        uid: str | None = tags.get("trial_uid")
        if uid in self._finished:
            return uid
        if run_id in self._tracked:
            return self._tracked[run_id]
        return PARENT if tags.get("role") == PARENT else uid
