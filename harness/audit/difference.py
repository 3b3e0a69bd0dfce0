"""A line of an audit: a problem and advice."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Advice(StrEnum):
    """How to repair a difference; {} is its subject."""

    SYNC = "`harness sync` mends it"
    LEADERBOARD = "`harness leaderboard {}` writes it again"
    START = "the next start of the study ends it"
    DELETE = "delete it"
    DELETE_RUN = "if it is not needed: {}"
    COPY = "put a copy of ledger.db back"
    COPY_OR_FRESH = "put a copy of ledger.db back, or start the study again with --fresh"


@dataclass(frozen=True)
class Difference:
    what: str
    advice: Advice
    about: str = ""

    def __str__(self) -> str:
        return f"{self.what}; {self.advice.format(self.about)}"
