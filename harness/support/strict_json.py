"""Strict parsing of JSON and other data as a type: missing keys, unknown keys and wrong types are refused."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from harness.errors import InputError

T = TypeVar("T")


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple = 3, 16, 16
        self.maxstring = self.maxother = 80

    def repr_int(self, x: int, level: int) -> str:
        # Python itself refuses to write out thousands of digits.
        return repr(x) if abs(x) < 10**40 else f"{'-' if x < 0 else ''}10**{math.log10(abs(x)):.0f}"


_SHORT = _Short()


def parse_json(kind: type[T], text: str | bytes) -> T:
    """Parses `text` as a `kind`: a dataclass, a model, or another concrete type.

    Raises:
        ValueError: one line that names the key, its value and what is allowed.
    """
    try:
        parsed: T = _adapter(cast(Any, kind)).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        raise ValueError(explain(error)) from None
    return parsed


def explain(error: ValidationError, flags: Mapping[str, str] = MappingProxyType({})) -> str:
    """The first error, as one line: the key, or its flag in `flags`, its value and what is allowed."""
    first = error.errors(include_url=False, include_context=False)[0]
    loc = first["loc"]
    key = flags[str(loc[0])] if loc and loc[0] in flags else ".".join(map(shown_key, loc))
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "path_type":
        reason = "a path"
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{key} is unknown"
    if first["type"] in ("missing", "missing_argument"):
        return f"{key} is missing; it must be set"
    if first["type"] == "json_invalid":
        return f"not JSON ({reason.removeprefix('Invalid JSON: ')})"
    if first["type"] == "value_error":  # an own check with a complete message
        return f"{key}: {reason}" if key else reason
    return f"{key or 'the value'} is {shown(first['input'])}; allowed: {reason}"


def check_count(flag: str, number: int | None, most: int) -> None:
    """Raises InputError if `flag` is given and not an integer from 1 to `most`."""
    if number is None:
        return
    if type(number) is not int or not 1 <= number <= most:  # True is no number
        raise InputError(f"{flag} is {shown(number)}; allowed: 1 to {most}")


def shown(value: object) -> str:
    """`value` on one line, truncated if it is long or deep."""
    return _SHORT.repr(value)


def shown_key(key: int | str) -> str:
    """Like `shown`, but plain words are not quoted."""
    return str(key) if re.fullmatch(r"[\w-]{1,64}", str(key)) else shown(key)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
