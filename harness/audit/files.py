"""Compares the exported leaderboard with a new one, and finds unfinished files of killed processes."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.audit.difference import Advice, Difference
from harness.ledger.ledger import Ledger
from harness.support import atomic_files

Rows = dict[str, dict[str, str]]  # cells by trial and column


def leaderboard_file(home: Path, study: str) -> Path:
    return home / "leaderboards" / f"{study}.csv"


def csv_differences(home: Path, ledger: Ledger, study: str) -> Iterator[Difference]:
    """All cells of a study's exported leaderboard that differ from the ledger; none without an export.

    The ledger's rows can all be read.
    """
    path = leaderboard_file(home, study)
    if path.exists():
        for problem in _problems(path, ledger, study):
            yield Difference(f"{path.name}: {problem}", Advice.LEADERBOARD, study)


def write_missing_run_ids(home: Path, ledger: Ledger, study: str) -> Path | None:
    """Writes a study's exported leaderboard again if its run ids differ from the ledger's; None otherwise."""
    path = leaderboard_file(home, study)
    try:
        _, rows = _read(path)
    except (OSError, ValueError, csv.Error):
        return None
    run_ids = ledger.run_ids(study)
    expected = {str(record.trial.number): run_ids.get(record.trial.uid, "") for record in ledger.finished(study)}
    if all(row.get("run_id") == expected.get(trial) for trial, row in rows.items()):
        return None
    _write(ledger, study, path)
    return path


def _problems(path: Path, ledger: Ledger, study: str) -> Iterator[str]:
    try:
        found_columns, found = _read(path)
    except (OSError, ValueError, csv.Error) as error:
        yield f"cannot be read ({error})"
        return
    with TemporaryDirectory() as folder:
        again = Path(folder) / "leaderboard.csv"
        _write(ledger, study, again)
        columns, expected = _read(again)
    if found_columns != columns:
        odd = sorted(set(found_columns) ^ set(columns))
        yield f"other columns ({', '.join(odd) or 'in another order'})"
        return
    if list(found) != list(expected) and sorted(found) == sorted(expected):
        yield "the rows stand in another order"
    for trial in sorted({*found, *expected}, key=lambda trial: (len(trial), trial)):
        for difference in _row_differences(found.get(trial), expected.get(trial)):
            yield f"trial {trial}: {difference}"


def _row_differences(found: dict[str, str] | None, expected: dict[str, str] | None) -> Iterator[str]:
    if found is None or expected is None:
        yield "has no row" if found is None else "has a row, and is no finished trial"
        return
    for column, cell in expected.items():
        if found[column] != cell and not (column == "reused_from" and _may_be_one_trial(found[column], cell)):
            yield f"{column} is {found[column] or 'empty'}, should be {cell or 'empty'}"


def _may_be_one_trial(name: str, other: str) -> bool:
    """Whether two names may be those of one trial, STUDY:NUMBER or its uid if it is gone.

    Its study may have been renamed, removed or imported since the file was written; `reused` compares the trials.
    """
    numbers = {one.rpartition(":")[2] for one in (name, other) if ":" in one}
    return bool(name and other) and len(numbers) == 1


def _write(ledger: Ledger, study: str, path: Path) -> None:
    from harness.analysis.files import write_csv
    from harness.analysis.leaderboard.leaderboard import leaderboard

    write_csv(leaderboard(ledger, [study]), path)


def _read(path: Path) -> tuple[list[str], Rows]:
    """Columns, and cells by trial.

    Raises:
        OSError, ValueError, csv.Error: the file is no leaderboard.
    """
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file, strict=True) or [[]]
    if "trial" not in header:
        raise ValueError("there is no column `trial`")
    rows: Rows = {}
    for line in lines:
        row = dict(zip(header, line, strict=True))
        if row["trial"] in rows:
            raise ValueError(f"trial {row['trial']} has two rows")
        rows[row["trial"]] = row
    return header, rows


def leftovers(home: Path, study: str = "*") -> Iterator[Difference]:
    """Unfinished files of a study, or of all, whose writing process has died."""
    boards = (path for path in atomic_files.leftovers(home / "leaderboards") if path.match(f".{study}.csv.*"))
    checkpoints = chain.from_iterable(map(atomic_files.leftovers, (home / "checkpoints").glob(study)))
    for path in sorted([*boards, *checkpoints]):
        yield Difference(f"{path.relative_to(home)}: left unfinished by a process that is gone", Advice.DELETE)
