"""Where a study's workers run: on this machine, or on the nodes of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import InputError
from harness.execution import Executor, Place, devices
from harness.execution.local import LocalExecutor
from harness.spec import SweepSpec

Note = Callable[[str], None]


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and what each worker holds of it.

    Attributes:
        address: "auto" for the one that this machine belongs to, or HOST:PORT; None: one is started here, for this
            call alone.
        cpus_per_worker: CPUs, and threads; None: one, or a GPU's share of its node's.
        gpus_per_worker: 1, or a part such as 0.5 where workers share a GPU, or 0; None: 1 where the cluster has GPUs.

    Raises:
        InputError: one of them makes no sense.
    """

    address: str | None = None
    cpus_per_worker: int | None = None
    gpus_per_worker: float | None = None

    def __post_init__(self) -> None:
        if self.cpus_per_worker is not None and self.cpus_per_worker < 1:
            raise InputError(f"--cpus-per-worker is {self.cpus_per_worker}; allowed: at least 1")
        gpus = self.gpus_per_worker
        if gpus and not (0 < gpus <= 1 and abs(1 / gpus - round(1 / gpus)) < 0.05):
            raise InputError(
                f"--gpus-per-worker is {gpus:g}; allowed: 0, 1, or a whole part of one, such as 0.5 or 0.25"
            )
        if self.address is not None and "://" in self.address:
            raise InputError(f"--address is {self.address!r}; allowed: auto, or HOST:PORT of a cluster's head")


class Workplace(Protocol):
    """Workers that can be had, before any is started."""

    @property
    def places(self) -> list[Place]:
        """Of the workers that can be started at once; at least one."""

    def executor(self, spec: SweepSpec, data_folder: Path, log_folder: Path) -> Executor:
        """Starts the workers. Called once."""

    def close(self) -> None: ...


class ThisMachine:
    """Workers as processes of this machine, as `devices.places` divides it."""

    def __init__(self, num_workers: int | None) -> None:
        self.places = devices.places(devices.this_machine(), num_workers)

    def executor(self, spec: SweepSpec, data_folder: Path, log_folder: Path) -> Executor:
        return LocalExecutor(spec, self.places, data_folder, log_folder)

    def close(self) -> None: ...


def open_workplace(num_workers: int | None, cluster: Cluster | None, note: Note) -> Workplace:
    """This machine, or a cluster if one is named; `note` gets a line of news now and then.

    Raises:
        InputError: what is asked for makes no sense, or Ray is not installed.
        TroubleError: the cluster cannot be reached, or has no room.
    """
    if cluster is None:
        return ThisMachine(num_workers)
    from harness.execution.on_ray import RayWorkplace

    return RayWorkplace(cluster, num_workers, note)
