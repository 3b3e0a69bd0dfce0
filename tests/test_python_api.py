"""The harness from Python: the same functions as the command's, light to import, at home in any script."""

from __future__ import annotations

import inspect
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from filled_ledger import FilledLedger, make_spec

import harness
from baselines.recipe import Recipe
from harness import (
    InputError,
    TroubleError,
    best,
    compare,
    export_optuna,
    export_study,
    export_trials,
    import_study,
    leaderboard,
    load_baseline,
    load_sweep,
    predict,
    report,
    reproduce,
    run_sweep,
    status,
    tracking_uri,
    trials,
    verdict,
)
from harness.analysis.comparison.comparison import compare as compare_studies
from harness.analysis.leaderboard.leaderboard import leaderboard as board
from harness.api.sweeps import default_profile
from harness.ledger.ledger import Ledger
from harness.ledger.locks import study_lock
from harness.planning.status import status as status_of
from harness.study.settings import Flags
from harness.study.spec import SweepSpec
from harness.study.sweep_file import baseline_spec
from harness.study.sweep_file import load_sweep as load_as_the_command_does
from harness.support.home import sweeps_folder

# What people write: no main guard, and each call where they want it.
SCRIPT = """
from harness import load_sweep, run_sweep
try:
    run_sweep(load_sweep("smoke", trials=50, study="script"), workers=1)
except KeyboardInterrupt as error:
    print("caught:", error)
"""

IN_A_THREAD = """
import signal, threading
from harness import leaderboard, load_sweep, run_sweep
def work():
    spec = load_sweep("smoke", trials=1, study="script")
    print("end:", run_sweep(spec, quiet=True).reason.name, len(leaderboard(spec)))
thread = threading.Thread(target=work)
thread.start()
thread.join()
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


@pytest.fixture(scope="module")
def environment(
    tmp_path_factory: pytest.TempPathFactory, environment_of: Callable[[Path], dict[str, str]]
) -> dict[str, str]:
    return environment_of(tmp_path_factory.mktemp("home"))


def start(script: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-c", script],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_importing_it_loads_nothing_heavy() -> None:
    check = (
        "import sys, harness\n"
        "heavy = {'tensorflow', 'mlflow', 'optuna', 'pandas', 'numpy', 'pydantic', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import harness.workflows.verdict, harness.analysis.leaderboard.leaderboard\n"
        "assert callable(harness.verdict) and callable(harness.leaderboard), 'a module has taken its place'"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


@pytest.mark.parametrize("name", [name for name in harness.__all__ if name.islower()])
def test_each_function_is_typed_and_says_what_it_takes(name: str) -> None:
    function = getattr(harness, name)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert f"{parameter.name}: " in function.__doc__
    assert "Raises:" in function.__doc__


def test_it_tells_type_checkers_that_it_is_typed() -> None:
    assert (files("harness") / "py.typed").is_file()
    assert (files("baselines") / "py.typed").is_file()


def test_a_sweep_is_loaded_as_by_the_command(tmp_path: Path) -> None:
    smoke = sweeps_folder() / "smoke.toml"
    assert load_sweep("smoke", profile="quick") == load_as_the_command_does(smoke, Flags(), "quick")
    flags = Flags(engine="keras-tuner", sampler="random", trials=3, budget="90s", seed=7, objective=("device_time",))
    changed = load_sweep(
        smoke, engine="keras-tuner", sampler="random", trials=3, budget="90s", seed=7, objective=["device_time"]
    )
    assert changed == load_as_the_command_does(smoke, flags, "quick")
    first = tmp_path / "first.toml"
    first.write_text("[[trial]]\nunits_1 = 20\nunits_2 = 30\n")
    named = load_sweep("smoke", study="mine", enqueue=first, learn_from="other", dataset="digits", pruner="median")
    assert (named.study, named.learn_from, named.pruner) == ("mine", "other", "median")
    assert named.enqueue == ({"units_1": 20, "units_2": 30},)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"trials": 0}, "load_sweep: trials is 0; allowed: greater than or equal to 1"),
        ({"engine": "hyperopt"}, "load_sweep: engine is 'hyperopt'; allowed: 'optuna' or 'keras-tuner'"),
        ({"enqueue": 3}, "load_sweep: enqueue is 3; allowed: a path"),
        ({"objective": 3}, "load_sweep: objective is 3; allowed: a valid tuple"),
        ({"objective": "error"}, "load_sweep: objective is 'error'; allowed: a valid tuple"),
        ({"budget": "soon"}, "budget: duration is 'soon'; allowed:"),
        ({"sampler": "tpee"}, "sampler is 'tpee'; allowed with engine optuna: tpe,"),
        ({"pruner": "xx"}, "pruner is 'xx'; allowed: none, median"),
        ({"engine": "keras-tuner", "pruner": "median"}, "pruner is median with engine keras-tuner; allowed: none"),
        ({"sampler": "cmaes", "objective": ["error", "device_time"]}, "minimises one objective"),
        ({"learn_from": "other", "sampler": "grid"}, "sampler grid "),
        ({"sweep": "nope"}, "sweep is 'nope', which is not there; allowed: a TOML file or one of cnn"),
    ],
)
def test_wrong_input_is_one_line(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_sweep(**({"sweep": "smoke"} | wrong))  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two studies in its ledger, of a trial each."""
    home = tmp_path_factory.mktemp("filled")
    with closing(Ledger(home / "ledger.db")) as ledger:
        FilledLedger(ledger, make_spec("tpe")).add(3.0)
        FilledLedger(ledger, make_spec("random", sampler="random")).add(4.0)
    return home


