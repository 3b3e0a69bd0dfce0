"""All uses of private names of KerasTuner, as checked with the version below; check each again with another version."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from keras_tuner.src.engine.conditions import Parent

SEEN_IN = "1.4.8"

__all__ = ["SEEN_IN", "Parent"]  # a condition on one parent; conditional_scope makes none on several


def prepare(oracle: Any, max_collisions: int) -> None:
    """Sets the number of random draws before the space counts as exhausted, and makes the Oracle save nothing.

    At each step the Oracle would save its state, which takes longer with each trial and is never read, and would copy
    the space by serialising it, although the space never changes.
    """
    oracle._max_collisions = max_collisions
    oracle.save = oracle._save_trial = lambda *_: None
    space = oracle.hyperparameters
    space.copy = lambda: copy.copy(space)


def seed_next(oracle: Any, seed: int) -> None:
    """Seeds the next random draw, and the random starts of the next optimisation over a Gaussian process."""
    oracle._seed_state = seed
    if hasattr(oracle, "_random_state"):
        oracle._random_state = np.random.RandomState(seed)


def remember_values(oracle: Any, trial: Any) -> None:
    """Adds a trial's configuration to the tried ones."""
    oracle._record_values(trial)


def forget_id(oracle: Any, trial_id: str) -> None:
    """Keeps the configuration of a removed trial among the tried ones when the next trial gets its id."""
    oracle._id_to_hash.pop(trial_id, None)


def brackets(oracle: Any) -> list[dict[str, Any]]:
    """The brackets of a Hyperband Oracle, not copied; empty for other Oracles."""
    return getattr(oracle, "_brackets", [])


def rung_size(oracle: Any, bracket: dict[str, Any], rung: int) -> int:
    """Number of trials in a rung of a bracket of Hyperband."""
    return int(oracle._get_size(bracket["bracket_num"], rung))
