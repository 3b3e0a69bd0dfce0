"""The prior: draws lie around the documented values and leave them, and fade."""

from __future__ import annotations

import random
from statistics import fmean, stdev

import pytest
from simulated_study import SimulatedStudy, simulated_spec

from harness.search import prior
from harness.search.constraints import broken_limit
from harness.study.records import Role
from harness.study.space import SearchSpace, domain_from_toml

RNG = random.Random(5)


def draws(domain: dict[str, object], centre: object) -> list[object]:
    space = SearchSpace({"it": domain_from_toml(domain)})
    found = [prior.draw(space, {"it": centre}, RNG)["it"] for _ in range(2000)]
    assert all(value in space.domains["it"] for value in found)
    return found


def test_numbers_lie_around_the_centre_by_a_quarter_of_the_range() -> None:
    found = draws({"low": 0.0, "high": 8.0}, 4.0)
    assert fmean(found) == pytest.approx(4.0, abs=0.2)
    assert stdev(found) == pytest.approx(
        1.76, abs=0.15
    )  # of a normal distribution with 2 that is cut off at 2 of these


def test_on_a_logarithmic_range_they_do_so_by_magnitude() -> None:
    found = draws({"low": 1e-4, "high": 1.0, "log": True}, 1e-2)
    below = sum(value < 1e-2 for value in found)
    assert below / len(found) == pytest.approx(0.5, abs=0.04)
    assert sum(1e-3 < value < 1e-1 for value in found) / len(found) == pytest.approx(0.715, abs=0.04)


def test_at_the_end_of_a_range_they_lie_on_one_side() -> None:
    found = draws({"low": 0.0, "high": 0.4, "step": 0.1}, 0.0)
    shares = [found.count(value) / len(found) for value in (0.0, 0.1, 0.2, 0.3, 0.4)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(0.57, abs=0.04)
    assert shares[2] == pytest.approx(0.08, abs=0.02)


def test_a_choice_is_the_documented_one_twice_as_often_as_each_other() -> None:
    found = draws({"values": [3, 5, 7]}, 5)
    assert found.count(5) / len(found) == pytest.approx(0.5, abs=0.04)
    assert found.count(3) / len(found) == pytest.approx(0.25, abs=0.04)


def test_a_single_value_is_drawn() -> None:
    assert set(draws({"low": 2e-3, "high": 2e-3, "log": True}, 2e-3)) == {2e-3}


def test_what_the_documented_network_does_not_have_is_drawn_from_its_range() -> None:
    space = SearchSpace(
        {
            "layers": domain_from_toml({"low": 1, "high": 3}),
            "units_3": domain_from_toml({"low": 100, "high": 200, "when": {"layers": [3]}}),
        }
    )
    found = [prior.draw(space, {"layers": 2}, RNG) for _ in range(1000)]
    third = [params["units_3"] for params in found if "units_3" in params]
    assert all((params["layers"] == 3) is ("units_3" in params) for params in found)
    assert fmean(third) == pytest.approx(150, abs=6)


def test_its_share_falls_from_all_to_none() -> None:
    assert [prior.share(num) for num in (0, 5, 45)] == [1.0, 0.5, 0.1]


def test_a_study_draws_from_it_within_the_limits_and_nothing_twice() -> None:
    spec = simulated_spec(prior="documented", constraints={"max_params": 669_706}, sampler="random", baseline_seeds=2)
    study = SimulatedStudy(spec).run(40)
    drawn = [record.trial for record in study.records if record.trial.role is Role.TRIAL and not record.asks]
    assert 5 <= len(drawn) <= 25
    assert drawn[0].number < 5 < drawn[-1].number
    assert all(broken_limit(spec, trial.params) is None for trial in drawn)
    assert {trial.seed for trial in drawn} == {0}
    without = SimulatedStudy(spec.changed(prior="none")).run(40)
    assert all(record.asks for record in without.records[2:])