def test_leaderboards_by_name_by_spec_and_of_all_studies(filled: Path) -> None:
    with closing(Ledger(filled / "ledger.db")) as ledger:
        one, both = board(ledger, ["tpe"]), board(ledger, ["tpe", "random"])
        spec = ledger.study("tpe").spec
    assert leaderboard("tpe", home=filled).equals(one)
    assert leaderboard(spec, home=str(filled)).equals(one)
    assert leaderboard(home=filled).equals(both)
    with pytest.raises(InputError, match="study is 'nope'; allowed: tpe, random"):
        leaderboard("nope", home=filled)


def test_studies_are_compared_as_by_the_command(filled: Path) -> None:
    with closing(Ledger(filled / "ledger.db")) as ledger:
        expected, spec = compare_studies(ledger, ["tpe", "random"]), ledger.study("random").spec
    found = compare("tpe", spec, home=filled)
    assert found.table.equals(expected.table)
    assert list(found.table["method"]) == ["optuna tpe", "optuna random"]
    assert found.curves.equals(expected.curves)


def test_what_the_command_reads_python_reads(filled: Path, tmp_path: Path) -> None:
    with closing(Ledger(filled / "ledger.db")) as ledger:
        spec, record = ledger.study("tpe").spec, ledger.history("tpe")[-1]
        expected = status_of(ledger, "tpe")
    (found,) = status("tpe", home=filled)
    assert replace(found, time_left=None, elsewhere=None) == expected
    assert [one.study for one in status(home=filled)] == ["tpe", "random"]
    table = trials(spec, home=filled)
    assert list(table["uid"]) == [record.trial.uid]
    assert list(trials(spec, epochs=True, home=filled)["epoch"]) == [report.epoch for report in record.result.curve]
    export_trials(spec, tmp_path / "t.csv", home=filled)
    assert pd.read_csv(tmp_path / "t.csv")["uid"].tolist() == [record.trial.uid]
    assert export_optuna("tpe", f"sqlite:///{tmp_path / 'optuna.db'}", home=filled) == 1
    with pytest.raises(InputError, match=r"file is 't\.xls'; allowed: a name that ends in \.csv, \.parquet, \.json"):
        export_trials(spec, "t.xls", home=filled)
    page = report(spec, tmp_path / "page.html", home=shutil.copytree(filled, tmp_path / "home"))
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert tracking_uri(filled) == f"sqlite:///{filled / 'mlflow.db'}"


def test_the_best_configuration_has_all_settings_of_its_network(filled: Path) -> None:
    with closing(Ledger(filled / "ledger.db")) as ledger:
        spec, record = ledger.study("tpe").spec, ledger.history("tpe")[-1]
    found = best("tpe", home=filled)
    assert spec.architecture.Config(**found.config) == spec.config(record.trial.params)
    assert Recipe(**found.recipe) == spec.trial_recipe(record.trial.params)
    assert (found.trial, found.error_rate_pct, found.num_seeds) == (record.trial.number, 3.0, 1)


