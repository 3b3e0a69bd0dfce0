"""Compares searches on tables of trainings that others made (`harness.bench.hpo_tables`).

Only the training is a look into the table: proposer, baseline first and repeats are those of a sweep with one worker.
The measure is the true regret of the configuration that a search would recommend: its mean error over all seeds of the
table above the lowest one, as a share of the median's. The peers run as their guides use them, and recommend what had
the lowest error once; SMAC3 says itself what it recommends.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from harness.analysis.files import write_csv
from harness.analysis.pictures import save_picture
from harness.bench.hpo_tables import Floats, Table, load_tables
from harness.bench.results import write_json
from harness.bench.search import FINALISTS_SHARE, RANDOM, TWICE, Contender, contenders
from harness.bench.stock import chosen, suggested
from harness.errors import InputError
from harness.execution.machine.devices import num_usable_cores
from harness.search import catalogue
from harness.search.base import NoProposal, Search
from harness.search.factory import make_search
from harness.search.proposer import Proposer
from harness.study.comparability import Configurations
from harness.study.records import EpochReport, Outcome, Params, Record, Role, Seconds, TrialResult
from harness.study.space import Choice, Int, SearchSpace
from harness.study.spec import SweepSpec

if TYPE_CHECKING:
    import pandas as pd

LOOKS = (20, 40, 80)  # trainings after which the recommendations are compared
NUM_SEEDS, NUM_SEEDS_QUICK = 20, 3
ALPHA = 0.05
TASKS_PER_PROCESS = 1_000_000

# A proposal takes these a second or more, so they run with fewer seeds, and not in the quick form.
SLOW = {("keras-tuner", "bayesian"), ("optuna", "gp"), ("stock keras-tuner", "bayesian"), ("stock smac", "facade")}
NUM_SEEDS_OF_SLOW = 5

MISPLACED = "misplaced"

STOCK_OPTUNA, STOCK_KERAS_TUNER = Contender("stock optuna", "tpe"), Contender("stock keras-tuner", "bayesian")
# As its first example has it, and as for noisy trainings: then it trains the best with further seeds.
STOCK_SMAC = tuple(Contender("stock smac", "facade", has_finalists=has_finalists) for has_finalists in (False, True))

Recommended = Iterator[Params | None]  # after each training


@dataclass(frozen=True)
class Standing:
    """The results of a contender.

    Attributes:
        contender: The contender.
        regret: (table, seed, look): of what it would recommend after the trainings of each look.
    """

    contender: Contender
    regret: Floats

    def at(self, look: int) -> Floats:
        """Mean over seeds, by table; `look` is a position in LOOKS."""
        return np.asarray(self.regret[:, :, look].mean(-1))


def run(out_dir: Path, repeats: int | None = None, quick: bool = False) -> pd.DataFrame:
    """Runs every contender on every table; writes tables.json, tables.csv and tables.png into `out_dir`.

    Args:
        out_dir: Created if missing.
        repeats: Number of seeds; None: 20 (5 for those that take seconds to propose), or 3 if quick.
        quick: Without those that take seconds to propose.

    Returns:
        The table of tables.csv: see `table`.

    Raises:
        InputError: the tables are not installed.
    """
    tables, looks = load_tables(), LOOKS
    smac = STOCK_SMAC if importlib.util.find_spec("smac") else ()
    entered = [*contenders_here(tables[0]), TWICE, STOCK_OPTUNA, STOCK_KERAS_TUNER, *smac]
    if quick:
        entered = [one for one in entered if (one.engine, one.sampler) not in SLOW]
    # With a limit of tasks, each process is a new interpreter: the libraries of some samplers do not survive a fork.
    with ProcessPoolExecutor(num_usable_cores(), max_tasks_per_child=TASKS_PER_PROCESS) as pool:
        standings = [compete(pool, one, tables, _num_seeds(one, repeats, quick=quick), looks) for one in entered]
    frame = table(standings, looks)
    write_csv(frame, out_dir / "tables.csv")
    measured = [asdict(one.contender) | {"regret": np.round(one.regret, 5).tolist()} for one in standings]
    names = [one.name for one in tables]
    write_json(out_dir / "tables.json", ("optuna", "keras-tuner"), {"tables": names, "standings": measured})
    plot(standings, looks, out_dir / "tables.png")
    return frame


def contenders_here(of: Table) -> list[Contender]:
    """The samplers that can search the space, with finalists; TPE and random search also without, and with a prior.

    None has a pruner: the tables have no curves.
    """
    plain = [one for one in contenders() if one.pruner == "none" and not one.has_finalists and _is_able(one, of)]
    without = [one for one in plain if (one.engine, one.sampler) in (("optuna", "tpe"), ("optuna", "random"))]
    with_prior = [
        replace(one, has_finalists=True, prior=prior) for one in without for prior in ("documented", MISPLACED)
    ]
    return [*(replace(one, has_finalists=True) for one in plain), *without, *with_prior]


def compete(
    pool: ProcessPoolExecutor, contender: Contender, tables: Sequence[Table], num_seeds: int, looks: Sequence[int]
) -> Standing:
    """Runs one contender on each table with each seed."""
    jobs = [(contender, one, seed, tuple(looks)) for one in tables for seed in range(num_seeds)]
    regrets = list(pool.map(race, *zip(*jobs, strict=True)))
    return Standing(contender, np.array(regrets).reshape(len(tables), num_seeds, len(looks)))


def race(contender: Contender, of: Table, seed: int, looks: Sequence[int]) -> list[float]:
    """The regret of a search's recommendation at each look.

    A search with finalists plans for a number of trainings, so it runs for each look, and so does SMAC3, which begins
    with a share of them; others are looked at on the way.
    """
    factor = 2 if contender == TWICE else 1
    search = _PEERS.get(contender, study)
    if contender.has_finalists or contender in STOCK_SMAC:
        return [_regrets(of, search(contender, of, seed, look))[-1] for look in looks]
    found = _regrets(of, search(contender, of, seed, factor * looks[-1]))
    return [found[min(factor * look, len(found)) - 1] for look in looks]  # a search may have nothing left to try


def _regrets(of: Table, recommended: Recommended) -> list[float]:
    """Before its first recommendation a search has the regret of the median."""
    return [1.0 if params is None else of.regret(params) for params in recommended]


def table(standings: Sequence[Standing], looks: Sequence[int]) -> pd.DataFrame:
    """One row per contender, the lowest mean regret at the last look first.

    Columns: engine, sampler, finalists, prior; tables and seeds; for each look the mean regret over tables
    (`regret_20`) and the mean rank over tables of the mean over seeds (`rank_20`); `critical_difference` of these
    ranks; `tables_below_twice`, the number of tables on which it ends below random search with twice the trainings.
    """
    import pandas as pd

    places = dict(enumerate(looks))
    ranks = {place: stats.rankdata([one.at(place) for one in standings], axis=0).mean(-1) for place in places}
    twice = next(one for one in standings if one.contender == TWICE).at(-1)
    num_tables = len(twice)
    rows = [
        {
            "engine": one.contender.engine,
            "sampler": one.contender.sampler,
            "finalists": one.contender.has_finalists,
            "prior": one.contender.prior,
            "tables": num_tables,
            "seeds": one.regret.shape[1],
            **{f"regret_{look}": round(float(one.at(place).mean()), 4) for place, look in places.items()},
            **{f"rank_{look}": round(float(ranks[place][position]), 2) for place, look in places.items()},
            "critical_difference": round(critical_difference(len(standings), num_tables), 2),
            "tables_below_twice": int((one.at(-1) < twice).sum()),
        }
        for position, one in enumerate(standings)
    ]
    return pd.DataFrame(rows).sort_values(f"regret_{looks[-1]}", kind="stable").reset_index(drop=True)


def critical_difference(num_contenders: int, num_tables: int) -> float:
    """Two mean ranks that differ by more are different at the level 0.05.

    Nemenyi's test: J. Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006) 1-30.
    """
    quantile = stats.studentized_range.ppf(1 - ALPHA, num_contenders, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(num_contenders * (num_contenders + 1) / (6 * num_tables)))


def plot(standings: Sequence[Standing], looks: Sequence[int], path: Path) -> None:
    """Mean regret over tables and seeds at each look, one line per contender, the best at the last look first."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.0), layout="constrained")
    axis = figure.subplots()
    for one in sorted(standings, key=lambda standing: float(standing.at(-1).mean())):
        style = "--" if one.contender in _PEERS else "-"
        axis.plot(looks, one.regret.mean((0, 1)), style, marker="o", markersize=4, label=one.contender.name)
    axis.set_yscale("log")
    axis.set_xscale("log")
    axis.set_xticks(looks, [str(look) for look in looks], minor=False)
    axis.set_xticks([], minor=True)
    axis.set_xlabel("trainings")
    axis.set_ylabel("true regret, share of the median's")
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_picture(figure, path)


