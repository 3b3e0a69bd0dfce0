"""The settings of one study, all resolved."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime
from enum import Enum, StrEnum
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import baselines
from baselines.layers import Cost, Task
from baselines.recipe import Recipe
from baselines.settings import Allowed, OneOf, Real, Since
from harness.errors import InputError
from harness.study import network as networks
from harness.study.data import OwnData, Sizes, facts_of
from harness.study.network import OwnNetwork
from harness.study.records import Params, Scalar
from harness.study.space import Domain, Float, SearchSpace, SpaceError, domain_from_toml
from harness.support.strict_json import explain, shown, shown_key

Engine = Literal["optuna", "keras-tuner"]
Objective = Literal["error", "device_time"]
Precision = Literal["auto", "float32", "bfloat16"]
Prior = Literal["none", "documented"]

NAMES = "1 to 64 letters, digits, '.', '_' or '-', not starting with '.'"

VERDICT_ENDING = ".verdict"  # of a verdict's name, after the name of the tested study

# Endings that the harness appends do not count for the 64 characters, so every name can have them.
_DATED = r"\.\d{8}-\d{6}"  # the time when a study was renamed for a new one of its name
_NAME = re.compile(rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,63}}(?:{_DATED})?(?:{re.escape(VERDICT_ENDING)})?")

MAX_WHOLE = 2**31 - 1
MAX_SECONDS = float(MAX_WHOLE)

Positive = Annotated[int, Field(ge=1, le=MAX_WHOLE)]
Seconds = Annotated[float, Field(gt=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, le=MAX_WHOLE)]
Share = Annotated[float, Field(ge=0, lt=1)]


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


class SweepSpec(Strict):
    """One study, every setting resolved. Those of `identity` decide what is found, and are its digest.

    `baseline` and `dataset` name built-in ones, or a user's own, which `network` and `own_data` describe. The name of
    an own one ends in the hash of its content, so that all that compares names keeps other contents apart.

    `enqueue` holds configurations to try before the search proposes any, or those that a verdict is about; `learn_from`
    names a study whose finished trials the search learns from without counting them. `full_epochs` are those of the
    sweep file's profile `full`, if it has one: what a verdict trains. `confirms` are the numbers of the trials that a
    verdict is about, as they stand in `enqueue`. Where `train_images` is more than the training split has, the
    validation images are trained on as well. A `precision` of "auto" is resolved before a study is stored.

    The default of a setting that is added is how studies were run before there was such a setting, and never changes:
    earlier studies are read with it. What a new study gets is said in `sweep_file`.
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

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        check_name(self.study, "study")
        facts_of(self.dataset, self.own_data)
        _check_recipe(self.recipe, self.allowed)
        self._check_space()
        return self

    def changed(self, **changes: Any) -> Self:
        """This study with changed settings, checked by the same rules; pydantic's `model_copy` checks nothing.

        Raises:
            InputError: one line that names the first wrong setting, its value and what is allowed.
        """
        try:
            return self.model_validate(dict(self) | changes)
        except ValidationError as error:
            raise InputError(f"study {self.study}: {explain(error)}") from None

    @property
    def search_space(self) -> SearchSpace:
        return SearchSpace({name: domain_from_toml(domain) for name, domain in self.space.items()})

    @property
    def documented(self) -> Mapping[str, Any]:
        """The documented value of each setting of the network."""
        return networks.documented_and_allowed(self.baseline, self.network)[0]

    @property
    def allowed(self) -> Mapping[str, Allowed]:
        """The allowed values of each setting of the network and of the recipe."""
        return networks.documented_and_allowed(self.baseline, self.network)[1]

    @property
    def task(self) -> Task:
        """Shape and number of classes of the images."""
        return facts_of(self.dataset, self.own_data).task

    @property
    def sizes(self) -> Sizes:
        """Number of images in each split of the data set: train, validation, test."""
        return facts_of(self.dataset, self.own_data).sizes

    @property
    def data(self) -> str | OwnData:
        """The data set for the cache."""
        return self.own_data or self.dataset

    @property
    def baseline_params(self) -> Params:
        """The documented configuration as a point of the space, with the study's recipe."""
        return self.search_space.restrict({**self.documented, **self.recipe})

    def sets(self, name: str) -> bool:
        """Whether a setting differs from its default, which describes studies made before the setting existed."""
        return bool(getattr(self, name) != SweepSpec.model_fields[name].get_default())

    @property
    def is_search(self) -> bool:
        return self.kind is Kind.SEARCH

    @property
    def is_verdict(self) -> bool:
        return self.kind is Kind.VERDICT

    @property
    def finalists_share(self) -> float:
        """The last part of the budget, for further seeds of the best; 0 if the error alone does not say which."""
        return self.budget.finalists_share if self.is_search and self.objective == ("error",) else 0.0

    @property
    def about(self) -> str:
        """The name of the study that a verdict tests; for other studies their own name."""
        return self.study.removesuffix(VERDICT_ENDING) if self.is_verdict else self.study

    def dated_name(self, when: datetime) -> str:
        """The name under which the study is kept at `when`; an earlier date is replaced."""
        dated = f"{re.sub(f'{_DATED}$', '', self.about)}.{when:%Y%m%d-%H%M%S}"
        return verdict_name(dated) if self.is_verdict else dated

    @property
    def trains_on_validation(self) -> bool:
        """Whether the validation images are trained on, so that errors on them are meaningless."""
        return self.train_images > self.sizes["train"]

    def confirmed_trial(self, params: Params) -> int | None:
        """Of a verdict: the number of the trial that a training with `params` confirms; None: the baseline."""
        pairs = zip(self.confirms, self.enqueue, strict=True)
        return next((number for number, finalist in pairs if dict(params) == finalist), None)

    def network_settings(self, params: Params) -> dict[str, Scalar]:
        """The network's settings with `params` in place of the documented values."""
        return {name: params.get(name, value) for name, value in self.documented.items()}

    @property
    def architecture(self) -> baselines.Baseline:
        """The code of the network.

        Raises:
            TroubleError: it is a user's own that was never run here; only the study can be read.
        """
        return networks.required_code(self.network) if self.network else baselines.load(self.baseline)

    def config(self, params: Params) -> Any:
        """The architecture's configuration of `network_settings`. Raises TroubleError as `architecture`."""
        return self.architecture.Config(**self.network_settings(params))

    def cost(self, params: Params) -> Cost:
        """The cost of a configuration, in closed form. Raises TroubleError as `architecture`."""
        return self.architecture.cost(self.config(params), self.task)

    @property
    def has_code(self) -> bool:
        """Whether the network can be built here, and its cost be computed."""
        return self.network is None or networks.code(self.network) is not None

    def trial_recipe(self, params: Params) -> Recipe:
        """The study's recipe with `params` in place of its values."""
        return Recipe(**{key: params.get(key, value) for key, value in self.recipe.items()})

    def _check_space(self) -> None:
        if not self.is_verdict and bool(self.space) != self.is_search:
            which = "one or more hyperparameters" if self.is_search else "none"
            raise InputError(f"space is {shown(self.space)}; allowed for a {self.kind}: {which}")
        allowed = self.allowed
        for name, domain in self.space.items():
            if name not in allowed:
                raise InputError(
                    f"space.{shown_key(name)} is unknown; allowed for {self.baseline}: {', '.join(allowed)}"
                )
            try:
                _check_domain(domain_from_toml(domain), allowed[name])
            except SpaceError as error:
                raise InputError(f"space.{name}: {error}") from None
        try:
            self.search_space.validate(self.baseline_params)
        except SpaceError as error:
            raise InputError(f"space must hold the documented baseline, but its {error}") from None

    def identity(self) -> dict[str, Any]:
        """The settings that affect the results of the study.

        Settings that were added later are left out if they have their default, which describes all earlier studies. So
        the digest of a study stays the same, and newer versions can resume it.
        """
        kept = set(SweepSpec.model_fields) - set(settings_that_decide(Decides.NOTHING))
        plain = self.model_dump(mode="json", include=kept)
        plain["recipe"] = _without_new(plain["recipe"], _FIRST_RECIPE, dataclasses.asdict(Recipe()))
        plain["constraints"] = _without_new(plain["constraints"], _FIRST_CONSTRAINTS, Constraints().model_dump())
        defaults = {name: field.get_default() for name, field in SweepSpec.model_fields.items()}
        return _without_new(plain, _FIRST_SETTINGS, defaults)

    def digest(self) -> str:
        """SHA-256 of `identity()`, hexadecimal."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

    def differing_keys(self, other: SweepSpec) -> list[str]:
        """The settings in which two studies differ, without budgets."""
        mine, theirs = self.identity(), other.identity()
        return sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))


# The settings of the first studies; see `SweepSpec.identity`. None is ever added.
_FIRST_SETTINGS = frozenset(
    {
        *("baseline", "dataset", "engine", "sampler", "pruner", "patience", "objective", "seed", "max_repeats"),
        *("max_attempts", "trial_timeout_s", "recipe", "space", "constraints", "enqueue", "learn_from", "profile"),
        *("epochs", "train_images", "validation_images", "baseline_seeds", "reads_test"),
    }
)
_FIRST_RECIPE = frozenset({"learning_rate", "schedule", "warmup_share", "batch_size"})
_FIRST_CONSTRAINTS = frozenset({"max_params", "max_mflops_per_image", "max_memory_mb"})


def _without_new(values: dict[str, Any], first: frozenset[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in first or value != defaults.get(key)}


@cache
def settings_that_decide(*what: Decides) -> tuple[str, ...]:
    """The settings of a study that decide any of these, in the order of `SweepSpec`."""
    fields = SweepSpec.model_fields.items()
    return tuple(name for name, field in fields if any(mark in what for mark in field.metadata))


def _check_recipe(recipe: Params, allowed: Mapping[str, Allowed]) -> None:
    known = [field.name for field in dataclasses.fields(Recipe)]
    for name, value in recipe.items():
        if name not in known:
            raise InputError(f"recipe.{shown_key(name)} is unknown; allowed: {', '.join(known)}")
        if value not in _ever_allowed(allowed[name]):
            raise InputError(f"recipe.{name} is {shown(value)}; allowed: {allowed[name]}")


def _ever_allowed(allowed: Allowed) -> Allowed:
    """The values that any version has allowed; earlier ones had no upper ends."""
    return allowed if isinstance(allowed, OneOf) else dataclasses.replace(allowed, high=MAX_WHOLE)


def _check_domain(domain: Domain, allowed: Allowed) -> None:
    """Checks the type of the domain's values; `new_study` checks the values."""
    if isinstance(domain, Float) and not isinstance(allowed, Real):
        raise SpaceError(f"it is {domain}; allowed: {allowed}")


def is_name(text: str) -> bool:
    """Whether `text` is safe as a file name and as an experiment's name."""
    return _NAME.fullmatch(text) is not None


def verdict_name(study: str) -> str:
    """The name of the verdict on a study, which links the two."""
    return study + VERDICT_ENDING


def check_name(name: str, what: str) -> str:
    """Returns `name` if it is one.

    Raises:
        InputError: it is not.
    """
    if not is_name(name):
        raise InputError(f"{what} is {shown(name)}; allowed: {NAMES}")
    return name


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
