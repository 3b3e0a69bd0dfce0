"""The MLflow experiment of a study, found by the study's identity, also after renaming or deletion."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.ledger.ledger import Ledger
from harness.ledger.reader import Study
from harness.support.failpoints import Step, reach
from harness.tracking.content import NOTE, always_shown
from harness.tracking.store import artifact_location
from harness.tracking.summary import subject
from harness.tracking.views import View, page, view_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment


_VIEWS = "Views: {}. The study's own run, of role sweep, has the results so far and says what each metric means."


def study_id(study: Study) -> str:
    """A unique id of a study, which does not change when it is renamed."""
    return f"{study.created_at:.6f}"


def find_experiments(client: MlflowClient, study: Study) -> list[Experiment]:
    """The study's experiment, and others with its tag; live ones first, each in order of age."""
    from mlflow.entities import ViewType

    found = client.search_experiments(
        view_type=ViewType.ALL, filter_string=f"tags.study_id = '{study_id(study)}'", order_by=["creation_time ASC"]
    )
    return sorted(found, key=lambda experiment: bool(experiment.lifecycle_stage == "deleted"))


def open_experiment(client: MlflowClient, home: Path, ledger: Ledger, study: Study) -> str:
    """The id of the study's experiment; creates, restores or renames it as needed, with its views."""
    found = find_experiments(client, study)
    if not found:
        location = artifact_location(home, study.spec.study)
        name = _free_name(client, home, ledger, study)
        # With the tag it is found by from the first moment on, or it would be taken for somebody else's after a kill.
        experiment_id: str = client.create_experiment(name, location, {"study_id": study_id(study)})
        reach(Step.AFTER_EXPERIMENT)
        found = [client.get_experiment(experiment_id)]
    experiment, *others = found
    for other in others:
        if other.lifecycle_stage != "deleted":  # it may have runs of other users
            client.delete_experiment_tag(other.experiment_id, "study_id")
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    if experiment.name not in _names(study):
        client.rename_experiment(experiment.experiment_id, _free_name(client, home, ledger, study))
    for key, value in _tags(study, experiment.experiment_id).items():
        if experiment.tags.get(key) != value:
            client.set_experiment_tag(experiment.experiment_id, key, value)
    return str(experiment.experiment_id)


def lost_artifacts(client: MlflowClient, home: Path, experiment_id: str) -> str | None:
    """The path that MLflow uses for the artifacts of a home that has moved; None if it is valid."""
    location: str = client.get_experiment(experiment_id).artifact_location
    here = artifact_location(home, "")
    return location if here and not location.startswith(f"{here}/") else None


def _names(study: Study) -> tuple[str, str]:
    """The study's name, and its alternative if another study's experiment has that name."""
    since = time.strftime("%Y%m%d-%H%M%S", time.localtime(study.created_at))
    return study.spec.study, f"{study.spec.study}-{since}"


def _free_name(client: MlflowClient, home: Path, ledger: Ledger, study: Study) -> str:
    plain, dated = _names(study)
    holder = client.get_experiment_by_name(plain)
    if holder is None:
        return plain
    for other in ledger.studies():
        if study_id(other) == holder.tags.get("study_id"):  # an experiment that was renamed to free the name
            open_experiment(client, home, ledger, other)
            return plain
    return dated


def _tags(study: Study, experiment_id: str) -> dict[str, str]:
    error = "test_error_rate_pct" if study.spec.is_verdict else "error_rate_pct"
    views = " · ".join(f"[{view.label}]({page(experiment_id, view)})" for view in View)
    return {
        "study_id": study_id(study),
        "mlflow.experimentKind": "custom_model_development",
        NOTE: f"{subject(study.spec)}. {_VIEWS.format(views)}",
        **view_tags(list(study.spec.search_space), always_shown(study.spec), round(study.created_at * 1000), error),
    }
