"""The data sets that a study can be of, as far as its settings depend on them: shape, classes and number of images."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from baselines.layers import MNIST, Task

SPLITS = ("train", "validation", "test")
MAX_SIDE, MAX_CHANNELS, MAX_CLASSES = 1024, 64, 10_000

_DIGITS_OF_NAMES = 8  # of the hash, in names
_STEM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,31}")

Sizes = Mapping[str, int]  # number of images by split


@dataclass(frozen=True)
class Facts:
    """What settings depend on: the task, and the number of images in each split, which bounds a profile's."""

    task: Task
    sizes: Sizes


BUILT_IN: Mapping[str, Facts] = {
    "mnist": Facts(MNIST, {"train": 50_000, "validation": 10_000, "test": 10_000}),
    "digits": Facts(MNIST, {"train": 1_200, "validation": 297, "test": 300}),
}

Natural = Annotated[int, Field(ge=0, lt=2**31)]


class Content(BaseModel):
    """The content of an array: its shape, its type, and the SHA-256 of its bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    shape: Annotated[tuple[Natural, ...], Field(min_length=1, max_length=4)]
    dtype: Literal["uint8", "int32", "float32"]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class OwnData(BaseModel):
    """A user's data set as a study records it: the content of each array, after the split into training and validation.

    `kept` has images and labels of each split, such as `train_images` and `train_labels`. So the content identifies
    images, split and order. The name ends in the hash of the contents: other contents are another data set.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    stem: str
    num_classes: Annotated[int, Field(ge=2, le=MAX_CLASSES)]
    kept: dict[str, Content]

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        check_stem(self.stem)
        names = [f"{split}_{part}" for split in SPLITS for part in ("images", "labels")]
        if set(self.kept) != set(names):
            raise ValueError(f"kept has {', '.join(self.kept)}; allowed: {', '.join(names)}")
        shapes = [self.kept[f"{split}_images"].shape for split in SPLITS]
        same = len({shape[1:] for shape in shapes}) == 1 and len(shapes[0]) in (3, 4)
        if not same or any(
            self.kept[f"{split}_labels"].shape != shape[:1] for split, shape in zip(SPLITS, shapes, strict=True)
        ):
            raise ValueError(f"images have shapes {shapes}; allowed: equal ones, with a label for each image")
        return self

    @cached_property
    def name(self) -> str:
        content = {name: array.model_dump(mode="json") for name, array in sorted(self.kept.items())}
        return named(self.stem, hashlib.sha256(json.dumps([self.num_classes, content]).encode()).hexdigest())

    @cached_property
    def facts(self) -> Facts:
        height, width, *channels = self.kept["train_images"].shape[1:]
        task = Task((height, width, *(channels or [1])), self.num_classes)  # type: ignore[arg-type] # three numbers
        return Facts(task, {split: self.kept[f"{split}_images"].shape[0] for split in SPLITS})


def named(stem: str, sha256: str) -> str:
    """The name of a file's content: other contents have other names."""
    return f"{stem}-{sha256[:_DIGITS_OF_NAMES]}"


def check_stem(stem: str) -> None:
    """Raises ValueError if a file of this name, without its ending, cannot be named in a study."""
    if not _STEM.fullmatch(stem):
        raise ValueError(f"the file's name is {stem!r}; allowed: 1 to 32 letters, digits, '_' or '-'")


def facts_of(name: str, own: OwnData | None) -> Facts:
    """The facts of a data set.

    Raises:
        ValueError: `name` is neither a built-in data set nor that of `own`.
    """
    if own is not None and own.name == name:
        return own.facts
    if own is None and name in BUILT_IN:
        return BUILT_IN[name]
    raise ValueError(f"dataset is {name!r}; allowed: {', '.join(map(repr, BUILT_IN))}, or the path of an .npz file")
