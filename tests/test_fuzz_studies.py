"""What a study asks for, by file and by flag, is refused in one line, or searched, trained, read back and listed."""

from __future__ import annotations

import argparse
import dataclasses
import io
import math
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from filled_ledger import FilledLedger, make_spec, read_all
from hypothesis import event, given, settings
from hypothesis import strategies as st
from test_fuzz import FEW, anything, is_one_line, scalars, toml

import baselines
from baselines.recipe import RECIPE
from baselines.settings import Allowed, OneOf, Whole
from harness import commands
from harness.analysis.export.trials import Table, export_table
from harness.analysis.leaderboard.leaderboard import leaderboard
from harness.cli import _parser, main
from harness.errors import InputError
from harness.execution.base import Job, Place
from harness.execution.executors import LOCAL, open_workplace
from harness.execution.training.trainer import Trainer
from harness.ledger import rows
from harness.ledger.ledger import Ledger
from harness.planning.plan import time_left
from harness.planning.status import render, status
from harness.search import catalogue
from harness.search.base import NoProposal
from harness.search.factory import make_search
from harness.search.proposer import Proposer
from harness.study.new_study import allowed_for, check_new
from harness.study.records import Outcome, Trial
from harness.study.settings import Flags
from harness.study.spec import SweepSpec
from harness.study.sweep_file import load_sweep, validated
from harness.support.home import sweeps_folder

# Settings at and around the ends of what they may be

PROFILE = {"train_images": 64, "epochs": 2, "validation_images": 20, "baseline_seeds": 1, "trials": 3}
ENGINES = [("optuna", name) for name in ("tpe", "random", "qmc", "grid", "nsga2", "cmaes")] + [
    ("keras-tuner", name) for name in ("random", "grid", "hyperband")
]
HUGE = [0, -1, 2**31, 2**63, 10**23, -(10**23), 1e300, -1e300, 5e-324, 1e-9, math.nan, math.inf]
NUM_ASKS = 14  # TPE proposes at random before it has ten


def within(allowed: Allowed, default: Any) -> st.SearchStrategy[Any]:
    """What may be: at an end, next to it, or between."""
    if isinstance(allowed, OneOf):
        return st.sampled_from(allowed.options)
    if isinstance(allowed, Whole):
        between, step = st.integers(allowed.low, allowed.high), 1.0
    else:
        between, step = st.floats(allowed.low, allowed.high), 1e-12
    ends = [allowed.low, allowed.high, type(default)(allowed.low + step), type(default)(allowed.high - step), default]
    return (st.sampled_from(ends) | between).filter(allowed.__contains__)


def beyond(allowed: Allowed, default: Any) -> st.SearchStrategy[Any]:
    """What may not, and what is no value at all."""
    near = [] if isinstance(allowed, OneOf) else [allowed.low - 1, allowed.high + 1, allowed.low, allowed.high]
    return st.sampled_from([*near, *HUGE, str(default), not default, [default], {"low": default}, "x"])


@st.composite
def sound_domains(draw: st.DrawFn, allowed: Allowed, default: Any) -> dict[str, Any]:
    """As a sweep file has them, with the documented value inside."""
    values = within(allowed, default)
    if isinstance(allowed, OneOf) or draw(st.integers(0, 2)) == 0:
        options = [default, *draw(st.lists(values, max_size=3))]
        return {"values": list(dict.fromkeys(map(type(default), options)))}
    if draw(st.booleans()):
        low, high = sorted([draw(values), draw(values)])
        low, high = type(default)(min(low, default)), type(default)(max(high, default))
        return {"low": low, "high": high, **({"log": draw(st.booleans())} if low > 0 else {})}
    whole = isinstance(allowed, Whole)
    step = draw(st.integers(1, 64) if whole else st.sampled_from([0.1, 0.05, 1e-4, 1 / 3]))
    below, above = (
        min(6, max(0, math.floor(room / step - 0.01))) for room in (default - allowed.low, allowed.high - default)
    )
    return {"low": default - below * step, "high": default + draw(st.integers(0, above)) * step, "step": step}


ODD_DOMAINS = {
    "step": [0, -1, 7, 0.3, 1e-12, 1e300, True, "1"],
    "log": [True, 1, "yes"],
    "values": [[], "x", 5],
    "when": [{}, {"x": [1]}, 5, {"units_1": []}],
    "colour": [1],
}


