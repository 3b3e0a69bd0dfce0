"""Checks the installation: what is installed, what is missing, and advice. Changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

import psutil

from harness.audit.files import leftovers
from harness.audit.rows import damage, open_read_only, unreadable
from harness.audit.runs import live_runs
from harness.errors import InputError
from harness.execution.data import cache
from harness.execution.data.datasets import DATASETS
from harness.execution.machine import backends, devices
from harness.ledger.reader import REMOVE
from harness.ledger.schema import SCHEMA_VERSION, missing
from harness.support.atomic_files import is_alive
from harness.support.redaction import redact
from harness.tracking.store import open_client, sqlite_file, tracking_uri, why

NAMED_LIBRARIES = ("tensorflow", "keras", "keras-tuner", "optuna", "mlflow", "pandas", "numpy")
CUDA_LIBRARY = "nvidia-cudnn-cu12"  # installed by tensorflow[and-cuda]; without it TensorFlow finds no GPU
OF_TENSORFLOW = ("tensorflow", "keras-tuner")  # not needed on another backend, except for `--engine keras-tuner`
LITTLE_SPACE_GB = 2.0  # the size of the checkpoints of a Hyperband study
NO_SPACE_GB = 0.1


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"  # a sweep would fail, or its results would not be visible


@dataclass(frozen=True)
class Finding:
    """One line about the installation; a problem comes with advice."""

    level: Level
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:<8} {self.subject:<10} {self.text}"


def examine(home: Path) -> Iterator[Finding]:
    """Yields the findings. A missing home is not created."""
    yield _ok("python", f"{sys.version.split()[0]}, {sys.executable}")
    yield _libraries()
    yield _backend()
    machine = devices.this_machine()
    yield _machine(machine)
    yield _gpu(machine)
    yield _home(home)
    yield _space(home)
    path, finished = home / "ledger.db", set[str]()
    if _existing(path) == path:
        yield (ledger := _ledger(path))
        finished = set() if ledger.level is Level.PROBLEM else _finished(path)
    yield _mlflow(home, finished)
    yield from (_data(dataset) for dataset in DATASETS)
    yield from _locks(home)
    yield from (_warning("leftover", str(left)) for left in leftovers(home))


def _ok(subject: str, text: str) -> Finding:
    return Finding(Level.OK, subject, text)


def _warning(subject: str, text: str) -> Finding:
    return Finding(Level.WARNING, subject, text)


def _problem(subject: str, text: str) -> Finding:
    return Finding(Level.PROBLEM, subject, text)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _libraries() -> Finding:
    """Versions of the installed libraries; nothing is loaded."""
    if _version("harness") is None:
        return _problem("libraries", "harness itself is not installed; `make setup` installs it")
    required = [line for line in metadata.requires("harness") or () if "extra ==" not in line]
    names = [re.split(r"[^\w.-]", line)[0] for line in required]
    missing = [name for name in names if _version(name) is None]
    if needed := [name for name in missing if name not in OF_TENSORFLOW or _needs_tensorflow()]:
        return _problem("libraries", f"{', '.join(needed)} not installed; `make clean setup` installs all again")
    versions = [f"{name} {version}" for name in NAMED_LIBRARIES if (version := _version(name))]
    return _ok("libraries", "; without ".join(", ".join(names) for names in (versions, missing) if names))


def _needs_tensorflow() -> bool:
    try:
        return backends.backend() == backends.DEFAULT
    except InputError:
        return True


def _backend() -> Finding:
    versions = backends.installed()
    try:
        chosen = backends.backend()
    except InputError as error:
        return _problem("backend", str(error))
    others = [f"{name} {version}" for name, version in versions.items() if name != chosen]
    also = f"; installed too, for {backends.VARIABLE}: {', '.join(others)}" if others else ""
    return _ok("backend", f"{chosen} {versions[chosen]}{also}")


def _precision(machine: devices.Machine) -> str:
    """The precision that new studies take by themselves."""
    try:
        return f", in {devices.fastest_precision(devices.places(machine, None))}"
    except InputError:  # of the backend, which has a line of its own
        return ""


def _machine(machine: devices.Machine) -> Finding:
    num_workers = len(devices.places(machine, None))
    free_mb, wanted_mb = psutil.virtual_memory().available / 2**20, num_workers * devices.WORKER_MEMORY_MB
    memory = f"{free_mb / 1024:.1f} of {machine.memory_mb / 1024:.1f} GiB memory free"
    text = f"{machine.cpu_name}, {machine.num_cores} cores, {memory}; {num_workers} trials at once"
    if free_mb < wanted_mb:
        return _warning(
            "machine", f"{text} may take {wanted_mb / 1024:.1f} GiB: close other programs, or take fewer --workers"
        )
    return _ok("machine", f"{text}{_precision(machine)}")


def _gpu(machine: devices.Machine) -> Finding:
    names = ", ".join(machine.gpu_names)
    if names and _needs_tensorflow() and _version(CUDA_LIBRARY) is None:
        return _problem("gpu", f"{names}; TensorFlow's CUDA libraries are missing: `make clean setup` installs them")
    if not names and shutil.which("nvidia-smi") and "CUDA_VISIBLE_DEVICES" not in os.environ:
        return _warning("gpu", "nvidia-smi is there and names none; run it and see; sweeps take the CPU")
    return _ok("gpu", f"{names}; --gpu tries what holds on them" if names else "none; sweeps take the CPU")


def _home(home: Path) -> Finding:
    place = _existing(home)
    if not place.is_dir():
        return _problem("home", f"{home}: {place} is no folder; set HARNESS_HOME to one, which need not exist yet")
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        return _problem("home", f"{home}: {place} is not writable; make it so, or set HARNESS_HOME to another folder")
    is_new = not os.path.exists(home / "ledger.db")  # noqa: PTH110 - as in _existing
    return _ok("home", f"new: {home}" if is_new else str(home))


def _space(home: Path) -> Finding:
    free_gb = shutil.disk_usage(_existing(home)).free / 1e9
    text = f"{free_gb:.1f} GB free for {home}"
    if free_gb >= LITTLE_SPACE_GB:
        return _ok("disk", text)
    level = Level.PROBLEM if free_gb < NO_SPACE_GB else Level.WARNING
    return Finding(level, "disk", f"{text}; make room, or set HARNESS_HOME to another disk")


def _existing(path: Path) -> Path:
    """The path itself, or its nearest existing parent."""
    return next(p for p in (path, *path.parents) if os.path.exists(p))  # noqa: PTH110 - Path.exists may raise


def _ledger(path: Path) -> Finding:
    try:
        with closing(open_read_only(path)) as db:
            ((version,), (journal,)) = (
                db.execute(f"PRAGMA {name}").fetchone() for name in ("user_version", "journal_mode")
            )
            if version > SCHEMA_VERSION:
                return _problem("ledger", f"{path} is of a newer version; install that, or set HARNESS_HOME elsewhere")
            if version == SCHEMA_VERSION and (lack := missing(db)):
                return _problem("ledger", f"{path}: {lack} is missing; put a copy back")
            if problem := next(damage(db), None):
                return _problem("ledger", f"{path}: {problem}; put a copy back")
            if version == SCHEMA_VERSION and (found := next(unreadable(db), None)):
                return _problem("ledger", f"{path}: {found}; {REMOVE}")
            (num_studies,) = db.execute("SELECT count(*) FROM studies").fetchone()
    except (sqlite3.Error, UnicodeError) as error:
        return _problem("ledger", f"{path}: {error}; is it a ledger, and readable? put a copy back, or move it away")
    text = f"schema {version}, journal mode {journal}, intact, {num_studies} studies"
    if version < SCHEMA_VERSION:
        return _warning("ledger", f"{text}; the next command brings it to schema {SCHEMA_VERSION}")
    if journal != "wal":
        return _warning("ledger", f"{text}; with any but wal, processes wait for each other: is it a network drive?")
    return _ok("ledger", text)


def _mlflow(home: Path, finished: set[str]) -> Finding:
    """Whether the store answers, and the number of finished trials that it lacks."""
    try:
        uri = tracking_uri(home)
        file = sqlite_file(uri)
        shown = _shown(home) if file is None or file.exists() else None
    except InputError as error:
        return _problem("mlflow", str(error))
    except Exception as error:
        text = f"{redact(uri)}: {why(uri, error)}"
        return _problem("mlflow", f"{text}; sweeps continue without it, `harness sync` logs their runs later")
    if num_missing := len(finished - (shown or set())):
        return _warning(
            "mlflow", f"{redact(uri)} lacks {num_missing} finished trials; `harness sync` brings them there"
        )
    return _ok("mlflow", f"new: {redact(uri)}" if shown is None else f"{redact(uri)} has all finished trials")


def _finished(path: Path) -> set[str]:
    """uids of the finished trials of all studies."""
    with closing(open_read_only(path)) as db:
        return {uid for (uid,) in db.execute("SELECT uid FROM attempts WHERE told_at IS NOT NULL")}


def _shown(home: Path) -> set[str]:
    """uids of the trials that have a run. Passes on MLflow's exceptions."""
    client = open_client(home)
    experiments = client.search_experiments(filter_string="tags.study_id LIKE '%'")
    runs = live_runs(client, [experiment.experiment_id for experiment in experiments])
    return {run.data.tags.get("trial_uid", "") for run in runs}


def _data(dataset: str) -> Finding:
    try:
        checks = cache.verify(dataset)
    except InputError as error:
        return _problem("data", str(error))
    folder = checks[0].path.parent
    if not any(_existing(check.path) == check.path for check in checks):
        return _ok("data", f"{dataset}: not here yet; the first sweep on it fetches it to {folder}")
    for check in checks:
        if check.problem:
            return _problem("data", f"{check.path}: {check.problem}; `harness data fetch --dataset {dataset}` mends it")
    return _ok("data", f"{dataset}: intact, {folder}")


def _locks(home: Path) -> Iterator[Finding]:
    holders = sorted((home / "locks").glob("*.json"))
    if not holders:
        yield _ok("lock", "no study is in use")
    for holder in holders:
        try:
            known = json.loads(holder.read_text())
            text = f"{holder.stem}: process {known['pid']} since {known['since']}"
            is_held = is_alive(int(known["pid"]), holder.stat().st_mtime)
        except (OSError, TypeError, ValueError, LookupError):
            continue  # it is being written or removed
        if is_held:
            yield _ok("lock", text)
        else:
            yield _warning("lock", f"{text}, which is gone; its next start takes over")
