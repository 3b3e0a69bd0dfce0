"""Conclusions from a leaderboard about one study."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from harness.analysis.statistics import Resolution, resolution_pct
from harness.ledger.ledger import Ledger
from harness.study.formatting import of_seeds, trial_at
from harness.study.records import Role
from harness.study.spec import SweepSpec

MAX_COMPARED = 50  # configurations, and seeds of each, whose wrong images are compared; more change little


@dataclass(frozen=True)
class Findings:
    """The best configuration of a study against its baseline, among trials trained in full.

    Attributes:
        study: Its name.
        baseline_pct: Mean error of the documented configuration over its seeds; None if there is none yet.
        num_baselines: Number of these seeds.
        baseline_test_pct: Its mean error on the test images, if they were read.
        best_trial: Number of the first trial of the best searched configuration; None if none is ranked yet.
        best_pct: Its mean error over its seeds.
        num_best: Number of these seeds.
        num_ranked: Number of ranked searched configurations.
        resolution: Spread of trials by chance; None if no configuration was trained with two seeds.
        is_about_baseline: Whether only the baseline was trained with several seeds.
    """

    study: str
    baseline_pct: float | None
    num_baselines: int
    baseline_test_pct: float | None
    best_trial: int | None
    best_pct: float | None
    num_best: int
    num_ranked: int
    resolution: Resolution | None
    is_about_baseline: bool

    @property
    def lead_by_chance(self) -> float | None:
        """Points by which the best configuration is below the baseline's mean by chance; None if unknown."""
        if self.resolution is None or not self.num_ranked or not self.num_baselines:
            return None
        return self.resolution.lead(self.num_ranked, self.num_baselines)


def find(ledger: Ledger, spec: SweepSpec, leaderboard: pd.DataFrame) -> Findings:
    """Computes a study's findings from a leaderboard with it."""
    ranked = leaderboard[leaderboard["rank"].notna() & (leaderboard["study"] == spec.study)]
    full = ranked[ranked["epochs"] == spec.epochs]
    is_documented = _is_documented(full, spec)
    baselines, searched = full[is_documented], full[~is_documented].drop_duplicates("rank")
    repeated = _repeated(full)
    best = searched.iloc[0] if len(searched) else None
    test_was_read = bool(baselines["test_error_rate_pct"].notna().any())
    return Findings(
        study=spec.study,
        baseline_pct=float(baselines["mean_error_rate_pct"].iloc[0]) if len(baselines) else None,
        num_baselines=int(baselines["num_seeds"].iloc[0]) if len(baselines) else 0,
        baseline_test_pct=float(baselines["test_error_rate_pct"].mean()) if test_was_read else None,
        best_trial=None if best is None else int(best["trial"]),
        best_pct=None if best is None else float(best["mean_error_rate_pct"]),
        num_best=0 if best is None else int(best["num_seeds"]),
        num_ranked=len(searched),
        resolution=_resolution(ledger, repeated),
        is_about_baseline=len(repeated) == 1 and bool((repeated[0]["role"] == Role.BASELINE).any()),
    )


def sentences(findings: Findings) -> list[str]:
    """The findings as sentences, one per line."""
    return [noise(findings), _best(findings)]


def _is_documented(rows: pd.DataFrame, spec: SweepSpec) -> pd.Series:
    documented = spec.baseline_params
    same = pd.Series(True, rows.index)
    for name in spec.space:
        is_same = rows[name] == documented[name] if name in documented else rows[name].isna()
        same &= is_same.fillna(False).astype(bool)
    return same


def _repeated(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The configurations that were trained with several seeds, one table each, in the order of training."""
    seeds = rows.sort_values("trial").drop_duplicates(["rank", "seed"])
    several = seeds[seeds.duplicated("rank", keep=False)]
    return [group for _, group in several.groupby("rank", sort=False)]


def _resolution(ledger: Ledger, repeated: list[pd.DataFrame]) -> Resolution | None:
    errors = [list(group["error_rate_pct"]) for group in repeated]
    wrong: list[list[tuple[int, ...]]] = []
    num_images = 0
    for group in repeated[:MAX_COMPARED]:
        results = [ledger.record(uid).result for uid in group.index[:MAX_COMPARED]]
        wrong.append([result.wrong_images for result in results if result and result.wrong_images is not None])
        num_images = max([num_images, *(result.num_val_images or 0 for result in results if result)])
    return resolution_pct(errors, wrong, num_images)


def _best(findings: Findings) -> str:
    best_pct, baseline_pct = findings.best_pct, findings.baseline_pct
    if findings.baseline_test_pct is not None:
        means = f"validation {baseline_pct:.2f} %, test {findings.baseline_test_pct:.2f} %"
        return f"mean of {findings.num_baselines} seeds: {means}"
    if best_pct is None:
        return "no searched trial is ranked yet"
    best = f"best so far {trial_at(findings.best_trial or 0, best_pct, findings.num_best)}"
    if baseline_pct is None:
        return f"{best}; the baseline has no result yet to compare with"
    seeds = of_seeds(findings.num_baselines)
    gain = baseline_pct - best_pct
    if gain <= 0:
        return f"{best}, not below the baseline's {baseline_pct:.2f} %{seeds}"
    return f"{best}, {gain:.2f} points below the baseline's {baseline_pct:.2f} %{seeds}: {weight(findings, gain)}"


def weight(findings: Findings, gain: float) -> str:
    """Whether a gain of the best over the baseline exceeds chance, in words."""
    lead = findings.lead_by_chance
    if lead is None:
        return "whether that is noise is not known"
    return "within noise" if gain <= lead else "more than noise"


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