def _num_seeds(contender: Contender, repeats: int | None, *, quick: bool) -> int:
    if repeats or quick:
        return repeats or NUM_SEEDS_QUICK
    return NUM_SEEDS_OF_SLOW if (contender.engine, contender.sampler) in SLOW else NUM_SEEDS


def _is_able(contender: Contender, of: Table) -> bool:
    try:
        catalogue.check(of.spec(contender.engine, contender.sampler, seed=0))
    except InputError:
        return False
    return True


def study(
    contender: Contender,
    of: Table,
    seed: int,
    num_trainings: int,
    make_proposer: Callable[[SweepSpec, Search, list[Record]], Proposer] = Proposer,
) -> Recommended:
    """What a study would call its best; the training of the documented network is not counted."""
    sampler = RANDOM.sampler if contender == TWICE else contender.sampler
    spec = of.spec(contender.engine, sampler, seed)
    if contender.prior != "none":
        spec = spec.changed(prior="documented")
        make_proposer = partial(_Misplaced, of) if contender.prior == MISPLACED else make_proposer
    proposer, found, num_trained = make_proposer(spec, make_search(spec), []), Configurations(spec), 0
    num_before = math.ceil((1 - FINALISTS_SHARE) * num_trainings) if contender.has_finalists else num_trainings
    while num_trained < num_trainings:
        proposed = proposer.next(finals=num_trained >= num_before)
        if isinstance(proposed, NoProposal):
            return
        trial = proposed.trial
        report = EpochReport(1, 0.0, 0.0, of.error_pct(trial.params, trial.seed), 1, Seconds(train=1.0))
        proposer.report(trial, report)
        result = TrialResult(Outcome.COMPLETED, curve=(report,), seconds=report.seconds)
        proposer.tell(trial, result)
        found.add(Record(trial, result))
        if trial.role is not Role.BASELINE:
            num_trained += 1
            yield found.best.params if found.best else None


