"""From a sweep file to the settings of a study, in Python and by the command: the same settings can be replaced."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.study.options import Option
from harness.support import home as places

if TYPE_CHECKING:
    from harness.study.settings import Engine, Objective, Precision
    from harness.study.spec import SweepSpec


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
    from harness.study.settings import Flags
    from harness.study.sweep_file import load_sweep as load
    from harness.study.sweep_file import validated

    del given["sweep"]
    spec = load(sweep_path(str(sweep)), validated(Flags, given, "load_sweep"), default_profile())
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
    from harness.study.settings import Flags
    from harness.study.sweep_file import baseline_spec, validated

    if baseline not in baselines.NAMES:
        raise InputError(f"baseline is {baseline!r}; allowed: {', '.join(map(repr, baselines.NAMES))}")
    flags = {"dataset": dataset, "seed": seed, "profile": profile, "precision": precision}
    return baseline_spec(baseline, validated(Flags, flags, "load_baseline"), seeds, default_profile())


def sweep_options() -> tuple[Option, ...]:
    """The arguments of `load_sweep`, as options of `harness sweep`; a test compares the two."""
    from harness.search.samplers import PRUNERS, SAMPLERS

    engines = dict.fromkeys(entry.engine for entry in SAMPLERS)
    samplers = {engine: ", ".join(entry.name for entry in SAMPLERS if entry.engine == engine) for engine in engines}
    by_engine = "; ".join(f"by {engine} {names}" for engine, names in samplers.items())
    pruners = ", ".join(entry.name for entry in PRUNERS)
    return (
        Option("engine", " or ".join(engines)),
        Option("sampler", f"how configurations are proposed: {by_engine}"),
        Option("pruner", f"which running trials are stopped early: {pruners}"),
        Option("objective", "error, or error,device_time for a Pareto front", "A[,B]"),
        Option("trials", "stop after N searched trials in total", "N", kind=int),
        Option("budget", "stop after this time in total, such as 90s, 15m or 2h", "15m"),
        Option("enqueue", "configurations to try first, as [[trial]] tables", "FILE.toml"),
        Option("learn_from", "give the finished trials of a study to the sampler", "STUDY"),
        Option("study", "name of the study", "STUDY", flag="as"),
        Option("profile", "a profile of the sweep file (default: full with a GPU, quick without)"),
        Option("dataset", "mnist, digits (small, needs no download), or the path of an .npz file"),
        Option("seed", "seed of the search and of the first training", "N", kind=int),
        Option(
            "precision",
            "auto, float32 or bfloat16 (default: auto, which is bfloat16 where the device multiplies it in hardware)",
        ),
    )


def baseline_options() -> tuple[Option, ...]:
    """Those of `sweep_options` that `load_baseline` takes as well."""
    taken = inspect.signature(load_baseline).parameters
    return tuple(option for option in sweep_options() if option.name in taken)


def sweep_path(sweep: str) -> Path:
    """The path of a file in `sweeps/`, by its name, or any path."""
    bare = places.sweeps_folder() / f"{sweep}.toml"
    is_known = Path(sweep).name == sweep and os.path.isfile(bare)  # noqa: PTH113 - Path.is_file raises for long names
    return bare if is_known else Path(sweep)


def default_profile() -> str:
    """The default profile: full with a GPU, quick without."""
    from harness.execution.machine.devices import this_machine

    return "full" if this_machine().gpu_names else "quick"
