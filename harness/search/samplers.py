"""The samplers and the pruners, and what each can do. Imports nothing, so that `--help` can list them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.study.settings import Engine


@dataclass(frozen=True)
class Sampler:
    """A way to propose configurations.

    Attributes:
        engine: The library that it belongs to.
        name: As in `--sampler`.
        properties: One line for docs/sweeps.md.
        finite_only: It lists all configurations, so a real-valued range needs a step.
        categories: It takes a choice among unordered values.
        conditional: It takes hyperparameters with a `when`.
        two_objectives: It can search for a Pareto front.
        learns_from_others: It uses trials that it did not propose.
        min_epochs: It cannot work with fewer epochs per trial.
        module: A module that it needs besides the engine.
        is_replayed: It keeps a state besides the trials, which resume rebuilds by asking again.
        asks_ahead: A proposal is slow: ask for the next trial as soon as the previous one has been handed out.
    """

    engine: Engine
    name: str
    properties: str
    finite_only: bool = False
    categories: bool = True
    conditional: bool = True
    two_objectives: bool = True
    learns_from_others: bool = True
    min_epochs: int = 1
    module: str | None = None
    is_replayed: bool = False
    asks_ahead: bool = False


@dataclass(frozen=True)
class Pruner:
    """A way to stop trials early; Optuna's. `brackets`: it shows the sampler one share of the trials at a time."""

    name: str
    properties: str
    min_epochs: int = 1
    brackets: bool = False


SAMPLERS: tuple[Sampler, ...] = (
    Sampler("optuna", "tpe", "default; any search space; also learns from pruned trials"),
    Sampler("optuna", "random", "reference for the other samplers", learns_from_others=False),
    Sampler(
        "optuna",
        "qmc",
        "covers the space more evenly than random; does not learn",
        conditional=False,
        learns_from_others=False,
        is_replayed=True,
    ),
    Sampler("optuna", "grid", "every configuration of a small space, once", finite_only=True, learns_from_others=False),
    Sampler(
        "optuna",
        "nsga2",
        "two objectives, from about 100 trials on",
        conditional=False,
        is_replayed=True,
    ),
    Sampler(
        "optuna",
        "cmaes",
        "numeric hyperparameters only; useful from about 15 trials on",
        categories=False,
        conditional=False,
        two_objectives=False,
        learns_from_others=False,
        module="cmaes",
        is_replayed=True,
    ),
    Sampler(
        "optuna",
        "gp",
        "few, expensive trials; needs the extra `gp`",
        conditional=False,
        module="torch",
    ),
    Sampler(
        "keras-tuner",
        "random",
        "like Optuna's, but never repeats a configuration",
        two_objectives=False,
        learns_from_others=False,
    ),
    Sampler(
        "keras-tuner",
        "bayesian",
        "few, expensive trials; a proposal takes seconds",
        two_objectives=False,
        asks_ahead=True,
    ),
    Sampler(
        "keras-tuner",
        "hyperband",
        "many configurations for a few epochs; the best continue for more",
        two_objectives=False,
        learns_from_others=False,
        min_epochs=2,
        is_replayed=True,
    ),
    Sampler(
        "keras-tuner",
        "grid",
        "every configuration in order, from a corner of the space; ranges without a step get ten values",
        two_objectives=False,
        learns_from_others=False,
        is_replayed=True,
    ),
)

PRUNERS: tuple[Pruner, ...] = (
    Pruner("none", "every trial trains to its last epoch"),
    Pruner("median", "stops a trial that is worse than the median at the same epoch; stops too many if epochs are few"),
    Pruner("percentile", "default; stops a trial that is worse than 75 % of the completed trials at the same epoch"),
    Pruner("successive_halving", "keeps the best fraction of the trials after more and more epochs", min_epochs=2),
    Pruner(
        "hyperband",
        "several successive halvings that begin to stop trials after different numbers of epochs",
        min_epochs=2,
        brackets=True,
    ),
)
