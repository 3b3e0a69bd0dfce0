"""Studies by the names that people type."""

from __future__ import annotations

from harness.errors import InputError
from harness.ledger import Ledger, Study


def find_study(ledger: Ledger, name: str) -> Study:
    """The study called `name`.

    Raises:
        InputError: there is none of that name.
    """
    try:
        return ledger.study(name)
    except KeyError:
        known = ", ".join(ledger.study_names()) or "none yet; `harness sweep` makes one"
        raise InputError(f"study is {name!r}; allowed: {known}") from None
