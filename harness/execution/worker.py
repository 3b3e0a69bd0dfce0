"""The worker process: reads commands from standard input, writes reports to standard output; see `messages`.

Its standard input ends when its coordinator has died. Then the worker ends at once, also during a training.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import sys
import threading
import traceback
from typing import IO, TYPE_CHECKING, NoReturn

from harness.errors import TroubleError
from harness.execution.machine import devices
from harness.execution.messages import Command, ProtocolError, Report, Setup, read_command, to_line
from harness.study.network import permit
from harness.study.records import EpochReport
from harness.support import own_code

if TYPE_CHECKING:
    from harness.execution.training.trainer import Trainer


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator decides when a trial ends
    channel = _take_over_stdout()
    commands = _commands()
    setup = commands.get().setup
    if setup is None:
        _give_up("a command came before the set-up")
    devices.be_killed_first()
    try:
        trainer = _trainer(setup)
        # Keras collects garbage before each model. Without this it searches all objects of the framework: 0.2 s.
        gc.freeze()
        while True:
            _send(channel, Report(ready=True))
            job = commands.get().run
            if job is None:
                _give_up("something else came where a trial was due")
            _send(channel, Report(result=trainer.run(job, lambda report: _ask(channel, commands, report))))
    except TroubleError as trouble:
        _send(channel, Report(trouble=str(trouble)))
    except Exception as error:
        traceback.print_exc()
        _give_up(_one_line(error))


def _trainer(setup: Setup) -> Trainer:
    """Raises TroubleError for faults that any worker on this machine would have."""
    if setup.code != own_code.digest():
        raise TroubleError(
            f"{setup.place.name} has other code than the command that started it ({own_code.described()}):"
            " was it changed meanwhile? start the command again"
        )
    permit(setup.network)
    # The framework reads its environment at import, so it is imported here and not above.
    try:
        from harness.execution.training.trainer import Trainer
    except Exception as error:
        if devices.is_out_of_memory(error):
            raise
        traceback.print_exc()
        raise TroubleError(f"{setup.place.name} cannot load what trains: {_one_line(error)}") from error
    return Trainer(setup.spec, setup.place, setup.data_folder)


def _ask(channel: IO[bytes], commands: queue.Queue[Command], report: EpochReport) -> bool:
    _send(channel, Report(epoch=report))
    go_on = commands.get().go_on
    if go_on is None:
        _give_up("something else came where an answer was due")
    return go_on


def _take_over_stdout() -> IO[bytes]:
    """Keeps the real standard output for messages; the output of libraries goes to the log with standard error."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return channel


def _commands() -> queue.Queue[Command]:
    received: queue.Queue[Command] = queue.Queue()

    def read() -> None:
        try:
            for line in sys.stdin.buffer:
                received.put(read_command(line))
        except ProtocolError as error:
            _give_up(f"the coordinator {error}")
        except BaseException as error:  # without this thread, commands are lost
            traceback.print_exc()
            _give_up(f"cannot read what the coordinator said: {_one_line(error)}")
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return received


def _send(channel: IO[bytes], report: Report) -> None:
    try:
        channel.write(to_line(report))
        channel.flush()
    except BrokenPipeError:
        os._exit(0)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _give_up(why: str) -> NoReturn:
    """Ends the process, from any thread. The coordinator reports the last line of its log."""
    sys.stderr.write(f"worker: {why}\n")
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
