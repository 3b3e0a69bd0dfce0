"""A search that confirms good trials with a second seed, and ends when one is confirmed."""

from __future__ import annotations

import uuid

from harness.bench.target import CONFIRMING_SEED
from harness.search.base import NoProposal
from harness.search.proposer import Next, Proposer
from harness.study.records import EpochReport, Outcome, Role, Trial, TrialResult
from harness.study.spec import SweepSpec

FIRST_NUMBER = 1_000_000  # beyond all that a search numbers


class Confirming:
    """Hands out what a proposer proposes, and a second training of each that is at least as good as asked for.

    Args:
        proposer: Of a study that has just begun.
        spec: The study.
        target_pct: Validation error to reach, in percent.
    """

    def __init__(self, proposer: Proposer, spec: SweepSpec, target_pct: float) -> None:
        self._proposer, self._spec, self._target_pct = proposer, spec, target_pct
        self._to_confirm: list[tuple[Trial, float]] = []
        self._first_pct: dict[str, float] = {}
        self.is_found = False

    def next(self, *, finals: bool = False) -> Next | NoProposal:
        if self.is_found:
            return NoProposal.EXHAUSTED
        if self._to_confirm:
            trial, error_pct = self._to_confirm.pop(0)
            number = FIRST_NUMBER + len(self._first_pct)
            again = Trial(uuid.uuid4().hex, number, trial.params, CONFIRMING_SEED, trial.epochs, Role.CONFIRM)
            self._first_pct[again.uid] = error_pct
            return Next(again, asks=0, search_time_s=0.0)
        return self._proposer.next(finals=finals)

    def broken_limit(self, trial: Trial) -> str | None:
        return self._proposer.broken_limit(trial)

    def report(self, trial: Trial, report: EpochReport) -> bool:
        return trial.role is Role.CONFIRM or self._proposer.report(trial, report)

    def tell(self, trial: Trial, result: TrialResult) -> None:
        error_pct = result.error_rate_pct if result.outcome is Outcome.COMPLETED else None
        if trial.role is Role.CONFIRM:
            first_pct = self._first_pct[trial.uid]
            self.is_found |= error_pct is not None and (first_pct + error_pct) / 2 <= self._target_pct
            return
        self._proposer.tell(trial, result)
        is_whole = trial.role is Role.TRIAL and trial.epochs == self._spec.epochs
        if is_whole and error_pct is not None and error_pct <= self._target_pct:
            self._to_confirm.append((trial, error_pct))

    def continuable(self) -> frozenset[str]:
        return self._proposer.continuable()
