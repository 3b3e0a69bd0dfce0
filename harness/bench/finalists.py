"""Compares rules for which configuration gets the next further seed, on tables of trainings that others made.

The study is that of `harness bench tables`: TPE, with finalists. Only the rule differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.files import write_csv
from harness.analysis.pictures import save_picture
from harness.bench.hpo_tables import Floats, Table, load_tables
from harness.bench.results import write_json
from harness.bench.search import Contender
from harness.bench.tables import TASKS_PER_PROCESS, study
from harness.execution.machine.devices import num_usable_cores
from harness.search.finalists import seed_noise
from harness.search.proposer import Proposer
from harness.study.comparability import Configuration

if TYPE_CHECKING:
    import pandas as pd

TPE = Contender("optuna", "tpe", has_finalists=True)
LOOKS = (40, 80)  # trainings
NUM_SEEDS, NUM_SEEDS_QUICK = 20, 4

# The candidates, the lowest mean first, and the variance of an error as a share of it: who gets the next seed?
Rule = Callable[[Sequence[Configuration], float], Configuration]


def best_in_turn(ranked: Sequence[Configuration], noise: float, *, num_best: int) -> Configuration:
    """The same number of seeds for each of the best after their first seed."""
    first = sorted(ranked, key=lambda one: one.errors_pct[0])[:num_best]
    return min(first, key=lambda one: one.num_seeds)


def halving(ranked: Sequence[Configuration], noise: float) -> Configuration:
    """Successive halving: eight get a second seed, the best four of them two more, the best two of those four more."""
    for num_best, num_seeds in ((8, 2), (4, 4), (2, 8)):
        for one in ranked[:num_best]:
            if one.num_seeds < num_seeds:
                return one
    return ranked[0]


def top_two(ranked: Sequence[Configuration], noise: float) -> Configuration:
    """The leader or its challenger, who is most likely to be better; whichever has fewer seeds.

    M. Jourdan et al., "Top Two Algorithms Revisited", NeurIPS 2022.
    """
    leader = ranked[0]

    def distance(one: Configuration) -> float:
        variance = noise * (leader.mean_error_pct / leader.num_seeds + one.mean_error_pct / one.num_seeds)
        return (one.mean_error_pct - leader.mean_error_pct) / math.sqrt(variance or 1.0)

    challenger = min(ranked[1:], key=distance, default=leader)
    return min((leader, challenger), key=lambda one: one.num_seeds)


def computing_budget(ranked: Sequence[Configuration], noise: float) -> Configuration:
    """Seeds in the proportions of optimal computing budget allocation; who lacks most of them is next.

    C.-H. Chen et al., "Simulation Budget Allocation for Further Enhancing the Efficiency of Ordinal Optimization",
    Discrete Event Dynamic Systems 10 (2000) 251-270.
    """
    best, others = ranked[0], ranked[1:]
    if not others:
        return best
    variances = np.array([noise * one.mean_error_pct for one in others])
    gaps = np.array([max(one.mean_error_pct - best.mean_error_pct, 1e-6) for one in others])
    shares = variances / gaps**2
    of_best = math.sqrt(noise * best.mean_error_pct * float((shares**2 / np.maximum(variances, 1e-12)).sum()))
    all_shares = np.array([of_best, *shares])
    num_seeds = np.array([best.num_seeds, *(one.num_seeds for one in others)])
    wanted = all_shares / (all_shares.sum() or 1.0) * (num_seeds.sum() + 1)
    return ranked[int(np.argmax(wanted - num_seeds))]


OURS = "lowest bound"  # of the harness: harness/search/finalists.py
RULES: dict[str, Rule] = {
    "top 3 in turn": partial(best_in_turn, num_best=3),
    "top 5 in turn": partial(best_in_turn, num_best=5),
    "successive halving": halving,
    "top two": top_two,
    "computing budget": computing_budget,
}


def run(out_dir: Path, repeats: int | None = None, quick: bool = False) -> pd.DataFrame:
    """Runs every rule on every table; writes finalists.json, finalists.csv and finalists.png into `out_dir`.

    Args:
        out_dir: Created if missing.
        repeats: Number of seeds; None: 20, or 4 if quick.
        quick: Few seeds: within five minutes on two cores.

    Returns:
        The table of finalists.csv: see `table`.

    Raises:
        InputError: the tables are not installed.
    """
    tables, num_seeds = load_tables(), repeats or (NUM_SEEDS_QUICK if quick else NUM_SEEDS)
    rules = (OURS, *RULES)
    jobs = [(rule, of, seed) for rule in rules for of in tables for seed in range(num_seeds)]
    with ProcessPoolExecutor(num_usable_cores(), max_tasks_per_child=TASKS_PER_PROCESS) as pool:
        found = np.array(list(pool.map(regrets, *zip(*jobs, strict=True))))
    by_rule = dict(zip(rules, found.reshape(len(rules), len(tables), num_seeds, len(LOOKS)), strict=True))
    frame = table(by_rule)
    write_csv(frame, out_dir / "finalists.csv")
    measured = {rule: np.round(regret, 5).tolist() for rule, regret in by_rule.items()}
    write_json(out_dir / "finalists.json", ("optuna",), {"tables": [one.name for one in tables], "regret": measured})
    plot(by_rule, out_dir / "finalists.png")
    return frame


def regrets(rule: str, of: Table, seed: int) -> list[float]:
    """The regret of the best configuration of a study with so many trainings, for each of LOOKS."""
    make = Proposer if rule == OURS else partial(_ByRule, rule)
    recommended = [list(study(TPE, of, seed, look, make))[-1] for look in LOOKS]
    return [1.0 if params is None else of.regret(params) for params in recommended]


def table(by_rule: dict[str, Floats]) -> pd.DataFrame:
    """One row per rule.

    Columns: rule; tables and seeds; for each look the mean regret over tables and seeds (`regret_40`), and its ratio to
    that of the harness's rule with the standard error over seeds (`ratio_40`, `ratio_se_40`).
    """
    import pandas as pd

    ours = by_rule[OURS].mean(0)

    def row(rule: str, regret: Floats) -> dict[str, object]:
        by_seed = regret.mean(0)  # (seed, look)
        ratios = by_seed / ours.mean(0)
        differences = ratios - ours / ours.mean(0)
        return {
            "rule": rule,
            "tables": len(regret),
            "seeds": len(by_seed),
            **{f"regret_{look}": round(float(by_seed[:, at].mean()), 4) for at, look in enumerate(LOOKS)},
            **{f"ratio_{look}": round(float(ratios[:, at].mean()), 3) for at, look in enumerate(LOOKS)},
            **{
                f"ratio_se_{look}": round(float(differences[:, at].std(ddof=1) / math.sqrt(len(by_seed))), 3)
                for at, look in enumerate(LOOKS)
                if len(by_seed) > 1
            },
        }

    return pd.DataFrame([row(rule, regret) for rule, regret in by_rule.items()])


def plot(by_rule: dict[str, Floats], path: Path) -> None:
    """Mean regret over tables and seeds of each rule, with its standard error over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 2.6), layout="constrained")
    axis = figure.subplots()
    for at, look in enumerate(LOOKS):
        by_seed = np.array([regret.mean(0)[:, at] for regret in by_rule.values()])
        places = np.arange(len(by_rule)) + 0.16 * (at - 0.5)
        errors = by_seed.std(1) / math.sqrt(by_seed.shape[1])
        axis.errorbar(by_seed.mean(1), places, xerr=errors, fmt="o", capsize=3, label=f"{look} trainings")
    axis.set_yticks(range(len(by_rule)), list(by_rule))
    axis.invert_yaxis()
    axis.set_xlabel("true regret, share of the median's")
    axis.grid(axis="x", alpha=0.3)
    axis.legend(fontsize=8)
    save_picture(figure, path)


class _ByRule(Proposer):
    """A proposer with another rule for the finalists; for one worker, so nothing is under way."""

    def __init__(self, rule: str, *given: object, **more: object) -> None:
        super().__init__(*given, **more)  # type: ignore[arg-type]
        self._rule = RULES[rule]

    def _next_finalist(self) -> Configuration | None:
        ranked = self.configurations.ranked
        return self._rule(ranked, seed_noise(self.configurations.all)) if ranked else None
