"""Sweep files in TOML, combined with the command's flags."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

import baselines
from baselines.recipe import RECIPE
from harness.errors import InputError
from harness.study.data import OwnData, Sizes, facts_of
from harness.study.network import OwnNetwork, read_network
from harness.study.new_study import check_new
from harness.study.records import Scalar
from harness.study.settings import (
    DATA_ENDING,
    MAX_WHOLE,
    NETWORK_ENDING,
    Budget,
    Constraints,
    Engine,
    Flags,
    Kind,
    Profile,
    SweepFile,
    parse_duration_s,
)
from harness.study.spec import VERDICT_ENDING, SweepSpec, check_name
from harness.support.given_files import open_given
from harness.support.home import sweeps_folder
from harness.support.strict_json import check_count, explain, shown
from harness.support.suggestions import did_you_mean

M = TypeVar("M", bound=BaseModel)

MAX_FILE_BYTES = 1_000_000

DEFAULT_SAMPLER = {"optuna": "tpe", "keras-tuner": "bayesian"}
DEFAULT_PRUNER = {"optuna": "percentile", "keras-tuner": "none"}

# Settings of the file that a flag replaces, and those that become settings of the study as they are.
_WITH_FLAGS = tuple(name for name in SweepFile.model_fields if name in Flags.model_fields)
_AS_IN_THE_FILE = tuple(
    name for name in SweepFile.model_fields if name in SweepSpec.model_fields and name not in (*_WITH_FLAGS, "recipe")
)
# How a study's name shows a setting that a flag has changed; others as `name-value`.
_LABELS = dict.fromkeys(("dataset", "engine", "sampler", "objective", "precision"), "{}") | {
    "pruner": "{}-pruner",
    "seed": "seed{}",
}


def load_sweep(path: Path, flags: Flags, default_profile: str) -> SweepSpec:
    """Reads a sweep file, applies the flags, and checks the result.

    Args:
        path: The TOML file.
        flags: The flags of the command line.
        default_profile: The profile if no flag names one; the file's first if it has none of that name.

    Raises:
        InputError: one line with the file, the key, its value and what is allowed.
    """
    file = read_sweep_file(path)
    default = default_profile if default_profile in file.profiles else next(iter(file.profiles))
    profile_name = default if flags.profile is None else flags.profile
    if profile_name not in file.profiles:
        raise InputError(
            f"--profile is {shown(profile_name)}; allowed by {path}: {', '.join(map(shown, file.profiles))}"
        )
    profile = file.profiles[profile_name]
    search = _search_settings(file, flags)
    network, data = _own_network(path, file.baseline), _own_data(path, file, flags)
    dataset = data.name if data else search["dataset"]
    spec = validated(
        SweepSpec,
        {
            **search,
            **{key: getattr(file, key) for key in _AS_IN_THE_FILE},
            "baseline": network.name if network else file.baseline,
            "network": network,
            "dataset": dataset,
            "own_data": data,
            **_fidelity(profile, facts_of(dataset, data).sizes),
            "study": _checked_name(
                _study_name(path, file, profile_name, search, flags) if flags.study is None else flags.study
            ),
            "profile": profile_name,
            "full_epochs": file.profiles["full"].epochs if "full" in file.profiles else None,
            "enqueue": () if flags.enqueue is None else _enqueued(flags.enqueue),
            "learn_from": None if flags.learn_from is None else check_name(flags.learn_from, "learn_from"),
            "recipe": {**dataclasses.asdict(RECIPE), **file.recipe},
            "trial_timeout_s": None if file.trial_timeout is None else parse_duration_s(file.trial_timeout),
            "budget": _budget(profile, flags),
        },
        str(path),
    )
    try:
        check_new(spec)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return spec


def baseline_spec(baseline: baselines.Name, flags: Flags, seeds: int | None, default_profile: str) -> SweepSpec:
    """The study of `harness baseline`: the documented configuration alone, with several seeds, test images read.

    The work per seed is that of the sweep file of the same name, so that the two can be compared.

    Raises:
        InputError: as `load_sweep`.
    """
    check_count("--seeds", seeds, MAX_WHOLE)
    spec = load_sweep(sweeps_folder() / f"{baseline}.toml", flags, default_profile)
    return spec.changed(
        study=f"baseline-{spec.study}",
        kind=Kind.BASELINE,
        space={},
        constraints=Constraints(),
        pruner="none",
        prior="none",
        reads_test=True,
        budget=Budget(trials=0),
        baseline_seeds=spec.baseline_seeds if seeds is None else seeds,
    )


def read_sweep_file(path: Path) -> SweepFile:
    """The file's own settings.

    Raises:
        InputError: one line with the file, the key, its value and what is allowed.
    """
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where the name is too long
        known = sorted(p.stem for p in sweeps_folder().glob("*.toml"))
        allowed = f"allowed: a TOML file or one of {', '.join(known)}{did_you_mean(str(path), known)}"
        raise InputError(f"sweep is {shown(str(path))}, which is not there; {allowed}")
    return validated(SweepFile, _read_toml(path), str(path))


def validated(model: type[M], data: dict[str, Any], source: str) -> M:
    """`data` as a `model`; `source` opens the message.

    Raises:
        InputError: one line that names the first wrong key, its value and what is allowed.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{source}: {_one_line(model, error)}") from None


