"""`harness export STUDY --study FILE` and `harness import FILE`: a study moves to another home, with its verdict.

Both check the file's rows as the audit checks a ledger's, so that what was exported can be imported.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

from harness.audit.difference import Advice
from harness.audit.recount import recount
from harness.audit.rows import damage, open_read_only, read_study
from harness.errors import DamageError, InputError, TroubleError
from harness.ledger.ledger import Ledger, find_study
from harness.ledger.locks import study_lock
from harness.ledger.reader import REMOVE
from harness.ledger.study_file import pack, unpacked
from harness.study.spec import check_name, verdict_name
from harness.support.atomic_files import STDOUT, replaced
from harness.support.failpoints import Step, reach
from harness.support.given_files import open_given
from harness.support.strict_json import shown

STDIN = STDOUT  # "-" is standard input where a file is read


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        study: The study's name in this home.
        num_trials: By name, for the study and its verdict: the number of trials that were added, 0 if the ledger had
            all of it.
        missing_source: A study from which it has learned and without which it cannot go on, if the ledger lacks it.
    """

    study: str
    num_trials: dict[str, int]
    missing_source: str | None


def export_study(ledger: Ledger, study: str, path: Path) -> None:
    """Writes all that the ledger has of a study and its verdict; the study may be running.

    Raises:
        InputError: there is no such study, or it is a verdict.
        TroubleError: the ledger's rows are damaged, or the file cannot be written.
    """
    if (spec := find_study(ledger, study).spec).is_verdict:
        raise InputError(
            f"study is {study!r}, a verdict, which goes with the study that it tests; allowed: {spec.about}"
        )
    verdict = verdict_name(study)
    has_verdict = verdict in ledger.study_names() and ledger.study(verdict).spec.is_verdict
    names = [study, verdict] if has_verdict else [study]
    with replaced(path) as unfinished:
        pack(ledger, names, unfinished)
        with unfinished.open("rb") as file, unpacked(file, f"study {study}") as (_, copy):
            for problem in _problems(copy, study):
                raise DamageError(
                    f"study {study} is not exported: {problem}; `harness doctor --audit {study}` says more"
                )
        reach(Step.BEFORE_FILE)
    reach(Step.AFTER_FILE)


def import_study(home: Path, named: str, new_name: str | None = None) -> Imported:
    """Adds the study of a file, and its verdict, to this home's ledger, or nothing.

    A study that the ledger has with the same rows is left as it is.

    Args:
        home: Folder of all state.
        named: The file; "-" is standard input.
        new_name: Its name in this home; None: as in the file.

    Raises:
        InputError: there is no such file, or the ledger has another study of this name, or its trials in another study.
        TroubleError: the file is not as an export wrote it, or of a newer version; the ledger cannot be written.
    """
    if new_name is not None:
        check_name(verdict_name(check_name(new_name, "--as")), "the verdict of --as")
    what = f"file {shown(named)}"
    with _opened(named) as file, unpacked(file, what) as (study, source):
        for problem in _problems(source, study):
            raise TroubleError(f"{what}: {problem}")
        if new_name is not None:
            _rename(source, study, new_name)
            study = new_name
        num_trials = _add(home, source)
    with closing(Ledger(home / "ledger.db", makes=False)) as ledger:
        learned_from = ledger.study(study).spec.learn_from
        is_missing = learned_from is not None and learned_from not in ledger.study_names()
    return Imported(study, num_trials, learned_from if is_missing else None)


def _rename(source: Ledger, study: str, new_name: str) -> None:
    new_names = {study: new_name, verdict_name(study): verdict_name(new_name)}
    names = [name for name in source.study_names() if new_names[name] != name]
    for name in sorted(names, key=lambda name: new_names[name] in names):  # last what takes the other's old name
        source.rename_study(name, new_names[name])


