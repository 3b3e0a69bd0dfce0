"""What a study came to, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from harness.analysis.leaderboard.findings import noise, weight
from harness.analysis.report.facts import Facts, error_pct, timing_class
from harness.analysis.report.finding_cost import Step, first_below
from harness.analysis.verdict.sentences import sentences as verdict_sentences
from harness.study.formatting import duration, settings
from harness.study.records import Record
from harness.study.spec import SweepSpec


def subject(spec: SweepSpec) -> str:
    """What the study is, in one line."""
    documented = f"the documented {spec.baseline} on {spec.dataset}"
    fidelity = f"{spec.train_images:,} training images, {spec.epochs} epochs"
    if not spec.is_search:
        return f"Training of {documented}: {fidelity}"
    by = f"{spec.engine}, sampler {spec.sampler}, pruner {spec.pruner}, seed {spec.seed}"
    return f"Search around {documented}: {fidelity}; {by}"


def headline(facts: Facts) -> str:
    """Best against baseline, in one sentence."""
    best, baseline_pct = facts.best, facts.baseline_pct
    if not facts.spec.is_search:
        return _trained(facts)
    if best is None:
        return "No searched trial has been trained in full yet, so there is no best one."
    error = f"Trial {best.trial.number} is the best of {len(facts.searched)} trained in full:"
    error += f" its validation error is {error_pct(best):.2f} %"
    if baseline_pct is None:
        return f"{error}. The baseline has no result yet to compare it with."
    points = baseline_pct - error_pct(best)
    than = "lower" if points > 0 else "higher"
    against = f"{abs(points):.2f} points {than} than the documented network's {baseline_pct:.2f} %"
    if round(points, 2) == 0:
        against = f"like the documented network's ({baseline_pct:.2f} %)"
    gain = f" The gain is {weight(facts.findings, points)}." if points > 0 else ""
    return f"{error}, {against}{_seeds(facts)}{_times(facts, best)}.{gain}"


def _trained(facts: Facts) -> str:
    number = len(facts.baselines)
    if not number:
        return "No seed of the documented network has been trained yet."
    errors = [error_pct(record) for record in facts.baselines]
    test_pct = facts.findings.baseline_test_pct
    test = f", its test error {test_pct:.2f} %" if test_pct is not None else ""
    seeds = f"mean of {number} seeds" if number > 1 else "one seed"
    return f"The validation error of the documented network is {fmean(errors):.2f} %{test} ({seeds})."


def _seeds(facts: Facts) -> str:
    number = len(facts.baselines)
    return f" (mean of {number} seeds)" if number > 1 else ""


def _times(facts: Facts, best: Record) -> str:
    """What it costs beside the baseline, where times may be compared."""
    same = [record for record in facts.baselines if timing_class(record) == timing_class(best)]
    baseline_s = fmean(map(facts.time_s, same)) if same else 0.0
    if not baseline_s:
        return ""
    return f", at {facts.time_s(best) / baseline_s:.2f}x its {facts.time_word}{_parameters(best, same[0])}"


def _parameters(best: Record, baseline: Record) -> str:
    mine, theirs = (record.result.num_params if record.result else None for record in (best, baseline))
    return f" and {mine / theirs:.2f}x its parameters" if mine and theirs else ""


def headline_lines(facts: Facts) -> Iterator[str]:
    """What more is to be known before the headline is believed."""
    if facts.best:
        yield f"Its settings: `{settings(facts.best.trial.params)}`."
    if facts.spec.is_search:
        yield f"{_capital(noise(facts.findings))}."


def _capital(line: str) -> str:
    return f"{line[:1].upper()}{line[1:]}"


def verdict_lines(facts: Facts) -> list[str]:
    """What was found when the best were trained again, or how to find out."""
    if facts.verdict:
        return [f"{_capital(line)}." for line in verdict_sentences(facts.verdict)]
    if not facts.best:
        return []
    return [
        "No verdict was made. The best of many trials looks better than it is; this trains it and the baseline again"
        f" with fresh seeds and reads the test images: `harness verdict {facts.spec.study}`"
    ]


def cost_lines(facts: Facts, steps: Sequence[Step]) -> Iterator[str]:
    """How long it took until the search was ahead of the baseline."""
    baseline_pct = facts.baseline_pct
    if baseline_pct is None or not facts.searched:
        return
    total = f"of {duration(steps[-1].device_s)} in all, the baseline's own trainings and failed attempts included"
    first = first_below(steps, baseline_pct)
    if first is None:
        spent = duration(steps[-1].device_s)
        yield f"No trial came below the baseline's {baseline_pct:.2f} % in {spent} of device time."
        return
    yield (
        f"First below the baseline: trial {first.trial}, the {_nth(first.num_searched)} trained in full, after"
        f" {duration(first.device_s)} of device time {total}."
    )
    lead = facts.findings.lead_by_chance
    if lead is None:
        return
    clear = first_below(steps, baseline_pct - lead)
    noise = f"more than the {lead:.2f} points by which the best of {facts.findings.num_ranked} leads by chance"
    if clear is None:
        yield f"No trial came below it by {noise}."
    else:
        yield f"First below it by {noise}: trial {clear.trial}, after {duration(clear.device_s)}."


def _nth(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def outcome_line(facts: Facts) -> str:
    """How many trials ended how, and what they took."""
    outcomes = ", ".join(f"{count} {name}" for name, count in facts.outcomes.most_common())
    return (
        f"{len(facts.records)} trials ({outcomes or 'none yet'}), {duration(facts.usage.device_s)} of device time in"
        f" {duration(facts.usage.wall_s)}."
    )
