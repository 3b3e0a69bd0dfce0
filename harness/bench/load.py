"""Measures one study under load, as a separate program for `bench scale`.

    python -m harness.bench.load LOAD.json HOME

The loop, ledger, search and MLflow's thread are those of a sweep, and the workers sleep. The study and its history are
in the ledger of HOME. Prints what was measured, as one line of JSON.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.bench.sleeping_workers import Sleepers, TimeIsUpError
from harness.ledger.ledger import Ledger
from harness.planning.cost_model import CostModel, cpu_estimate
from harness.search.base import NoProposal
from harness.search.factory import make_search
from harness.search.proposer import Next, Proposer
from harness.sweep.checkpoints import Checkpoints
from harness.sweep.display import PlainDisplay
from harness.sweep.loop import Sweep
from harness.sweep.reuse import Reuse
from harness.tracking.mlflow_runs import Tracker

STUDY = "scale"


@dataclass(frozen=True)
class Load:
    """The load of a coordinator.

    Attributes:
        sampler: Of Optuna, with the pruner of `sweeps/cnn.toml`.
        history: Trials that the study has already.
        num_workers: How many trials at once.
        trial_s: Seconds that a worker takes for a trial that is not stopped early.
        with_mlflow: Whether the runs go to MLflow meanwhile.
        warm_up_s, measured_s: How long it goes on unmeasured, and measured.
    """

    sampler: str
    history: int
    num_workers: int
    trial_s: float
    with_mlflow: bool
    warm_up_s: float
    measured_s: float


@dataclass(frozen=True)
class Measured:
    """Results of a coordinator under load, within the measured time.

    Attributes:
        resume_s: Seconds to read the history and to rebuild the search from it, before.
        all_started_s: Seconds until each worker had its first trial; None: not by the end.
        trials_per_s, epochs_per_s: What was done.
        trained_share: Of its epochs, the part that a trial was trained, in the mean.
        waiting_share: Of the workers' time, the part in which they had nothing to do.
        ask_s: Seconds of each ask.
        next_s, answer_s: See `Seen`.
        busy_share: Of the loop's time, the part in which it was not waiting for workers.
        loop_cpu_pct, other_cpu_pct: CPU time of the loop and of the other threads, in percent of a core.
        memory_mb: Resident memory at the end, MiB.
        mlflow_per_s: Runs that came to MLflow; None without MLflow.
        mlflow_behind: Finished trials that MLflow lacked at the end; None without MLflow.
    """

    resume_s: float
    all_started_s: float | None
    trials_per_s: float
    epochs_per_s: float
    trained_share: float
    waiting_share: float
    ask_s: list[float]
    next_s: list[float]
    answer_s: list[float]
    busy_share: float
    loop_cpu_pct: float
    other_cpu_pct: float
    memory_mb: float
    mlflow_per_s: float | None
    mlflow_behind: int | None


class TimedProposer(Proposer):
    """Measures the duration of each proposal."""

    ask_s: list[float]

    def next(self, *, finals: bool = False) -> Next | NoProposal:
        before = time.monotonic()
        proposed = super().next(finals=finals)
        self.ask_s.append(time.monotonic() - before)
        return proposed


@dataclass(frozen=True)
class Look:
    """The clocks at one moment, in seconds, and the work done so far."""

    wall_s: float
    loop_s: float
    process_s: float
    num_asks: int
    num_runs: int


def measure(load: Load, home: Path) -> Measured:
    """Runs the study in `home` under a load until the time is up. MLflow's thread is not stopped."""
    import psutil

    with closing(Ledger(home / "ledger.db")) as ledger:
        spec = ledger.study(STUDY).spec.changed(sampler=load.sampler)
        started = time.monotonic()
        records = ledger.history(STUDY)
        proposer = TimedProposer(spec, make_search(spec), records)
        proposer.ask_s = []
        resume_s = time.monotonic() - started

        def look() -> Look:
            num_runs = len(ledger.run_ids(STUDY)) if load.with_mlflow else 0
            return Look(time.monotonic(), time.thread_time(), time.process_time(), len(proposer.ask_s), num_runs)

        trackers = [Tracker(ledger.path, home, STUDY, lambda line: None)] if load.with_mlflow else []
        sleepers = Sleepers(load.num_workers, load.trial_s / spec.epochs, load.warm_up_s, load.measured_s, look)
        display, costs = PlainDisplay(io.StringIO()), CostModel(spec, cpu_estimate(1e11))
        checkpoints = Checkpoints(spec, home / "checkpoints")
        with suppress(TimeIsUpError):
            reuse = Reuse(spec, ledger, checkpoints)
            sweep = Sweep(
                spec, ledger, records, proposer, sleepers, [*trackers], display, checkpoints, costs, reuse=reuse
            )
            sweep.run()
        (first, last), seen = sleepers.looks, sleepers.seen
        span_s = last.wall_s - first.wall_s
        loop_cpu_s = last.loop_s - first.loop_s
        return Measured(
            resume_s,
            sleepers.all_started_s,
            seen.num_finished / span_s,
            seen.num_epochs / span_s,
            seen.num_whole / seen.num_finished if seen.num_finished else 1.0,
            max(0.0, 1 - seen.trained_s / (span_s * load.num_workers)),
            proposer.ask_s[first.num_asks : last.num_asks],
            seen.next_s,
            seen.answer_s,
            1 - seen.coordinator_idle_s / span_s,
            100 * loop_cpu_s / span_s,
            100 * (last.process_s - first.process_s - loop_cpu_s) / span_s,
            psutil.Process().memory_info().rss / 2**20,
            (last.num_runs - first.num_runs) / span_s if load.with_mlflow else None,
            len(ledger.untracked(STUDY)) if load.with_mlflow else None,
        )


if __name__ == "__main__":
    asked = Load(**json.loads(Path(sys.argv[1]).read_text()))
    sys.stdout.write(json.dumps(asdict(measure(asked, Path(sys.argv[2])))) + "\n")
    sys.stdout.flush()
    os._exit(0)  # MLflow's thread would go on until all runs are there
