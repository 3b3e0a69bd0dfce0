"""The statistics of a verdict, against published examples and other implementations."""

import math

import numpy as np
import pytest
from scipy import stats

from harness.analysis.verdict.statistics import (
    ALPHA,
    LOOKS,
    Differences,
    bootstrap_interval_pct,
    corrected_confidence,
    differences,
    holm,
    labels,
    mcnemar,
    mcnemar_pooled,
    paired_difference,
    probability_of_improvement,
    seeds_to_show,
)

# "Student" 1908: additional hours of sleep under two drugs, ten patients; t = 4.0621, p = 0.00283.
SLEEP_1 = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
SLEEP_2 = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])


def wrong_sets(*sets: set[int], num_images: int = 20) -> np.ndarray:
    """(training, image)"""
    return np.array([[image in one for image in range(num_images)] for one in sets])


def test_paired_t_of_students_sleep_data() -> None:
    found = paired_difference(SLEEP_1, SLEEP_2)
    assert found.points == pytest.approx(-1.58)
    assert (found.low, found.high) == pytest.approx((-2.4599, -0.7001), abs=5e-5)
    assert found.p_value == pytest.approx(0.002833, abs=5e-7)


def test_paired_t_where_no_pair_differs_from_another() -> None:
    same = np.array([1.0, 2.0, 3.0])
    assert paired_difference(same, same).p_value == 1.0
    assert paired_difference(same - 0.5, same).p_value == 0.0


def test_mcnemar_of_a_published_example() -> None:
    # Fagerland et al. 2013, table 1: 21 children, 1 and 7 discordant pairs; exact conditional p = 0.070.
    before, after = wrong_sets({0, 1}, {0, 2, 3, 4, 5, 6, 7, 8}, num_images=21)
    assert mcnemar(before, after) == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar(before, before) == 1.0


def test_mcnemar_over_seeds_gives_each_image_one_vote() -> None:
    candidate = wrong_sets({0, 1}, {0, 2}, {0})
    baseline = wrong_sets({1, 3, 4, 5, 6, 7, 8, 9}, {2, 3, 4, 5, 6, 7, 8, 9}, {3, 4, 5, 6, 7, 8, 9})
    # Image 0 votes for the baseline, 3 to 9 for the candidate, 1 and 2 for neither.
    assert mcnemar_pooled(candidate, baseline) == pytest.approx(stats.binomtest(1, 8).pvalue)


def test_holm_of_a_textbook_example() -> None:
    # H1 and H4 are rejected at 0.05, H2 and H3 are not.
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([[0.4, 0.9], [0.2, 0.01]])) == pytest.approx(np.array([[0.8, 0.9], [0.2, 0.02]]))


def test_probability_of_improvement_counts_pairs() -> None:
    assert probability_of_improvement(np.array([1.0, 2.0]), np.array([1.5, 2.0])) == pytest.approx(2.5 / 4)
    # Mann and Whitney's U of six hares that beat six tortoises in 25 of 36 pairs.
    order = "THHHHHTTTTTH"
    tortoises = np.array([place for place, animal in enumerate(order) if animal == "T"], float)
    hares = np.array([place for place, animal in enumerate(order) if animal == "H"], float)
    assert probability_of_improvement(hares, tortoises) == pytest.approx(25 / 36)


def random_errors(rng: np.random.Generator, *shape: int, rate: float = 0.05) -> np.ndarray:
    return rng.random(shape) < rate


def textbook_mean_squares(wrong: np.ndarray) -> tuple[float, float, float]:
    """(training, configuration x image, rest) of an analysis of variance, term by term, from (configuration, ...)."""
    num_configurations, num_seeds, num_images = wrong.shape
    data = wrong.astype(float)
    of_configuration = data.mean((1, 2), keepdims=True)
    of_training, of_cell = data.mean(2, keepdims=True), data.mean(1, keepdims=True)
    of_image = data.mean((0, 1), keepdims=True)
    training = num_images * ((of_training - of_configuration) ** 2).sum() / (num_configurations * (num_seeds - 1))
    cell = of_cell - of_configuration - of_image + data.mean()
    rest = data - of_training - of_cell + of_configuration
    degrees = num_configurations - 1, num_images - 1, num_configurations * (num_seeds - 1) * (num_images - 1)
    return training, num_seeds * (cell**2).sum() / (degrees[0] * degrees[1]), (rest**2).sum() / degrees[2]


def satterthwaite(variances: list[float], each: int) -> float:
    """Degrees of freedom of a sum of variances with `each` of their own, as docs/verdict.md has them."""
    number = sum(variances) ** 2 / sum(variance**2 for variance in variances)
    return min(max((each + 6) * number - 8, 1.0), each * len(variances))


