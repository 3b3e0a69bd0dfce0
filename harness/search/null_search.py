"""The search of a study without a search space, which trains only the documented configuration."""

from __future__ import annotations

from collections.abc import Sequence

from harness.search.base import NoProposal
from harness.study.records import EpochReport, Record, Trial, TrialResult


class NoSearch:
    """Proposes nothing and stops nothing."""

    def replay(self, records: Sequence[Record]) -> None:
        pass

    def ask(self, uid: str, number: int, retry: int) -> NoProposal:
        return NoProposal.EXHAUSTED

    def decline(self, uid: str) -> None:
        pass

    def add(self, trial: Trial) -> None:
        pass

    def report(self, trial: Trial, report: EpochReport) -> bool:
        return True

    def tell(self, trial: Trial, result: TrialResult) -> None:
        pass

    def continuable(self) -> frozenset[str]:
        return frozenset()
