"""Where a study's workers run: on this machine, or on the nodes of a Ray cluster."""

from __future__ import annotations

from pathlib import Path

from harness.execution.base import Cluster, Executor, Note, Workplace
from harness.execution.local import LocalExecutor
from harness.execution.machine import devices
from harness.study.spec import SweepSpec
from harness.support import own_code
from harness.support.strict_json import check_whole

MAX_WORKERS = 10_000  # each is a process of its own


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
        TroubleError: the cluster cannot be reached, or has no room; or the code that is to train is not of one place.
    """
    own_code.check()
    check_whole("--workers", num_workers, 1, MAX_WORKERS)
    if cluster is None:
        return ThisMachine(num_workers)
    from harness.execution.ray.workplace import RayWorkplace

    return RayWorkplace(cluster, num_workers, note)