@pytest.mark.parametrize("seed", range(5))
def test_differences_are_those_of_a_textbooks_analysis_of_variance(seed: int) -> None:
    """Two configurations, so that Hillis's formula can be written down with the mean squares of all data."""
    rng = np.random.default_rng(seed)
    # Trainings that differ more than their images make them, so that the seeds' own spread is what counts.
    rates = rng.uniform(0.0, 0.3, (1, 4, 1)) + rng.uniform(0.0, 0.3, (2, 1, 50))
    wrong = rng.random((2, 4, 50)) < rates
    # Both err on 44 images of 200, so that midway between the two is where they are.
    for one in wrong.reshape(2, 200):
        rows = np.flatnonzero(one)
        one[rows[44:]] = False
        one[rng.permutation(np.flatnonzero(~one))[: max(0, 44 - len(rows))]] = True
    training, cell, rest = textbook_mean_squares(wrong)
    denominator = training + max(cell - rest, 0.0)
    found = differences(wrong, 50)
    assert training > rest, "else this would not be the formula in use"
    assert found.standard_error[0] == pytest.approx(100 * math.sqrt(2 * denominator / (4 * 50)))
    degrees = satterthwaite(wrong.mean(-1).var(-1, ddof=1).tolist(), 3)
    assert found.degrees[0] == pytest.approx(degrees * (denominator / training) ** 2)
    assert found.points[0] == pytest.approx(0.0)


def seeds_of(*counts: int, first: int) -> np.ndarray:
    """Trainings (training, image) that get so many of 4,000 images wrong, each on images of its own."""
    return np.array([[first <= image < first + count for image in range(4000)] for count in counts])


def test_the_standard_error_of_an_unstable_one_has_the_degrees_of_its_own_seeds() -> None:
    calm, unstable = seeds_of(100, 102, 101, 99, 98, first=0), seeds_of(40, 160, 100, 130, 70, first=0)
    found = differences(np.stack([calm, calm, calm, unstable]), 4000)
    # Means are equal. Of the other pairs, the pooled variance is what counts, and the unstable one is most of it.
    variances = [one.mean(-1).var(ddof=1) for one in (calm, calm, calm, unstable)]
    assert found.degrees[:2] == pytest.approx(satterthwaite(variances, 4), rel=0.01)
    assert found.degrees[2] == pytest.approx(satterthwaite(variances[2:], 4), rel=0.05)
    assert found.degrees[2] < 2.2
    assert found.standard_error[2] == pytest.approx(100 * math.sqrt((variances[0] + variances[3]) / 5), rel=0.01)


def test_the_degrees_of_equally_stable_ones_are_those_of_all_seeds() -> None:
    calm = seeds_of(60, 140, 100, 120, 80, first=0)
    found = differences(np.stack([calm] * 4), 4000)
    assert found.degrees == pytest.approx(np.full(3, 16.0))


def test_good_luck_does_not_pass_for_stability() -> None:
    """Half the errors, half as far apart: as stable as the other one."""
    baseline, candidate = seeds_of(300, 340, 320, 360, 280, first=0), seeds_of(150, 170, 160, 180, 140, first=0)
    found = differences(np.stack([baseline, candidate]), 4000)
    # Both at 240 errors, midway between 320 and 160.
    midway = np.array([225, 255, 240, 270, 210]) / 4000
    assert found.standard_error[0] >= 100 * math.sqrt(2 * midway.var(ddof=1) / 5)


def test_with_one_candidate_and_no_images_of_its_own_it_is_the_plain_t_test() -> None:
    # A training is right or wrong as a whole block of images, the same for both: images add nothing to the variance.
    def block(*sizes: int) -> np.ndarray:
        return np.array([[image < size for image in range(1000)] for size in sizes])

    baseline, candidate = block(60, 500, 940), block(110, 450, 960)
    found = differences(np.stack([baseline, candidate]), 1000)
    plain = stats.ttest_ind(candidate.mean(1), baseline.mean(1))
    assert found.p_values[0] == pytest.approx(plain.pvalue, rel=0.02)


def test_the_least_stable_of_two_counts_and_chance_agreement_does_not() -> None:
    rng = np.random.default_rng(1)
    calm = random_errors(rng, 2, 4, 400)
    calm[:, :, :200] = False
    noisy = rng.random((1, 4, 400)) < np.array([0.01, 0.3, 0.02, 0.25])[:, None]
    with_noise = differences(np.concatenate([calm, noisy]), 400)
    rates = np.concatenate([calm, noisy]).mean(-1)
    middle = (rates[0].mean() + rates[2].mean()) / 2
    variances = [rates[row].var(ddof=1) * (middle / rates[row].mean()) ** 2 for row in (0, 2)]
    assert with_noise.standard_error[1] >= 100 * math.sqrt(sum(variances) / 4)
    # Three trainings each with the same number of errors, on different images: not a spread of zero.
    first, second = wrong_sets({0, 1}, {2, 3}, {4, 5}), wrong_sets({6}, {7}, {8})
    lucky = differences(np.stack([first, second]), 20)
    assert lucky.standard_error[0] >= 100 * math.sqrt((2 / 19 + 1 / 19) / (3 * 20))
    assert lucky.p_values[0] > 0.05


