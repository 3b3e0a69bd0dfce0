"""The training recipe of all networks, the documented ones and those of the search.

The documents give no optimizer, so the recipe was chosen by the spread between seeds of one configuration;
docs/design.md has the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from baselines.settings import Needs, OneOf, Real, Since, Whole

if TYPE_CHECKING:
    import keras

SCHEDULES = ("warmup_cosine", "cosine", "constant")


@dataclass(frozen=True)
class Recipe:
    """Adam on the categorical cross-entropy.

    `learning_rate` is the peak of the schedule. `warmup_cosine` rises to it linearly over the first
    `warmup_share` of the steps, then falls to zero along a half cosine at the last step of the schedule.

    `weight_decay` is decoupled (I. Loshchilov and F. Hutter, ICLR 2019): each step multiplies weights by 1 minus it
    times the learning rate; biases and normalisations have none. `label_smoothing` is the share of a label that is
    spread over all classes.
    """

    learning_rate: Annotated[float, Real(0, 1e9, is_above_low=True)] = 3e-3
    schedule: Annotated[str, OneOf(SCHEDULES)] = "warmup_cosine"
    warmup_share: Annotated[float, Real(0, 1), Needs("schedule", ("warmup_cosine",))] = 0.1
    batch_size: Annotated[int, Whole(1, 60_000)] = 128  # and at most the study's training images
    weight_decay: Annotated[float, Real(0, 1), Since(5)] = 0.0
    label_smoothing: Annotated[float, Real(0, 1, is_below_high=True), Since(5)] = 0.0


RECIPE = Recipe()


def optimizer(recipe: Recipe, num_steps: int) -> keras.Optimizer:
    """A new optimizer whose schedule ends after `num_steps` steps.

    Raises:
        ValueError: the schedule has no such name.
    """
    import keras

    rate = _schedule(recipe, num_steps, keras.optimizers.schedules.CosineDecay)
    adam = keras.optimizers.Adam(rate, weight_decay=recipe.weight_decay or None)
    if recipe.weight_decay:
        adam.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return adam


def compile_model(model: keras.Model, recipe: Recipe, num_steps: int) -> None:
    """Gives a model its optimizer, built, and its loss: class probabilities against one-hot labels.

    Raises:
        ValueError: the schedule has no such name.
    """
    import keras

    loss = keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
    model.compile(optimizer(recipe, num_steps), loss=loss, jit_compile=False)
    model.optimizer.build(model.trainable_variables)


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
