"""Workers as processes of this machine."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

from harness.errors import TroubleError
from harness.execution.base import Died, EpochDone, Event, Executor, Finished, Job, Place, Ready
from harness.execution.machine import devices
from harness.execution.messages import (
    MAX_LINE_BYTES,
    Command,
    ProtocolError,
    Report,
    Setup,
    Turn,
    read_report,
    to_line,
)
from harness.study.network import source_of
from harness.study.records import Outcome
from harness.study.spec import SweepSpec
from harness.support import own_code
from harness.support.redaction import MAX_REASON, redact

WORKER = own_code.program("harness.execution.worker")
MAX_WORKER_MEMORY_MB = 4000  # a larger worker is replaced between two trials
MAX_EARLY_DEATHS = 3  # consecutive, before a worker was ready: then the machine is at fault
START_TIMEOUT_S = 600.0  # a worker that needs longer to get ready has hung
CLOSE_TIMEOUT_S = 2.0
LAST_WORDS = 1 << 16  # bytes of a dead worker's log that are searched for the reason


class ThisMachine:
    """Workers as processes of this machine, as `devices.places` divides it."""

    def __init__(self, num_workers: int | None) -> None:
        self.places = devices.places(devices.this_machine(), num_workers)

    def executor(self, spec: SweepSpec, data_folder: Path, log_folder: Path) -> Executor:
        return LocalExecutor(spec, self.places, data_folder, log_folder)

    def close(self) -> None: ...


class LocalExecutor:
    """One spawned process per place; a process that dies is replaced.

    Args:
        spec: The study, sent to each worker.
        places: The places of the workers.
        data_folder: Folder of the verified data set.
        log_folder: Gets one file per worker with the output of its libraries.
        code: Digest of the training code; None: of this process's own.

    Raises:
        TroubleError: a worker cannot be started; from `events` also if workers end before they are ready, or cannot
            write a file.
    """

    def __init__(
        self, spec: SweepSpec, places: list[Place], data_folder: Path, log_folder: Path, code: str | None = None
    ) -> None:
        self._places = places
        self._log_folder = log_folder
        self._selector = selectors.DefaultSelector()
        self._early_deaths = 0
        self._num_kills = devices.num_out_of_memory_kills()
        self._trouble: str | None = None
        self._processes: dict[str, _Process] = {}
        code = code or own_code.digest()
        source = source_of(spec.network)
        self._setup = {place.name: Setup(spec, place, data_folder, code, source) for place in places}
        for place in places:
            self._spawn(place)

    @property
    def places(self) -> list[Place]:
        return self._places

    def start(self, worker: str, job: Job) -> None:
        self._processes[worker].has_worked = True
        self._processes[worker].turn.hand_out(job)
        self._processes[worker].send(Command(run=job))

    def answer(self, worker: str, *, go_on: bool) -> None:
        self._processes[worker].turn.answer()
        self._processes[worker].send(Command(go_on=go_on))

    def kill(self, worker: str) -> None:
        self._processes[worker].kill()

    def events(self, timeout_s: float) -> list[Event]:
        if self._trouble:
            raise TroubleError(self._trouble)
        events: list[Event] = []
        for key, _ in self._selector.select(timeout_s):
            process: _Process = key.data
            events += [event for report in process.receive() if (event := self._event(process, report))]
            if process.is_gone:
                events.append(self._replace(process))
        self._kill_those_that_never_get_ready()
        return [event for event in events if not self._recycled(event)]

    def close(self) -> None:
        for process in self._processes.values():
            process.hang_up()
        for process in self._processes.values():
            process.close()
        self._selector.close()

    def _spawn(self, place: Place) -> None:
        try:
            self._log_folder.mkdir(parents=True, exist_ok=True)
            process = _Process(place, self._log(place))
        except OSError as error:
            raise TroubleError(f"{place.name} cannot be started: {error.filename}: {error.strerror}") from error
        process.send(Command(setup=self._setup[place.name]))
        self._selector.register(process.channel, selectors.EVENT_READ, process)
        self._processes[place.name] = process

    def _event(self, process: _Process, report: Report) -> Event | None:
        worker = process.place.name
        if report.epoch is not None:
            return EpochDone(worker, report.epoch)
        if report.result is not None:
            process.is_worn_out = report.result.outcome in (Outcome.CRASHED, Outcome.OUT_OF_MEMORY)
            return Finished(worker, report.result)
        if report.trouble is not None:  # raised by the next call, after the events of other workers
            self._trouble = " ".join(report.trouble.split())
            return None
        self._early_deaths = 0
        process.was_ready = True
        return Ready(worker)

    def _recycled(self, event: Event) -> bool:
        """Replaces a worn-out or too large worker between two trials; the new one reports when it is ready.

        After an error a device may stay unusable, and after a lack of memory not all of it is freed. A worker that has
        run no trial is kept at any size.
        """
        if not isinstance(event, Ready):
            return False
        process = self._processes[event.worker]
        is_too_large = process.has_worked and process.memory_mb() > MAX_WORKER_MEMORY_MB
        if not process.is_worn_out and not is_too_large:
            return False
        self._selector.unregister(process.channel)
        process.kill()
        process.close()
        self._spawn(process.place)
        return True

    def _kill_those_that_never_get_ready(self) -> None:
        for process in self._processes.values():
            if not process.was_ready and time.monotonic() - process.started > START_TIMEOUT_S:
                process.kill()

    def _replace(self, process: _Process) -> Died:
        self._selector.unregister(process.channel)
        had_limit = process.has_memory_limit()  # known until the process has been waited for
        status = process.close()
        reason = process.nonsense or _words(status, process.last_words())
        self._early_deaths += 1
        if self._early_deaths > MAX_EARLY_DEATHS:
            raise TroubleError(f"workers end ({reason}) before they are ready; see {self._log(process.place)}")
        out_of_memory = self._was_killed_for_memory(status) or _gave_up_for_memory(process, status, had_limit)
        self._spawn(process.place)
        return Died(process.place.name, reason, out_of_memory)

    def _was_killed_for_memory(self, status: int) -> bool:
        """Whether the kernel has counted more out-of-memory kills than workers that died of one."""
        if status != -signal.SIGKILL or devices.num_out_of_memory_kills() <= self._num_kills:
            return False
        self._num_kills += 1
        return True

    def _log(self, place: Place) -> Path:
        return self._log_folder / f"{place.name}.log"


class _Process:
    """A worker's process and the pipes to it."""

    def __init__(self, place: Place, log: Path) -> None:
        self.place, self._log = place, log
        with log.open("ab") as log_file:
            self._log_start = log_file.tell()
            self._process = subprocess.Popen(
                WORKER,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                env={**os.environ, **devices.worker_environment(place)},
                start_new_session=True,  # a group: Ctrl-C reaches the coordinator only, a kill all children
            )
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        assert self._process.stdout is not None  # noqa: S101
        self._stdin, self.channel = self._process.stdin, self._process.stdout
        os.set_blocking(self.channel.fileno(), False)
        self._unread = b""
        self.turn = Turn()
        self.nonsense: str | None = None
        self.started = time.monotonic()
        self.was_ready = self.has_worked = self.is_worn_out = self.is_gone = False

    def send(self, command: Command) -> None:
        with suppress(OSError):  # if it is dying, the end of its output shows that
            self._stdin.write(to_line(command))
            self._stdin.flush()

    def receive(self) -> list[Report]:
        """The new messages; sets `is_gone` at the end of the stream, and kills a worker that violates the protocol."""
        reports: list[Report] = []
        try:
            for line in self._lines():
                report = read_report(line)
                self.turn.hear(report)
                reports.append(report)
        except ProtocolError as error:
            self.nonsense, self.is_gone = str(error), True
            self.kill()
        return reports

    def _lines(self) -> list[bytes]:
        data = self.channel.read(1 << 20)
        self.is_gone = data == b""
        *lines, self._unread = (self._unread + (data or b"")).split(b"\n")
        if len(self._unread) > MAX_LINE_BYTES:
            raise ProtocolError(f"said more than {MAX_LINE_BYTES} bytes in one line")
        return lines

    def has_memory_limit(self) -> bool:
        return devices.has_memory_limit(self._process.pid)

    def memory_mb(self) -> float:
        try:
            return float(psutil.Process(self._process.pid).memory_info().rss) / 2**20
        except psutil.Error:
            return 0.0

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def hang_up(self) -> None:
        """Closes its standard input, at which a worker ends."""
        with suppress(OSError):
            self._stdin.close()

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> int:
        """Ends it and its child processes; returns its exit status, negative for a signal."""
        self.hang_up()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        self.kill()
        self.channel.close()
        return self._process.wait()

    def last_words(self) -> str:
        """The end of its log."""
        with suppress(OSError), self._log.open("rb") as log:
            log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - LAST_WORDS))
            return log.read().decode(errors="replace")
        return ""


def _gave_up_for_memory(process: _Process, status: int, had_limit: bool) -> bool:
    """Whether a library got no memory: some report that and abort, others crash later."""
    if status not in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS):
        return False
    return had_limit or devices.says_out_of_memory(process.last_words())


def _words(status: int, last_words: str) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    last_line = redact(last_words.strip().rpartition("\n")[2])[:MAX_REASON]
    return f"ended with status {status}" + (f": {last_line}" if status and last_line else "")