def test_images_that_nobody_gets_wrong_may_be_left_out() -> None:
    wrong = random_errors(np.random.default_rng(2), 3, 5, 60)
    padded = np.concatenate([wrong, np.zeros((3, 5, 940), bool)], axis=-1)
    short, whole = differences(wrong, 1000), differences(padded, 1000)
    assert short.points == pytest.approx(whole.points)
    assert short.standard_error == pytest.approx(whole.standard_error)
    assert short.degrees == pytest.approx(whole.degrees)


def test_two_that_are_the_same_do_not_differ() -> None:
    wrong = np.stack([wrong_sets({1, 2}, {1, 2}, {1, 2})] * 2)
    found = differences(wrong, 20)
    assert (found.points[0], found.p_values[0]) == (0.0, 1.0)
    assert labels(wrong, 20).sign[0] == 0


def test_a_difference_that_only_images_speak_for_has_their_error() -> None:
    # All trainings of a configuration agree, so only other images could have shown otherwise.
    wrong = np.stack([wrong_sets({1, 2, 3}, {1, 2, 3}, {1, 2, 3}), wrong_sets({3, 4}, {3, 4}, {3, 4})])
    found = differences(wrong, 20)
    by_image = wrong[1, 0].astype(float) - wrong[0, 0]
    assert found.standard_error[0] == pytest.approx(100 * by_image.std(ddof=1) / math.sqrt(20))
    assert found.p_values[0] == pytest.approx(2 * stats.norm.sf(abs(found.points[0] / found.standard_error[0])))


def test_the_looks_share_alpha_out() -> None:
    assert sum(LOOKS.values()) <= 1.0
    assert list(LOOKS) == sorted(LOOKS)
    assert corrected_confidence(3, 5) == pytest.approx(1 - ALPHA * LOOKS[5] / 3)


def test_the_seeds_that_a_difference_takes_are_those_of_the_first_look_that_excludes_zero() -> None:
    # By hand for one candidate: after 5 of 3 seeds the error is 0.1 sqrt(3/5) = 0.0775, there are 2 x 2 = 4 degrees of
    # freedom and the confidence is 1 - 0.05 x 0.70, so the interval reaches 3.13 x 0.0775 = 0.243 to each side.
    found = Differences(np.array([0.25, -0.25, 0.20, 0.01]), np.full(4, 0.1), np.full(4, 2.0))
    assert stats.t.ppf(1 - 0.05 * 0.70 / 2, 4) * 0.1 * math.sqrt(3 / 5) == pytest.approx(0.243, abs=5e-4)
    assert seeds_to_show(found, 3, 1) == [5, 5, 12, None]
    assert seeds_to_show(found, 5, 1)[0] == 20
    assert seeds_to_show(found, 20, 1) == [None] * 4


def test_a_look_costs_its_share_and_is_not_taken_back() -> None:
    rng = np.random.default_rng(3)
    baseline, same = random_errors(rng, 5, 2000, rate=0.50), random_errors(rng, 5, 2000, rate=0.50)
    better = random_errors(rng, 5, 2000, rate=0.20)
    better[3:] = rng.random((2, 2000)) < 0.99  # it ends badly, after the first look
    wrong = np.stack([baseline, same, better])
    first = differences(wrong[:, :3], 2000).p_values
    found = labels(wrong, 2000)
    assert found.sign.tolist() == [0, -1]
    assert found.p_value[1] == pytest.approx(holm(first)[1] / LOOKS[3])
    assert labels(wrong[:, :2], 2000).p_value.tolist() == [1.0, 1.0], "before the first look nothing is said"


def test_the_bootstrap_sees_seeds_and_images() -> None:
    rng = np.random.default_rng(4)
    one = random_errors(rng, 1, 1000)
    low, high = bootstrap_interval_pct(np.repeat(one, 5, axis=0), 1000)
    binomial = stats.binom(1000, one.mean()).ppf([0.025, 0.975]) / 10
    assert (low, high) == pytest.approx(tuple(binomial), abs=0.15)
    # Seeds that differ as wholes make it wider.
    unlike = np.stack([random_errors(rng, 1000, rate=rate) for rate in (0.01, 0.03, 0.05, 0.07, 0.09)])
    low, high = bootstrap_interval_pct(unlike, 1000)
    error = stats.bootstrap((100 * unlike.mean(1),), np.mean, rng=rng, method="percentile").confidence_interval
    assert low < error.low < error.high < high
    assert bootstrap_interval_pct(unlike, 1000) == (low, high), "the same again"
    assert bootstrap_interval_pct(unlike[:, unlike.any(0)], 1000) == pytest.approx((low, high), abs=0.3)
