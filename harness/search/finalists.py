"""Further seeds for the few best configurations, in the last part of a study.

The error of one training is noisy, so the lowest of many is partly luck. On the tables of `harness bench tables`, which
configuration is chosen after 40 trainings costs more than what was not tried: the one with the lowest single error has
1.8 times the regret of the one that is truly the best of the 40.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from harness.study.comparability import Configuration, Key


def next_finalist(
    searched: Sequence[Configuration], everything: Iterable[Configuration], num_open: Mapping[Key, int]
) -> Configuration | None:
    """The configuration whose mean error may be the lowest: it gets the next seed. None: none is trained in full.

    It has the lowest lower bound, the mean error minus its standard error. Each further seed raises the bound of a
    configuration that is no better than others, and then another one is next. Bounds of this kind choose well among
    noisy means: T. L. Lai and H. Robbins, Advances in Applied Mathematics 6 (1985) 4-22.

    Args:
        searched: The candidates.
        everything: The same and the baseline, from whose seeds the noise is known.
        num_open: By key of a candidate, its trainings that have not ended: they count as if they had.
    """
    noise = seed_noise(everything)

    def bound_pct(one: Configuration) -> float:
        num_seeds = one.num_seeds + num_open.get(one.key, 0)
        return one.mean_error_pct - math.sqrt(noise * one.mean_error_pct / num_seeds)

    return min(searched, key=lambda one: (bound_pct(one), one.rank_key), default=None)


def seed_noise(configurations: Iterable[Configuration]) -> float:
    """The variance of an error rate between seeds, as a share of the error rate, percent.

    The variance of a count of rare events grows with its mean, so the share is pooled over all configurations with
    several seeds. Without any it is that of independent images.
    """
    from harness.study.noise import pooled_sd

    everything = [one for one in configurations if one.mean_error_pct > 0]
    sd = pooled_sd([[error / math.sqrt(one.mean_error_pct) for error in one.errors_pct] for one in everything])
    if sd is not None:
        return sd**2
    return fmean(100.0 / one.num_images for one in everything) if everything else 0.0
