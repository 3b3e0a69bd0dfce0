"""The rules for comparing and ranking trials.

Errors are compared within one fidelity, curves within one fidelity and number of validation images, times within one
timing class (`Device.timing_class`). `SweepSpec` marks the settings for each rule (`Decides`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.study.records import Record, Role
from harness.study.spec import Decides, SweepSpec, settings_that_decide

# Errors are compared among trials that agree in all of these; `epochs` are the trial's own.
FIDELITY = settings_that_decide(Decides.ERRORS)

# Columns of a leaderboard that rank trials of one fidelity, lowest first. See `rank_key`.
RANKING = ("error_rate_pct", "timing_class", "device_time_s")


def differing(spec: SweepSpec, other: SweepSpec, *what: Decides) -> list[str]:
    """The settings that decide any of `what` in which two studies differ."""
    return [name for name in settings_that_decide(*what) if getattr(spec, name) != getattr(other, name)]


def full_error_pct(spec: SweepSpec, record: Record) -> float | None:
    """Validation error, percent, of a trial that was trained for all epochs of its study; None: it was not."""
    if record.result is None or not record.result.outcome.is_ranked or record.trial.epochs != spec.epochs:
        return None
    return record.result.error_rate_pct


def baseline_errors_pct(spec: SweepSpec, records: Iterable[Record]) -> list[float]:
    """Validation errors, percent, of the documented configuration's fully trained seeds."""
    errors = (full_error_pct(spec, record) for record in records if record.trial.role is Role.BASELINE)
    return [error_pct for error_pct in errors if error_pct is not None]


def rank_key(spec: SweepSpec, record: Record) -> tuple[float, str, float] | None:
    """The sort key of a trial within its study, lowest first; None: it has no error that may be ranked.

    The error is first, then, within one timing class, the device time. A verdict's own trainings are not ranked.
    """
    error_pct = full_error_pct(spec, record)
    return None if error_pct is None or record.trial.role is Role.CONFIRM else (error_pct, *record.tie_break)


def ranked(spec: SweepSpec, records: Iterable[Record], role: Role = Role.TRIAL) -> list[Record]:
    """The trials of a study that may be ranked, the best first; equal ones in the order of `records`."""
    keys = [(key, record) for record in records if record.trial.role is role and (key := rank_key(spec, record))]
    return [record for _, record in sorted(keys, key=lambda pair: pair[0])]


def best(spec: SweepSpec, records: Sequence[Record]) -> Record | None:
    """The best of a study: the searched trial that ranks first. The baseline's trials do not count."""
    return next(iter(ranked(spec, records)), None)
