"""What a study that is to be made may ask for; and that those which earlier versions made are still read."""

from __future__ import annotations

import io
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from filled_ledger import DOCUMENTED, RECIPE, FilledLedger, make_spec, read_all

from harness import load_sweep, run_sweep
from harness.analysis.export.trials import export_table
from harness.analysis.leaderboard.leaderboard import leaderboard
from harness.cli import main
from harness.errors import InputError
from harness.ledger.ledger import Ledger
from harness.planning.plan import time_left
from harness.planning.status import render, status
from harness.study.new_study import check_new
from harness.study.records import Outcome, Role
from harness.study.spec import SweepSpec
from harness.support.home import sweeps_folder
from harness.workflows.report import write_report

SMOKE = (sweeps_folder() / "smoke.toml").read_text()
UNITS = "[space]\nunits_1 = { low = 16, high = 512, log = true }"


def edited(old: str, new: str) -> str:
    assert old in SMOKE
    return SMOKE.replace(old, new)


def in_space(text: str) -> str:
    return edited("[space]\n", f"[space]\n{text}\n")


def in_recipe(text: str) -> str:
    return edited("[recipe]\nbatch_size = 32\n", f"[recipe]\n{text}\n")


REFUSED = {
    in_space("layers = { low = 1, high = 6 }"): "space.layers is 6; allowed: whole numbers 1 to 3",
    in_space("layers = { low = 0, high = 2 }"): "space.layers is 0; allowed: whole numbers 1 to 3",
    in_space("layers = { values = [2, 9] }"): "space.layers is 9; allowed: whole numbers 1 to 3",
    in_space("layers = { values = [2, -1] }"): "space.layers is -1; allowed: whole numbers 1 to 3",
    edited("units_1 = { low = 16", "units_1 = { low = 0").replace(", log = true", ""): (
        "space.units_1 is 0; allowed: whole numbers 1 to 16384"
    ),
    edited(UNITS, "[space]\nunits_1 = { values = [512, 99999999999999999999999] }"): (
        "space.units_1: values is [512, 99999999999999999999999]; allowed: numbers of at most 64 bits"
    ),
    edited(UNITS, "[space]\nunits_1 = { values = [512, 999999999999] }"): (
        "space.units_1 is 999999999999; allowed: whole numbers 1 to 16384"
    ),
    in_space("batch_size = { low = 0, high = 64 }"): (
        "space.batch_size is 0; allowed: whole numbers 1 to 800, the number of training images"
    ),
    in_space("batch_size = { values = [32, 801] }"): (
        "space.batch_size is 801; allowed: whole numbers 1 to 800, the number of training images"
    ),
    in_recipe("batch_size = 801"): (
        "recipe.batch_size is 801; allowed: whole numbers 1 to 800, the number of training images"
    ),
    in_space("dropout = { low = 0.0, high = 1.5 }"): "space.dropout is 1.5; allowed: numbers 0 to below 1",
    in_space("dropout = { low = 0.0, high = 1.0 }"): "space.dropout is 1.0; allowed: numbers 0 to below 1",
    in_space("dropout = { low = -0.5, high = 0.5 }"): "space.dropout is -0.5; allowed: numbers 0 to below 1",
    in_space("augment_shift = { low = 0.0, high = 1.5 }"): "space.augment_shift is 1.5; allowed: numbers 0 to 1",
    in_space(
        "augment_rotation = { low = 0.0, high = 1.01 }"
    ): "space.augment_rotation is 1.01; allowed: numbers 0 to 1",
    in_space("augment_zoom = { values = [0.0, 1.0] }"): "space.augment_zoom is 1.0; allowed: numbers 0 to below 1",
    in_space("learning_rate = { low = -0.01, high = 0.01 }"): (
        "space.learning_rate is -0.01; allowed: numbers above 0 to 1e+09"
    ),
    in_space(
        "learning_rate = { low = 0.0, high = 0.1 }"
    ): "space.learning_rate is 0.0; allowed: numbers above 0 to 1e+09",
    in_recipe("learning_rate = -0.001"): "recipe.learning_rate is -0.001; allowed: numbers above 0 to 1e+09",
    in_recipe("warmup_share = 3"): "recipe.warmup_share is 3; allowed: numbers 0 to 1",
    in_recipe("learning_rate = nan"): "recipe.learning_rate is nan; allowed: numbers above 0 to 1e+09",
    in_recipe('batch_size = "32"'): "recipe.batch_size is '32'; allowed: whole numbers 1 to 60000",
    in_recipe("batch_size = true"): "recipe.batch_size is True; allowed: whole numbers 1 to 60000",
    in_space('schedule = { values = ["warmup_cosine", "step"] }'): (
        "space.schedule is 'step'; allowed: warmup_cosine, cosine, constant"
    ),
    edited(UNITS, f'{UNITS}\nunits_3 = {{ values = ["a"], when = {{ units_1 = [256] }} }}'): (
        "space.units_3 is 'a'; allowed: whole numbers 1 to 16384"
    ),
    in_space("momentum = { low = 0.0, high = 1.0 }"): (
        "space.momentum is unknown; allowed for fc: units_1, units_2, units_3, layers, dropout, input_dropout,"
        " batch_norm, augment_shift, augment_rotation, augment_zoom, augment_shear, learning_rate, schedule,"
        " warmup_share, batch_size, weight_decay, label_smoothing"
    ),
    in_space("dropout = { low = 0.0, high = 0.5 }\ninput_dropout = { values = [0.1], when = { dropout = [0.5] } }"): (
        "space.input_dropout: when names dropout, which is any of the numbers 0.0 to 0.5; allowed: one with a step or"
        " with values, since no real number comes up twice"
    ),
    in_space("learning_rate = { low = 0.003, high = 0.003, step = 1e-13 }"): (
        "space.learning_rate: step is 1e-13; allowed: at least 3e-12, or values would be equal"
    ),
    f"objective = []\n{SMOKE}": "objective is []; allowed: one or more of error, device_time, each once",
    f'objective = ["error", "error"]\n{SMOKE}': (
        "objective is ['error', 'error']; allowed: one or more of error, device_time, each once"
    ),
    f'engine = "keras-tuner"\nobjective = []\n{edited("engine = ", "#")}'.replace('pruner = "percentile"', "").replace(
        'sampler = "tpe"', ""
    ): "objective is []; allowed: one or more of error, device_time, each once",
    edited("epochs = 3", "epochs = true"): "profiles.quick.epochs is True; allowed: a valid integer",
    edited("epochs = 3", "epochs = 3.0"): "profiles.quick.epochs is 3.0; allowed: a valid integer",
    edited("trials = 6", 'trials = "2"'): "profiles.quick.trials is '2'; allowed: a valid integer",
    edited(
        "trials = 6", "trials = 99999999999999999999999"
    ): "profiles.quick.trials is 99999999999999999999999; allowed: ",
    f'{SMOKE}\n[constraints]\nmax_params = "1000"': "constraints.max_params is '1000'; allowed: a valid integer",
    f"{SMOKE}\n[constraints]\nmax_memory_mb = true": "constraints.max_memory_mb is True; allowed: a valid number",
    f"max_repeats = {10**30}\n{SMOKE}": "max_repeats is 1000000000000000000000000000000; allowed: ",
    f"patience = -1\n{SMOKE}": "patience is -1; allowed: greater than or equal to 0",
    edited('sampler = "tpe"', 'sampler = ""'): "sampler is ''; allowed with engine optuna: tpe, ",
    edited('budget = "5m"', 'budget = ""'): "duration is ''; allowed: ",
}


