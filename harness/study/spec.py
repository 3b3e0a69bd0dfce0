"""The settings of one study, all resolved."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from pydantic import ValidationError, model_validator

import baselines
from baselines.layers import Cost, Task
from baselines.recipe import Recipe
from baselines.settings import Allowed, OneOf, Real
from harness.errors import InputError
from harness.study import network as networks
from harness.study.data import OwnData, Sizes, facts_of
from harness.study.records import Params, Scalar
from harness.study.settings import MAX_WHOLE, Constraints, Decides, Kind, Settings, settings_that_decide
from harness.study.space import Domain, Float, SearchSpace, SpaceError, domain_from_toml
from harness.support.strict_json import explain, shown, shown_key

NAMES = "1 to 64 letters, digits, '.', '_' or '-', not starting with '.'"

ABLATION_ENDING = ".ablation"  # of an ablation's name, after the name of the study whose best it is about
VERDICT_ENDING = ".verdict"  # of a verdict's name, after the name of the tested study

# Endings that the harness appends do not count for the 64 characters, so every name can have them.
_DATED = r"\.\d{8}-\d{6}"  # the time when a study was renamed for a new one of its name
_ABLATION = f"(?:{re.escape(ABLATION_ENDING)})?"  # before the date if it alone was renamed, behind it with its study
_ENDINGS = f"{_ABLATION}(?:{_DATED})?{_ABLATION}(?:{re.escape(VERDICT_ENDING)})?"
_NAME = re.compile(rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,63}}{_ENDINGS}")


class SweepSpec(Settings):
    """One study: its settings, checked, and what follows from them."""

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
            TroubleError: it is a user's own that was never run here, or fails now; only the study can be read.
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
        return self.network is None or networks.has_code(self.network)

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


def ablation_name(study: str) -> str:
    """The name of the ablation of a study's best configuration."""
    return study + ABLATION_ENDING


def with_derived(study: str) -> list[str]:
    """The name of a study, and the names of its verdict, its ablation, and the verdict on that."""
    return [name for one in (study, ablation_name(study)) for name in (one, verdict_name(one))]


def check_name(name: str, what: str) -> str:
    """Returns `name` if it is one.

    Raises:
        InputError: it is not.
    """
    if not is_name(name):
        raise InputError(f"{what} is {shown(name)}; allowed: {NAMES}")
    return name
