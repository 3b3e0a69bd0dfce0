"""Limits on a configuration, checked in closed form before any device time is spent."""

from __future__ import annotations

import random
from collections.abc import Iterator

from harness.errors import InputError
from harness.study.records import Params
from harness.study.spec import SweepSpec

NUM_SAMPLES = 1000


def broken_limit(spec: SweepSpec, params: Params) -> str | None:
    """One line about the limit that a configuration exceeds most; None if it exceeds none."""
    name, value, limit = max(_costs(spec, params), key=lambda cost: cost[1] / cost[2], default=("", 0.0, 1.0))
    return f"{name} is {_shown(limit)}, this configuration needs {_shown(value)}" if value > limit else None


def excess(spec: SweepSpec, params: Params) -> float:
    """The largest relative excess of a configuration over a limit; at most 0 if it exceeds none."""
    return max((value / limit - 1 for _, value, limit in _costs(spec, params)), default=0.0)


def check_limits(spec: SweepSpec) -> None:
    """Raises InputError if none of `NUM_SAMPLES` random configurations of the space keeps the limits."""
    limits = spec.constraints.model_dump(exclude_none=True)
    rng = random.Random(0)  # noqa: S311 - no secret
    samples = (spec.search_space.sample(rng) for _ in range(NUM_SAMPLES))
    if limits and all(broken_limit(spec, params) for params in samples):
        shown = ", ".join(f"{name} = {_shown(limit)}" for name, limit in limits.items())
        raise InputError(
            f"constraints are {shown}, which none of {NUM_SAMPLES} random configurations of the space keeps;"
            " allowed: limits that leave something to try"
        )


def _costs(spec: SweepSpec, params: Params) -> Iterator[tuple[str, float, float]]:
    """(limit's name, the configuration's value, the limit) for each limit that is set."""
    limits = spec.constraints
    if limits == type(limits)():
        return
    cost = spec.cost(params)
    if limits.max_params is not None:
        yield "max_params", cost.num_params, limits.max_params
    if limits.max_mflops_per_image is not None:
        yield "max_mflops_per_image", cost.flops_per_image / 1e6, limits.max_mflops_per_image
    if limits.max_memory_mb is not None:
        batch_size = spec.trial_recipe(params).batch_size
        yield "max_memory_mb", cost.training_memory_mb(batch_size), limits.max_memory_mb


def _shown(number: float) -> str:
    return f"{number:,.3f}".rstrip("0").rstrip(".")
