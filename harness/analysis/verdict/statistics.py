"""Tests whether a configuration is better than the baseline, from the misclassified test images of each training.

Arrays called `wrong` are boolean with the axes (configuration, training, image), the baseline first; an axis that a
function does not need is left out, and if the docstring says so there may be more axes in front. Images that no
training of any configuration got wrong may be left out of the last axis: `num_images` counts them. Error rates and
differences are percent and percentage points of error; a difference is the candidate's error minus the baseline's, so
that negative is better. docs/verdict.md explains the choice of tests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.analysis.statistics import share_below

Wrong = NDArray[np.bool_]
Floats = NDArray[np.float64]
Signs = NDArray[np.int8]

# The family-wise error rate: the maximum probability of any false difference, over all candidates and looks.
ALPHA = 0.05

# Number of seeds of each look, and the share of ALPHA that the look uses. The shares add up to less than one, so seeds
# may be added, or a verdict be ended, at any look and for any reason.
LOOKS: Mapping[int, float] = MappingProxyType({3: 0.05, 5: 0.70, 8: 0.12, 12: 0.05, 20: 0.03})

NUM_RESAMPLES = 4000
_RESAMPLES_AT_ONCE = 250


@dataclass(frozen=True)
class Differences:
    """Each candidate against the baseline; arrays (..., candidate).

    Attributes:
        points: Mean error of the candidate minus that of the baseline, percentage points.
        standard_error: Of `points`, over other seeds and other images.
        degrees: Of freedom of that standard error.
    """

    points: Floats
    standard_error: Floats
    degrees: Floats

    @property
    def p_values(self) -> Floats:
        """Two-sided, of Student's t; 1 where candidate and baseline got the same images wrong."""
        with np.errstate(invalid="ignore"):
            t = np.abs(self.points) / self.standard_error
        return np.where(np.isnan(t), 1.0, 2 * stats.t.sf(t, self.degrees))

    def interval(self, confidence: float) -> tuple[Floats, Floats]:
        """Lower and upper limits of `points`."""
        reach = stats.t.ppf((1 + confidence) / 2, self.degrees) * self.standard_error
        return self.points - reach, self.points + reach


@dataclass(frozen=True)
class Labels:
    """The label of each candidate; arrays (..., candidate).

    Attributes:
        p_value: Corrected for the number of candidates and of looks.
        sign: -1 if the candidate is better (its error is lower), 1 if it is worse, 0 if neither is significant.
    """

    p_value: Floats
    sign: Signs


def differences(wrong: Wrong, num_images: int) -> Differences:
    """Compares each candidate with the baseline over two sources of chance: the seeds and the images.

    The model has a random effect of each training, of each image with each configuration, and the rest: trainings
    nested in configurations and crossed with images. This is how radiology compares tests that several readers apply
    to the same cases (D. D. Dorfman, K. S. Berbaum and C. E. Metz, Investigative Radiology 27 (1992) 723-731), with
    trainings for readers. The variance of a difference of two means is that of the seeds plus what the images add:

        seeds   2 MS(training) / (S n), MS(training) / n being the variance of the error rate between seeds
        images  2 (MS(configuration x image) - MS(rest)) / (S n), not below zero

    for S trainings and n images (S. L. Hillis, Statistics in Medicine 26 (2007) 596-619). The seeds' part is the
    largest of three estimates:

        pooled over all configurations, as in an analysis of variance: few seeds, but many degrees of freedom;
        of these two alone (B. L. Welch, Biometrika 34 (1947) 28-35), `_unpooled`: one may be less stable than others;
        what trainings that err independently on each image would differ by: two seeds may agree by luck.

    Degrees of freedom are those of `_degrees`: of the pooled variance where that is the larger one of the first two,
    and the more of these two alone, the more their variance exceeds it. By Hillis they grow with the square of what is
    added to that variance.

    Args:
        wrong: (..., configuration, training, image), at least two trainings.
        num_images: All test images.
    """
    num_seeds = wrong.shape[-2]
    rates = wrong.sum(-1) / num_images
    shares = wrong.mean(-2)  # of the trainings that got the image wrong
    seed_variances = rates.var(-1, ddof=1)
    # SS within images is SS(training) + SS(rest).
    within_images = num_seeds / (num_seeds - 1) * (shares * (1 - shares)).sum(-1) / num_images
    rest = np.maximum(0.0, within_images - seed_variances) * num_images / (num_images - 1)

    pooled = np.broadcast_to(2 * seed_variances.mean(-1, keepdims=True), seed_variances[..., 1:].shape)
    unpooled = _unpooled(rates.mean(-1), seed_variances)
    of_pairs = np.maximum(pooled, unpooled.sum(-1))
    by_seeds = np.maximum(of_pairs, (rest[..., :1] + rest[..., 1:]) / num_images) / num_seeds
    by_image = shares[..., 1:, :] - shares[..., :1, :]
    mean = by_image.sum(-1) / num_images
    image_variances = ((by_image**2).sum(-1) - num_images * mean**2) / (num_images - 1)
    by_images = np.maximum(0.0, image_variances - (rest[..., :1] + rest[..., 1:]) / num_seeds) / num_images
    variances = by_seeds + by_images
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.maximum(0.0, 2 * pooled / of_pairs - 1)  # of the pooled variance: 1 where it is the larger one
        roots = weight / np.sqrt(_degrees(seed_variances, num_seeds))[..., None]
        roots = roots + (1 - weight) / np.sqrt(_degrees(unpooled, num_seeds))
        degrees = np.where(of_pairs > 0, (num_seeds * variances / of_pairs / roots) ** 2, np.inf)
    return Differences(100 * mean, 100 * np.sqrt(variances), degrees)


