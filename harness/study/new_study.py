"""Checks of a new study: settings of the networks and of the recipe, with the study's images.

Only new studies are checked here. Earlier versions checked less, and their studies in a ledger stay readable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import get_args

from baselines.settings import Allowed, Whole
from harness.errors import InputError
from harness.study.records import Scalar
from harness.study.settings import Objective
from harness.study.space import TOLERANCE, Choice, Domain, Float
from harness.study.spec import SweepSpec
from harness.support.strict_json import shown


def check_new(spec: SweepSpec) -> None:
    """Checks a new study; to be called before anything is written.

    Raises:
        InputError: one line that names the setting, its value and what is allowed.
    """
    allowed = allowed_for(spec)
    for name, value in spec.recipe.items():
        _check(f"recipe.{name}", [value], allowed[name])
    domains = spec.search_space.domains
    for name, domain in domains.items():
        _check(f"space.{name}", _extremes(domain), allowed[name])
        _check_steps(name, domain)
        _check_condition(name, domain, domains)
    if len(set(spec.objective)) != len(spec.objective) or not spec.objective:
        known = ", ".join(get_args(Objective))
        raise InputError(f"objective is {shown(list(spec.objective))}; allowed: one or more of {known}, each once")


def allowed_for(spec: SweepSpec) -> dict[str, Allowed]:
    """The allowed values of each setting of the study's networks and of their recipe."""
    batch_size = Whole(1, spec.train_images, "the number of training images")
    return {**spec.allowed, "batch_size": batch_size}


def _check(key: str, values: Iterable[Scalar], allowed: Allowed) -> None:
    for value in values:
        if value not in allowed:
            raise InputError(f"{key} is {shown(value)}; allowed: {allowed}")


def _extremes(domain: Domain) -> tuple[Scalar, ...]:
    """Values of the domain; if these are allowed, all of its values are."""
    return domain.options if isinstance(domain, Choice) else (domain.low, domain.high)


def _check_steps(name: str, domain: Domain) -> None:
    if not isinstance(domain, Float) or domain.step is None:
        return
    least = TOLERANCE * max(abs(domain.low), abs(domain.high))
    if domain.step < least:
        raise InputError(f"space.{name}: step is {domain.step}; allowed: at least {least:g}, or values would be equal")


def _check_condition(name: str, domain: Domain, domains: Mapping[str, Domain]) -> None:
    for parent in domain.when:
        if domains[parent].values() is None:
            raise InputError(
                f"space.{name}: when names {parent}, which is any of the {domains[parent]};"
                " allowed: one with a step or with values, since no real number comes up twice"
            )
