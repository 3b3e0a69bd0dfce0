"""A study on digits, its verdict and their home's MLflow, of which everything is real but the training."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from filled_ledger import DOCUMENTED, FilledLedger, make_spec
from verdict_workers import VerdictWorkers, train

import baselines
from harness.analysis.verdict.findings import Verdict, find_verdict
from harness.execution.base import Job
from harness.execution.data.cache import data_digest
from harness.execution.training.trainer import save_weights
from harness.ledger.ledger import Ledger
from harness.study.records import Outcome, Trial
from harness.sweep import runner
from harness.tracking.mlflow_runs import sync
from harness.workflows.verdict import Request, plan_verdict

SMALL = {"units_1": 64, "units_2": 64}
BETTER, TIE = 0, 60  # test images of 300 that the candidate gets wrong; the baseline: 60
NAME = "digits-fc"


class SavingWorkers(VerdictWorkers):
    """As scripted workers, but trials that are to leave weights leave those that their networks begin with."""

    def __init__(self, num_wrong: int, baseline: int | Outcome) -> None:
        wrong = baseline if isinstance(baseline, Outcome) else set(range(baseline))
        super().__init__(lambda trial: wrong if dict(trial.params) == DOCUMENTED else set(range(num_wrong)))
        self.saved: list[Trial] = []

    def start(self, worker: str, job: Job) -> None:
        if job.save_to is not None:
            self.saved.append(job.trial)
            fc = baselines.load("fc")
            save_weights(fc.build(fc.Config(**job.trial.params)), job.save_to)
        super().start(worker, job)


def add_study(home: Path, study: str = "study") -> None:
    """A study with one candidate."""
    with closing(Ledger(home / "ledger.db")) as ledger:
        searched = FilledLedger(ledger, make_spec(study, dataset="digits"), data_digest=data_digest("digits"))
        searched.add_baseline(3.0, seed=0)
        searched.add(2.0, params=SMALL)


def confirm(home: Path, num_wrong: int, study: str = "study", baseline: int | Outcome = 60) -> Verdict:
    """Begins or goes on with the verdict on it, and brings it to MLflow."""
    with closing(Ledger(home / "ledger.db")) as ledger:
        spec, origin = plan_verdict(ledger, study, Request(num_seeds=3), fresh=False)
        runner.open_study(ledger, spec, fresh=False, origin=origin)
        (home / "checkpoints").mkdir(exist_ok=True)
        workers = SavingWorkers(num_wrong, baseline)
        train(ledger, spec, workers, home / "checkpoints" / spec.study)
        assert {trial.seed for trial in workers.saved} <= {spec.seed}, "of the others nobody will ask for weights"
        sync(home, [spec.study], pytest.fail)
        return find_verdict(ledger, ledger.study(spec.study).spec)
