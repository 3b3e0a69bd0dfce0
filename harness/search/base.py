"""Searches: each proposes configurations and learns from results. An adapter translates and decides nothing.

What is the same for every engine (the baseline first, repeats, limits, numbering) is in `proposer.py`; which searches
there are is in `catalogue.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from harness.study.records import EpochReport, Params, Record, Trial, TrialResult


class NoProposal(Enum):
    """Why there is nothing to propose."""

    WAIT = "wait"  # running trials must be heard of first
    EXHAUSTED = "exhausted"  # there is nothing left to try


@dataclass(frozen=True)
class Proposal:
    """A configuration to try.

    Attributes:
        params: The active hyperparameters.
        epochs: Train until so many epochs are done; None: the study's full number.
        continues: uid of the trial to go on from, if any.
    """

    params: Params
    epochs: int | None = None
    continues: str | None = None


class Search(Protocol):
    """Driven from one thread. `uid` names a trial from its proposal to its end.

    A search that is built anew and given the study's records by `replay` proposes what the one before it would
    have proposed: that is resume.
    """

    def replay(self, records: Sequence[Record]) -> None:
        """Takes in a study's past, by `asked_at` and `told_at`; pending trials stay open. Called once, before `ask`."""

    def ask(self, uid: str, number: int, retry: int) -> Proposal | NoProposal:
        """Proposes the configuration of trial `number`. `retry` counts the proposals for it that were declined."""

    def decline(self, uid: str) -> None:
        """Drops the proposal just made under `uid`; another `ask` for the same number follows."""

    def add(self, trial: Trial) -> None:
        """Takes in a trial that was not proposed by this search (the baseline, one asked for by the user)."""

    def report(self, trial: Trial, report: EpochReport) -> bool:
        """Hears of an epoch; False: stop this trial."""

    def tell(self, trial: Trial, result: TrialResult) -> None:
        """Hears how a trial ended."""

    def continuable(self) -> frozenset[str]:
        """uids of the trials whose checkpoints must be kept: a proposal, made or to come, may go on from them."""
