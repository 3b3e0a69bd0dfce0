"""Maps the runs of a study's experiment to trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.ledger.ledger import Ledger

if TYPE_CHECKING:
    from mlflow.entities import Run

PARENT = "sweep"  # the role of the parent run, also used as its owner


class Owners:
    """Finds the owners of a study's runs by their tags, or by the ledger's run ids if tags were changed."""

    def __init__(self, ledger: Ledger, study: str) -> None:
        self._started = {*(record.trial.uid for record in ledger.finished(study)), *ledger.open_attempts(study)}
        self._tracked = {run_id: uid for uid, run_id in ledger.run_ids(study).items()}
        if parent := ledger.tracked(study):
            self._tracked[parent[0]] = PARENT

    def of(self, run: Run) -> str | None:
        """The uid of a trial, started or not, or `PARENT`; None: the run is not the harness'."""
        tags, run_id = run.data.tags, str(run.info.run_id)
        uid: str | None = tags.get("trial_uid")
        if uid in self._started:
            return uid
        if run_id in self._tracked:
            return self._tracked[run_id]
        return PARENT if tags.get("role") == PARENT else uid
