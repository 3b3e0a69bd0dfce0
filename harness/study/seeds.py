"""What a trial trains, in words: a new configuration, or a further seed of one that a study has trained before."""

from __future__ import annotations

from collections.abc import Iterable

from harness.study.comparability import Key, key_of
from harness.study.formatting import changes, ordinal
from harness.study.records import Record, Role, Trial
from harness.study.spec import SweepSpec


class Seeds:
    """Counts the seeds of each configuration of a study.

    Args:
        spec: The study.
        records: Its trials so far, in the order of their numbers.
    """

    def __init__(self, spec: SweepSpec, records: Iterable[Record] = ()) -> None:
        self._spec = spec
        self._trained: dict[tuple[Key, int], dict[int, Trial]] = {}  # trials by seed, of each configuration
        for record in records:
            self._trainings_of(record.trial)

    def describe(self, trial: Trial) -> str:
        """ "units_1=64" (what differs from the documented network), "as documented", or "trial 7, 3rd seed".

        Of a verdict it is the seed itself: "trial 7, seed 1002".
        """
        if trial.role is Role.CONFIRM:
            confirmed = self._spec.confirmed_trial(trial.params)
            return f"{'baseline' if confirmed is None else f'trial {confirmed}'}, seed {trial.seed}"
        same = self._trainings_of(trial)
        first = next(iter(same.values()))
        if trial.role is Role.BASELINE or first.seed == trial.seed:
            return changes(trial.params, self._spec.baseline_params) or "as documented"
        return f"{first.role} {first.number}, {ordinal(list(same).index(trial.seed) + 1)} seed"

    def _trainings_of(self, trial: Trial) -> dict[int, Trial]:
        """The trainings of its configuration by seed, in their order, this trial's among them."""
        same = self._trained.setdefault((key_of(trial.params), trial.epochs), {})
        same.setdefault(trial.seed, trial)
        return same
