"""Workers on the nodes of a Ray cluster.

Each worker has a host (`harness.execution.ray.host`), an actor that reserves the CPUs and the GPU share of the worker.
A local executor in the host manages the process. This module requests hosts, polls them, and replaces them if they or
their nodes are lost. Ray itself retries nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import TroubleError
from harness.execution.base import Died, Event, Executor, Finished, Job, Note, Place, Ready
from harness.execution.data import cache
from harness.execution.local import MAX_EARLY_DEATHS, START_TIMEOUT_S
from harness.execution.machine import backends
from harness.execution.messages import Command, Setup, to_line
from harness.execution.ray.connection import connect
from harness.execution.ray.host import Host, Seen
from harness.execution.ray.share import MEMORY_BYTES, share
from harness.study.network import source_of
from harness.study.spec import SweepSpec
from harness.support import own_code
from harness.support.atomic_files import replaced
from harness.support.provenance import versions
from harness.support.strict_json import parse_json

if TYPE_CHECKING:
    from harness.execution.executors import Ray

POLL_S = 0.5  # how long a host waits for its worker's next message; it gets no commands meanwhile
ANSWER_TIMEOUT_S = 120.0  # a host without an answer for this time, transfers of weights included, is lost
KILL_TIMEOUT_S = 10.0  # the same, if its worker has to be killed
LOOK_S = 2.0  # how often to look for new nodes
SETTLE_S = 20.0  # after the first host, for others that should get resources at once
CLOSE_TIMEOUT_S = 4.0


@dataclass
class _Host:
    """The coordinator's view of a worker's host; it has one call at a time, which keeps the order of messages."""

    name: str
    actor: Any = None
    call: Any = None  # the pending call
    what: str = ""
    deadline: float | None = None  # monotonic
    place: Place | None = None  # known when Ray has placed it
    job: Job | None = None
    num_losses: int = 0  # consecutive, before its worker was ready
    commands: list[Command] = field(default_factory=list)
    weights: bytes | None = None
    must_kill: bool = False

    @property
    def is_open(self) -> bool:
        return self.what == "exchange"

    def has_called(self, what: str, call: Any, timeout_s: float | None) -> None:
        self.what, self.call = what, call
        self.deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def forget(self) -> None:
        self.commands, self.weights, self.must_kill, self.job = [], None, False, None


class RayWorkplace:
    """A connection to a cluster, with a host for each worker that fits.

    Without a number of workers there are as many as fit on the nodes, and more when nodes join. Requests that do not
    fit yet stay pending, so that an autoscaling cluster can add nodes for them.

    Args:
        asked: The cluster, and the resources of each worker.
        num_workers: Number of workers; None: as many as fit.
        note: Gets a message when workers join or leave.

    Raises:
        InputError: Ray is not installed, or the request is invalid.
        TroubleError: the cluster cannot be reached, or has no room for a worker within ten minutes.
    """

    def __init__(self, asked: Ray, num_workers: int | None, note: Note) -> None:
        self._ray, self._note, self._num_workers = connect(asked.address), note, num_workers
        self._hosts: dict[str, _Host] = {}
        self._looked = 0.0
        self._spec: SweepSpec | None = None
        self._files: Any = None
        self._data_folder = Path()
        try:
            self._share = share(asked, [node["Resources"] for node in self._nodes().values()])
            self._actor = self._ray.remote(Host).options(
                num_cpus=self._share.num_cpus,
                num_gpus=self._share.num_gpus,
                memory=MEMORY_BYTES,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy="SPREAD",
            )
            self._find_places()
        except BaseException:
            self.close()
            raise

    @property
    def places(self) -> list[Place]:
        return [host.place for host in self._hosts.values() if host.place is not None]

    def executor(self, spec: SweepSpec, data_folder: Path, log_folder: Path) -> Executor:
        """Starts the workers. Their logs are on their nodes, and not in `log_folder`."""
        self._spec, self._data_folder = spec, data_folder
        for host in self._hosts.values():
            if host.place is not None and host.call is None:
                self._ask_for_data(host)
        return self

    def start(self, worker: str, job: Job) -> None:
        host = self._hosts[worker]
        host.job, host.weights = job, _read(job.load_from)
        self._tell(host, Command(run=job))

    def answer(self, worker: str, *, go_on: bool) -> None:
        self._tell(self._hosts[worker], Command(go_on=go_on))

    def kill(self, worker: str) -> None:
        host = self._hosts[worker]
        host.must_kill = True
        if host.deadline is not None:  # a hanging host takes no command
            host.deadline = min(host.deadline, time.monotonic() + KILL_TIMEOUT_S)

    def events(self, timeout_s: float) -> list[Event]:
        self._ask_for_more()
        for host in self._hosts.values():
            if host.call is None and host.is_open:
                self._exchange(host)
        return list(self._heard(timeout_s))

    def close(self) -> None:
        """Ends all workers and hosts, and the connection."""
        if not self._ray.is_initialized():
            return
        placed = [host.actor for host in self._hosts.values() if host.place is not None]
        closing = [actor.close.remote() for actor in placed]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=CLOSE_TIMEOUT_S)
        self._hosts = {}
        self._ray.shutdown()

    # Placing hosts

    def _nodes(self) -> dict[str, dict[str, Any]]:
        return {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}

    def _ask_for_more(self) -> None:
        if self._hosts and (self._num_workers is not None or time.monotonic() - self._looked < LOOK_S):
            return
        self._looked = time.monotonic()
        room = sum(self._share.room(node["Resources"]) for node in self._nodes().values())
        wanted = self._num_workers or max(1, room)  # a request that does not fit makes an autoscaling cluster grow
        for i in range(len(self._hosts), wanted):
            self._hosts[f"worker-{i}"] = host = _Host(f"worker-{i}")
            self._request(host)

    def _find_places(self) -> None:
        """Waits for a first place, and a little longer for the others that should fit."""
        self._ask_for_more()
        began = time.monotonic()
        has_said_so = False
        while not self.places or (len(self.places) < len(self._hosts) and time.monotonic() - began < SETTLE_S):
            list(self._heard(1.0))
            waited_s = time.monotonic() - began
            if not self.places and waited_s > SETTLE_S and not has_said_so:
                self._note(f"no node has room yet for a worker of {self._share}; waiting")
                has_said_so = True
            if not self.places and waited_s > START_TIMEOUT_S:
                raise TroubleError(f"no node of the cluster has room for a worker of {self._share}")

    def _request(self, host: _Host) -> None:
        host.forget()
        host.place = None
        host.actor = self._actor.remote()
        # Until Ray has placed it, which may never happen.
        host.has_called("look", host.actor.look.remote(wants_gpu=self._share.num_gpus > 0), None)

    # Talking to hosts

    def _tell(self, host: _Host, command: Command) -> None:
        host.commands.append(command)
        if host.call is None:
            self._exchange(host)

    def _exchange(self, host: _Host) -> None:
        lines = [to_line(command) for command in host.commands]
        call = host.actor.exchange.remote(lines, host.weights, host.must_kill, POLL_S)
        host.has_called("exchange", call, KILL_TIMEOUT_S if host.must_kill else ANSWER_TIMEOUT_S)
        host.commands, host.weights, host.must_kill = [], None, False

    def _heard(self, timeout_s: float) -> Iterator[Event]:
        calls = {host.call: host for host in self._hosts.values() if host.call is not None}
        done, _ = self._ray.wait(list(calls), num_returns=1, timeout=timeout_s)
        if done:  # and all other events
            done, _ = self._ray.wait(list(calls), num_returns=len(calls), timeout=0)
        for call in done:
            yield from self._on_answer(calls[call])
        for host in self._hosts.values():
            if host.deadline is not None and time.monotonic() > host.deadline:
                yield from self._lose(host, f"says nothing, on {_node(host)}")

    def _on_answer(self, host: _Host) -> list[Event]:
        call, host.call, host.deadline = host.call, None, None
        try:
            answer = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            raise TroubleError(f"{host.name} on {_node(host)}: {_one_line(error.cause)}") from error
        except self._ray.exceptions.RayError as error:
            if getattr(error, "actor_init_failed", False) or isinstance(
                error, self._ray.exceptions.RuntimeEnvSetupError
            ):
                raise TroubleError(f"{host.name} cannot be started: {_one_line(error)}") from error
            return self._lose(host, f"lost with its host on {_node(host)}")
        if host.what == "look":
            self._place(host, parse_json(Seen, answer))
        elif host.what == "has_data":
            self._open(host, has_data=answer)
        elif host.what == "open":
            host.what = "exchange"
        else:
            return self._on_words(host, *answer)
        return []

    def _place(self, host: _Host, seen: Seen) -> None:
        node = self._nodes().get(seen.node_id)
        if node is None:  # lost meanwhile
            self._lose(host, "")
            return
        share = self._share
        sharing = round(1 / share.num_gpus) if share.num_gpus else max(1, share.room(node["Resources"]))
        name = str(node["NodeName"])
        _check_versions(name, seen.versions)
        host.place = Place(
            host.name,
            seen.device_name,
            share.num_cpus,
            sharing,
            seen.gpu,
            name,
            has_bfloat16=seen.has_bfloat16,
            processor=seen.processor,
        )
        if self._spec is not None:
            self._note(f"{host.name} is on {name}")
            self._ask_for_data(host)

    def _ask_for_data(self, host: _Host) -> None:
        assert self._spec is not None  # noqa: S101 - for the type checker
        host.has_called("has_data", host.actor.has_data.remote(self._spec.data), START_TIMEOUT_S)

    def _open(self, host: _Host, *, has_data: bool) -> None:
        assert self._spec is not None  # noqa: S101 - for the type checker
        assert host.place is not None  # noqa: S101
        if not has_data and self._files is None:
            paths = cache.files(self._spec.data, self._data_folder)
            self._files = self._ray.put({name: path.read_bytes() for name, path in paths.items()})
        source = source_of(self._spec.network)
        setup = Setup(self._spec, host.place, self._data_folder, own_code.digest(), source)
        command = to_line(Command(setup=setup))
        host.has_called("open", host.actor.open.remote(command, None if has_data else self._files), START_TIMEOUT_S)

    def _on_words(self, host: _Host, lines: list[bytes], weights: bytes | None) -> list[Event]:
        events: list[Event] = [parse_json(Event, line) for line in lines]  # type: ignore[arg-type]
        for event in events:
            if isinstance(event, Died):
                host.forget()  # commands that arrived meanwhile
            elif isinstance(event, Ready):
                host.num_losses = 0
            elif isinstance(event, Finished) and weights is not None and host.job and host.job.save_to:
                with replaced(host.job.save_to) as unfinished:
                    unfinished.write_bytes(weights)
        return events

    # Losing hosts

    def _lose(self, host: _Host, reason: str) -> list[Event]:
        """Kills a lost host and requests another."""
        was_placed = host.place is not None
        self._ray.kill(host.actor)
        host.num_losses += 1
        if host.num_losses > MAX_EARLY_DEATHS:
            raise TroubleError(f"{host.name} {reason}, {host.num_losses} times in a row before it was ready")
        self._request(host)
        if was_placed and self._spec is not None:
            self._note(f"{host.name} {reason}; it continues on a node with room")
        return [Died(host.name, reason, out_of_memory=False)] if was_placed else []


def _check_versions(node: str, theirs: Mapping[str, str]) -> None:
    """Raises TroubleError if a node's versions differ from those here."""
    ours = versions()
    for package in ("keras", "numpy", backends.backend()):
        if theirs.get(package) != ours.get(package):
            has = theirs.get(package, "none")
            raise TroubleError(f"{node} has {package} {has}; allowed: {ours.get(package)}, as here")


def _read(path: Path | None) -> bytes | None:
    """A file's content; None if it is missing, which the worker reports."""
    return path.read_bytes() if path is not None and path.exists() else None


def _node(host: _Host) -> str:
    return host.place.node or "its node" if host.place else "its node"


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:500]
