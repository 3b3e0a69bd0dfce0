"""A sound study with a trial of every kind: in the ledger, in MLflow and as an exported leaderboard."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from filled_ledger import CPU, FilledLedger, make_spec

from harness.analysis.files import write_csv
from harness.analysis.leaderboard.leaderboard import leaderboard
from harness.ledger import checksums
from harness.ledger.ledger import Ledger
from harness.study.records import EpochReport, Outcome, Role, Seconds, Trial, TrialResult
from harness.tracking.mlflow_runs import sync


def fill(home: Path) -> None:
    """Trials 0 to 8 of `study`, of which 8 is pending, and one of `seeds`, which reads the test images."""
    with closing(Ledger(home / "ledger.db")) as ledger:
        add_study(ledger)
        seeds = FilledLedger(ledger, make_spec("seeds", dataset="digits", space={}, reads_test=True))
        seeds.add(3.0, params={}, role=Role.BASELINE, test_wrong=range(6))
        sync(home, ["study", "seeds"], pytest.fail)
        write_csv(leaderboard(ledger, ["study"]), home / "leaderboards" / "study.csv")


def add_study(ledger: Ledger) -> None:
    """Trials 0 to 8 of `study`, in the ledger only."""
    study = FilledLedger(ledger, make_spec(dataset="digits"))
    ledger.touch_session(ledger.start_session("study"), 60.0)
    study.add_baseline(3.0)
    study.add_baseline(3.2)
    study.add(2.5)
    study.add(4.5, Outcome.PRUNED, epochs_done=1)
    study.add(90.2, Outcome.DIVERGED, epochs_done=1, error="training loss is not finite in epoch 2")
    study.add(None, Outcome.INFEASIBLE, train_s=0.0, error="9 MFLOP per image; allowed: 8")
    _add_continued(study)
    study.ask()
    ledger.touch_session(ledger.start_session("study"), 30.0)


def _add_continued(study: FilledLedger) -> None:
    """One epoch, then the same configuration from there on, once after a crash."""
    first = study.ask({"units_1": 100, "units_2": 100}, epochs=1)
    study.end(first, 6.0)
    trial = study.ask({"units_1": 100, "units_2": 100}, continues=first.uid)
    crash = study.ledger.start_attempt(trial.uid, "worker-0")
    _train(study.ledger, trial, crash, [2])
    crashed = TrialResult(Outcome.CRASHED, "worker was killed")
    study.ledger.finish_attempt(trial.uid, crash, crashed, 7.0, is_final=False)
    attempt = study.ledger.start_attempt(trial.uid, "worker-1")
    _train(study.ledger, trial, attempt, [2, 3])
    result = TrialResult(
        Outcome.COMPLETED,
        seconds=Seconds(train=10.0),
        num_params=500,
        device=CPU,
        wrong_images=(1, 5, 296),
        final_error_rate_pct=100 * 3 / 297,
        final_val_images=297,
    )
    study.ledger.finish_attempt(trial.uid, attempt, result, 14.0, is_final=True)


def _train(ledger: Ledger, trial: Trial, attempt: int, epochs: list[int]) -> None:
    for epoch in epochs:
        ledger.add_epoch(trial.uid, attempt, EpochReport(epoch, 0.1, 0.2, 1.0, 200, Seconds(train=5.0)), 5.0)


def edit(file: Path, statement: str, *values: object) -> None:
    """Changes a database by hand, against its own rules if need be; of a ledger, with checksums and sums as they go."""
    with closing(sqlite3.connect(file)) as db, db:
        assert db.execute(statement, values).rowcount != 0, f"nothing was changed by {statement}"
        if file.name == "ledger.db" and statement.startswith(("UPDATE", "INSERT", "DELETE")):
            count = "SELECT count(*) FROM epochs e WHERE e.uid = attempts.uid AND e.attempt = attempts.attempt"
            db.execute(f"UPDATE attempts SET num_epochs = ({count})")  # noqa: S608 - our own
            checksums.add_function(db)
            checksums.stamp(db)
