import math

import numpy as np
import pytest
from scipy import stats

from harness.study.noise import IMAGE_DEGREES, Resolution, lead_quantile, pooled_sd, resolution_pct


def test_pooled_sd_of_the_handbooks_example() -> None:
    # NIST/SEMATECH e-Handbook 7.4.3: mean square within groups 17.452 / 12 = 1.454.
    levels = [[6.9, 5.4, 5.8, 4.6, 4.0], [8.3, 6.8, 7.8, 9.2, 6.5], [8.0, 10.5, 8.1, 6.9, 9.3]]
    assert pooled_sd(levels) == pytest.approx(math.sqrt(17.452 / 12))
    assert pooled_sd([[1.0], [2.0]]) is None
    assert pooled_sd([[1.0, 2.0], [5.0], []]) == pytest.approx(math.sqrt(0.5))


def test_resolution_by_the_spread_between_seeds() -> None:
    found = resolution_pct([[1.0, 2.0], [3.0]], [[{1}, {2}], [{1, 2, 3}]], 10_000)
    assert found == Resolution(pytest.approx(math.sqrt(0.5)), 1 + IMAGE_DEGREES, 1, 2, 10_000)


def test_resolution_by_the_images_where_seeds_agree_by_luck() -> None:
    # 2 + 2 discordant images of 1,000: a standard error of sqrt(4) / 1000 = 0.2 points for a difference of two.
    found = resolution_pct([[1.5, 1.5]], [[{1, 2, 3}, {3, 4, 5}]], 1000)
    assert found is not None
    assert math.sqrt(2) * found.sd == pytest.approx(0.2)


def test_resolution_takes_every_pair_and_the_mean_over_them() -> None:
    same, other = {1, 2}, {3, 4}  # pairs: 0, 4 and 4 discordant images
    found = resolution_pct([[0.2, 0.2, 0.2]], [[same, same, other]], 1000)
    assert found is not None
    assert math.sqrt(2) * found.sd == pytest.approx(100 * math.sqrt(8 / 3) / 1000)
    assert (found.num_configurations, found.num_seeds, found.degrees) == (1, 3, 2 + IMAGE_DEGREES)


def test_no_resolution_without_repeats_and_that_of_independent_images_where_these_are_not_known() -> None:
    assert resolution_pct([[1.0], [2.0]], [[{1}], [{2}]], 1000) is None
    found = resolution_pct([[1.0, 1.0]], [[]], 1000)
    assert found is not None
    assert found.sd == pytest.approx(100 * math.sqrt(0.01 * 0.99 / 1000))


def test_two_trials_differ_by_a_t_quantile() -> None:
    # Two-sided 5 % points of "Student"'s t: 3.182 with 3 degrees of freedom, 2.228 with 10.
    assert Resolution(1.0, 3, 1, 2, 1000).points == pytest.approx(3.182 * math.sqrt(2), abs=1e-3)
    assert Resolution(0.5, 10, 1, 2, 1000).points == pytest.approx(2.228 * math.sqrt(0.5), abs=1e-3)


# One-sided 5 % points of Dunnett 1955, table 1a, for 1, 2, 5 and 9 treatments; there in units of a difference of two.
@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(5, (2.02, 2.44, 2.98, 3.30)), (10, (1.81, 2.15, 2.56, 2.81)), (20, (1.72, 2.03, 2.39, 2.60))],
)
def test_the_lead_of_the_best_is_dunnetts(degrees: int, expected: tuple[float, ...]) -> None:
    found = [lead_quantile(number, 1, degrees) / math.sqrt(2) for number in (1, 2, 5, 9)]
    assert found == pytest.approx(expected, abs=0.006)


def test_a_lone_trial_leads_the_mean_of_baselines_by_a_t_quantile() -> None:
    assert lead_quantile(1, 3, 4) == pytest.approx(stats.t.ppf(0.95, 4) * math.sqrt(4 / 3), rel=1e-3)
    assert Resolution(0.2, 4, 1, 3, 1000).lead(1, 3) == pytest.approx(0.2 * lead_quantile(1, 3, 4))


@pytest.mark.parametrize("spread", [1.0, 1.4, 1.7])
@pytest.mark.parametrize("num_baselines", [2, 3, 5])
@pytest.mark.parametrize("num_trials", [2, 24, 100])
def test_chance_exceeds_the_noise_in_one_case_of_twenty(num_trials: int, num_baselines: int, spread: float) -> None:
    """Trainings that differ by nothing but chance, with a spread that is so many times what their images explain."""
    rng = np.random.default_rng(5)
    num_repeats, by_images = 4000, 0.1
    baselines, others = (
        rng.normal(1.0, spread * by_images, (num_repeats, number)) for number in (num_baselines, max(2, num_trials))
    )
    sds = np.maximum(baselines.std(-1, ddof=1), by_images)
    one = Resolution(1.0, num_baselines - 1 + IMAGE_DEGREES, 1, num_baselines, 10_000)
    two_trials = np.abs(others[:, 0] - others[:, 1]) > one.points * sds
    best = baselines.mean(-1) - others.min(-1) > one.lead(others.shape[-1], num_baselines) * sds
    assert two_trials.mean() <= 0.055
    assert best.mean() <= 0.055
