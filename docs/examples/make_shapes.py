"""Writes shapes.npz: colour pictures of 24 x 32 pixels with a disc, a square or a cross, in noise."""

from __future__ import annotations

import sys

import numpy as np

HEIGHT, WIDTH, RADIUS = 24, 32, 5


def pictures(num: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images (num, 24, 32, 3) in 0..255 as bytes, and labels (num,)."""
    labels = np.arange(num) % 3
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    images = rng.normal(100, 25, (num, HEIGHT, WIDTH, 3))
    for image, label in zip(images, labels, strict=True):
        down = abs(rows - rng.integers(RADIUS, HEIGHT - RADIUS))
        across = abs(columns - rng.integers(RADIUS, WIDTH - RADIUS))
        disc = down**2 + across**2 <= RADIUS**2
        square = np.maximum(down, across) < RADIUS
        cross = (np.minimum(down, across) < 2) & (np.maximum(down, across) <= RADIUS)
        image[(disc, square, cross)[label]] += rng.uniform(40, 120, 3)
    return images.clip(0, 255).astype(np.uint8), labels


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    (x_train, y_train), (x_test, y_test) = pictures(1_800, generator), pictures(450, generator)
    np.savez_compressed(sys.argv[1], x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
