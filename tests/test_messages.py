"""Coordinator and worker believe nothing: what is nonsense or out of turn ends the worker, and nobody else."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sample_messages import JOB, PLACE, REPORTS, SETUP, epoch

from harness.errors import TroubleError
from harness.execution import local
from harness.execution.base import Died, EpochDone, Event, Ready
from harness.execution.local import LocalExecutor
from harness.execution.messages import (
    MAX_LINE_BYTES,
    Command,
    ProtocolError,
    Report,
    Setup,
    Turn,
    read_command,
    read_report,
    to_line,
)
from harness.study.spec import SweepSpec
from harness.support import own_code


@pytest.mark.parametrize("report", [*REPORTS, Report(trouble="no room")])
def test_reports_come_over_as_they_are(report: Report) -> None:
    assert read_report(to_line(report)) == report


@pytest.mark.parametrize("command", [Command(setup=SETUP), Command(run=JOB), Command(go_on=False)])
def test_commands_come_over_as_they_are(command: Command) -> None:
    assert read_command(to_line(command)) == command


@pytest.mark.parametrize("second", REPORTS)
def test_a_worker_waits_for_its_answer(second: Report) -> None:
    turn = Turn()
    turn.hear(Report(ready=True))
    turn.hand_out(JOB)
    turn.hear(Report(epoch=epoch(1)))
    with pytest.raises(ProtocolError, match="where nothing was due"):
        turn.hear(second)
    turn.hear(Report(trouble="the disk is full"))


WORKER = """
import sys
from pathlib import Path
sys.stdin.buffer.readline()  # the set-up
sys.stdout.buffer.write(b'{"ready": true}\\n')
sys.stdout.flush()
sys.stdin.buffer.readline()  # the trial
sys.stdout.buffer.write(Path(sys.argv[1]).read_bytes())
sys.stdout.flush()
sys.stdin.buffer.read()  # until the coordinator hangs up
"""


def wait(executor: LocalExecutor, kind: type[Event]) -> list[Event]:
    """All events up to the first of a kind."""
    events: list[Event] = []
    while not any(isinstance(event, kind) for event in events):
        events += executor.events(1.0)
    return events


NONSENSE = {
    "words": b"Traceback (most recent call last):\n",
    "empty line": b"\n",
    "not UTF-8": b"\xff\xfe\n",
    "half an object": b'{"ready": \n',
    "not an object": b"[1]\n",
    "nothing said": b"{}\n",
    "two things at once": b'{"ready": true, "trouble": "x"}\n',
    "another kind": b'{"hello": true}\n',
    "not ready": b'{"ready": false}\n',
    "wrong shape": b'{"epoch": {"epoch": 1}}\n',
    "unknown key": to_line(REPORTS[1]).replace(b'"epoch": 1', b'"epoch": 1, "extra": 1'),
    "not a number": to_line(REPORTS[1]).replace(b"200", b"NaN"),
    "infinite": to_line(REPORTS[1]).replace(b"3.0", b"1e999"),
    "a whole number too large": to_line(REPORTS[1]).replace(b"200", b"9" * 30),
    "out of turn": to_line(REPORTS[0]),
    "an epoch too many": to_line(Report(epoch=epoch(4))),
    "completed at once": to_line(REPORTS[-1]),
    "endless": b"x" * (MAX_LINE_BYTES + 1_000_000),
}


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a false worker says when it is handed a trial."""
    path = tmp_path / "said"
    monkeypatch.setattr(local, "WORKER", [sys.executable, "-S", "-c", WORKER, str(path)])
    return path


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
def test_a_worker_that_talks_nonsense_dies_and_is_replaced(nonsense: bytes, said: Path, tmp_path: Path) -> None:
    said.write_bytes(nonsense)
    with closing(LocalExecutor(SETUP.spec, [PLACE], tmp_path, tmp_path / "logs")) as executor:
        wait(executor, Ready)
        executor.start("worker-0", JOB)
        (died,) = wait(executor, Died)
        assert isinstance(died, Died)
        assert died.reason.startswith("said ")
        assert len(died.reason.splitlines()) == 1
        assert not died.out_of_memory
        assert wait(executor, Ready) == [Ready("worker-0")]


def test_what_a_worker_said_before_its_nonsense_counts(said: Path, tmp_path: Path) -> None:
    said.write_bytes(to_line(REPORTS[1]) + to_line(REPORTS[3]))
    with closing(LocalExecutor(SETUP.spec, [PLACE], tmp_path, tmp_path / "logs")) as executor:
        wait(executor, Ready)
        executor.start("worker-0", JOB)
        first, died = wait(executor, Died)
        assert first == EpochDone("worker-0", epoch(1))
        assert died == Died("worker-0", "said epoch where nothing was due", out_of_memory=False)


