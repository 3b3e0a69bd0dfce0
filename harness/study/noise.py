"""How far trials differ by chance, on plain numbers."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from statistics import fmean

import numpy as np
from scipy.special import gammaincinv, ndtr, stdtrit

# Degrees of freedom of the estimate from images, relative to that from seeds.
IMAGE_DEGREES = 2


@dataclass(frozen=True)
class Resolution:
    """The spread of trials by chance.

    Attributes:
        sd: Standard deviation of the error of a configuration between trainings, percentage points.
        degrees: Of freedom of `sd`.
        num_configurations: Number of configurations trained with several seeds.
        num_seeds: Number of trainings of these configurations.
        num_images: Number of validation images of each error rate.
    """

    sd: float
    degrees: int
    num_configurations: int
    num_seeds: int
    num_images: int

    @property
    def points(self) -> float:
        """Two trials, chosen in advance, differ by more in 5 % of the cases, percentage points: Student's t."""
        return float(stdtrit(self.degrees, 0.975)) * math.sqrt(2) * self.sd

    def lead(self, num_trials: int, num_baselines: int) -> float:
        """The best of this number of trials leads the mean of the baseline's seeds by more in 5 % of the cases."""
        return lead_quantile(num_trials, num_baselines, self.degrees) * self.sd


@cache
def lead_quantile(num_trials: int, num_baselines: int, degrees: int, confidence: float = 0.95) -> float:
    """Quantile of the lead of the best of equally good trials over the mean of the baseline's, in standard deviations.

    All of them have the same standard deviation, estimated with `degrees` degrees of freedom: the one-sided comparison
    of many treatments with one control of C. W. Dunnett, Journal of the American Statistical Association 50 (1955)
    1096-1121, with one observation per treatment. The quantile is that of (max of k normal values + one / sqrt(b)) over
    the root of chi square / degrees.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    probabilities = (np.arange(500) + 0.5) / 500
    scales = np.sqrt(2 * gammaincinv(degrees / 2, probabilities) / degrees)[:, None]

    def probability(quantile: float) -> float:
        none_above = ndtr(quantile * scales - nodes / math.sqrt(num_baselines)) ** num_trials
        return float((none_above @ weights).mean() / weights.sum())

    low, high = 0.0, 1.0
    while probability(high) < confidence:
        high *= 2
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) < confidence else (low, middle)
    return high


def pooled_sd(groups: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation within groups, pooled over groups by degrees of freedom; None if no group has two values.

    The root of the mean square within groups of a one-way analysis of variance: sum of squared deviations from the
    groups' own means over the sum of (size - 1); NIST/SEMATECH e-Handbook of Statistical Methods, section 7.4.3.
    """
    degrees = sum(len(group) - 1 for group in groups if group)
    if not degrees:
        return None
    squares = sum((value - fmean(group)) ** 2 for group in groups if group for value in group)
    return math.sqrt(squares / degrees)


def resolution_pct(
    error_rates_pct: Sequence[Sequence[float]], wrong_images: Sequence[Sequence[Collection[int]]], num_images: int
) -> Resolution | None:
    """How far two trainings of one configuration differ by chance in this study, measured in two ways.

    (a) By their error rates: the standard deviation between seeds, pooled over the configurations that were trained
        more than once.
    (b) By their images: of n validation images b are wrong for the first training only and c for the second only.
        Were it a coin's toss for each such image which of the two gets it wrong, the difference b - c would have the
        standard deviation sqrt(b + c); so sqrt(b + c) / n is the standard error of a paired difference (the one behind
        McNemar's test: Q. McNemar, Psychometrika 12 (1947) 153-157), and over sqrt(2) that of one training. Where
        images are not known, it is that of independent images, the binomial one.

    Both estimate the same variance, so they are not added. With two seeds, (a) has one degree of freedom and is often
    near zero by chance; (b), a count over many images, never is. But errors on discordant images of a training are
    correlated, which only (a) measures. Hence the larger of the two is used. Its degrees of freedom are those of (a)
    and `IMAGE_DEGREES` for (b). With these, neither `Resolution.points` nor `Resolution.lead` is exceeded in more than
    5 % of the cases in simulations, if the spread of seeds is up to 1.7 times that of (b); docs/verdict.md has a table.

    Args:
        error_rates_pct: Per configuration, the error rates of its seeds; configurations with one seed do not count.
        wrong_images: Per configuration, the misclassified validation images of each of its seeds, if known.
        num_images: Number of validation images.

    Returns:
        None if no configuration has two seeds.
    """
    repeated = [group for group in error_rates_pct if len(group) > 1]
    by_seeds = pooled_sd(repeated)
    if by_seeds is None:
        return None
    discordant = [len(set(a) ^ set(b)) for group in wrong_images for a, b in combinations(group, 2)]
    if discordant:
        by_images = 100 * math.sqrt(fmean(discordant) / 2) / num_images
    else:
        mean_pct = fmean(error_pct for group in repeated for error_pct in group)
        by_images = math.sqrt(mean_pct * (100 - mean_pct) / num_images)
    num_seeds = sum(map(len, repeated))
    return Resolution(
        sd=max(by_seeds, by_images),
        degrees=num_seeds - len(repeated) + IMAGE_DEGREES,
        num_configurations=len(repeated),
        num_seeds=num_seeds,
        num_images=num_images,
    )
