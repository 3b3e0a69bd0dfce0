"""Finished trials of one study as lessons for another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from harness.errors import InputError
from harness.study.records import Outcome, Params, Record
from harness.study.space import SpaceError
from harness.study.spec import SweepSpec

# What decides how good an error is: only errors of one fidelity are compared. The recipe does, too, and is compared
# trial by trial, since it may be searched.
FIDELITY = ("baseline", "dataset", "train_images", "epochs")

# On how many images a curve is measured. Only pruners compare curves: the error after the last epoch is on all images.
FIDELITY_OF_CURVES = ("validation_images",)

# Ends that belong to the configuration, and not to a limit, a machine or bad luck.
LESSONS = frozenset({Outcome.COMPLETED, Outcome.PRUNED, Outcome.DIVERGED})


def check_fidelity(spec: SweepSpec, source: SweepSpec) -> None:
    """Raises InputError unless errors of study `source` may stand beside those of `spec`; it says what differs."""
    keys = FIDELITY if spec.pruner == "none" else FIDELITY + FIDELITY_OF_CURVES
    differing = [key for key in keys if getattr(spec, key) != getattr(source, key)]
    if not differing:
        return
    theirs = " and ".join(f"{key} is {getattr(source, key)}" for key in differing)
    mine = " and ".join(str(getattr(spec, key)) for key in differing)
    curves = f", since pruner {spec.pruner} compares curves" if differing == list(FIDELITY_OF_CURVES) else ""
    raise InputError(f"learn_from is {source.study}, where {theirs}; allowed: studies with {mine}{curves}")


def learnable(spec: SweepSpec, source: SweepSpec, records: Sequence[Record]) -> list[Record]:
    """The finished trials of study `source` that study `spec` can learn from, in the terms of its space.

    Those of a new study have passed `check_fidelity`. A trial counts where the same network under the same recipe is a
    point of this space, so the spaces may differ: what one of them leaves out stands there at its documented value.

    Args:
        spec: The study that is to learn.
        source: The study of the records.
        records: Its trials.

    Raises:
        InputError: there is nothing to learn.
    """
    learned = [translated for record in records if (translated := _translated(spec, source, record)) is not None]
    if not learned:
        raise InputError(
            f"learn_from is {source.study}, which has no finished trial within this space; allowed: a study that has"
        )
    return sorted(learned, key=lambda record: record.asked_at)


def _translated(spec: SweepSpec, source: SweepSpec, record: Record) -> Record | None:
    trial, result = record.trial, record.result
    if result is None or result.outcome not in LESSONS or trial.epochs != spec.epochs:
        return None
    params = _same_point(spec, source, trial.params)
    if params is None:
        return None
    return dataclasses.replace(record, trial=dataclasses.replace(trial, params=params))


def _same_point(spec: SweepSpec, source: SweepSpec, params: Params) -> Params | None:
    """`params` of `source` as a point of `spec`'s space; None if that configuration is not in it."""
    config, recipe = source.config(params), source.trial_recipe(params)
    point = spec.search_space.restrict({**dataclasses.asdict(config), **dataclasses.asdict(recipe)})
    try:
        spec.search_space.validate(point)
    except SpaceError:
        return None
    return point if (spec.config(point), spec.trial_recipe(point)) == (config, recipe) else None
