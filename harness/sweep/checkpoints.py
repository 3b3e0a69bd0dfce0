"""The weights of trials that may be continued, one file each, in a folder of the study's own."""

from __future__ import annotations

import shutil
from collections.abc import Set
from pathlib import Path

from harness.execution.base import CHECKPOINT_SUFFIX, Job
from harness.study.records import Trial
from harness.study.spec import SweepSpec
from harness.support.atomic_files import leftovers, replaced


class Checkpoints:
    """Names the files from which workers load and save weights, and removes unneeded ones.

    Args:
        spec: The study.
        folder: Contains only its checkpoints; workers create it.
    """

    def __init__(self, spec: SweepSpec, folder: Path) -> None:
        self._spec, self._folder = spec, folder

    def job(self, trial: Trial, epochs_before: int = 0) -> Job:
        """A trial with the file that it starts from, and the file that it saves for a later trial or a champion.

        `epochs_before` are those of the trial that it continues.
        """
        may_be_continued = trial.epochs < self._spec.epochs
        may_be_champion = self._spec.is_verdict and trial.seed == self._spec.seed
        return Job(
            trial,
            load_from=self._path(trial.continues) if trial.continues else None,
            save_to=self._path(trial.uid) if may_be_continued or may_be_champion else None,
            epochs_before=epochs_before,
        )

    def may_adopt(self, trial: Trial, source: str) -> bool:
        """Whether a trial needs no weights, or those of an equal training, in any study, are still there."""
        return self.job(trial).save_to is None or self._of_any_study(source) is not None

    def adopt(self, trial: Trial, source: str) -> bool:
        """Copies the weights of an equal training if the trial needs them; returns whether it has what it needs."""
        own, theirs = self.job(trial).save_to, self._of_any_study(source)
        if own is None or theirs is None:
            return own is None
        try:
            weights = theirs.open("rb")
        except FileNotFoundError:  # removed meanwhile, with its study's other ones
            return False
        own.parent.mkdir(parents=True, exist_ok=True)
        with weights, replaced(own) as unfinished, unfinished.open("wb") as file:
            shutil.copyfileobj(weights, file)
        return True

    def _of_any_study(self, uid: str) -> Path | None:
        return next(self._folder.parent.glob(f"*/{uid}{CHECKPOINT_SUFFIX}"), None)

    def keep_only(self, uids: Set[str]) -> None:
        """Removes all checkpoints except those of these trials, and unfinished files of killed workers."""
        for path in self._folder.glob(f"*{CHECKPOINT_SUFFIX}"):
            if path.name.removesuffix(CHECKPOINT_SUFFIX) not in uids:
                path.unlink()
        for path in leftovers(self._folder):
            path.unlink()

    def _path(self, uid: str) -> Path:
        return self._folder / f"{uid}{CHECKPOINT_SUFFIX}"
