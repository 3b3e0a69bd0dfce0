import pytest

from harness.study.formatting import duration, signed, time_range


@pytest.mark.parametrize(
    ("low_s", "high_s", "text"),
    [
        (0.0, 1.0, "5 s"),
        (3.0, 14.0, "5 to 15 s"),
        (42.0, 118.0, "40 s to 2 min"),
        (55.0, 150.0, "60 s to 2 min"),
        (300.0, 870.0, "5 to 14 min"),
        (700.0, 705.0, "12 min"),
        (4000.0, 7100.0, "67 to 118 min"),
        (5500.0, 9000.0, "90 min to 2 h 30 min"),
        (9000.0, 15000.0, "2 h 30 min to 4 h 10 min"),
    ],
)
def test_a_rough_time_is_said_in_round_numbers(low_s: float, high_s: float, text: str) -> None:
    assert time_range(low_s, high_s) == text


@pytest.mark.parametrize(("points", "text"), [(0.004, "+0.00"), (-0.004, "+0.00"), (-0.006, "-0.01"), (1.0, "+1.00")])
def test_no_difference_has_no_minus(points: float, text: str) -> None:
    assert signed(points) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (3e-5, "0 s"),
        (0.0062, "0.01 s"),
        (0.04, "0.04 s"),
        (0.996, "1 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (99.6, "100 s"),
        (119.4, "119 s"),
        (119.6, "2 min"),
        (7169.0, "119 min"),
        (7199.0, "2 h 00 min"),
    ],
)
def test_a_duration_is_short_at_any_length(seconds: float, text: str) -> None:
    assert duration(seconds) == text
