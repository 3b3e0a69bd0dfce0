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
            self.describe(record.trial)

    def describe(self, trial: Trial) -> str:
        """ "units_1=64" (what differs from the documented network), "as documented", or "seed 3 of trial 7"."""
        if trial.role is Role.CONFIRM:
            confirmed = self._spec.confirmed_trial(trial.params)
            return f"seed {trial.seed} of {'the baseline' if confirmed is None else f'trial {confirmed}'}"
        same = self._trained.setdefault((key_of(trial.params), trial.epochs), {})
        same.setdefault(trial.seed, trial)
        first, seeds = next(iter(same.values())), list(same)
        if trial.role is Role.BASELINE or first.seed == trial.seed:
            return changes(trial.params, self._spec.baseline_params) or "as documented"
        whose = f"{first.role} {first.number}"
        return f"seed {seeds.index(trial.seed) + 1} of {whose}"
