"""Quantiles of plain lists."""

from __future__ import annotations

import math
from collections.abc import Sequence


def quantile(ascending: Sequence[float], share: float) -> float:
    """The quantile at a share from 0 to 1, by linear interpolation; infinite values are allowed.

    Definition 7 of R. J. Hyndman and Y. Fan, "Sample Quantiles in Statistical Packages", The American Statistician 50
    (1996) 361-365, which is also numpy's.
    """
    position = share * (len(ascending) - 1)
    low, high = ascending[math.floor(position)], ascending[math.ceil(position)]
    return low if low == high else low + (position - math.floor(position)) * (high - low)
