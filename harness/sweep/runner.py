"""Assembles and runs a study: ledger, data, workers, search, MLflow, display."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.errors import InputError, TroubleError
from harness.execution.base import Place, Workplace
from harness.execution.build_check import check_builds
from harness.execution.data import cache
from harness.execution.executors import LOCAL, ExecutorSettings, open_workplace
from harness.execution.machine import backends, devices
from harness.ledger.ledger import Ledger, find_study
from harness.ledger.locks import study_lock
from harness.planning.forecast import Open
from harness.planning.plan import describe, make_costs, make_plan
from harness.planning.progress import Progress, StopReason
from harness.search import catalogue
from harness.search.factory import make_search
from harness.search.proposer import Proposer
from harness.search.warm_start import check_fidelity, learnable
from harness.study.network import keep, required_source
from harness.study.new_study import check_new
from harness.study.own_data import file_of
from harness.study.records import Record
from harness.study.settings import Kind
from harness.study.spec import SweepSpec, with_derived
from harness.support.failpoints import Step, reach
from harness.support.provenance import provenance
from harness.sweep.checkpoints import Checkpoints
from harness.sweep.display import Display
from harness.sweep.loop import Sweep, TrialSource
from harness.sweep.reuse import Reuse
from harness.tracking.mlflow_runs import Tracker, sync

INTERRUPTED_WAIT_S = 5.0  # for MLflow, after Ctrl-C


@dataclass(frozen=True)
class StudyEnd:
    """How a call to `run_study` ended.

    Attributes:
        reason: Why it stopped.
        ran_nothing: The budget was used before any trial ran.
    """

    reason: StopReason
    ran_nothing: bool


MakeSource = Callable[[SweepSpec, Ledger, Sequence[Record]], TrialSource]


def run_study(
    spec: SweepSpec,
    home: Path,
    display: Display,
    *,
    num_workers: int | None,
    fresh: bool,
    executor: ExecutorSettings = LOCAL,
    reuses: bool = True,
) -> StudyEnd:
    """Starts or continues a study until its budget is used or the process is asked to stop.

    Args:
        spec: The study.
        home: Folder of all state.
        display: Shows progress to the user.
        num_workers: Number of concurrent trials; None: one per core or GPU.
        fresh: Keep an earlier study of this name under a dated name and start a new one.
        executor: Where the workers run.
        reuses: Take over results of equal trainings from the ledger (`harness.sweep.reuse`).

    Raises:
        InputError: the settings are inconsistent, or differ from the study's earlier ones.
        TroubleError: the study is in use, or data, ledger or workers are unavailable.
    """

    def make_proposer(spec: SweepSpec, ledger: Ledger, records: Sequence[Record]) -> Proposer:
        return Proposer(spec, make_search(spec), records, learned(ledger, spec))

    check_new(spec)
    catalogue.check(spec)
    return run_trials(
        spec, home, display, make_proposer, num_workers=num_workers, fresh=fresh, executor=executor, reuses=reuses
    )


def run_trials(
    spec: SweepSpec,
    home: Path,
    display: Display,
    make_source: MakeSource,
    *,
    num_workers: int | None,
    fresh: bool,
    executor: ExecutorSettings = LOCAL,
    reuses: bool = True,
    origin: Mapping[str, Any] = MappingProxyType({}),
) -> StudyEnd:
    """Like `run_study`, for trials of any source, which is made from the ledger and the study's records.

    `origin` is added to the provenance of a new study, besides code and versions.
    """
    origin = {"backend": backends.backend(), **origin}
    with closing(open_workplace(executor, num_workers, display.note)) as workplace:
        return _run_at(workplace, spec, home, display, make_source, fresh=fresh, reuses=reuses, origin=origin)


def _run_at(
    workplace: Workplace,
    spec: SweepSpec,
    home: Path,
    display: Display,
    make_source: MakeSource,
    *,
    fresh: bool,
    reuses: bool,
    origin: Mapping[str, Any],
) -> StudyEnd:
    data_folder = cache.prepare(spec.data, display.note)
    with closing(Ledger(home / "ledger.db", makes=False, say=display.note)) as ledger:
        if not fresh:  # reports a changed sweep file before the lock, so also while the study runs
            _check_unchanged(ledger, with_precision(ledger, spec, workplace.places, fresh=False))
            _check_backend(ledger, spec, origin["backend"])
        is_new = fresh or not ledger.has_trials(spec.study)
    if is_new and spec.is_search and (spec.network or spec.own_data):
        display.note(f"{spec.baseline} on {spec.dataset} is built once, to check it")
        check_builds(spec)
    with study_lock(home, spec.study), closing(Ledger(home / "ledger.db", say=display.note)) as ledger:
        for name, why in ledger.unreadable_studies().items():
            if name != spec.study:
                display.note(f"study {name} is left out: {why}")
        places = workplace.places
        spec = with_precision(ledger, spec, places, fresh=fresh)
        if spec.network:
            keep(spec.network, home)
        open_study(ledger, spec, fresh=fresh, origin=origin)
        records, costs = ledger.history(spec.study), make_costs(ledger, spec, places)
        checkpoints = home / "checkpoints" / spec.study
        kept = Checkpoints(spec, checkpoints)
        reuse = Reuse(spec, ledger, kept, is_on=reuses)
        num_reusable = reuse.num_foreseen(records, places[0])
        progress = Progress(spec, records, ledger.usage(spec.study), costs, num_reusable)
        pending = [record.trial for record in records if record.result is None]
        display.plan(describe(spec, places, make_plan(progress, pending, len(places))))
        ended_by = progress.reason_to_end(0.0, Open(pending=pending))
        if ended_by is not None:
            ledger.close_lost_attempts(spec.study)
            bring_to_mlflow(home, spec.study, display.note)
            return StudyEnd(ended_by, ran_nothing=True)
        display.note(f"starting {len(places)} workers, which takes some seconds")
        # The workers load their framework while this process rebuilds the search.
        executor = workplace.executor(spec, data_folder, home / "logs" / spec.study)
        tracker, reason = None, StopReason.INTERRUPTED
        try:
            source = make_source(spec, ledger, records)
            # After the search is built, which would otherwise compete with reading all runs.
            tracker = Tracker(ledger.path, home, spec.study, display.note)
            sweep = Sweep(spec, ledger, records, source, executor, [tracker], display, kept, costs, reuse=reuse)
            reason = sweep.run()
        finally:
            executor.close()
            if tracker and reason is StopReason.INTERRUPTED:  # a user who stops it should not have to wait
                tracker.close(INTERRUPTED_WAIT_S)  # the next start logs the rest
            elif tracker:
                tracker.close(is_finished=True)
        # Other studies may continue from their checkpoints with a larger budget; a verdict still needs its champion's.
        if reason is StopReason.EXHAUSTED and not spec.is_verdict:
            shutil.rmtree(checkpoints, ignore_errors=True)
        return StudyEnd(reason, ran_nothing=False)


def bring_to_mlflow(home: Path, study: str, say: Callable[[str], None]) -> None:
    """Logs the runs that MLflow lacks, of a study of which no trial runs; a server that is down fails no command."""
    try:
        sync(home, [study], say, is_idle=True)
    except TroubleError as error:
        say(f"{error}; `harness sync` tries again")


def learned(ledger: Ledger, spec: SweepSpec) -> list[Record]:
    """The trials that this study learned from another one at its start; a resumed search gets exactly the same.

    Raises:
        InputError: the ledger lacks some of them, as after an import.
    """
    known = set(ledger.study(spec.study).provenance.get("lessons", ()))
    source = _present_study(ledger, known)
    lessons = learnable(spec, source, ledger.history(source.study)) if source else []
    found = [lesson for lesson in lessons if lesson.trial.uid in known]
    if len(found) < len(known):
        what = f"study {spec.study} has learned from {len(known)} trials of study {spec.learn_from}"
        ways = f"to `harness import` {spec.learn_from} first, or a new study by --as NAME"
        raise InputError(f"{what}, and this ledger has {len(found)} of them; allowed: {ways}")
    return found


def _present_study(ledger: Ledger, uids: Iterable[str]) -> SweepSpec | None:
    """The study that has these trials, which may have been renamed since; None if they are gone."""
    for uid in uids:
        with suppress(KeyError):
            return ledger.study(ledger.whereabouts(uid)[0]).spec
    return None


def _lessons(ledger: Ledger, spec: SweepSpec) -> list[Record]:
    """The trials that a new study can learn from another one, whose fidelity is checked."""
    if spec.learn_from is None:
        return []
    source = find_study(ledger, spec.learn_from).spec
    check_fidelity(spec, source)
    return learnable(spec, source, ledger.history(source.study))


def with_precision(ledger: Ledger, spec: SweepSpec, places: Sequence[Place], *, fresh: bool) -> SweepSpec:
    """The study with "auto" resolved: the precision of its start, else the fastest one of these places."""
    if spec.precision != "auto":
        return spec
    if not fresh and ledger.has_trials(spec.study):
        return spec.changed(precision=ledger.study(spec.study).spec.precision)
    return spec.changed(precision=devices.fastest_precision(places))


def open_study(
    ledger: Ledger, spec: SweepSpec, *, fresh: bool, origin: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Creates the study's row, or checks that its settings are unchanged; a study without trials may be replaced.

    Raises:
        InputError: its settings have changed; the message names them and the allowed options.
    """
    exists = ledger.has_trials(spec.study)
    if fresh or not exists:
        lessons = [lesson.trial.uid for lesson in _lessons(ledger, spec)]
        if exists:
            _keep(ledger, spec)
        known = {"data_digest": cache.data_digest(spec.data), "lessons": lessons, **_files(spec)}
        reach(Step.BEFORE_STUDY)
        ledger.create_study(spec, provenance() | known | dict(origin))
        reach(Step.AFTER_STUDY)
        return
    _check_unchanged(ledger, spec)
    before = ledger.study(spec.study).spec.budget
    # A search for fewer trials or a shorter time than before leaves the study's budget as it is.
    budget = before.grown(spec.budget) if spec.is_search else spec.budget
    if budget != before:
        ledger.update_budget(spec.changed(budget=budget))


