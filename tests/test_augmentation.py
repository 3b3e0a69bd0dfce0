"""Transforms of training images: their ranges, and what they do to an image."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

import baselines
from baselines.augmentation import Augmentation, augmentation
from harness.execution.training.engine_base import scaled

NUM = 4_000


def draw(varied: Augmentation, *, seed: int = 0, num: int = NUM) -> np.ndarray:
    return varied.transforms((num,), (28, 28), np.random.default_rng(seed))


def test_the_documented_networks_see_the_images_as_they_are() -> None:
    for name in baselines.NAMES:
        assert not augmentation(baselines.load(name).DOCUMENTED)
    assert draw(Augmentation()).shape == (NUM, 0)


def test_a_configuration_says_what_is_varied() -> None:
    config = dataclasses.replace(
        baselines.load("cnn").DOCUMENTED, augment_shift=0.1, augment_rotation=0.05, augment_zoom=0.2
    )
    assert augmentation(config) == Augmentation(shift=0.1, rotation=0.05, zoom=0.2)
    assert not augmentation(object()), "an architecture need not know any of it"


def test_a_seed_draws_the_same_transforms_for_any_shape_of_batches() -> None:
    varied = Augmentation(0.1, 0.05, 0.1)
    assert (draw(varied) == draw(varied)).all()
    assert not (draw(varied) == draw(varied, seed=1)).all()
    batches = varied.transforms((NUM // 100, 100), (28, 28), np.random.default_rng(0))
    np.testing.assert_array_equal(batches.reshape(NUM, 8), draw(varied))


def test_a_shift_moves_by_up_to_its_share_of_the_side() -> None:
    found = draw(Augmentation(shift=0.1))
    np.testing.assert_array_equal(found[:, [0, 1, 3, 4, 6, 7]], np.tile([1, 0, 0, 1, 0, 0], (NUM, 1)))
    for moved in (found[:, 2], found[:, 5]):
        assert -2.8 <= moved.min() < -2.7
        assert 2.7 < moved.max() <= 2.8
        assert moved.std() == pytest.approx(2.8 / np.sqrt(3), rel=0.05), "evenly distributed"


def test_shear_leans_over_about_the_centre() -> None:
    found = draw(Augmentation(shear=0.2))
    np.testing.assert_allclose(found[:, :3] @ np.array([13.5, 13.5, 1.0]), 13.5, atol=1e-4)
    np.testing.assert_array_equal(found[:, [0, 3, 4, 5, 6, 7]], np.tile([1, 0, 1, 0, 0, 0], (NUM, 1)))
    assert (found[:, 1].min(), found[:, 1].max()) == (pytest.approx(-0.2, abs=0.01), pytest.approx(0.2, abs=0.01))


def test_rotation_and_zoom_turn_about_the_centre() -> None:
    found = draw(Augmentation(rotation=0.05, zoom=0.2))
    centre = np.array([13.5, 13.5, 1.0])
    np.testing.assert_allclose(found[:, :3] @ centre, 13.5, atol=1e-4)
    np.testing.assert_allclose(found[:, 3:6] @ centre, 13.5, atol=1e-4)
    scale, angle = np.hypot(found[:, 0], found[:, 3]), np.arctan2(found[:, 3], found[:, 0])
    assert (scale.min(), scale.max()) == (pytest.approx(0.8, abs=0.01), pytest.approx(1.2, abs=0.01))
    assert (angle.min(), angle.max()) == (pytest.approx(-0.1 * np.pi, abs=0.01), pytest.approx(0.1 * np.pi, abs=0.01))


def test_an_image_is_read_where_its_transform_says() -> None:
    """Against scipy, which takes rows first."""
    image = ndimage.gaussian_filter(np.random.default_rng(1).uniform(0, 255, (28, 28)), 1.5)
    image = np.round(image * (np.hypot(*np.ogrid[-13.5:14, -13.5:14]) < 8)).astype(np.uint8)
    for a0, a1, a2, b0, b1, b2, *_ in (transforms := draw(Augmentation(0.1, 0.05, 0.2), num=5)):
        expected = ndimage.affine_transform(image / 255, [[b1, b0], [a1, a0]], [b2, a2], order=1)
        found = scaled(image[np.newaxis], transforms[[np.flatnonzero(transforms[:, 2] == a2)[0]]])
        np.testing.assert_allclose(np.asarray(found)[0, ..., 0], expected, atol=1e-4)
