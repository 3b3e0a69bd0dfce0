"""The curve that a trial's run shows, over all attempts at the trial. MLflow never removes a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from harness.study.records import Attempt, EpochReport, Seconds


class TimedEpoch(NamedTuple):
    """An epoch and when it ended, milliseconds since 1970."""

    at_ms: int
    report: EpochReport


class ShownCurve(NamedTuple):
    """The epochs that a trial's run shows, in the order in which they were trained.

    `since_attempt` is the number of the first attempt among them. `start_ms` is its start, milliseconds since 1970, and
    `end_ms` the end of the last one, without the pauses between attempts.
    """

    since_attempt: int
    start_ms: int
    end_ms: int
    epochs: list[TimedEpoch]


def shown_curve(
    attempts: Sequence[Attempt], curves: Mapping[int, Sequence[EpochReport]], *, is_final: bool
) -> ShownCurve:
    """The curve of a trial over its attempts.

    An attempt after an interruption trains the same epochs again, on a CPU with the same numbers. Then these epochs
    keep the points of the attempt that was first, and its run goes on. If the numbers differ, or if the final attempt
    has fewer epochs, the curve starts again with that attempt.
    """
    first, shown, held_s = attempts[0], dict[int, TimedEpoch](), 0.0
    for attempt in attempts:
        reports = {report.epoch: report for report in curves.get(attempt.number, ())}
        is_same = all(_learned(shown[epoch].report) == _learned(reports[epoch]) for epoch in shown.keys() & reports)
        is_whole = not (is_final and attempt is attempts[-1]) or shown.keys() <= reports.keys()
        if not (is_same and is_whole):
            first, shown, held_s = attempt, {}, 0.0
        start_ms, trained_s = _milliseconds(first.started_at_s), held_s
        for epoch, report in reports.items():
            trained_s += report.seconds.wall
            shown.setdefault(epoch, TimedEpoch(start_ms + _milliseconds(trained_s), report))
        held_s += attempt.held_s
    return ShownCurve(first.number, start_ms, start_ms + _milliseconds(held_s), list(shown.values()))


def _learned(report: EpochReport) -> EpochReport:
    """An epoch without what a repetition measures otherwise."""
    return replace(report, seconds=Seconds(), memory_mb=None, gpu_busy_pct=None, gpu_memory_mb=None)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