def _add(home: Path, source: Ledger) -> dict[str, int]:
    """Adds what the ledger lacks, all or nothing; returns the number of new trials by study."""
    path = home / "ledger.db"
    with closing(Ledger(path, makes=False)) as ledger:
        new = _lacking(ledger, source)
    if new:
        with ExitStack() as locks:
            for name in new:
                locks.enter_context(study_lock(home, name))
            with closing(Ledger(path)) as ledger, ledger.together():
                new = _lacking(ledger, source)  # again, now that no process can start it
                reach(Step.BEFORE_IMPORT)
                ledger.add_studies(source, new)
                reach(Step.BEFORE_IMPORT_ENDS)
        reach(Step.AFTER_IMPORT)
    return {name: len(source.history(name)) if name in new else 0 for name in source.study_names()}


def _lacking(ledger: Ledger, source: Ledger) -> list[str]:
    """The studies of `source` that a ledger lacks.

    Raises:
        InputError: one of them cannot be added.
    """
    new = []
    for name in source.study_names():
        trials = [record.trial.uid for record in source.history(name)]
        is_there = name in ledger.study_names() or name in ledger.unreadable_studies()
        if is_there and _are_equal(ledger, source, name):
            continue
        holder = _holder(ledger, trials)
        if holder == name:
            numbers = f"{len(trials)} trials in the file, {len(ledger.history(name))} in this ledger"
            ways = f"another home, or `harness doctor --remove {name}` first, which keeps a copy of the ledger"
            raise InputError(
                f"study {name} is in this ledger and has gone on in one of the two ({numbers}); allowed: {ways}"
            )
        if holder is not None:
            raise InputError(
                f"study {name}: its trials are already in this ledger as study {holder}; allowed: another home"
            )
        if is_there:
            raise InputError(f"study {name}: this ledger has another study of that name; allowed: --as NAME")
        new.append(name)
    return new


def _holder(ledger: Ledger, uids: Iterable[str]) -> str | None:
    """The study of the first of these trials that the ledger has."""
    for uid in uids:
        with suppress(KeyError):
            return ledger.whereabouts(uid)[0]
    return None


def _are_equal(ledger: Ledger, source: Ledger, study: str) -> bool:
    return all(one == other for one, other in zip_longest(ledger.rows([study]), source.rows([study])))


def _problems(source: Ledger, study: str) -> Iterator[str]:
    """Whatever the harness cannot have written, by the rules of the audit."""
    yield from (_bare(why, source) for why in source.unreadable_studies().values())
    names = source.study_names()
    if study not in names or not {study, verdict_name(study)}.issuperset(names):
        yield f"it has the studies {shown(names)}; allowed: {shown(study)} and its verdict"
    with closing(open_read_only(source.path)) as db:
        try:
            yield from damage(db)
            for name in names:
                rows = read_study(db, name)
                if rows.spec and rows.spec.is_verdict != (name != study):
                    yield f"study {name} is a {rows.spec.kind}"
                yield from rows.unreadable
                # An attempt without an outcome was running, and is closed when the study goes on.
                yield from (found.what for found in recount(rows) if found.advice is not Advice.START)
        except (sqlite3.Error, UnicodeError) as error:
            yield str(error)
    try:
        for name in names:
            source.check_study(name)
    except DamageError as error:
        yield _bare(str(error), source)


def _bare(error: str, source: Ledger) -> str:
    """What is wrong with a row, without what helps a user's own ledger only."""
    return error.removeprefix(f"ledger {source.path}: ").removesuffix(f"; {REMOVE}")


@contextmanager
def _opened(named: str) -> Iterator[BinaryIO]:
    """The file to import."""
    if named == STDIN:
        yield sys.stdin.buffer
        return
    try:
        file = open_given(Path(named))
    except (OSError, ValueError) as error:  # ValueError: NUL
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"FILE is {shown(named)}: {why}; allowed: a file of `harness export STUDY --study`, or -"
        ) from error
    with file:
        yield file
