"""The results of a study in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.analysis.report.facts import Facts, time_word
from harness.analysis.report.finding_cost import Step, first_below
from harness.analysis.verdict.sentences import sentences as verdict_sentences
from harness.analysis.verdict.trainings import Answer
from harness.study.comparability import Configuration
from harness.study.findings import best_so_far, noise
from harness.study.formatting import duration, fidelity, of_seeds, settings
from harness.study.spec import SweepSpec


def subject(spec: SweepSpec) -> str:
    """The subject of the study, in one line."""
    documented = f"the documented {spec.baseline} on {spec.dataset}"
    how = fidelity(spec.train_images, spec.epochs, spec.precision)
    if not spec.is_search:
        return f"Training of {documented}: {how}"
    by = f"{spec.engine}, sampler {spec.sampler}, pruner {spec.pruner}, seed {spec.seed}"
    return f"Search around {documented}: {how}; {by}"


def headline(facts: Facts) -> str:
    """Best against baseline."""
    best, baseline = facts.best, facts.baseline
    if not facts.spec.is_search:
        return _trained(facts)
    if best is None:
        return "No searched trial has been trained in full yet, so there is no best one."
    of = f"It is the best of {len(facts.configurations.searched)} trained in full"
    has_none = facts.verdict and facts.verdict.seeds  # those of a verdict are beside it
    costs = _times(facts, best, baseline) if baseline and not has_none else ""
    return f"{_capital(best_so_far(facts.findings))}. {of}{costs}."


def is_better(facts: Facts) -> bool:
    """Whether the best leads by the verdict, or without one by more than noise."""
    if facts.verdict:
        return facts.verdict.answer is Answer.BETTER
    return facts.findings.is_within_noise is False


def _trained(facts: Facts) -> str:
    baseline = facts.baseline
    if not baseline:
        return "No seed of the documented network has been trained yet."
    test_pct = facts.findings.baseline_test_pct
    test = f", its test error {test_pct:.2f} %" if test_pct is not None else ""
    seeds = of_seeds(baseline.num_seeds) or " (one seed)"
    return f"The validation error of the documented network is {baseline.mean_error_pct:.2f} %{test}{seeds}."


def _times(facts: Facts, best: Configuration, baseline: Configuration) -> str:
    """The best configuration's cost relative to the baseline, if times can be compared."""
    best_s, baseline_s = facts.mean_time_s(best), facts.mean_time_s(baseline)
    if best.timing_class != baseline.timing_class or best_s is None or not baseline_s:
        return ""
    mine, theirs = (one.first.result.num_params if one.first.result else None for one in (best, baseline))
    parameters = f" and {mine / theirs:.2f}x its parameters" if mine and theirs else ""
    return f", at {best_s / baseline_s:.2f}x the baseline's {time_word(best.records)}{parameters}"


def headline_lines(facts: Facts) -> Iterator[str]:
    """The settings of the best configuration, and the noise between trials."""
    if facts.best:
        yield f"Its settings: `{settings(facts.best.params)}`."
    if facts.spec.is_search:
        yield f"{_capital(noise(facts.findings))}."


def _capital(line: str) -> str:
    return f"{line[:1].upper()}{line[1:]}"


def verdict_lines(facts: Facts) -> list[str]:
    """The verdict, or how to get one."""
    if facts.verdict:
        return [f"{_capital(line)}." for line in verdict_sentences(facts.verdict)]
    if not facts.best:
        return []
    return [
        "No verdict was made. The best of many trials looks better than it is; this trains it and the baseline again"
        f" with fresh seeds and reads the test images: `harness verdict {facts.spec.study}`"
    ]


def cost_lines(facts: Facts, steps: Sequence[Step]) -> Iterator[str]:
    """The reserved time until the search was better than the baseline."""
    if facts.baseline is None or not facts.searched:
        return
    baseline_pct = facts.baseline.mean_error_pct
    total = f"of {duration(steps[-1].device_s)} in all, the baseline's own trainings and failed attempts included"
    first = first_below(steps, baseline_pct)
    if first is None:
        spent = duration(steps[-1].device_s)
        yield f"No trial came below the baseline's {baseline_pct:.2f} % in {spent} of reserved time."
        return
    yield (
        f"First below the baseline: trial {first.trial}, the {_nth(first.num_searched)} trained in full, at"
        f" {first.best_pct:.2f} % with the seeds that it had then, after"
        f" {duration(first.device_s)} of reserved time {total}."
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
    """Numbers of trials by outcome, and the time for which workers were reserved for them."""
    outcomes = ", ".join(f"{count} {name}" for name, count in facts.outcomes.most_common())
    return (
        f"{len(facts.records)} trials ({outcomes or 'none yet'}), {duration(facts.usage.device_s)} of reserved time in"
        f" {duration(facts.usage.wall_s)}."
    )
