"""Takes results of equal trainings over from the ledger, so that nothing is trained twice.

With TensorFlow on a CPU, a training with the same settings, code and versions on the same processor with as many
threads gives the same bits (docs/design.md). So for each trial that is handed out, such a training is first looked up,
in all studies.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import baselines
from harness.analysis.verdict.trainings import configurations
from harness.errors import DamageError
from harness.execution.base import Place
from harness.execution.data import cache
from harness.execution.machine import backends
from harness.execution.training.version import TRAINING_VERSION
from harness.ledger.ledger import Ledger
from harness.study.network import source_of
from harness.study.records import Params, Record, Trial
from harness.study.spec import SweepSpec
from harness.study.trainings import training_settings
from harness.support import keras_settings, own_code
from harness.support.own_code import BASELINES
from harness.support.provenance import is_code_committed, versions
from harness.sweep.checkpoints import Checkpoints

# Variables by which users choose other kernels; not those of TensorFlow that change no number, and those of Terraform.
_OF_KERNELS = ("TF_", "ONEDNN_", "DNNL_", "XLA_", "JAX_", "ATEN_", "MKL_", "NPY_")
_HARMLESS = ("TF_CPP_", "TF_NUM_", "TF_CLI_", "TF_DATA_DIR", "TF_LOG", "TF_REGISTRY_", "TF_VAR_", "TF_WORKSPACE")
# On other backends it was not measured for all networks, and GPUs add in an order that varies.
_REPEATABLE = ("tensorflow",)
# What a user's network may import and be taken over: versions, TRAINING_VERSION or digests decide these. The import
# system leads to any other module.
_IMPORTS = sys.stdlib_module_names - {"importlib", "pkgutil", "runpy"} | {"baselines", "keras", "numpy"}
MAX_FORESEEN = 1000  # trials that are looked up for the plan


@dataclass(frozen=True)
class Source:
    """A trial that was trained, with its images, and its name with that of its study."""

    name: str
    record: Record


class Reuse:
    """Finds the results that the trials of one study may take over.

    Args:
        spec: The study.
        ledger: All studies.
        checkpoints: The study's, for trials whose weights are needed.
        is_on: Whether results are taken over; those of this study are marked for others in any case.
    """

    def __init__(self, spec: SweepSpec, ledger: Ledger, checkpoints: Checkpoints, *, is_on: bool = True) -> None:
        self._spec, self._ledger, self._checkpoints, self._is_on = spec, ledger, checkpoints, is_on
        self._conditions = conditions(spec.data) | _architecture(spec)
        self._is_repeatable = backends.backend() in _REPEATABLE and _is_known(spec)

    def training(self, trial: Trial, place: Place | None) -> str | None:
        """The digest of what decides a trial's numbers; None if they cannot be taken over: see `TrialResult`."""
        is_whole = trial.continues is None and trial.epochs == self._spec.epochs
        if not (is_whole and self._is_repeatable) or place is None or place.gpu is not None:
            return None
        processor = {"device": place.device_name, "processor": place.processor, "threads": place.threads}
        decides = {**training_settings(self._spec, trial), **self._conditions, **processor}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def find(self, trial: Trial, place: Place | None) -> Source | None:
        """The first training of the ledger with the trial's numbers; None: it has to be trained."""
        training = self.training(trial, place) if self._is_on else None
        if training is None:
            return None
        settings = training_settings(self._spec, trial)
        for uid in self._ledger.trainings(training, has_test=self._spec.reads_test):
            try:
                spec, record = self._ledger.with_settings(uid)
            except (DamageError, KeyError):  # KeyError: removed meanwhile
                continue
            if training_settings(spec, record.trial) != settings:
                continue  # the digest of an imported study may be wrong
            if self._checkpoints.may_adopt(trial, uid):
                return Source(f"{spec.study} trial {record.trial.number}", record)
        return None

    def prepare(self, trial: Trial, place: Place | None) -> Source | None:
        """Like `find`, with the weights copied if the trial needs them."""
        source = self.find(trial, place)
        return source if source and self._checkpoints.adopt(trial, source.record.trial.uid) else None

    def num_foreseen(self, records: Iterable[Record], place: Place | None) -> int:
        """Number of results that can be taken over, among the trials that are known before the search proposes any."""
        if not self._is_on:
            return 0
        ended = {record.trial.number for record in records if record.result}
        known = {record.trial.number: record.trial for record in records}
        planned = {trial.number: trial for trial in planned_trials(self._spec)} | known
        return sum(self.find(trial, place) is not None for number, trial in planned.items() if number not in ended)


def conditions(data: cache.Data) -> dict[str, Any]:
    """What decides the numbers of all trainings of a study, besides its settings and the processor."""
    packages = versions()
    return {
        "code": TRAINING_VERSION if is_code_committed() else own_code.digest(),
        "data": cache.data_digest(data),
        "keras": keras_settings.described(),
        "versions": {name: packages.get(name) for name in (backends.backend(), "keras", "numpy")},
        "kernels": {
            name: value
            for name, value in os.environ.items()
            if name.startswith(_OF_KERNELS) and not name.startswith(_HARMLESS)
        },
    }


def _architecture(spec: SweepSpec) -> dict[str, Any]:
    """The content of a built-in network's file; the name of a user's own has it, but it may import built-in ones."""
    if spec.network:
        return {"built_in": {name: _digest(name) for name in baselines.NAMES}}
    return {"architecture": _digest(spec.baseline)}


def _digest(baseline: str) -> str:
    return hashlib.sha256((BASELINES / f"{baseline}.py").read_bytes()).hexdigest()


def _is_known(spec: SweepSpec) -> bool:
    """Whether all code of the network is in what decides a training: no package of which nothing is recorded."""
    source = source_of(spec.network)
    return source is None or source.imports <= {*_IMPORTS, backends.backend()}


def planned_trials(spec: SweepSpec) -> list[Trial]:
    """The trials that follow from a study's settings: the baseline's, or all of a verdict. Their uid is no real one."""
    planned: list[Params] = [*configurations(spec)] if spec.is_verdict else [spec.baseline_params]
    num_trials = spec.budget.trials if spec.is_verdict else spec.baseline_seeds
    return [
        Trial("planned", number, planned[number % len(planned)], spec.seed + number // len(planned), spec.epochs)
        for number in range(min(num_trials, MAX_FORESEEN))
    ]
