"""Confidence intervals of error rates."""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist


def error_rate_interval_pct(error_rate_pct: float, num_images: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an error rate in percent; of a mean over several models, as if it were one model's.

    Raises:
        ValueError: as `wilson_interval_pct`.
    """
    return wilson_interval_pct(error_rate_pct * num_images / 100, num_images)


def wilson_interval_pct(num_errors: float, num_images: int, confidence: float = 0.95) -> tuple[float, float]:
    """Lower and upper limit, in percent, of the error rate that `num_errors` of `num_images` images speak for.

    The number of errors is a mean over models where it is not whole. The score interval without continuity correction:
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", J. Am. Stat. Assoc. 22 (1927)
    209-212; method 3 of R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, with whose worked examples the tests
    compare.

    Raises:
        ValueError: not 0 <= num_errors <= num_images, no images, or confidence outside 0 to 1.
    """
    if math.isclose(num_errors, round(num_errors), rel_tol=1e-9):
        num_errors = round(num_errors)  # a rate in percent is not exact
    if not 0 <= num_errors <= num_images or num_images == 0:
        raise ValueError(f"{num_errors} errors of {num_images} images; allowed: 0 to all of at least one image")
    z = normal_quantile(confidence)
    share, width = num_errors / num_images, z * z / num_images
    centre = share + width / 2
    reach = z * math.sqrt(share * (1 - share) / num_images + width / (4 * num_images))
    low = 0.0 if num_errors == 0 else (centre - reach) / (1 + width)
    high = 1.0 if num_errors == num_images else (centre + reach) / (1 + width)
    return 100 * low, 100 * high


@cache
def normal_quantile(confidence: float) -> float:
    """Half-width, in standard deviations, of the central `confidence` of a normal distribution: 1.96 for 0.95."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; allowed: between 0 and 1")
    return NormalDist().inv_cdf((1 + confidence) / 2)
