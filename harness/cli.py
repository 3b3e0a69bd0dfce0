"""The `harness` command: its arguments, and what each sub-command calls. No logic.

Nothing heavy is imported before it is known to be needed, so that `harness --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from harness.errors import InputError, TroubleError
from harness.support import standard_streams

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction["_Parser"]  # argparse has no public name for it

N = TypeVar("N", int, float)

EXIT_TROUBLE, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130
INTERRUPTED = "interrupted; nothing is lost"
SHOW_CURSOR = b"\x1b[?25h"  # the live display hides it


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0 done, 2 the input was wrong, 130 interrupted, 1 anything else."""
    standard_streams.open_missing()
    standard_streams.show_all_text()
    _let_signals_end_it()
    try:
        options = _parsed(sys.argv[1:] if arguments is None else arguments)
        from harness.support import own_code

        own_code.check()  # of two copies, parts may not go together
        from harness.commands import COMMANDS

        return COMMANDS[options.command](options)
    except InputError as error:
        return _fail(standard_streams.one_line(str(error)), EXIT_INPUT)
    except (TroubleError, OSError) as error:  # the latter: nobody takes the output, or no room for it
        return _fail(str(error), EXIT_TROUBLE)
    except KeyboardInterrupt:
        return _fail(INTERRUPTED, EXIT_INTERRUPTED)


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    for argument in arguments:
        if argument.startswith("-") and argument.endswith("=--"):  # argparse takes it for an empty list
            raise InputError(f"{argument.removesuffix('=--')} is '--'; allowed: a value")
    return _parser().parse_args(arguments)


def _fail(why: str, status: int) -> int:
    lines = "\n".join(map(standard_streams.one_line, why.splitlines()))
    sys.stderr.write(f"harness: {lines}\n")
    return status


def _let_signals_end_it() -> None:
    """Lets SIGINT and SIGTERM end the process where it is: it may be killed at any moment, and its workers end with it.

    An exception could come out anywhere, and a library that is being loaded would swallow it or turn it into another.
    """
    terminal = os.dup(2)  # which is silenced while some libraries are loaded

    def end(number: int, frame: FrameType | None) -> NoReturn:
        if sys.stdout.isatty():
            os.write(sys.stdout.fileno(), SHOW_CURSOR)
        os.write(terminal, f"harness: {INTERRUPTED}\n".encode())
        os._exit(EXIT_INTERRUPTED)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


class _Parser(argparse.ArgumentParser):
    """Wrong arguments are wrong input like any other: one line, exit status 2."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.register("type", None, _text)  # of every argument that has no other

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def _whole(text: str) -> int:
    return _number(text, int, "a whole number of at most 64 bits")


def _count(text: str, low: int = 0) -> int:
    return _number(text, int, f"a whole number, {low} or more", low)


def _real(text: str) -> float:
    return _number(text, float, "a number")


def _number(text: str, kind: type[N], allowed: str, low: int = -(2**63)) -> N:
    """What an option's text says, for argparse."""
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not low <= number < 2**63:
        raise argparse.ArgumentTypeError(f"it is {text!r}; allowed: {allowed}")
    return number


def _text(value: str) -> str:
    if not value or "\0" in value:
        raise argparse.ArgumentTypeError(f"{value!r}; allowed: text that is not empty, without NUL")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="harness",
        description="Hyperparameter sweeps around documented baselines, with honest error rates and device times.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    _add_sweep(commands)
    _add_baseline(commands)
    _add_verdict(commands)
    _add_reproduce(commands)
    _add_predict(commands)
    _add_reading(commands)
    _add_upkeep(commands)
    return parser


def _add(commands: _Commands, name: str, text: str) -> _Parser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=name)
    return parser


def _add_sweep(commands: _Commands) -> None:
    sweep = _add(commands, "sweep", "search around a documented baseline; the same command again goes on")
    sweep.add_argument("sweep", metavar="NAME|FILE.toml", help="a file of sweeps/ by its name, or any sweep file")
    sweep.add_argument("--engine", help="optuna or keras-tuner")
    sweep.add_argument("--sampler", help="how configurations are proposed")
    sweep.add_argument("--pruner", help="which running trials are stopped early")
    sweep.add_argument("--objective", metavar="A[,B]", help="error, or error,device_time for a Pareto front")
    sweep.add_argument("--trials", type=_whole, metavar="N", help="stop after so many searched trials in all")
    sweep.add_argument("--budget", metavar="15m", help="stop after so much time in all, such as 90s, 15m or 2h")
    sweep.add_argument("--enqueue", metavar="FILE.toml", help="configurations to try first, as [[trial]] tables")
    sweep.add_argument("--learn-from", metavar="STUDY", help="let the finished trials of a study teach the search")
    sweep.add_argument("--as", dest="study", metavar="STUDY", help="name of the study")
    sweep.add_argument("--fresh", action="store_true", help="start anew; the old study is kept under a dated name")
    _add_run_options(sweep)


def _add_baseline(commands: _Commands) -> None:
    text = "train the documented networks with several seeds; validation and test error"
    baseline = _add(commands, "baseline", text)
    baseline.add_argument("baseline", choices=("fc", "cnn", "all"))
    baseline.add_argument("--seeds", type=_whole, metavar="N", help="how many seeds")
    _add_run_options(baseline)


