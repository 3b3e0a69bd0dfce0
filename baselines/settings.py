"""Marks of fields: the allowed values of a setting, declared with its default, and the ledger's version that added it.

`layers: Annotated[int, Whole(1, 3)] = 2`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, get_type_hints

M = TypeVar("M")


@dataclass(frozen=True)
class Whole:
    """Whole numbers, both ends included; `note` explains the upper end."""

    low: int
    high: int
    note: str = ""

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"whole numbers {self.low} to {self.high}{self.note and f', {self.note}'}"


@dataclass(frozen=True)
class Real:
    """Real numbers from `low` to `high`; the flags exclude the ends."""

    low: float
    high: float
    is_above_low: bool = False
    is_below_high: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return not (self.is_above_low and value == self.low) and not (self.is_below_high and value == self.high)

    def __str__(self) -> str:
        low, high = f"{'above ' * self.is_above_low}{self.low:g}", f"{'below ' * self.is_below_high}{self.high:g}"
        return f"numbers {low} to {high}"


@dataclass(frozen=True)
class OneOf:
    """The listed values."""

    options: tuple[str | bool, ...]

    def __contains__(self, value: object) -> bool:
        return any(type(option) is type(value) and option == value for option in self.options)

    def __str__(self) -> str:
        return ", ".join(str(one).lower() if isinstance(one, bool) else one for one in self.options)


Allowed = Whole | Real | OneOf


@dataclass(frozen=True)
class Since:
    """Marks a field that was added to a record of the ledger: `driver: Annotated[str, Since(5)] = ""`.

    Rows of ledgers before this version are read with the field's default, which describes how it was then.
    """

    # It stands here because fields of the recipe may be marked, and `baselines` imports nothing from the harness.

    version: int


@dataclass(frozen=True)
class Needs:
    """Marks a setting that has an effect only while another has one of these values.

    `kernel_3: Annotated[int, Whole(1, 7), Needs("stages", (3,))] = 3`
    """

    setting: str
    values: tuple[int | str | bool, ...]


YES_OR_NO = OneOf((True, False))


def marked(record: type, kind: type[M]) -> dict[str, M]:
    """The marks of one kind in the annotations of a dataclass, by field."""
    hints = get_type_hints(record, include_extras=True)
    found = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: mark for name, marks in found.items() for mark in marks if isinstance(mark, kind)}


def declared(settings: type) -> dict[str, Allowed]:
    """The allowed values of each field of a dataclass that states them."""
    hints = get_type_hints(settings, include_extras=True)
    marks = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: mark for name, found in marks.items() for mark in found[:1] if isinstance(mark, Allowed)}
