"""Search spaces: named domains, converted for each engine."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeGuard

from harness.errors import InputError
from harness.study.records import Params, Scalar
from harness.support.strict_json import shown, shown_key

When = Mapping[str, tuple[Scalar, ...]]

MAX_NUMBER = 1e9  # bound of ranges; no setting is larger, and no engine's arithmetic fails below it
MAX_STEPS = 1_000_000  # of a range of real numbers, because its values are listed
TOLERANCE = 1e-9  # relative; libraries compute values with a step differently


class SpaceError(InputError):
    """A domain that cannot be searched, or a value outside its domain. The message is one line."""


@dataclass(frozen=True)
class Int:
    """Whole numbers low, low + step, ... up to high; `log`: uniform on a logarithmic scale (step must be 1)."""

    low: int
    high: int
    step: int = 1
    log: bool = False
    when: When = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.log)
        if self.step < 1:
            raise SpaceError(f"step is {self.step}; allowed: at least 1")
        if self.log and self.step != 1:
            raise SpaceError(f"step is {self.step} with log = true; allowed: step 1")
        if (self.high - self.low) % self.step:
            raise SpaceError(f"high is {self.high}; allowed: low {self.low} plus a multiple of step {self.step}")

    def __contains__(self, value: object) -> bool:
        return _is_int(value) and self.low <= value <= self.high and (value - self.low) % self.step == 0

    def values(self) -> Sequence[int] | None:
        return range(self.low, self.high + 1, self.step)

    def sample(self, rng: random.Random) -> int:
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return min(self.high, max(self.low, round(math.exp(rng.uniform(low, high)))))
        return rng.randrange(self.low, self.high + 1, self.step)

    def __str__(self) -> str:
        return f"whole numbers {self.low} to {self.high}" + (f" in steps of {self.step}" if self.step > 1 else "")


@dataclass(frozen=True)
class Float:
    """Real numbers from low to high; with `step`, only low, low + step, ...; `log`: uniform on a logarithmic scale."""

    low: float
    high: float
    step: float | None = None
    log: bool = False
    when: When = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.log)
        if self.step is not None and self.step <= 0:
            raise SpaceError(f"step is {self.step}; allowed: more than 0")
        if self.step is not None and self.log:
            raise SpaceError(f"step is {self.step} with log = true; allowed: no step")
        if self.step is not None and (self.high - self.low) / self.step > MAX_STEPS:
            raise SpaceError(f"step is {self.step}; allowed: at most {MAX_STEPS} steps from {self.low} to {self.high}")
        if self.step is not None and not _is_multiple(self.high - self.low, self.step):
            raise SpaceError(f"high is {self.high}; allowed: low {self.low} plus a multiple of step {self.step}")

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.step is None:
            return self.low <= value <= self.high
        slack = TOLERANCE * self.step
        if not self.low - slack <= value <= self.high + slack:
            return False
        return math.isclose(value, self.snap(value), rel_tol=TOLERANCE, abs_tol=slack)

    def values(self) -> Sequence[float] | None:
        if self.step is None:
            return None if self.low < self.high else (self.low,)
        return tuple(map(self.value_at, range(self.num_steps + 1)))

    @property
    def num_steps(self) -> int:
        """Number of steps from low to high; 0 without a step."""
        return 0 if self.step is None else round((self.high - self.low) / self.step)

    def position(self, value: float) -> int:
        """Steps from low to the nearest value; only for a range with a step."""
        return 0 if self.step is None else min(self.num_steps, max(0, round((value - self.low) / self.step)))

    def value_at(self, position: int) -> float:
        """The inverse of `position`; all values of a range with a step are computed here."""
        step = self.step or 0.0
        value = self.low + position * step
        # 12 digits turn 0.1 * 3 into 0.3, and -0.3 + 0.1 * 3 into 0.
        value = 0.0 if abs(value) < TOLERANCE * step else float(f"{value:.12g}")
        return min(self.high, max(self.low, value))

    def snap(self, value: float) -> float:
        """The nearest value of the domain, which is equal for different computations of one value."""
        return value if self.step is None else self.value_at(self.position(value))

    def sample(self, rng: random.Random) -> float:
        if self.step is not None:
            return self.value_at(rng.randrange(self.num_steps + 1))
        if self.log:
            return min(self.high, max(self.low, math.exp(rng.uniform(math.log(self.low), math.log(self.high)))))
        return rng.uniform(self.low, self.high)

    def __str__(self) -> str:
        return f"numbers {self.low} to {self.high}" + (f" in steps of {self.step}" if self.step else "")


@dataclass(frozen=True)
class Choice:
    """One of the listed values, all of one type, without order."""

    options: tuple[Scalar, ...]
    when: When = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.options:
            raise SpaceError("values is empty; allowed: at least one value")
        if not all(map(_is_scalar, self.options)):
            raise SpaceError(
                f"values is {shown(list(self.options))}; allowed: numbers of at most 64 bits, text, true and false"
            )
        if len({(type(o), o) for o in self.options}) < len(self.options):
            raise SpaceError(f"values is {shown(list(self.options))}; allowed: each value once")
        if len({type(o) for o in self.options}) > 1:
            raise SpaceError(f"values is {shown(list(self.options))}; allowed: values of one type")

    def __contains__(self, value: object) -> bool:
        return any(type(o) is type(value) and o == value for o in self.options)

    def values(self) -> Sequence[Scalar] | None:
        return self.options

    def sample(self, rng: random.Random) -> Scalar:
        return rng.choice(self.options)

    def __str__(self) -> str:
        return f"one of {shown(list(self.options))[1:-1]}"


Domain = Int | Float | Choice


@dataclass(frozen=True)
class SearchSpace:
    """Domains by hyperparameter name, in the order of the sweep file.

    A domain with `when = {other: (values)}` is active only where `other` is active and has one of the values;
    `other` must come earlier.
    """

    domains: Mapping[str, Domain]

    def __post_init__(self) -> None:
        for name, domain in self.domains.items():
            for parent, values in domain.when.items():
                self._check_condition(name, parent, values)

    def _check_condition(self, name: str, parent: str, values: tuple[Scalar, ...]) -> None:
        names = list(self.domains)
        if parent not in names[: names.index(name)]:
            earlier = ", ".join(names[: names.index(name)]) or "none"
            raise SpaceError(f"{name}: when names {shown(parent)}; allowed: an earlier hyperparameter ({earlier})")
        wrong = [v for v in values if v not in self.domains[parent]]
        if wrong or not values:
            raise SpaceError(
                f"{name}: when {parent} is {shown(wrong) if wrong else 'empty'}; allowed: {self.domains[parent]}"
            )

    def __iter__(self) -> Iterator[str]:
        return iter(self.domains)

    def is_active(self, name: str, params: Params) -> bool:
        """Whether `name` is active, given the hyperparameters before it."""
        return all(
            parent in params and self._snapped(parent, params[parent]) in values
            for parent, values in self._conditions[name].items()
        )

    @cached_property
    def _conditions(self) -> dict[str, dict[str, frozenset[Scalar]]]:
        """For each hyperparameter, the values that the others must have."""
        return {
            name: {
                parent: frozenset(self._snapped(parent, value) for value in values)
                for parent, values in domain.when.items()
            }
            for name, domain in self.domains.items()
        }

    def _snapped(self, name: str, value: Scalar) -> Scalar:
        """`value` in the form used for comparisons."""
        domain = self.domains[name]
        return domain.snap(value) if isinstance(domain, Float) and not isinstance(value, str) else value

    def restrict(self, values: Params) -> dict[str, Scalar]:
        """The active hyperparameters of this space among `values`, in the space's order."""
        params: dict[str, Scalar] = {}
        for name in self.domains:
            if self.is_active(name, params):
                params[name] = values[name]
        return params

    def validate(self, params: Params) -> None:
        """Raises SpaceError unless `params` sets exactly the active hyperparameters, each within its domain."""
        for name in params:
            if name not in self.domains:
                raise SpaceError(
                    f"{shown_key(name)} is {shown(params[name])}; allowed hyperparameters: {', '.join(self.domains)}"
                )
        for name, domain in self.domains.items():
            if not self.is_active(name, params):
                if name in params:
                    why = f"{_condition(domain.when)} does not hold"
                    raise SpaceError(f"{name} is {shown(params[name])}; allowed: unset, since {why}")
            elif name not in params:
                raise SpaceError(f"{name} is not set; allowed: {domain}")
            elif params[name] not in domain:
                raise SpaceError(f"{name} is {shown(params[name])}; allowed: {domain}")

    def sample(self, rng: random.Random) -> dict[str, Scalar]:
        """One configuration at random, for estimates and tests; a search uses its engine's own sampler."""
        params: dict[str, Scalar] = {}
        for name, domain in self.domains.items():
            if self.is_active(name, params):
                params[name] = domain.sample(rng)
        return params

    def grid(self) -> Iterator[dict[str, Scalar]]:
        """Every configuration once, in the order of the file.

        Raises:
            SpaceError: a domain is continuous.
        """
        yield from self._grid(list(self.domains), {})

    def _grid(self, names: list[str], params: dict[str, Scalar]) -> Iterator[dict[str, Scalar]]:
        if not names:
            yield dict(params)
            return
        name, *rest = names
        if not self.is_active(name, params):
            yield from self._grid(rest, params)
            return
        values = self.domains[name].values()
        if values is None:
            raise SpaceError(f"{name} is continuous; allowed for a grid: a step, or a choice of values")
        for value in values:
            yield from self._grid(rest, {**params, name: value})


