"""A process without standard streams, as cron, a service manager or `>&-` may start one."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from contextlib import closing
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
from filled_ledger import FilledLedger, make_spec

from harness import cli
from harness.ledger.ledger import Ledger
from harness.support import standard_streams
from harness.tracking import ui

# A C library does not ask Python which streams there are.
PRINTS_ON_ALL = """
import os, sys
from harness import cli, commands
kept = []
def status(options):
    kept.append(open(sys.argv[1], "w+"))
    for descriptor in (0, 1, 2):
        os.stat(descriptor)
    os.write(1, b"printed")
    os.write(2, b"printed")
    print("said"), sys.stdin.isatty(), sys.stderr.write("complained")
    kept[0].write("whole")
    return 0
commands.COMMANDS["status"] = status
sys.exit(cli.main(["status"]))
"""
CLOSED = [closed for closed in product(*[("", f"{n}>&-") for n in range(3)]) if any(closed)]


@pytest.fixture
def environment(tmp_path: Path, digits_folder: Path) -> dict[str, str]:
    with closing(Ledger(tmp_path / "home" / "ledger.db")) as ledger:
        study = FilledLedger(ledger, make_spec(dataset="digits"))
        study.add_baseline(3.0)
        study.add(2.5)
    return {
        **os.environ,
        "HARNESS_HOME": str(tmp_path / "home"),
        "HARNESS_DATA": str(digits_folder.parent),
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
    }


def run(
    *command: str, closed: tuple[str, ...], environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command without the streams that a shell closes."""
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {" ".join(closed)}', "sh", sys.executable, *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("closed", CLOSED, ids="".join)
def test_nothing_that_is_printed_goes_into_a_file(closed: tuple[str, ...], tmp_path: Path) -> None:
    done = run("-c", PRINTS_ON_ALL, str(tmp_path / "file"), closed=closed)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text() == "whole"
    assert done.stdout == ("" if "1>&-" in closed else "printedsaid\n")
    assert done.stderr == ("" if "2>&-" in closed else "printedcomplained")


@pytest.mark.parametrize(
    "command",
    [["status"], ["status", "--json"], ["leaderboard"], ["export", "study", "--csv", "x.csv"], ["data", "verify"]],
    ids=" ".join,
)
def test_a_command_works_where_nobody_reads_it(
    command: list[str], environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [*command, "--dataset", "digits"] if command[0] == "data" else command
    done = run("-m", "harness.cli", *command, closed=("0>&-", "1>&-"), environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    done = run("-m", "harness.cli", *command, closed=("0>&-", "1>&-", "2>&-"), environment=environment)
    assert done.returncode == 0
    if command[0] == "export":
        assert len((tmp_path / "x.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("command", [["leaderboard", "--out", "-"], ["report", "study", "--out", "-"]], ids=" ".join)
def test_what_is_asked_for_on_a_closed_stream_is_trouble(command: list[str], environment: dict[str, str]) -> None:
    done = run("-m", "harness.cli", *command, closed=("1>&-",), environment=environment)
    assert (done.returncode, done.stderr) == (1, "harness: cannot write --out -: standard output is closed\n")


def test_what_is_wrong_is_a_status_where_nobody_reads_it(environment: dict[str, str]) -> None:
    done = run("-m", "harness.cli", "status", "other", closed=("1>&-", "2>&-"), environment=environment)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.slow
def test_a_sweep_works_where_nobody_reads_it(environment: dict[str, str], tmp_path: Path) -> None:
    command = ["sweep", "smoke", "--trials", "1", "--workers", "1"]
    done = run("-m", "harness.cli", *command, closed=("0>&-", "1>&-", "2>&-"), environment=environment)
    assert done.returncode == 0
    with (tmp_path / "home" / "leaderboards" / "smoke-quick.csv").open() as file:
        assert {row["outcome"] for row in csv.DictReader(file)} == {"completed"}
    with closing(Ledger(tmp_path / "home" / "ledger.db")) as ledger:
        assert all(record.result for record in ledger.history("smoke-quick"))


def test_a_script_works_where_nobody_reads_it(environment: dict[str, str]) -> None:
    code = "from harness.api.training import _display\nwith _display(quiet=False) as display: display.note('news')"
    done = run("-c", code, closed=("1>&-",), environment=environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_names_that_are_no_text_are_shown(environment: dict[str, str], tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv")
    done = run("-m", "harness.cli", "export", "study", "--csv", name, closed=(), environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"wrote {tmp_path}/\\udcff.csv\n"
    assert Path(name).exists()


def test_a_terminals_lines_are_broken_between_words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    text = "one two-three four five\n/a/path/that/is/longer/than/a/line\nshort"
    stream = SimpleNamespace(isatty=lambda: True)
    assert standard_streams.for_people(text, stream) == (
        "one two-three four\nfive\n/a/path/that/is/longer/than/a/line\nshort"
    )
    assert standard_streams.for_people(text, SimpleNamespace(isatty=lambda: False)) == text
    assert standard_streams.at_words("trial 3  units_1=16 units_2=55", 20, indent=4) == [
        "trial 3  units_1=16",
        "    units_2=55",
    ]
    assert standard_streams.at_words("", 20) == [""]
    assert standard_streams.at_words("a b c d e f", 7, max_lines=1) == ["a b ..."]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_slow_command_says_at_once_that_it_works_but_not_in_a_log(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return is_terminal

    out, err = Stream(), Stream()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    def serve(home: Path, port: int) -> int:
        assert err.getvalue() == ("starting MLflow, which takes some seconds\n" if is_terminal else "")
        return 0

    monkeypatch.setattr(ui, "serve", serve)
    assert cli.main(["ui"]) == 0
    assert out.getvalue() == ""
