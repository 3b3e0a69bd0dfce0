"""The options of a sweep: each once, for the command, for Python and for make."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """An option that replaces a setting of the sweep file. Its type is that of the field of `sweep_file.Flags`.

    Attributes:
        name: The field, and the argument of `harness.load_sweep`.
        help: One line for `harness sweep --help`.
        metavar: How the help shows its value; None: as the flag.
        flag: The flag without its dashes, where it is not the name.
        is_whole: Whether the command line has to give a whole number.
        is_for_baselines: Whether `harness baseline` has it too.
    """

    name: str
    help: str
    metavar: str | None = None
    flag: str = ""
    is_whole: bool = False
    is_for_baselines: bool = False

    @property
    def long_flag(self) -> str:
        return f"--{self.flag or self.name.replace('_', '-')}"


SWEEP_OPTIONS = (
    Option("engine", "optuna or keras-tuner"),
    Option("sampler", "how configurations are proposed"),
    Option("pruner", "which running trials are stopped early"),
    Option("objective", "error, or error,device_time for a Pareto front", "A[,B]"),
    Option("trials", "stop after N searched trials in total", "N", is_whole=True),
    Option("budget", "stop after this time in total, such as 90s, 15m or 2h", "15m"),
    Option("enqueue", "configurations to try first, as [[trial]] tables", "FILE.toml"),
    Option("learn_from", "give the finished trials of a study to the sampler", "STUDY"),
    Option("study", "name of the study", "STUDY", flag="as"),
    Option("profile", "a profile of the sweep file (default: full with a GPU, quick without)", is_for_baselines=True),
    Option("dataset", "mnist, or digits (small, needs no download)", is_for_baselines=True),
    Option("seed", "seed of the search and of the first training", "N", is_whole=True, is_for_baselines=True),
    Option(
        "precision",
        "auto, float32 or bfloat16 (default: auto, which is bfloat16 where the device multiplies it in hardware)",
        is_for_baselines=True,
    ),
)