@pytest.mark.parametrize("text", REFUSED, ids=REFUSED.get)
def test_what_cannot_be_is_refused_before_anything_is_written(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    file = tmp_path / "mine.toml"
    file.write_text(text)
    assert main(["sweep", str(file), "--workers", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert REFUSED[text] in line
    assert not (tmp_path / "home").exists()


def test_a_spec_that_no_file_made_is_checked_as_well(smoke: SweepSpec, tmp_path: Path) -> None:
    for wrong in ({"objective": ()}, {"train_images": 10}, {"space": {"layers": {"low": 1, "high": 4}}}):
        with pytest.raises(InputError, match=r"^(objective|recipe\.batch_size|space\.layers) is .*; allowed: "):
            run_sweep(smoke.changed(**wrong), home=tmp_path / "home", quiet=True)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"trials": "2"}, "load_sweep: trials is '2'; allowed: a valid integer"),
        ({"seed": True}, "load_sweep: seed is True; allowed: a valid integer"),
        ({"seed": -1}, "load_sweep: seed is -1; allowed: "),
        ({"trials": 10**23}, "load_sweep: trials is 100000000000000000000000; allowed: "),
        ({"objective": []}, "objective is []; allowed: one or more of error, device_time, each once"),
        ({"objective": "error"}, "load_sweep: objective is 'error'; allowed: a valid tuple"),
        ({"sampler": ""}, "sampler is ''; allowed with engine optuna: "),
        ({"profile": ""}, "--profile is ''; allowed by "),
        ({"budget": ""}, "load_sweep: budget: duration is ''; allowed: "),
        ({"enqueue": "/dev/null"}, "/dev/null cannot be read: not a plain file; allowed: a TOML file"),
    ],
    ids=str,
)
def test_flags_are_taken_for_nothing_that_they_are_not(flags: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        run_sweep(load_sweep("smoke", **flags), home=tmp_path / "home", quiet=True)
    assert message in str(refused.value)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        ("units_1 = 0\nunits_2 = 64", "enqueued trial 1: units_1 is 0; allowed: whole numbers 16 to 512"),
        ('units_1 = "64"\nunits_2 = 64', "enqueued trial 1: units_1 is '64'; allowed: whole numbers 16 to 512"),
        ("units_1 = true\nunits_2 = 64", "enqueued trial 1: units_1 is True; allowed: whole numbers 16 to 512"),
        ("units_1 = 64.0\nunits_2 = 64", "enqueued trial 1: units_1 is 64.0; allowed: whole numbers 16 to 512"),
        (f"units_1 = {10**23}\nunits_2 = 64", "enqueued trial 1: units_1 is 100000000000000000000000; allowed: "),
        (
            "units_1 = 64\nunits_2 = 64\nlayers = 9",
            "enqueued trial 1: layers is 9; allowed hyperparameters: units_1, units_2",
        ),
    ],
)
def test_what_is_enqueued_lies_in_the_space(trial: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "first.toml").write_text(f"[[trial]]\n{trial}")
    with pytest.raises(InputError) as refused:
        run_sweep(load_sweep("smoke", enqueue=tmp_path / "first.toml"), home=tmp_path / "home", quiet=True)
    assert str(refused.value).startswith(message)


