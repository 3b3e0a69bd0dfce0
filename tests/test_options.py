"""Options agree at each place that offers them: by the command, from Python, by make."""

import inspect
import re
from pathlib import Path

import pytest

import harness
from harness import cli
from harness.api.sweeps import sweep_options
from harness.execution.executors import EXECUTORS, chosen, options_of
from harness.study.options import Option
from harness.study.settings import Flags

ROOT = Path(__file__).parents[1]
RUNNERS = {"sweep": "smoke", "baseline": "fc", "verdict": "study"}  # the commands that start workers
SAMPLES: dict[type[int | float | str], int | float | str] = {int: 1, float: 1.0, str: "auto"}
NAMES = {option.name for option in sweep_options()}


def test_each_option_has_its_type_and_is_an_argument_of_load_sweep() -> None:
    assert set(Flags.model_fields) == NAMES
    assert next(iter(inspect.signature(harness.load_sweep).parameters)) == "sweep"
    assert set(inspect.signature(harness.load_sweep).parameters) == {"sweep", *NAMES}
    documented = re.findall(r"^ {8}(\w+): ", str(harness.load_sweep.__doc__), re.MULTILINE)
    assert set(documented) == {"sweep", *NAMES, "InputError"}


@pytest.mark.parametrize("value", ["", "a\0b"])
def test_an_empty_value_is_refused_by_the_name_of_its_option(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command, option in (("sweep smoke", "--precision"), ("sweep smoke", "--address"), ("export x", "--csv")):
        assert cli.main([*command.split(), option, value]) == cli.EXIT_INPUT
        assert capsys.readouterr().err.startswith(f"harness: argument {option}: {value!r}; allowed: text that is not")


@pytest.mark.parametrize("command", ["sweep smoke", "baseline fc", "status"])
def test_an_unknown_option_points_to_the_help_of_its_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command.split(), "--zzz=3"]) == cli.EXIT_INPUT
    name = command.split()[0]
    assert capsys.readouterr().err == f"harness: unrecognized arguments: --zzz=3; see harness {name} --help\n"


def test_each_variable_of_make_is_an_option_of_its_command() -> None:
    makefile = (ROOT / "Makefile").read_text()
    parser = cli._parser()
    for command, variable in (("sweep", "SWEEP_FLAGS"), ("baseline", "BASELINE_FLAGS"), ("verdict", "VERDICT_FLAGS")):
        texts = re.findall(rf"^(?:{variable}|WORKER_FLAGS) = ((?:.*\\\n)*.*)", makefile, re.MULTILINE)
        assert len(texts) == 2
        offered = set(re.findall(r"\$\(call flag,[A-Z]+,([\w-]+)\)", " ".join(texts)))
        commands = next(action for action in parser._actions if action.dest == "command" or action.choices)
        known = {flag for action in commands.choices[command]._actions for flag in action.option_strings}
        assert {f"--{flag}" for flag in offered} <= known
    upper = {name.upper() for name in NAMES}
    of_sweeps = re.search(r"^sweep-cnn:.*\((.*)\)$", makefile, re.MULTILINE)
    assert of_sweeps is not None
    said = {word.removesuffix("=") for word in of_sweeps[1].split()}
    assert said - upper == {"WORKERS", "REUSE", "EXECUTOR", "ADDRESS"}


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("command", RUNNERS)
def test_each_executor_is_offered_with_its_options(command: str, executor: str) -> None:
    given = {option.name: SAMPLES[option.kind] for option in options_of(executor)}
    flags = [f"{option.long_flag}={given[option.name]}" for option in options_of(executor)]
    options = cli._parser().parse_args([command, RUNNERS[command], "--executor", executor, *flags])
    assert chosen(options.executor, vars(options)) == EXECUTORS[executor](**given)


@pytest.mark.parametrize(
    ("executor", "other", "option"),
    [(a, b, option) for a in EXECUTORS for b in EXECUTORS if a != b for option in options_of(b)],
    ids=lambda part: part if isinstance(part, str) else part.name,
)
@pytest.mark.parametrize("command", RUNNERS)
def test_an_option_of_another_executor_is_refused(
    command: str,
    executor: str,
    other: str,
    option: Option,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    given = SAMPLES[option.kind]
    assert cli.main([command, RUNNERS[command], "--executor", executor, f"{option.long_flag}={given}"]) == 2
    assert capsys.readouterr().err == f"harness: {option.long_flag} is {given}; allowed: with --executor {other}\n"
    assert list(tmp_path.iterdir()) == []
