"""The options of a sweep agree wherever they are offered: by the command, from Python, by make."""

import inspect
import re
from pathlib import Path

import harness
from harness import cli
from harness.study.options import SWEEP_OPTIONS
from harness.study.sweep_file import Flags

ROOT = Path(__file__).parents[1]
NAMES = {option.name for option in SWEEP_OPTIONS}


def test_each_option_has_its_type_and_is_an_argument_of_load_sweep() -> None:
    assert set(Flags.model_fields) == NAMES
    assert next(iter(inspect.signature(harness.load_sweep).parameters)) == "sweep"
    assert set(inspect.signature(harness.load_sweep).parameters) == {"sweep", *NAMES}
    documented = re.findall(r"^ {8}(\w+): ", str(harness.load_sweep.__doc__), re.MULTILINE)
    assert set(documented) == {"sweep", *NAMES, "InputError"}


def test_each_variable_of_make_is_an_option_of_its_command() -> None:
    makefile = (ROOT / "Makefile").read_text()
    parser = cli._parser()
    for command, variable in (("sweep", "SWEEP_FLAGS"), ("baseline", "BASELINE_FLAGS"), ("verdict", "VERDICT_FLAGS")):
        text = re.search(rf"^{variable} = ((?:.*\\\n)*.*)", makefile, re.MULTILINE)
        assert text is not None
        offered = set(re.findall(r"\$\(call flag,[A-Z]+,([\w-]+)\)", text[1]))
        assert offered
        commands = next(action for action in parser._actions if action.dest == "command" or action.choices)
        known = {flag for action in commands.choices[command]._actions for flag in action.option_strings}
        assert {f"--{flag}" for flag in offered} <= known
    upper = {option.name.upper() for option in SWEEP_OPTIONS}
    of_sweeps = re.search(r"^sweep-cnn:.*\((.*)\)$", makefile, re.MULTILINE)
    assert of_sweeps is not None
    said = {word.removesuffix("=") for word in of_sweeps[1].split()}
    assert said - upper == {"WORKERS", "EXECUTOR", "ADDRESS"}
