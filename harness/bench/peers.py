"""Trains a list of configurations without this harness: a program for `bench sweep`.

    python -m harness.bench.peers keras-tuner|optuna JOB.json FOLDER

Each peer is used as in its own guides: one process, `fit` with its defaults, and for Optuna a run per trial in a local
MLflow store. Both evaluate the same validation images after each epoch as a trial of the harness.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from baselines.recipe import RECIPE
from harness.bench.stock import arrays, compiled
from harness.execution.data import cache
from harness.support import keras_settings


class Job:
    """What is to be trained, read from the file that `harness.bench.sweep` writes."""

    def __init__(self, path: Path) -> None:
        described = json.loads(path.read_text())
        self.architecture, self.configurations = described["baseline"], described["configurations"]
        self.epochs: int = described["epochs"]
        folder = cache.prepare(described["dataset"], lambda line: None)
        self.train = arrays(described["dataset"], "train", folder, described["train_images"])
        self.validation = arrays(described["dataset"], "validation", folder, described["validation_images"])

    def model(self, params: dict[str, int]) -> keras.Model:
        return compiled(self.architecture, params, len(self.train[0]), self.epochs)

    def fit(self, model: keras.Model, **more: Any) -> Any:
        settings = {"epochs": self.epochs, "batch_size": RECIPE.batch_size, "validation_data": self.validation}
        return model.fit(*self.train, **settings, verbose=0, **more)


def keras_tuner(job: Job, folder: Path) -> None:
    import keras_tuner as kt

    class Listed(kt.Oracle):  # type: ignore[misc] # untyped
        """Proposes the list in its order."""

        def populate_space(self, trial_id: str) -> dict[str, Any]:
            number = len(self.start_order) - 1
            if number >= len(job.configurations):
                return {"status": kt.engine.trial.TrialStatus.STOPPED}
            return {"status": kt.engine.trial.TrialStatus.RUNNING, "values": job.configurations[number]}

    def build(hp: Any) -> keras.Model:
        return job.model({name: hp.Choice(name, _column(job, name)) for name in job.configurations[0]})

    tuner = kt.Tuner(
        Listed("val_accuracy", max_trials=len(job.configurations)), build, directory=folder, overwrite=True
    )
    tuner.search(*job.train, epochs=job.epochs, batch_size=RECIPE.batch_size, validation_data=job.validation, verbose=0)


def optuna(job: Job, folder: Path) -> None:
    import mlflow
    import optuna as library

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.set_experiment("sweep")
    study = library.create_study(sampler=library.samplers.RandomSampler(seed=0))
    for params in job.configurations:
        study.enqueue_trial(params)

    def objective(trial: library.Trial) -> float:
        params = {name: trial.suggest_categorical(name, _column(job, name)) for name in job.configurations[0]}
        with mlflow.start_run():
            mlflow.log_params(params)
            history = job.fit(job.model(params)).history
            for step, accuracy in enumerate(history["val_accuracy"]):
                mlflow.log_metric("val_accuracy", accuracy, step=step)
        keras.backend.clear_session()
        return float(history["val_accuracy"][-1])

    study.optimize(objective, n_trials=len(job.configurations))


def _column(job: Job, name: str) -> list[int]:
    return sorted({params[name] for params in job.configurations})


PEERS: dict[str, Callable[[Job, Path], None]] = {"keras-tuner": keras_tuner, "optuna": optuna}

if __name__ == "__main__":
    keras_settings.pin()
    PEERS[sys.argv[1]](Job(Path(sys.argv[2])), Path(sys.argv[3]))
