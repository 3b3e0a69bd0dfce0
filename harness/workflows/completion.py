"""`harness completion`: scripts with which a shell completes commands, options, sweeps, studies and files."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import shtab

from harness.search.samplers import PRUNERS, SAMPLERS
from harness.study.data import BUILT_IN
from harness.study.spec import SweepSpec
from harness.support.home import sweeps_folder

SHELLS = ("bash", "zsh", "fish", "tcsh")
STUDIES = "studies"  # in the place of a shell: the names of studies, for which the scripts ask

_STUDIES = {"study", "studies", "learn_from", "audit", "remove"}
_FILES = {"images", "file", "out", "enqueue", "study_file", "csv", "parquet", "json"}


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script of the command of `parser` for a shell of SHELLS."""
    choices = _choices()
    for action in _arguments(parser):
        if action.dest in choices and not action.choices:
            action.choices = choices[action.dest]
        elif how := _completed(action):
            vars(action)["complete"] = how  # as shtab documents
    return str(shtab.complete(parser, shell))


def _choices() -> dict[str, tuple[str, ...]]:
    """The values of arguments that are checked elsewhere, by the argument."""
    fields = SweepSpec.model_fields.items()
    return {
        **{name: get_args(field.annotation) for name, field in fields if get_origin(field.annotation) is Literal},
        "sampler": tuple(dict.fromkeys(entry.name for entry in SAMPLERS)),
        "pruner": tuple(entry.name for entry in PRUNERS),
        "dataset": tuple(BUILT_IN),
        "sweep": tuple(sorted(path.stem for path in sweeps_folder().glob("*.toml"))),
    }


def _completed(action: argparse.Action) -> dict[str, Any] | None:
    if action.nargs == 0:  # a flag without a value
        return None
    if action.dest in _STUDIES:
        return dict(shtab.cmd(f"{_this_command()} completion {STUDIES} 2>/dev/null"))
    return dict(shtab.FILE) if action.dest in _FILES else None


def _this_command() -> str:
    file = Path(sys.argv[0]).absolute()
    return shlex.quote(str(file)) if file.is_file() else "harness"


def _arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of its sub-commands."""
    for action in parser._actions:  # argparse lists them nowhere else
        yield action
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                yield from _arguments(command)