def test_a_worker_that_dies_within_a_line_has_not_said_it(said: Path, tmp_path: Path) -> None:
    said.write_bytes(to_line(REPORTS[1]) + to_line(REPORTS[1])[:-9])
    with closing(LocalExecutor(SETUP.spec, [PLACE], tmp_path, tmp_path / "logs")) as executor:
        wait(executor, Ready)
        executor.start("worker-0", JOB)
        assert wait(executor, EpochDone) == [EpochDone("worker-0", epoch(1))]
        executor.kill("worker-0")
        assert wait(executor, Died) == [Died("worker-0", "killed by SIGKILL", out_of_memory=False)]


def test_workers_that_talk_nonsense_from_the_start_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "WORKER", [sys.executable, "-S", "-c", "print('hello', flush=True); input(); input()"])
    with (
        closing(LocalExecutor(SETUP.spec, [PLACE], tmp_path, tmp_path / "logs")) as executor,
        pytest.raises(TroubleError, match=r"^workers end \(said b'hello': not JSON \(.*\)\) before they are ready"),
    ):
        wait(executor, Ready)


GARBAGE = {
    "words": (b"hello\n", "said b'hello\\\\n': not JSON"),
    "not UTF-8": (b"\xff\n", "not JSON"),
    "half a line": (b'{"setup": ', "not JSON"),
    "a trial before the set-up": (to_line(Command(run=JOB)), "a command came before the set-up"),
    "an empty set-up": (b'{"setup": {}}\n', "setup.spec is missing"),
    "a sweep that is none": (
        to_line(Command(setup=SETUP)).replace(b'"epochs": 3', b'"epochs": 0'),
        "setup.spec.epochs is 0",
    ),
}


@pytest.mark.parametrize(("garbage", "message"), GARBAGE.values(), ids=GARBAGE)
def test_a_worker_that_is_told_garbage_ends_with_one_line(garbage: bytes, message: str) -> None:
    command = own_code.program("harness.execution.worker")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as worker:
        worker.stdin.write(garbage)
        worker.stdin.flush()
        if not garbage.endswith(b"\n"):
            worker.stdin.close()  # otherwise it stays open: an end of its input would end the worker, too
        errors = worker.stderr.read().decode()
        assert (worker.wait(), worker.stdout.read()) == (1, b"")
    assert re.fullmatch(rf"worker: .*{message}.*\n", errors)


BROKEN_READER = """
from harness.execution import worker
def read(line): raise ModuleNotFoundError("No module named 'baselines.fc'")
worker.read_command = read
worker.main()
"""


def test_a_worker_that_cannot_read_its_commands_ends_and_says_why() -> None:
    command = own_code.python("-c", BROKEN_READER)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as worker:
        worker.stdin.write(to_line(Command(setup=SETUP)))
        worker.stdin.flush()  # and stays open
        *_, last = worker.stderr.read().decode().splitlines()
        assert worker.wait() == 1
    why = "ModuleNotFoundError: No module named 'baselines.fc'"
    assert last == f"worker: cannot read what the coordinator said: {why}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("garbage", "message"),
    [
        (b"hello\n", "not JSON"),
        (to_line(Command(go_on=True)), "something else came where a trial was due"),
        (to_line(Command(run=JOB)) + to_line(Command(setup=SETUP)), "something else came where an answer was due"),
    ],
)
def test_a_worker_that_is_told_garbage_later_ends_with_one_line(
    garbage: bytes, message: str, smoke: SweepSpec, digits_folder: Path
) -> None:
    setup = to_line(Command(setup=Setup(smoke, PLACE, digits_folder, own_code.digest())))
    garbage = garbage.replace(b"a b/\\u00e4.weights.h5", b"").replace(b'"load_from": ""', b'"load_from": null')
    command = own_code.program("harness.execution.worker")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as worker:
        worker.stdin.write(setup)
        worker.stdin.flush()
        assert read_report(worker.stdout.readline()) == Report(ready=True)
        worker.stdin.write(garbage)
        worker.stdin.flush()
        errors = worker.stderr.read().decode()
        assert worker.wait() == 1
    assert re.search(rf"^worker: .*{message}.*$", errors, re.MULTILINE)
    assert "Traceback" not in errors
