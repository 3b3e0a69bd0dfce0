"""A verdict in sentences: the answer, the cost, and the data behind them."""

from __future__ import annotations

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
    trained = f"{verdict.epochs} epochs on {verdict.train_images:,} images"
    seeds = f"{len(verdict.seeds)} of {verdict.num_planned} fresh seeds each"
    tests = f"{verdict.num_test_reads} models have read the {verdict.test_images:,} test images, each once"
    cost = _cost(verdict)
    return [
        f"{verdict.answer}: {_reason(verdict)}",
        *([f"cost: {cost}"] if cost else []),
        f"{seeds}, {trained}; {tests}",
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
    how_many = f"about {needed} seeds (--seeds {needed})" if needed else f"more than {max(LOOKS)} seeds"
    return f". A difference of this size would show with {how_many}"


def _cost(verdict: Verdict) -> str:
    """The cost of the best candidate if one is better, else of the cheapest that is not worse."""
    if verdict.answer not in (Answer.BETTER, Answer.NOT_DISTINGUISHABLE):
        return ""
    pairs = _pairs(verdict)
    if any(pair.comparison.device_time_ratio is None for pair in pairs):
        return "device times are not compared, since they come from several timing classes"
    is_better = verdict.answer is Answer.BETTER
    chosen = pairs[0] if is_better else min(pairs, key=lambda pair: pair.cost.device_time_s)
    if is_better or chosen.cost.device_time_s >= chosen.baseline_cost.device_time_s:  # as good for more is no praise
        return f"{chosen.name} takes {_times(chosen)}"
    worst = max(0.0, chosen.comparison.corrected.high)
    if worst > chosen.baseline_errors.mean_pct / 2:  # the seeds say too little
        return f"{chosen.name} takes {_times(chosen)}"
    return f"{chosen.name} is as good to within {worst:.2f} points at {_times(chosen)}"


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
