"""Numbers of one training that are less noisy than its error: the probabilities behind the errors, calibrated.

An error rate counts images as right or wrong, so few images near the border decide between two networks. The
probabilities of all images say more. How confident a network is depends on its recipe (label smoothing, dropout), so
its probabilities are comparable only at the temperature that suits them best: C. Guo, G. Pleiss, Y. Sun and K. Q.
Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibrated:
    """A network's probabilities at the temperature with the lowest cross-entropy on the same images.

    Attributes:
        temperature: Logits are divided by it, so above 1 the network was too confident.
        soft_error_pct: 1 minus the mean probability of the right class, percent.
        cross_entropy: Mean over the images, nats.
    """

    temperature: float
    soft_error_pct: float
    cross_entropy: float


def calibrate(probabilities: NDArray[np.float32], labels: NDArray[np.uint8] | NDArray[np.int32]) -> Calibrated | None:
    """Calibrates class probabilities (n, classes) of images with these labels (n,); None if one is not finite."""
    from scipy.optimize import brentq

    if not np.isfinite(probabilities).all():
        return None
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny), dtype=np.float64)
    right = logits[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        """Derivative of the cross-entropy, which is convex in the inverse temperature."""
        return float(((_softmax(inverse * logits) * logits).sum(-1) - right).mean())

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if slope(low) >= 0 or slope(high) <= 0:
        inverse = low if slope(low) >= 0 else high
    else:
        inverse = float(brentq(slope, low, high, xtol=1e-4))
    chosen = _softmax(inverse * logits)[np.arange(len(labels)), labels]
    cross_entropy = float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())
    return Calibrated(round(1 / inverse, 4), float(100 * (1 - chosen.mean())), cross_entropy)


def _softmax(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(raised / raised.sum(-1, keepdims=True))