def given_flags(given: dict[str, Any], long_flags: Mapping[str, str]) -> Flags:
    """The flags of the command line, by the names of their options; `long_flags` as people write them.

    Raises:
        InputError: one line that names the first wrong flag, its value and what is allowed.
    """
    try:
        return Flags.model_validate(given)
    except ValidationError as error:
        raise InputError(explain(error, long_flags)) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with open_given(path) as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise InputError(f"{path} is too large; allowed: a TOML file of at most {MAX_FILE_BYTES} bytes")
        return tomllib.loads(content.decode("utf-8-sig"))  # some editors write a byte order mark
    except RecursionError:
        raise InputError(f"{path} is nested too deeply; allowed: a TOML file such as those in sweeps/") from None
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; allowed: a TOML file") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}; allowed: a TOML file in UTF-8") from None


def _enqueued(path: Path) -> tuple[dict[str, Scalar], ...]:
    """The [[trial]] tables of a file."""
    data = _read_toml(path)
    if list(data) != ["trial"] or not isinstance(data["trial"], list):
        raise InputError(
            f"{path}: keys are {', '.join(map(shown, data))}; allowed: [[trial]] tables of hyperparameters"
        )
    return tuple(data["trial"])


def _own_network(sweep: Path, baseline: str) -> OwnNetwork | None:
    """The network of a file that the sweep file names; its path is relative to the sweep file."""
    return read_network(sweep.parent / baseline) if baseline.endswith(NETWORK_ENDING) else None


def _own_data(sweep: Path, file: SweepFile, flags: Flags) -> OwnData | None:
    """The data set of a file, whose path is relative to the sweep file, or if it is a flag's to the working folder."""
    path = sweep.parent / file.dataset if flags.dataset is None else Path(flags.dataset)
    if path.suffix != DATA_ENDING:
        return None
    from harness.study.own_data import read_data

    return read_data(path)


def _search_settings(file: SweepFile, flags: Flags) -> dict[str, Any]:
    engine: Engine = _first(flags.engine, file.engine)
    objective = _first(flags.objective, file.objective)
    sampler = _first(flags.sampler, file.sampler if engine == file.engine else None, DEFAULT_SAMPLER[engine])
    # The file's pruner was chosen for the file's engine and objective; it is not used with others.
    keeps_pruner = engine == file.engine and objective == file.objective
    default_pruner = DEFAULT_PRUNER[engine] if len(objective) == 1 else "none"
    pruner = _first(flags.pruner, file.pruner if keeps_pruner else None, default_pruner)
    others = {
        name: _first(getattr(flags, name), getattr(file, name))
        for name in _WITH_FLAGS
        if name not in ("sampler", "pruner")
    }
    return {**others, "sampler": sampler, "pruner": pruner}


def _first(*values: Any) -> Any:
    """The first value that is not None; 0 and an empty text count."""
    return next(value for value in values if value is not None)


def _study_name(path: Path, file: SweepFile, profile: str, search: dict[str, Any], flags: Flags) -> str:
    """The study's name: file, profile and the changed flags, so that another study has another name."""
    plain = _search_settings(file, Flags())
    changed = {key for key in search if search[key] != plain[key]}
    if "engine" in changed:
        changed.add("sampler")
    if flags.pruner is None:
        changed.discard("pruner")
    return "-".join([path.stem, profile, *(_label(key, search[key]) for key in _WITH_FLAGS if key in changed)])


def _label(name: str, value: Any) -> str:
    if name == "dataset":
        value = Path(value).stem
    return _LABELS.get(name, f"{name}-{{}}").format("-".join(value) if isinstance(value, tuple) else value)


def _checked_name(study: str) -> str:
    if study.endswith(VERDICT_ENDING):
        raise InputError(
            f"study is {shown(study)}; allowed: a name that does not end in {VERDICT_ENDING}, as those of verdicts do"
        )
    return check_name(study, "study")


def _fidelity(profile: Profile, sizes: Sizes) -> dict[str, int]:
    return {
        "epochs": profile.epochs,
        "train_images": min(profile.train_images, sizes["train"]),
        "validation_images": min(profile.validation_images, sizes["validation"]),
        "baseline_seeds": profile.baseline_seeds,
    }


def _budget(profile: Profile, flags: Flags) -> dict[str, float | int | None]:
    wall, device = flags.budget if flags.budget is not None else profile.budget, profile.device_budget
    return {
        "trials": _first(flags.trials, profile.trials),
        "wall_s": None if wall is None else parse_duration_s(wall),
        "device_s": None if device is None else parse_duration_s(device),
        "finalists_share": profile.finalists_share,
    }


def _one_line(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] != "extra_forbidden":
        return explain(error)
    sections: dict[str, type[BaseModel]] = {"constraints": Constraints, "profiles": Profile}
    owner = sections[str(first["loc"][0])] if len(first["loc"]) > 1 else model
    return f"{explain(error)}; allowed: {', '.join(owner.model_fields)}"
