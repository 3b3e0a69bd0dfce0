"""Options of the command that follow from a declaration elsewhere: those of sweeps and those of executors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """An option of the command.

    Attributes:
        name: The field of `Flags` (`harness.study.settings`) or of an executor, which checks it.
        help: One line for `--help`.
        metavar: How the help shows its value; None: as the flag.
        flag: The flag without its dashes, where it is not the name.
        kind: Type of its value on the command line.
    """

    name: str
    help: str
    metavar: str | None = None
    flag: str = ""
    kind: type[int | float | str] = str

    @property
    def long_flag(self) -> str:
        return f"--{self.flag or self.name.replace('_', '-')}"
