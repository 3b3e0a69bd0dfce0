"""What a sampler that learns is shown of a long study: its best trials and its latest.

Such a sampler's ask takes time in proportion to the trials it looks at (TPE, 0.1 s for 1,000) or to the third power of
their number (Gaussian processes), and the thousandth mediocre trial teaches it nothing. What is shown depends on the
study's trials alone, so that a resumed study is shown the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest

NUM_SHOWN = 300
NUM_BEST_SHOWN = 60


def shown(scores: Sequence[Sequence[float] | None]) -> set[int] | None:
    """Positions of the finished trials that a sampler is shown; None: all of them.

    Args:
        scores: Of each finished trial, in the order of their proposals: its score by objective, less being better; None
            of one that did not train to its end.
    """
    if len(scores) <= NUM_SHOWN:
        return None
    positions = set(range(len(scores) - (NUM_SHOWN - NUM_BEST_SHOWN), len(scores)))
    num_objectives = next((len(score) for score in scores if score is not None), 0)
    for objective in range(num_objectives):
        ranked = ((score[objective], i) for i, score in enumerate(scores) if score is not None)
        positions.update(i for _, i in nsmallest(NUM_BEST_SHOWN // num_objectives, ranked))
    return positions
