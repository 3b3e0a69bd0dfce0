"""Where the functions find studies."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api.sweeps import default_profile, sweep_path
from harness.support import home as places

if TYPE_CHECKING:
    from harness.ledger.ledger import Ledger
    from harness.study.spec import SweepSpec


@contextmanager
def open_ledger(home: str | Path | None = None, *, checks: bool = True) -> Iterator[Ledger]:
    """A home's ledger for reading, closed at the end; an empty one, without a file, if there is none.

    Without `checks`, a damaged one is opened as well.
    """
    from harness.ledger.ledger import Ledger

    with closing(Ledger(places.home(home) / "ledger.db", makes=False, checks=checks, say=complain)) as ledger:
        yield ledger


def study_named(name: str, home: str | Path | None = None) -> str:
    """The name of a study: its own, or that of its file in `sweeps/`, which means the file's default study.

    Raises:
        InputError: there is no such study.
    """
    from harness.ledger.ledger import no_such_study
    from harness.study.settings import Flags
    from harness.study.sweep_file import load_sweep

    path, folder = sweep_path(name), places.sweeps_folder()
    # A name is found in a damaged ledger as well, which the command then reports.
    with open_ledger(home, checks=False) as ledger:
        known = ledger.study_names()
        if name in known:
            return name
        sweeps = [file.stem for file in folder.glob("*.toml") if f"{file.stem}-{default_profile()}" in known]
        if path.parent != folder:
            raise no_such_study(ledger, name, sweeps)
        study = load_sweep(path, Flags(), default_profile()).study
        if study not in known:
            raise no_such_study(ledger, name, sweeps, f", a sweep whose study here would be {study}")
        return study


def name_of(study: str | SweepSpec, home: str | Path | None = None) -> str:
    """The name of a study that is given by its name, its sweep's name or its spec.

    Raises:
        InputError: it is none of these, or there is no study of such a name.
    """
    from harness.errors import InputError
    from harness.study.spec import SweepSpec
    from harness.support.strict_json import shown

    if isinstance(study, SweepSpec):
        return study.study
    if not isinstance(study, str):
        raise InputError(f"study is {shown(study)}; allowed: a name, or what load_sweep gives")
    return study_named(study, home)


def complain(line: str) -> None:
    sys.stderr.write(f"harness: {line}\n")
