"""`harness reproduce`: trains one trial again from the ledger's record and compares the results.

The training is no trial of the study: nothing is written to the ledger or to MLflow, the search does not get its
result, and the test images are not read, even if the trial has read them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.analysis.reproduction.agreement import (
    Agreement,
    Condition,
    changed_device,
    changed_origin,
    judge,
    seeds_interval,
)
from harness.errors import InputError, TroubleError
from harness.execution.base import Died, EpochDone, Executor, Finished, Job, Place, Ready
from harness.execution.data import cache
from harness.execution.local import LocalExecutor
from harness.execution.machine import backends, devices
from harness.ledger.ledger import Ledger, find_study
from harness.ledger.reader import Study
from harness.planning.plan import slow_precision
from harness.study.formatting import counted, duration, settings
from harness.study.metrics import epoch_values
from harness.study.records import Device, Outcome, Record, Role, Trial, TrialResult
from harness.study.seeds import Seeds
from harness.study.spec import SweepSpec
from harness.support.atomic_files import replaced
from harness.support.provenance import diff_file, session_provenance
from harness.support.strict_json import shown
from harness.sweep.display import Display

FOLDER = "reproductions"  # of the home
MAX_SEEDS = 50  # of the baseline, whose wrong images are compared; more do not improve the estimate
POLL_S = 0.25


@dataclass(frozen=True)
class Recorded:
    """The ledger's data of a trial.

    Attributes:
        study: Its study.
        record: The trial, with its result.
        before: The trials that it continues, the first one first.
        origins: Provenance of each of these and of the trial.
        seeds: The baseline's results, if trained for the same number of epochs.
    """

    study: Study
    record: Record
    before: tuple[Record, ...]
    origins: tuple[dict[str, Any], ...]
    seeds: tuple[TrialResult, ...]

    @property
    def trial(self) -> Trial:
        return self.record.trial

    @property
    def result(self) -> TrialResult:
        """The result, with the curve from the first epoch on."""
        results = [record.result for record in (*self.before, self.record) if record.result]
        return dataclasses.replace(results[-1], curve=tuple(report for result in results for report in result.curve))

    @property
    def devices(self) -> list[Device | None]:
        return [record.result.device for record in (*self.before, self.record) if record.result]

    @property
    def num_epochs(self) -> int:
        """Number of epochs to train; a trial that diverged ends by itself."""
        ends_by_itself = self.result.outcome in (Outcome.COMPLETED, Outcome.DIVERGED)
        return self.trial.epochs if ends_by_itself or not self.result.last else self.result.last.epoch


@dataclass(frozen=True)
class Reproduction:
    """A trial that was trained again.

    Attributes:
        agreement: The comparison with its record.
        path: JSON file with the comparison and the new curve.
        diffs: Uncommitted changes of the recorded training, as files for `git apply`.
    """

    agreement: Agreement
    path: Path
    diffs: tuple[Path, ...]


def reproduce(study: str, number: int, home: Path, display: Display) -> Reproduction:
    """Trains a trial again, from its first epoch, and compares the results.

    It runs alone, with the recorded number of threads, and on the recorded kind of device if this machine has one.

    Args:
        study: The study's name.
        number: The trial's number.
        home: Folder of all state.
        display: Shows progress to the user.

    Raises:
        InputError: there is no such study or trial, or the trial has no trained epoch.
        TroubleError: data, ledger or a worker are unavailable, or the worker died.
    """
    backends.backend()  # reports a wrong backend first
    with closing(Ledger(home / "ledger.db", makes=False)) as ledger:
        recorded = read(ledger, study, number)
    spec = recorded.study.spec.changed(reads_test=False)
    place = find_place(devices.this_machine(), recorded.result.device)
    display.plan(_plan(recorded, place))
    now = _train(spec, recorded, place, home, display)
    interval = seeds_interval(recorded.result, recorded.seeds)
    agreement = judge(spec, recorded.result, now, interval, list(_conditions(recorded, now)))
    folder, name = home / FOLDER, f"{spec.study}-{number}"
    curve = [epoch_values(spec, report) for report in now.curve]
    written = {"study": spec.study, "trial": number, **dataclasses.asdict(agreement), "curve": curve}
    _write(folder / f"{name}.json", json.dumps(written, indent=2, allow_nan=False) + "\n")
    return Reproduction(agreement, folder / f"{name}.json", tuple(_write_diffs(recorded, folder)))


def read(ledger: Ledger, study: str, number: int) -> Recorded:
    """A trial, and all data to compare another training with it.

    Raises:
        InputError: there is no such study or trial, or the trial has no trained epoch.
    """
    found = find_study(ledger, study)
    records = {record.trial.number: record for record in ledger.history(found.spec.study)}
    if type(number) is not int or number not in records:  # True is no number
        allowed = f"0 to {max(records)}" if records else "none yet"
        raise InputError(f"trial is {shown(number)}; allowed in {found.spec.study}: {allowed}")
    _check_trained(found.spec.study, records[number])
    record = ledger.record(records[number].trial.uid)
    before = _before(ledger, record)
    seeds = [other for other in records.values() if other.trial.role is Role.BASELINE and _is_alike(other, record)]
    results = [ledger.record(seed.trial.uid).result for seed in seeds[:MAX_SEEDS]]
    return Recorded(
        found,
        record,
        before,
        tuple(_origin(ledger, found, one) for one in (*before, record)),
        tuple(result for result in results if result),
    )


def find_place(machine: devices.Machine, device: Device | None) -> Place:
    """This machine's place that is most similar to `device`."""
    if device is not None and device.kind == "cpu":
        return Place("worker-0", machine.cpu_name, device.threads, sharing=1)
    return dataclasses.replace(devices.places(machine, 1)[0], sharing=1)


