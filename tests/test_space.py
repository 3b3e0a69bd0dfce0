import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.space import Choice, Domain, Float, Int, SearchSpace, SpaceError, domain_from_toml

ints = st.builds(
    lambda low, count, step: Int(low, low + count * step, step),
    st.integers(-50, 50),
    st.integers(0, 20),
    st.integers(1, 7),
)
log_ints = st.builds(lambda low, width: Int(low, low + width, log=True), st.integers(1, 100), st.integers(0, 1000))
floats = st.builds(lambda low, width: Float(low, low + width), st.floats(-5, 5), st.floats(0, 5))
stepped = st.builds(lambda low, count: Float(low, low + count * 0.1, 0.1), st.floats(0, 1), st.integers(0, 9))
choices = st.lists(st.integers(), min_size=1, max_size=5, unique=True).map(lambda options: Choice(tuple(options)))
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
        ({"low": 1, "high": 2, "log": 1}, "log is 1; allowed: true or false"),
        ({"low": 1}, "keys are 'low'; allowed: low, high, step, log (a range) or values (a choice)"),
        ({"low": 1, "high": 2, "stpe": 1}, "keys are 'stpe'; allowed"),
        ({"values": []}, "values is empty"),
        ({"values": [1, 1]}, "each value once"),
        ({"values": [1, "a"]}, "values of one type"),
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


def test_grid_of_a_conditional_space_holds_each_configuration_once(conditional: SearchSpace) -> None:
    grid = list(conditional.grid())
    assert len(grid) == conditional.size() == 1 + 2 + 2 * 2
    assert len({tuple(params.items()) for params in grid}) == len(grid)
    for params in grid:
        conditional.validate(params)


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


def test_continuous_spaces_have_no_size() -> None:
    space = SearchSpace({"a": Float(0.0, 1.0)})
    assert space.size() is None
    with pytest.raises(SpaceError, match="a is continuous"):
        list(space.grid())
