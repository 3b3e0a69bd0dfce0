import pytest
from scipy.stats import binomtest

from harness.support.intervals import error_rate_interval_pct, wilson_interval_pct


# Newcombe 1998, table I, method 3; and 75 errors of 10,000 test images as this field quotes them.
@pytest.mark.parametrize(
    ("num_errors", "num_images", "low", "high"),
    [
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0.0, 16.11),
        (1, 29, 0.61, 17.18),
        (75, 10_000, 0.60, 0.94),
        (50, 10_000, 0.38, 0.66),
    ],
)
def test_wilson_interval_of_published_examples(num_errors: int, num_images: int, low: float, high: float) -> None:
    assert wilson_interval_pct(num_errors, num_images) == pytest.approx((low, high), abs=0.005)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
@pytest.mark.parametrize(("num_errors", "num_images"), [(0, 7), (3, 7), (7, 7), (123, 10_000)])
def test_wilson_interval_is_scipys(num_errors: int, num_images: int, confidence: float) -> None:
    theirs = binomtest(num_errors, num_images).proportion_ci(confidence, "wilson")
    ours = wilson_interval_pct(num_errors, num_images, confidence)
    assert ours == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=1e-9)


@pytest.mark.parametrize("wrong", [(-1, 10, 0.95), (11, 10, 0.95), (0, 0, 0.95), (1, 10, 0.0), (1, 10, 1.0)])
def test_wilson_interval_refuses_nonsense(wrong: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        wilson_interval_pct(*wrong)


def test_an_error_rate_has_the_interval_of_its_count() -> None:
    assert error_rate_interval_pct(0.75, 10_000) == wilson_interval_pct(75, 10_000)
    assert error_rate_interval_pct(100 * 1 / 3, 3) == wilson_interval_pct(1, 3)


def test_a_mean_over_models_is_not_rounded_to_whole_images() -> None:
    """12.5 of 297 images: half way between the limits of 12 and of 13, but for the curvature."""
    lower, found, upper = (wilson_interval_pct(number, 297) for number in (12, 12.5, 13))
    assert found == error_rate_interval_pct(100 * 12.5 / 297, 297) == pytest.approx((2.45, 7.14), abs=0.005)
    for low, middle, high in zip(lower, found, upper, strict=True):
        assert middle == pytest.approx((low + high) / 2, abs=0.001)
