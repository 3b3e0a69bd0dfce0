"""Studies by the names that people type."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from harness.errors import DamageError, InputError
from harness.ledger import Ledger, Study
from harness.parsing import shown

T = TypeVar("T")


def of_each(ledger: Ledger, say: Callable[[str], None], make: Callable[[str], T]) -> list[T]:
    """What is made of each study, oldest first; one whose rows cannot be read is named and left out."""
    unreadable = ledger.unreadable_studies()
    made = []
    for name in ledger.study_names():
        if name not in unreadable:
            try:
                made.append(make(name))
            except DamageError as error:
                unreadable[name] = str(error)
    for name, why in unreadable.items():
        say(f"study {name} is left out: {why}")
    return made


def sound_studies(ledger: Ledger, say: Callable[[str], None]) -> list[str]:
    """The names of the studies of which everything can be read; the others are named and left out."""

    def checked(name: str) -> str:
        ledger.check_study(name)
        return name

    return of_each(ledger, say, checked)


def find_study(ledger: Ledger, name: str) -> Study:
    """The study called `name`.

    Raises:
        InputError: there is none of that name.
    """
    try:
        return ledger.study(name)
    except KeyError:
        raise InputError(
            f"study is {shown(name)}; allowed: {', '.join(ledger.study_names()) or none_yet(ledger)}"
        ) from None


def none_yet(ledger: Ledger) -> str:
    """What to say where there is no study: it may be the wrong place."""
    folder = ledger.path.parent
    return f"none yet in {folder}{'' if folder.exists() else ', which is not there'}; `harness sweep` makes one"
