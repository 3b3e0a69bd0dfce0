"""From a sweep file to the settings of a study, as in Python and by the command."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.support import home as places

if TYPE_CHECKING:
    from harness.study.spec import Engine, Objective, Precision, SweepSpec


def load_sweep(
    sweep: str | Path,
    *,
    engine: Engine | None = None,
    sampler: str | None = None,
    pruner: str | None = None,
    objective: Sequence[Objective] | None = None,
    dataset: str | None = None,
    seed: int | None = None,
    trials: int | None = None,
    budget: str | None = None,
    profile: str | None = None,
    study: str | None = None,
    enqueue: str | Path | None = None,
    learn_from: str | None = None,
    precision: Precision | None = None,
) -> SweepSpec:
    """Reads a sweep file and checks all of it. Arguments that are not None replace settings of the file.

    Settings that cannot be combined, such as a sampler with a space that it cannot search, are refused here. What
    depends on other studies is checked by `run_sweep`: `learn_from`, and whether the study has begun otherwise.

    Args:
        sweep: Name of a file in `sweeps/`, such as "cnn", or path of a sweep file. A network or data set of one's own
            that the file names is read and checked as well (docs/own-network.md).
        engine: "optuna" or "keras-tuner".
        sampler: How configurations are proposed; the README lists the samplers of both engines.
        pruner: Which running trials are stopped early.
        objective: ("error",), or ("error", "device_time") for a Pareto front.
        dataset: "mnist", "digits", which is small and needs no download, or the path of an `.npz` file
            (docs/own-network.md).
        seed: Seed of the search and of the first training.
        trials: Stop after this number of searched trials in total.
        budget: Stop after this wall time over all sessions: "90s", "15m", "2h".
        profile: A profile of the file, such as "quick" or "full"; None: full with a GPU, quick without.
        study: The study's name; None: made from the file, the profile and the changed settings.
        enqueue: A TOML file of configurations to try first.
        learn_from: A study whose finished trials the sampler gets.
        precision: "float32", "bfloat16", or "auto" for bfloat16 where the device multiplies it in hardware.

    Returns:
        The study with all settings resolved, a frozen record; nothing is written.

    Raises:
        InputError: one line with the setting, its value and the allowed values.
    """
    given = dict(locals())
    from harness.search import catalogue
    from harness.study.options import SWEEP_OPTIONS
    from harness.study.sweep_file import Flags, validated
    from harness.study.sweep_file import load_sweep as load

    flags = {option.name: given[option.name] for option in SWEEP_OPTIONS}
    spec = load(sweep_path(str(sweep)), validated(Flags, flags, "load_sweep"), default_profile())
    catalogue.check(spec)
    return spec


def load_baseline(
    baseline: str,
    *,
    seeds: int | None = None,
    dataset: str | None = None,
    seed: int | None = None,
    profile: str | None = None,
    precision: Precision | None = None,
) -> SweepSpec:
    """The study of a documented network alone, for `run_sweep`: `harness baseline`.

    Its trainings also read the test images.

    Args:
        baseline: "fc" or "cnn".
        seeds: Number of seeds; None: that of the profile.
        dataset: As in `load_sweep`.
        seed: The first seed.
        profile: A profile of the sweep file of the same name.
        precision: As in `load_sweep`.

    Raises:
        InputError: one line with the setting, its value and the allowed values.
    """
    import baselines
    from harness.errors import InputError
    from harness.study.sweep_file import Flags, baseline_spec, validated

    if baseline not in baselines.NAMES:
        raise InputError(f"baseline is {baseline!r}; allowed: {', '.join(map(repr, baselines.NAMES))}")
    flags = {"dataset": dataset, "seed": seed, "profile": profile, "precision": precision}
    return baseline_spec(baseline, validated(Flags, flags, "load_baseline"), seeds, default_profile())


def sweep_path(sweep: str) -> Path:
    """The path of a file in `sweeps/`, by its name, or any path."""
    bare = places.sweeps_folder() / f"{sweep}.toml"
    is_known = Path(sweep).name == sweep and os.path.isfile(bare)  # noqa: PTH113 - Path.is_file raises for long names
    return bare if is_known else Path(sweep)


def default_profile() -> str:
    """The default profile: full with a GPU, quick without."""
    from harness.execution.machine.devices import this_machine

    return "full" if this_machine().gpu_names else "quick"
