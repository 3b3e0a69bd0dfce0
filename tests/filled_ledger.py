"""Ledgers with trials in them, made through the ledger's own methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.errors import TroubleError
from harness.ledger.ledger import Ledger
from harness.study.records import Device, EpochReport, Outcome, Params, Role, Seconds, Trial, TrialResult
from harness.study.settings import Budget, Kind
from harness.study.spec import SweepSpec

RECIPE = {"learning_rate": 2e-3, "schedule": "warmup_cosine", "warmup_share": 0.1, "batch_size": 128}
CPU = Device("a processor", "cpu", "tensorflow 2.21.0", "float32", "graph", 1, 2)
GPU = Device("an accelerator", "gpu", "tensorflow 2.21.0", "float32", "xla", 1, 2, gpu_fraction=0.5)
WIDTHS = {"units_1": {"low": 64, "high": 1024}, "units_2": {"low": 64, "high": 1024}}
DOCUMENTED = {"units_1": 512, "units_2": 512}


def make_spec(study: object = "study", **settings: object) -> SweepSpec:
    defaults = {
        "study": study,
        "baseline": "fc",
        "recipe": RECIPE,
        "space": WIDTHS,
        "profile": "quick",
        "epochs": 3,
        "train_images": 1000,
        "validation_images": 500,
        "baseline_seeds": 2,
        "budget": Budget(trials=10, wall_s=600.0),
    }
    if settings.get("space") == {}:
        defaults["kind"] = Kind.BASELINE
    return SweepSpec.model_validate(defaults | settings, strict=False)


class FilledLedger:
    """Adds trials to one study of a ledger; uids are `<study>-<number>`."""

    def __init__(self, ledger: Ledger, spec: SweepSpec, git_commit: str | None = "abc", **origin: object) -> None:
        self.ledger, self.spec = ledger, spec
        self._number = 0
        ledger.create_study(spec, {"git_commit": git_commit, **origin})

    def ask(
        self,
        params: Params | None = None,
        *,
        role: Role = Role.TRIAL,
        seed: int | None = None,
        epochs: int | None = None,
        continues: str | None = None,
    ) -> Trial:
        """A trial that stays pending."""
        number, self._number = self._number, self._number + 1
        uid = f"{self.spec.study}-{number}"
        params = {"units_1": 64 + number, "units_2": 64} if params is None else params
        trial = Trial(
            uid, number, params, number if seed is None else seed, epochs or self.spec.epochs, role, continues
        )
        self.ledger.propose(self.spec.study, trial, asks=1, search_time_s=0.25)
        return trial

    def end(
        self,
        trial: Trial,
        error_pct: float | None = None,
        outcome: Outcome = Outcome.COMPLETED,
        *,
        epochs_done: int | None = None,
        train_s: float = 10.0,
        device: Device | None = CPU,
        wrong: Sequence[int] | None = None,
        test_wrong: Sequence[int] | None = None,
        error: str | None = None,
        gpu: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        """Ends a trial, whose error falls by a point per epoch to `error_pct` of 1,000 validation images.

        `gpu` is what was read off its GPU, by the names of `TrialResult`.
        """
        attempt = self.ledger.start_attempt(trial.uid, "worker-0")
        done = (trial.epochs if epochs_done is None else epochs_done) if error_pct is not None else 0
        for epoch in range(1, done + 1):
            seconds = Seconds(train=train_s / done, evaluate=0.5)
            report = EpochReport(epoch, 0.1, None, min(100.0, (error_pct or 0.0) + (done - epoch)), 1000, seconds)
            self.ledger.add_epoch(trial.uid, attempt, report, train_s)
        result = TrialResult(
            outcome,
            error,
            seconds=Seconds(0.5, 1.5, train_s, 2.0, 20.0),
            num_params=1000 + trial.number if done else None,
            device=device if done else None,
            wrong_images=None if wrong is None else tuple(wrong),
            test_wrong_images=None if test_wrong is None else tuple(test_wrong),
            images_per_s=500.0,
            **gpu,
        )
        self.ledger.finish_attempt(trial.uid, attempt, result, train_s + 4.0, is_final=True)
        return trial.uid

    def add(self, error_pct: float | None = None, outcome: Outcome = Outcome.COMPLETED, **how: Any) -> str:
        """A trial from its proposal to its end; `how` is what `ask` and `end` take."""
        asked = {key: how.pop(key) for key in ("params", "role", "seed", "epochs", "continues") if key in how}
        return self.end(self.ask(**asked), error_pct, outcome, **how)

    def add_baseline(self, error_pct: float, **how: Any) -> str:
        return self.add(error_pct, params=DOCUMENTED, role=Role.BASELINE, **how)


def filled_verdict(ledger: Ledger, trial: int = 7, widths: Params | None = None) -> FilledLedger:
    """The verdict on a study: one seed of the baseline and two of its trial 7, with 3, 1 and 2 of 300 images wrong."""
    widths = dict(widths or {"units_1": 96, "units_2": 64})
    verdict = FilledLedger(
        ledger,
        make_spec(
            "study.verdict",
            kind=Kind.VERDICT,
            dataset="digits",
            profile="verdict",
            train_images=1497,
            baseline_seeds=0,
            reads_test=True,
            enqueue=(widths,),
            confirms=(trial,),
            budget=Budget(trials=6),
        ),
        verdict_of="study",
        confirms=[f"study-{trial}"],
    )
    ledger.start_session("study.verdict", {"git_commit": "def"})
    for params, seed, wrong in ((DOCUMENTED, 40, 3), (widths, 40, 1), (widths, 41, 2)):
        verdict.add(0.0, params=params, seed=seed, role=Role.CONFIRM, test_wrong=range(wrong))
    return verdict


def read_all(path: Path) -> None:
    """All that a ledger says."""
    with closing(Ledger(path)) as ledger:
        for why in ledger.unreadable_studies().values():
            raise TroubleError(why)
        for study in ledger.study_names():
            ledger.study(study)
            records = ledger.history(study)
            assert len(list(ledger.finished(study))) == sum(record.result is not None for record in records)
            for record in records:
                ledger.record(record.trial.uid)
                if ledger.attempts(record.trial.uid):
                    ledger.origin(record.trial.uid)
            ledger.usage(study)
            ledger.last_session(study)
            ledger.untracked(study)
