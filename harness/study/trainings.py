"""Single trainings, independent of their study: the settings that decide their numbers, and results taken over."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Container
from typing import Any

from baselines.recipe import Recipe
from baselines.settings import Since, marked
from harness.study.records import EpochReport, Outcome, Record, Seconds, Trial, TrialResult
from harness.study.spec import SweepSpec

# Settings that decide which trials a study has and not how one is trained, and those that a trial resolves: `space` and
# `recipe` with its params. A setting that is added to `SweepSpec` counts, unless it is listed here.
_NOT_OF_A_TRAINING = frozenset(
    {
        *("study", "kind", "engine", "sampler", "pruner", "patience", "objective", "seed", "max_repeats", "prior"),
        *("max_attempts", "trial_timeout_s", "recipe", "space", "constraints", "enqueue", "learn_from", "profile"),
        *("baseline_seeds", "full_epochs", "confirms", "budget"),
        "reads_test",  # the test images are read after the training
    }
)


def training_settings(spec: SweepSpec, trial: Trial) -> dict[str, Any]:
    """Network, recipe, images, epochs and seed of a training from its first epoch on, as plain JSON.

    The documented values are filled in, so that studies with different spaces share a configuration. A field that is
    marked with `Since` is left out if it has its default, which never changes and describes the trainings before it.
    """
    recipe = dataclasses.asdict(spec.trial_recipe(trial.params))
    found = {
        "study": _of_the_study(spec),
        "network": spec.network_settings(trial.params),
        "recipe": _without(recipe, marked(Recipe, Since), dataclasses.asdict(Recipe())),
        "trained_epochs": trial.epochs,
        "seed": trial.seed,
    }
    return dict(json.loads(json.dumps(found)))


def _of_the_study(spec: SweepSpec) -> dict[str, Any]:
    fields = SweepSpec.model_fields
    later = {name for name, field in fields.items() if any(isinstance(mark, Since) for mark in field.metadata)}
    defaults = {name: field.get_default() for name, field in fields.items()}
    return _without(spec.model_dump(mode="json", exclude=set(_NOT_OF_A_TRAINING)), later, defaults)


def taken_over(spec: SweepSpec, trial: Trial, source: Record, hear: Callable[[EpochReport], bool]) -> TrialResult:
    """The result of a trial that takes over a training.

    `hear` gets each epoch, and returns False to stop the trial there, as it would be stopped in training.
    """
    result = source.result
    assert result is not None  # noqa: S101 - only results are found
    curve = _until_stopped(trial, result.curve, hear)
    taken = dataclasses.replace(
        result,
        curve=curve,
        test_wrong_images=result.test_wrong_images if spec.reads_test else None,
        reused_from=source.trial.uid,
    )
    if len(curve) == len(result.curve):
        return taken
    # Nothing that is known after the last epoch only.
    return TrialResult(
        Outcome.PRUNED,
        curve=curve,
        seconds=sum((report.seconds for report in curve), Seconds(build=result.seconds.build)),
        num_params=result.num_params,
        peak_memory_mb=result.peak_memory_mb,
        device=result.device,
        images_per_s=result.images_per_s,
        training=result.training,
        reused_from=source.trial.uid,
    )


def _until_stopped(
    trial: Trial, curve: tuple[EpochReport, ...], hear: Callable[[EpochReport], bool]
) -> tuple[EpochReport, ...]:
    for position, report in enumerate(curve, start=1):
        if not hear(report) and report.epoch < trial.epochs:
            return curve[:position]
    return curve


def _without(values: dict[str, Any], later: Container[str], defaults: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in later or value != defaults[name]}
