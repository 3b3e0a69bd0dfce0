"""The `harness` command: the arguments of its sub-commands. No logic.

Slow packages are imported only when they are needed, so that `harness --help` is fast.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from harness import __version__
from harness.api.sweeps import baseline_options, sweep_options
from harness.errors import InputError, TroubleError
from harness.execution.executors import EXECUTORS, options_of
from harness.study.options import Option
from harness.support import standard_streams
from harness.support.suggestions import did_you_mean

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction["_Parser"]  # argparse has no public name for it

N = TypeVar("N", int, float)

EXIT_TROUBLE, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130
INTERRUPTED = "interrupted; nothing is lost"
STUDY = "a study, or the name of a file in sweeps/ for its study"
SHOW_CURSOR = b"\x1b[?25h"  # the live display hides it


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status: 0 done, 2 wrong input, 130 interrupted, 1 other failures."""
    standard_streams.open_missing()
    standard_streams.show_all_text()
    _let_signals_end_it()
    try:
        from harness.support import own_code

        own_code.check()  # files of two copies may not fit together
        options = _parsed(sys.argv[1:] if arguments is None else arguments)
        from harness.commands import COMMANDS

        return COMMANDS[options.command](options)
    except InputError as error:
        return _fail(standard_streams.one_line(str(error)), EXIT_INPUT)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_TROUBLE
    except (TroubleError, OSError) as error:  # OSError: the output is closed or the disk is full
        return _fail(str(error), EXIT_TROUBLE)
    except KeyboardInterrupt:
        return _fail(INTERRUPTED, EXIT_INTERRUPTED)


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    for argument in arguments:
        if argument.startswith("-") and argument.endswith("=--"):  # argparse takes it for an empty list
            raise InputError(f"{argument.removesuffix('=--')} is '--'; allowed: a value")
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        flags = re.findall(r"--[a-z][a-z-]*", options.parser.format_help())
        meant = next(filter(None, (did_you_mean(word.partition("=")[0], flags) for word in unknown)), "")
        raise InputError(f"unrecognized arguments: {' '.join(unknown)}{meant}; see {options.parser.prog} --help")
    return options


def _fail(why: str, status: int) -> int:
    lines = "\n".join(map(standard_streams.one_line, why.splitlines()))
    sys.stderr.write(standard_streams.for_people(f"harness: {lines}", sys.stderr) + "\n")
    return status


def _let_signals_end_it() -> None:
    """Makes SIGINT and SIGTERM end the process at once: it may be killed at any moment, and its workers end with it.

    An exception could be raised anywhere, and a library that is being loaded might swallow or replace it.
    """
    terminal = os.dup(2)  # standard error is silenced while some libraries are loaded

    def end(number: int, frame: FrameType | None) -> NoReturn:
        if sys.stdout.isatty():
            os.write(sys.stdout.fileno(), SHOW_CURSOR)
        os.write(terminal, f"harness: {INTERRUPTED}\n".encode())
        os._exit(EXIT_INTERRUPTED)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


class _Parser(argparse.ArgumentParser):
    """Reports wrong arguments like other wrong input: one line, exit status 2."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.register("type", None, _text)  # for all arguments without another type

    def error(self, message: str) -> NoReturn:
        chosen = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        meant = did_you_mean(chosen[1], re.findall(r"[\w-]+", chosen[2])) if chosen else ""
        raise InputError(f"{message}{meant}; see {self.prog} --help")


class _Version(argparse.Action):
    """Prints the version; argparse's own action does not report a failure to write."""

    def __call__(self, *given: object) -> NoReturn:
        sys.stdout.write(f"harness {__version__}\n")
        sys.stdout.flush()
        raise SystemExit(0)


def _whole(text: str) -> int:
    return _number(text, int, "a whole number of at most 64 bits")


def _count(text: str, low: int = 0) -> int:
    return _number(text, int, f"a whole number, {low} or more", low)


def _real(text: str) -> float:
    return _number(text, float, "a number")


def _number(text: str, kind: type[N], allowed: str, low: int = -(2**63)) -> N:
    """The number in an option's text, for argparse."""
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
        description="Hyperparameter sweeps around two documented MNIST networks, with error rates and device times.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    commands.type = str  # the parser of the command checks its arguments, and names the wrong one
    _add_sweep(commands)
    _add_baseline(commands)
    _add_verdict(commands)
    _add_ablate(commands)
    _add_reproduce(commands)
    _add_predict(commands)
    _add_reading(commands)
    _add_upkeep(commands)
    _add_completion(commands, parser)
    return parser


def _add(commands: _Commands, name: str, text: str) -> _Parser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=name, parser=parser)
    return parser


