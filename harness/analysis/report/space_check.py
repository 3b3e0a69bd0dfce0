"""Checks the search space: best trials near bounds, unimportant settings, differences within noise."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from scipy import stats

from baselines.settings import Allowed
from harness.analysis.report.facts import Facts
from harness.analysis.report.importance import Importance, has_order, position
from harness.study.comparability import Configuration, key_of
from harness.study.formatting import setting
from harness.study.new_study import allowed_for
from harness.study.noise import Resolution, pooled_sd
from harness.study.records import Outcome, Role, Scalar
from harness.study.space import Choice, Float, Int

EDGE = 0.1  # of a range, at either end
MIN_TOP, TOP_SHARE = 4, 0.25  # the best quarter is used, at most ten
ALPHA = 0.05
SMALL = 0.1  # share of the differences; a hyperparameter whose interval lies below it does not matter here
MANY_INFEASIBLE = 0.2


@dataclass(frozen=True)
class NearBound:
    """Best trials that accumulate at one end of a range.

    Attributes:
        name: The hyperparameter.
        end: "low" or "high", a key of the sweep file.
        bound: The end of the range.
        num_near: Number of the best in the outer tenth.
        num_top: Number of the best that were used.
        try_value: A suggested wider bound.
    """

    name: str
    end: Literal["low", "high"]
    bound: float
    num_near: int
    num_top: int
    try_value: float


def near_bounds(facts: Facts) -> list[NearBound]:
    """The ranges with more of the best trials in the outer tenth than expected by chance.

    A binomial test against trials spread evenly over the range (over its values, where it has steps), by magnitude
    where magnitudes are sampled. A bound that cannot be moved, such as a dropout of 0, is left out.
    """
    top, allowed = _top(facts), allowed_for(facts.spec)
    found: list[NearBound] = []
    for name, domain in facts.spec.search_space.domains.items():
        values = [one.params[name] for one in top if name in one.params]
        if not isinstance(domain, Choice) and has_order(domain) and values:
            found += _crowds(name, domain, values, allowed[name])
    return found


def _crowds(name: str, domain: Int | Float, values: Sequence[Scalar], allowed: Allowed) -> Iterator[NearBound]:
    places = [position(domain, value) for value in values]
    ends: tuple[tuple[Literal["low", "high"], float, int], ...] = (
        ("low", domain.low, sum(place <= EDGE for place in places)),
        ("high", domain.high, sum(place >= 1 - EDGE for place in places)),
    )
    for end, bound, num_near in ends:
        further = moved(domain, end)
        if further == bound or further not in allowed or not num_near:
            continue
        test: Any = stats.binomtest(num_near, len(values), _share_near(domain, end), alternative="greater")
        if test.pvalue < ALPHA:
            yield NearBound(name, end, bound, num_near, len(values), further)


def _share_near(domain: Int | Float, end: str) -> float:
    """The share of a range in its outer tenth."""
    values = domain.values()
    if values is None or domain.log:
        return EDGE
    places = [position(domain, value) for value in values]
    return sum(place <= EDGE if end == "low" else place >= 1 - EDGE for place in places) / len(places)


def moved(domain: Int | Float, end: str) -> float:
    """A wider bound, or the same one if it cannot be moved.

    Twice or half of it if the range is logarithmic, else half the range further, in whole steps.
    """
    if domain.log:
        value: float = domain.high * 2 if end == "high" else domain.low / 2
    else:
        step = domain.step or 0
        further = (domain.high - domain.low) / 2
        further = max(step, round(further / step) * step) if step else further
        value = domain.high + further if end == "high" else domain.low - further
        if end == "low" and value <= 0 < domain.low:
            value = domain.low / 2 if not step else domain.low - math.floor((domain.low - 1e-12) / step) * step
    return max(1, math.floor(value)) if isinstance(domain, Int) and domain.low > 0 else value


def _top(facts: Facts) -> list[Configuration]:
    """The best quarter of the trials trained in full, since pruned ones were worse; [] if too few."""
    number = math.ceil(TOP_SHARE * (len(facts.configurations.searched) + _outcomes(facts)[Outcome.PRUNED]))
    top = facts.top_ten[:number]
    return top if len(top) >= MIN_TOP else []


def at_bounds(facts: Facts) -> list[tuple[str, Literal["low", "high"], float]]:
    """Ranges with the best trial exactly at an end: (hyperparameter, which end, its value)."""
    found: list[tuple[str, Literal["low", "high"], float]] = []
    best = facts.best.params if facts.best else {}
    for name, domain in facts.spec.search_space.domains.items():
        if name in best and not isinstance(domain, Choice) and has_order(domain):
            if best[name] == domain.low and domain.low != 0:
                found.append((name, "low", domain.low))
            elif best[name] == domain.high:
                found.append((name, "high", domain.high))
    return found


@dataclass(frozen=True)
class Noise:
    """The spread of the best trials, and that of trials by chance; percentage points.

    Attributes:
        top_sd: Standard deviation of the best trials.
        top_range: Difference between the best and the last of them.
        num_top: Number of the best trials.
        resolution: Spread of trials by chance; None without repeated seeds.
        num_apart: Number of pairs of the best that differ by more than two trials do by chance.
    """

    top_sd: float
    top_range: float
    num_top: int
    resolution: Resolution | None
    num_apart: int = 0


def noise(facts: Facts) -> Noise | None:
    """The noise; None if fewer than two searched trials were trained in full."""
    errors = [one.mean_error_pct for one in facts.top_ten]
    top_sd = pooled_sd([errors])
    if top_sd is None:
        return None
    resolution = facts.findings.resolution
    by_chance = resolution.points if resolution else math.inf
    num_apart = sum(worse - better >= by_chance for better, worse in combinations(errors, 2))
    return Noise(top_sd, errors[-1] - errors[0], len(errors), resolution, num_apart)


def infeasible(facts: Facts) -> tuple[int, int]:
    """Numbers of (infeasible, all) configurations that were tried; further seeds do not count again."""
    outcomes = {
        key_of(record.trial.params): record.result.outcome
        for record in facts.ended
        if record.result and record.trial.role is Role.TRIAL
    }
    return list(outcomes.values()).count(Outcome.INFEASIBLE), len(outcomes)


def _outcomes(facts: Facts) -> Counter[Outcome]:
    """Numbers of proposed trials by outcome."""
    return Counter(record.result.outcome for record in facts.ended if record.result and record.trial.role is Role.TRIAL)


def sentences(facts: Facts, found: Importance | None) -> list[str]:
    """The space check as sentences, one per line."""
    return [
        *_bound_lines(facts),
        _infeasible_line(facts),
        *_matter_lines(facts, found),
        *_noise_lines(facts),
    ]


def _bound_lines(facts: Facts) -> Iterator[str]:
    if not _top(facts):
        trained = f"{len(facts.searched)} trials trained in full and {_outcomes(facts)[Outcome.PRUNED]} pruned ones"
        yield f"Bounds: {trained} are too few to say whether one is in the way."
        return
    near = near_bounds(facts)
    for one in near:
        which = "upper" if one.end == "high" else "lower"
        yield (
            f"Move a bound: {one.num_near} of the {one.num_top} best trials lie in the {which} tenth of {one.name}."
            f" Better ones may lie beyond; try `{one.end} = {setting(one.try_value)}` instead of"
            f" {setting(one.bound)} under `space.{one.name}` of the sweep file."
        )
    known = {(one.name, one.end) for one in near}
    for name, end, value in at_bounds(facts):
        if (name, end) not in known:
            yield (
                f"The best trial has {name} = {setting(value)}, the end of its range (`{end}` of `space.{name}`);"
                " the other good ones do not crowd there, so this alone is no reason to move it."
            )
    if not near:
        yield "No bound is in the way: the best trials do not crowd at an end of any range."


def _infeasible_line(facts: Facts) -> str:
    number, total = infeasible(facts)
    if not number:
        return "No proposed configuration broke a limit of `[constraints]`."
    share = number / total
    line = (
        f"{number} of {total} proposed configurations ({share:.0%}) broke a limit of `[constraints]`, at no device time"
    )
    advice = ". That is much of the space: narrower ranges would let the search propose what can be trained."
    return line + (advice if share > MANY_INFEASIBLE else ".")


def _matter_lines(facts: Facts, found: Importance | None) -> Iterator[str]:
    if found is None:
        return
    small = [name for name, share in found.of_error.items() if share.high < SMALL]
    if small:
        shares = ", ".join(f"{name} (at most {found.of_error[name].high:.0%})" for name in small)
        yield (
            f"Hardly matters for the error here, with its share of the differences between trials: {shares}. Fixing it,"
            " or choosing it for its device time, leaves more trials for the rest."
        )
    else:
        yield "No hyperparameter is known to hardly matter."


def _noise_lines(facts: Facts) -> Iterator[str]:
    found = noise(facts)
    if found is None:
        return
    spread = f"The {found.num_top} best lie within {found.top_range:.2f} points (standard deviation {found.top_sd:.2f})"
    if found.resolution is None:
        yield f"{spread}; how much of that is noise is not known without a second seed of the baseline."
        return
    chance = f"two trials differ by up to {found.resolution.points:.2f} points by chance"
    if found.num_apart == 0:
        yield f"{spread}; {chance}, so their order is chance: any of them may be the best."
    else:
        num_pairs = math.comb(found.num_top, 2)
        yield f"{spread}; {chance}, and {found.num_apart} of their {num_pairs} pairs differ by more."
