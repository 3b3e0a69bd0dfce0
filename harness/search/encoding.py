"""The encoding of values for both engines: choices and stepped real numbers by position, other numbers unchanged.

Positions are exact. Real numbers with a step are not, because each engine computes them differently (0.1 * 3 or 0.3).
KerasTuner also turns true and false into 1 and 0.
"""

from __future__ import annotations

from harness.study.records import Params, Scalar
from harness.study.space import Choice, Domain, Float, SearchSpace

Code = int | float


def encode(domain: Domain, value: Scalar) -> Code:
    """The code of a value that lies in `domain`."""
    if isinstance(domain, Choice):
        return next(i for i, option in enumerate(domain.options) if option == value)
    if isinstance(value, str):
        raise TypeError(f"value is {value!r}; allowed: {domain}")
    if isinstance(domain, Float) and domain.step is not None:
        return domain.position(value)
    return value


def decode(domain: Domain, code: Code) -> Scalar:
    """The value of a code; codes just outside the domain (KerasTuner's rounding) become its ends."""
    if isinstance(domain, Choice):
        return domain.options[int(code)]
    if isinstance(domain, Float):
        return min(domain.high, max(domain.low, float(code))) if domain.step is None else domain.value_at(int(code))
    return min(domain.high, max(domain.low, int(code)))


def encode_all(space: SearchSpace, params: Params) -> dict[str, Code]:
    return {name: encode(space.domains[name], value) for name, value in params.items()}


def identity(space: SearchSpace, params: Params) -> tuple[tuple[str, Code], ...]:
    """Equal for equal configurations of both engines, despite rounding."""
    return tuple(sorted(encode_all(space, params).items()))
