import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.study.space import Choice, Domain, Float, Int, SearchSpace, SpaceError, domain_from_toml

ints = st.builds(
    lambda low, count, step: Int(low, low + count * step, step),
    st.integers(-50, 50),
    st.integers(0, 20),
    st.integers(1, 7),
)
log_ints = st.builds(lambda low, width: Int(low, low + width, log=True), st.integers(1, 100), st.integers(0, 1000))
floats = st.builds(lambda low, width: Float(low, low + width), st.floats(-5, 5), st.floats(0, 5))
stepped = st.builds(lambda low, count: Float(low, low + count * 0.1, 0.1), st.floats(0, 1), st.integers(0, 9))
choices = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5, unique=True).map(
    lambda options: Choice(tuple(options))
)
domains = st.one_of(ints, log_ints, floats, stepped, choices)


@given(domains, st.integers())
def test_samples_are_in_their_domain(domain: Domain, seed: int) -> None:
    assert domain.sample(random.Random(seed)) in domain


@given(domains)
def test_listed_values_are_in_their_domain_and_distinct(domain: Domain) -> None:
    values = domain.values() or ()
    assert all(value in domain for value in values)
    assert len(set(values)) == len(values)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"low": 5, "high": 1}, "range 5 to 1 is empty"),
        ({"low": 1, "high": 10, "step": 4}, "high is 10; allowed: low 1 plus a multiple of step 4"),
        ({"low": 0, "high": 10, "log": True}, "low is 0 with log = true; allowed: more than 0"),
        ({"low": 1, "high": 9, "step": 2, "log": True}, "step is 2 with log = true"),
        ({"low": 0.0, "high": 1.0, "step": -0.5}, "step is -0.5; allowed: more than 0"),
        ({"low": 0.0, "high": math.inf}, "allowed: finite numbers"),
        ({"low": True, "high": 2}, "low is True; allowed: a number"),
        ({"low": None, "high": 2}, "low is None; allowed: a number"),
        ({"low": 1, "high": 2, "log": 1}, "log is 1; allowed: true or false"),
        ({"low": 1}, "keys are 'low'; allowed: low, high, step, log (a range) or values (a choice)"),
        ({"low": 1, "high": 2, "stpe": 1}, "keys are 'stpe'; allowed"),
        ({"values": []}, "values is empty"),
        ({"values": [1, 1]}, "each value once"),
        ({"values": [1, "a"]}, "values of one type"),
        (
            {"values": [512, 10**23]},
            "values is [512, 100000000000000000000000]; allowed: numbers of at most 64 bits",
        ),
        ({}, "keys are nothing; allowed"),
    ],
)
def test_wrong_domains_say_what_is_allowed(data: dict, message: str) -> None:
    with pytest.raises(SpaceError) as error:
        domain_from_toml(data)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_domains_are_read_by_the_type_of_their_numbers() -> None:
    assert domain_from_toml({"low": 1, "high": 3}) == Int(1, 3)
    assert domain_from_toml({"low": 0, "high": 0.5}) == Float(0.0, 0.5)
    assert domain_from_toml({"values": [3, 5]}) == Choice((3, 5))
    assert domain_from_toml({"values": [3], "when": {"a": 1}}) == Choice((3,), {"a": (1,)})


@pytest.fixture
def conditional() -> SearchSpace:
    return SearchSpace(
        {
            "layers": Int(1, 3),
            "units_2": Choice((8, 16), {"layers": (2, 3)}),
            "units_3": Int(4, 5, when={"layers": (3,)}),
        }
    )


def test_samples_of_a_conditional_space_are_its_configurations(conditional: SearchSpace) -> None:
    rng = random.Random(0)
    samples = [conditional.sample(rng) for _ in range(200)]
    for params in samples:
        conditional.validate(params)
    grid = [tuple(params.items()) for params in conditional.grid()]
    assert sorted(grid) == sorted({tuple(params.items()) for params in samples})
    assert len(grid) == 1 + 2 + 2 * 2


