import math

import pytest

from harness.analysis.statistics import (
    Resolution,
    best_of_many_bias,
    pooled_sd,
    resolution_pct,
)


def test_pooled_sd_of_the_handbooks_example() -> None:
    # NIST/SEMATECH e-Handbook 7.4.3: mean square within groups 17.452 / 12 = 1.454.
    levels = [[6.9, 5.4, 5.8, 4.6, 4.0], [8.3, 6.8, 7.8, 9.2, 6.5], [8.0, 10.5, 8.1, 6.9, 9.3]]
    assert pooled_sd(levels) == pytest.approx(math.sqrt(17.452 / 12))
    assert pooled_sd([[1.0], [2.0]]) is None
    assert pooled_sd([[1.0, 2.0], [5.0], []]) == pytest.approx(math.sqrt(0.5))


def test_resolution_by_the_spread_between_seeds() -> None:
    found = resolution_pct([[1.0, 2.0], [3.0]], [[{1}, {2}], [{1, 2, 3}]], 10_000)
    assert found == Resolution(pytest.approx(1.959964 * math.sqrt(2) * math.sqrt(0.5), abs=1e-6), 1, 2, 10_000)


def test_resolution_by_the_images_where_seeds_agree_by_luck() -> None:
    # 2 + 2 discordant images of 1,000: a standard error of sqrt(4) / 1000 = 0.2 points.
    found = resolution_pct([[1.5, 1.5]], [[{1, 2, 3}, {3, 4, 5}]], 1000)
    assert found is not None
    assert found.points == pytest.approx(1.959964 * 0.2, abs=1e-6)


def test_resolution_takes_every_pair_and_the_mean_over_them() -> None:
    same, other = {1, 2}, {3, 4}  # pairs: 0, 4 and 4 discordant images
    found = resolution_pct([[0.2, 0.2, 0.2]], [[same, same, other]], 1000)
    assert found is not None
    assert found.points == pytest.approx(1.959964 * 100 * math.sqrt(8 / 3) / 1000, abs=1e-6)
    assert (found.num_configurations, found.num_seeds) == (1, 3)


def test_no_resolution_without_repeats_and_a_zero_one_without_images() -> None:
    assert resolution_pct([[1.0], [2.0]], [[{1}], [{2}]], 1000) is None
    found = resolution_pct([[1.0, 1.0]], [[]], 1000)
    assert found is not None
    assert found.points == 0.0


# Expected largest of k standard normal values: Harter, Biometrika 48 (1961) 151-165.
@pytest.mark.parametrize(("num_trials", "expected"), [(2, 0.5642), (10, 1.5388), (25, 1.9653), (100, 2.5076)])
def test_bias_of_the_best_of_many(num_trials: int, expected: float) -> None:
    one_sd = Resolution(1.959964 * math.sqrt(2), 1, 2, 1000)
    assert best_of_many_bias(one_sd, num_trials) == pytest.approx(expected, abs=0.03)


def test_a_single_trial_is_not_flattered() -> None:
    assert best_of_many_bias(Resolution(1.0, 1, 2, 1000), 1) == 0.0
