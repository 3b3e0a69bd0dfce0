"""All uses of private names of Optuna, as checked with the version below; check each again with another version.

The public ways are too slow for a thousand workers and 100,000 trials: Optuna reads all trials after each epoch, and
spends most of a TPE proposal in a function that it computes number by number. See docs/scaling.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.samplers._tpe import _truncnorm
from optuna.trial import FrozenTrial, TrialState
from scipy.special import log_ndtr

from harness.search.history_window import Window

SEEN_IN = "5.0.0"

# The same function for whole arrays, equal up to the last digits: a proposal takes a third of the time.
_truncnorm._log_ndtr = log_ndtr


class Storage(optuna.storages.InMemoryStorage):
    """A storage that can show a sampler a part of its trials, and that does not copy added trials.

    Attributes:
        shown: The visible trials; None: all trials.
        completed: Completed trials, in the order in which they were added.
        window: Selects among the finished trials that have not failed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[FrozenTrial] | None = None
        self.completed: list[FrozenTrial] = []
        self.window = Window()

    @staticmethod
    def of(study: optuna.Study) -> Storage:
        """The storage of a study that was made with one."""
        assert isinstance(study._storage, Storage)  # noqa: S101 - see above
        return study._storage

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = super().create_new_trial(study_id)
        if template_trial is not None:
            # Optuna would make a deep copy, which would take most of the time of a resume.
            template_trial.number, template_trial._trial_id = self.get_trial_number_from_id(trial_id), trial_id
            self._set_trial(trial_id, template_trial)
            self._update_cache(trial_id, study_id)
        return trial_id

    def _update_cache(self, trial_id: int, study_id: int) -> None:
        super()._update_cache(trial_id, study_id)
        trial = self._get_trial(trial_id)
        if trial.state is TrialState.COMPLETE:
            self.completed.append(trial)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            self.window.add(trial.number, trial.values if trial.state is TrialState.COMPLETE else None)

    def numbered(self, study: optuna.Study, numbers: Sequence[int]) -> list[FrozenTrial]:
        """The trials with these numbers, without reading the others."""
        trials = self._studies[study._study_id].trials
        return [trials[number] for number in numbers]

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: object | None = None) -> list[FrozenTrial]:
        if self.shown is None:
            return super().get_all_trials(study_id, deepcopy, states)  # type: ignore[arg-type]
        return [trial for trial in self.shown if states is None or trial.state in states]  # type: ignore[operator]


def next_bracket(pruner: optuna.pruners.HyperbandPruner, study: optuna.Study) -> int:
    """The bracket of the study's next trial, from 0."""
    if not pruner._pruners:
        pruner._try_initialization(study)
    trial = optuna.trial.create_trial(state=TrialState.FAIL)
    trial.number = study._storage.get_n_trials(study._study_id)
    return pruner._get_bracket_id(study, trial)