@given(
    st.integers(-20, 20),
    st.integers(1, 40),
    st.sampled_from([0.1, 0.05, 0.25, 0.3, 1 / 3, 1e-4]),
    st.data(),
)
def test_a_value_with_a_step_is_one_value_whoever_computed_it(
    start: int, num_steps: int, step: float, data: st.DataObject
) -> None:
    low = start * step
    domain = Float(low, low + num_steps * step, step)
    position = data.draw(st.integers(0, num_steps))
    listed = (domain.values() or ())[position]
    summed = low
    for _ in range(position):
        summed += step
    computed = [
        listed,
        low + position * step,
        summed,
        float(f"{listed:.12g}"),
        math.nextafter(listed, math.inf),
        math.nextafter(listed, -math.inf),
        domain.high - (num_steps - position) * step,
    ]
    assert [value in domain for value in computed] == [True] * len(computed)
    assert {domain.snap(value) for value in computed} == {listed}
    assert {domain.position(value) for value in computed} == {position}
    assert low + (position + 0.5) * step not in domain
    for condition in computed:
        space = SearchSpace({"parent": domain, "child": Int(1, 2, when={"parent": (condition,)})})
        assert all(space.is_active("child", {"parent": value}) for value in computed)
        others = set(domain.values() or ()) - {listed}
        assert not any(space.is_active("child", {"parent": value}) for value in others)


def test_what_is_left_of_a_sum_to_zero_is_zero() -> None:
    assert Float(-0.3, 0.3, 0.1).values() == (-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3)


def test_a_condition_on_a_number_with_a_step_holds_in_samples() -> None:
    space = SearchSpace(
        {"dropout": Float(0.0, 0.6, 0.1), "input_dropout": Choice((0.0, 0.1, 0.2), {"dropout": (0.3, 0.6)})}
    )
    rng = random.Random(0)
    samples = [space.sample(rng) for _ in range(500)]
    grid = [tuple(params.items()) for params in space.grid()]
    assert sorted(grid) == sorted({tuple(params.items()) for params in samples})
    assert len(grid) == 5 + 2 * 3
    assert all(("input_dropout" in params) == (params["dropout"] in (0.3, 0.6)) for params in samples)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"layers": 2}, "units_2 is not set; allowed: one of 8, 16"),
        ({"layers": 1, "units_2": 8}, "units_2 is 8; allowed: unset, since layers in [2, 3] does not hold"),
        ({"layers": 4}, "layers is 4; allowed: whole numbers 1 to 3"),
        ({"layers": 1, "depth": 3}, "depth is 3; allowed hyperparameters: layers, units_2, units_3"),
        ({"layers": True}, "layers is True; allowed"),
    ],
)
def test_wrong_configurations_say_what_is_allowed(conditional: SearchSpace, params: dict, message: str) -> None:
    with pytest.raises(SpaceError) as error:
        conditional.validate(params)
    assert message in str(error.value)


@pytest.mark.parametrize("when", [{"later": (1,)}, {"nowhere": (1,)}])
def test_a_condition_must_name_an_earlier_hyperparameter(when: dict) -> None:
    with pytest.raises(SpaceError, match="allowed: an earlier hyperparameter"):
        SearchSpace({"first": Int(1, 2, when=when), "later": Int(1, 2)})


def test_a_condition_must_be_possible() -> None:
    with pytest.raises(SpaceError, match=r"when a is \[7\]; allowed: whole numbers 1 to 2"):
        SearchSpace({"a": Int(1, 2), "b": Int(1, 2, when={"a": (1, 7)})})


def test_restrict_keeps_the_active_ones_in_order(conditional: SearchSpace) -> None:
    values = {"units_3": 4, "units_2": 8, "layers": 2, "other": 1}
    assert list(conditional.restrict(values).items()) == [("layers", 2), ("units_2", 8)]


def test_a_continuous_space_has_no_grid() -> None:
    with pytest.raises(SpaceError, match="a is continuous"):
        list(SearchSpace({"a": Float(0.0, 1.0)}).grid())
