"""Protocols of execution: workers, their jobs and events, executors, and workplaces that provide them.

A worker does not know the search, the ledger or MLflow. It gets its set-up once and trials one by one. It sends one
report per epoch, waits for the answer, and sends one result.
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
    """The share of a machine that a worker uses.

    Attributes:
        name: The worker's name in the ledger and the display.
        device_name: Processor or GPU model.
        threads: CPU threads it may use.
        sharing: Number of workers that share the device.
        gpu: UUID of its GPU, as used by CUDA and NVML; None for the CPU.
        node: Its machine, if that is not the coordinator's.
        has_bfloat16: Whether it multiplies bfloat16 in hardware.
        processor: Digest of the processor's model, instructions and caches, on which the rounding of sums depends.
    """

    name: str
    device_name: str
    threads: int
    sharing: int
    gpu: str | None = None
    node: str | None = None
    has_bfloat16: bool = False
    processor: str = ""

    @property
    def gpu_fraction(self) -> float:
        return 0.0 if self.gpu is None else 1.0 / self.sharing


@dataclass(frozen=True)
class Job:
    """A trial with its files.

    Attributes:
        trial: The trial.
        load_from: The checkpoint to continue from.
        save_to: The checkpoint to save.
        epochs_before: Epochs of the trial that it continues. If `load_from` is missing, they are trained again, and not
            reported; 0: then the trial crashes.
    """

    trial: Trial
    load_from: Path | None = None
    save_to: Path | None = None
    epochs_before: int = 0


@dataclass(frozen=True)
class Ready:
    """The worker waits for a trial: its framework and data are loaded, and an earlier trial has ended."""

    worker: str


@dataclass(frozen=True)
class EpochDone:
    """The worker finished an epoch and waits for an answer."""

    worker: str
    report: EpochReport


@dataclass(frozen=True)
class Finished:
    """The trial has ended. COMPLETED: it trained all epochs; PRUNED: it was stopped."""

    worker: str
    result: TrialResult


@dataclass(frozen=True)
class Died:
    """The worker's process has died, and its trial with it; another process takes its name."""

    worker: str
    reason: str
    out_of_memory: bool


Event = Ready | EpochDone | Finished | Died


class Executor(Protocol):
    """Runs trials on workers, one at a time on each. Driven from one thread."""

    @property
    def places(self) -> list[Place]:
        """One place per worker, ready or not; on a cluster they change while a study runs."""

    def start(self, worker: str, job: Job) -> None:
        """Starts a trial on a ready worker."""

    def events(self, timeout_s: float) -> list[Event]:
        """The workers' events, in order; waits up to `timeout_s` for the first one."""

    def answer(self, worker: str, *, go_on: bool) -> None:
        """Answers an epoch's report."""

    def kill(self, worker: str) -> None:
        """Kills a worker and its child processes; `Died` follows, and a new worker replaces it."""

    def close(self) -> None:
        """Ends all workers; kills those that do not end by themselves."""


class Workplace(Protocol):
    """Provides workers; none is started yet."""

    @property
    def places(self) -> list[Place]:
        """Places of the workers that can be started now; at least one."""

    def executor(self, spec: SweepSpec, data_folder: Path, log_folder: Path) -> Executor:
        """Starts the workers. Called once."""

    def close(self) -> None: ...