def domain_from_toml(data: Mapping[str, Any]) -> Domain:
    """Reads `{low, high, step, log}` (whole numbers or real ones) or `{values}`, each with an optional `when`.

    Raises:
        SpaceError: one line that names the key, its value and what is allowed.
    """
    when = _when(data.get("when", {}))
    keys = {key for key in data if key != "when"}
    if keys == {"values"} and isinstance(data["values"], list):
        return Choice(tuple(data["values"]), when)
    unknown = sorted(keys - {"low", "high", "step", "log"})
    if unknown or not {"low", "high"} <= keys:
        found = ", ".join(map(shown, (unknown or sorted(keys))[:4])) or "nothing"
        raise SpaceError(f"keys are {found}; allowed: low, high, step, log (a range) or values (a choice)")
    low, high, step, log = data["low"], data["high"], data.get("step"), data.get("log", False)
    if not isinstance(log, bool):
        raise SpaceError(f"log is {shown(log)}; allowed: true or false")
    for key, value in (("low", low), ("high", high), ("step", step)):
        if value is None and key == "step":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SpaceError(f"{key} is {shown(value)}; allowed: a number")
        if not -MAX_NUMBER <= value <= MAX_NUMBER:
            raise SpaceError(f"{key} is {shown(value)}; allowed: finite numbers up to {MAX_NUMBER:.0f}")
    if all(_is_int(value) for value in (low, high, 1 if step is None else step)):
        return Int(low, high, 1 if step is None else step, log, when)
    return Float(float(low), float(high), None if step is None else float(step), log, when)


def _when(data: Any) -> When:
    if not isinstance(data, Mapping):
        raise SpaceError(f"when is {shown(data)}; allowed: a table of other hyperparameters and their values")
    when = {name: tuple(v) if isinstance(v, list) else (v,) for name, v in data.items()}
    for name, values in when.items():
        if not all(map(_is_scalar, values)):
            raise SpaceError(f"when {shown(name)} is {shown(list(values))}; allowed: values of that hyperparameter")
    return when


def _check_range(low: float, high: float, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise SpaceError(f"range is {low} to {high}; allowed: finite numbers")
    if low > high:
        raise SpaceError(f"range {low} to {high} is empty; allowed: low at most high")
    if log and low <= 0:
        raise SpaceError(f"low is {low} with log = true; allowed: more than 0")


def _is_scalar(value: object) -> bool:
    """Text, or a number that tables and databases can hold."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_multiple(distance: float, step: float) -> bool:
    return math.isclose(distance / step, round(distance / step), abs_tol=TOLERANCE)


def _condition(when: When) -> str:
    return " and ".join(f"{name} in {shown(list(values))}" for name, values in when.items())
