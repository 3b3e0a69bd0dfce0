"""Shells complete the command, and a mistyped name is answered with the one that was meant."""

import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import get_args

import pytest
from filled_ledger import FilledLedger, make_spec

from harness import cli
from harness.execution.data.datasets import DATASETS
from harness.ledger.ledger import Ledger
from harness.search.samplers import PRUNERS, SAMPLERS
from harness.study.settings import Engine, Precision

# Completes the last of the words, with the function that the script has registered.
COMPLETE = """
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
function=$(complete -p harness | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
$function harness "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
echo "${COMPREPLY[*]}"
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        FilledLedger(ledger, make_spec("smoke-quick")).add(2.0)
    return "smoke-quick"


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("sw", "sweep"),
        ("sweep sm", "smoke"),
        ("sweep cnn --samp", "--sampler"),
        ("sweep cnn --sampler baye", "bayesian"),
        ("verdict smo", "smoke-quick"),
        ("compare smoke-quick smo", "smoke-quick"),
    ],
)
def test_bash_completes_commands_sweeps_options_and_studies(
    study: str, words: str, completed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bash = shutil.which("bash")
    assert bash
    monkeypatch.setattr(sys, "argv", [str(Path(sys.executable).with_name("harness"))])  # the script asks it for studies
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out + COMPLETE
    found = subprocess.run([bash, "-c", script, "bash", "harness", *words.split()], capture_output=True, text=True)
    assert (found.stdout.strip(), found.stderr) == (completed, "")


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh"])
def test_other_shells_have_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    assert "successive_halving" in capsys.readouterr().out


def test_the_offered_values_are_those_that_are_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    offered = {
        name: re.search(rf"^_shtab_harness_sweep___{name}_choices=\((.*)\)$", script, re.MULTILINE)
        for name in ("engine", "sampler", "pruner", "dataset", "precision")
    }
    assert {name: found and set(found[1].split()) for name, found in offered.items()} == {
        "engine": set(get_args(Engine)),
        "sampler": {entry.name for entry in SAMPLERS},
        "pruner": {entry.name for entry in PRUNERS},
        "dataset": set(DATASETS),
        "precision": set(get_args(Precision)),
    }


def test_the_help_names_the_samplers_and_pruners_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["sweep", "--help"])
    text = re.sub(r"(?<=\w)- ", "-", " ".join(capsys.readouterr().out.split()))  # argparse breaks at hyphens
    assert " --engine ENGINE optuna or keras-tuner " in text
    of_optuna, of_keras_tuner = (
        ", ".join(one.name for one in SAMPLERS if one.engine == engine) for engine in ("optuna", "keras-tuner")
    )
    assert f"by optuna {of_optuna}; by keras-tuner {of_keras_tuner}" in text
    assert f"stopped early: {', '.join(one.name for one in PRUNERS)}" in text


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("swep smoke", "sweep"),
        ("sweep smok", "smoke"),
        ("sweep smoke --trails=3", "--trials"),
        ("baseline fcc", "fc"),
        ("status smok", "smoke-quick"),
        ("report smoke-quik", "smoke-quick"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_one_that_was_meant(
    study: str, line: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(line.split()) == cli.EXIT_INPUT
    assert f"; did you mean {meant}?" in capsys.readouterr().err


def test_nothing_is_suggested_for_a_name_like_no_other(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "qqq"]) == cli.EXIT_INPUT
    assert "did you mean" not in capsys.readouterr().err
