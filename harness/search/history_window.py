"""What a sampler that learns is shown of a long study: its best trials and its latest.

Such a sampler's ask takes time in proportion to the trials it looks at (TPE, 0.1 s for 1,000) or to the third power of
their number (Gaussian processes), and the thousandth mediocre trial teaches it nothing. What is shown depends on the
study's trials alone, so that a resumed study is shown the same.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence

NUM_SHOWN = 300
NUM_BEST_SHOWN = 60


class Window:
    """Takes in a study's finished trials one by one, and knows which are to be shown without looking at all again."""

    def __init__(self) -> None:
        self._num_trials = 0
        self._latest: list[int] = []  # ascending
        self._best: dict[int, list[tuple[float, int]]] = {}  # by objective, ascending

    def add(self, number: int, score: Sequence[float] | None) -> None:
        """Takes in a trial.

        Args:
            number: Its position among the study's proposals.
            score: By objective, less being better; None if it did not train to its end.
        """
        self._num_trials += 1
        insort(self._latest, number)
        del self._latest[: -(NUM_SHOWN - NUM_BEST_SHOWN)]
        for objective, value in enumerate(score or ()):
            best = self._best.setdefault(objective, [])
            insort(best, (value, number))
            del best[NUM_BEST_SHOWN // len(score or ()) :]

    def shown(self) -> set[int] | None:
        """Numbers of the trials that a sampler is shown; None: all of them."""
        if self._num_trials <= NUM_SHOWN:
            return None
        return {*self._latest, *(number for best in self._best.values() for _, number in best)}


def shown(scores: Sequence[Sequence[float] | None]) -> set[int] | None:
    """Positions of the finished trials that a sampler is shown, in the order of their proposals; None: all of them."""
    window = Window()
    for position, score in enumerate(scores):
        window.add(position, score)
    return window.shown()
