"""Fixed settings of Keras for all trainings and predictions.

`~/.keras/keras.json` and environment variables may change them for a user's other programs. Here only the backend is
the user's choice; see `execution/machine/backends.py`.
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
    "max_epochs": None,  # would end `fit` early, for debugging
    "max_steps_per_epoch": None,
}


def keras_home() -> Path:
    """Keras's folder for settings and downloads."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")


def described() -> str:
    """The settings as text, for provenance."""
    return f"{FLOATX}, {IMAGE_DATA_FORMAT}, epsilon {EPSILON:g}"


def pin(precision: str = FLOATX) -> None:
    """Sets all settings for the rest of this process. Loads Keras."""
    _set(SETTINGS | {"dtype_policy": POLICIES[precision]})


@contextmanager
def pinned(precision: str = FLOATX) -> Iterator[None]:
    """Sets all settings within the context, and restores the process's own afterwards."""
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
