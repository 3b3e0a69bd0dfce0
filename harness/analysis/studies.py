"""Studies by the names that people type."""

from __future__ import annotations

from harness.errors import InputError
from harness.ledger import Ledger, Study
from harness.parsing import shown


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
