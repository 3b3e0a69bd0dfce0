"""Statistics on plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from harness.support.quantiles import quantile


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile; see `quantile`."""
    ascending = sorted(values)
    return quantile(ascending, 0.25), quantile(ascending, 0.5), quantile(ascending, 0.75)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions, ascending, of the points that no other point dominates: as good in both numbers and better in one."""
    front: list[int] = []
    for place in sorted(range(len(points)), key=points.__getitem__):
        if not front or points[place][1] < points[front[-1]][1] or points[place] == points[front[-1]]:
            front.append(place)
    return front


def share_below(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The share of pairs in which ours is lower, with ties as half: 0.5 is no difference.

    Mann and Whitney's U over the number of pairs, also called probability of improvement: R. Agarwal et al., "Deep
    Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 34 (2021).
    """
    pairs = list(product(ours, theirs))
    return sum((a < b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)
