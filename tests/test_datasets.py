"""How the data sets are split, and that no version of a library changes it unseen."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from harness.execution.data import datasets
from harness.execution.data.datasets import DIGITS, MNIST, problem, shape_problem, stratified_cut
from harness.execution.data.sources import Arrays
from harness.study.data import Content
from harness.support.splits import split_training


@pytest.fixture(scope="module")
def digits() -> Arrays:
    return datasets.read_digits()


@pytest.fixture(scope="module")
def kept(digits: Arrays) -> Arrays:
    return DIGITS.split(digits)


def test_cut_is_the_same_for_ever() -> None:
    rest, held = stratified_cut((np.arange(60000) % 10).astype(np.uint8), 10000)
    positions = np.concatenate([rest, held]).astype("<i8")
    expected = "f1ddceffba18f6880313d42bce6436a451c8b9862a436ab874b1eff803309fcc"
    assert hashlib.sha256(positions.tobytes()).hexdigest() == expected


def test_cut_gives_every_class_its_share() -> None:
    labels = np.repeat(np.arange(4, dtype=np.uint8), [50, 30, 15, 6])
    rest, held = stratified_cut(labels, 20)
    assert sorted([*rest, *held]) == list(range(101))
    # Shares are 9.90, 5.94, 2.97 and 1.19 of 20.
    assert np.bincount(labels[held]).tolist() == [10, 6, 3, 1]


def test_digits_are_grey_images_of_full_range_with_a_dark_frame(digits: Arrays) -> None:
    images = digits["x"]
    assert (images.min(), images.max()) == (0, 255)
    assert images[:, 2:26, 2:26].sum() == images.sum()
    small = images[:, 3:26:3, 3:26:3]
    from sklearn.datasets import load_digits

    np.testing.assert_allclose(small / 255 * 16, load_digits().images, atol=0.04)


def test_digits_are_pinned(digits: Arrays, kept: Arrays) -> None:
    assert {name: problem(DIGITS.raw[name], array) for name, array in digits.items()} == {"x": None, "y": None}
    assert kept.keys() == DIGITS.kept.keys()
    assert all(problem(DIGITS.kept[name], array) is None for name, array in kept.items())


def test_splits_share_no_image_and_lose_none(digits: Arrays, kept: Arrays) -> None:
    parts = [kept[f"{split}_images"] for split in ("train", "validation", "test")]
    together = np.concatenate(parts)
    assert sorted(image.tobytes() for image in together) == sorted(image.tobytes() for image in digits["x"])


def test_images_keep_their_labels(digits: Arrays, kept: Arrays) -> None:
    label_of = {image.tobytes(): label for image, label in zip(digits["x"], digits["y"], strict=True)}
    for split in ("train", "validation", "test"):
        found = [label_of[image.tobytes()] for image in kept[f"{split}_images"]]
        np.testing.assert_array_equal(found, kept[f"{split}_labels"])


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_split_is_stratified(digits: Arrays, kept: Arrays, split: str) -> None:
    labels = kept[f"{split}_labels"]
    expected = np.bincount(digits["y"]) * len(labels) / len(digits["y"])
    assert np.abs(np.bincount(labels) - expected).max() <= 2  # two cuts, each within one


@pytest.mark.parametrize(("split", "first"), [("train", 300), ("validation", 100)])
def test_first_images_of_a_split_are_a_fair_sample(kept: Arrays, split: str, first: int) -> None:
    counts = np.bincount(kept[f"{split}_labels"][:first], minlength=10)
    expected = np.bincount(kept[f"{split}_labels"]) * first / len(kept[f"{split}_labels"])
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 21.7  # 99 % of random samples, 9 degrees of freedom


def test_mnist_cuts_validation_from_training_and_leaves_test_alone() -> None:
    raw = {
        "x_train": np.arange(100, dtype=np.uint8).reshape(100, 1, 1),
        "y_train": (np.arange(100) % 10).astype(np.uint8),
        "x_test": np.arange(20, dtype=np.uint8).reshape(20, 1, 1),
        "y_test": np.zeros(20, np.uint8),
    }
    kept = split_training(raw, num_validation=20)
    np.testing.assert_array_equal(kept["test_images"], raw["x_test"])
    for split, size in (("train", 80), ("validation", 20)):
        images, labels = kept[f"{split}_images"].ravel(), kept[f"{split}_labels"]
        np.testing.assert_array_equal(images % 10, labels)
        assert np.bincount(labels).tolist() == [size // 10] * 10
    assert sorted([*kept["train_images"].ravel(), *kept["validation_images"].ravel()]) == list(range(100))


def test_mnist_has_the_documented_sizes() -> None:
    sizes = {name: content.shape for name, content in MNIST.kept.items()}
    assert sizes == {
        "train_images": (50000, 28, 28),
        "train_labels": (50000,),
        "validation_images": (10000, 28, 28),
        "validation_labels": (10000,),
        "test_images": (10000, 28, 28),
        "test_labels": (10000,),
    }


def test_content_says_what_is_wrong() -> None:
    right = np.arange(12, dtype=np.uint8).reshape(3, 4)
    content = Content(shape=(3, 4), dtype="uint8", sha256=hashlib.sha256(right.tobytes()).hexdigest())
    assert problem(content, right) is None
    assert problem(content, np.asfortranarray(right)) is None
    assert problem(content, right.reshape(4, 3)) == "holds uint8 of shape (4, 3); expected uint8 of shape (3, 4)"
    assert problem(content, right.astype(np.int8)) == "holds int8 of shape (3, 4); expected uint8 of shape (3, 4)"
    flipped = right.copy()
    flipped[2, 3] ^= 1
    assert str(problem(content, flipped)).startswith("holds other bytes than it should (SHA-256 ")
    assert shape_problem(content, flipped) is None
