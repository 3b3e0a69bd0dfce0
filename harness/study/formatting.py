"""Formats times and hyperparameters as text."""

from __future__ import annotations

from datetime import UTC, datetime

from harness.study.records import Params, Scalar


def duration(seconds: float) -> str:
    """Seconds below two minutes, minutes below two hours, then hours and minutes.

    Seconds have at most two digits below ten, hundredths at most: "2.9 s", "3 s", "0.04 s", and "0 s" for what is less.
    """
    minutes = round(seconds / 60)
    if seconds < 119.5:
        return f"{round(seconds, 2):.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"


def time_range(low_s: float, high_s: float) -> str:
    """An approximate time, in steps of 5 seconds, a minute or ten minutes: "9 to 14 min"."""
    step_s = 5 if high_s < 120 else 60 if high_s < 7200 else 600
    low_s, high_s = (step_s * max(1, round(seconds / step_s)) for seconds in (low_s, high_s))
    low, high = duration(low_s), duration(high_s)
    if low == high:
        return high
    unit = high.rpartition(" ")[2]
    return f"{low.removesuffix(f' {unit}') if high_s < 7200 else low} to {high}"


def utc(moment_s: float | None) -> str | None:
    """Seconds since 1970 as a date and time of ISO 8601 in UTC, such as 2026-11-30T14:05:09Z."""
    return None if moment_s is None else datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    last = number % 10 if number // 10 % 10 != 1 else 0
    return f"{number}" + {1: "st", 2: "nd", 3: "rd"}.get(last, "th")


def counted(number: int, noun: str) -> str:
    """ "1 trial", "2 trials": a number and its noun, in the plural unless there is one."""
    return f"{number} {noun}{'s' * (number != 1)}"


def of_seeds(num_seeds: int) -> str:
    """What stands after a mean error: " (mean of 2 seeds)"; nothing after that of one seed."""
    return f" (mean of {num_seeds} seeds)" if num_seeds > 1 else ""


def in_precision(precision: str) -> str:
    """What stands after the images and epochs of trainings: " in bfloat16"; nothing after those in float32."""
    return f" in {precision}" if precision != "float32" else ""


def fidelity(train_images: int, epochs: int, precision: str) -> str:
    """ "10,000 training images, 6 epochs": how a study trains."""
    return f"{train_images:,} training images, {epochs} epochs{in_precision(precision)}"


def setting(value: Scalar) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def signed(points: float) -> str:
    """A difference with its sign and two digits; what is rounded to zero has a plus."""
    return f"{round(points, 2) + 0.0:+.2f}"


CHANGES = "changed from the\ndocumented network"  # title of a column of `changes`


def changes(params: Params, documented: Params) -> str:
    return settings(changed(params, documented))


def changed(params: Params, documented: Params) -> dict[str, Scalar]:
    """The hyperparameters that differ from the documented network."""
    return {name: value for name, value in params.items() if value != documented.get(name)}


def settings(params: Params) -> str:
    return " ".join(f"{name}={setting(value)}" for name, value in params.items())
