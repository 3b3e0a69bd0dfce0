"""The training recipe of all networks, the documented ones and those of the search.

The documents give no optimizer, so the recipe was chosen by the spread between seeds of one configuration;
docs/design.md has the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from baselines.settings import OneOf, Real, Whole

if TYPE_CHECKING:
    import keras

SCHEDULES = ("warmup_cosine", "cosine", "constant")


@dataclass(frozen=True)
class Recipe:
    """Adam on the categorical cross-entropy.

    `learning_rate` is the peak of the schedule. `warmup_cosine` rises to it linearly over the first
    `warmup_share` of the steps, then falls to zero along a half cosine at the last step of the schedule.
    """

    learning_rate: Annotated[float, Real(0, 1e9, is_above_low=True)] = 3e-3
    schedule: Annotated[str, OneOf(SCHEDULES)] = "warmup_cosine"
    warmup_share: Annotated[float, Real(0, 1)] = 0.1
    batch_size: Annotated[int, Whole(1, 60_000)] = 128  # and at most the study's training images


RECIPE = Recipe()


def optimizer(recipe: Recipe, num_steps: int) -> keras.Optimizer:
    """A new optimizer whose schedule ends after `num_steps` steps.

    Raises:
        ValueError: the schedule has no such name.
    """
    import keras

    return keras.optimizers.Adam(_schedule(recipe, num_steps, keras.optimizers.schedules.CosineDecay))


def _schedule(recipe: Recipe, num_steps: int, cosine: type) -> object:
    if recipe.schedule == "constant":
        return recipe.learning_rate
    if recipe.schedule == "cosine":
        return cosine(recipe.learning_rate, num_steps)
    if recipe.schedule == "warmup_cosine":
        warmup_steps = max(1, round(recipe.warmup_share * num_steps))
        return cosine(
            0.0, max(1, num_steps - warmup_steps), warmup_target=recipe.learning_rate, warmup_steps=warmup_steps
        )
    raise ValueError(f"schedule is {recipe.schedule!r}; allowed: {', '.join(SCHEDULES)}")
