"""What the first epochs say about the best trials: whether stopping trials early pays in this study."""

from __future__ import annotations

from statistics import median

from harness.analysis.report.facts import Facts
from harness.study.comparability import error_pct
from harness.study.records import EpochReport, Record

MIN_TRIALS = 8
TOP_SHARE = 4  # the best quarter


def sentence(facts: Facts) -> str | None:
    """How many of the best trials were in the better half after each of the first epochs; None if too few are known.

    The trials are the first trainings of the searched configurations, trained to their end from the first epoch.
    """
    num_epochs = facts.spec.epochs
    trials = [one.first for one in facts.configurations.searched if len(_curve(one.first)) == num_epochs]
    if len(trials) < MIN_TRIALS or num_epochs < 2:
        return None
    best = sorted(trials, key=error_pct)[: len(trials) // TOP_SHARE]
    looks = sorted({1, max(1, num_epochs // 4), num_epochs // 2})
    counts = [f"{_num_in_better_half(trials, best, epoch)} after epoch {epoch}" for epoch in looks]
    return (
        f"Stopping early: of the {len(best)} best of {len(trials)} trials trained to their end, in the better half were"
        f" {', '.join(counts)} of {num_epochs}. A pruner pays if these are nearly all of them."
    )


def _num_in_better_half(trials: list[Record], best: list[Record], epoch: int) -> int:
    errors_pct = {one.trial.uid: curve[epoch - 1].val_error_rate_pct for one in trials if (curve := _curve(one))}
    limit_pct = median(errors_pct.values())
    return sum(errors_pct[one.trial.uid] <= limit_pct for one in best)


def _curve(record: Record) -> tuple[EpochReport, ...]:
    return record.result.curve if record.result else ()
