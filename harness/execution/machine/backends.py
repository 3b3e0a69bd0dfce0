"""The backend of Keras, from KERAS_BACKEND or Keras's settings; no framework is loaded."""

from __future__ import annotations

import importlib.metadata
import json
import os
from contextlib import suppress

from harness.errors import InputError
from harness.support.keras_settings import keras_home

VARIABLE = "KERAS_BACKEND"
DEFAULT = "tensorflow"
BACKENDS = ("tensorflow", "jax", "torch")
_HOW_TO_INSTALL = {
    "tensorflow": "`make setup` installs it",
    "jax": "pip install 'harness[jax]' installs it",
    "torch": "pip install torch installs it",
}


def backend() -> str:
    """The backend for training: from KERAS_BACKEND, else from Keras's own settings, else tensorflow.

    Raises:
        InputError: the backend is unknown or not installed.
    """
    name = os.environ.get(VARIABLE) or _in_keras_settings()
    there = installed()
    if name not in BACKENDS:
        raise InputError(f"{VARIABLE} is {name!r}; allowed: {', '.join(BACKENDS)} (installed: {', '.join(there)})")
    if name not in there:
        raise InputError(
            f"{VARIABLE} is {name}, which is not installed: {_HOW_TO_INSTALL[name]}; allowed now: {', '.join(there)}"
        )
    return name


def installed() -> dict[str, str]:
    """Versions of the installed backends, by name."""
    versions: dict[str, str] = {}
    for name in BACKENDS:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _in_keras_settings() -> str:
    """Keras's own choice without the variable."""
    try:
        return str(json.loads((keras_home() / "keras.json").read_text()).get("backend", DEFAULT))
    except (OSError, ValueError, AttributeError):
        return DEFAULT
