"""The options of a sweep: each once, for the command, for Python and for make.

Executors list options of the same type (`harness.execution.executors`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """An option of the command. One of a sweep replaces a setting of the sweep file, and `sweep_file.Flags` checks it.

    Attributes:
        name: The field of `sweep_file.Flags` or of an executor, and the argument in Python.
        help: One line for `--help`.
        metavar: How the help shows its value; None: as the flag.
        flag: The flag without its dashes, where it is not the name.
        kind: Type of its value on the command line.
        choices: Its values, for shells that complete them; what takes the value checks it.
        is_for_baselines: Whether `harness baseline` has it too, for one of a sweep.
    """

    name: str
    help: str
    metavar: str | None = None
    flag: str = ""
    kind: type[int | float | str] = str
    is_for_baselines: bool = False
    choices: tuple[str, ...] = ()

    @property
    def long_flag(self) -> str:
        return f"--{self.flag or self.name.replace('_', '-')}"


SWEEP_OPTIONS = (
    Option("engine", "optuna or keras-tuner", choices=("optuna", "keras-tuner")),
    Option(
        "sampler",
        "how configurations are proposed: by optuna tpe, random, qmc, grid, nsga2, cmaes, gp; by keras-tuner random,"
        " bayesian, hyperband, grid",
        choices=("tpe", "random", "qmc", "grid", "nsga2", "cmaes", "gp", "bayesian", "hyperband"),
    ),
    Option(
        "pruner",
        "which running trials are stopped early: none, median, percentile, successive_halving, hyperband",
        choices=("none", "median", "percentile", "successive_halving", "hyperband"),
    ),
    Option("objective", "error, or error,device_time for a Pareto front", "A[,B]"),
    Option("trials", "stop after N searched trials in total", "N", kind=int),
    Option("budget", "stop after this time in total, such as 90s, 15m or 2h", "15m"),
    Option("enqueue", "configurations to try first, as [[trial]] tables", "FILE.toml"),
    Option("learn_from", "give the finished trials of a study to the sampler", "STUDY"),
    Option("study", "name of the study", "STUDY", flag="as"),
    Option("profile", "a profile of the sweep file (default: full with a GPU, quick without)", is_for_baselines=True),
    Option(
        "dataset",
        "mnist, digits (small, needs no download), or the path of an .npz file",
        is_for_baselines=True,
        choices=("mnist", "digits"),
    ),
    Option("seed", "seed of the search and of the first training", "N", kind=int, is_for_baselines=True),
    Option(
        "precision",
        "auto, float32 or bfloat16 (default: auto, which is bfloat16 where the device multiplies it in hardware)",
        is_for_baselines=True,
        choices=("auto", "float32", "bfloat16"),
    ),
)