def test_a_pipe_as_a_sweep_file_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    for ask in ({"sweep": pipe}, {"sweep": "smoke", "enqueue": pipe}):
        with pytest.raises(InputError, match=r"pipe\.toml cannot be read: not a plain file; allowed: a TOML file$"):
            load_sweep(**ask)


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    marked = tmp_path / "smoke.toml"
    marked.write_text(SMOKE, encoding="utf-8-sig")
    assert marked.read_bytes().startswith(b"\xef\xbb\xbf")
    assert load_sweep(marked).digest() == load_sweep("smoke").digest()


def test_a_path_that_is_too_long_is_not_there() -> None:
    with pytest.raises(
        InputError, match=r"^sweep is '/x+\.\.\.x+', which is not there; allowed: a TOML file or one of"
    ):
        load_sweep("/" + "x" * 5000)


# Studies of earlier versions

ODD: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"space": {"layers": {"low": 1, "high": 9}}}, {"layers": 9}),
    ({"space": {"layers": {"low": -1, "high": 2}}}, {"layers": -1}),
    ({"space": {"layers": {"low": 0, "high": 2}}}, {"layers": 0}),
    ({"space": {"batch_size": {"low": 0, "high": 128}}}, {"batch_size": 0}),
    ({"space": {"dropout": {"low": -1.0, "high": 2.0}}}, {"dropout": 1.5}),
    ({"space": {"dropout": {"low": 0.0, "high": 0.6, "step": 0.1}}}, {"dropout": 0.1 * 3}),
    ({"space": {"dropout": {"low": 0.0, "high": 0.3, "step": 0.1}}}, {"dropout": 0.1 * 3}),
    ({"space": {"units_1": {"low": 0, "high": 512}}}, {"units_1": 0}),
    ({"space": {"units_1": {"values": [512, 10**12]}}, "constraints": {"max_params": 10**6}}, {"units_1": 10**12}),
    ({"space": {"learning_rate": {"low": -1.0, "high": 1.0}}}, {"learning_rate": -0.5}),
    ({"recipe": {**RECIPE, "warmup_share": 3.0}}, DOCUMENTED),
    ({"recipe": {**RECIPE, "batch_size": 5000}}, DOCUMENTED),
    ({"objective": ()}, DOCUMENTED),
    ({"objective": ("error", "error"), "pruner": "none"}, DOCUMENTED),
    ({"max_repeats": 10**30}, DOCUMENTED),
]


@pytest.mark.parametrize(("settings", "params"), ODD, ids=str)
def test_a_study_that_asks_too_much_is_read_and_listed_but_not_made(
    settings: dict[str, Any], params: dict[str, Any], tmp_path: Path
) -> None:
    spec = make_spec(**settings)
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        study = FilledLedger(ledger, spec)
        ledger.start_session("study")
        study.add(2.0, params=spec.baseline_params, role=Role.BASELINE)
        study.add(1.0, params=params)
        for outcome in (Outcome.CRASHED, Outcome.INFEASIBLE):
            study.add(outcome=outcome, params=params)
        read_all(ledger.path)
        table = leaderboard(ledger, ["study"])
        assert [table[name].iloc[0] for name in params if name in spec.space] == [
            value for name, value in params.items() if name in spec.space
        ]
        found = status(ledger, "study")
        render([found], io.StringIO())
        time_left(ledger, found)
        export_table(ledger, "study", tmp_path / "study.json", "json")
    assert write_report(tmp_path, "study", None).path.exists()


def test_what_earlier_versions_let_pass_is_refused_now() -> None:
    wrong = [settings for settings, params in ODD if "step" not in str(settings) and "max_repeats" not in settings]
    for settings in wrong:
        with pytest.raises(InputError, match="; allowed: "):
            check_new(make_spec(**settings))
