"""Where the functions find studies."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.support import home as places

if TYPE_CHECKING:
    from harness.ledger.ledger import Ledger
    from harness.study.spec import SweepSpec


@contextmanager
def open_ledger(home: str | Path | None = None) -> Iterator[Ledger]:
    """A home's ledger for reading, closed at the end; an empty one, without a file, if there is none."""
    from harness.ledger.ledger import Ledger

    with closing(Ledger(places.home(home) / "ledger.db", makes=False, say=complain)) as ledger:
        yield ledger


def name_of(study: str | SweepSpec) -> str:
    return study if isinstance(study, str) else study.study


def complain(line: str) -> None:
    sys.stderr.write(f"harness: {line}\n")