def _check_trained(study: str, record: Record) -> None:
    which = f"trial {record.trial.number} of {study}"
    if record.result is None:
        raise InputError(f"{which} has no result yet; allowed: a trial that has ended")
    if record.result.last is None:
        why = f": {record.result.error}" if record.result.error else ""
        raise InputError(f"{which} is {record.result.outcome} with no epoch trained{why}; allowed: a trained one")


def _before(ledger: Ledger, record: Record) -> tuple[Record, ...]:
    """The trials that it continues, the first one first."""
    if record.trial.continues is None:
        return ()
    previous = ledger.record(record.trial.continues)
    return (*_before(ledger, previous), previous)


def _is_alike(seed: Record, record: Record) -> bool:
    """Whether both were trained in full for the same number of epochs, so that their errors can be compared."""
    results = seed.result, record.result
    ended = all(result is not None and result.outcome.is_ranked for result in results)
    return ended and seed.trial.epochs == record.trial.epochs


def _origin(ledger: Ledger, study: Study, record: Record) -> dict[str, Any]:
    """A trial's provenance and data."""
    return {"data_digest": study.provenance.get("data_digest"), **ledger.origin(record.trial.uid)}


def _plan(recorded: Recorded, place: Place) -> list[str]:
    trial, result = recorded.trial, recorded.result
    records = (*recorded.before, recorded.record)
    took_s = sum(record.reserved_time_s + record.reused_time_s for record in records)
    took = f"{recorded.num_epochs} epochs; it took {duration(took_s)} then"
    threads = counted(place.threads, "thread")
    sealed = ["test      stays sealed: this is no result of the study"] if recorded.study.spec.reads_test else []
    return [
        f"trial     {trial.number} of {recorded.study.spec.study}: {result.outcome}, seed {trial.seed}, {took}",
        *([f"settings  {settings(trial.params)}"] if trial.params else []),
        f"device    {place.device_name}{'' if place.gpu else f', {threads}'}",
        *(f"precision {line}" for line in slow_precision([place], recorded.study.spec.precision, "")),
        *sealed,
    ]


def _train(spec: SweepSpec, recorded: Recorded, place: Place, home: Path, display: Display) -> TrialResult:
    trial = dataclasses.replace(recorded.trial, continues=None)
    data_folder = cache.prepare(spec.data, display.note)
    with closing(LocalExecutor(spec, [place], data_folder, home / "logs" / FOLDER)) as executor:
        return _drive(executor, spec, trial, recorded.num_epochs, display)


def _drive(executor: Executor, spec: SweepSpec, trial: Trial, num_epochs: int, display: Display) -> TrialResult:
    """Trains one trial for `num_epochs` on the only worker."""
    what = Seeds(spec).describe(trial)
    while True:
        for event in executor.events(POLL_S):
            if isinstance(event, Ready):
                executor.start(event.worker, Job(trial))
                display.started(trial, event.worker, 1, what)
            elif isinstance(event, EpochDone):
                display.epoch(spec, trial, event.worker, event.report)
                executor.answer(event.worker, go_on=event.report.epoch < num_epochs)
            elif isinstance(event, Finished):
                display.finished(spec, trial, event.result, what)
                return event.result
            elif isinstance(event, Died):
                raise TroubleError(f"worker {event.reason} while it trained the trial again")


def _conditions(recorded: Recorded, now: TrialResult) -> Iterator[Condition]:
    """All differing conditions, each once, of the trial and those that it continues."""
    here = {**session_provenance(), "data_digest": cache.data_digest(recorded.study.spec.data)}
    changed: list[Condition] = []
    for origin, device in zip(recorded.origins, recorded.devices, strict=True):
        changed += [*changed_origin(origin, here), *changed_device(device, now.device)]
    yield from dict.fromkeys(changed)


def _write_diffs(recorded: Recorded, folder: Path) -> Iterator[Path]:
    diffs = {str(origin["git_diff"]) for origin in recorded.origins if origin.get("git_diff")}
    for diff in sorted(diffs):
        _write(folder / diff_file(diff), diff)
        yield folder / diff_file(diff)


def _write(path: Path, text: str) -> None:
    with replaced(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
