"""Which test images many trainings get wrong, without training: the cheap repeats on which a verdict is measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_IMAGES = 10_000
NUM_HARD = 800  # images that are ever got wrong


@dataclass(frozen=True)
class World:
    """How errors come about: the log odds that a training gets a hard image wrong are a sum of normal effects.

    Attributes:
        error_pct: Mean error of the baseline over seeds and images, percent.
        image_sd: Of the image: some are hard for every network, which makes errors of different networks go together.
        taste_sd: Of an image for one configuration: what one network finds hard, another may not.
        seed_sd: Of a training as a whole, besides the luck that each image has of its own.
    """

    error_pct: float
    image_sd: float = 1.6
    taste_sd: float = 0.5
    seed_sd: float = 0.04

    def trainings(
        self,
        num_repeats: int,
        num_seeds: int,
        gains: tuple[float, ...],
        rng: np.random.Generator,
        seed_sds: tuple[float, ...] | None = None,
    ) -> NDArray[np.bool_]:
        """Wrong images (repeat, configuration, training, image): the baseline, then candidates that are `gains` better.

        A gain is in percentage points of the mean error over all seeds and images that there might be; `seed_sds`
        are the configurations' own, the baseline's first.
        """
        shape = (num_repeats, 1 + len(gains))
        sds = np.array(seed_sds or (self.seed_sd,) * shape[1])
        errors = [self.error_pct - gain for gain in (0.0, *gains)]
        logits = np.array([self._centre(error, sd) for error, sd in zip(errors, sds, strict=True)])[:, None, None]
        logits = logits + rng.normal(0, self.image_sd, (num_repeats, 1, 1, NUM_HARD))
        logits = logits + rng.normal(0, self.taste_sd, (*shape, 1, NUM_HARD))
        logits = logits + rng.normal(size=(*shape, num_seeds, 1)) * sds[:, None, None]
        wrong: NDArray[np.bool_] = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
        return wrong

    def _centre(self, error_pct: float, seed_sd: float) -> float:
        """The mean log odds at which the mean error is `error_pct`."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        spread = np.sqrt(self.image_sd**2 + self.taste_sd**2 + seed_sd**2)
        low, high = -15.0, 5.0
        for _ in range(60):
            middle = (low + high) / 2
            odds = 1 / (1 + np.exp(-(middle + spread * nodes)))
            mean_pct = 100 * NUM_HARD / NUM_IMAGES * float((weights * odds).sum() / weights.sum())
            low, high = (middle, high) if mean_pct < error_pct else (low, middle)
        return low
