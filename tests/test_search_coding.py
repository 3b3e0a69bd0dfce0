"""Codes of values, both ways."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.search.encoding import decode, encode, identity
from harness.study.records import Scalar
from harness.study.space import Choice, Domain, Float, Int, SearchSpace

DOMAINS: list[Domain] = [
    Int(3, 99),
    Int(8, 64, 8),
    Int(64, 2048, log=True),
    Float(0.0, 0.5),
    Float(1e-4, 1e-2, log=True),
    Float(0.0, 0.9, 0.1),
    Float(-1.0, 1.0, 0.25),
    Choice((False, True)),
    Choice((7, 3, 5)),
    Choice(("cosine", "constant")),
]


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
@given(data=st.data())
def test_a_value_survives_its_code(domain: Domain, data: st.DataObject) -> None:
    values = domain.values()
    assert values is not None or isinstance(domain, Float)
    value: Scalar = data.draw(st.sampled_from(values) if values else st.floats(float(domain.low), float(domain.high)))
    decoded = decode(domain, encode(domain, value))
    assert decoded in domain
    assert type(decoded) is type(value)
    assert decoded == value or math.isclose(float(decoded), float(value), rel_tol=1e-12)


def test_stepped_numbers_come_out_tidy() -> None:
    domain = Float(0.0, 0.9, 0.1)
    assert [decode(domain, i) for i in range(10)] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


@pytest.mark.parametrize(
    ("domain", "code", "value"),
    [
        (Int(64, 2048, log=True), 2049, 2048),  # KerasTuner's log range ends one too high
        (Float(1e-4, 1e-2, log=True), 0.010000000000000002, 1e-2),
        (Float(0.0, 0.5), -1e-17, 0.0),
    ],
)
def test_a_code_beyond_the_end_is_the_end(domain: Domain, code: float, value: Scalar) -> None:
    assert decode(domain, code) == value


def test_sums_that_differ_in_the_last_digit_are_one_configuration() -> None:
    space = SearchSpace({"dropout": Float(0.0, 0.5, 0.1), "batch_norm": Choice((False, True))})
    assert 0.1 * 3 != 0.3
    assert identity(space, {"dropout": 0.1 * 3, "batch_norm": True}) == identity(
        space, {"batch_norm": True, "dropout": 0.3}
    )
    assert identity(space, {"dropout": 0.3, "batch_norm": True}) != identity(
        space, {"dropout": 0.3, "batch_norm": False}
    )
