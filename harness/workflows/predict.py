"""`harness predict`: classifies pictures with a registered network; those of digits are fitted to MNIST's format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import InputError
from harness.execution.training import models
from harness.support.suggestions import did_you_mean
from harness.tracking.registry import CHAMPION, DATASET, PIXELS, Registered, Registry, has_store
from harness.workflows.champion import model_name
from harness.workflows.digit_images import LAYOUTS, read_digit, read_picture

ALLOWED = f"{CHAMPION}, NAME, NAME@ALIAS or NAME/VERSION"


@dataclass(frozen=True)
class Prediction:
    """A network's prediction for a picture.

    Attributes:
        path: The picture.
        probabilities: Probabilities of the classes, of the digits 0 to 9 for the built-in data sets.
    """

    path: Path
    probabilities: tuple[float, ...]

    @property
    def digit(self) -> int:
        """The digit, or the number of the class."""
        return int(np.argmax(self.probabilities))

    @property
    def probability(self) -> float:
        return self.probabilities[self.digit]


def predict(home: Path, model: str, paths: Sequence[Path]) -> tuple[Registered, list[Prediction]]:
    """Classifies PNG files with a registered network; returns the network and its predictions, in the files' order.

    Args:
        home: Folder of all state.
        model: `champion` for the newest champion if all are of one data set, or NAME, NAME@ALIAS or NAME/VERSION of a
            registered model; NAME alone is its champion.
        paths: PNG files; `read_digit` describes their conversion, `read_picture` that for a data set of one's own.

    Raises:
        InputError: there is no such model, there are champions of several data sets, or a file cannot be read.
        TroubleError: MLflow is unavailable, or the model's file is missing.
    """
    found = _find(home, model)
    if found.tags.get(PIXELS, "uint8") != "uint8":
        raise InputError(
            f"--model is {model!r}, which was trained on floats; allowed: a network of pictures of bytes. Load"
            f" {found.file} with Keras for others"
        )
    dataset = _dataset(found)  # pictures of digits are read, and wrong ones found, before Keras is loaded
    images = [read_digit(path, dataset) for path in paths] if dataset in LAYOUTS else []
    network = models.open_model(Registry(home).fetch(found))
    images = images or [read_picture(path, network.input_shape[1:]) for path in paths]
    answers = models.probabilities(network, np.stack(images))
    return found, [Prediction(path, tuple(answer.tolist())) for path, answer in zip(paths, answers, strict=True)]


def _dataset(model: Registered) -> str:
    """What the network was trained on: by its tag, of earlier ones by their name; MNIST for models of others."""
    by_name = (dataset for dataset in LAYOUTS if model.name.startswith(model_name(dataset, "")))
    return model.tags.get(DATASET) or next(by_name, "mnist")


def to_json(model: Registered, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """JSON with the model's name, version, file and tags, and each picture's digit and probabilities."""
    return {
        "model": {"name": model.name, "version": model.version, "file": str(model.file), "tags": dict(model.tags)},
        "predictions": [_answer(one) for one in predictions],
    }


def _answer(one: Prediction) -> dict[str, Any]:
    return {
        "file": str(one.path),
        "digit": one.digit,
        "probability": one.probability,
        "probabilities": one.probabilities,
    }


def _find(home: Path, model: str) -> Registered:
    parts = re.fullmatch(r"(?:models:/)?([^@/:]+)(?:@([^@/:]+)|/(\d{1,9}))?", model)
    if parts is None:
        raise InputError(f"--model is {model!r}; allowed: {ALLOWED}")
    name, alias, version = parts.groups()
    registry = Registry(home) if has_store(home) else None
    if model == CHAMPION:
        return _only_champion(registry.champions() if registry else [])
    found = registry.find(name, version, alias or CHAMPION) if registry else None
    if found is None:
        names = [one.name for one in registry.champions()] if registry else []
        known = f"NAME is one of {', '.join(names)}" if names else "none is registered yet; `harness verdict` does it"
        meant = "" if name in names else did_you_mean(name, names)
        raise InputError(f"--model is {model!r}, which is not there; allowed: {ALLOWED}; {known}{meant}")
    return found


def _only_champion(champions: Sequence[Registered]) -> Registered:
    """The newest one; a picture does not say which data set it is of."""
    if not champions:
        raise InputError("no champion is registered yet; `harness verdict STUDY` registers one")
    if len({_dataset(one) for one in champions}) > 1:
        names = ", ".join(one.name for one in champions)
        raise InputError(f"there are champions of several data sets; --model takes one of them: {names}")
    return champions[0]


def what_is_answered(model: Registered) -> str:
    """The title of the answers: "digit", or "class" for a data set of one's own."""
    return "digit" if _dataset(model) in LAYOUTS else "class"
