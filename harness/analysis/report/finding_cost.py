"""The cost of the search: best so far over device time, and expected results of random draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from harness.analysis.report.facts import Facts
from harness.study.comparability import Configurations

Floats = NDArray[np.float64]

MAX_DRAWS = 200  # evaluated numbers of draws; more would not be visible
BAND = (0.1, 0.9)


@dataclass(frozen=True)
class Step:
    """A study after the end of a trial.

    Attributes:
        trial: The trial's number.
        device_s: Seconds for which devices were held so far, including the baseline and failed attempts.
        num_searched: Searched trials that were trained in full so far.
        best_pct: Error of the best configuration; None before the first. A further seed of it may raise this.
        is_new_best: Whether this trial lowered it.
    """

    trial: int
    device_s: float
    num_searched: int
    best_pct: float | None
    is_new_best: bool


def steps(facts: Facts) -> list[Step]:
    """The steps of a study, in the order of the trials' ends."""
    found: list[Step] = []
    device_s, num_searched, best_pct, so_far = 0.0, 0, None, Configurations(facts.spec)
    for record in facts.ended:
        device_s += record.reserved_time_s
        changed, before_pct = so_far.add(record), best_pct
        num_searched += changed is not None and not changed.is_baseline
        best_pct = so_far.best.mean_error_pct if so_far.best else None
        is_new_best = best_pct is not None and (before_pct is None or best_pct < before_pct)
        found.append(Step(record.trial.number, device_s, num_searched, best_pct, is_new_best))
    return found


def first_below(steps: Sequence[Step], limit_pct: float) -> Step | None:
    """The first step with a trial below `limit_pct`."""
    return next((step for step in steps if step.best_pct is not None and step.best_pct < limit_pct), None)


@dataclass(frozen=True)
class BestOf:
    """The lowest error among k configurations drawn at random; arrays by `num_draws`, errors in percent.

    Attributes:
        num_draws: k.
        expected_pct: Its mean over all draws.
        low_pct, high_pct: Its 10 % and 90 % quantiles over all draws.
    """

    num_draws: NDArray[np.int64]
    expected_pct: Floats
    low_pct: Floats
    high_pct: Floats


def best_of(errors_pct: Sequence[float]) -> BestOf:
    """The best of k of these configurations, drawn at random without replacement, for k from 1 to all of them.

    Expected validation performance: J. Dodge, S. Gururangan, D. Card, R. Schwartz and N. A. Smith, "Show Your Work:
    Improved Reporting of Experimental Results", EMNLP 2019, in the unbiased form of R. Tang, J. Lee, J. Xin, X. Liu,
    Y. Yu and J. Lin, "Showing Your Work Doesn't Always Work", ACL 2020: of n errors in rising order the i-th is the
    lowest of k with probability C(n - i, k - 1) / C(n, k). Which error the lowest stays below with a given probability
    follows from C(n - i, k) / C(n, k), the probability that the first i are not among the k.

    Raises:
        ValueError: there is no error.
    """
    errors = np.sort(np.asarray(errors_pct, float))
    number = len(errors)
    if not number:
        raise ValueError("no errors; allowed: at least one")
    draws = np.unique(np.linspace(1, number, min(number, MAX_DRAWS)).round().astype(np.int64))
    rank = np.arange(1, number + 1)
    k = draws[:, None]
    is_lowest = np.exp(_log_choose(number - rank, k - 1) - _log_choose(number, k))  # (draws, error)
    is_below = 1 - np.exp(_log_choose(number - rank, k) - _log_choose(number, k))
    low, high = (errors[(is_below < share - 1e-9).sum(1)] for share in BAND)
    return BestOf(draws, is_lowest @ errors, low, high)


def _log_choose(n: NDArray[np.int64] | int, k: NDArray[np.int64]) -> Floats:
    """Logarithm of the number of ways to take k of n; minus infinity where there is none."""
    n, k = np.broadcast_arrays(n, k)
    possible = k <= n
    rest = np.where(possible, n - k, 0)
    ways: Floats = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(rest + 1.0)
    return np.where(possible, ways, -np.inf)
