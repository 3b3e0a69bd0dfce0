"""JSON and other data read strictly as one of our types: what is missing, unknown or of another type is refused."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

MAX_SHOWN = 80  # characters of a value in a message


def parse_json(kind: type[T], text: str | bytes) -> T:
    """`text` as a `kind`: a dataclass, a model, or any other type that is spelled out.

    Raises:
        ValueError: one line that names the key, its value and what is allowed.
    """
    try:
        parsed: T = _adapter(cast(Any, kind)).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        raise ValueError(explain(error)) from None
    return parsed


def explain(error: ValidationError) -> str:
    """The first thing that is wrong, as one line: the key, its value and what is allowed."""
    first = error.errors(include_url=False, include_context=False)[0]
    key = _path(first["loc"])
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{key} is unknown"
    if first["type"] in ("missing", "missing_argument"):
        return f"{key} is missing; it must be set"
    if first["type"] == "json_invalid":
        return f"not JSON ({reason.removeprefix('Invalid JSON: ')})"
    if "; allowed: " in reason:
        return f"{key}: {reason}" if key else reason
    return f"{key or 'the value'} is {shown(first['input'])}; allowed: {reason}"


def shown(value: object) -> str:
    """`value` on one line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _path(keys: tuple[int | str, ...]) -> str:
    """`profiles.quick.epochs`; a key that is no plain word is quoted."""
    return ".".join(str(key) if re.fullmatch(r"[\w-]{1,64}", str(key)) else shown(key) for key in keys)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
