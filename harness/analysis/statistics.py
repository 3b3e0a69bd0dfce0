"""Which differences between trials are noise. Plain numbers in, plain numbers out."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from statistics import NormalDist, fmean

from harness.intervals import normal_quantile


@dataclass(frozen=True)
class Resolution:
    """The smallest difference between two trials that is not noise.

    Attributes:
        points: In percentage points of the error rate.
        num_configurations: Configurations trained with several seeds, on which it rests.
        num_seeds: Trainings of these configurations together.
        num_images: Validation images behind each error rate.
    """

    points: float
    num_configurations: int
    num_seeds: int
    num_images: int


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


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile, by linear interpolation between the values; infinite ones are allowed.

    Definition 7 of R. J. Hyndman and Y. Fan, "Sample Quantiles in Statistical Packages", The American Statistician 50
    (1996) 361-365.
    """
    ordered = sorted(values)
    return _quantile(ordered, 0.25), _quantile(ordered, 0.5), _quantile(ordered, 0.75)


def _quantile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    low, high = ordered[math.floor(position)], ordered[math.ceil(position)]
    return low if low == high else low + (position - math.floor(position)) * (high - low)


def share_below(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The share of pairs in which ours is less, a tie counting half: 0.5 is no difference.

    Mann and Whitney's U over the number of pairs, also called probability of improvement: R. Agarwal et al., "Deep
    Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 34 (2021).
    """
    pairs = list(product(ours, theirs))
    return sum((a < b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


def resolution_pct(
    error_rates_pct: Sequence[Sequence[float]],
    wrong_images: Sequence[Sequence[Collection[int]]],
    num_images: int,
    confidence: float = 0.95,
) -> Resolution | None:
    """What difference between two trials, each trained once, this study can tell from noise.

    Two trainings of one configuration differ by chance, and that chance is measured in two ways:

    (a) by their error rates: a difference of two has the standard deviation sqrt(2) * s, with s the standard
        deviation between seeds, pooled over the configurations that were trained more than once;
    (b) by their images: of n validation images b are wrong for the first training only and c for the second only.
        Were it a coin's toss for each such image which of the two gets it wrong, the difference b - c would have the
        standard deviation sqrt(b + c); so sqrt(b + c) / n is the standard error of a paired difference (the one behind
        McNemar's test: Q. McNemar, Psychometrika 12 (1947) 153-157).

    Both see the same chance, so they are not added. With two seeds (a) has one degree of freedom and is often near
    zero by luck, which (b), a count over many images, never is; but the discordant images of a training tend to go
    wrong together, which only (a) sees. Hence the larger of the two, times the normal quantile (1.96 for 95 %). It is
    a rule for reading a table, not a test: it takes s as known, and it is for two trials picked beforehand, not for
    the best of many.

    Args:
        error_rates_pct: Per configuration, the error rates of its seeds; configurations with one seed do not count.
        wrong_images: Per configuration, the validation images that each of its seeds got wrong, where known.
        num_images: Validation images.
        confidence: Two-sided.

    Returns:
        None if no configuration has two seeds.
    """
    repeated = [group for group in error_rates_pct if len(group) > 1]
    spread = pooled_sd(repeated)
    if spread is None:
        return None
    discordant = [len(set(a) ^ set(b)) for group in wrong_images for a, b in combinations(group, 2)]
    by_images = 100 * math.sqrt(fmean(discordant)) / num_images if discordant else 0.0
    return Resolution(
        points=normal_quantile(confidence) * max(math.sqrt(2) * spread, by_images),
        num_configurations=len(repeated),
        num_seeds=sum(map(len, repeated)),
        num_images=num_images,
    )


def best_of_many_bias(resolution: Resolution, num_trials: int, confidence: float = 0.95) -> float:
    """Percentage points by which the best of `num_trials` equally good trials looks better than it is, on average.

    The noise of one trial is taken from `resolution`; the expected largest of k standard normal values is
    approximated by the quantile at (k - 0.375) / (k + 0.25): G. Blom, "Statistical Estimates and Transformed Beta
    Variables" (1958). Trials of unequal merit leave less room for luck, so it is at most about this much.
    """
    if num_trials < 2:
        return 0.0
    sd_pct = resolution.points / (normal_quantile(confidence) * math.sqrt(2))
    return sd_pct * NormalDist().inv_cdf((num_trials - 0.375) / (num_trials + 0.25))
