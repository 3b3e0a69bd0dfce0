"""Exports a study of any engine to an Optuna storage, for optuna-dashboard and Optuna's plots and importances.

docs/export.md has the mapping.
"""

from __future__ import annotations

import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import DateTime, column, make_url, table, update
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from harness.errors import InputError, TroubleError
from harness.ledger.ledger import Ledger, find_study
from harness.ledger.reader import Study
from harness.study.metrics import values
from harness.study.records import Outcome, Record, Role, Shown, TrialResult
from harness.study.space import Choice, Domain, Int
from harness.study.spec import SweepSpec
from harness.support.home import is_database
from harness.support.redaction import reason, redact

IDENTITY = "harness_study"  # user attribute with the ledger's study of an Optuna study
# Of Optuna's own tables.
_TRIALS = table("trials", column("trial_id"), column("datetime_start", DateTime), column("datetime_complete", DateTime))
_ROUNDING = timedelta(seconds=1)  # some databases keep whole seconds
_METRICS = {"error": "error_rate_pct", "device_time": "device_time_s"}


def export_optuna(ledger: Ledger, study: str, storage_url: str) -> int:
    """Writes a finished or running study into the storage at `storage_url` under its own name.

    It may be repeated: existing trials are kept, new ones are added, and those that were running at the last export get
    their end and duration. Trials of a verdict are left out. Trial numbers are the study's own.

    Returns:
        Number of trials that are new in the storage, or newly ended.

    Raises:
        InputError: there is no such study, the URL is invalid, or the storage has another study of this name.
        TroubleError: the storage cannot be reached or written.
    """
    found = find_study(ledger, study)
    with _opened(storage_url) as storage:
        _claim(storage, found)
        study_id = storage.get_study_id_from_name(study)
        there = {trial.user_attrs.get("uid"): trial for trial in storage.get_all_trials(study_id, deepcopy=False)}
        num_changes = 0
        for record in ledger.history(study):
            if record.trial.role is Role.CONFIRM:
                continue
            old, trial = there.get(record.trial.uid), _trial(found.spec, record)
            if old is None:
                storage.create_new_trial(study_id, template_trial=trial)
            elif _is_to_be_ended(old, trial):
                _finish(storage, storage.get_trial_id_from_study_id_trial_number(study_id, old.number), old, trial)
            else:
                continue
            num_changes += 1
    return num_changes


@contextmanager
def _opened(storage_url: str) -> Iterator[RDBStorage]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    shown = redact(storage_url)
    try:
        _check_is_for_optuna(storage_url)
        with closing(_Storage(storage_url)) as storage:
            yield storage
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        why = reason(error)
        raise InputError(f"storage is {shown!r}; allowed: a URL such as sqlite:///study.db ({why})") from error
    except TroubleError:  # the ledger's
        raise
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        raise TroubleError(f"storage {shown}: {reason(error)}; is it there, and may it be written?") from error
    finally:
        optuna.logging.set_verbosity(verbosity)


def _check_is_for_optuna(storage_url: str) -> None:
    """Raises InputError if the URL is a file with tables of something else, such as the ledger, or in no folder."""
    url = make_url(storage_url)
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":", "file:")):
        return
    path = Path(url.database)
    if not os.path.isdir(path.parent):  # noqa: PTH112 - Path.is_dir may raise
        raise InputError(
            f"storage is {redact(storage_url)!r}, and there is no folder {str(path.parent)!r}; allowed: a file in a"
            " folder that exists"
        )
    tables = set()
    if path.is_file():
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db, suppress(sqlite3.Error):
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    is_of_others = bool(tables) and "version_info" not in tables
    if is_of_others or is_database(path):
        raise InputError(
            f"storage is {redact(storage_url)!r}, a database of something else; allowed: a new file, or Optuna's own"
        )


class _Storage(RDBStorage):
    """A storage whose connections are closed, also if it cannot be opened."""

    def __init__(self, url: str) -> None:
        with ExitStack() as stack:
            stack.callback(self.close)
            super().__init__(url)
            stack.pop_all()

    def close(self) -> None:
        if hasattr(self, "scoped_session"):  # made right after the engine; without one there is no connection
            self.remove_session()
            self.engine.dispose()


