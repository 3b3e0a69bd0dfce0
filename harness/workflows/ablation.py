"""`harness ablate`: trains a study's best configuration without each of its changes, to see what each is worth.

An ablation is a study of its own, STUDY.ablation, whose trials are all enqueued: the best configuration and, for each
change from the documented network, the best with the documented value in its place. So it runs, resumes and shows like
any other study.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from harness.analysis.ablation import without_each
from harness.errors import InputError
from harness.execution.executors import LOCAL, ExecutorSettings
from harness.ledger.ledger import Ledger, find_study
from harness.ledger.locks import study_lock
from harness.ledger.reader import Study
from harness.planning.progress import StopReason
from harness.study.comparability import Configuration, Configurations, check_inherited, key_of
from harness.study.formatting import changes
from harness.study.records import Params
from harness.study.settings import MAX_WHOLE, Budget, Constraints
from harness.study.spec import SweepSpec, ablation_name, check_name
from harness.support.strict_json import check_count
from harness.sweep.display import Display
from harness.sweep.runner import run_study

DEFAULT_SEEDS = 3
FIRST_SEED = 2000  # searches use low ones, and verdicts those from 1000 on


def run_ablation(
    study: str,
    num_seeds: int | None,
    home: Path,
    display: Display,
    *,
    num_workers: int | None,
    fresh: bool,
    executor: ExecutorSettings = LOCAL,
    reuses: bool = True,
) -> tuple[SweepSpec, StopReason]:
    """Starts or continues the ablation of a study's best configuration.

    Args:
        study: The searched study.
        num_seeds: Seeds of each configuration; None: as at its start, or 3.
        home: Folder of all state.
        display: Shows progress to the user.
        num_workers: Number of concurrent trainings; None: one per core or GPU.
        fresh: Keep an earlier ablation under a dated name and start a new one.
        executor: Where the workers run.
        reuses: Take over results of equal trainings from the ledger.

    Returns:
        The ablation's own study, and why it ended.

    Raises:
        InputError: there is no such study, or it has no best configuration or no change.
        TroubleError: the study is in use, or data, ledger or workers are unavailable.
    """
    with (
        closing(Ledger(home / "ledger.db", makes=False, say=display.note)) as ledger,
        study_lock(home, find_study(ledger, study).spec.study),
    ):
        spec = plan_ablation(ledger, study, num_seeds, fresh=fresh)
        if not fresh:
            say_if_another_is_best(ledger, study, spec, display)
        end = run_study(spec, home, display, num_workers=num_workers, fresh=fresh, executor=executor, reuses=reuses)
        return spec, end.reason


def plan_ablation(ledger: Ledger, study: str, num_seeds: int | None, *, fresh: bool) -> SweepSpec:
    """The ablation's own study: as it was begun, or a new one.

    Raises:
        InputError: there is no such study, it has no best configuration or no change, or its ablation was begun with
            another number of seeds, or is about an earlier study of this name.
    """
    check_count("--seeds", num_seeds, MAX_WHOLE)
    source = find_study(ledger, study).spec
    if not source.is_search:
        raise InputError(f"study is {study!r}, a {source.kind}; allowed: a study that searched")
    name = check_name(ablation_name(study), "the ablation's study")
    if ledger.has_trials(name) and not fresh:
        return _as_begun(ledger.study(name), source, num_seeds)
    best = _best_in(ledger, source)
    if best is None:
        raise InputError(f"study {study} has no searched trial that was trained in full; allowed: a study that has one")
    return _new(source, name, best.params, num_seeds or DEFAULT_SEEDS)


def best_of(spec: SweepSpec) -> Params:
    """The configuration that an ablation is about."""
    return spec.enqueue[0]


def _best_in(ledger: Ledger, source: SweepSpec) -> Configuration | None:
    return Configurations(source, ledger.finished(source.study)).best


def say_if_another_is_best(ledger: Ledger, study: str, ablation: SweepSpec, display: Display) -> None:
    """The study may have gone on, or another one was begun under its name."""
    source = ledger.study(study).spec
    best = _best_in(ledger, source)
    if best is None or key_of(best.params) != key_of(best_of(ablation)):
        now = f"the best is now trial {best.first.trial.number}" if best else "nothing is trained in full yet"
        about = changes(best_of(ablation), source.baseline_params)
        display.note(f"{ablation.study} is about {about}, and in {study} {now}; --fresh starts a new one")


def _as_begun(begun: Study, source: SweepSpec, num_seeds: int | None) -> SweepSpec:
    check_inherited(begun.spec, source)
    known = begun.spec.baseline_seeds
    if num_seeds not in (None, known):
        raise InputError(f"--seeds is {num_seeds}; allowed: {known}, as at its start, or --fresh for a new one")
    return begun.spec


def _new(source: SweepSpec, name: str, best: Params, num_seeds: int) -> SweepSpec:
    """Seed by seed, so that what is trained can be compared at any time."""
    without = without_each(source, best)
    if not without:
        raise InputError(
            f"study {source.study}: its best configuration is the documented one; allowed: one that differs"
        )
    each = {key_of(params): dict(params) for params in (best, *without.values())}
    each.pop(key_of(source.baseline_params), None)  # the baseline is trained in any case
    once = tuple(each.values())
    return source.changed(
        study=name,
        engine="optuna",
        sampler="random",  # never asked: all trials are enqueued
        pruner="none",
        patience=0,
        objective=("error",),
        prior="none",
        learn_from=None,
        seed=FIRST_SEED,
        constraints=Constraints(),  # without one of its changes, the best may break a limit
        enqueue=once * num_seeds,
        baseline_seeds=num_seeds,
        full_epochs=None,
        budget=Budget(trials=len(once) * num_seeds),
    )