class _Misplaced(Proposer):
    """A proposer whose prior lies around the worst corner of the space."""

    def __init__(self, of: Table, *given: Any) -> None:
        super().__init__(*given)
        corners = (
            {axis.setting: axis.domain[end] for axis, end in zip(of.axes, ends, strict=True)}
            for ends in product(("low", "high"), repeat=len(of.axes))
        )
        self._centre = max(corners, key=of.true_error_pct)


def _lowest(of: Table, seed: int) -> Callable[[Params], tuple[float, Params]]:
    """Trains a configuration for a peer; returns its error, and the configuration with the lowest one so far."""
    best: list[tuple[float, Params]] = []

    def train(params: Params) -> tuple[float, Params]:
        error_pct = of.error_pct(params, seed)
        if not best or error_pct < best[0][0]:
            best[:] = [(error_pct, dict(params))]
        return error_pct, best[0][1]

    return train


def _stock_optuna(contender: Contender, of: Table, seed: int, num_trainings: int) -> Recommended:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recommended: list[Params] = []
    train, space = _lowest(of, seed), of.space

    def objective(trial: optuna.Trial) -> float:
        error_pct, best = train(suggested(trial, space))
        recommended.append(best)
        return error_pct

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, n_trials=num_trainings)
    yield from recommended


def _stock_keras_tuner(contender: Contender, of: Table, seed: int, num_trainings: int) -> Recommended:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras_tuner as kt

    recommended: list[Params] = []
    train, space = _lowest(of, seed), of.space

    class Lookup(kt.BayesianOptimization):  # type: ignore[misc] # untyped
        def run_trial(self, trial: Any, *given: Any, **more: Any) -> float:
            error_pct, best = train(chosen(trial.hyperparameters, space))
            recommended.append(best)
            return error_pct

    with tempfile.TemporaryDirectory() as folder:
        tuner = Lookup(max_trials=num_trainings, seed=seed + 1, directory=folder, overwrite=True)
        tuner.search(verbose=0)
    yield from recommended


def _stock_smac(contender: Contender, of: Table, seed: int, num_trainings: int) -> Recommended:
    from smac import Callback, HyperparameterOptimizationFacade, Scenario

    recommended: list[Params | None] = []

    class Watch(Callback):  # type: ignore[misc] # untyped
        def on_tell_end(self, smbo: Any, info: Any, value: Any) -> None:
            best = smbo.intensifier.get_incumbents()
            recommended.append(dict(best[0]) if best else None)

    def train(config: Any, seed: int = 0) -> float:
        return of.error_pct(dict(config), seed)

    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(
            _configuration_space(of.space, seed),
            deterministic=not contender.has_finalists,
            n_trials=num_trainings,
            seed=seed,
            output_directory=Path(folder),
        )
        callbacks = [Watch()]
        HyperparameterOptimizationFacade(
            scenario, train, callbacks=callbacks, logging_level=logging.ERROR, overwrite=True
        ).optimize()
    yield from recommended


def _configuration_space(space: SearchSpace, seed: int) -> Any:
    """The space of numbers for SMAC3."""
    from ConfigSpace import ConfigurationSpace
    from ConfigSpace import Float as Real
    from ConfigSpace import Integer as Whole

    made = ConfigurationSpace(seed=seed)
    for name, domain in space.domains.items():
        assert not isinstance(domain, Choice)  # noqa: S101 - the tables have none
        kind = Whole if isinstance(domain, Int) else Real
        made.add(kind(name, (domain.low, domain.high), log=domain.log))
    return made


_PEERS: Mapping[Contender, Callable[[Contender, Table, int, int], Recommended]] = {
    STOCK_OPTUNA: _stock_optuna,
    STOCK_KERAS_TUNER: _stock_keras_tuner,
    **dict.fromkeys(STOCK_SMAC, _stock_smac),
}
