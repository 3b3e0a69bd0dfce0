"""The resources of a worker on a Ray cluster, and the number of workers that fit on a node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import InputError
from harness.execution.machine.devices import WORKER_MEMORY_MB
from harness.study.formatting import counted

if TYPE_CHECKING:
    from harness.execution.executors import Ray

MEMORY_BYTES = WORKER_MEMORY_MB * 2**20


@dataclass(frozen=True)
class Share:
    """The resources of each worker."""

    num_cpus: int
    num_gpus: float

    def __str__(self) -> str:
        cpus = counted(self.num_cpus, "CPU")
        return f"{cpus} and {self.num_gpus:g} GPUs" if self.num_gpus else cpus

    def room(self, resources: Mapping[str, float]) -> int:
        """Number of workers that fit on a node with these resources."""
        rooms = [resources.get("CPU", 0) / self.num_cpus, resources.get("memory", 0) / MEMORY_BYTES]
        rooms += [resources.get("GPU", 0) / self.num_gpus] if self.num_gpus else []
        return int(min(rooms) + 1e-6)


def share(asked: Ray, nodes: list[Mapping[str, float]]) -> Share:
    """The requested resources, or suitable ones for the nodes.

    Raises:
        InputError: GPUs are requested and there are none, or a cluster on this machine alone has no room for a worker,
            so that waiting for a node is of no use.
    """
    with_gpus = [node for node in nodes if node.get("GPU")]
    if asked.gpus_per_worker and not with_gpus:
        raise InputError(f"--gpus-per-worker is {asked.gpus_per_worker:g}; allowed where no node has a GPU: 0")
    num_gpus = asked.gpus_per_worker if asked.gpus_per_worker is not None else float(bool(with_gpus))
    if num_gpus:
        num_gpus = 1 / round(1 / num_gpus)
    num_cpus = asked.cpus_per_worker
    if num_cpus is None:
        shares = [int(node.get("CPU", 0) / node["GPU"] * num_gpus) for node in with_gpus] if num_gpus else []
        num_cpus = max(1, min(shares, default=1))
    found = Share(num_cpus, num_gpus)
    if asked.address is None and not any(map(found.room, nodes)):
        raise InputError(f"a worker of {found} does not fit on this machine; allowed: {_size(nodes)}")
    return found


def _size(nodes: list[Mapping[str, float]]) -> str:
    """What the largest worker could have."""
    cpus, memory = (max((node.get(name, 0) for node in nodes), default=0) for name in ("CPU", "memory"))
    memory_mb = f"{memory / 2**20:,.0f} MiB, of which each worker needs {WORKER_MEMORY_MB:,}"
    return f"up to {cpus:g} CPUs; Ray may use {memory_mb}"
