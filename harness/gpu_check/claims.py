"""Claims about a GPU, and the checks that try them. A check that fails or runs out of time stops no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

from harness.errors import TroubleError
from harness.support.redaction import reason

S = TypeVar("S")
Number = float | str | None

_REST = "the rest of this check"


class State(StrEnum):
    HOLDS = "holds"
    FAILS = "does not hold"
    UNTRIED = "could not be tried"
    MEASURED = "measured"  # a number without a claim


@dataclass(frozen=True)
class Claim:
    """One statement about a GPU.

    Attributes:
        text: What is claimed or measured.
        state: Whether it holds.
        seen: What was seen, in words.
        numbers: The same for programs; units are in the names.
    """

    text: str
    state: State
    seen: str
    numbers: Mapping[str, Number] = field(default_factory=dict)


def claim(text: str, holds: bool, seen: str, **numbers: Number) -> Claim:
    return Claim(text, State.HOLDS if holds else State.FAILS, seen, numbers)


def untried(text: str, why: str) -> Claim:
    return Claim(text, State.UNTRIED, why)


def measured(text: str, seen: str, **numbers: Number) -> Claim:
    return Claim(text, State.MEASURED, seen, numbers)


@dataclass(frozen=True)
class Check(Generic[S]):
    """A few claims that are tried together.

    Attributes:
        name: A word for tables.
        budget_s: The seconds that it may take. What a check leaves of its seconds, later ones may take.
        run: Yields the claims. Gets what is checked, and the time (monotonic) by which it must end; raises TimeoutError
            if that is too early.
    """

    name: str
    budget_s: float
    run: Callable[[S, float], Iterator[Claim]]


def run_checks(checks: Sequence[Check[S]], subject: S) -> Iterator[tuple[str, Claim]]:
    """(name of the check, claim) for each claim, as soon as it is known."""
    deadline_s = time.monotonic()
    for check in checks:
        deadline_s += check.budget_s
        try:
            for one in check.run(subject, deadline_s):
                yield check.name, one
        except TroubleError as error:
            yield check.name, untried(_REST, str(error))
        except TimeoutError:
            yield check.name, untried(_REST, f"its time was up ({check.budget_s:g} s)")
        except Exception as error:  # also what a driver or a framework raises
            yield check.name, untried(_REST, f"{type(error).__name__}: {reason(error)}")
