"""What MLflow must show of a trial, read from the ledger. Sync and the audit both use it.

A trial has a run from its first attempt on. The ledger does not store whether an attempt runs: it has no outcome then,
and also after a kill. So an attempt without an outcome runs only if a process works on the study.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.ledger.ledger import Ledger
from harness.ledger.reader import Study
from harness.study.records import Attempt, EpochReport, Outcome
from harness.tracking.content import Parent, RunContent, trial_content


def trial_run(
    ledger: Ledger,
    study: Study,
    uid: str,
    parent_id: str = "",
    run_id: Callable[[str], str | None] = lambda uid: None,
    *,
    mean: str | None = None,
    is_live: bool = False,
) -> RunContent:
    """The run of a trial that was started.

    Args:
        ledger: Has the trial.
        study: Its study.
        uid: Its uid.
        parent_id: The study's parent run.
        run_id: The run of another trial, which this one continues; None if it is unknown.
        mean: The mean error of its configuration (`content.means`); None: of one seed.
        is_live: A process works on the study.
    """
    record, attempts = ledger.record(uid), _known(ledger.attempts(uid), is_live=is_live)
    is_alone = record.result is not None and len(attempts) == 1  # nearly always
    curves: dict[int, Sequence[EpochReport]] = {} if is_alone else {**ledger.curves(uid)}
    if record.result:
        curves[attempts[-1].number] = record.result.shown_curve
    parent = Parent(parent_id, run_id(record.trial.continues) if record.trial.continues else None)
    return trial_content(replace(study, provenance=ledger.origin(uid)), record, attempts, curves, parent, mean)


def open_trials(ledger: Ledger, study: str, *, is_live: bool) -> dict[str, Attempt]:
    """The last attempt of each trial that was started and has no final result, by uid, in order of their numbers."""
    found = ledger.open_attempts(study)
    return dict(zip(found, _known(list(found.values()), is_live=is_live), strict=True))


def _known(attempts: Sequence[Attempt], *, is_live: bool) -> list[Attempt]:
    """The attempts; without a process, one without an outcome is lost, as the next start will write."""
    lost = [attempt.outcome is None and not is_live for attempt in attempts]
    return [
        replace(attempt, outcome=Outcome.CANCELLED) if is_lost else attempt
        for attempt, is_lost in zip(attempts, lost, strict=True)
    ]
