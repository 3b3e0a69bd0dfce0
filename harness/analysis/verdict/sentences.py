"""A verdict in sentences: the answer, the cost, and the data behind them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.analysis.verdict.findings import Comparison, Cost, Errors, Verdict
from harness.analysis.verdict.statistics import LOOKS
from harness.analysis.verdict.trainings import Answer


@dataclass(frozen=True)
class _Pair:
    """A candidate and the baseline."""

    name: str
    comparison: Comparison
    errors: Errors
    cost: Cost
    baseline_errors: Errors
    baseline_cost: Cost


def sentences(verdict: Verdict) -> list[str]:
    """The sentences, one per line."""
    seeds = f"{len(verdict.seeds)} of {verdict.num_planned} fresh seeds each"
    tests = f"{verdict.num_test_reads} models have read the {verdict.test_images:,} test images, each once"
    return [
        f"{verdict.answer}: {_reason(verdict)}",
        *_costs(verdict),
        f"{seeds}, {verdict.trained}; {tests}",
    ]


def _reason(verdict: Verdict) -> str:
    number = len(verdict.candidates)
    if verdict.baseline.failures:
        return "a training of the baseline failed, so there is nothing to compare with"
    if verdict.answer is Answer.FAILED:
        return "no candidate could be trained with every seed"
    if verdict.answer is Answer.OPEN:
        return "too few seeds are trained; the same command continues"
    best = _pairs(verdict)[0]
    which = f"{best.name} of {verdict.study}" + (f", the best of {number}," if number > 1 else "")
    is_chance = verdict.answer is Answer.NOT_DISTINGUISHABLE and round(best.comparison.points, 2)
    chance = ", which may be chance" if is_chance else ""
    return (
        f"{which} has {_error(best.comparison.points)} the documented baseline{chance}"
        f" ({best.errors.mean_pct:.2f} % against {best.baseline_errors.mean_pct:.2f} % of the test images,"
        f" worst seed {best.errors.worst_pct:.2f} % against {best.baseline_errors.worst_pct:.2f} %;"
        f" {_interval(best)}){_more_seeds(verdict, best)}"
    )


def _error(points: float) -> str:
    return f"an error {_apart(points)} than" if round(points, 2) else "the same mean error as"


def _interval(pair: _Pair) -> str:
    if not pair.comparison.says_something(pair.baseline_errors):
        return "too few seeds for an interval that says anything"
    limits = pair.comparison.corrected
    return f"95 % interval from {_apart(limits.low)} to {_apart(limits.high)}"


def _more_seeds(verdict: Verdict, best: _Pair) -> str:
    """How many seeds would show such a difference."""
    if verdict.answer is not Answer.NOT_DISTINGUISHABLE or not round(best.comparison.points, 2):
        return ""
    needed = best.comparison.num_seeds_needed
    if not needed:
        return f". {max(LOOKS)} seeds, the most that a verdict can have, are too few to show a difference of this size"
    return f". A difference of this size would show with about {needed} seeds (--seeds {needed})"


def _costs(verdict: Verdict) -> Iterator[str]:
    """The cost of the best candidate, and that of the cheapest one with the same answer if it is cheaper."""
    if verdict.answer not in (Answer.BETTER, Answer.NOT_DISTINGUISHABLE):
        return
    best, *others = _pairs(verdict)
    if any(pair.comparison.device_time_ratio is None for pair in (best, *others)):
        yield "cost: device times are not compared, since they come from several timing classes"
        return
    yield f"cost: {best.name} {_cost(best, verdict.answer)}"
    cheapest = min(others, key=_ratio, default=best)
    if _ratio(cheapest) < _ratio(best):
        yield f"cheaper: {cheapest.name} (also {verdict.answer}) {_cost(cheapest, verdict.answer)}"


def _cost(pair: _Pair, answer: Answer) -> str:
    """The cost of a candidate; of one that saves device time at an equal error, also how well that error is known."""
    worst = max(0.0, pair.comparison.corrected.high)
    is_known = worst <= pair.baseline_errors.mean_pct / 2  # otherwise the seeds say too little
    saves = pair.cost.device_time_s < pair.baseline_cost.device_time_s  # as good for more is no praise
    if answer is Answer.NOT_DISTINGUISHABLE and saves and is_known:
        return f"is as good to within {worst:.2f} points at {_times(pair)}"
    return f"takes {_times(pair)}"


def _ratio(pair: _Pair) -> float:
    """Device time over the baseline's, rounded as it is shown."""
    return round(pair.comparison.device_time_ratio or 0.0, 2)


def _pairs(verdict: Verdict) -> list[_Pair]:
    """The candidates with the overall answer, the one with the lowest error first."""
    baseline = verdict.baseline
    pairs = [
        _Pair(one.name, one.comparison, one.errors, one.cost, baseline.errors, baseline.cost)
        for one in verdict.candidates
        if one.answer is verdict.answer
        and (one.comparison and one.errors and one.cost)
        and (baseline.errors and baseline.cost)
    ]
    return sorted(pairs, key=lambda pair: pair.errors.mean_pct)


def _times(pair: _Pair) -> str:
    mine, theirs = pair.cost, pair.baseline_cost
    return (
        f"{pair.comparison.device_time_ratio:.2f}x the device time ({mine.device_time_s:.1f} s against"
        f" {theirs.device_time_s:.1f} s per training) and {mine.num_params / theirs.num_params:.2f}x the parameters"
    )


def _apart(points: float) -> str:
    return f"{abs(points):.2f} points {'lower' if points < 0 else 'higher'}"
