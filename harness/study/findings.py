"""The best configuration of a study beside its baseline, and the noise between its trials, in words.

The terminal, the live display, reports and MLflow say it with these sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from harness.study.comparability import Configuration, Configurations
from harness.study.formatting import of_seeds
from harness.study.metrics import test_error_rate_pct
from harness.study.records import Record, TrialResult

if TYPE_CHECKING:
    from harness.study.noise import Resolution

MAX_COMPARED = 50  # configurations, and seeds of each, whose wrong images are compared; more change little


@dataclass(frozen=True)
class Findings:
    """The best configuration of a study against its baseline, among trials trained in full.

    Attributes:
        best: The best searched configuration; None if none is ranked yet.
        baseline: The documented configuration; None before its first result.
        baseline_test_pct: Its mean error on the test images, if they were read.
        num_ranked: Number of ranked searched configurations.
        resolution: Spread of trials by chance; None if no configuration was trained with two seeds.
        is_about_baseline: Whether only the baseline was trained with several seeds.
    """

    best: Configuration | None
    baseline: Configuration | None
    baseline_test_pct: float | None
    num_ranked: int
    resolution: Resolution | None
    is_about_baseline: bool

    @property
    def gain_points(self) -> float | None:
        """Points by which the best is below the baseline, both means over seeds; None without either.

        Rounded as it is shown, so that what is shown as no difference is none.
        """
        if self.best is None or self.baseline is None:
            return None
        return round(self.baseline.mean_error_pct - self.best.mean_error_pct, 2) + 0.0  # no -0.0

    @property
    def lead_by_chance(self) -> float | None:
        """Points by which the best configuration is below the baseline's mean by chance; None if unknown."""
        if self.resolution is None or not self.num_ranked or self.baseline is None:
            return None
        return self.resolution.lead(self.num_ranked, self.baseline.num_seeds)

    @property
    def is_within_noise(self) -> bool | None:
        """Whether the best may be this far below the baseline by chance; None if unknown or if it is not below."""
        gain_points, lead = self.gain_points, self.lead_by_chance
        return None if gain_points is None or gain_points <= 0 or lead is None else gain_points <= lead


def find(configurations: Configurations, result_of: Callable[[str], TrialResult | None]) -> Findings:
    """Computes a study's findings.

    Args:
        configurations: What was trained in full.
        result_of: Gives the result of a trial by its uid, with the wrong images; `Ledger.result`.
    """
    baseline = configurations.baseline
    repeated = [one for one in configurations.all if one.num_seeds > 1]
    results = [result_of(record.trial.uid) for record in (baseline.records[:MAX_COMPARED] if baseline else ())]
    tested = [test_error_rate_pct(configurations.spec, result) for result in results if result]
    tests = [error_pct for error_pct in tested if error_pct is not None]
    return Findings(
        best=configurations.best,
        baseline=baseline,
        baseline_test_pct=fmean(tests) if tests else None,
        num_ranked=len(configurations.searched),
        resolution=_resolution(repeated, result_of) if repeated else None,
        is_about_baseline=len(repeated) == 1 and repeated[0].is_baseline,
    )


def sentences(findings: Findings) -> list[str]:
    """The findings as sentences, one per line."""
    return [noise(findings), best_so_far(findings)]


def best_so_far(findings: Findings) -> str:
    """The best against the baseline in one line; of a baseline alone whose test error is known, its errors."""
    baseline = findings.baseline
    if baseline and findings.baseline_test_pct is not None:
        means = f"validation {baseline.mean_error_pct:.2f} %, test {findings.baseline_test_pct:.2f} %"
        return f"mean of {baseline.num_seeds} seeds: {means}"
    if findings.best is None:
        return "no searched trial is ranked yet"
    return f"best so far {against_baseline(findings)}"


def so_far(findings: Findings) -> str:
    """The same while a study runs: before a first best the baseline, and empty before any result."""
    if findings.best is None and findings.baseline:
        return f"baseline {findings.baseline.mean_error_pct:.2f} %{of_seeds(findings.baseline.num_seeds)}"
    return f"best so far {against_baseline(findings)}" if findings.best else ""


def against_baseline(findings: Findings) -> str:
    """The best, its error, seeds and interval, and its difference from the baseline, which may be noise."""
    best, baseline, gain_points = findings.best, findings.baseline, findings.gain_points
    if best is None:
        return "no searched trial is trained in full yet"
    found = f"trial {best.first.trial.number} at {best.mean_error_pct:.2f} %{_spread(best)}"
    if baseline is None or gain_points is None:
        return f"{found}; the baseline has no result yet to compare with"
    baselines = f"the baseline's {baseline.mean_error_pct:.2f} %{of_seeds(baseline.num_seeds)}"
    if gain_points == 0:
        return f"{found}, equal to {baselines}"
    if gain_points < 0:
        resolution = findings.resolution
        noise = ": within noise" if resolution and -gain_points <= resolution.points else ""
        return f"{found}, {-gain_points:.2f} points above {baselines}{noise}"
    return f"{found}, {gain_points:.2f} points below {baselines}: {_weight(findings)}"


def _spread(best: Configuration) -> str:
    low_pct, high_pct = best.interval_pct
    seeds = f"mean of {best.num_seeds} seeds, " if best.num_seeds > 1 else ""
    return f" ({seeds}95 %: {low_pct:.2f} to {high_pct:.2f})"


def _weight(findings: Findings) -> str:
    is_within_noise = findings.is_within_noise
    if is_within_noise is None:
        return "whether that is noise is not known"
    return "within noise" if is_within_noise else "more than noise"


def noise(findings: Findings) -> str:
    """The spread of trials by chance, for two chosen in advance and for the best."""
    resolution, lead = findings.resolution, findings.lead_by_chance
    if resolution is None:
        return "no configuration was trained with two seeds, so which differences are noise is not known"
    whose = "the baseline" if findings.is_about_baseline else "one configuration"
    if resolution.num_configurations > 1:
        whose = f"{resolution.num_configurations} configurations"
    basis = f"{resolution.num_seeds} seeds of {whose}, {resolution.num_images:,} validation images"
    two = f"by chance two trials differ by up to {resolution.points:.2f} points"
    best = "" if lead is None else f", and the best of {findings.num_ranked} may lead the baseline by {lead:.2f}"
    return f"{two}{best} (95 %; {basis})"


def _resolution(repeated: list[Configuration], result_of: Callable[[str], TrialResult | None]) -> Resolution | None:
    from harness.study.noise import resolution_pct

    def results(records: tuple[Record, ...]) -> list[TrialResult]:
        return [result for record in records[:MAX_COMPARED] if (result := result_of(record.trial.uid))]

    compared = [results(one.one_per_seed) for one in repeated[:MAX_COMPARED]]
    wrong = [[one.wrong_images for one in group if one.wrong_images is not None] for group in compared]
    num_images = max(one.val_images or 0 for group in compared for one in group)
    return resolution_pct([one.errors_pct for one in repeated], wrong, num_images)
