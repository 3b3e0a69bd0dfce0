"""The champion: the network chosen by a verdict, registered in MLflow for `harness predict`.

A candidate that is BETTER becomes champion; otherwise the documented baseline does, if there is no champion yet. The
training with the first seed is registered. A choice among the trainings would be a choice by test error, since they
have no validation error: they were trained on the validation images as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.analysis.verdict.findings import Configuration, Verdict
from harness.analysis.verdict.sentences import sentences
from harness.analysis.verdict.trainings import Answer
from harness.errors import TroubleError
from harness.execution.base import CHECKPOINT_SUFFIX
from harness.execution.data import cache
from harness.execution.training import models
from harness.ledger.ledger import Ledger
from harness.ledger.locks import runs_lock
from harness.ledger.reader import Study
from harness.study.records import Outcome, Record
from harness.study.spec import SweepSpec, verdict_name
from harness.support.failpoints import Step, reach
from harness.tracking.champion import Candidate, register
from harness.tracking.registry import DATASET, PIXELS, Registered, Registry
from harness.tracking.trial_runs import trial_run

if TYPE_CHECKING:
    import keras


def model_name(dataset: str, baseline: str) -> str:
    """Name of the registered model whose versions are the champions of a baseline."""
    return f"{dataset}-{baseline}"


def crowned(home: Path, verdict: Verdict) -> str:
    """One line about the result of `crown`; a failure of MLflow does not fail the verdict."""
    try:
        champion = crown(home, verdict)
    except TroubleError as error:
        return f"the champion is not registered yet, the same command tries again: {error}"
    if champion is None:
        return "there is no champion yet"
    here = champion.file
    if isinstance(here, Path) and here.is_relative_to(Path.cwd()):
        here = here.relative_to(Path.cwd())
    return f"champion: {champion.describe()}; `harness predict IMAGE...` asks it\n{here}"


def crown(home: Path, verdict: Verdict) -> Registered | None:
    """Registers the model that a verdict chooses; returns the present champion.

    None while there is no answer, or if the baseline could not be trained. It is idempotent: unfinished steps are
    completed, and finished ones are kept, also if users have moved the alias to another version since.

    Raises:
        TroubleError: MLflow is unavailable or lacks the training's run, the disk is full, or the weights are missing.
    """
    reach(Step.BEFORE_MODEL)
    name = verdict_name(verdict.study)
    with closing(Ledger(home / "ledger.db", makes=False)) as ledger, runs_lock(home, name):
        study, winner = ledger.study(name), _winner(verdict)
        record = winner and _first_training(ledger, study.spec, winner)
        if not winner or not record:
            return None
        registry = Registry(home)
        champion = registry.find(model_name(study.spec.dataset, study.spec.baseline))
        if winner.trial is not None or champion is None:
            champion = register(registry, _candidate(home, ledger, study, verdict, winner, record))
        if verdict.answer is not Answer.NOT_DISTINGUISHABLE:  # more seeds may change it
            baseline = _first_training(ledger, study.spec, verdict.baseline)
            _keep_only(home / "checkpoints" / name, [record, *([baseline] if baseline else [])])
    return champion


def _winner(verdict: Verdict) -> Configuration | None:
    if verdict.answer is Answer.OPEN:
        return None
    return verdict.best if verdict.answer is Answer.BETTER else verdict.baseline


def _first_training(ledger: Ledger, spec: SweepSpec, winner: Configuration) -> Record | None:
    """The training of a configuration with the verdict's first seed; None if it failed."""
    for record in ledger.finished(spec.study):
        is_it = record.trial.seed == spec.seed and dict(record.trial.params) == winner.params
        if is_it and record.result and record.result.outcome is Outcome.COMPLETED:
            return record
    return None


def _candidate(
    home: Path, ledger: Ledger, study: Study, verdict: Verdict, winner: Configuration, record: Record
) -> Candidate:
    spec, uid = study.spec, record.trial.uid
    content = trial_run(ledger, study, uid)
    tracked = ledger.tracked(uid)
    if tracked is None:
        raise TroubleError("MLflow does not have the training's run yet")
    return Candidate(
        name=model_name(spec.dataset, spec.baseline),
        training=uid,
        run_id=tracked[0],
        points=content.summary,
        params=content.params,
        dataset=(spec.dataset, str(study.provenance["data_digest"])),
        tags=_tags(verdict, winner, record) | _data_tags(spec),
        description="\n\n".join([*sentences(verdict), _WHICH.format(record.trial.seed)]),
        build=partial(_build, spec, record, _weights(home / "checkpoints" / spec.study, record)),
    )


_WHICH = "The weights are those of the training with the first seed, {}, and were not chosen by their test error."


def _tags(verdict: Verdict, winner: Configuration, record: Record) -> dict[str, str]:
    """Tags for the version's page."""
    tags = {"study": verdict.study, "network": winner.name, "answer": str(verdict.answer)}
    tags |= {"seed": str(record.trial.seed), "seeds": str(len(verdict.seeds))}
    if winner.errors and winner.cost:
        tags["test_error_pct"] = f"{winner.errors.mean_pct:.2f} ± {winner.errors.sd_pct:.2f}"
        tags["device_time_s"] = f"{winner.cost.device_time_s:.1f}"
        tags["num_params"] = str(winner.cost.num_params)
    if winner.comparison and winner.comparison.device_time_ratio:
        tags["device_time_ratio"] = f"{winner.comparison.device_time_ratio:.2f}"
    return tags


def _data_tags(spec: SweepSpec) -> dict[str, str]:
    """What `harness predict` needs in order to read pictures."""
    images = spec.own_data.kept["train_images"].dtype if spec.own_data else "uint8"
    return {DATASET: spec.dataset, PIXELS: images}


def _build(spec: SweepSpec, record: Record, weights: Path) -> tuple[keras.Model, NDArray[np.float32]]:
    """The network, and a training image as an example of its input."""
    network = models.rebuild(spec, record.trial.params, weights)
    images, _ = cache.load(spec.data, "train", cache.prepare(spec.data, lambda line: None))
    first = images[:1].astype(np.float32) / (255.0 if images.dtype == np.uint8 else 1.0)
    return network, first if first.ndim == 4 else first[..., np.newaxis]


def _weights(folder: Path, record: Record) -> Path:
    return folder / f"{record.trial.uid}{CHECKPOINT_SUFFIX}"


def _keep_only(folder: Path, records: Sequence[Record]) -> None:
    """Removes the weights of the others.

    The champion's are kept to register it again if MLflow's store is lost, the baseline's for other verdicts that take
    over its training.
    """
    kept = [_weights(folder, record) for record in records]
    for path in folder.glob(f"*{CHECKPOINT_SUFFIX}"):
        if path not in kept:
            path.unlink()