def _claim(storage: RDBStorage, study: Study) -> None:
    """Creates the Optuna study, or checks that an existing one belongs to this study."""
    spec = study.spec
    identity = f"{spec.digest()} {study.created_at:.6f}"
    directions = [StudyDirection.MINIMIZE] * len(spec.objective)
    target = optuna.create_study(storage=storage, study_name=spec.study, directions=directions, load_if_exists=True)
    if IDENTITY not in target.user_attrs and not target.get_trials(deepcopy=False):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            target.set_metric_names([_METRICS[objective] for objective in spec.objective])
        for name in ("baseline", "dataset", "profile", "train_images", "epochs", "engine", "sampler", "pruner"):
            target.set_user_attr(name, getattr(spec, name))
        target.set_user_attr(IDENTITY, identity)
    if target.user_attrs.get(IDENTITY) != identity:
        raise InputError(f"the storage has another study called {spec.study!r}; allowed: a storage without it")


def _trial(spec: SweepSpec, record: Record) -> FrozenTrial:
    """A trial in Optuna's form."""
    result = record.result
    state = _state(spec, record)
    values = _values(spec, state, record)
    domains = spec.search_space.domains
    trial = optuna.trial.create_trial(
        state=state,
        values=values,
        params=dict(record.trial.params),
        distributions={name: value_distribution(domains[name]) for name in record.trial.params},
        intermediate_values=_curve(spec, result),
        user_attrs=_attributes(spec, record),
    )
    if record.started_at_s is not None:
        started = trial.datetime_start = datetime.fromtimestamp(record.started_at_s)
        if state.is_finished():
            # Not when the last attempt ended: the clock may have been set back in between.
            trial.datetime_complete = started + timedelta(seconds=record.reserved_time_s)
    return trial


def _is_to_be_ended(old: FrozenTrial, trial: FrozenTrial) -> bool:
    """Whether an ended trial is running in the storage, or has another duration there."""
    if trial.duration is None:
        return False
    return old.duration is None or abs(old.duration - trial.duration) > _ROUNDING


def _finish(storage: RDBStorage, trial_id: int, old: FrozenTrial, trial: FrozenTrial) -> None:
    """Completes a trial that was exported while running, in idempotent steps."""
    if not old.state.is_finished():
        for step, value in trial.intermediate_values.items():
            storage.set_trial_intermediate_value(trial_id, step, value)
        for name, value in trial.user_attrs.items():
            storage.set_trial_user_attr(trial_id, name, value)
        storage.set_trial_state_values(trial_id, trial.state, trial.values)
    # Optuna takes the time of the export for that of the end, and no method of its storages says another one.
    times = {"datetime_start": trial.datetime_start, "datetime_complete": trial.datetime_complete}
    with storage.engine.begin() as connection:
        connection.execute(update(_TRIALS).where(_TRIALS.c.trial_id == trial_id).values(times))


def _state(spec: SweepSpec, record: Record) -> TrialState:
    """The trial's state. One with fewer epochs than the others is pruned: its error is not that of a full training."""
    result = record.result
    if result is None:
        return TrialState.RUNNING
    if result.outcome is Outcome.COMPLETED and record.trial.epochs == spec.epochs:
        return TrialState.COMPLETE
    return TrialState.PRUNED if result.outcome in (Outcome.COMPLETED, Outcome.PRUNED) else TrialState.FAIL


def _values(spec: SweepSpec, state: TrialState, record: Record) -> list[float] | None:
    result = record.result
    if state is TrialState.FAIL or result is None or result.val_error_rate_pct is None:
        return None
    values = {"error": result.val_error_rate_pct, "device_time": record.device_time_s}
    return [values[objective] for objective in spec.objective]


def _curve(spec: SweepSpec, result: TrialResult | None) -> dict[int, float]:
    """Errors by epoch; none with several objectives, for which Optuna has no intermediate values."""
    if result is None or len(spec.objective) > 1:
        return {}
    return {report.epoch: report.val_error_rate_pct for report in result.curve}


def value_distribution(domain: Domain) -> BaseDistribution:
    """Optuna's distribution for a domain, over its values as they are."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.options)
    if isinstance(domain, Int):
        return IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
    return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)


def _attributes(spec: SweepSpec, record: Record) -> dict[str, Any]:
    trial, result = record.trial, record.result
    known: dict[str, Any] = {
        "uid": trial.uid,
        "trial": trial.number,
        "role": trial.role.value,
        "seed": trial.seed,
        "epochs": trial.epochs,
        "continues": trial.continues,
        "outcome": result and result.outcome.value,
        "error": result and result.error,
        "timing_class": record.timing_class,
        **values(Shown.OPTUNA, spec, record),
    }
    return {name: value for name, value in known.items() if value is not None}
