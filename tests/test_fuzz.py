"""What comes in from outside, files, names and workers' words, is understood or refused in one line."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filled_ledger import FilledLedger, make_spec, read_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_messages import JOB, REPORTS, SETUP

from harness.analysis.files import write_csv
from harness.errors import InputError, TroubleError
from harness.execution.messages import (
    Command,
    ProtocolError,
    Report,
    Turn,
    read_command,
    read_report,
    to_line,
)
from harness.ledger.ledger import Ledger
from harness.search import catalogue
from harness.study.settings import Flags
from harness.study.spec import SweepSpec, is_name
from harness.study.sweep_file import load_sweep
from harness.support.home import sweeps_folder

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(FEW, max_examples=2000)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 2**31, 2**63, 10**30, 10**100, math.nan, math.inf])
scalars = st.none() | st.booleans() | numbers | text
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=10
)


def is_one_line(error: Exception) -> bool:
    return len(str(error).splitlines()) == 1 and len(str(error)) < 2000


# Sweep files

SWEEP = (sweeps_folder() / "cnn-recipe.toml").read_text()


def toml(value: Any) -> str:
    """`value` as TOML writes it, at any depth in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(str(key))} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else json.dumps(value or "", ensure_ascii=False)


def load_or_refuse(content: bytes, folder: Path) -> None:
    path = folder / "mine.toml"
    path.write_bytes(content)
    try:
        spec = load_sweep(path, Flags(), "quick")
        catalogue.check(spec)
    except InputError as error:
        assert is_one_line(error), str(error)
    else:
        assert SweepSpec.model_validate_json(spec.model_dump_json()) == spec
        assert spec.digest()
        spec.search_space.validate(spec.baseline_params)


domains = st.fixed_dictionaries(
    {},
    optional={
        "low": numbers,
        "high": numbers,
        "step": numbers,
        "log": st.booleans() | scalars,
        "values": st.lists(scalars, max_size=4),
        "when": st.dictionaries(st.sampled_from(["filters_1", "batch_norm", "x"]), anything, max_size=2),
    },
)


@st.composite
def changed_sweeps(draw: st.DrawFn) -> bytes:
    """A good sweep file in which values, at any depth, are something else."""
    import tomllib

    data = tomllib.loads(SWEEP)
    for _ in range(draw(st.integers(1, 3))):
        place: Any = data
        while True:
            key = draw(st.sampled_from(sorted(place)) | text)
            if not isinstance(place.get(key), dict) or not place[key] or draw(st.booleans()):
                place[key] = draw(anything | domains)
                break
            place = place[key]
    return "\n".join(f"{toml(key)} = {toml(value)}" for key, value in data.items()).encode()


@FEW
@given(content=changed_sweeps() | st.binary(max_size=200) | text.map(str.encode))
def test_a_sweep_file_loads_or_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    load_or_refuse(content, tmp_path)


@pytest.mark.slow
@MANY
@given(content=changed_sweeps())
def test_many_sweep_files_load_or_are_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    load_or_refuse(content, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "a = " + "[" * 100_000 + "]" * 100_000,
        ".".join(["a"] * 3000) + " = 1",
        "space." + ".".join(["a"] * 3000) + " = 1",
        "\n".join(f"[space.a{i}]" for i in range(10_000)),
        "recipe = { batch_size = " + "9" * 500_000 + " }",
        "recipe = { batch_size = 0x" + "f" * 500_000 + " }",
        'baseline = "' + "x" * 900_000 + '"',
        "x" * 2_000_000,
        "",
    ],
    ids=[
        "deep list",
        "deep keys",
        "deep space",
        "many tables",
        "long number",
        "long hex",
        "long text",
        "large",
        "empty",
    ],
)
def test_a_huge_or_deep_sweep_file_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    load_or_refuse(content.encode(), tmp_path)


@FEW
@given(name=st.text(max_size=70) | st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True))
def test_a_name_that_passes_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    if is_name(name):
        assert (tmp_path / f"{name}.csv").resolve().parent == tmp_path.resolve()
        assert (tmp_path / name).resolve().parent == tmp_path.resolve()
        assert (len(name) <= 88, name.isascii(), name == name.strip()) == (True, True, True)


# CSV

cells = (
    st.none()
    | text
    | st.sampled_from(["=1+1", "+1", "-1", "@x", "\t=1", "'=1", "''@", "\r\n=x", '"', ",", "\x00", "'"])
)
columns = st.lists(cells, min_size=3, max_size=3) | st.lists(st.floats(allow_infinity=False), min_size=3, max_size=3)