def _files(spec: SweepSpec) -> dict[str, str]:
    """The user's own files of a new study, with the hash of the network's; the data have a digest."""
    found = {}
    if spec.network:
        found["network_file"] = os.path.realpath(required_source(spec.network).file)
        found["network_sha256"] = spec.network.sha256
    file = file_of(spec.dataset)
    return {**found, **({"data_file": os.path.realpath(file)} if file else {})}


def _check_unchanged(ledger: Ledger, spec: SweepSpec) -> None:
    """Raises InputError if the study has trials with other settings."""
    if not ledger.has_trials(spec.study):
        return
    begun = ledger.study(spec.study).spec
    changed = [_change(begun, spec, name) for name in begun.differing_keys(spec)]
    if changed:
        raise InputError(
            f"study {spec.study} was started with other settings ({', '.join(changed)}); allowed: {_ways_on(spec)}"
        )


def _change(begun: SweepSpec, spec: SweepSpec, name: str) -> str:
    """The name of a changed setting, with both values where it names a network or data."""
    return f"{name} {getattr(begun, name)}, now {getattr(spec, name)}" if name in ("baseline", "dataset") else name


def _check_backend(ledger: Ledger, spec: SweepSpec, backend: str) -> None:
    """Raises InputError if the study has trials of another backend, whose times cannot be compared."""
    if not ledger.has_trials(spec.study):
        return
    before = ledger.study(spec.study).provenance.get("backend", backends.DEFAULT)
    if before == backend:
        return
    raise InputError(
        f"study {spec.study} was begun on {before} and would now continue on {backend}; allowed:"
        f" {backends.VARIABLE}={before}, {_ways_on(spec)}"
    )


def _ways_on(spec: SweepSpec) -> str:
    """What can be done beside a study with other settings, with the options of its command."""
    if spec.kind is Kind.BASELINE:
        return f"`harness doctor --remove {spec.study}`, which keeps a copy of the ledger"
    beside = "--as NAME for a study of its own beside it, or " if spec.is_search else ""
    return f"{beside}--fresh to keep the old one under a dated name and start a new one"


def _keep(ledger: Ledger, spec: SweepSpec) -> None:
    """Renames a study, and what was derived from it, to a dated name."""
    names = set(ledger.study_names())
    moments = (datetime.now() + timedelta(seconds=seconds) for seconds in count())
    dated = (spec.dated_name(when) for when in moments)
    kept = next(name for name in dated if names.isdisjoint(with_derived(name)))
    for old, new in zip(with_derived(spec.study), with_derived(kept), strict=True):
        if old in names:
            ledger.rename_study(old, new)
