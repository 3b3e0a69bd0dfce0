"""The declarations of settings: those of a study, the keys of sweep files, and the flags that replace them.

`spec` has what follows from the settings of a study, `sweep_file` how they are made from the other two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum, StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

import baselines
from baselines.settings import Since
from harness.errors import InputError
from harness.study.data import BUILT_IN, OwnData
from harness.study.network import OwnNetwork
from harness.study.records import Scalar
from harness.support.strict_json import shown

Engine = Literal["optuna", "keras-tuner"]
Objective = Literal["error", "device_time"]
Precision = Literal["auto", "float32", "bfloat16"]
Prior = Literal["none", "documented"]

MAX_WHOLE = 2**31 - 1
MAX_SECONDS = float(MAX_WHOLE)

Positive = Annotated[int, Field(ge=1, le=MAX_WHOLE)]
Seconds = Annotated[float, Field(gt=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, le=MAX_WHOLE)]
Share = Annotated[float, Field(ge=0, lt=1)]
# TOML has lists for tuples, and the command line text for paths. No other values are converted.
Objectives = Annotated[tuple[Objective, ...], Field(strict=False)]
Natural = Annotated[int, Field(ge=0, le=MAX_WHOLE)]

NETWORK_ENDING, DATA_ENDING = ".py", ".npz"  # of files of users' own


class Kind(StrEnum):
    """What a study is for."""

    SEARCH = "search"  # tries configurations around the documented one
    BASELINE = "baseline"  # trains the documented configuration alone, with several seeds
    VERDICT = "verdict"  # trains the best trials of another study and its baseline again, with fresh seeds


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Constraints(Strict):
    """Limits on a configuration, checked before it is trained. None: no limit."""

    max_params: Positive | None = None
    max_mflops_per_image: Annotated[float, Field(gt=0)] | None = None
    max_memory_mb: Annotated[float, Field(gt=0)] | None = None


class Budget(Strict):
    """The limits of a study, which ends at the first it reaches; None: no limit of that kind.

    `finalists_share` is the last part of it, in which the best configurations get further seeds.
    """

    trials: Annotated[int, Field(ge=0, le=MAX_WHOLE)]
    wall_s: Seconds | None = None
    device_s: Seconds | None = None
    finalists_share: Annotated[Share, Since(6)] = 0.0

    def grown(self, other: Budget) -> Budget:
        """The larger limits of both, with the share of `other`."""
        return Budget(
            trials=max(self.trials, other.trials),
            wall_s=_later(self.wall_s, other.wall_s),
            device_s=_later(self.device_s, other.device_s),
            finalists_share=other.finalists_share,
        )


class Decides(Enum):
    """The effect of a setting of a study. Each setting has one, so that no comparison forgets a setting."""

    ARCHITECTURE = "what the space is around"
    ERRORS = "how good an error can be: only errors of equal settings are compared"
    CURVES = "what the errors of epochs rest on"
    TRIALS = "what is tried, and how often"
    NOTHING = "nothing that is found, and so nothing of the digest"


class Settings(Strict):
    """The settings of a study, all resolved. Those of `SweepSpec.identity` decide what is found, and are its digest.

    `baseline` and `dataset` name built-in ones, or a user's own, which `network` and `own_data` describe. The name of
    an own one ends in the hash of its content, so that all that compares names keeps other contents apart.

    `enqueue` holds configurations to try before the search proposes any, or those that a verdict is about; `learn_from`
    names a study whose finished trials the search learns from without counting them. `full_epochs` are those of the
    sweep file's profile `full`, if it has one: what a verdict trains. `confirms` are the numbers of the trials that a
    verdict is about, as they stand in `enqueue`. Where `train_images` is more than the training split has, the
    validation images are trained on as well. A `precision` of "auto" is resolved before a study is stored.

    The default of a setting that is added is how studies were run before there was such a setting, and never changes:
    earlier studies are read with it. What a new study gets is said in `SweepFile`.
    """

    study: Annotated[str, Decides.NOTHING]
    kind: Annotated[Kind, Decides.NOTHING] = Kind.SEARCH
    baseline: Annotated[str, Decides.ARCHITECTURE]
    network: Annotated[Annotated[OwnNetwork | None, Since(8)], Decides.NOTHING] = None
    dataset: Annotated[str, Decides.ERRORS] = "mnist"
    own_data: Annotated[Annotated[OwnData | None, Since(8)], Decides.NOTHING] = None
    engine: Annotated[Engine, Decides.TRIALS] = "optuna"
    sampler: Annotated[str, Decides.TRIALS] = "tpe"
    pruner: Annotated[str, Decides.TRIALS] = "median"
    patience: Annotated[Annotated[int, Field(ge=0)], Decides.TRIALS] = 0
    objective: Annotated[tuple[Objective, ...], Decides.TRIALS] = ("error",)
    seed: Annotated[Seed, Decides.TRIALS] = 0
    max_repeats: Annotated[Annotated[int, Field(ge=0)], Decides.TRIALS] = 1
    prior: Annotated[Annotated[Prior, Since(7)], Decides.TRIALS] = "none"
    max_attempts: Annotated[Positive, Decides.TRIALS] = 2
    trial_timeout_s: Annotated[Seconds | None, Decides.TRIALS] = None
    recipe: Annotated[dict[str, Any], Decides.TRIALS]
    space: Annotated[dict[str, dict[str, Any]], Decides.TRIALS]
    constraints: Annotated[Constraints, Decides.TRIALS] = Constraints()
    enqueue: Annotated[tuple[dict[str, Scalar], ...], Decides.TRIALS] = ()
    learn_from: Annotated[str | None, Decides.TRIALS] = None
    profile: Annotated[str, Decides.TRIALS]
    train_images: Annotated[Positive, Decides.ERRORS]
    epochs: Annotated[Positive, Decides.ERRORS]
    validation_images: Annotated[Positive, Decides.CURVES]
    baseline_seeds: Annotated[Annotated[int, Field(ge=0, le=MAX_WHOLE)], Decides.TRIALS]
    full_epochs: Annotated[Positive | None, Decides.NOTHING] = None
    confirms: Annotated[tuple[int, ...], Decides.NOTHING] = ()
    reads_test: Annotated[bool, Decides.TRIALS] = False
    precision: Annotated[Precision, Decides.ERRORS] = "float32"
    budget: Annotated[Budget, Decides.NOTHING]


@cache
def settings_that_decide(*what: Decides) -> tuple[str, ...]:
    """The settings of a study that decide any of these, in the order of `Settings`."""
    fields = Settings.model_fields.items()
    return tuple(name for name, field in fields if any(mark in what for mark in field.metadata))


class Profile(Strict):
    """The amount of work of a study: the fidelity of each trial, and the limits.

    `validation_images` are used after every epoch but a trial's last, which uses the whole validation split.
    """

    epochs: Positive
    train_images: Positive
    validation_images: Positive
    baseline_seeds: Positive
    trials: Positive
    budget: str | None = None
    device_budget: str | None = None
    finalists_share: Share = 0.0

    @field_validator("budget", "device_budget")
    @classmethod
    def _is_duration(cls, value: str | None) -> str | None:
        return _checked_duration(value)


class SweepFile(Strict):
    """The keys of a sweep file; sweeps/cnn.toml explains each."""

    baseline: str
    dataset: str = "mnist"
    engine: Engine = "optuna"
    sampler: str | None = None
    pruner: str | None = None
    patience: Natural = 0
    objective: Objectives = ("error",)
    seed: Seed = 0
    max_repeats: Natural = 1
    prior: Prior = "none"
    max_attempts: Positive = 2
    precision: Precision = "auto"
    trial_timeout: str | None = None
    recipe: Annotated[dict[str, Any], Field(default_factory=dict)]
    space: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    constraints: Constraints = Constraints()
    profiles: Annotated[dict[str, Profile], Field(min_length=1)]

    @field_validator("baseline")
    @classmethod
    def _is_network(cls, value: str) -> str:
        return _named_or_file(value, baselines.NAMES, NETWORK_ENDING)

    @field_validator("dataset")
    @classmethod
    def _is_data_set(cls, value: str) -> str:
        return _checked_dataset(value)

    @field_validator("trial_timeout")
    @classmethod
    def _is_duration(cls, value: str | None) -> str | None:
        return _checked_duration(value)


class Flags(Strict):
    """Flags that replace settings of the file; None: the file's setting."""

    engine: Engine | None = None
    sampler: str | None = None
    pruner: str | None = None
    objective: Objectives | None = None
    dataset: str | None = None
    seed: Seed | None = None
    trials: Positive | None = None
    budget: str | None = None
    profile: str | None = None
    study: str | None = None
    enqueue: Annotated[Path, Field(strict=False)] | None = None
    learn_from: str | None = None
    precision: Precision | None = None

    @field_validator("dataset")
    @classmethod
    def _is_data_set(cls, value: str | None) -> str | None:
        return None if value is None else _checked_dataset(value)

    @field_validator("budget")
    @classmethod
    def _is_duration(cls, value: str | None) -> str | None:
        return _checked_duration(value)


def _later(limit_s: float | None, other_s: float | None) -> float | None:
    return None if limit_s is None or other_s is None else max(limit_s, other_s)


def parse_duration_s(text: str, name: str = "duration") -> float:
    """Seconds of '90s', '15m' or '2h'.

    Raises:
        InputError: it is none of these; the message begins with `name`.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < seconds <= MAX_SECONDS:
        allowed = f"a number above 0 with s, m or h, such as 90s, 15m or 2h; at most {MAX_SECONDS:.0f}s"
        raise InputError(f"{name} is {shown(text)}; allowed: {allowed}")
    return seconds


def _named_or_file(value: str, names: Iterable[str], ending: str) -> str:
    if value not in names and not value.endswith(ending):
        raise PydanticCustomError("choice", f"{', '.join(map(repr, names))}, or the path of a {ending} file")
    return value


def _checked_dataset(value: str) -> str:
    return _named_or_file(value, BUILT_IN, DATA_ENDING)


def _checked_duration(value: str | None) -> str | None:
    if value is not None:
        parse_duration_s(value)
    return value
