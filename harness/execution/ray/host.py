"""The host on a node of a Ray cluster: inspects the node and runs a local executor with one worker.

A plain class, which `harness.execution.ray.workplace` makes an actor. Commands and events are the JSON of `messages`;
only a data set's files and a trial's weights are bytes.
"""

from __future__ import annotations

import io
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from platformdirs import user_log_path

from harness.errors import TroubleError
from harness.execution.base import CHECKPOINT_SUFFIX, Finished, Job
from harness.execution.data import cache
from harness.execution.local import LocalExecutor
from harness.execution.machine import devices
from harness.execution.messages import read_command, to_json
from harness.study.network import permit
from harness.support.provenance import versions

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Seen:
    """A host's description of its node.

    Attributes:
        node_id: Ray's id of the node.
        device_name: Processor, or model of the GPU.
        gpu: UUID of the GPU that Ray gave it.
        has_bfloat16: Whether that GPU, or the processor, multiplies bfloat16 in hardware.
        versions: Versions of the packages that training depends on.
        processor: That of `Place`.
    """

    node_id: str
    device_name: str
    gpu: str | None
    has_bfloat16: bool
    versions: dict[str, str]
    processor: str


class Host:
    """Manages one worker. Calls of its methods do not overlap."""

    def look(self, *, wants_gpu: bool) -> bytes:
        """`Seen` as JSON.

        Raises:
            TroubleError: it should have a GPU, but the node's driver lists none.
        """
        import ray

        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as Ray counts them
        if not wants_gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides none from those that asked for none
        machine = devices.this_machine()
        if wants_gpu and not machine.gpus:
            raise TroubleError("Ray has given a GPU to the worker, but nvidia-smi shows none")
        gpu = machine.gpus[0] if wants_gpu else None
        seen = Seen(
            ray.get_runtime_context().get_node_id(),
            gpu.name if gpu else machine.cpu_name,
            gpu.uuid if gpu else None,
            gpu.has_bfloat16 if gpu else machine.cpu_has_bfloat16,
            versions(),
            machine.processor,
        )
        return to_json(seen)

    def has_data(self, data: cache.Data) -> bool:
        """Whether this node's cache has the complete data set, verified by hash."""
        return not any(check.problem for check in cache.verify(data))

    def open(self, command: bytes, files: Files | None) -> None:
        """Starts the worker; `files` has a data set that the node lacks, for the node's cache.

        Raises:
            TroubleError: data or worker are unavailable.
        """
        setup = read_command(command).setup
        assert setup is not None  # noqa: S101 - for the type checker
        permit(setup.network)
        folder = cache.dataset_folder(setup.spec.data)
        if files:
            arrays = {name: np.load(io.BytesIO(content), allow_pickle=False) for name, content in files.items()}
            folder = cache.keep(setup.spec.data, arrays)
        _end_with_raylet()
        self._scratch = Path(tempfile.gettempdir()) / f"harness-{secrets.token_hex(16)}"
        log_folder = user_log_path("harness") / setup.spec.study
        self._executor = LocalExecutor(setup.spec, [setup.place], folder, log_folder, setup.code)

    def exchange(
        self, commands: list[bytes], weights: bytes | None, kill: bool, wait_s: float
    ) -> tuple[list[bytes], bytes | None]:
        """Passes on the coordinator's commands, then waits for the worker's next event.

        Args:
            commands: Commands for the worker.
            weights: The checkpoint from which the trial among the commands continues.
            kill: Kill the worker and its child processes.
            wait_s: Time limit of the wait.

        Returns:
            Events as JSON, and the checkpoint that the trial among them saved.

        Raises:
            TroubleError: as `LocalExecutor.events`.
        """
        worker = self._executor.places[0].name
        for line in commands:
            command = read_command(line)
            if command.run is not None:
                self._executor.start(worker, self._here(command.run, weights))
            elif command.go_on is not None:
                self._executor.answer(worker, go_on=command.go_on)
        if kill:
            self._executor.kill(worker)
        events = self._executor.events(wait_s)
        is_over = any(isinstance(event, Finished) for event in events)
        return [to_json(event) for event in events], self._left() if is_over else None

    def close(self) -> None:
        self._executor.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _here(self, job: Job, weights: bytes | None) -> Job:
        """The job with files of this node instead of the coordinator's."""
        load_from, save_to = self._file("before"), self._file("after")
        if job.load_from or job.save_to:  # made on demand: few trials need it, and a killed one leaves it behind
            self._scratch.mkdir(mode=0o700, exist_ok=True)
        for left in (load_from, save_to):  # by one that died
            left.unlink(missing_ok=True)
        if weights is not None:
            load_from.write_bytes(weights)
        return replace(job, load_from=load_from if job.load_from else None, save_to=save_to if job.save_to else None)

    def _left(self) -> bytes | None:
        self._file("before").unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            weights = self._file("after").read_bytes()
            self._file("after").unlink()
            return weights
        return None

    def _file(self, name: str) -> Path:
        return self._scratch / f"{name}{CHECKPOINT_SUFFIX}"


def _end_with_raylet() -> None:
    """Ends this process and its worker when the raylet that started it has died.

    Ray itself leaves the process running without any caller.
    """
    raylet = os.getppid()

    def watch() -> None:
        try:
            while os.getppid() == raylet:
                time.sleep(1.0)
        finally:
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