@st.composite
def studies(draw: st.DrawFn) -> str:
    """A sweep file on digits that goes to the ends of what may be, and mostly beyond them at one place."""
    baseline = draw(st.sampled_from(baselines.NAMES))
    documented = dataclasses.asdict(baselines.load(baseline).DOCUMENTED) | dataclasses.asdict(RECIPE)
    documented["batch_size"] = 32
    allowed = {**baselines.allowed(baseline), "batch_size": Whole(1, PROFILE["train_images"])}
    names = draw(st.lists(st.sampled_from(list(allowed)), min_size=1, max_size=3, unique=True))
    recipe = {name: documented[name] for name in dataclasses.asdict(RECIPE)}
    for name in set(recipe) - set(names):
        recipe[name] = draw(st.just(recipe[name]) | within(allowed[name], recipe[name]))
    space = {name: draw(sound_domains(allowed[name], documented[name])) for name in names}
    parent, *children = names
    if children and draw(st.booleans()):
        values = space[parent].get("values") or [space[parent]["low"], space[parent]["high"]]
        space[children[0]]["when"] = {parent: draw(st.lists(st.sampled_from(values), min_size=1, max_size=2))}
    engine, sampler = draw(st.sampled_from(ENGINES))
    file: dict[str, Any] = {
        "baseline": baseline,
        "dataset": "digits",
        "engine": engine,
        "sampler": sampler,
        "pruner": "none",
        "objective": ["error"],
        "seed": draw(st.sampled_from([0, 1, 2**31 - 1])),
        "recipe": recipe,
        "space": space,
        "constraints": {"max_params": 10**6} if draw(st.booleans()) else {},
        "profiles": {"quick": dict(PROFILE)},
    }
    match draw(st.sampled_from(["sound", "sound", "sound", "end", "domain", "recipe", "profile", "key", "objective"])):
        case "end":
            key = draw(st.sampled_from(list(space[parent])))
            space[parent][key] = draw(beyond(allowed[parent], documented[parent]))
        case "domain":
            key = draw(st.sampled_from(list(ODD_DOMAINS)))
            space[parent][key] = draw(st.sampled_from(ODD_DOMAINS[key]))
        case "recipe":
            key = draw(st.sampled_from([*recipe, "momentum"]))
            recipe[key] = draw(beyond(allowed[key], recipe[key]) if key in recipe else scalars)
        case "profile":
            key = draw(st.sampled_from([*PROFILE, "budget", "device_budget", "colour"]))
            file["profiles"]["quick"][key] = draw(st.sampled_from([*HUGE, 1, 31, 5000, "2", True, 2.0, "1m", "0s"]))
        case "key":
            key = draw(st.sampled_from([*file, "patience", "max_repeats", "max_attempts", "trial_timeout", "colour"]))
            file[key] = draw(anything | st.sampled_from(HUGE))
        case "objective":
            file["objective"] = draw(
                st.sampled_from([[], ["error", "error"], ["x"], ["error", "device_time"], ["device_time"]])
            )
    return "\n".join(f"{key} = {toml(value)}" for key, value in file.items())


def make_or_refuse(content: str, folder: Path) -> SweepSpec | None:
    path = folder / "mine.toml"
    path.write_text(content)
    try:
        spec = load_sweep(path, Flags(), "quick")
        check_new(spec)
        catalogue.check(spec)
    except InputError as error:
        assert is_one_line(error), str(error)
        event("refused")
        return None
    event("accepted")
    return spec


def search_and_list(spec: SweepSpec, folder: Path) -> None:
    """What a sweep does to a study, trained by nobody; then all that is told of it."""
    path = folder / "ledger.db"
    path.unlink(missing_ok=True)
    with closing(Ledger(path)) as ledger:
        study = FilledLedger(ledger, spec)
        ledger.start_session(spec.study)
        proposer = Proposer(spec, make_search(spec), [])
        for number in range(NUM_ASKS):
            proposed = proposer.next()
            if isinstance(proposed, NoProposal):
                break
            trial = proposed.trial
            spec.search_space.validate(trial.params)
            config = dataclasses.asdict(spec.config(trial.params)) | dataclasses.asdict(spec.trial_recipe(trial.params))
            assert all(value in allowed_for(spec)[name] for name, value in config.items())
            asked = {"params": trial.params, "role": trial.role, "seed": trial.seed, "epochs": trial.epochs}
            uid = (
                study.add(outcome=Outcome.INFEASIBLE, **asked)
                if proposed.infeasible
                else study.add(5.0 - number / 10, **asked)
            )
            result = ledger.record(uid).result
            assert result is not None
            for report in result.curve:
                proposer.report(trial, report)
            proposer.tell(trial, result)
        assert ledger.study(spec.study).spec == spec
        assert leaderboard(ledger, [spec.study])["trial"].nunique() == len(ledger.history(spec.study))
        found = status(ledger, spec.study)
        render([found], io.StringIO())
        time_left(ledger, found)
        for table in Table:
            export_table(ledger, spec.study, folder / "study.json", "json", table)
    read_all(path)


@FEW
@given(content=studies())
def test_what_a_study_may_ask_for_is_searched_and_listed(content: str, tmp_path: Path) -> None:
    spec = make_or_refuse(content, tmp_path)
    if spec is not None:
        search_and_list(spec, tmp_path)


@pytest.mark.slow
@settings(FEW, max_examples=400)
@given(content=studies())
def test_many_studies_are_searched_and_listed(content: str, tmp_path: Path) -> None:
    spec = make_or_refuse(content, tmp_path)
    if spec is not None:
        search_and_list(spec, tmp_path)


