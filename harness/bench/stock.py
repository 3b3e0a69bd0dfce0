"""Networks, data and spaces as the guides of Keras, Optuna and KerasTuner use them, for the peers of the benchmarks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import baselines
from baselines.augmentation import augmentation
from baselines.recipe import RECIPE, Recipe, optimizer
from harness.execution.data import cache
from harness.study.records import Params, Scalar
from harness.study.space import Choice, Int, SearchSpace

if TYPE_CHECKING:
    import keras
    import optuna

Floats = NDArray[np.float32]


def compiled(baseline: str, params: Params, train_images: int, epochs: int) -> keras.Model:
    """A compiled network: the documented one and the documented recipe, with these settings."""
    architecture, recipe = baselines.load(baseline), recipe_of(params)
    config = _replaced(architecture.DOCUMENTED, params)
    model = with_augmentation_layers(architecture.build(config), config)
    steps = -(-train_images // recipe.batch_size) * epochs
    model.compile(optimizer(recipe, steps), loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def recipe_of(params: Params) -> Recipe:
    """The documented recipe with these settings."""
    recipe: Recipe = _replaced(RECIPE, params)
    return recipe


def with_augmentation_layers(model: keras.Model, config: Any) -> keras.Model:
    """The model behind the layers of Keras that vary images as the network's settings say."""
    import keras

    varied, dark = augmentation(config), {"fill_mode": "constant", "fill_value": 0.0}
    if not varied:
        return model
    moving = [
        keras.layers.RandomTranslation(varied.shift, varied.shift, **dark),
        keras.layers.RandomRotation(varied.rotation, **dark),
        keras.layers.RandomZoom(varied.zoom, **dark),
    ]
    return keras.Sequential([keras.Input(model.input_shape[1:]), *moving, model])


def arrays(dataset: cache.Data, split: cache.Split, folder: Path, count: int) -> tuple[Floats, Floats]:
    """Images (count, 28, 28, 1) in 0..1 and one-hot labels (count, 10)."""
    images, labels = cache.load(dataset, split, folder)
    return as_floats(images[:count]), one_hot(labels[:count])


def as_floats(images: NDArray[np.uint8]) -> Floats:
    return images.astype(np.float32)[..., np.newaxis] / np.float32(255.0)


def one_hot(labels: NDArray[np.uint8]) -> Floats:
    return np.eye(10, dtype=np.float32)[labels]


def suggested(trial: optuna.Trial, space: SearchSpace) -> dict[str, Scalar]:
    """A configuration of an Optuna trial."""
    params: dict[str, Scalar] = {}
    for name, domain in space.domains.items():
        if not space.is_active(name, params):
            continue
        if isinstance(domain, Choice):
            params[name] = trial.suggest_categorical(name, domain.options)  # type: ignore[assignment] # not None
        elif isinstance(domain, Int):
            params[name] = trial.suggest_int(name, domain.low, domain.high, step=domain.step, log=domain.log)
        else:
            params[name] = trial.suggest_float(name, domain.low, domain.high, step=domain.step, log=domain.log)
    return params


def chosen(hp: Any, space: SearchSpace) -> dict[str, Scalar]:
    """A configuration of KerasTuner's hyperparameters."""
    params: dict[str, Scalar] = {}
    for name, domain in space.domains.items():
        if not space.is_active(name, params):
            continue
        if isinstance(domain, Choice):
            params[name] = hp.Choice(name, list(domain.options))
            continue
        make, sampling = (hp.Int if isinstance(domain, Int) else hp.Float), "log" if domain.log else "linear"
        step = {} if domain.log or domain.step is None else {"step": domain.step}
        params[name] = make(name, domain.low, domain.high, sampling=sampling, **step)
    return params


def _replaced(record: Any, params: Params) -> Any:
    known = {field.name for field in dataclasses.fields(record)}
    return dataclasses.replace(record, **{name: value for name, value in params.items() if name in known})
