"""All uses of private names of Keras, checked with the version below; check them again for another version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SEEN_IN = "3.15.1"


def moments(adam: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    """Adam's first and second moments, each with one variable for each trainable variable of the model."""
    return adam._momentums, adam._velocities


def decays(adam: Any, variable: Any) -> bool:
    """Whether the optimizer's weight decay acts on a variable."""
    return adam.weight_decay is not None and adam._use_weight_decay(variable)
