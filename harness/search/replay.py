"""Replays a study's past to a new search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.search.base import Proposal, Search
from harness.search.settings import may_be_stopped
from harness.study.records import Record
from harness.study.spec import SweepSpec


def events(records: Sequence[Record]) -> Iterator[tuple[Record, bool]]:
    """Each trial at its proposal (False) and, unless it is pending, at its end (True), in the order of events."""
    beginnings = [(record.asked_at, False, record) for record in records]
    ends = [(record.told_at, True, record) for record in records if record.told_at is not None]
    for _, is_end, record in sorted(beginnings + ends, key=lambda event: event[:2]):
        yield record, is_end


def hear_again(spec: SweepSpec, search: Search, record: Record) -> None:
    """Reports a finished trial's epochs, if a pruner sees them, and its result."""
    assert record.result is not None  # noqa: S101 - events() says so
    for report in record.result.curve if may_be_stopped(spec, record.trial) else ():
        search.report(record.trial, report)
    search.tell(record.trial, record.result)


def ask_again(search: Search, record: Record) -> None:
    """Makes a search propose a past trial again.

    The record decides: if the search now proposes something else (for example with a newer version of its library),
    the trial is added as one from outside, and the study continues with the trials that ran.
    """
    trial = record.trial
    proposal = search.ask(trial.uid, trial.number, 0)
    for retry in range(1, record.asks):
        if isinstance(proposal, Proposal):
            search.decline(trial.uid)
        proposal = search.ask(trial.uid, trial.number, retry)
    if isinstance(proposal, Proposal):
        if (proposal.params, proposal.continues) == (trial.params, trial.continues):
            return
        search.decline(trial.uid)
    search.add(trial)
