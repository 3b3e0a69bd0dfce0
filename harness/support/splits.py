"""How labelled images are split: stratified, shuffled, and the same on every machine and with every version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPLIT_SEED = 1998

Array = NDArray[Any]


def stratified_cut(labels: Array, num_held: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Shuffled positions of `labels` in two parts: the rest, and a stratified part of `num_held`."""
    # RandomState's stream is frozen; those of newer generators may change with numpy's version.
    order = np.random.RandomState(SPLIT_SEED).permutation(len(labels))
    held = np.zeros(len(labels), bool)
    for label, quota in enumerate(_quotas(np.bincount(labels), num_held)):
        held[order[labels[order] == label][:quota]] = True
    return order[~held[order]], order[held[order]]


def _quotas(counts: NDArray[np.intp], total: int) -> NDArray[np.intp]:
    """`total` divided in proportion to `counts`, the largest remainders rounded up (Hamilton's method)."""
    quotas, remainders = np.divmod(counts * total, counts.sum())
    rounded_up = np.argsort(-remainders, kind="stable")[: total - quotas.sum()]
    quotas[rounded_up] += 1
    return quotas


def split_training(raw: Mapping[str, Array], num_validation: int) -> dict[str, Array]:
    """Cuts the validation split from the training images; the test images keep their published order."""
    train, validation = stratified_cut(raw["y_train"], num_validation)
    return {
        "train_images": raw["x_train"][train],
        "train_labels": raw["y_train"][train],
        "validation_images": raw["x_train"][validation],
        "validation_labels": raw["y_train"][validation],
        "test_images": raw["x_test"],
        "test_labels": raw["y_test"],
    }
