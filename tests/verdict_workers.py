"""A verdict's trainings without training."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from filled_ledger import CPU, DOCUMENTED

from harness.bench.scripted_workers import ScriptedWorkers
from harness.execution.base import Job
from harness.ledger.ledger import Ledger
from harness.planning.cost_model import CostModel, cpu_estimate
from harness.planning.progress import StopReason
from harness.study.records import EpochReport, Outcome, Seconds, Trial, TrialResult
from harness.study.spec import SweepSpec
from harness.sweep.checkpoints import Checkpoints
from harness.sweep.display import PlainDisplay
from harness.sweep.loop import Sweep
from harness.sweep.reuse import Reuse
from harness.workflows.verdict import make_source

Wrong = Callable[[Trial], set[int] | Outcome]  # the test images that a training gets wrong, or how it ends


class Killed(BaseException):
    """The coordinator's end, at which it can do nothing more."""


class VerdictWorkers(ScriptedWorkers):
    """Scripted workers whose trials come to what `wrong` says.

    `stop_at`: Ctrl-C comes while the trial with this number trains; `die_at`: the coordinator is killed then;
    `candidate_s`: what a training costs that is not the baseline's, which takes 10 s.
    """

    def __init__(
        self,
        wrong: Wrong,
        num_workers: int = 2,
        stop_at: int | None = None,
        die_at: int | None = None,
        candidate_s: float = 4.0,
    ) -> None:
        super().__init__(num_workers)
        self.trained: list[Trial] = []
        self._wrong, self._stop_at, self._die_at, self._candidate_s = wrong, stop_at, die_at, candidate_s

    def start(self, worker: str, job: Job) -> None:
        if job.trial.number == self._die_at:
            raise Killed
        self.trained.append(job.trial)
        super().start(worker, job)

    def report(self, trial: Trial, epoch: int) -> EpochReport:
        if trial.number == self._stop_at and epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return EpochReport(epoch, 0.1, 0.1, 0.5, 100, Seconds(train=1.0))

    def result(self, trial: Trial, curve: Sequence[EpochReport]) -> TrialResult:
        found = self._wrong(trial)
        if isinstance(found, Outcome) or len(curve) < trial.epochs:
            return TrialResult(found if isinstance(found, Outcome) else Outcome.PRUNED, "no luck")
        is_documented = dict(trial.params) == DOCUMENTED
        return TrialResult(
            Outcome.COMPLETED,
            seconds=Seconds(train=10.0 if is_documented else self._candidate_s),
            num_params=1000 if is_documented else 400,
            device=CPU,
            test_wrong_images=tuple(sorted(found)),
        )


def train(ledger: Ledger, spec: SweepSpec, workers: VerdictWorkers, checkpoints: Path | None = None) -> StopReason:
    records, costs = ledger.history(spec.study), CostModel(spec, cpu_estimate(1e11))
    source = make_source(spec, ledger, records)
    display, checkpoints = PlainDisplay(io.StringIO()), checkpoints or Path(ledger.path).parent / "checkpoints"
    kept = Checkpoints(spec, checkpoints)
    reuse = Reuse(spec, ledger, kept, is_on=False)  # what trainings come to is up to `workers`
    return Sweep(spec, ledger, records, source, workers, [], display, kept, costs, reuse=reuse).run()