def _add_sweep(commands: _Commands) -> None:
    sweep = _add(commands, "sweep", "search around a documented network; the same command resumes the study")
    what = sweep.add_mutually_exclusive_group(required=True)
    text = "name of a sweep of --list, or path of a sweep file"
    what.add_argument("sweep", nargs="?", metavar="NAME|FILE.toml", help=text)
    what.add_argument("--list", action="store_true", help="list the sweeps by name, the samplers and the pruners")
    sweep.add_argument("--fresh", action="store_true", help="start a new study; the old one is kept under a dated name")
    _add_run_options(sweep, sweep_options())


def _add_baseline(commands: _Commands) -> None:
    import baselines

    text = "train the documented networks with several seeds, and measure validation and test error"
    baseline = _add(commands, "baseline", text)
    baseline.add_argument("baseline", choices=(*baselines.NAMES, "all"))
    baseline.add_argument("--seeds", type=_whole, metavar="N", help="number of seeds")
    _add_run_options(baseline, baseline_options())


def _add_verdict(commands: _Commands) -> None:
    text = "test whether a study's best trials are better than the baseline: train both again with new seeds"
    verdict = _add(commands, "verdict", text)
    verdict.add_argument("study", metavar="STUDY|NAME", help=STUDY)
    verdict.add_argument(
        "--top", type=_whole, metavar="K", help="number of candidates, the best of the study (default: 3)"
    )
    verdict.add_argument(
        "--seeds",
        type=_whole,
        metavar="N",
        help="largest number of seeds, the same for each network: 3, 5 (default), 8, 12, 20",
    )
    verdict.add_argument(
        "--all-seeds", action="store_true", help="train all seeds, even if the answer is clear earlier"
    )
    verdict.add_argument(
        "--epochs", type=_whole, metavar="N", help="epochs of each training (default: those of the profile full)"
    )
    verdict.add_argument("--budget", metavar="2h", help="stop after this time in total")
    verdict.add_argument("--workers", type=_whole, metavar="N", help="trainings at once (default: one per core or GPU)")
    _add_no_reuse(verdict)
    verdict.add_argument(
        "--fresh", action="store_true", help="start a new verdict; the old one is kept under a dated name"
    )
    _add_executor_options(verdict)


def _add_ablate(commands: _Commands) -> None:
    text = "train a study's best configuration without each of its changes, to see what each is worth"
    ablate = _add(commands, "ablate", text)
    ablate.add_argument("study", metavar="STUDY|NAME", help=STUDY)
    ablate.add_argument("--seeds", type=_whole, metavar="N", help="seeds of each network (default: 3)")
    ablate.add_argument("--workers", type=_whole, metavar="N", help="trainings at once (default: one per core or GPU)")
    _add_no_reuse(ablate)
    ablate.add_argument("--fresh", action="store_true", help="start a new one; the old one is kept under a dated name")
    _add_executor_options(ablate)


def _add_reproduce(commands: _Commands) -> None:
    text = "train a trial again from its record and compare the results: exit status 0 if they match, 1 if not"
    reproduce = _add(commands, "reproduce", text)
    reproduce.add_argument("study", metavar="STUDY|NAME", help=STUDY)
    reproduce.add_argument("trial", metavar="TRIAL", type=_whole, help="number of the trial, as on the leaderboard")


def _add_predict(commands: _Commands) -> None:
    predict = _add(commands, "predict", "classify PNG pictures of digits with the champion of a verdict")
    predict.description = (
        "Classifies PNG pictures of digits with a registered network. A picture with a light border is inverted; the"
        " digit is cut out, scaled and centred as in the network's data set. A picture of 28 x 28 pixels is only"
        " inverted, if necessary."
    )
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="PNG files")
    predict.add_argument(
        "--model",
        default="champion",
        help="champion (default: the newest, if all are of one data set), or a registered model: NAME, NAME@ALIAS or"
        " NAME/VERSION",
    )
    predict.add_argument("--json", action="store_true", help="print JSON")


def _add_run_options(parser: argparse.ArgumentParser, options: Iterable[Option]) -> None:
    _add_options(parser, options)
    parser.add_argument("--workers", type=_whole, metavar="N", help="trials at once (default: one per core or GPU)")
    _add_no_reuse(parser)
    _add_executor_options(parser)


def _add_no_reuse(parser: argparse.ArgumentParser) -> None:
    text = "train each trial, also if an equal training is in the ledger (for example to measure its time again)"
    parser.add_argument("--no-reuse", dest="reuses", action="store_false", help=text)


def _add_executor_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--executor", choices=tuple(EXECUTORS), default="local", help="where workers run (default: local)"
    )
    for executor in EXECUTORS:
        if options := options_of(executor):
            _add_options(parser.add_argument_group(f"with --executor {executor}"), options)


