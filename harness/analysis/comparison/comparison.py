"""Compares search methods at the same cost.

Studies that differ only in their search's seed are repeats of one method. Methods are compared by their incumbents: the
lowest validation error among the trials trained in full so far. Test images are not used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np
import pandas as pd
from scipy import stats

from harness.analysis.comparison.incumbents import Floats, Incumbents, Unit, read_incumbents
from harness.analysis.comparison.methods import Method, find_methods
from harness.analysis.statistics import quartiles, share_below
from harness.analysis.verdict.statistics import holm
from harness.errors import InputError
from harness.ledger.ledger import Ledger, find_study
from harness.study.comparability import Configurations
from harness.study.settings import Decides, settings_that_decide
from harness.study.spec import SweepSpec

COMPARABLE = settings_that_decide(Decides.ARCHITECTURE, Decides.ERRORS)  # studies must agree in these settings
NUM_BUDGETS = 10  # equal parts of the common budget, at the end of each of which methods are ranked
ALPHA = 0.05
NUM_PERMUTATIONS = 20_000  # with up to eight repeats each, all permutations


@dataclass(frozen=True)
class Standing:
    """The results of a method.

    Attributes:
        method: The method.
        error_pct: By repeat: the incumbent's error at the common budget; infinite if there was none by then.
        mean_rank: Mean over ten parts of the common budget, from 1: see `mean_ranks`.
    """

    method: Method
    error_pct: tuple[float, ...]
    mean_rank: float

    @property
    def quartiles_pct(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of `error_pct`."""
        return quartiles(self.error_pct)


@dataclass(frozen=True)
class Comparison:
    """A comparison of studies.

    Attributes:
        studies: Their incumbents.
        standings: Their methods, the best mean rank first.
        unit: Unit of budgets: device seconds, or full trainings if the times are of several timing classes, which
            cannot be compared.
        budget: The largest budget that every study has used.
        p_values: For each pair of methods, by their labels in the order of `standings`; see `corrected_p_values`.
        baseline_pct: Mean error of the documented configuration over all its trainings; None if there is none, or if
            the studies train it by different recipes.
        num_baselines: Number of these trainings.
    """

    studies: tuple[Incumbents, ...]
    standings: tuple[Standing, ...]
    unit: Unit
    budget: float
    p_values: Mapping[tuple[str, str], float]
    baseline_pct: float | None
    num_baselines: int

    @property
    def table(self) -> pd.DataFrame:
        """One row per method, the best mean rank first.

        Columns: method, engine, sampler, pruner; seeds, how many, and studies, which; mean_rank; error_rate_pct, the
        median over seeds of the incumbent's error at the common budget in percent, with its quartiles _low_pct and
        _high_pct; beats_others, the share of pairs of seeds in which it is the lower one there, 0.5 being no
        difference; budget and budget_unit (device_s or trainings).
        """
        return pd.DataFrame([self._row(standing) for standing in self.standings])

    @property
    def curves(self) -> pd.DataFrame:
        """One row per searched trial in the order they ended, study by study.

        Columns: method, study, seed, trial; trials, trainings and device_s, what was paid by then; error_rate_pct, the
        incumbent's, missing before the first trial trained in full.
        """
        return pd.concat(
            [
                self._curve(standing.method, self.studies[i])
                for standing in self.standings
                for i in standing.method.repeats
            ],
            ignore_index=True,
        )

    def _row(self, standing: Standing) -> dict[str, object]:
        spec = self.studies[standing.method.repeats[0]].spec
        low, median, high = standing.quartiles_pct
        others = [error for other in self.standings if other is not standing for error in other.error_pct]
        return {
            "method": standing.method.label,
            "engine": spec.engine,
            "sampler": spec.sampler,
            "pruner": spec.pruner,
            "seeds": len(standing.error_pct),
            "studies": " ".join(self.studies[i].spec.study for i in standing.method.repeats),
            "mean_rank": standing.mean_rank,
            "error_rate_pct": _finite(median),
            "error_rate_low_pct": _finite(low),
            "error_rate_high_pct": _finite(high),
            "beats_others": share_below(standing.error_pct, others) if others else None,
            "budget": self.budget,
            "budget_unit": self.unit,
        }

    @staticmethod
    def _curve(method: Method, study: Incumbents) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "method": method.label,
                "study": study.spec.study,
                "seed": study.spec.seed,
                "trial": study.trials,
                "trials": np.arange(1, len(study.trials) + 1),
                "trainings": study.trainings,
                "device_s": study.device_s,
                "error_rate_pct": np.where(np.isinf(study.error_pct), np.nan, study.error_pct),
            }
        )


def compare(ledger: Ledger, studies: Sequence[str]) -> Comparison:
    """Compares studies of one baseline and one fidelity.

    Raises:
        InputError: fewer than two studies are named, there is no such study, or they cannot be compared.
    """
    names = list(dict.fromkeys(studies))
    if len(names) < 2:
        raise InputError(f"studies are {', '.join(names) or 'none'}; allowed: at least two, to compare with each other")
    specs = [find_study(ledger, name).spec for name in names]
    _check_comparable(specs)
    found = tuple(read_incumbents(ledger, spec) for spec in specs)
    for one in found:
        if not np.isfinite(one.error_pct).any():
            raise InputError(
                f"study {one.spec.study} has no searched trial that was trained in full; allowed: studies that have one"
            )
    return set_beside(found, _baseline_errors_pct(ledger, specs))


