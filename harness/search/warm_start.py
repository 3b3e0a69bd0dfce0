"""Finished trials of one study as input for the sampler of another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from harness.errors import InputError
from harness.study.comparability import differing
from harness.study.records import Params, Record
from harness.study.settings import Decides
from harness.study.space import SpaceError
from harness.study.spec import SweepSpec


def check_fidelity(spec: SweepSpec, source: SweepSpec) -> None:
    """Raises InputError with the differences unless errors of study `source` may be compared with those of `spec`."""
    # Only pruners compare curves: the error after the last epoch is on all images.
    found = differing(spec, source, Decides.ARCHITECTURE, Decides.ERRORS)
    of_curves = [] if spec.pruner == "none" else differing(spec, source, Decides.CURVES)
    if not found + of_curves:
        return
    theirs = " and ".join(f"{key} is {getattr(source, key)}" for key in found + of_curves)
    mine = " and ".join(str(getattr(spec, key)) for key in found + of_curves)
    curves = f", since pruner {spec.pruner} compares curves" if not found else ""
    raise InputError(f"learn_from is {source.study}, where {theirs}; allowed: studies with {mine}{curves}")


def learnable(spec: SweepSpec, source: SweepSpec, records: Sequence[Record]) -> list[Record]:
    """The finished trials of study `source` that study `spec` can use, converted to its space.

    A new study has passed `check_fidelity`. A trial is used if its network and recipe are a point of this space, so the
    spaces may differ: a hyperparameter that one space lacks has its documented value there.

    Args:
        spec: The study that uses the trials.
        source: The study of the records.
        records: Its trials.

    Raises:
        InputError: no trial can be used.
    """
    learned = [translated for record in records if (translated := _translated(spec, source, record)) is not None]
    if not learned:
        raise InputError(
            f"learn_from is {source.study}, which has no finished trial within this space; allowed: a study that has"
        )
    return sorted(learned, key=lambda record: record.asked_at)


def _translated(spec: SweepSpec, source: SweepSpec, record: Record) -> Record | None:
    trial, result = record.trial, record.result
    if result is None or not result.outcome.was_trained or trial.epochs != spec.epochs:
        return None
    params = _same_point(spec, source, trial.params)
    if params is None:
        return None
    seed = spec.seed + trial.seed - source.seed
    return dataclasses.replace(record, trial=dataclasses.replace(trial, params=params, seed=seed))


def _same_point(spec: SweepSpec, source: SweepSpec, params: Params) -> Params | None:
    """`params` of `source` as a point of `spec`'s space; None if that configuration is not in it."""
    network, recipe = source.network_settings(params), source.trial_recipe(params)
    point = spec.search_space.restrict({**network, **dataclasses.asdict(recipe)})
    try:
        spec.search_space.validate(point)
    except SpaceError:
        return None
    return point if (spec.network_settings(point), spec.trial_recipe(point)) == (network, recipe) else None
