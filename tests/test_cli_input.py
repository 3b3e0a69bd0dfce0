"""Hostile values for every argument of every sub-command: taken where they make sense, or refused in one line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filled_ledger import FilledLedger, make_spec
from PIL import Image

from harness.bench import engine
from harness.cli import _parser, main
from harness.execution.executors import EXECUTORS, MAX_WORKERS, options_of
from harness.execution.local import LocalExecutor
from harness.execution.ray import connection
from harness.ledger.ledger import Ledger

NUMBERS = ["-1", "0", "9" * 12, "9" * 50, "9" * 5000, "1e999", "nan", "-0.0", "0x10", "999999999h"]
TEXTS = ["", "a\0b", "x" * 5000, "two\nlines", "\udcff\udcfe", "\u202eback\x1b[2J", "../../x", "~no-such-user/x"]

# What a command needs besides the argument that is tried.
POSITIONALS = {
    "sweep": ["smoke"],
    "baseline": ["fc"],
    "verdict": ["study"],
    "reproduce": ["study", "0"],
    "predict": ["digit.png"],
    "compare": ["study", "other"],
    "report": ["study"],
    "export": ["study"],
    "import": ["study.study.gz"],
    "data": ["verify"],
    "bench": ["engine"],
    "completion": ["bash"],
}
FLAGS = {
    "baseline": ["--dataset=digits"],
    **{option.name: [f"--executor={name}"] for name in EXECUTORS for option in options_of(name)},
}

# What makes sense all the same: small numbers, and files of any name.
FILES = {"two\nlines", "\udcff\udcfe", "\u202eback\x1b[2J", "../../x"}
TAKEN = {
    "sweep --as": {"-1", "0", "9" * 12, "9" * 50, "1e999", "nan", "-0.0", "0x10", "999999999h"},
    "sweep --seed": {"0"},
    "baseline --seed": {"0"},
    "sweep --gpus-per-worker": {"0"},
    "baseline --gpus-per-worker": {"0"},
    "verdict --gpus-per-worker": {"0"},
    "reproduce trial": {"0"},
    "leaderboard --top": {"0", "9" * 12},
    "bench --repeats": {"9" * 12},
    "leaderboard --out": {*NUMBERS, *FILES} - {"9" * 5000},
    "report --out": {*NUMBERS, *FILES} - {"9" * 5000},
}


class TakenError(BaseException):
    """Instead of training or measuring with the value; nothing catches it on the way."""


@dataclass(frozen=True)
class Argument:
    command: str
    name: str
    dest: str
    position: int | None
    is_text: bool

    def line(self, value: str) -> list[str]:
        """A command line with the value in this place, and all else sound."""
        words = list(POSITIONALS.get(self.command, []))
        flags = [*FLAGS.get(self.command, []), *FLAGS.get(self.dest, [])]
        if self.position is None:
            return [self.command, *words, *flags, f"{self.name}={value}"]
        words[self.position : self.position + 1] = [value]
        return [self.command, *flags, "--", *words]

    def values(self) -> list[str]:
        return [*NUMBERS, *TEXTS] if self.is_text else [*NUMBERS, *TEXTS[:5]]

    def __str__(self) -> str:
        return f"{self.command} {self.name}"


@cache
def arguments() -> tuple[Argument, ...]:
    """All that take a value, as the command itself has them."""
    (commands,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    return tuple(found for command, parser in commands.choices.items() for found in of_command(command, parser))


def of_command(command: str, parser: argparse.ArgumentParser) -> Iterator[Argument]:
    position = 0
    for action in parser._actions:
        is_text = action.type is None and action.choices is None
        if not action.option_strings:
            yield Argument(command, action.dest, action.dest, position, is_text)
            position += 1
        elif action.nargs != 0:
            yield Argument(command, action.option_strings[-1], action.dest, None, is_text)


@pytest.fixture
def folder(tmp_path: Path, digits_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, deep enough for `../../x`, with a home and a picture in it."""
    folder = tmp_path / "deep" / "deeper"
    for name in ("study", "other"):
        with closing(Ledger(folder / "home" / "ledger.db")) as ledger:
            study = FilledLedger(ledger, make_spec(name, dataset="digits"))
            study.add_baseline(3.0)
            study.add(2.5)
    digit = np.zeros((28, 28), np.uint8)
    digit[8:20, 12:16] = 255
    Image.fromarray(digit).save(folder / "digit.png")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HARNESS_HOME", str(folder / "home"))
    monkeypatch.setenv("HARNESS_DATA", str(digits_folder.parent))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")

    def take(*arguments: object, **settings: object) -> None:
        raise TakenError

    monkeypatch.setattr(LocalExecutor, "__init__", take)
    ray = SimpleNamespace(is_initialized=lambda: False, init=take)
    monkeypatch.setattr(connection, "_load", lambda: ray)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of this test")
    monkeypatch.setattr(engine, "run", take)
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    """All files but SQLite's scratch and the locks, which hold nothing."""
    scratch = (".db-shm", ".db-wal", ".lock")
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(scratch))
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize("argument", arguments(), ids=str)
def test_a_value_is_taken_or_refused_in_one_line(
    argument: Argument, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    taken = set()
    for value in argument.values():
        before = contents(tmp_path)
        try:
            status = main(argument.line(value))
        except TakenError:
            status = 0
        out, err = capfd.readouterr()
        if status == 0:
            taken.add(value)
            continue
        assert status in (1, 2), value
        assert err.count("\n") == 1, (value, err)
        assert err.rstrip("\n").isprintable(), (value, err)
        assert len(err) < 700, (value, err)
        assert "Traceback" not in err, (value, err)
        assert out == "", value
        assert contents(tmp_path) == before, value
    assert taken == TAKEN.get(str(argument), set())


def test_every_command_is_tried() -> None:
    assert {argument.command for argument in arguments()} >= {*POSITIONALS, "status", "leaderboard", "ui", "doctor"}


@pytest.mark.parametrize("port", ["-1", "0", "65536", "99999"])
def test_there_are_so_many_ports(port: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["ui", "--port", port]) == 2
    assert capfd.readouterr().err == f"harness: --port is {port}; allowed: 1 to 65535\n"
    assert not (folder / "home" / "mlflow.db").exists()


@pytest.mark.parametrize("command", [["sweep", "smoke"], ["verdict", "study"]], ids=" ".join)
@pytest.mark.parametrize("budget", ["999999999h", "9" * 400 + "s", "0s", "0.0h", "-1h", "1.5.2h", "h", "1"])
def test_a_time_is_above_0_and_at_most_68_years(
    command: list[str], budget: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, f"--budget={budget}"]) == 2
    err = capfd.readouterr().err
    assert "allowed: a number above 0 with s, m or h, such as 90s, 15m or 2h; at most 2147483647s" in err


