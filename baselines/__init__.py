"""The documented architectures, one file each, and the training recipe they share.

An architecture file has a frozen dataclass `Config` with the allowed values of each setting, its instance `DOCUMENTED`
with `NUM_PARAMS` and `GPU_STEP_S`, `build(config, task)` and `cost(config, task)`. Keras is imported inside `build`, so
that reading a configuration is fast. A file of a user's own has the same interface (docs/own-network.md).
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, Protocol, cast, get_args

from baselines.layers import MNIST, Cost, Task
from baselines.recipe import Recipe
from baselines.settings import Allowed, Needs, declared, marked

Name = Literal["cnn", "fc"]  # the registry: all that is offered by name follows from it
NAMES: tuple[Name, ...] = get_args(Name)

REQUIRED = ("Config", "DOCUMENTED", "NUM_PARAMS", "build", "cost")
SHARED_SETTINGS = ("dropout", "batch_norm", "augment_shift", "augment_rotation", "augment_zoom", "augment_shear")
USUAL_GPU_STEP_S = 4e-3  # where a file states none


class Baseline(Protocol):
    """The interface of an architecture file."""

    DOCUMENTED: Any
    NUM_PARAMS: int  # of the documented network, by the documents, for MNIST or the file's TASK
    GPU_STEP_S: float  # seconds of its training step, assumed for every GPU until trials are known

    def Config(self, **fields: Any) -> Any: ...  # noqa: N802 - the file's dataclass

    def build(self, config: Any, task: Task = MNIST) -> Any: ...

    def cost(self, config: Any, task: Task = MNIST) -> Cost: ...


def load(name: str) -> Baseline:
    """The architecture named `name`.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in NAMES:
        raise ValueError(f"baseline is {name!r}; allowed: {', '.join(NAMES)}")
    return cast(Baseline, importlib.import_module(f"baselines.{name}"))


@cache
def allowed(name: str) -> dict[str, Allowed]:
    """The allowed values of each setting of the architecture and of the recipe."""
    return declared(type(load(name).DOCUMENTED)) | declared(Recipe)


def check(file: Any) -> Baseline:
    """An architecture file, a module, as what it is to be; `GPU_STEP_S` is added where it has none.

    The network is not built.

    Raises:
        ValueError: one line about what is missing or does not agree.
    """
    missing = [name for name in REQUIRED if not hasattr(file, name)]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}; needed: {', '.join(REQUIRED)}")
    _check_config(file)
    task = getattr(file, "TASK", MNIST)
    if not isinstance(task, Task):
        raise ValueError(f"TASK is {task!r}; allowed: a Task of baselines.layers")
    counted = file.cost(file.DOCUMENTED, task)
    if not isinstance(counted, Cost):
        raise ValueError(f"cost() gives a {type(counted).__name__}; allowed: a Cost of baselines.layers")
    if type(file.NUM_PARAMS) is not int or counted.num_params != file.NUM_PARAMS:
        raise ValueError(f"NUM_PARAMS is {file.NUM_PARAMS!r}, and cost(DOCUMENTED, {task}) has {counted.num_params!r}")
    if not hasattr(file, "GPU_STEP_S"):
        file.GPU_STEP_S = USUAL_GPU_STEP_S
    if not isinstance(file.GPU_STEP_S, float) or file.GPU_STEP_S <= 0:
        raise ValueError(f"GPU_STEP_S is {file.GPU_STEP_S!r}; allowed: seconds of a training step, above 0")
    return cast(Baseline, file)


def _check_config(file: Any) -> None:
    config = file.Config
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise ValueError("Config is no dataclass; allowed: a frozen dataclass with a default for each setting")
    if type(file.DOCUMENTED) is not config:
        raise ValueError(f"DOCUMENTED is a {type(file.DOCUMENTED).__name__}; allowed: an instance of Config")
    settings = {field.name: getattr(file.DOCUMENTED, field.name) for field in dataclasses.fields(config)}
    missing = [name for name in SHARED_SETTINGS if name not in settings]
    if missing:
        raise ValueError(f"Config has no {', '.join(missing)}; needed: {', '.join(SHARED_SETTINGS)}")
    taken = [field.name for field in dataclasses.fields(Recipe) if field.name in settings]
    if taken:
        raise ValueError(f"Config has {', '.join(taken)}; allowed: names that are not of the recipe")
    _check_values(settings, declared(config))
    for name, need in marked(config, Needs).items():
        _check_need(name, need, declared(config) | declared(Recipe))


def _check_values(settings: Mapping[str, object], allowed: Mapping[str, Allowed]) -> None:
    for name, value in settings.items():
        if name not in allowed:
            raise ValueError(
                f"Config.{name} does not say which values it allows; allowed: a mark of baselines.settings, such as"
                " Annotated[int, Whole(1, 512)]"
            )
        if value not in allowed[name]:
            raise ValueError(f"DOCUMENTED.{name} is {value!r}; allowed by Config: {allowed[name]}")


def _check_need(name: str, need: Needs, allowed: Mapping[str, Allowed]) -> None:
    if need.setting == name or need.setting not in allowed:
        raise ValueError(
            f"Config.{name} needs {need.setting!r}; allowed: another setting of Config, or one of the recipe"
        )
    values = need.values if isinstance(need.values, tuple) else ()  # a text alone has no values, but characters
    if not values or any(value not in allowed[need.setting] for value in values):
        raise ValueError(
            f"Config.{name} needs {need.setting} to be one of {need.values!r}; allowed: a tuple of its values,"
            f" {allowed[need.setting]}"
        )
