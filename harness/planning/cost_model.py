"""Predicts the time of a trial on a device, from its configuration and from the times of other trials.

The model of training and validation is

    seconds = pace x (a x operations + b x updates + c x activations + d x steps),    a, b, c, d >= 0,

so more images or a larger network never take less time. a to d are fitted to the trials of one timing class by
non-negative least squares on relative errors. A ridge penalty draws them towards an estimate without trials while
trials are few. The pace is that of the newest trials, because other work on the machine changes it within minutes. The
rest of a trial (building, compiling, hand-over) is the median. docs/design.md has the errors of this form and of
others.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from harness.study.records import Device, EpochReport, Outcome, Params, Record, Trial
from harness.study.spec import SweepSpec

Floats = NDArray[np.float64]

# The cost of a parameter update, and of an activation with its gradient, in floating point operations; and the speed of
# training relative to a plain matrix product, between an idle and a busy machine.
UPDATE_FLOPS, ACTIVATION_FLOPS, CPU_EFFICIENCY = 500.0, 400.0, 0.8
REST_S = 3.0  # building and compiling of a trial
PRIOR_ERROR = 0.5  # of the estimate without trials: natural logarithm, a factor of 1.65

NUM_KNOWN = 200  # newest trials used for the fit
NUM_RECENT = 20  # newest trials for the timing class, the rest and the error
PACE_HALF_LIFE = 3.0  # trials
RIDGE = 1.0  # weight of the estimate in the fit, as a number of trials


@dataclass(frozen=True)
class Measured:
    """The time of a trial that ran.

    Attributes:
        device: Its device.
        work: From `count_work`.
        busy_s: Seconds of training and validating.
        rest_s: Other seconds that the trial held a worker.
    """

    device: Device
    work: Floats
    busy_s: float
    rest_s: float


def count_work(spec: SweepSpec, params: Params, epochs: int, *, is_to_the_end: bool = True) -> Floats:
    """(operations, updates, activations, steps) of training a configuration for `epochs` and validating it.

    A forward pass costs a third of an image's training. Only the last epoch is evaluated on the whole validation split.
    """
    cost = spec.cost(params)
    batch_size = max(1, spec.trial_recipe(params).batch_size)  # studies of earlier versions may have 0
    num_steps = epochs * (spec.train_images // batch_size)
    num_validated = epochs * spec.validation_images
    if is_to_the_end:
        num_validated += spec.sizes["validation"] - spec.validation_images
    num_images = epochs * spec.train_images + num_validated / 3
    operations, activations = 3 * cost.flops_per_image * num_images, cost.activations_per_image * num_images
    return np.array([operations, cost.num_params * num_steps, activations, num_steps], float)


def measured(spec: SweepSpec, record: Record) -> Measured | None:
    """The measured time of a trial; None if it has none of its own."""
    result = record.result
    if result is None or result.reused_from:  # the time is known from the trial that was trained
        return None
    if result.device is None or not result.outcome.was_trained or not result.curve:
        return None
    seconds, is_to_the_end = result.seconds, result.outcome is Outcome.COMPLETED
    work = count_work(spec, record.trial.params, len(result.curve), is_to_the_end=is_to_the_end)
    busy_s, rest_s = seconds.train + seconds.evaluate, seconds.build + seconds.compile
    if record.attempts <= 1:  # otherwise the time includes earlier attempts
        rest_s = max(rest_s, record.reserved_time_s - busy_s)
    return Measured(result.device, work, busy_s, rest_s) if busy_s > 0 else None


def cpu_estimate(flops_per_s: float) -> Floats:
    """Seconds per unit of each kind of work, from the speed of a worker's share of the machine."""
    return np.array([1.0, UPDATE_FLOPS, ACTIVATION_FLOPS, 0.0]) / (CPU_EFFICIENCY * flops_per_s)


def gpu_estimate(step_s: float) -> Floats:
    """Seconds per unit of each kind of work on a GPU, from the seconds of a training step."""
    return np.array([0.0, 0.0, 0.0, step_s])


