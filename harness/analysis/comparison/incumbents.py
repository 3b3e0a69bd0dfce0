"""A study's best error so far over its cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from operator import attrgetter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.ledger.ledger import Ledger
from harness.study.comparability import Configurations
from harness.study.records import Outcome, Record, Role
from harness.study.spec import SweepSpec

Floats = NDArray[np.float64]
Unit = Literal["device_s", "trainings"]


@dataclass(frozen=True)
class Incumbents:
    """A study's searched trials in the order of their end, without infeasible ones, which cost nothing.

    The baseline's trials are left out as well, since every study has them.

    Attributes:
        spec: The study's settings.
        trials: Their numbers.
        device_s: Cumulative device seconds of all attempts, including failed and pruned trials. A trial that continues
            another one adds its own epochs only, so that the sum is the actual cost; one that took over a result adds
            the time of that training.
        trainings: Cumulative epochs, in units of full trainings.
        error_pct: Validation error of the best configuration so far; infinite before the first.
        timing_classes: Timing classes of their times.
        num_reused, reused_s: Number of them that took over a result, and the sum of the times of those trainings.
    """

    spec: SweepSpec
    trials: NDArray[np.int64]
    device_s: Floats
    trainings: Floats
    error_pct: Floats
    timing_classes: frozenset[str] = field(default_factory=frozenset)
    num_reused: int = 0
    reused_s: float = 0.0

    def cost(self, unit: Unit) -> Floats:
        return self.device_s if unit == "device_s" else self.trainings

    def at(self, budgets: Floats, unit: Unit) -> Floats:
        """The incumbent's error (budget) at these costs, from trials that have ended by then."""
        steps = np.concatenate([[np.inf], self.error_pct])
        found: Floats = steps[np.searchsorted(self.cost(unit), budgets, side="right")]
        return found


def read_incumbents(ledger: Ledger, spec: SweepSpec) -> Incumbents:
    """Reads a study, which may still be running."""
    epochs: dict[str, int] = {}  # final epoch of each trial, by uid
    records = []
    for record in ledger.finished(spec.study):
        epochs[record.trial.uid] = record.trial.epochs
        if record.trial.role is Role.TRIAL and record.result and record.result.outcome is not Outcome.INFEASIBLE:
            records.append(record)
    records.sort(key=attrgetter("told_at"))
    return Incumbents(
        spec,
        np.array([record.trial.number for record in records], np.int64),
        np.cumsum([record.reserved_time_s + record.reused_time_s for record in records], dtype=float),
        np.cumsum([_num_epochs(record, epochs) for record in records], dtype=float) / spec.epochs,
        np.fromiter(_best_pct(spec, records), float),
        frozenset(r.result.device.timing_class for r in records if r.result and r.result.device),
        sum(bool(record.result and record.result.reused_from) for record in records),
        sum(record.reused_time_s for record in records),
    )


def _best_pct(spec: SweepSpec, records: Sequence[Record]) -> Iterator[float]:
    """The best error after each of these trials."""
    configurations = Configurations(spec)
    for record in records:
        configurations.add(record)
        yield configurations.best.mean_error_pct if configurations.best else inf


def _num_epochs(record: Record, epochs: dict[str, int]) -> int:
    """Number of the trial's own epochs, without those of the trial that it continues."""
    last = record.result.last if record.result else None
    before = epochs.get(record.trial.continues, 0) if record.trial.continues else 0
    return max(0, last.epoch - before) if last else 0
