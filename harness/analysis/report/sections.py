"""The sections of a report, in order: title, explanation, figures, and sentences or the reason for their absence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go

from harness.analysis.report import (
    early_errors,
    search_figures,
    space_check,
    space_figures,
    tables,
    verdict_figures,
    work_figures,
)
from harness.analysis.report.facts import Facts
from harness.analysis.report.finding_cost import Step, best_of, steps
from harness.analysis.report.headline import cost_lines
from harness.analysis.report.importance import Importance, importance, num_needed, surfaces
from harness.analysis.report.time_use import time_use, timeline
from harness.analysis.report.work_figures import curves_shown, with_curves
from harness.study.formatting import counted, duration

MIN_DRAWS = 3  # minimum number of trials for the figure of random orders


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Attributes:
        key: Its anchor, and the start of its figures' names.
        title: Its heading.
        explanation: Its content and how to read it.
        figures: Shown side by side if there is room.
        lines: Sentences below the figures, or the reason for no figure.
        tables: Shown below the sentences.
    """

    key: str
    title: str
    explanation: str
    figures: Sequence[go.Figure] = ()
    lines: Sequence[str] = ()
    tables: Sequence[tables.Table] = field(default=())


@dataclass(frozen=True)
class Material:
    """Data of several sections, computed once."""

    facts: Facts
    steps: list[Step]
    importance: Importance | None


def material(facts: Facts) -> Material:
    return Material(facts, steps(facts), importance(facts))


def sections(known: Material) -> list[Section]:
    """All sections for a study; a study without a search space has no sections about one."""
    searches: list[Callable[[Material], Section]] = [
        *([_verdict] if known.facts.verdict else []),
        _best_so_far,
        _error_against_time,
        _top_trials,
        _space_check,
        _importance,
        _parallel,
        _slices,
        _contours,
    ]
    always: list[Callable[[Material], Section]] = [_curves, _workers, _time_use]
    order = [*searches, *always, _finding_cost] if known.facts.spec.is_search else [_top_trials, *always]
    return [make(known) for make in order]


def _verdict(known: Material) -> Section:
    verdict = known.facts.verdict
    if verdict is None:
        raise ValueError("there is no verdict")
    pairs = verdict_figures.compared(verdict)
    return Section(
        "verdict",
        "Verdict with fresh seeds",
        "Each line is a candidate's difference from the documented network in test error, with an interval that holds"
        " for all candidates and looks together with 95 %. All of it left of zero: better. Across zero: not"
        " distinguishable.",
        [verdict_figures.differences(pairs)] if pairs else [],
        [] if pairs else ["Too few seeds are trained to compare anything yet."],
        [verdict_figures.errors_table(verdict)] if pairs else [],
    )


def _best_so_far(known: Material) -> Section:
    facts = known.facts
    return Section(
        "progress",
        "Best so far against reserved time",
        "Each point is a trial that was trained in full; the line is the best configuration so far, by its mean over"
        " seeds. Where it falls below the"
        " band of the baseline's seeds, the search is ahead. Time counts everything: the baseline, trials stopped early"
        " and failed attempts.",
        [search_figures.best_so_far(facts, known.steps)] if facts.searched else [],
        [] if facts.searched else [_NONE_YET],
    )


_NONE_YET = "No searched trial has been trained in full yet, so there is nothing to show."


def _error_against_time(known: Material) -> Section:
    facts = known.facts
    lines = [] if facts.searched else [_NONE_YET]
    classes = facts.timing_classes
    if len(classes) > 1:
        (main, number), *_ = classes.most_common()
        lines.append(
            f"Times can be compared only within one timing class. Shown are the {number} trials of: {main};"
            f" {classes.total() - number} of others are left out."
        )
    if any(record.trial.continues for record in facts.searched):
        lines.append("The time of a trial that continues another one includes that one's.")
    return Section(
        "cost",
        f"Error against {facts.time_word}",
        f"Lower is more accurate, further left is cheaper to train. No configuration beats those on the dotted Pareto"
        f" front in the means of both error and {facts.time_word}; the one to pick depends on what a second is worth.",
        [search_figures.error_against_time(facts)] if facts.searched else [],
        lines,
    )


def _top_trials(known: Material) -> Section:
    title = "Best trials" if known.facts.spec.is_search else "Seeds"
    return Section(
        "trials",
        title,
        "Configurations, ranked by their mean validation error over seeds, with 95 % Wilson intervals. Where they"
        " overlap, the order may be chance. Trials that were stopped early or failed are not ranked.",
        tables=[tables.top_trials(known.facts)],
    )


def _space_check(known: Material) -> Section:
    lines = space_check.sentences(known.facts, known.importance) if known.facts.searched else [_NONE_YET]
    return Section(
        "space-check",
        "Space check",
        "Was the right space searched? Bounds that are in the way, configurations that cannot be trained, settings that"
        " do not matter, and whether the best trials differ by more than chance.",
        lines=lines,
    )


def _importance(known: Material) -> Section:
    found, facts = known.importance, known.facts
    if found is None:
        number, needed = len(facts.configurations.searched), num_needed(facts.spec)
        lines = [f"{number} searched configurations were trained in full; at least {needed} that differ are needed."]
    else:
        most = next(iter(found.of_error))
        clear = f"{most} matters most." if found.is_first_clear else "Which one matters most cannot be told from these."
        lines = [f"{clear} fANOVA of random forests on resamples of {found.num_configurations} configurations."]
        if found.left_out:
            lines.append(f"Left out, since not every trial has it or it never varied: {', '.join(found.left_out)}.")
    return Section(
        "importance",
        "Which hyperparameters matter",
        "The share of the differences between configurations that each hyperparameter explains, with its 80 % interval."
        " Bars whose intervals overlap may stand in another order.",
        [space_figures.importances(found)] if found else [],
        lines,
    )