def _unpooled(means: Floats, variances: Floats) -> Floats:
    """Variances between seeds of the baseline and of each candidate (..., candidate, 2), as if both erred alike.

    The larger an error, the further its seeds lie apart, so seeds that are good by luck also look more stable than they
    are. Each variance is taken to where a tie would have it, midway between the two means, with the same coefficient
    of variation.
    """
    of_pairs = [np.stack(np.broadcast_arrays(each[..., :1], each[..., 1:]), -1) for each in (means, variances)]
    middle = of_pairs[0].mean(-1, keepdims=True)
    factors = np.divide(middle, of_pairs[0], out=np.ones_like(of_pairs[0]), where=of_pairs[0] > 0)
    return np.asarray(of_pairs[1] * factors**2)


def _degrees(variances: Floats, num_seeds: int) -> Floats:
    """Of freedom of the sum of several variances (..., variance), each of `num_seeds` values.

    Satterthwaite's are f R with f = S - 1 and R = (sum of variances)^2 / (sum of their squares), which says how many of
    them count: F. E. Satterthwaite, Biometrics Bulletin 2 (1946) 110-114. Squares of estimates are too large in the
    mean, and Welch (1947) has (f + 2) R - 2 for that. Here it is (f + 6) R - 8: about the same where all variances are
    equal, and f - 2 in the place of f where one of them is all there is, since errors are skewed. These numbers were
    chosen by simulation (docs/verdict.md). There are at least 1 and at most f for each variance.
    """
    each = num_seeds - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        number = variances.sum(-1) ** 2 / (variances**2).sum(-1)
    return np.asarray(np.clip((each + 6) * number - 8, 1, each * variances.shape[-1]))


def labels(wrong: Wrong, num_images: int, looks: Mapping[int, float] = LOOKS) -> Labels:
    """Labels each candidate by the results of all looks up to now.

    At each look the p-values are corrected by Holm's method and divided by the look's share of ALPHA; a candidate's
    p-value is the lowest of its looks. By Holm's method a look reports a false difference with a probability of at most
    its share of ALPHA, and the shares add up to less than one. So by Bonferroni's inequality the probability over all
    looks is at most ALPHA, for any number of looks. The same argument as in
    K. K. G. Lan and D. L. DeMets, Biometrika 70 (1983) 659-663, without use of how the looks depend on each other.

    Args:
        wrong: (..., configuration, training, image); a look at S seeds sees the first S trainings.
        num_images: All test images.
        looks: Number of seeds to share of ALPHA.
    """
    candidates = (*wrong.shape[:-3], wrong.shape[-3] - 1)
    p_value, sign = np.ones(candidates), np.zeros(candidates, np.int8)
    for num_seeds, share in looks.items():
        if num_seeds <= wrong.shape[-2]:
            found = differences(wrong[..., :num_seeds, :], num_images)
            here = np.minimum(1.0, holm(found.p_values) / share)
            sign = np.where(here < p_value, np.sign(found.points), sign).astype(np.int8)
            p_value = np.minimum(here, p_value)
    return Labels(p_value, np.where(p_value <= ALPHA, sign, 0).astype(np.int8))


def corrected_confidence(num_candidates: int, num_seeds: int, looks: Mapping[int, float] = LOOKS) -> float:
    """Confidence of each interval for a simultaneous 1 - ALPHA over candidates and looks (Bonferroni)."""
    return 1 - ALPHA * looks[num_seeds] / num_candidates


