"""What a place to train is: workers, what is handed to them, what they say, and where they can be had.

A worker knows neither search nor ledger nor MLflow: it is handed a task once and trials one by one, sends one report
per epoch, waits for the answer, and sends one result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.study.records import EpochReport, Trial, TrialResult
from harness.study.spec import SweepSpec

CHECKPOINT_SUFFIX = ".npz"

Note = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Where a worker runs: its share of the machine.

    Attributes:
        name: The worker's name in the ledger and on the screen.
        device_name: Processor or GPU model.
        threads: CPU threads it may use.
        sharing: How many workers share the device.
        gpu: UUID of its GPU, by which CUDA and NVML know it; None for the CPU.
        node: The machine it is on, where that is not the coordinator's own.
        has_bfloat16: Whether it multiplies bfloat16 in hardware.
    """

    name: str
    device_name: str
    threads: int
    sharing: int
    gpu: str | None = None
    node: str | None = None
    has_bfloat16: bool = False

    @property
    def gpu_fraction(self) -> float:
        return 0.0 if self.gpu is None else 1.0 / self.sharing


@dataclass(frozen=True)
class Job:
    """A trial with the files that only execution knows about: checkpoints to go on from and to leave behind."""

    trial: Trial
    load_from: Path | None = None
    save_to: Path | None = None


@dataclass(frozen=True)
class Ready:
    """The worker waits for a trial: its framework and data are loaded, and an earlier trial is over."""

    worker: str


@dataclass(frozen=True)
class EpochDone:
    """The worker finished an epoch and waits for an answer."""

    worker: str
    report: EpochReport


@dataclass(frozen=True)
class Finished:
    """The trial is over. COMPLETED: it trained to its end; PRUNED: it was told to stop."""

    worker: str
    result: TrialResult


@dataclass(frozen=True)
class Died:
    """The worker's process is gone, with whatever it was doing; another takes its name."""

    worker: str
    reason: str
    out_of_memory: bool


Event = Ready | EpochDone | Finished | Died


class Executor(Protocol):
    """Runs trials on workers, one at a time on each. Driven from one thread."""

    @property
    def places(self) -> list[Place]:
        """One for each worker, whether it is ready or not; on a cluster they come and go while a study runs."""

    def start(self, worker: str, job: Job) -> None:
        """Hands a trial to a worker that is ready."""

    def events(self, timeout_s: float) -> list[Event]:
        """What the workers said, in order; waits up to `timeout_s` for the first word."""

    def answer(self, worker: str, *, go_on: bool) -> None:
        """Answers an epoch's report."""

    def kill(self, worker: str) -> None:
        """Ends a worker and all it started, at once; `Died` follows, and a new worker takes its place."""

    def close(self) -> None:
        """Ends all workers, at once if they do not end by themselves."""


class Workplace(Protocol):
    """Workers that can be had, before any is started."""

    @property
    def places(self) -> list[Place]:
        """Of the workers that can be started at once; at least one."""

    def executor(self, spec: SweepSpec, data_folder: Path, log_folder: Path) -> Executor:
        """Starts the workers. Called once."""

    def close(self) -> None: ...
