"""Limits, and the closed forms behind them against what Keras builds."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated_study import simulated_spec

import baselines
from baselines.settings import Allowed, OneOf, Whole, declared
from harness.errors import InputError
from harness.search.constraints import broken_limit, check_limits, excess

DOCUMENTED = {"units_1": 512, "units_2": 512}
SPACE = {"units_1": {"low": 16, "high": 2048, "log": True}, "units_2": {"low": 16, "high": 2048, "log": True}}


def values(allowed: Allowed) -> st.SearchStrategy[Any]:
    """Few enough that a network of them is built at once."""
    if isinstance(allowed, Whole):
        return st.integers(allowed.low, min(allowed.high, 300))
    return st.sampled_from(allowed.options) if isinstance(allowed, OneOf) else st.sampled_from([0.0, 0.3])


@pytest.mark.parametrize("baseline", baselines.NAMES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(data=st.data())
def test_costs_are_those_of_the_network_that_keras_builds(baseline: str, data: st.DataObject) -> None:
    architecture = baselines.load(baseline)
    allowed = declared(type(architecture.DOCUMENTED))
    config = architecture.Config(**{name: data.draw(values(one), label=name) for name, one in allowed.items()})
    model, cost = architecture.build(config), architecture.cost(config)
    assert cost.num_params == model.count_params()
    assert cost.flops_per_image == sum(flops(layer) for layer in model.layers)
    assert cost.activations_per_image == sum(activations(layer) for layer in model.layers)


def flops(layer: Any) -> int:
    """A multiply and an add for each weight of a kernel at each position of the output."""
    if not hasattr(layer, "kernel"):
        return 0
    positions = math.prod(layer.output.shape[1:-1])
    return 2 * positions * math.prod(layer.kernel.shape)


def activations(layer: Any) -> int:
    """Outputs of what computes: kernels and normalisations."""
    computes = hasattr(layer, "kernel") or type(layer).__name__ == "BatchNormalization"
    return math.prod(layer.output.shape[1:]) if computes else 0


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ({}, None),
        ({"max_params": 669_706, "max_mflops_per_image": 1.4, "max_memory_mb": 20.0}, None),
        ({"max_params": 669_705}, "max_params is 669,705, this configuration needs 669,706"),
        ({"max_mflops_per_image": 1.3}, "max_mflops_per_image is 1.3, this configuration needs 1.337"),
        ({"max_memory_mb": 5.0}, "max_memory_mb is 5, this configuration needs 11.229"),
        # The one that is exceeded most is named.
        ({"max_params": 600_000, "max_memory_mb": 1.0}, "max_memory_mb is 1, this configuration needs 11.229"),
    ],
)
def test_the_documented_network_against_limits(constraints: dict[str, float], message: str | None) -> None:
    spec = simulated_spec(space=SPACE, constraints=constraints)
    assert broken_limit(spec, DOCUMENTED) == message
    assert (excess(spec, DOCUMENTED) > 0) is (message is not None)


def test_memory_grows_with_the_searched_batch_size() -> None:
    spec = simulated_spec(space=SPACE | {"batch_size": {"values": [128, 4096]}}, constraints={"max_memory_mb": 30.0})
    assert broken_limit(spec, DOCUMENTED | {"batch_size": 128}) is None
    assert broken_limit(spec, DOCUMENTED | {"batch_size": 4096}) is not None


def test_excess_says_by_how_much() -> None:
    spec = simulated_spec(space=SPACE, constraints={"max_params": 334_853})
    assert excess(spec, DOCUMENTED) == pytest.approx(1.0)


def test_limits_that_leave_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="max_params = 10, max_memory_mb = 7, which none of 1000 random"):
        check_limits(simulated_spec(space=SPACE, constraints={"max_params": 10, "max_memory_mb": 7.0}))
    check_limits(simulated_spec(space=SPACE, constraints={"max_params": 100_000}))