def _add_verdict(commands: _Commands) -> None:
    text = "train a study's best and its baseline again with fresh seeds: is it really better?"
    verdict = _add(commands, "verdict", text)
    verdict.add_argument(
        "study", metavar="STUDY|NAME", help="a study, or a file of sweeps/ for the study it makes here"
    )
    verdict.add_argument("--top", type=_whole, metavar="K", help="how many candidates, the best of the study: 3")
    verdict.add_argument(
        "--seeds", type=_whole, metavar="N", help="seeds at most, the same for each: 3, 5 (default), 8, 12, 20"
    )
    verdict.add_argument(
        "--all-seeds", action="store_true", help="train all of them, even if the answer is clear before"
    )
    verdict.add_argument("--epochs", type=_whole, metavar="N", help="of each training; without it, the full profile's")
    verdict.add_argument("--budget", metavar="2h", help="stop after so much time in all")
    verdict.add_argument(
        "--workers", type=_whole, metavar="N", help="trainings at once; without it, one per core or GPU"
    )
    verdict.add_argument("--fresh", action="store_true", help="begin anew; the old one is kept under a dated name")
    _add_cluster_options(verdict)


def _add_reproduce(commands: _Commands) -> None:
    text = "train a trial again from its record: does it come out the same? exit status 0 if so, 1 if not"
    reproduce = _add(commands, "reproduce", text)
    reproduce.add_argument("study", metavar="STUDY|NAME", help="a study, or a file of sweeps/ whose study it is here")
    reproduce.add_argument("trial", metavar="TRIAL", type=_whole, help="its number, as on the leaderboard")


def _add_predict(commands: _Commands) -> None:
    predict = _add(commands, "predict", "ask the champion that a verdict has made which digits PNG pictures show")
    predict.description = (
        "Asks a registered network which digits PNG pictures show. A picture with a light border is inverted; the digit"
        " is cut out, scaled and centred as MNIST's were. One of 28 x 28 pixels is only inverted, if need be."
    )
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="PNG files")
    predict.add_argument(
        "--model",
        default="champion",
        help="champion (the newest, and the default), or a registered model: NAME, NAME@ALIAS or NAME/VERSION",
    )
    predict.add_argument("--json", action="store_true", help="for programs")


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", help="one of the file, such as quick; without it, full where there is a GPU")
    parser.add_argument("--dataset", help="mnist, or digits (small, needs no download)")
    parser.add_argument("--seed", type=_whole, metavar="N", help="seed of the search and of the first training")
    parser.add_argument("--workers", type=_whole, metavar="N", help="trials at once; without it, one per core or GPU")
    _add_cluster_options(parser)


def _add_cluster_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--executor", choices=("local", "ray"), default="local", help="where workers run: local or ray")
    ray = parser.add_argument_group("with --executor ray")
    text = "the cluster: auto, or its head's HOST:PORT; without it, one is started here"
    ray.add_argument("--address", metavar="ADDRESS", help=text)
    ray.add_argument(
        "--cpus-per-worker", type=_whole, metavar="N", help="CPUs that each worker holds, and its threads: 1"
    )
    text = "GPUs that each worker holds: 1 (the default where there are GPUs), 0.5 for two on each, 0 for none"
    ray.add_argument("--gpus-per-worker", type=_real, metavar="X", help=text)


def _add_reading(commands: _Commands) -> None:
    status = _add(commands, "status", "how far a study is")
    status.add_argument("study", nargs="?", help="without it, all studies")
    status.add_argument("--json", action="store_true", help="for programs")
    board = _add(commands, "leaderboard", "rank the trials of one or several studies")
    board.add_argument("studies", nargs="*", metavar="STUDY", help="without any, one table and file for each study")
    board.add_argument("--out", metavar="FILE|-", help="write the CSV there; - is standard output")
    board.add_argument("--top", type=_count, default=20, metavar="N", help="rows shown on the terminal")
    text = "set studies beside each other: which way to search finds more for the same price?"
    _add(commands, "compare", text).add_argument("studies", nargs="+", metavar="STUDY", help="at least two")
    report = _add(commands, "report", "a study as one HTML file with figures, which opens offline")
    report.add_argument("study", metavar="STUDY|NAME", help="a study, or a file of sweeps/ for the study it makes here")
    text = "write it there; - is standard output; without it, reports/STUDY.html of the home"
    report.add_argument("--out", metavar="FILE|-", help=text)
    export = _add(commands, "export", "hand a study on to other tools")
    export.add_argument("study")
    where = export.add_mutually_exclusive_group(required=True)
    where.add_argument("--optuna", metavar="URL", help="an Optuna storage, such as sqlite:///study.db")
    for form in ("csv", "parquet", "json"):
        where.add_argument(f"--{form}", metavar="FILE|-", help=f"a name that ends in .{form}; - is standard output")


def _add_upkeep(commands: _Commands) -> None:
    data = _add(commands, "data", "fetch the data sets, or check those that are here")
    data.add_argument("action", nargs="?", choices=("fetch", "verify"), default="fetch")
    data.add_argument("--dataset", default="mnist", help="mnist or digits")
    ui = _add(commands, "ui", "open MLflow on the studies")
    ui.add_argument("--port", type=_whole, default=5000)
    _add(commands, "sync", "bring MLflow up to date with the ledger")
    doctor = _add(commands, "doctor", "look at the installation, or recount studies from scratch")
    what = doctor.add_mutually_exclusive_group()
    what.add_argument("--audit", nargs="+", metavar="STUDY", help="ledger against MLflow against exported CSV")
    what.add_argument("--remove", metavar="STUDY", help="take a study out of the ledger, of which a copy is kept")
    bench = _add(commands, "bench", "measure this harness against others")
    bench.add_argument("what", choices=("engine", "overhead", "scale", "search", "sweep", "target"))
    bench.add_argument("--quick", action="store_true", help="within 5 minutes on two cores")
    bench.add_argument(
        "--repeats", type=partial(_count, low=1), metavar="N", help="seeds of a search, rounds of a race"
    )


if __name__ == "__main__":
    sys.exit(main())
