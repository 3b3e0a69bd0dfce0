"""The worker process: reads commands on its standard input, writes messages on its standard output, one JSON a line.

    in   {"setup": {...}}                       once, first
    out  {"ready": true}                        before each trial
    in   {"run": {"trial": ..., "load_from": ..., "save_to": ...}}
    out  {"epoch": {...}}                       after each epoch; the worker waits for the answer
    in   {"go_on": true}
    out  {"result": {...}}                     or {"trouble": "..."}, when the machine and not the trial is at fault

When its standard input ends, its coordinator is gone, and it ends itself at once, in the middle of whatever it does.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import IO, Any

from harness.errors import TroubleError
from harness.execution import Job, Place, devices
from harness.records import EpochReport, Role, Trial
from harness.spec import SweepSpec


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator decides when a trial ends
    messages = _take_over_stdout()
    commands = _commands()
    setup = commands.get()["setup"]

    # The framework reads its environment when it is loaded, so it is loaded here and not above.
    from harness.execution.training import Trainer

    devices.be_killed_first()
    spec = SweepSpec.model_validate_json(json.dumps(setup["spec"]))
    try:
        trainer = Trainer(spec, Place(**setup["place"]), Path(setup["data_folder"]))
        while True:
            _send(messages, "ready", True)
            job = job_from_json(commands.get()["run"])
            result = trainer.run(job, lambda report: _ask(messages, commands, report))
            _send(messages, "result", dataclasses.asdict(result))
    except TroubleError as trouble:
        _send(messages, "trouble", str(trouble))


def job_to_json(job: Job) -> dict[str, Any]:
    paths = {"load_from": job.load_from, "save_to": job.save_to}
    return {"trial": dataclasses.asdict(job.trial)} | {k: str(v) if v else None for k, v in paths.items()}


def job_from_json(data: dict[str, Any]) -> Job:
    trial = Trial(**{**data["trial"], "role": Role(data["trial"]["role"])})
    load_from, save_to = (Path(data[key]) if data[key] else None for key in ("load_from", "save_to"))
    return Job(trial, load_from, save_to)


def _ask(messages: IO[str], commands: queue.Queue[dict[str, Any]], report: EpochReport) -> bool:
    _send(messages, "epoch", dataclasses.asdict(report))
    return bool(commands.get()["go_on"])


def _take_over_stdout() -> IO[str]:
    """Keeps the real standard output for messages; whatever a library prints goes to the log with the errors."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return channel


def _commands() -> queue.Queue[dict[str, Any]]:
    received: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            received.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return received


def _send(messages: IO[str], kind: str, content: Any) -> None:
    try:
        messages.write(json.dumps({kind: content}, allow_nan=False) + "\n")
        messages.flush()
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()
