"""`harness verdict`: trains the best trials of a study and its baseline again with fresh seeds and compares them.

A verdict is its own study, STUDY.verdict, with trials from a plan instead of a search. So it runs like any other study:
proposals and results are committed first, workers train, MLflow shows it, and the same command resumes it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from harness.analysis.verdict.findings import Verdict, find_verdict
from harness.analysis.verdict.statistics import LOOKS
from harness.analysis.verdict.trainings import Trainings, configurations, max_seeds
from harness.errors import InputError
from harness.execution.executors import LOCAL, ExecutorSettings
from harness.ledger.ledger import Ledger, find_study
from harness.ledger.locks import study_lock
from harness.ledger.reader import Study
from harness.planning.progress import StopReason
from harness.search.base import NoProposal
from harness.search.proposer import Next
from harness.study.comparability import Configuration, Configurations, check_inherited
from harness.study.records import EpochReport, Record, Role, Trial, TrialResult
from harness.study.settings import MAX_SECONDS, MAX_WHOLE, Budget, Kind
from harness.study.spec import SweepSpec, check_name, verdict_name
from harness.support.strict_json import check_count, shown
from harness.sweep.display import Display
from harness.sweep.runner import bring_to_mlflow, run_trials

DEFAULT_TOP = 3
DEFAULT_SEEDS = 5
FIRST_SEED = 1000  # of verdicts; searches use low ones


@dataclass(frozen=True)
class Request:
    """The options of a verdict; None: as at its start, or the default.

    Attributes:
        top: Number of candidates, the first of `best_trials`.
        num_seeds: Maximum number of seeds: one of LOOKS.
        epochs: Epochs of each training; by default those of the sweep file's profile `full`, or else of the study.
        wall_s: Time limit for all sessions together, seconds.
        takes_all_seeds: Train all seeds even if the answer is clear earlier.

    Raises:
        InputError: an option is out of range.
    """

    top: int | None = None
    num_seeds: int | None = None
    epochs: int | None = None
    wall_s: float | None = None
    takes_all_seeds: bool = False

    def __post_init__(self) -> None:
        for name, number in (("--top", self.top), ("--epochs", self.epochs)):
            check_count(name, number, MAX_WHOLE)
        if self.wall_s is not None and not 0 < self.wall_s <= MAX_SECONDS:
            raise InputError(f"--budget is {self.wall_s:g} s; allowed: above 0 and at most {MAX_SECONDS:.0f} s")
        if self.num_seeds is not None and self.num_seeds not in LOOKS:
            looks = ", ".join(map(str, LOOKS))
            raise InputError(
                f"--seeds is {shown(self.num_seeds)}; allowed: {looks}, after which the results are looked at"
            )


@dataclass(frozen=True)
class VerdictEnd:
    """How a call to `run_verdict` ended.

    Attributes:
        was_interrupted: It was asked to stop.
        verdict: Its present state.
    """

    was_interrupted: bool
    verdict: Verdict


def run_verdict(
    study: str,
    request: Request,
    home: Path,
    display: Display,
    *,
    num_workers: int | None,
    fresh: bool,
    executor: ExecutorSettings = LOCAL,
    reuses: bool = True,
) -> VerdictEnd:
    """Starts or continues the verdict on a study until the answer is clear or the budget is used.

    Args:
        study: The searched study.
        request: The options.
        home: Folder of all state.
        display: Shows progress to the user.
        num_workers: Number of concurrent trainings; None: one per core or GPU.
        fresh: Keep an earlier verdict under a dated name and start a new one.
        executor: Where the workers run.
        reuses: Take over results of equal trainings from the ledger, such as another verdict's of the baseline.

    Raises:
        InputError: there is no such study, or the request is impossible for it.
        TroubleError: the study or its verdict is in use, or data, ledger or workers are unavailable.
    """
    with (
        closing(Ledger(home / "ledger.db", makes=False, say=display.note)) as ledger,
        study_lock(home, find_study(ledger, study).spec.study),
    ):
        spec, origin = plan_verdict(ledger, study, request, fresh=fresh)
        reason = None
        sources = partial(make_source, takes_all_seeds=request.takes_all_seeds)
        if not fresh and _is_settled(ledger, spec, sources):
            asked = f"{_trials(spec.confirms)}, up to {max_seeds(spec)} seeds, {spec.epochs} epochs"
            display.note(f"{spec.study} has its answer ({asked}), and nothing is trained; --fresh starts a new verdict")
            bring_to_mlflow(home, spec.study, display.note)
        else:
            end = run_trials(
                spec,
                home,
                display,
                sources,
                num_workers=num_workers,
                fresh=fresh,
                executor=executor,
                reuses=reuses,
                origin=origin,
            )
            reason = end.reason
        return VerdictEnd(reason is StopReason.INTERRUPTED, find_verdict(ledger, ledger.study(spec.study).spec))


def plan_verdict(ledger: Ledger, study: str, request: Request, *, fresh: bool) -> tuple[SweepSpec, dict[str, Any]]:
    """The verdict's own study, and its provenance for the ledger.

    Raises:
        InputError: there is no such study, it has nothing to confirm, or its verdict was started with other options.
    """
    source, records = find_study(ledger, study).spec, ledger.history(study)
    if source.is_verdict:
        raise InputError(f"study is {study!r}, which is a verdict itself; allowed: a study that searched")
    name = check_name(verdict_name(study), "the verdict's study")
    begun = ledger.study(name) if ledger.has_trials(name) and not fresh else None
    if begun:
        check_inherited(begun.spec, source)
    finalists = best_trials(source, records, request.top or (len(begun.spec.enqueue) if begun else DEFAULT_TOP))
    if not finalists:
        raise InputError(f"study {study} has no searched trial that was trained in full; allowed: a study that has one")
    spec = begun.spec if begun else _new(source, name, records, request.epochs)
    width = 1 + len(finalists)
    num_seeds = request.num_seeds or (max_seeds(begun.spec) if begun else DEFAULT_SEEDS)
    spec = spec.changed(
        enqueue=tuple(dict(record.trial.params) for record in finalists),
        confirms=tuple(record.trial.number for record in finalists),
        epochs=request.epochs or spec.epochs,
        budget=Budget(trials=width * num_seeds, wall_s=request.wall_s),
    )
    if begun:
        _check_same(begun, spec, finalists)
    return spec, {"verdict_of": study, "confirms": [record.trial.uid for record in finalists]}


def best_trials(spec: SweepSpec, records: Sequence[Record], top: int) -> list[Record]:
    """The first trials of the best searched configurations (`harness.study.comparability`), best first.

    In a study that also minimises device time, the fastest configurations with an error no higher than the mean of the
    baseline's seeds come first.
    """
    found = Configurations(spec, records)
    is_timed = "device_time" in spec.objective
    goal_pct = found.baseline.mean_error_pct if found.baseline and is_timed else None
    ranked = sorted(found.searched, key=lambda configuration: _rank(configuration, goal_pct))
    return [configuration.first for configuration in ranked[:top]]


class Confirmations:
    """Proposes the trainings of a verdict, seed by seed, the baseline first, until a look gives a clear answer.

    Args:
        spec: The verdict's study.
        numbers: Numbers of its proposed trials.
        ended: Trials with a final result, with their misclassified test images.
        takes_all_seeds: Continue although the answer is clear.
    """

    def __init__(
        self,
        spec: SweepSpec,
        numbers: Iterable[int],
        ended: Iterable[tuple[Trial, TrialResult]],
        *,
        takes_all_seeds: bool = False,
    ) -> None:
        self._spec, self._configurations, self._takes_all_seeds = spec, configurations(spec), takes_all_seeds
        self._number = 1 + max(numbers, default=-1)
        self._ended = list(ended)

    def next(self, *, finals: bool = False) -> Next | NoProposal:
        """The next training; WAIT before a look until all of its trainings have ended."""
        while self._number < self._spec.budget.trials:
            seed, position = divmod(self._number, len(self._configurations))
            trainings = Trainings.of(self._spec, self._ended)
            is_look = position == 0 and seed in LOOKS and not self._takes_all_seeds
            if not trainings.compared or (is_look and trainings.num_seeds >= seed and trainings.is_clear):
                return NoProposal.EXHAUSTED
            if is_look and trainings.num_seeds < seed:
                return NoProposal.WAIT
            self._number += 1
            if not trainings.has_failed(position):
                return Next(self._trial(seed, position), asks=0, search_time_s=0.0)
        return NoProposal.EXHAUSTED

    def broken_limit(self, trial: Trial) -> str | None:
        return None  # the baseline may break limits, and candidates satisfy them

    def report(self, trial: Trial, report: EpochReport) -> bool:
        return True  # no training is stopped early

    def tell(self, trial: Trial, result: TrialResult) -> None:
        self._ended.append((trial, result))

    def continuable(self) -> frozenset[str]:
        """The trainings with the first seed: one of them becomes the champion, possibly after more seeds."""
        return frozenset(trial.uid for trial, _ in self._ended if trial.seed == self._spec.seed)

    def _trial(self, seed: int, position: int) -> Trial:
        number, params = seed * len(self._configurations) + position, self._configurations[position]
        return Trial(uuid.uuid4().hex, number, dict(params), self._spec.seed + seed, self._spec.epochs, Role.CONFIRM)


def make_source(
    spec: SweepSpec, ledger: Ledger, records: Sequence[Record], *, takes_all_seeds: bool = False
) -> Confirmations:
    """The remaining trainings of a verdict with these `records`."""
    ended = ((record.trial, record.result) for record in ledger.finished(spec.study))
    return Confirmations(
        spec,
        (record.trial.number for record in records),
        ((trial, result) for trial, result in ended if result),
        takes_all_seeds=takes_all_seeds,
    )


def _is_settled(
    ledger: Ledger, spec: SweepSpec, sources: Callable[[SweepSpec, Ledger, Sequence[Record]], Confirmations]
) -> bool:
    """Whether the verdict has ended, so that nothing is left to train."""
    records = ledger.history(spec.study) if spec.study in ledger.study_names() else []
    is_idle = bool(records) and all(record.result for record in records)
    return is_idle and sources(spec, ledger, records).next() is NoProposal.EXHAUSTED


def _new(source: SweepSpec, name: str, records: Sequence[Record], epochs: int | None) -> SweepSpec:
    """A new verdict: all training and validation images, and the epochs of the full profile."""
    num_images = source.sizes["train"] + source.sizes["validation"]
    epochs = epochs or source.full_epochs or source.epochs
    longer = max(1.0, epochs * num_images / (source.epochs * source.train_images))
    timeout_s = source.trial_timeout_s
    return source.changed(
        study=name,
        kind=Kind.VERDICT,
        pruner="none",
        patience=0,
        learn_from=None,
        seed=_fresh_seed(source, records),
        trial_timeout_s=None if timeout_s is None else min(timeout_s * longer, MAX_SECONDS),
        profile="verdict",
        epochs=epochs,
        full_epochs=None,
        train_images=num_images,
        baseline_seeds=0,
        reads_test=True,
    )


def _fresh_seed(source: SweepSpec, records: Sequence[Record]) -> int:
    """The first of enough consecutive seeds for a verdict, none of which the study has used.

    They are the same for all studies that have not used one of them, so that verdicts share trainings of the baseline.
    """
    used, number = {source.seed, *(record.trial.seed for record in records)}, max(LOOKS)
    starts = chain(range(FIRST_SEED, MAX_WHOLE, number), range(0, FIRST_SEED, number))
    return next(
        start for start in starts if start + number <= MAX_WHOLE and used.isdisjoint(range(start, start + number))
    )


def _check_same(begun: Study, spec: SweepSpec, finalists: Sequence[Record]) -> None:
    changed = begun.spec.differing_keys(spec)
    if not changed:
        return
    before = _trials(begun.spec.confirms)
    now = _trials([record.trial.number for record in finalists])
    raise InputError(
        f"{spec.study} was begun with {before} for {begun.spec.epochs} epochs, and would now train {now} for"
        f" {spec.epochs} epochs; allowed: --fresh to keep the old one under a dated name and start a new one"
    )


def _trials(numbers: Sequence[int]) -> str:
    return f"trial{'s' * (len(numbers) != 1)} {', '.join(map(str, numbers))}"


def _rank(configuration: Configuration, goal_pct: float | None) -> tuple[bool, float, str, float, int]:
    """The rank key of the leaderboard, but errors up to `goal_pct` count as equal."""
    error_pct, timing_class, time_s, number = configuration.rank_key
    reaches_goal = goal_pct is not None and error_pct <= goal_pct
    return not reaches_goal, 0.0 if reaches_goal else error_pct, timing_class, time_s, number
