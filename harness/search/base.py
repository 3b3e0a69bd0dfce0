"""The protocol of searches: a search proposes configurations and learns from results.

`proposer.py` has the part that is the same for every engine (the baseline first, repeats, limits, numbering);
`samplers.py` lists the searches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from harness.study.records import EpochReport, Params, Record, Trial, TrialResult


class NoProposal(Enum):
    """Why there is nothing to propose."""

    WAIT = "wait"  # results of running trials are needed first
    EXHAUSTED = "exhausted"  # all configurations have been tried


@dataclass(frozen=True)
class Proposal:
    """A configuration to try.

    Attributes:
        params: The active hyperparameters.
        epochs: Train until this number of epochs is done; None: the study's full number.
        continues: uid of the trial whose checkpoint to continue, if any.
    """

    params: Params
    epochs: int | None = None
    continues: str | None = None


class Search(Protocol):
    """Called from one thread. `uid` identifies a trial from its proposal to its end.

    A new search that gets the study's records by `replay` proposes the same as the search before it. This is how a
    study is resumed.
    """

    def replay(self, records: Sequence[Record]) -> None:
        """Reads a study's past, by `asked_at` and `told_at`; pending trials stay open. Called once, before `ask`."""

    def ask(self, uid: str, number: int, retry: int) -> Proposal | NoProposal:
        """Proposes the configuration of trial `number`. `retry` is the number of its declined proposals."""

    def decline(self, uid: str) -> None:
        """Drops the latest proposal, `uid`; another `ask` for the same number follows."""

    def add(self, trial: Trial) -> None:
        """Adds a trial that this search did not propose (the baseline, an enqueued trial)."""

    def report(self, trial: Trial, report: EpochReport) -> bool:
        """Reads the report of an epoch; False: stop this trial."""

    def tell(self, trial: Trial, result: TrialResult) -> None:
        """Reads the final result of a trial."""

    def continuable(self) -> frozenset[str]:
        """uids of the trials whose checkpoints must be kept, because a current or later proposal may continue them."""