def set_beside(studies: Sequence[Incumbents], baseline_errors_pct: Sequence[float] = ()) -> Comparison:
    """Compares comparable studies that were read; the baseline's errors are only reported."""
    unit: Unit = "device_s" if len(frozenset().union(*(one.timing_classes for one in studies))) == 1 else "trainings"
    budget = min(float(one.cost(unit)[-1]) for one in studies)
    standings = _standings(find_methods([one.spec for one in studies]), studies, budget, unit)
    baseline_pct = fmean(baseline_errors_pct) if baseline_errors_pct else None
    p_values = corrected_p_values(standings)
    return Comparison(tuple(studies), standings, unit, budget, p_values, baseline_pct, len(baseline_errors_pct))


def mean_ranks(errors_pct: Sequence[Floats]) -> list[float]:
    """The mean rank of each method, from 1, over budgets and over all ways to pick a repeat of each method.

    A method's rank is one more than the number of methods below it, ties counting half; over all ways to pick, the
    expected number is the sum of the shares of pairs in which the other one is below, so that methods may have
    different numbers of repeats.

    Args:
        errors_pct: Per method, the incumbents' errors (repeat, budget), infinite where there is none.
    """
    at_each = [errors.T.tolist() for errors in errors_pct]  # method, budget, repeat
    ranks = []
    for method in at_each:
        others = [other for other in at_each if other is not method]
        num_below = [sum(share_below(other[i], mine) for other in others) for i, mine in enumerate(method)]
        ranks.append(1 + fmean(num_below))
    return ranks


def corrected_p_values(standings: Sequence[Standing]) -> dict[tuple[str, str], float]:
    """For each pair of methods: the p-value of the difference at the common budget, corrected.

    The two-sided test of H. B. Mann and D. R. Whitney, Ann. Math. Statist. 18 (1947) 50-60, over all permutations of
    the repeats, which ties do not disturb, or 20,000 random ones where there are more. Corrected for the number of
    pairs (`holm`). Repeats are assumed to be independent. With only one, there is no test and the p-value is 1.
    """
    pairs = list(combinations(standings, 2))
    corrected = holm(np.array([_p_value(a.error_pct, b.error_pct) for a, b in pairs]))
    return {(a.method.label, b.method.label): p for (a, b), p in zip(pairs, corrected.tolist(), strict=True)}


def least_p_value(standings: Sequence[Standing]) -> float:
    """The lowest possible corrected p-value of a difference between two of the methods."""
    pairs = list(combinations([len(standing.error_pct) for standing in standings], 2))
    tested = [(a, b) for a, b in pairs if min(a, b) > 1]
    return min((min(1.0, len(pairs) * 2 / math.comb(a + b, a)) for a, b in tested), default=1.0)


def _p_value(ours: Sequence[float], theirs: Sequence[float]) -> float:
    if min(len(ours), len(theirs)) < 2:
        return 1.0
    permutations = stats.PermutationMethod(n_resamples=NUM_PERMUTATIONS, rng=np.random.default_rng(0))
    return float(stats.mannwhitneyu(ours, theirs, method=permutations).pvalue)


def _standings(
    methods: Sequence[Method], studies: Sequence[Incumbents], budget: float, unit: Unit
) -> tuple[Standing, ...]:
    budgets = budget * np.arange(1, NUM_BUDGETS + 1) / NUM_BUDGETS
    budgets[-1] = budget  # to the last digit: there a trial ends
    errors = [np.array([studies[i].at(budgets, unit) for i in method.repeats]) for method in methods]
    standings = [
        Standing(method, tuple(error[:, -1].tolist()), rank)
        for method, error, rank in zip(methods, errors, mean_ranks(errors), strict=True)
    ]
    return tuple(sorted(standings, key=lambda one: (one.mean_rank, one.quartiles_pct[1])))


def _baseline_errors_pct(ledger: Ledger, specs: Sequence[SweepSpec]) -> list[float]:
    """Errors of the documented configuration; none if the studies train it by different recipes."""
    if any(spec.recipe != specs[0].recipe for spec in specs):
        return []
    found = [Configurations(spec, ledger.finished(spec.study)).baseline for spec in specs]
    return [error_pct for baseline in found if baseline for error_pct in baseline.errors_pct]


def _check_comparable(specs: Sequence[SweepSpec]) -> None:
    for spec in specs:
        if not spec.is_search:
            raise InputError(f"study is {spec.study}, which searches nothing; allowed: studies that search")
        if "error" not in spec.objective:
            raise InputError(f"study is {spec.study}, which searches for time; allowed: studies that search for error")
    for key in COMPARABLE:
        values = {str(getattr(spec, key)): spec.study for spec in reversed(specs)}
        if len(values) > 1:
            examples = " and ".join(f"{value} ({study})" for value, study in reversed(values.items()))
            raise InputError(
                f"{key} is {examples}; allowed: studies of one {', '.join(COMPARABLE)}, since errors are comparable"
                " only among these"
            )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