def test_workers_are_as_many_as_one_process_can_serve(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for executor in EXECUTORS:
        assert main(["sweep", "smoke", f"--executor={executor}", f"--workers={MAX_WORKERS + 1}"]) == 2
        assert capfd.readouterr().err == f"harness: --workers is {MAX_WORKERS + 1}; allowed: 1 to {MAX_WORKERS}\n"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("address", ["x" * 100 + ":80", "localhost:²", "localhost:99999", "two\nlines:80", "a..b:80"])
def test_a_head_that_cannot_be_is_said_in_one_line(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "smoke", "--executor", "ray", f"--address={address}"]) in (1, 2)
    err = capfd.readouterr().err
    assert err.startswith(("harness: no Ray cluster at ", "harness: --address is "))
    assert err.count("\n") == 1


# The environment

PLACES = ["~no-such-user/x", "two\nlines", "\udcff", "\x1b[2J", "loop", "file", "file/x", "x" * 5000]
READERS = {
    "HARNESS_HOME": [["status"], ["sweep", "smoke"], ["doctor"], ["ui"], ["sync"]],
    "HARNESS_DATA": [["data", "fetch", "--dataset", "digits"], ["sweep", "smoke"], ["doctor"]],
}


@pytest.mark.parametrize("place", PLACES, ids=ascii)
@pytest.mark.parametrize(
    ("variable", "command"), [(variable, command) for variable, commands in READERS.items() for command in commands]
)
def test_a_place_that_cannot_be_is_said_in_one_line(
    variable: str,
    command: list[str],
    place: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (folder / "file").touch()
    (folder / "loop").symlink_to("loop")
    monkeypatch.setenv(variable, place)
    before = sorted(folder.rglob("*"))
    try:
        status = main(command)
    except TakenError:
        status = 0
    err = capfd.readouterr().err
    assert "Traceback" not in err
    assert err.replace("\n", "").isprintable()
    if command == ["doctor"]:  # it names all that it finds
        assert err.count("\n") <= 1
        assert status in (1, 2)
        return
    assert err.count("\n") == (status != 0)
    if place in PLACES[:4]:
        assert status == 2
        assert err.startswith(f"harness: {variable} is ")
    if status:
        assert sorted(folder.rglob("*")) == before