class CostModel:
    """Predicts the times of one study's trials on its device.

    Args:
        spec: The study.
        estimate: Seconds per unit of each kind of work, before any trial is known.
        known: Trials that ran on devices like this session's, oldest first; one timing class of them is used.
        typical: Configurations like those of the search; empty: the documented one.
    """

    def __init__(
        self, spec: SweepSpec, estimate: Floats, known: Iterable[Measured] = (), typical: Sequence[Params] = ()
    ) -> None:
        self._spec, self._estimate = spec, estimate
        self._known = deque(known, maxlen=NUM_KNOWN)
        self._typical = np.array(
            [count_work(spec, params, spec.epochs) for params in typical or [spec.baseline_params]]
        )
        self._fit()

    def learn(self, record: Record) -> None:
        """Adds a trial of the study that has just ended."""
        new = measured(self._spec, record)
        if new is not None:
            self._known.append(new)
            self._fit()

    @property
    def num_known(self) -> int:
        """Number of trials used for the predictions."""
        return len(self._used)

    @property
    def error(self) -> float:
        """The error of predictions of single trials: standard deviation of the natural logarithm of the ratio."""
        # The estimate's error counts as that of two trials.
        return math.sqrt((2 * PRIOR_ERROR**2 + sum(self._residuals**2)) / (2 + len(self._residuals)))

    def busy_s(self, work: Floats) -> Floats:
        """Predicted seconds of training and validating; `work` has shape (..., 4)."""
        return work @ self._unit_s

    def held_s(self, work: Floats) -> Floats:
        """Predicted seconds that a trial holds a worker; `work` has shape (..., 4)."""
        return work @ self._unit_s + self._rest_s

    def typical_s(self) -> Floats:
        """Predicted seconds that configurations like those of the search hold a worker."""
        return self.held_s(self._typical)

    def left_s(self, trial: Trial, reports: Sequence[EpochReport]) -> float:
        """Remaining seconds of a running trial, at the pace of the epochs that this attempt has reported."""
        done = count_work(self._spec, trial.params, len(reports), is_to_the_end=False)
        so_far_s = sum(report.seconds.train + report.seconds.evaluate for report in reports)
        return so_far_s * float(self.busy_s(self.work(trial, reports[-1].epoch)) / self.busy_s(done))

    def work(self, trial: Trial, epochs_done: int = 0) -> Floats:
        """The remaining work of a trial after `epochs_done` epochs of the schedule."""
        return count_work(self._spec, trial.params, max(1, trial.epochs - epochs_done))

    def _fit(self) -> None:
        newest = [one.device.timing_class for one in reversed(self._known)][:NUM_RECENT]
        # A study may have two timing classes, if the framework cannot compile some layers.
        timing_class, _ = Counter(newest).most_common(1)[0] if newest else (None, 0)
        self._used = [one for one in self._known if one.device.timing_class == timing_class]
        self._unit_s, self._residuals, self._rest_s = self._estimate, np.empty(0), REST_S
        if self._used:
            work = np.array([one.work for one in self._used])
            seconds = np.array([one.busy_s for one in self._used])
            self._unit_s = _at_recent_pace(work, seconds, _unit_seconds(work, seconds, self._estimate))
            self._residuals = np.log(seconds / (work @ self._unit_s))[-NUM_RECENT:]
            self._rest_s = float(np.median([one.rest_s for one in self._used[-NUM_RECENT:]]))


def _unit_seconds(work: Floats, seconds: Floats, estimate: Floats) -> Floats:
    """The coefficients, shape (4,), all >= 0; `work` has shape (n, 4), `seconds` (n,)."""
    scaled = estimate * math.exp(np.mean(np.log(seconds / (work @ estimate))))
    # A coefficient is weighted by its share of the time, so that the penalty has no unit.
    penalty = math.sqrt(RIDGE) * np.diag(np.median(work, axis=0) / np.median(seconds))
    rows = np.vstack([work / seconds[:, None], penalty])
    return non_negative_least_squares(rows, np.concatenate([np.ones(len(seconds)), penalty @ scaled]))


def _at_recent_pace(work: Floats, seconds: Floats, unit_s: Floats) -> Floats:
    age = np.arange(len(seconds))[::-1]
    return unit_s * math.exp(np.average(np.log(seconds / (work @ unit_s)), weights=0.5 ** (age / PACE_HALF_LIFE)))


def non_negative_least_squares(rows: Floats, values: Floats) -> Floats:
    """The x >= 0 that minimises |rows x - values|, exactly, for few columns.

    It is the ordinary solution for some set of columns, so all sets are tried (scipy takes half a second to import).
    """
    num_columns = rows.shape[1]
    sets = chain.from_iterable(combinations(range(num_columns), size) for size in range(num_columns + 1))
    solutions = [_solution(rows, values, list(columns)) for columns in sets]
    return min((x for x in solutions if (x >= 0).all()), key=lambda x: float(np.linalg.norm(rows @ x - values)))


def _solution(rows: Floats, values: Floats, columns: list[int]) -> Floats:
    x = np.zeros(rows.shape[1])
    x[columns] = np.linalg.lstsq(rows[:, columns], values, rcond=None)[0]
    return x
