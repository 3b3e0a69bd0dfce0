"""The documented architectures, one file each, and the training recipe they share.

An architecture file has a frozen dataclass `Config` with the allowed values of each setting, its instance `DOCUMENTED`
with `NUM_PARAMS` and `GPU_STEP_S`, `build(config)` and `cost(config)`. Keras is imported inside `build`, so that
reading a configuration is fast.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, Literal, Protocol, cast, get_args

from baselines.layers import Cost
from baselines.recipe import Recipe
from baselines.settings import Allowed, declared

Name = Literal["cnn", "fc"]  # the registry: all that is offered by name follows from it
NAMES: tuple[Name, ...] = get_args(Name)


class Baseline(Protocol):
    """The interface of an architecture file."""

    DOCUMENTED: Any
    NUM_PARAMS: int  # of the documented network, by the documents
    GPU_STEP_S: float  # seconds of its training step, assumed for every GPU until trials are known

    def Config(self, **fields: Any) -> Any: ...  # noqa: N802 - the file's dataclass

    def build(self, config: Any) -> Any: ...

    def cost(self, config: Any) -> Cost: ...


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
