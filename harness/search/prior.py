"""Proposals near the documented configuration, for all engines, mostly early in a study.

A search around a network that is known to be good need not begin with random points of the whole space. A share of the
proposals is drawn from a distribution around the documented values, wide enough to leave them. The share falls with the
number of trials, so that evidence replaces the prior: C. Hvarfner et al., "piBO: Augmenting Acquisition Functions with
User Beliefs for Bayesian Optimization", ICLR 2022; N. Mallik et al., "PriorBand: Practical Hyperparameter Optimization
in the Age of Deep Learning", NeurIPS 2023.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from harness.study.records import Params, Scalar
from harness.study.space import Choice, Domain, SearchSpace

WIDTH = 0.25  # standard deviation of a number around the documented one, as a share of its range
FADES_AFTER = 5  # trials: then half of the proposals are the search's own
OTHER_CHOICE = 0.5  # weight of each other choice, relative to the documented one


def share(num_trials: int) -> float:
    """The share of the next proposals that is drawn from the prior, after this number of trials."""
    return FADES_AFTER / (FADES_AFTER + num_trials)


def draw(space: SearchSpace, centre: Params, rng: random.Random) -> dict[str, Scalar]:
    """A configuration near `centre`; a hyperparameter that has no value there is drawn from its whole range."""
    params: dict[str, Scalar] = {}
    for name, domain in space.domains.items():
        if space.is_active(name, params):
            params[name] = _near(domain, centre[name], rng) if name in centre else domain.sample(rng)
    return params


def _near(domain: Domain, centre: Scalar, rng: random.Random) -> Scalar:
    """By rejection, so that values have the spacing of the domain."""
    while True:
        value = domain.sample(rng)
        if rng.random() < _weight(domain, value, centre):
            return value


def _weight(domain: Domain, value: Scalar, centre: Scalar) -> float:
    if isinstance(domain, Choice):
        return 1.0 if value == centre else OTHER_CHOICE
    scale: Callable[[float], float] = math.log if domain.log else float
    size = scale(domain.high) - scale(domain.low) or 1.0
    distance = (scale(float(value)) - scale(float(centre))) / size
    return math.exp(-0.5 * (distance / WIDTH) ** 2)
