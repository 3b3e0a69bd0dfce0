"""Registers a champion in MLflow: the model with its metadata, a version of it, and the alias.

Each object has the uid of its training as a tag. So each step is idempotent: finished steps are found, and missing ones
are done.
"""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.study.metrics import meanings_in_mlflow
from harness.support.failpoints import Step, reach
from harness.tracking.content import Point
from harness.tracking.registry import CHAMPION, TRAINING, Registered, Registry, unless_missing

if TYPE_CHECKING:
    import keras
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

_SINCE = "champion_since"  # tag of a version that once got the alias; after that users may move it
_MODEL_VERSIONS = "mlflow.modelVersions"  # tag by which MLflow's page links a model to its versions
_ABOUT = (
    "Networks that `harness verdict` chose, each with a description of its own. `harness predict IMAGE...` classifies"
    " pictures with the version that has the alias `champion`."
)
_USE = """`harness predict --model {}/VERSION IMAGE...` classifies PNG files with this version, and prints the path of
its file, which Keras loads by itself:

```python
import keras

model = keras.saving.load_model("model.keras")
probabilities = model.predict(images)  # float32, of the shape model.input_shape; bytes are divided by 255
```"""
_TAGS = (
    "Tags: `test_error_pct` is the mean test error over `seeds` seeds, with its standard deviation, percent;"
    " `device_time_s` the mean device time of a training, seconds, and `device_time_ratio` that time relative to the"
    " baseline's."
)
_MAX_DESCRIPTION = 5000  # characters that MLflow's table takes


@dataclass(frozen=True)
class Candidate:
    """A model to be registered.

    Attributes:
        name: Name of the registered model.
        training: uid of the training of its weights.
        run_id: Run of that training.
        points: The run's summary numbers, which are also logged for the model.
        params: Hyperparameters, as text.
        dataset: (name, digest), as in the run.
        tags, description: Tags and description of the version.
        build: Makes the network and an example of its input.
    """

    name: str
    training: str
    run_id: str
    points: Sequence[Point]
    params: Mapping[str, str]
    dataset: tuple[str, str]
    tags: Mapping[str, str]
    description: str
    build: Callable[[], tuple[keras.Model, NDArray[np.float32]]]


def register(registry: Registry, candidate: Candidate) -> Registered:
    """Registers a model, unless it is registered, and makes it champion, unless it has been champion before.

    Raises:
        TroubleError: MLflow or its artifact store is unavailable, or `candidate.build` raises it.
    """
    with registry.asked():
        return registry.describe(_Registration(registry, candidate).run())


class _Registration:
    """Registers one candidate; passes on MLflow's exceptions."""

    def __init__(self, registry: Registry, candidate: Candidate) -> None:
        self._client, self._candidate = registry.client, candidate

    def run(self) -> ModelVersion:
        candidate = self._candidate
        versions = self._client.search_model_versions(f"name = '{candidate.name}'")
        version = next((one for one in versions if one.tags.get(TRAINING) == candidate.training), None)
        version = version or self._new_version(self._ready_model())
        if _SINCE in version.tags:
            return version
        name, number = version.name, version.version
        self._client.set_registered_model_alias(name, CHAMPION, number)
        reach(Step.AFTER_ALIAS)
        self._client.set_model_version_tag(name, number, _SINCE, time.strftime("%Y-%m-%d %H:%M:%S"))
        return self._client.get_model_version(name, number)

    def _new_version(self, model: LoggedModel) -> ModelVersion:
        reach(Step.BEFORE_VERSION)
        candidate = self._candidate
        if unless_missing(lambda: self._client.get_registered_model(candidate.name)) is None:
            self._client.create_registered_model(candidate.name, description=_ABOUT)
        version = self._client.create_model_version(
            candidate.name,
            model.artifact_location,
            candidate.run_id,
            {TRAINING: candidate.training, **candidate.tags},
            description=_description(candidate),
            model_id=model.model_id,
        )
        # A tracking server does this itself.
        shown = json.dumps([{"name": candidate.name, "version": version.version}])
        self._client.set_logged_model_tags(model.model_id, {_MODEL_VERSIONS: shown})
        reach(Step.AFTER_VERSION)
        return version

    def _ready_model(self) -> LoggedModel:
        """The complete logged model of this training."""
        from mlflow.entities import LoggedModelStatus

        candidate, run = self._candidate, self._client.get_run(self._candidate.run_id)
        tagged = f"tags.{TRAINING} = '{candidate.training}'"
        model = next(iter(self._client.search_logged_models([run.info.experiment_id], tagged)), None)
        if model is None:
            model = self._client.create_logged_model(
                run.info.experiment_id,
                candidate.name,
                run.info.run_id,
                {TRAINING: candidate.training},
                dict(candidate.params),
                "keras",
            )
        reach(Step.AFTER_MODEL)
        if model.status is LoggedModelStatus.READY:
            return model
        self._save(model)
        self._link(model, run)
        return self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)

    def _save(self, model: LoggedModel) -> None:
        """Like `mlflow.keras.log_model`, which however uses the process-wide tracking address."""
        network, example = self._candidate.build()  # first: it loads Keras quietly, as `mlflow.keras` does not

        import mlflow.keras
        from mlflow.models import Model

        run_id, location = self._candidate.run_id, model.artifact_location
        info = Model(location, run_id, model_uuid=model.model_id, model_id=model.model_id)
        with TemporaryDirectory() as folder:
            mlflow.keras.save_model(
                network,
                folder,
                mlflow_model=info,
                signature=_signature(network),
                input_example=example,
                pip_requirements=_requirements(),
            )
            self._client.log_model_artifacts(model.model_id, folder)

    def _link(self, model: LoggedModel, run: Run) -> None:
        """Logs the run's numbers for the model, with their data set."""
        from mlflow.entities import LoggedModelOutput, Metric

        outputs = run.outputs.model_outputs if run.outputs else []
        if model.model_id not in [output.model_id for output in outputs]:
            self._client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, 0)])
        name, digest = self._candidate.dataset
        # The run has the same points already, so it does not change.
        metrics = [
            Metric(key, value, time_ms, step, model.model_id, name, digest, run.info.run_id)
            for key, value, step, time_ms in self._candidate.points
        ]
        self._client.log_batch(run.info.run_id, metrics)


def _description(candidate: Candidate) -> str:
    """The candidate's description, its settings, how to use the model, and what its numbers mean: Markdown."""
    settings = " ".join(f"{name}={value}" for name, value in candidate.params.items())
    meanings, named = meanings_in_mlflow(), dict.fromkeys(point.key for point in candidate.points)
    parts = [
        candidate.description,
        f"Its settings: `{settings}`",
        _USE.format(candidate.name),
        _TAGS,
        "\n".join(["| metric | meaning |\n|---|---|", *(f"| `{name}` | {meanings[name]} |" for name in named)]),
    ]
    return "\n\n".join(parts)[:_MAX_DESCRIPTION]


def _signature(network: keras.Model) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(shape: tuple[int | None, ...]) -> Schema:
        return Schema([TensorSpec(np.dtype(np.float32), tuple(-1 if size is None else size for size in shape))])

    return ModelSignature(schema(network.input_shape), schema(network.output_shape))


def _requirements() -> list[str]:
    """The installed packages that are needed to load the model."""
    import keras

    packages = ("keras", keras.backend.backend(), "numpy")
    return [f"{package}=={importlib.metadata.version(package)}" for package in packages]
