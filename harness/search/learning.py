"""Finished trials of one study as lessons for another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from harness.errors import InputError
from harness.records import Outcome, Params, Record
from harness.space import SpaceError
from harness.spec import SweepSpec

# What decides how good an error is: only errors of one fidelity are compared.
FIDELITY = ("baseline", "dataset", "train_images", "epochs")

# Ends that belong to the configuration, and not to a limit, a machine or bad luck.
LESSONS = frozenset({Outcome.COMPLETED, Outcome.PRUNED, Outcome.DIVERGED})


def learnable(spec: SweepSpec, source: SweepSpec, records: Sequence[Record]) -> list[Record]:
    """The finished trials of study `source` that study `spec` can learn from, in the terms of its space.

    A trial counts where the same network under the same recipe is a point of this space, so the spaces may differ:
    what one of them leaves out stands there at its documented value.

    Args:
        spec: The study that is to learn.
        source: The study of the records.
        records: Its trials.

    Raises:
        InputError: the fidelities differ, or there is nothing to learn.
    """
    for key in FIDELITY:
        mine, theirs = getattr(spec, key), getattr(source, key)
        if mine != theirs:
            raise InputError(f"learn_from is {source.study}, where {key} is {theirs}; allowed: studies with {mine}")
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
