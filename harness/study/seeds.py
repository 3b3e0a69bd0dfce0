"""What a trial trains, in words: a new configuration, or a further seed of one that a study has trained before."""

from __future__ import annotations

from collections.abc import Iterable

from harness.study.comparability import Key, key_of
from harness.study.formatting import changes
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
        """ "units_1=64" (what differs from the documented network), "as documented", or "seed 3 of trial 7"."""
        if trial.role is Role.CONFIRM:
            confirmed = self._spec.confirmed_trial(trial.params)
            return f"seed {trial.seed} of {'the baseline' if confirmed is None else f'trial {confirmed}'}"
        same = self._trainings_of(trial)
        first = next(iter(same.values()))
        if trial.role is Role.BASELINE or first.seed == trial.seed:
            return changes(trial.params, self._spec.baseline_params) or "as documented"
        return f"seed {list(same).index(trial.seed) + 1} of {first.role} {first.number}"

    def _trainings_of(self, trial: Trial) -> dict[int, Trial]:
        """The trainings of its configuration by seed, in their order, this trial's among them."""
        same = self._trained.setdefault((key_of(trial.params), trial.epochs), {})
        same.setdefault(trial.seed, trial)
        return same
