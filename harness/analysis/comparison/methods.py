"""Groups studies into methods, and labels the methods."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.study.formatting import setting
from harness.study.spec import SweepSpec

_OF_A_REPEAT = "seed"
_NAMED = ("engine", "sampler")  # need no name in a label
_WORDS = {"enqueue": "first trials"}
_LONG = (dict, list)  # too long for a label: named by a study that has it


@dataclass(frozen=True)
class Method:
    """A search method.

    Attributes:
        label: Its differences from the other methods, in words.
        repeats: Positions of its studies, which differ in the seed of their search alone.
    """

    label: str
    repeats: tuple[int, ...]


def find_methods(specs: Sequence[SweepSpec]) -> list[Method]:
    """Groups studies by all settings but seed and budget, in the order of their first studies.

    A budget may be raised while a study runs, and does not change earlier results.
    """
    groups: dict[str, list[int]] = {}
    for position, spec in enumerate(specs):
        groups.setdefault(json.dumps(_settings(spec), sort_keys=True), []).append(position)
    firsts = [specs[group[0]] for group in groups.values()]
    return [Method(_label(first, firsts), tuple(group)) for first, group in zip(firsts, groups.values(), strict=True)]


def _settings(spec: SweepSpec) -> dict[str, Any]:
    return {key: value for key, value in spec.identity().items() if key != _OF_A_REPEAT}


def _label(spec: SweepSpec, others: Sequence[SweepSpec]) -> str:
    """Engine and sampler if these differ, and all other differing settings; without any, engine and sampler."""
    mine, theirs = _settings(spec), [_settings(other) for other in others]
    differing = [
        key for key in mine if any(mine[key] != other[key] for other in theirs if _is_choice(key, mine, other))
    ]
    parts = [*_parts(mine, differing), *_borrowed(mine, differing, others)]
    if not parts or set(differing) & set(_NAMED):
        parts.insert(0, f"{spec.engine} {spec.sampler}")
    return ", ".join(parts)


def _is_choice(key: str, mine: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether both could have had either value: a pruner is Optuna's, and KerasTuner has none to choose."""
    return key != "pruner" or mine["engine"] == other["engine"]


def _parts(mine: Mapping[str, Any], differing: Sequence[str]) -> Iterator[str]:
    for key in differing:
        if key == "pruner":
            yield "no pruner" if mine[key] == "none" else f"{mine[key]} pruner"
        elif key == "objective":
            yield f"objective {' and '.join(mine[key])}"
        elif key not in _NAMED and not isinstance(mine[key], _LONG):
            yield f"{key.replace('_', ' ')} {'none' if mine[key] is None else setting(mine[key])}"


def _borrowed(mine: Mapping[str, Any], differing: Sequence[str], others: Sequence[SweepSpec]) -> list[str]:
    """Long settings, named by the first study that has all of them."""
    keys = [key for key in differing if isinstance(mine[key], _LONG) and key != "objective"]
    if not keys:
        return []
    owner = next(other for other in others if all(_settings(other)[key] == mine[key] for key in keys))
    return [f"{' and '.join(_WORDS.get(key, key) for key in keys)} of {owner.study}"]
