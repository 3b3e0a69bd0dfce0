"""Trained networks outside of training: rebuilt from saved weights, loaded, used for prediction."""

from __future__ import annotations

import importlib
import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.errors import TroubleError
from harness.execution.machine import backends
from harness.execution.machine.devices import FRAMEWORK_ENVIRONMENT
from harness.study.spec import SweepSpec
from harness.support.keras_settings import pinned
from harness.support.redaction import reason
from harness.support.stderr import silent_stderr

if TYPE_CHECKING:
    import keras

    from harness.study.records import Params

Floats = NDArray[np.float32]


def rebuild(spec: SweepSpec, params: Params, weights: Path) -> keras.Model:
    """The network of a trial with the weights that its training saved.

    Raises:
        TroubleError: the weights are missing or of another network, or the network differs from its documentation.
    """
    _load_keras()
    from harness.execution.training.trainer import build, load_weights

    try:
        with pinned(spec.precision):
            model = build(spec, params)
            load_weights(model, weights)
    except FileNotFoundError:
        again = "an imported study comes without; `harness verdict STUDY --fresh` trains again"
        raise TroubleError(f"its weights are gone ({weights}); {again}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TroubleError(f"its weights cannot be read from {weights}: {reason(error)}") from error
    return model


def open_model(path: Path) -> keras.Model:
    """The network of a `.keras` file without custom code, from images (n, height, width, channels) to classes.

    Raises:
        TroubleError: it is no such file.
    """
    _load_keras()
    import keras

    try:
        with pinned():
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # an invalid file may raise nearly any exception
        raise TroubleError(f"{path} cannot be loaded: {reason(error)}") from error
    taken, given = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    if not (_has_sizes(taken, 3) and _has_sizes(given, 1)):
        allowed = "images (height, width, channels) to a number of classes"
        raise TroubleError(f"{path} takes and gives {(taken, given)}; allowed: {allowed}")
    return model


def _has_sizes(shape: object, number: int) -> bool:
    """Whether a shape is a batch of any size and so many further sizes."""
    return isinstance(shape, tuple) and len(shape) == number + 1 and shape[0] is None and None not in shape[1:]


def probabilities(model: keras.Model, images: Floats) -> Floats:
    """(n, classes) for images (n, height, width, channels), or grey ones without channels, as the network gets them."""
    with pinned():
        predicted: Floats = model.predict(images if images.ndim == 4 else images[..., np.newaxis], verbose=0)
    return predicted


def _load_keras() -> None:
    backends.backend()  # a wrong one in one line, before Keras raises an error of its own
    for name, value in FRAMEWORK_ENVIRONMENT.items():
        os.environ.setdefault(name, value)  # what the user has set stays
    with silent_stderr():
        import keras

        keras.ops.convert_to_tensor(0.0)  # starts the backend, which looks for GPUs and says so
        with suppress(ImportError):  # Keras loads it to save a model, on any backend
            importlib.import_module("tensorflow")