def seeds_to_show(
    found: Differences, num_seeds: int, num_candidates: int, looks: Mapping[int, float] = LOOKS
) -> list[int | None]:
    """By candidate (candidate,): the seeds of the first look whose interval would exclude 0, if nothing else changed.

    The difference and the variance of a training stay as they are after `num_seeds`; standard errors fall with the root
    of the number of seeds, and degrees of freedom grow with it. None: not even the last look's interval would.
    """
    needed: list[int | None] = [None] * len(found.points)
    for more in sorted((look for look in looks if look > num_seeds), reverse=True):
        degrees = found.degrees * (more - 1) / (num_seeds - 1)
        confidence = corrected_confidence(num_candidates, more, looks)
        later = Differences(found.points, found.standard_error * math.sqrt(num_seeds / more), degrees)
        low, high = later.interval(confidence)
        needed = [more if shows else known for shows, known in zip((low > 0) | (high < 0), needed, strict=True)]
    return needed


def holm(p_values: Floats) -> Floats:
    """p-values (..., hypothesis) corrected for their number.

    The i-th smallest of m is multiplied by m - i + 1, and none ends up below a smaller one: S. Holm, Scandinavian
    Journal of Statistics 6 (1979) 65-70.
    """
    number = p_values.shape[-1]
    order = np.argsort(p_values, axis=-1)
    scaled = np.take_along_axis(p_values, order, -1) * np.arange(number, 0, -1)
    corrected = np.empty_like(p_values, dtype=float)
    np.put_along_axis(corrected, order, np.minimum(1.0, np.maximum.accumulate(scaled, -1)), -1)
    return corrected


@dataclass(frozen=True)
class PairedDifference:
    """Student's paired t test; percentage points, with its interval."""

    points: float
    low: float
    high: float
    p_value: float


def paired_difference(candidate_pct: Floats, baseline_pct: Floats, confidence: float = 0.95) -> PairedDifference:
    """Student's paired t test on error rates by seed, the images taken as given: "Student", Biometrika 6 (1908) 1-25.

    A p-value of 1 where no pair differs.
    """
    by_seed = candidate_pct - baseline_pct
    points = float(by_seed.mean())
    if np.ptp(by_seed) == 0.0:  # t is infinite or not defined
        return PairedDifference(points, points, points, float(points == 0.0))
    test: Any = stats.ttest_rel(candidate_pct, baseline_pct)
    interval = test.confidence_interval(confidence)
    return PairedDifference(points, float(interval.low), float(interval.high), float(test.pvalue))


def probability_of_improvement(candidate_pct: Floats, baseline_pct: Floats) -> float:
    """Probability that a training of the candidate has a lower error than one of the baseline; a tie counts half.

    Mann and Whitney's U over the number of pairs; R. Agarwal et al., "Deep Reinforcement Learning at the Edge of the
    Statistical Precipice", NeurIPS 34 (2021).
    """
    return share_below(candidate_pct.tolist(), baseline_pct.tolist())


def mcnemar(candidate: Wrong, baseline: Wrong) -> float:
    """Exact conditional McNemar test of two models on the same images (image): two-sided p-value.

    Q. McNemar, Psychometrika 12 (1947) 153-157; in this form M. W. Fagerland, S. Lydersen and P. Laake, BMC Medical
    Research Methodology 13 (2013) 91.
    """
    return _sign_test(int((candidate & ~baseline).sum()), int((baseline & ~candidate).sum()))


def mcnemar_pooled(candidate: Wrong, baseline: Wrong) -> float:
    """The same over all trainings (training, image): whether the candidate fails on an image more or less often.

    A sign test with one vote per image. Adding up the counts of the seeds instead would count each image once per seed,
    as if every seed had been tested on images of its own.
    """
    votes = candidate.sum(0) - baseline.sum(0)
    return _sign_test(int((votes > 0).sum()), int((votes < 0).sum()))


def bootstrap_interval_pct(
    wrong: Wrong, num_images: int, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap of a configuration's mean error (training, image), percent.

    Trainings and images are resampled independently of each other, the pigeonhole bootstrap: A. B. Owen, Annals of
    Applied Statistics 1 (2007) 386-411, which shows that it is, if anything, too wide.
    """
    rng = np.random.default_rng(seed)
    num_seeds, num_listed = wrong.shape
    shares = np.append(np.full(num_listed, 1 / num_images), 1 - num_listed / num_images)  # of each image, of the rest
    means = []
    for _ in range(math.ceil(NUM_RESAMPLES / _RESAMPLES_AT_ONCE)):
        trainings = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), _RESAMPLES_AT_ONCE)
        images = rng.multinomial(num_images, shares, _RESAMPLES_AT_ONCE)[:, :-1]
        means.append(((trainings @ wrong) * images).sum(-1) / (num_seeds * num_images))
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(100 * low), float(100 * high)


def _sign_test(num_worse: int, num_better: int) -> float:
    """Two-sided p-value of a sign test over the discordant ones."""
    number = num_worse + num_better
    return float(stats.binomtest(num_worse, number).pvalue) if number else 1.0