@st.composite
def small_networks(draw: st.DrawFn) -> tuple[SweepSpec, dict[str, Any]]:
    """A study on digits and a configuration of it: narrow, so that it trains in a second, and else at the ends."""
    baseline = draw(st.sampled_from(baselines.NAMES))
    documented = dataclasses.asdict(baselines.load(baseline).DOCUMENTED) | dataclasses.asdict(RECIPE)
    allowed = {**baselines.allowed(baseline), "batch_size": Whole(1, PROFILE["train_images"])}
    documented["batch_size"] = 32
    params = {}
    for name, default in documented.items():
        is_width = name.startswith(("units", "dense", "filters"))
        values = st.integers(1, 16) if is_width else st.just(default) | within(allowed[name], default)
        params[name] = type(default)(draw(values))
    spec = make_spec(
        baseline=baseline,
        dataset="digits",
        recipe={name: documented[name] for name in dataclasses.asdict(RECIPE)},
        space={name: {"values": [documented[name], *({params[name]} - {documented[name]})]} for name in params},
        epochs=2,
        train_images=PROFILE["train_images"],
        validation_images=PROFILE["validation_images"],
    )
    return spec, params


def train(network: tuple[SweepSpec, dict[str, Any]], digits_folder: Path) -> None:
    spec, params = network
    check_new(spec)
    spec.search_space.validate(params)
    trainer = Trainer(spec, Place("worker-0", "a processor", threads=1, sharing=1), digits_folder)
    result = trainer.run(Job(Trial("uid", 0, params, spec.seed, spec.epochs)), lambda report: True)
    assert result.outcome in (Outcome.COMPLETED, Outcome.DIVERGED), result.error
    assert result.num_params == baselines.load(spec.baseline).cost(spec.config(params)).num_params


@settings(FEW, max_examples=3)
@given(network=small_networks())
def test_what_a_study_may_ask_for_is_trained(network: tuple[SweepSpec, dict[str, Any]], digits_folder: Path) -> None:
    train(network, digits_folder)


@pytest.mark.slow
@settings(FEW, max_examples=40)
@given(network=small_networks())
def test_what_many_studies_ask_for_is_trained(network: tuple[SweepSpec, dict[str, Any]], digits_folder: Path) -> None:
    train(network, digits_folder)


# Flags


@FEW
@given(flags=st.dictionaries(st.sampled_from(list(Flags.model_fields)), anything, max_size=3))
def test_flags_are_understood_or_refused_in_one_line(flags: dict[str, Any]) -> None:
    try:
        spec = load_sweep(sweeps_folder() / "smoke.toml", validated(Flags, flags, "command line"), "quick")
        catalogue.check(spec)
    except InputError as error:
        assert is_one_line(error), str(error)
    else:
        assert SweepSpec.model_validate_json(spec.model_dump_json()) == spec


ARGUMENTS = {
    "sweep": ["smoke"],
    "baseline": ["fc"],
    "verdict": ["nope"],
    "reproduce": ["nope", "0"],
    "predict": ["nope.png"],
    "status": [],
    "leaderboard": [],
    "compare": ["nope", "other"],
    "report": ["nope"],
    "export": ["nope"],
    "import": ["nope"],
}
OPTIONS = [
    (command, action.option_strings[-1])
    for command, parser in _parser()._subparsers._group_actions[0].choices.items()  # argparse has no public name for it
    if command in ARGUMENTS
    for action in parser._actions
    if action.option_strings and action.nargs != 0
]
words = (
    st.integers().map(str)
    | st.sampled_from(
        ["", " ", "-1", "0", "1", "-0.5", "nan", "inf", "1e400", "9" * 5000, "a\nb", "x" * 3000, "--", "\udcff"]
    )
    | st.text(st.characters(exclude_characters="\0"), max_size=20)
)


@settings(FEW, max_examples=100)
@given(option=st.sampled_from(OPTIONS), word=words)
def test_an_option_is_understood_or_refused_in_one_line_and_nothing_is_written(
    option: tuple[str, str], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a command that would run a study, all but that."""

    def check(specs: list[SweepSpec], options: argparse.Namespace) -> int:
        for spec in specs:
            check_new(spec)
            catalogue.check(spec)
            assert rows.spec(rows.spec_to_json(spec)) == spec
        commands._executor(options)
        open_workplace(LOCAL, options.workers, lambda line: None).close()
        return 0

    home = tmp_path / "home"
    monkeypatch.setenv("HARNESS_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "_run", check)
    command, flag = option
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO()):
        exit_status = main([command, *ARGUMENTS[command], f"{flag}={word}"])
    lines = said.getvalue().split("\n")
    assert exit_status in (0, 1, 2)
    assert (len(lines), lines[-1]) == (1 if exit_status == 0 else 2, "")
    assert len(lines[0]) < 1000 + 4 * len(word)  # a path is named in full
    assert not home.exists()