@FEW
@given(
    table=st.dictionaries(
        text, columns | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3), max_size=4
    )
)
def test_a_csv_reads_back_and_no_cell_is_a_formula(table: dict[str, list[Any]], tmp_path: Path) -> None:
    frame = pd.DataFrame({name: pd.Series(values, dtype=None) for name, values in table.items()})
    write_csv(frame, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if not table:
        return
    assert [_text(name) for name in header] == [_plain(name) for name in table]
    assert len(rows) == 3
    for row, position in zip(rows, range(3), strict=True):
        for cell, values in zip(row, table.values(), strict=True):
            _check_cell(cell, values[position])


def _check_cell(cell: str, value: object) -> None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        assert cell == ""
    elif isinstance(value, str):
        assert not cell.startswith(("=", "+", "-", "@", "\t"))
        assert _text(cell) == _plain(value)
    else:
        assert type(value)(cell) == (float(f"{value:.6g}") if isinstance(value, float) else value)


def _text(cell: str) -> str:
    """A cell without the apostrophe that keeps it from being a formula."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'")[:1] in ("=", "+", "-", "@", "\t", "\n") else cell


def _plain(value: str) -> str:
    return value.replace("\r\n", "\n").replace("\r", "\n")


# Ledgers

CELLS = {
    "studies": ["study", "spec", "provenance", "created_at", "num_events"],
    "trials": ["uid", "number", "role", "params", "seed", "epochs", "continues", "asked_at", "asks", "search_time_s"],
    "attempts": ["attempt", "worker", "started_at", "reserved_time_s", "outcome", "told_at", "result", "wrong_images"],
    "epochs": ["epoch", "report"],
    "sessions": ["started_at", "wall_s", "provenance"],
}


@pytest.fixture(scope="module")
def ledger_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    with closing(Ledger(path)) as ledger:
        study = FilledLedger(ledger, make_spec())
        ledger.start_session("study", {"git_commit": "abc"})
        study.add_baseline(3.0, wrong=[1, 2])
        study.add(2.5, wrong=[3])
        study.ask()
    return path


cells_of_ledgers = st.sampled_from([(table, column) for table, columns in CELLS.items() for column in columns])
contents = anything.map(json.dumps) | text | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.none()


def read_or_refuse(path: Path, cell: tuple[str, str], value: object) -> None:
    """A cell that holds anything else than before is noticed, also where it holds what might have been written."""
    table, column = cell
    first = dict.fromkeys(CELLS, "rowid = 1") | {"epochs": "epoch = 1"}
    rows = f"SELECT * FROM {table}"  # noqa: S608 - of CELLS
    with closing(sqlite3.connect(path)) as db:
        before = db.execute(rows).fetchall()
        try:
            db.execute(f"UPDATE {table} SET {column} = ? WHERE {first[table]}", (value,))  # noqa: S608 - of CELLS
        except sqlite3.IntegrityError:
            return  # SQLite itself refuses it
        is_changed = db.execute(rows).fetchall() != before
        db.commit()
    if not is_changed:
        read_all(path)
        return
    with pytest.raises(TroubleError) as caught:
        read_all(path)
    assert is_one_line(caught.value), str(caught.value)


@FEW
@given(cell=cells_of_ledgers, value=contents)
def test_a_ledger_with_any_cell_changed_is_read_or_refused(
    ledger_path: Path, cell: tuple[str, str], value: object, tmp_path: Path
) -> None:
    read_or_refuse(Path(shutil.copy(ledger_path, tmp_path)), cell, value)


@pytest.mark.slow
@MANY
@given(cell=cells_of_ledgers, value=contents)
def test_many_ledgers_with_any_cell_changed_are_read_or_refused(
    ledger_path: Path, cell: tuple[str, str], value: object, tmp_path: Path
) -> None:
    read_or_refuse(Path(shutil.copy(ledger_path, tmp_path)), cell, value)


# Workers


@st.composite
def changed_lines(draw: st.DrawFn) -> bytes:
    """A good message with something else at one place."""
    lines = [to_line(report) for report in REPORTS] + [to_line(Command(run=JOB)), to_line(Command(setup=SETUP))]
    place = data = json.loads(draw(st.sampled_from(lines)))
    while True:
        key = draw(st.sampled_from(sorted(place)) | text)
        if not isinstance(place.get(key), dict) or not place[key] or draw(st.booleans()):
            place[key] = draw(anything)
            return json.dumps(data).encode()
        place = place[key]


@settings(FEW, max_examples=300)
@given(line=changed_lines() | st.binary() | anything.map(lambda value: json.dumps(value).encode()))
def test_a_line_is_a_message_or_a_protocol_error(line: bytes) -> None:
    for read in (read_report, read_command):
        try:
            message = read(line)
        except ProtocolError as error:
            assert is_one_line(error), str(error)
        else:
            assert read(to_line(message)) == message


@pytest.mark.parametrize(
    "line", [b"[" * 100_000, b"9" * 100_000, b'{"ready": ' + b"[" * 100_000, b'"' + b"x" * 1_000_000]
)
def test_a_deep_or_long_line_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_report(line)
    assert is_one_line(caught.value)


@settings(FEW, max_examples=300)
@given(reports=st.lists(st.sampled_from(REPORTS), max_size=12))
def test_what_a_worker_says_out_of_turn_is_refused(reports: list[Report]) -> None:
    turn, heard = Turn(), ""
    for report in reports:
        try:
            turn.hear(report)
        except ProtocolError as error:
            assert is_one_line(error)
            break
        if report.ready:
            turn.hand_out(JOB)
        if report.epoch:
            turn.answer()
        heard += "ready " if report.ready else str(report.epoch.epoch) if report.epoch else "result "
    assert re.fullmatch(r"(ready 1?2?3result )*(ready 1?2?3?)?", heard)
