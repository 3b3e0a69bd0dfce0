"""The finished trainings of a verdict, and the answer for each candidate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from harness.analysis.verdict.statistics import LOOKS, Wrong, labels
from harness.study.records import Outcome, Params, Trial, TrialResult
from harness.study.spec import SweepSpec


class Answer(StrEnum):
    """The answer for a candidate, or for all of them together."""

    BETTER = "BETTER"
    NOT_DISTINGUISHABLE = "NOT DISTINGUISHABLE"
    WORSE = "WORSE"
    FAILED = "FAILED"  # a training failed, so it cannot replace the baseline
    OPEN = "NO VERDICT YET"  # too few seeds are trained


_BY_SIGN = {-1: Answer.BETTER, 0: Answer.NOT_DISTINGUISHABLE, 1: Answer.WORSE}
_FOR_ALL = (
    Answer.BETTER,
    Answer.OPEN,
    Answer.NOT_DISTINGUISHABLE,
    Answer.WORSE,
    Answer.FAILED,
)  # the first one that occurs


def configurations(spec: SweepSpec) -> list[Params]:
    """The configurations of a verdict: the baseline, then the candidates."""
    return [spec.baseline_params, *spec.enqueue]


def max_seeds(spec: SweepSpec) -> int:
    """The largest number of seeds of a verdict, the same for each configuration."""
    return spec.budget.trials // len(configurations(spec))


@dataclass(frozen=True)
class Trainings:
    """The finished trainings: results by configuration (in the order of `configurations`) and seed."""

    spec: SweepSpec
    results: Sequence[Mapping[int, TrialResult]]

    @classmethod
    def of(cls, spec: SweepSpec, ended: Iterable[tuple[Trial, TrialResult]]) -> Trainings:
        known = [dict(params) for params in configurations(spec)]
        results: list[dict[int, TrialResult]] = [{} for _ in known]
        for trial, result in ended:
            results[known.index(dict(trial.params))][trial.seed] = result
        return cls(spec, results)

    @property
    def num_images(self) -> int:
        """Test images."""
        return self.spec.sizes["test"]

    def has_failed(self, position: int) -> bool:
        """Whether a training of this configuration failed."""
        return any(result.outcome is not Outcome.COMPLETED for result in self.results[position].values())

    @property
    def compared(self) -> list[int]:
        """Positions of the configurations that are still compared, the baseline first; empty if there is no pair."""
        sound = [position for position in range(len(self.results)) if not self.has_failed(position)]
        return sound if 0 in sound and len(sound) > 1 else []

    @property
    def num_seeds(self) -> int:
        """Number of seeds of the last look; 0 before the first. A look waits for all compared configurations."""
        results = [self.results[position] for position in self.compared]
        number = 0
        while results and all(self.spec.seed + number in by_seed for by_seed in results):
            number += 1
        return max((look for look in LOOKS if look <= number), default=0)

    @property
    def seeds(self) -> range:
        return range(self.spec.seed, self.spec.seed + self.num_seeds)

    def wrong(self) -> Wrong:
        """Misclassified images (configuration of `compared`, training, image), without those never misclassified."""
        wrong = np.zeros((len(self.compared), self.num_seeds, self.num_images), bool)
        for row, position in enumerate(self.compared):
            for column, seed in enumerate(self.seeds):
                wrong[row, column, list(self.results[position][seed].test_wrong_images or ())] = True
        return wrong[..., wrong.any((0, 1))]

    @property
    def answers(self) -> list[Answer]:
        """The answers by candidate."""
        candidates = range(1, len(self.results))
        signs: dict[int, int] = {}
        if self.num_seeds:
            signs = dict(zip(self.compared[1:], labels(self.wrong(), self.num_images).sign.tolist(), strict=True))
        return [self._answer(position, signs.get(position)) for position in candidates]

    def _answer(self, position: int, sign: int | None) -> Answer:
        if self.has_failed(position) or self.has_failed(0):
            return Answer.FAILED
        return Answer.OPEN if sign is None else _BY_SIGN[sign]

    @property
    def answer(self) -> Answer:
        """BETTER if any candidate is, WORSE if all are that did not fail, else NOT DISTINGUISHABLE."""
        answers = self.answers
        return next(answer for answer in _FOR_ALL if answer in answers)

    @property
    def is_clear(self) -> bool:
        """Whether the answer is final, so that no more seeds are needed."""
        return self.answer not in (Answer.OPEN, Answer.NOT_DISTINGUISHABLE)
