"""What each sampler can do, and what is refused before anything runs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from simulated_study import CONDITIONAL, MIXED, NUMBERS, STEPPED, simulated_spec

from harness.errors import InputError
from harness.search import catalogue
from harness.search.base import NoProposal
from harness.search.factory import make_search
from harness.search.samplers import PRUNERS, SAMPLERS

REFUSED = [
    (
        {"sampler": "annealing"},
        "sampler is 'annealing'; allowed with engine optuna: tpe, random, qmc, grid, nsga2, cmaes, gp",
    ),
    (
        {"engine": "keras-tuner", "sampler": "tpe"},
        "sampler is 'tpe'; allowed with engine keras-tuner: random, bayesian, hyperband, grid",
    ),
    (
        {"sampler": "cmaes"},
        "sampler cmaes searches numbers only, and batch_norm is one of False, True;"
        " allowed here: tpe, random, qmc, nsga2, gp",
    ),
    (
        {"sampler": "grid"},
        "sampler grid cannot list real numbers, and dropout is numbers 0.0 to 0.5 without a step;"
        " allowed here: tpe, random, qmc, nsga2, gp",
    ),
    (
        {"sampler": "qmc", "space": CONDITIONAL},
        "sampler qmc cannot search conditional spaces, and units_2 depends on layers; allowed here: tpe, random, grid",
    ),
    (
        {"sampler": "cmaes", "space": NUMBERS, "objective": ("error", "device_time")},
        "sampler cmaes of optuna minimises one objective, and objective is error, device_time;"
        " allowed here: tpe, random, qmc, nsga2, gp",
    ),
    (
        {"engine": "keras-tuner", "sampler": "random", "objective": ("error", "device_time")},
        "sampler random of keras-tuner minimises one objective, and objective is error, device_time;"
        " allowed here: none",
    ),
    (
        {"engine": "keras-tuner", "sampler": "hyperband", "epochs": 1},
        "sampler hyperband needs at least 2 epochs, and the profile has 1; allowed here: random, bayesian, grid",
    ),
    (
        {"engine": "keras-tuner", "sampler": "hyperband", "objective": ("device_time",)},
        "sampler hyperband stops trials by their error, and objective is device_time;"
        " allowed here: random, bayesian, grid",
    ),
    (
        {"sampler": "random", "learn_from": "yesterday"},
        "sampler random learns nothing from another study's trials, and learn_from is yesterday;"
        " allowed here: tpe, nsga2, gp",
    ),
    (
        {"engine": "keras-tuner", "sampler": "random", "pruner": "median"},
        "pruner is median with engine keras-tuner; allowed: none (its sampler hyperband stops trials)",
    ),
    (
        {"pruner": "harsh"},
        "pruner is 'harsh'; allowed: none, median, percentile, successive_halving, hyperband",
    ),
    (
        {"pruner": "median", "objective": ("error", "device_time")},
        "pruner is median with objective error, device_time; allowed: pruner none, since a trial can be stopped early"
        " by its error alone only",
    ),
    ({"objective": ("error", "error")}, "objective is error, error; allowed: each objective once"),
    (
        {"pruner": "hyperband", "epochs": 1},
        "pruner hyperband needs at least 2 epochs, and the profile has 1; allowed here: none",
    ),
    (
        {"pruner": "hyperband", "sampler": "nsga2"},
        "pruner is hyperband with sampler nsga2; allowed: another pruner, since hyperband shows the sampler its trials"
        " in parts and nsga2 keeps one sequence of them, or sampler tpe",
    ),
    ({"patience": 2}, "patience is 2 with pruner none; allowed: 0, or another pruner"),
    (
        {"pruner": "median", "patience": 3},
        "patience is 3 with 5 epochs, so nothing would ever be stopped; allowed: at most 2",
    ),
    (
        {"learn_from": "yesterday", "objective": ("error", "device_time")},
        "learn_from is yesterday with objective error, device_time; allowed: objective error, since times of another"
        " study may be another device's",
    ),
    (
        {"space": NUMBERS, "enqueue": [{"units_1": 512, "dropout": 0.0}, {"units_1": 4096, "dropout": 0.0}]},
        "enqueued trial 2: units_1 is 4096; allowed: whole numbers 64 to 2048",
    ),
    (
        {"constraints": {"max_params": 1000}},
        "constraints are max_params = 1,000, which none of 1000 random configurations of the space keeps;"
        " allowed: limits that leave something to try",
    ),
]


LISTED = {
    *(("optuna", name) for name in ("tpe", "random", "qmc", "grid", "nsga2", "cmaes", "gp")),
    *(("keras-tuner", name) for name in ("random", "bayesian", "hyperband", "grid")),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_does_not_go_together_is_refused(
    settings: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The messages list the samplers that can do it; of these, so that a further one changes no message."""
    known = [entry for entry in SAMPLERS if (entry.engine, entry.name) in LISTED]
    monkeypatch.setattr(catalogue, "SAMPLERS", known)
    with pytest.raises(InputError) as refused:
        catalogue.check(simulated_spec(**settings))
    assert str(refused.value) == message


def test_a_missing_module_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for sampler, module, extra in (("gp", "torch", "gp"), ("cmaes", "cmaes", "cmaes")):
        with pytest.raises(InputError) as refused:
            catalogue.check(simulated_spec(sampler=sampler, space=NUMBERS))
        assert str(refused.value) == (
            f"sampler {sampler} needs {module}, which is not installed; install the extra,"
            f" .venv/bin/python -m pip install -e '.[{extra}]', or choose another sampler"
        )


@pytest.mark.parametrize("pruner", [pruner.name for pruner in PRUNERS])
@pytest.mark.parametrize("patience", [0, 2])
def test_pruners_go_with_tpe(pruner: str, patience: int) -> None:
    spec = simulated_spec(pruner=pruner, patience=0 if pruner == "none" else patience)
    catalogue.check(spec)
    make_search(spec)


def test_each_sampler_is_listed_once_and_says_what_for() -> None:
    names = [(sampler.engine, sampler.name) for sampler in SAMPLERS]
    assert len(set(names)) == len(names)
    assert all(entry.properties for entry in (*SAMPLERS, *PRUNERS))


def test_a_study_without_a_space_needs_no_engine() -> None:
    spec = simulated_spec(space={}, sampler="whatever", engine="keras-tuner", pruner="median")
    catalogue.check(spec)
    assert make_search(spec).ask("uid", 0, 0) is NoProposal.EXHAUSTED


def test_stepped_numbers_can_be_listed() -> None:
    catalogue.check(simulated_spec(sampler="grid", space=STEPPED))
    with pytest.raises(InputError):
        catalogue.check(simulated_spec(sampler="grid", space=MIXED))


def test_checking_imports_no_engine() -> None:
    code = (
        "import sys, harness.search.catalogue, harness.search.proposer, harness.search.warm_start;"
        "print([name for name in ('optuna', 'keras_tuner', 'tensorflow', 'scipy', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
