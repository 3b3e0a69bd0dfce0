"""Checks the results that were taken over from other trials against those trials."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from harness.audit.difference import Advice, Difference
from harness.audit.rows import AttemptRow, StudyRows, TrialRow
from harness.errors import DamageError
from harness.ledger.ledger import Ledger
from harness.study.records import Outcome, Record, TrialResult
from harness.study.spec import SweepSpec
from harness.study.trainings import taken_over, training_settings


def reuse_differences(rows: StudyRows, ledger: Ledger) -> Iterator[Difference]:
    """All trials whose result is not that of the trial from which it was taken over; all rows can be read."""
    for row in rows.trials:
        for final in row.finals:
            if final.result is None or final.result.reused_from is None or rows.spec is None:
                continue
            for problem in _problems(rows.spec, row, final, final.result, ledger):
                what = f"ledger: trial {row.trial.number}: reused from {final.result.reused_from}: {problem}"
                yield Difference(what, Advice.COPY_OR_FRESH)


def gone_sources(ledger: Ledger, study: str) -> Iterator[str]:
    """A line for each trial whose result is from a trial that is not in the ledger: removed, or not imported."""
    for record in ledger.finished(study):
        source = record.result.reused_from if record.result else None
        if source is not None and _source(ledger, source) is None:
            number = record.trial.number
            yield f"trial {number}: its result is from trial {source}, which is not in this ledger; it is not compared"


def _problems(spec: SweepSpec, row: TrialRow, final: AttemptRow, result: TrialResult, ledger: Ledger) -> Iterator[str]:
    if final.reserved_time_s:
        yield f"held a device for {final.reserved_time_s} s; must be 0"
    try:
        found = _source(ledger, result.reused_from or "")
    except DamageError as error:
        yield f"that trial cannot be read: {error}"
        return
    if found is None:
        return  # a note: the numbers are here
    other, source = found
    theirs = source.result
    if theirs is None or theirs.outcome is not Outcome.COMPLETED or theirs.reused_from is not None:
        yield "that trial was not trained to its end itself"
        return
    is_equal = training_settings(spec, row.trial) == training_settings(other, source.trial)
    if result.training is None or result.training != theirs.training or not is_equal:
        yield "that trial is another training"
        return
    num_epochs = len(final.reports)
    expected = taken_over(spec, row.trial, source, lambda report: report.epoch < num_epochs)
    curve = tuple(final.reports.values())
    mine = dataclasses.replace(
        result, curve=curve, wrong_images=final.wrong_images, test_wrong_images=final.test_wrong_images
    )
    odd = [name for name, value in vars(mine).items() if value != getattr(expected, name)]
    if odd:
        yield f"other numbers than that trial ({', '.join(odd)})"


def _source(ledger: Ledger, uid: str) -> tuple[SweepSpec, Record] | None:
    """A trial with its study's settings; None if it is gone."""
    try:
        return ledger.with_settings(uid)
    except KeyError:
        return None