def _parallel(known: Material) -> Section:
    return Section(
        "parallel",
        "All hyperparameters",
        "Each line is one configuration, from setting to setting to its mean error at the right. A click in the legend"
        " hides a group.",
        [space_figures.parallel_coordinates(known.facts)] if known.facts.searched else [],
        [] if known.facts.searched else [_NONE_YET],
    )


def _slices(known: Material) -> Section:
    return Section(
        "slices",
        "Error by each hyperparameter",
        "One point per trial, darker the later it was proposed; the star is the best trial, diamonds are the baseline."
        " A slope means that the setting matters, a cloud that others matter more.",
        space_figures.slices(known.facts) if known.facts.searched else [],
        [] if known.facts.searched else [_NONE_YET],
    )


def _contours(known: Material) -> Section:
    found = surfaces(known.facts, known.importance) if known.importance else []
    return Section(
        "contours",
        "Error by pairs of hyperparameters",
        "Error by two hyperparameters, as a smooth surface through the trials (a Gaussian process; the effect of all"
        " other settings counts as noise). Green regions are good. Grey regions are too far from all trials.",
        space_figures.contours(known.facts, found),
        [] if found else ["Too few trials, or fewer than two ranges of numbers, to draw a surface."],
    )


def _curves(known: Material) -> Section:
    facts = known.facts
    num_trained, records = len(with_curves(facts)), curves_shown(facts)
    lines = [] if records else ["No epoch has been trained yet."]
    if len(records) < num_trained:
        lines.append(f"{len(records)} of {num_trained} curves are shown: the baseline, the best, and others evenly.")
    if any(record.trial.continues for record in records):
        lines.append("A trial that continues another one starts where that one ended.")
    if any(record.trial.epochs < facts.spec.epochs for record in records):
        lines.append(
            "Dotted trials were given fewer epochs by the search, so their errors are not ranked with the others."
        )
    stopping = early_errors.sentence(facts)
    if stopping:
        lines.append(stopping)
    number, total = facts.spec.validation_images, facts.spec.sizes["validation"]
    part = f", on {number:,} validation images, and after the last one on all {total:,}" if number < total else ""
    return Section(
        "curves",
        "Learning curves",
        f"Error after each epoch{part}. Solid lines went to the last epoch; dashed ones were stopped early"
        " and end in a cross. Where a dashed line was still among the lower ones, stopping it may have been a mistake.",
        [work_figures.learning_curves(facts)] if records else [],
        lines,
    )


def _workers(known: Material) -> Section:
    found = timeline(known.facts.attempts)
    lines = [] if found.stretches else ["No attempt has ended yet."]
    if found.cuts_s:
        lines.append(f"{duration(found.cut_s)} without any trial are cut out, at the dotted lines.")
    if found.num_short:
        lines.append(f"The {found.num_short} shortest attempts are left out.")
    return Section(
        "workers",
        "Timeline of the workers",
        "A bar per attempt at a trial, a row per worker. In gaps a worker had nothing to train. Many short bars"
        " without a result are a sign of a problem.",
        [work_figures.workers(found)] if found.stretches else [],
        lines,
    )


def _time_use(known: Material) -> Section:
    found = time_use(known.facts)
    lines = [
        f"Devices were held for {duration(found.device_s)}, of which training took {found.training_share:.0%}.",
        "Logging to MLflow runs in a thread of its own, which no trial waits for, and is not measured.",
    ]
    lines = lines if found.device_s else ["No time was reserved yet."]
    if found.reused_s:
        num_reused = sum(record.reused_time_s > 0 for record in known.facts.records)
        lines.append(
            f"{counted(num_reused, 'trial')} took over the result of an equal training in the ledger. That"
            f" took {duration(found.reused_s)}, which are not counted here."
        )
    return Section(
        "time",
        "Use of reserved time",
        "Time for which workers were reserved, by use. Training should be most of it. Evaluation, compiling and"
        " building are overhead. The time of failed attempts is lost.",
        [work_figures.time_bars(found)] if found.device_s else [],
        lines,
    )


def _finding_cost(known: Material) -> Section:
    facts = known.facts
    number = len(facts.configurations.searched)
    lines = list(cost_lines(facts, known.steps))
    if number >= MIN_DRAWS:
        found = best_of([one.mean_error_pct for one in facts.configurations.searched])
        half = int((number + 1) / 2)
        expected = found.expected_pct[abs(found.num_draws - half).argmin()]
        lines.append(
            f"Half as many of these configurations, drawn at random, would have come to {expected:.2f} % on average;"
            f" all {number} came to {found.expected_pct[-1]:.2f} %."
        )
        figures = [search_figures.best_of_draws(facts, found)]
    else:
        lines.append(
            f"{number} searched configurations were trained in full; from {MIN_DRAWS} on, random orders are shown."
        )
        figures = []
    return Section(
        "finding",
        "Cost of the search",
        "Expected validation performance: the expected lowest error of a number of these configurations in random"
        " order, and the lowest error in the order of the search. If the curve is still falling at its end, more trials"
        " would help. A search that learns falls faster than random order.",
        figures,
        lines,
    )
