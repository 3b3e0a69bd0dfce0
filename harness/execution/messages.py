"""The messages of coordinator and worker, one JSON object per line; both sides validate what they receive.

coordinator                                        worker
{"setup": {...}}, once and first
                                                   {"ready": true}, before each trial
{"run": {"trial": ..., "load_from": ..., "save_to": ..., "epochs_before": ...}}
                                                   {"epoch": {...}}, after each epoch; then it waits
{"go_on": true}
                                                   {"result": {...}}
                                                   {"trouble": "..."} instead of the expected message, as its last
                                                   one, if the machine and not the trial is at fault
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel

from harness.execution.base import Job, Place
from harness.study.network import Source
from harness.study.records import EpochReport, TrialResult
from harness.study.spec import SweepSpec
from harness.support.strict_json import parse_json, shown

MAX_LINE_BYTES = 4_000_000  # a result that lists every image as wrong has 120,000


class ProtocolError(ValueError):
    """The other side sent an invalid or unexpected message. The error's text is one line."""


@dataclass(frozen=True)
class Setup:
    """A worker's set-up, which is sent once.

    Attributes:
        spec: The study.
        place: The worker's place.
        data_folder: Folder of the data set.
        code: Digest of the coordinator's training code; the worker's must be equal.
        network: The content of the network's file, if it is a user's own.
    """

    spec: SweepSpec
    place: Place
    data_folder: Path
    code: str
    network: Source | None = None


@dataclass(frozen=True)
class Command:
    """A coordinator's message; one field is set."""

    setup: Setup | None = None
    run: Job | None = None
    go_on: bool | None = None


@dataclass(frozen=True)
class Report:
    """A worker's message; one field is set."""

    ready: Literal[True] | None = None
    epoch: EpochReport | None = None
    result: TrialResult | None = None
    trouble: str | None = None


M = TypeVar("M", Command, Report)


class Turn:
    """Checks that a worker's messages come in the expected order."""

    def __init__(self) -> None:
        self._due: tuple[str, ...] = ("ready",)
        self._epochs_done = self._epochs = 0

    def hand_out(self, job: Job) -> None:
        self._due = ("epoch", "result")
        self._epochs_done, self._epochs = 0, job.trial.epochs

    def answer(self) -> None:
        self._due = ("epoch", "result")

    def hear(self, report: Report) -> None:
        """Checks a message; raises ProtocolError if it was not expected."""
        kind = next(kind for kind, content in vars(report).items() if content is not None)
        if kind not in (*self._due, "trouble"):
            raise ProtocolError(f"said {kind} where {' or '.join(self._due) or 'nothing'} was due")
        if report.epoch is not None and not self._epochs_done < report.epoch.epoch <= self._epochs:
            raise ProtocolError(f"said epoch {report.epoch.epoch} after {self._epochs_done} of {self._epochs}")
        if report.result is not None and report.result.outcome.is_ranked and self._epochs_done < self._epochs:
            raise ProtocolError(f"said {report.result.outcome} after epoch {self._epochs_done} of {self._epochs}")
        if report.epoch is not None:
            self._epochs_done = report.epoch.epoch
        self._due = ("ready",) if kind == "result" else ()


def to_line(message: Command | Report) -> bytes:
    """A message as one line. Raises ValueError if a number in it is not finite."""
    return to_json({kind: content for kind, content in vars(message).items() if content is not None}) + b"\n"


def to_json(value: object) -> bytes:
    """JSON of any of our types, for `parse_json`. Raises ValueError if a number in it is not finite."""
    return json.dumps(value, default=_plain, allow_nan=False).encode()


def read_command(line: bytes) -> Command:
    """Parses a command. Raises ProtocolError if the line is invalid."""
    return _read(Command, line)


def read_report(line: bytes) -> Report:
    """Parses a report. Raises ProtocolError if the line is invalid."""
    return _read(Report, line)


def _read(kind: type[M], line: bytes) -> M:
    try:
        message = parse_json(kind, line)
    except ValueError as error:
        raise ProtocolError(f"said {shown(line)}: {error}") from None
    if list(vars(message).values()).count(None) != len(vars(message)) - 1:
        raise ProtocolError(f"said {shown(line)}; allowed: one of {', '.join(vars(message))}")
    return message


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    return dict(value) if isinstance(value, Mapping) else vars(value)
