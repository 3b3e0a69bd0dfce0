"""Workers as processes of this machine."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from harness.errors import TroubleError
from harness.execution import Died, EpochDone, Event, Finished, Job, Place, Ready, devices, setup_message
from harness.execution.worker import job_to_json
from harness.records import TrialResult, epoch_from_json
from harness.spec import SweepSpec

MAX_WORKER_MEMORY_MB = 4000  # a worker that has grown beyond this is replaced between two trials
MAX_EARLY_DEATHS = 3  # in a row, before a worker was ever ready: then something is wrong with the machine
CLOSE_TIMEOUT_S = 2.0


class LocalExecutor:
    """One spawned process for each place; a process that dies is replaced.

    Args:
        spec: The study, handed to each worker.
        places: Where the workers run.
        data_folder: Where the verified data set lies.
        log_folder: Gets one file per worker with whatever its libraries print.
    """

    def __init__(self, spec: SweepSpec, places: list[Place], data_folder: Path, log_folder: Path) -> None:
        self._places = places
        self._log_folder = log_folder
        log_folder.mkdir(parents=True, exist_ok=True)
        self._selector = selectors.DefaultSelector()
        self._early_deaths = 0
        self._num_kills = devices.num_out_of_memory_kills()
        self._processes: dict[str, _Process] = {}
        self._setup = {place.name: setup_message(spec, place, data_folder) for place in places}
        for place in places:
            self._spawn(place)

    @property
    def places(self) -> list[Place]:
        return self._places

    def start(self, worker: str, job: Job) -> None:
        self._processes[worker].send({"run": job_to_json(job)})

    def answer(self, worker: str, *, go_on: bool) -> None:
        self._processes[worker].send({"go_on": go_on})

    def kill(self, worker: str) -> None:
        self._processes[worker].kill()

    def events(self, timeout_s: float) -> list[Event]:
        events: list[Event] = []
        for key, _ in self._selector.select(timeout_s):
            process: _Process = key.data
            events += [self._event(process.place.name, message) for message in process.receive()]
            if process.is_gone:
                events.append(self._replace(process))
        return [event for event in events if not self._recycled(event)]

    def close(self) -> None:
        for process in self._processes.values():
            process.hang_up()
        for process in self._processes.values():
            process.close()
        self._selector.close()

    def _spawn(self, place: Place) -> None:
        process = _Process(place, self._log(place))
        process.send({"setup": self._setup[place.name]})
        self._selector.register(process.channel, selectors.EVENT_READ, process)
        self._processes[place.name] = process

    def _event(self, worker: str, message: dict[str, Any]) -> Event:
        ((kind, content),) = message.items()
        if kind == "epoch":
            return EpochDone(worker, epoch_from_json(content))
        if kind == "result":
            return Finished(worker, TrialResult.from_json(content))
        self._early_deaths = 0
        return Ready(worker)

    def _recycled(self, event: Event) -> bool:
        """Replaces a worker that is between two trials and has grown; the new one will say that it is ready."""
        if not isinstance(event, Ready) or self._processes[event.worker].memory_mb() < MAX_WORKER_MEMORY_MB:
            return False
        process = self._processes[event.worker]
        self._selector.unregister(process.channel)
        process.kill()
        process.close()
        self._spawn(process.place)
        return True

    def _replace(self, process: _Process) -> Died:
        self._selector.unregister(process.channel)
        status = process.close()
        self._early_deaths += 1
        if self._early_deaths > MAX_EARLY_DEATHS:
            raise TroubleError(f"workers end ({_words(status)}) before they are ready; see {self._log(process.place)}")
        kills = devices.num_out_of_memory_kills()
        out_of_memory = status == -signal.SIGKILL and kills > self._num_kills
        self._num_kills = kills
        self._spawn(process.place)
        return Died(process.place.name, _words(status), out_of_memory)

    def _log(self, place: Place) -> Path:
        return self._log_folder / f"{place.name}.log"


class _Process:
    """A worker's process and the pipes to it."""

    def __init__(self, place: Place, log: Path) -> None:
        self.place = place
        with log.open("ab") as log_file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.execution.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                env={**os.environ, **devices.worker_environment(place)},
                start_new_session=True,  # a group of its own: Ctrl-C reaches the coordinator only, a kill reaches all
            )
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        assert self._process.stdout is not None  # noqa: S101
        self._stdin, self.channel = self._process.stdin, self._process.stdout
        os.set_blocking(self.channel.fileno(), False)
        self._unread = b""
        self.is_gone = False

    def send(self, message: dict[str, Any]) -> None:
        with suppress(OSError):  # if it is dying, the end of its output will say so
            self._stdin.write(json.dumps(message).encode() + b"\n")
            self._stdin.flush()

    def receive(self) -> list[dict[str, Any]]:
        """The whole messages that have come; sets `is_gone` at the end of the stream."""
        data = self.channel.read(1 << 20) if not self.is_gone else b""
        if data == b"":
            self.is_gone = True
        *lines, self._unread = (self._unread + (data or b"")).split(b"\n")
        return [json.loads(line) for line in lines]

    def memory_mb(self) -> float:
        try:
            return float(psutil.Process(self._process.pid).memory_info().rss) / 2**20
        except psutil.Error:
            return 0.0

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def hang_up(self) -> None:
        """Ends its standard input, at which a worker ends itself."""
        with suppress(OSError):
            self._stdin.close()

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> int:
        """Ends it and whatever it started; returns its exit status, negative for a signal."""
        self.hang_up()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        self.kill()
        self.channel.close()
        return self._process.wait()


def _words(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"
