"""Finds a study's sampler, and checks that its settings can be combined. Imports no engine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from harness.errors import InputError
from harness.search.constraints import check_limits
from harness.search.samplers import PRUNERS, SAMPLERS, Pruner, Sampler
from harness.study.settings import Engine
from harness.study.space import Choice, Float, SpaceError
from harness.study.spec import SweepSpec
from harness.support.strict_json import shown

# What to install for a module, by the extra's name.
_EXTRAS = {"cmaes": "cmaes", "torch": "gp"}


def sampler(spec: SweepSpec) -> Sampler:
    """The study's sampler.

    Raises:
        InputError: the engine has none of that name.
    """
    for entry in _of_engine(spec.engine):
        if entry.name == spec.sampler:
            return entry
    known = ", ".join(entry.name for entry in _of_engine(spec.engine))
    raise InputError(f"sampler is {shown(spec.sampler)}; allowed with engine {spec.engine}: {known}")


def check(spec: SweepSpec) -> None:
    """Checks that the study's settings can be combined; to be called before anything is written.

    Raises:
        InputError: one line that names both sides and what is allowed.
    """
    if not spec.is_search:
        return  # the documented configuration alone: nothing is searched
    chosen = sampler(spec)
    problem = next(_problems(chosen, spec), None)
    if problem:
        able = [entry.name for entry in _of_engine(spec.engine) if next(_problems(entry, spec), None) is None]
        raise InputError(f"sampler {chosen.name} {problem}; allowed here: {', '.join(able) or 'none'}")
    _check_module(chosen)
    _check_pruner(chosen, spec)
    _check_known_trials(spec)
    check_limits(spec)


def _of_engine(engine: Engine) -> list[Sampler]:
    return [entry for entry in SAMPLERS if entry.engine == engine]


def _problems(entry: Sampler, spec: SweepSpec) -> Iterator[str]:
    """What the sampler cannot do of what the study asks."""
    domains = spec.search_space.domains
    if len(set(spec.objective)) > 1 and not entry.two_objectives:
        yield f"of {entry.engine} minimises one objective, and objective is {', '.join(spec.objective)}"
    if spec.epochs < entry.min_epochs:
        yield f"needs at least {entry.min_epochs} epochs, and the profile has {spec.epochs}"
    if entry.min_epochs > 1 and spec.objective != ("error",):
        yield f"stops trials by their error, and objective is {', '.join(spec.objective)}"
    for name, domain in domains.items():
        if entry.finite_only and isinstance(domain, Float) and domain.values() is None:
            yield f"cannot list real numbers, and {name} is {domain} without a step"
        if not entry.categories and isinstance(domain, Choice):
            yield f"searches numbers only, and {name} is {domain}"
        if not entry.conditional and domain.when:
            yield f"cannot search conditional spaces, and {name} depends on {', '.join(domain.when)}"
    if spec.learn_from is not None and not entry.learns_from_others:
        yield f"learns nothing from another study's trials, and learn_from is {spec.learn_from}"


def _check_module(chosen: Sampler) -> None:
    if chosen.engine == "keras-tuner" and importlib.util.find_spec("keras_tuner") is None:
        raise InputError("engine is keras-tuner, which is not installed; allowed here: optuna")
    if chosen.module is not None and importlib.util.find_spec(chosen.module) is None:
        extra = _EXTRAS[chosen.module]
        raise InputError(
            f"sampler {chosen.name} needs {chosen.module}, which is not installed;"
            f" install the extra, .venv/bin/python -m pip install -e '.[{extra}]', or choose another sampler"
        )


def _check_pruner(chosen: Sampler, spec: SweepSpec) -> None:
    if spec.engine == "keras-tuner" and spec.pruner != "none":
        raise InputError(
            f"pruner is {spec.pruner} with engine keras-tuner; allowed: none (its sampler hyperband stops trials)"
        )
    pruner = next((entry for entry in PRUNERS if entry.name == spec.pruner), None)
    if pruner is None:
        raise InputError(f"pruner is {shown(spec.pruner)}; allowed: {', '.join(entry.name for entry in PRUNERS)}")
    if len(set(spec.objective)) < len(spec.objective):
        raise InputError(f"objective is {', '.join(spec.objective)}; allowed: each objective once")
    if pruner.name == "none":
        if spec.patience:
            raise InputError(f"patience is {spec.patience} with pruner none; allowed: 0, or another pruner")
        return
    if spec.objective != ("error",):
        raise InputError(
            f"pruner is {pruner.name} with objective {', '.join(spec.objective)}; allowed: pruner none, since a trial"
            " can be stopped early by its error alone only"
        )
    _check_pruner_fits(pruner, chosen, spec)


def _check_pruner_fits(pruner: Pruner, chosen: Sampler, spec: SweepSpec) -> None:
    if spec.epochs < pruner.min_epochs:
        raise InputError(
            f"pruner {pruner.name} needs at least {pruner.min_epochs} epochs, and the profile has {spec.epochs};"
            " allowed here: none"
        )
    if pruner.brackets and chosen.is_replayed:
        raise InputError(
            f"pruner is {pruner.name} with sampler {chosen.name}; allowed: another pruner, since {pruner.name} shows"
            f" the sampler its trials in parts and {chosen.name} keeps one sequence of them, or sampler tpe"
        )
    # A pruner's patience needs patience + 2 epochs, and after the last epoch there is nothing to stop.
    if spec.patience > max(0, spec.epochs - 3):
        raise InputError(
            f"patience is {spec.patience} with {spec.epochs} epochs, so nothing would ever be stopped;"
            f" allowed: at most {max(0, spec.epochs - 3)}"
        )


def _check_known_trials(spec: SweepSpec) -> None:
    if spec.learn_from is not None and "device_time" in spec.objective:
        raise InputError(
            f"learn_from is {spec.learn_from} with objective {', '.join(spec.objective)}; allowed: objective error,"
            " since times of another study may be another device's"
        )
    for position, params in enumerate(spec.enqueue, start=1):
        try:
            spec.search_space.validate(params)
        except SpaceError as error:
            raise InputError(f"enqueued trial {position}: {error}") from None