def test_a_study_without_a_result_has_no_best(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        FilledLedger(ledger, make_spec())
    with pytest.raises(InputError, match="study study has no searched trial that was trained to the end yet"):
        best("study", home=tmp_path)


def test_a_baseline_is_loaded_as_by_the_command() -> None:
    expected = baseline_spec("fc", Flags(dataset="digits", seed=3), 2, default_profile())
    assert load_baseline("fc", dataset="digits", seed=3, seeds=2) == expected
    with pytest.raises(InputError, match=r"baseline is 'resnet'; allowed: 'cnn', 'fc'"):
        load_baseline("resnet")


def test_pictures_and_trials_are_named_in_errors(filled: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="images are none; allowed: one or more PNG files"):
        predict(home=filled)
    with pytest.raises(InputError, match=r"^no champion is registered yet; "):
        predict(tmp_path / "a.png", home=tmp_path)
    with pytest.raises(InputError, match="study is 'nope'; allowed: tpe, random"):
        reproduce("nope", 0, home=filled, quiet=True)


def test_home_is_where_it_is_told_or_where_the_environment_says(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(filled))
    assert len(leaderboard("tpe")) == 1
    with pytest.raises(InputError, match="none yet"):
        leaderboard("tpe", home=tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^home is '.*/file', which is a file"):
        leaderboard("tpe", home=tmp_path / "file")


def test_trouble_is_trouble(smoke: SweepSpec, digits_folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(digits_folder.parent))
    with study_lock(tmp_path, smoke.study), pytest.raises(TroubleError, match="is in use by process"):
        run_sweep(smoke, home=tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: verdict("tpe", top="1"), "--top is '1'; allowed: 1 to"),
        (lambda: verdict("tpe", top=True), "--top is True; allowed: 1 to"),
        (lambda: verdict("tpe", epochs=1.5), "--epochs is 1.5; allowed: 1 to"),
        (lambda: leaderboard("tpe", 3), "study is 3; allowed: a name, or what load_sweep gives"),
        (lambda: best(None), "study is None; allowed: a name"),
        (lambda: reproduce("tpe", "0", quiet=True), "trial is '0'; allowed in tpe: 0 to 0"),
        (lambda: reproduce("tpe", False, quiet=True), "trial is False; allowed in tpe: 0 to 0"),
        (lambda: report("tpe", 3), "file is 3; allowed: a path"),
        (lambda: export_trials("tpe", b"trials.csv"), "file is b'trials.csv'; allowed: a path"),
        (lambda: export_study("tpe", 3), "file is 3; allowed: a path"),
        (lambda: import_study(3), "file is 3; allowed: a path"),
        (lambda: predict([]), "images is []; allowed: a path"),
        (lambda: status(home=3), "home is '3'"),
    ],
)
def test_a_wrong_type_is_one_line(
    filled: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[], object], message: str
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(filled))
    with pytest.raises(InputError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_verdict_asks_what_the_command_asks(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        spec = FilledLedger(ledger, make_spec()).spec
    with pytest.raises(InputError, match="study study has no searched trial that was trained in full"):
        verdict(spec, home=tmp_path, quiet=True)
    with pytest.raises(InputError, match="--seeds is 4; allowed: 3, 5, 8, 12, 20"):
        verdict("study", seeds=4, home=tmp_path)
    with pytest.raises(InputError, match="budget is 'soon'"):
        verdict("study", budget="soon", home=tmp_path)


def test_an_interrupted_verdict_stops_the_script(monkeypatch: pytest.MonkeyPatch, filled: Path) -> None:
    interrupted = SimpleNamespace(was_interrupted=True)
    monkeypatch.setattr("harness.workflows.verdict.run_verdict", lambda *how, **more: interrupted)
    with pytest.raises(KeyboardInterrupt, match="tpe was interrupted; nothing is lost, and the same call continues"):
        verdict("tpe", home=filled)


def test_a_script_is_interrupted_and_another_goes_on_in_a_thread(environment: dict[str, str]) -> None:
    with start(SCRIPT, environment) as process:
        while "started" not in (line := process.stdout.readline()):
            assert line, "the sweep ended before its first trial"
        process.send_signal(signal.SIGINT)
        output = process.stdout.read()
    assert process.returncode == 0
    assert "\x1b" not in output
    assert "stopping: running trials end with their epoch" in output
    assert output.endswith("caught: script was interrupted; nothing is lost, and the same call continues from here\n")
    with start(IN_A_THREAD, environment) as process:  # where no signal can be heard
        output = process.stdout.read()
    assert (process.returncode, output) == (0, "end: TRIALS 3\n")


def test_a_name_in_the_place_of_a_study_is_refused() -> None:
    with pytest.raises(InputError, match=r"^spec is 'smokee'; allowed: what load_sweep or load_baseline gives$"):
        harness.run_sweep("smokee")  # type: ignore[arg-type]
