"""How times and hyperparameters are put to people."""

from __future__ import annotations

from harness.records import Params, Scalar


def duration(seconds: float) -> str:
    """Seconds below two minutes, minutes below two hours, then hours and minutes."""
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"


def setting(value: Scalar) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def settings(params: Params) -> str:
    return " ".join(f"{name}={setting(value)}" for name, value in params.items())
