"""The leaderboard on a terminal: its first rows, and conclusions."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TextIO

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from harness.analysis.hyperparameters import hyperparameters
from harness.analysis.leaderboard.columns import INTERVAL, Columns, cell, columns
from harness.analysis.leaderboard.leaderboard import by_configuration, fidelity_columns
from harness.analysis.terminal import natural_width, plain_console
from harness.analysis.verdict.board import show_board
from harness.ledger.ledger import Ledger, find_study
from harness.study.comparability import Configurations
from harness.study.findings import find, sentences
from harness.study.formatting import CHANGES, changes
from harness.study.metrics import metrics
from harness.study.records import Outcome, Role, Shown
from harness.study.spec import SweepSpec

TIMING_CLASS, INTERVALS = "timing\nclass", "95 % intervals"
MIN_CHANGES, MAX_LINES, TALL = 25, 4, 6  # of the column of changes: least width, and wanted and largest number of lines
NAME_WIDTH = 12  # of a study, where there is no room for its whole name
TITLE_WIDTH = 10  # of a title without line breaks of its own


def show_leaderboard(
    ledger: Ledger, studies: Sequence[str], frame: pd.DataFrame, stream: TextIO, top: int = 20
) -> None:
    """Prints the first `top` configurations of the leaderboard of `studies`, each baseline, and the findings.

    Raises:
        InputError: there is no such study.
    """
    console = plain_console(stream)
    specs = [find_study(ledger, name).spec for name in studies]
    verdicts = [spec for spec in specs if spec.is_verdict]
    others = [spec for spec in specs if not spec.is_verdict]
    if others:
        _show_trials(ledger, others, frame[~frame["study"].isin([spec.study for spec in verdicts])], console, top)
    for number, spec in enumerate(verdicts):
        if others or number:
            console.print()
        if len(specs) > 1:
            console.print(f"{spec.study}:")
        show_board(ledger, spec, console)


def _show_trials(ledger: Ledger, specs: Sequence[SweepSpec], frame: pd.DataFrame, console: Console, top: int) -> None:
    """The configurations of searches and baselines, and the findings."""
    board = by_configuration(frame.assign(clock=_clocks(frame)))
    is_baseline = board["rank"].notna() & (board["role"] == Role.BASELINE)
    rows = board[is_baseline | (np.arange(len(board)) < top)]
    if len(rows):
        shown, hidden = _columns(rows, specs, console)
        console.print(_table(rows, shown))
        if hidden:
            console.print(f"no room in {console.width} columns for {', '.join(hidden)}: the CSV file has them")
    for line in [*_left_out(board, rows), *_cautions(board)]:
        console.print(line)
    for spec in specs:
        which = f"{spec.study}: " if len(specs) > 1 else ""
        for line in _findings(ledger, spec):
            console.print(which + line)


def _findings(ledger: Ledger, spec: SweepSpec) -> list[str]:
    """What was found, and all settings of the best configuration, whatever the table has room for."""
    findings = find(Configurations(spec, ledger.finished(spec.study)), ledger.result)
    best = findings.best
    if best is None:
        return sentences(findings)
    mine = changes(best.params, spec.baseline_params)
    return [*sentences(findings), f"settings of trial {best.first.trial.number}: {mine}; otherwise as documented"]


def _table(rows: pd.DataFrame, texts: Columns) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in texts:
        is_text = title in ("study", "trial", CHANGES)
        lines = title if "\n" in title else textwrap.fill(title, TITLE_WIDTH, break_long_words=False)
        table.add_column(lines, justify="left" if is_text else "right", no_wrap=title != CHANGES)
    fidelity = list(zip(*(rows[name] for name in fidelity_columns(rows)), strict=True))
    ends = [here != after for here, after in zip(fidelity, [*fidelity[1:], fidelity[-1]], strict=True)]
    for cells, role, is_end in zip(zip(*texts.values(), strict=True), rows["role"], ends, strict=True):
        table.add_row(*cells, style="bold" if role == Role.BASELINE else None, end_section=is_end)
    return table


def _columns(rows: pd.DataFrame, specs: Sequence[SweepSpec], console: Console) -> tuple[Columns, list[str]]:
    """The columns that fit, and names of those that do not.

    Hyperparameters are in separate columns, else in one, and are left out last, or if a row of them would be tall.
    Before that names of studies are broken, then metrics (the last one first), intervals and seeds are left out.
    """
    names, every, end = hyperparameters(specs), _start(rows, specs), _end(rows)
    texts = {name: [cell(value) for value in rows[name]] for name in names}
    own = {name.replace("_", "_\n"): texts[name] for name in names}
    changed = {CHANGES: _changes(rows, names, specs)} if names else {}
    least, ample = _widths(changed.get(CHANGES, []))

    def room(shown: Columns) -> int:
        return console.width - natural_width(_table(rows, shown), console)

    def fits(shown: Columns) -> bool:
        return room(shown) >= 0

    for width in (ample, least):
        for start, hidden in _ever_fewer(every):
            if fits(start | own | end):
                return start | own | end, hidden
            is_tall = _num_lines(changed.get(CHANGES, []), max(width, room(start | end))) > TALL
            if changed and room(start | end) >= width and not is_tall:
                return start | changed | end, hidden
            if is_tall and INTERVALS in hidden:  # the numbers say more than rows that fill the screen
                break
    fewer = list(_ever_fewer(every))
    start, hidden = next(((start, hidden) for start, hidden in fewer if fits(start | end)), fewer[-1])
    return start | end, ["hyperparameters", *hidden] if names else hidden


def _num_lines(changed: Sequence[str], width: int) -> int:
    """Lines of the tallest row."""
    return max((len(textwrap.wrap(text, width)) for text in changed), default=0)


def _widths(changed: Sequence[str]) -> tuple[int, int]:
    """Widths of the column of changes: the least that breaks no word, and one in which a row has few lines."""
    least = max([MIN_CHANGES, *(len(word) for text in changed for word in text.split())])
    return least, max([least, *(len(text) // MAX_LINES for text in changed)])


def _ever_fewer(columns: Columns) -> Iterator[tuple[Columns, list[str]]]:
    """The columns, then the same in less and less width, with the names of what is left out."""
    yield columns, []
    hidden: list[str] = []
    columns = _with_broken_names(columns)
    yield columns, []
    titles = [metric.title for metric in reversed(metrics(Shown.TABLE))]
    last = [title for title in titles if title in columns][:1]
    for title in (*last, INTERVAL, *titles, TIMING_CLASS, "seeds"):
        fewer = _without_intervals(columns) if title == INTERVAL else {k: v for k, v in columns.items() if k != title}
        if fewer != columns:
            columns, hidden = fewer, [*hidden, INTERVALS if title == INTERVAL else title.replace("\n", " ")]
            yield columns, hidden


def _without_intervals(columns: Columns) -> Columns:
    return {
        title.removesuffix(INTERVAL): [text.partition(" (")[0] for text in texts] if INTERVAL in title else texts
        for title, texts in columns.items()
    }


def _with_broken_names(columns: Columns) -> Columns:
    if "study" not in columns:
        return dict(columns)
    broken = [textwrap.fill(name, NAME_WIDTH, break_long_words=False) for name in columns["study"]]
    return columns | {"study": broken}


def _start(rows: pd.DataFrame, specs: Sequence[SweepSpec]) -> Columns:
    """The columns before the hyperparameters; a trial that was not trained to its end has its outcome beside it."""
    found = columns(rows, specs)
    found["trial"] = [
        trial if outcome == Outcome.COMPLETED else f"{trial} {str(outcome).replace('_', ' ')}"
        for trial, outcome in zip(found["trial"], rows["outcome"], strict=True)
    ]
    if rows["clock"].nunique() > 1:
        found[TIMING_CLASS] = list(rows["clock"].fillna(""))
    return found


def _end(rows: pd.DataFrame) -> Columns:
    """What decides which rows are ranked together, where it differs."""
    differing = [name for name in fidelity_columns(rows) if rows[name].nunique(dropna=False) > 1]
    return {name.replace("_", " "): [cell(value) for value in rows[name]] for name in differing}


def _changes(rows: pd.DataFrame, names: list[str], specs: Sequence[SweepSpec]) -> list[str]:
    """The active hyperparameters that differ from the documented ones, by row."""
    documented = {spec.study: spec.baseline_params for spec in specs}
    return [
        changes({name: row[name] for name in names if not pd.isna(row[name])}, documented[row["study"]])
        for row in rows.to_dict("records")
    ]


def _left_out(frame: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    """Numbers of configurations without a row, by outcome."""
    counts = frame["outcome"].value_counts().sub(rows["outcome"].value_counts(), fill_value=0).astype(int)
    parts = [f"{count} {str(outcome).replace('_', ' ')}" for outcome, count in counts.items() if count]
    if not len(frame):
        return ["no trial has ended yet"]
    return [f"configurations not shown: {', '.join(parts)}"] if parts else []


def _clocks(frame: pd.DataFrame) -> pd.Series:
    """A letter for each row's timing class, in the order of the rows; none without times."""
    names = frame["timing_class"].dropna().unique()
    return frame["timing_class"].map({name: _letters(place) for place, name in enumerate(names)})


def _letters(place: int) -> str:
    """a to z, then aa and so on."""
    before, place = divmod(place, 26)
    return (_letters(before - 1) if before else "") + chr(ord("a") + place)


def _cautions(frame: pd.DataFrame) -> list[str]:
    """Reasons why rows cannot be compared."""
    ranked = frame[frame["rank"].notna()]
    lines = []
    clocks = ranked.dropna(subset="clock").drop_duplicates("clock")
    if len(clocks) > 1:
        lines.append(f"times come from {len(clocks)} timing classes: compare them only within one")
        lines += [f"  {clock}: {name}" for clock, name in zip(clocks["clock"], clocks["timing_class"], strict=True)]
    if ranked["continues"].notna().any():
        lines.append("the time of a trial that continues another one includes that one's")
    fidelity = fidelity_columns(frame)
    if len(ranked.drop_duplicates(fidelity)) > 1:
        lines.append("ranks count within one fidelity: " + ", ".join(fidelity))
    return lines
