"""`harness predict`: classifies pictures of digits with a registered network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import baselines
from harness.errors import InputError
from harness.execution.training import models
from harness.study.spec import SPLIT_SIZES, Dataset
from harness.tracking.registry import CHAMPION, Registered, Registry, has_store
from harness.workflows.champion import model_name
from harness.workflows.digit_images import LAYOUTS, read_digit

NAMES = [model_name(dataset, baseline) for dataset in SPLIT_SIZES for baseline in baselines.NAMES]
ALLOWED = f"{CHAMPION}, NAME, NAME@ALIAS or NAME/VERSION"


@dataclass(frozen=True)
class Prediction:
    """A network's prediction for a picture.

    Attributes:
        path: The picture.
        probabilities: Probabilities of the digits 0 to 9.
    """

    path: Path
    probabilities: tuple[float, ...]

    @property
    def digit(self) -> int:
        return int(np.argmax(self.probabilities))

    @property
    def probability(self) -> float:
        return self.probabilities[self.digit]


def predict(home: Path, model: str, paths: Sequence[Path]) -> tuple[Registered, list[Prediction]]:
    """Classifies PNG files with a registered network; returns the network and its predictions, in the files' order.

    Args:
        home: Folder of all state.
        model: `champion` for the newest champion of any baseline, or NAME, NAME@ALIAS or NAME/VERSION of a registered
            model; NAME alone is its champion.
        paths: PNG files; `read_digit` describes their conversion.

    Raises:
        InputError: there is no such model, or a file cannot be read.
        TroubleError: MLflow is unavailable, or the model's file is missing.
    """
    found = _find(home, model)
    digits = np.stack([read_digit(path, _dataset(found)) for path in paths])
    network = models.open_model(Registry(home).fetch(found))
    answers = models.probabilities(network, digits)
    return found, [Prediction(path, tuple(answer.tolist())) for path, answer in zip(paths, answers, strict=True)]


def _dataset(model: Registered) -> Dataset:
    """What the network was trained on, from its name (`model_name`); MNIST for models of others."""
    return next((dataset for dataset in LAYOUTS if model.name.startswith(model_name(dataset, ""))), "mnist")


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
    found = None
    if has_store(home):
        registry, is_any = Registry(home), model == CHAMPION
        found = registry.newest_champion(NAMES) if is_any else registry.find(name, version, alias or CHAMPION)
    if found is None:
        raise InputError(
            f"--model is {model!r}, which is not there; allowed: {ALLOWED} of what `harness verdict` has registered"
        )
    return found
