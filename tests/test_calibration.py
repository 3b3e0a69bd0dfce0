"""Calibrated numbers of a training: the temperature is found, and confidence alone changes nothing."""

import numpy as np
import pytest

from harness.execution.training.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE, calibrate

RNG = np.random.default_rng(0)
NUM = 20_000
LOGITS = RNG.normal(0.0, 2.0, (NUM, 10))


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


# Labels that come true as often as the probabilities at temperature 1 say.
LABELS = (softmax(LOGITS).cumsum(-1) > RNG.random((NUM, 1))).argmax(-1).astype(np.uint8)


def of(temperature: float) -> np.ndarray:
    """The probabilities of a network that is too confident by this temperature."""
    return softmax(LOGITS * temperature).astype(np.float32)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_undoes_the_confidence(temperature: float) -> None:
    found, honest = calibrate(of(temperature), LABELS), calibrate(of(1.0), LABELS)
    assert found
    assert honest
    assert found.temperature == pytest.approx(temperature, rel=0.03)
    assert found.soft_error_pct == pytest.approx(honest.soft_error_pct, abs=1e-3)
    assert found.cross_entropy == pytest.approx(honest.cross_entropy, abs=1e-6)


def test_the_numbers_are_those_of_the_probabilities_at_this_temperature() -> None:
    found = calibrate(of(2.0), LABELS)
    assert found
    chosen = softmax(np.log(of(2.0), dtype=np.float64) / found.temperature)[np.arange(NUM), LABELS]
    assert found.soft_error_pct == pytest.approx(100 * (1 - chosen.mean()), abs=1e-3)
    assert found.cross_entropy == pytest.approx(-np.log(chosen).mean(), abs=1e-5)
    for other in (0.95, 1.05):
        nearby = softmax(np.log(of(2.0), dtype=np.float64) / (found.temperature * other))[np.arange(NUM), LABELS]
        assert -np.log(nearby).mean() > found.cross_entropy


def test_a_network_that_is_always_right_or_knows_nothing_has_a_limit_of_temperature() -> None:
    right = np.full((20, 10), 0.01, np.float32)
    right[np.arange(20), LABELS[:20]] = 0.91
    sure = calibrate(right, LABELS[:20])
    assert sure
    assert sure.temperature == MIN_TEMPERATURE
    assert sure.soft_error_pct == pytest.approx(0.0, abs=1e-9)
    wrong = calibrate(np.roll(right, 1, axis=1), LABELS[:20])
    assert wrong
    assert wrong.temperature == MAX_TEMPERATURE
    assert 89 < wrong.soft_error_pct < 95
    assert calibrate(np.full((20, 10), 0.1, np.float32), LABELS[:20])


def test_probabilities_of_zero_count_and_none_are_given_for_what_is_not_finite() -> None:
    certain = np.eye(10, dtype=np.float32)[LABELS[:1000]]
    certain[0] = np.roll(certain[0], 1)
    found = calibrate(certain, LABELS[:1000])
    assert found
    assert np.isfinite([found.temperature, found.soft_error_pct, found.cross_entropy]).all()
    broken = of(1.0)[:100].copy()
    broken[3, 2] = np.nan
    assert calibrate(broken, LABELS[:100]) is None
