"""Keras's own settings, as every training and every answer of a trained network has them.

`~/.keras/keras.json` and variables of the environment may change each of them for a user's other work. Only the backend
is the user's choice here, too; see `execution/machine/backends.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLOATX = "float32"
EPSILON = 1e-7
IMAGE_DATA_FORMAT = "channels_last"
# Of a worker's process. On JAX Keras asks for it while it is imported.
ENVIRONMENT = {"KERAS_NNX_ENABLED": "false"}
# Keras's policy for each precision of a study. Weights stay float32, and so does the last layer.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
SETTINGS: dict[str, Any] = {
    "floatx": FLOATX,
    "epsilon": EPSILON,
    "image_data_format": IMAGE_DATA_FORMAT,
    "dtype_policy": FLOATX,
    "max_epochs": None,  # `fit` would end early, for people who look for mistakes
    "max_steps_per_epoch": None,
}


def keras_home() -> Path:
    """Where Keras keeps its settings and what it has downloaded."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")


def described() -> str:
    """For provenance."""
    return f"{FLOATX}, {IMAGE_DATA_FORMAT}, epsilon {EPSILON:g}"


def pin(precision: str = FLOATX) -> None:
    """Sets all of them, for the rest of this process. Loads Keras."""
    _set(SETTINGS | {"dtype_policy": POLICIES[precision]})


@contextmanager
def pinned(precision: str = FLOATX) -> Iterator[None]:
    """Sets all of them, and puts back in the end what a user's own process had."""
    import keras

    before = {name: getattr(keras.config, name)() for name in SETTINGS}
    pin(precision)
    try:
        yield
    finally:
        _set(before)


def _set(settings: dict[str, Any]) -> None:
    import keras

    for name, value in settings.items():
        getattr(keras.config, f"set_{name}")(value)
