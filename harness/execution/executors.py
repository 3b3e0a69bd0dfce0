"""The executors: the places where the workers of a study can run, each with its options.

The command, Python and the tests use this one list. The command loads it to parse its arguments, so nothing heavy is
imported at the top.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from harness.errors import InputError
from harness.study.options import Option

if TYPE_CHECKING:
    from harness.execution.base import Note, Workplace

MAX_CPUS_PER_WORKER = 1024
MAX_WORKERS = 10_000  # each is a process of its own


@dataclass(frozen=True)
class ExecutorSettings(ABC):
    """An executor with its settings. Each field is made by `_option` and is an option of the command."""

    @abstractmethod
    def open(self, num_workers: int | None, note: Note) -> Workplace:
        """The place with its workers, of which none is started. Arguments and errors are those of `open_workplace`."""


def _option(metavar: str, help: str) -> Any:
    """A setting that is an option of the command as well; None: it is not given. Its type is int, float or str."""
    return field(default=None, metadata={"metavar": metavar, "help": help})


@dataclass(frozen=True)
class Local(ExecutorSettings):
    """Workers as processes of this machine."""

    def open(self, num_workers: int | None, note: Note) -> Workplace:
        from harness.execution.local import ThisMachine

        return ThisMachine(num_workers)


@dataclass(frozen=True)
class Ray(ExecutorSettings):
    """Workers on the nodes of a Ray cluster.

    Raises:
        InputError: a setting has a value that is not allowed.
    """

    address: str | None = _option(
        "ADDRESS", "address of the cluster: auto, or HOST:PORT of its head (default: start one on this machine)"
    )
    cpus_per_worker: int | None = _option(
        "N", "CPUs and threads of each worker (default: 1, or a GPU's share of its node's)"
    )
    gpus_per_worker: float | None = _option(
        "X", "GPUs of each worker: 1 (default if there are GPUs), 0.5 for two workers per GPU, 0 for none"
    )

    def __post_init__(self) -> None:
        from harness.support.strict_json import check_count

        check_count("--cpus-per-worker", self.cpus_per_worker, MAX_CPUS_PER_WORKER)
        gpus = self.gpus_per_worker
        is_none = gpus == 0 and math.copysign(1, gpus) > 0
        is_part = gpus is not None and 0 < gpus <= 1 and abs(1 / gpus - round(1 / gpus)) < 0.05
        if gpus is not None and not is_none and not is_part:
            raise InputError(
                f"--gpus-per-worker is {gpus:g}; allowed: 0, 1, or a whole part of one, such as 0.5 or 0.25"
            )
        if self.address is not None and "://" in self.address:
            raise InputError(f"--address is {self.address!r}; allowed: auto, or HOST:PORT of a cluster's head")

    def open(self, num_workers: int | None, note: Note) -> Workplace:
        from harness.execution.ray.workplace import RayWorkplace

        return RayWorkplace(self, num_workers, note)


LOCAL = Local()
# By name, as `--executor` takes it. No two options of executors have one name.
EXECUTORS: dict[str, type[ExecutorSettings]] = {"local": Local, "ray": Ray}


def options_of(executor: str) -> list[Option]:
    """The options of the executor with this name."""
    settings = EXECUTORS[executor]
    types = get_type_hints(settings)
    return [Option(one.name, kind=get_args(types[one.name])[0], **one.metadata) for one in fields(settings)]


def chosen(executor: str, given: dict[str, Any]) -> ExecutorSettings:
    """The executor with this name; `given` are the values of the options of all executors, None where not given.

    Raises:
        InputError: an option of another executor is given, or a value is not allowed.
    """
    for other in EXECUTORS.keys() - {executor}:
        for option in options_of(other):
            if given[option.name] is not None:
                raise InputError(f"{option.long_flag} is {given[option.name]}; allowed: with --executor {other}")
    return EXECUTORS[executor](**{option.name: given[option.name] for option in options_of(executor)})


def open_workplace(executor: ExecutorSettings, num_workers: int | None, note: Note) -> Workplace:
    """The executor's place with its workers, of which none is started.

    Args:
        executor: The executor.
        num_workers: Number of workers; None: as many as it has room for.
        note: Gets a line of news now and then.

    Raises:
        InputError: the number of workers or a setting is not allowed, or a needed package is not installed.
        TroubleError: the place cannot be reached or has no room; or the two packages are not of one checkout.
    """
    from harness.support import own_code
    from harness.support.strict_json import check_count

    own_code.check()
    check_count("--workers", num_workers, MAX_WORKERS)
    return executor.open(num_workers, note)
