"""Sweeps on a clock of their own: workers that train nothing, and take as long as they are told to."""

from __future__ import annotations

import heapq
import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from filled_ledger import CPU

from harness.bench.scripted_workers import ScriptedWorkers
from harness.execution.base import EpochDone, Event, Job
from harness.ledger.ledger import Ledger
from harness.planning.cost_model import CostModel, count_work, cpu_estimate
from harness.planning.plan import typical_params
from harness.planning.progress import StopReason
from harness.search.base import NoProposal
from harness.search.proposer import Next
from harness.study.records import EpochReport, Outcome, Role, Seconds, Trial, TrialResult
from harness.study.spec import SweepSpec
from harness.sweep.checkpoints import Checkpoints
from harness.sweep.display import PlainDisplay
from harness.sweep.loop import Sweep
from harness.sweep.reuse import Reuse

START_S, REST_S = 12.0, 4.0  # workers load their framework; models are built and compiled
TRUE_UNITS = np.array([1.0, 900.0, 200.0, 0.0])  # as `cpu_estimate` has it, but not quite


class Clock:
    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class RandomSource:
    """Proposes the baseline, then random configurations; stops a share of them after an epoch or two."""

    def __init__(self, spec: SweepSpec, seed: int, stopped_share: float, num_proposed: int) -> None:
        self._spec, self._rng, self._stopped_share = spec, random.Random(seed), stopped_share
        self._typical, self._number = typical_params(spec), num_proposed
        self._stops: dict[str, int] = {}

    def next(self, *, finals: bool = False) -> Next | NoProposal:
        number, self._number = self._number, self._number + 1
        is_baseline = number < self._spec.baseline_seeds
        params = self._spec.baseline_params if is_baseline else self._rng.choice(self._typical)
        trial = Trial(f"t{number}", number, params, 0, self._spec.epochs, Role.BASELINE if is_baseline else Role.TRIAL)
        if not is_baseline and self._rng.random() < self._stopped_share:
            self._stops[trial.uid] = self._rng.choice([1, 2])
        return Next(trial, asks=1, search_time_s=0.0)

    def broken_limit(self, trial: Trial) -> str | None:
        return None

    def report(self, trial: Trial, report: EpochReport) -> bool:
        return report.epoch < self._stops.get(trial.uid, trial.epochs + 1)

    def tell(self, trial: Trial, result: TrialResult) -> None: ...

    def continuable(self) -> frozenset[str]:
        return frozenset()


class ClockedWorkers(ScriptedWorkers):
    """Say what real workers say, when `epoch_s` says that they would; the clock stands still meanwhile."""

    def __init__(self, clock: Clock, num_workers: int, epoch_s: Callable[[Trial], float]) -> None:
        self._clock, self._epoch_s_of = clock, epoch_s
        self._coming: list[tuple[float, int, Event]] = []
        self._order = count()
        self._epoch_s: dict[str, float] = {}  # of each trial
        super().__init__(num_workers)
        self.ended_s = {place.name: 0.0 for place in self.places}
        self.started: list[str] = []

    def start(self, worker: str, job: Job) -> None:
        self.started.append(job.trial.uid)
        self._epoch_s[job.trial.uid] = self._epoch_s_of(job.trial)
        super().start(worker, job)

    def events(self, timeout_s: float) -> list[Event]:
        if not self._coming:
            self._clock.now_s += timeout_s
            return []
        when_s, _, event = heapq.heappop(self._coming)
        self._clock.now_s = max(self._clock.now_s, when_s)
        return [event]

    def report(self, trial: Trial, epoch: int) -> EpochReport:
        return EpochReport(epoch, 0.5, 0.5, 10.0, 200, Seconds(train=self._epoch_s[trial.uid]))

    def result(self, trial: Trial, curve: Sequence[EpochReport]) -> TrialResult:
        outcome = Outcome.COMPLETED if len(curve) == trial.epochs else Outcome.PRUNED
        seconds = sum((report.seconds for report in curve), Seconds(build=1.0, compile=REST_S - 1.0))
        return TrialResult(outcome, curve=tuple(curve), seconds=seconds, device=CPU)

    def _end(self, worker: str, result: TrialResult) -> None:
        self.ended_s[worker] = self._clock.now_s
        super()._end(worker, result)

    def _say(self, event: Event) -> None:
        in_s = 0.0
        if isinstance(event, EpochDone):
            in_s = event.report.seconds.train + (REST_S if event.report.epoch == 1 else 0.0)
        elif event.worker not in self.training:
            in_s = START_S
        heapq.heappush(self._coming, (self._clock.now_s + in_s, next(self._order), event))


@dataclass(frozen=True)
class Run:
    """What came of a sweep: why it ended, when its last trial did, how much of its time workers had none to train at
    the end, and the trials that they were given."""

    reason: StopReason
    wall_s: float
    idle_share: float
    started: Sequence[str]


def run_clocked(
    spec: SweepSpec,
    ledger: Ledger,
    *,
    baseline_s: float,
    num_workers: int = 2,
    seed: int = 0,
    noise: float = 0.15,
    stopped_share: float = 0.4,
) -> Run:
    """Runs a study whose baseline takes `baseline_s` to train, and other configurations in proportion to their work."""
    ledger._db.execute("PRAGMA synchronous = OFF")  # no power will be cut
    clock, rng = Clock(), random.Random(seed)
    baseline_work = count_work(spec, spec.baseline_params, spec.epochs) @ TRUE_UNITS

    def epoch_s(trial: Trial) -> float:
        share = float(count_work(spec, trial.params, spec.epochs) @ TRUE_UNITS / baseline_work)
        return baseline_s / spec.epochs * share * rng.lognormvariate(0.0, noise)

    workers = ClockedWorkers(clock, num_workers, epoch_s)
    costs = CostModel(spec, cpu_estimate(1e11), typical=typical_params(spec))
    records, display = ledger.history(spec.study), PlainDisplay(io.StringIO())
    source = RandomSource(spec, seed, stopped_share, len(records))
    checkpoints = Checkpoints(spec, Path(ledger.path).parent / "checkpoints")
    reuse, now = Reuse(spec, ledger, checkpoints), clock.monotonic
    sweep = Sweep(spec, ledger, records, source, workers, [], display, checkpoints, costs, now, reuse=reuse)
    reason = sweep.run()
    limit_s = spec.budget.wall_s or clock.now_s
    idle_s = sum(max(0.0, limit_s - ended_s) for ended_s in workers.ended_s.values())
    return Run(reason, max(workers.ended_s.values()), idle_s / num_workers / limit_s, workers.started)
