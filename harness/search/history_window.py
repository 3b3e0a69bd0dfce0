"""Selects the trials of a long study that a learning sampler reads: the best and the latest.

The time of a proposal grows with the number of trials read (TPE, 0.1 s for 1,000) or with its third power (Gaussian
processes), and many mediocre trials add little information. The selection depends only on the study's trials, so a
resumed study has the same one.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence

NUM_SHOWN = 300
NUM_BEST_SHOWN = 60


class Window:
    """Adds a study's finished trials one by one, and updates the selection without reading all trials again."""

    def __init__(self) -> None:
        self._num_trials = 0
        self._latest: list[int] = []  # ascending
        self._best: dict[int, list[tuple[float, int]]] = {}  # by objective, ascending

    def add(self, number: int, score: Sequence[float] | None) -> None:
        """Adds a trial.

        Args:
            number: Its position among the study's proposals.
            score: By objective, lower is better; None if it did not train to its end.
        """
        self._num_trials += 1
        insort(self._latest, number)
        del self._latest[: -(NUM_SHOWN - NUM_BEST_SHOWN)]
        for objective, value in enumerate(score or ()):
            best = self._best.setdefault(objective, [])
            insort(best, (value, number))
            del best[NUM_BEST_SHOWN // len(score or ()) :]

    def shown(self) -> set[int] | None:
        """Numbers of the trials that a sampler reads; None: all of them."""
        if self._num_trials <= NUM_SHOWN:
            return None
        return {*self._latest, *(number for best in self._best.values() for _, number in best)}


def shown(scores: Sequence[Sequence[float] | None]) -> set[int] | None:
    """Positions, in the order of proposals, of the finished trials that a sampler reads; None: all of them."""
    window = Window()
    for position, score in enumerate(scores):
        window.add(position, score)
    return window.shown()