def _add_options(group: argparse._ActionsContainer, options: Iterable[Option]) -> None:
    kinds = {str: _text, int: _whole, float: _real}
    for option in options:
        group.add_argument(
            option.long_flag, dest=option.name, type=kinds[option.kind], metavar=option.metavar, help=option.help
        )


def _add_reading(commands: _Commands) -> None:
    status = _add(commands, "status", "show the progress of studies")
    status.add_argument("study", nargs="?", metavar="STUDY|NAME", help=f"{STUDY} (default: all studies)")
    status.add_argument("--json", action="store_true", help="print JSON")
    board = _add(commands, "leaderboard", "rank the trials of one or several studies")
    board.add_argument(
        "studies",
        nargs="*",
        metavar="STUDY|NAME",
        help=f"one table for these; {STUDY} (default: a table and a file for each study)",
    )
    board.add_argument("--out", metavar="FILE|-", help="CSV file to write; - is standard output")
    board.add_argument("--top", type=_count, default=20, metavar="N", help="rows shown on the terminal (default: 20)")
    text = "compare searches: lowest error against device time"
    _add(commands, "compare", text).add_argument(
        "studies", nargs="+", metavar="STUDY|NAME", help=f"at least two; {STUDY}"
    )
    report = _add(commands, "report", "write a report on a study: one HTML file that opens offline")
    report.add_argument("study", metavar="STUDY|NAME", help=STUDY)
    text = "file to write; - is standard output (default: reports/STUDY.html in the home folder of the harness)"
    report.add_argument("--out", metavar="FILE|-", help=text)
    export = _add(commands, "export", "export a study for other tools")
    export.add_argument("study", metavar="STUDY|NAME", help=STUDY)
    where = export.add_mutually_exclusive_group(required=True)
    where.add_argument("--optuna", metavar="URL", help="an Optuna storage, such as sqlite:///study.db")
    where.add_argument(
        "--study",
        dest="study_file",
        metavar="FILE|-",
        help="all of the study and its verdict, for `harness import`: a file with extension .study.gz, or -",
    )
    for form in ("csv", "parquet", "json"):
        text = f"its trials, one row each: a file with extension .{form}, or -, standard output"
        where.add_argument(f"--{form}", metavar="FILE|-", help=text)
    export.add_argument("--epochs", action="store_true", help="one row per epoch (with --csv, --parquet or --json)")

    text = "add a study of another home, with its verdict, from a file of `harness export STUDY --study FILE`"
    imports = _add(commands, "import", text)
    imports.add_argument("file", metavar="FILE|-", help="the file; - is standard input")
    imports.add_argument("--as", dest="new_name", metavar="STUDY", help="its name in this home (default: its own)")


def _add_upkeep(commands: _Commands) -> None:
    data = _add(commands, "data", "download the data sets, or verify those in the cache")
    data.add_argument("action", nargs="?", choices=("fetch", "verify"), default="fetch")
    data.add_argument("--dataset", default="mnist", help="mnist or digits")
    ui = _add(commands, "ui", "open MLflow with all studies")
    ui.add_argument("--port", type=_whole, default=5000)
    _add(commands, "sync", "bring MLflow up to date with the ledger")
    doctor = _add(commands, "doctor", "check the installation, or audit studies")
    what = doctor.add_mutually_exclusive_group()
    text = f"check that ledger, MLflow and exported CSV agree; {STUDY} (default: all studies)"
    what.add_argument("--audit", nargs="*", metavar="STUDY|NAME", help=text)
    text = "try each GPU for up to six minutes: what holds and what does not, with measurements"
    what.add_argument("--gpu", action="store_true", help=text)
    what.add_argument("--remove", metavar="STUDY", help="remove a study from the ledger; a copy of the ledger is kept")
    bench = _add(commands, "bench", "measure speed and overhead, and compare with other tools")
    bench.add_argument(
        "what",
        choices=(
            *("choice", "engine", "finalists", "overhead", "precision", "pruning"),
            *("scale", "search", "sweep", "tables", "target"),
        ),
    )
    bench.add_argument("--quick", action="store_true", help="take less than 5 minutes on two cores")
    bench.add_argument("--repeats", type=partial(_count, low=1), metavar="N", help="number of seeds or rounds")


def _add_completion(commands: _Commands, whole: argparse.ArgumentParser) -> None:
    completion = _add(commands, "completion", "print a script with which your shell completes this command")
    completion.description = (
        'Prints a script. For bash, this line in ~/.bashrc loads it: eval "$(harness completion bash)". For zsh, write'
        " it to a file _harness in a folder of $fpath, for fish to ~/.config/fish/completions/harness.fish."
    )
    completion.add_argument(
        "shell", choices=("bash", "zsh", "fish", "tcsh", "studies"), help="studies prints their names, for the scripts"
    )
    completion.set_defaults(whole=whole)


if __name__ == "__main__":
    sys.exit(main())
