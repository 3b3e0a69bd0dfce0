"""Compares a repeated training of a trial with its record: numbers and conditions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from harness.study.metrics import EPOCH_METRICS, EpochMetric, unless_trained_on
from harness.study.noise import resolution_pct
from harness.study.records import Device, EpochReport, TrialResult
from harness.study.spec import SweepSpec
from harness.support.intervals import error_rate_interval_pct
from harness.support.provenance import PACKAGES, diff_file

# Numbers of an epoch that are compared: what the network learned, and on how many images. Not the training error, which
# earlier versions and PyTorch do not have; it follows the loss.
_COMPARED = ("train_loss", "val_loss", "val_error_rate_pct", "val_images")
_CURVE = [metric for metric in EPOCH_METRICS if metric.name in _COMPARED]
_OF_VALIDATION = {metric.name for metric in EPOCH_METRICS if metric.of_validation} | {"error %", "wrong images"}
_DEVICE = ("name", "kind", "backend", "precision", "engine", "threads")
_HARMLESS = ("host", "keras-tuner", "optuna", "mlflow", "pandas")  # they do not affect the numbers of a training


class Match(StrEnum):
    """How well two trainings agree."""

    IDENTICAL = "identical"
    WITHIN = "within the seeds' interval"
    DIFFERENT = "different"


@dataclass(frozen=True)
class Condition:
    """A condition that differs between both trainings.

    Attributes:
        what: Its name.
        recorded: Its value in the ledger.
        now: Its present value.
        may_matter: Whether it may affect a training's numbers.
    """

    what: str
    recorded: str
    now: str
    may_matter: bool = True


@dataclass(frozen=True)
class Deviation:
    """A number that differs.

    Attributes:
        epoch: Its epoch; None for a number of the trained model.
        what: Its name.
        recorded, now: Both values; None if the study trains on the images that they were measured on.
    """

    epoch: int | None
    what: str
    recorded: str | None
    now: str | None


@dataclass(frozen=True)
class Interval:
    """The range of error rates that agree, in percent, ends included; `basis` is the data behind it."""

    low_pct: float
    high_pct: float
    basis: str

    def holds(self, error_rate_pct: float) -> bool:
        return self.low_pct <= error_rate_pct <= self.high_pct


@dataclass(frozen=True)
class Agreement:
    """The comparison of a training with its record.

    Attributes:
        match: How well they agree.
        num_epochs: Number of compared epochs, from the first on.
        num_numbers: Number of compared numbers.
        deviations: The numbers that differ, in the order of training.
        recorded_pct, now_pct: Validation errors after the last epoch; None if there is none or it must not be shown.
        interval: The allowed range of `now_pct` if identical numbers cannot be expected; None if the error is None.
        conditions: The conditions that differ.
        must_be_identical: Whether identical numbers are expected.
    """

    match: Match
    num_epochs: int
    num_numbers: int
    deviations: tuple[Deviation, ...]
    recorded_pct: float | None
    now_pct: float | None
    interval: Interval | None
    conditions: tuple[Condition, ...]
    must_be_identical: bool


def judge(
    spec: SweepSpec,
    recorded: TrialResult,
    now: TrialResult,
    interval: Interval | None,
    conditions: Sequence[Condition],
) -> Agreement:
    """Compares all numbers except times.

    On a CPU, if no condition that may matter has changed, only identical numbers are a match: docs/reproduce.md has the
    measurements behind that. Otherwise an error within `interval` is a match.

    Args:
        spec: The trial's study.
        recorded: The recorded result, with the curve from the first epoch on, also of a continued trial.
        now: The result of the repeated training for as many epochs.
        interval: The range of errors that agree.
        conditions: The conditions that differ.
    """
    epochs = sorted({report.epoch for report in (*recorded.curve, *now.curve)})
    deviations = (*_curve_deviations(recorded.curve, now.curve), *_end_deviations(recorded, now))
    on_cpu = all(result.device is None or result.device.kind == "cpu" for result in (recorded, now))
    must_be_identical = on_cpu and not any(condition.may_matter for condition in conditions)
    now_pct = now.val_error_rate_pct
    is_within = interval is not None and now_pct is not None and interval.holds(now_pct)
    ended_alike = not any(deviation.what in ("outcome", "epoch") for deviation in deviations)
    match = Match.WITHIN if is_within and ended_alike and not must_be_identical else Match.DIFFERENT
    return Agreement(
        match=match if deviations else Match.IDENTICAL,
        num_epochs=len(epochs),
        num_numbers=_num_numbers(recorded.curve, now.curve) + len(_ends(recorded, now)),
        deviations=tuple(_without_hidden(spec, deviation) for deviation in deviations),
        recorded_pct=unless_trained_on(spec, recorded.val_error_rate_pct),
        now_pct=unless_trained_on(spec, now_pct),
        interval=unless_trained_on(spec, interval),
        conditions=tuple(conditions),
        must_be_identical=must_be_identical,
    )


def seeds_interval(recorded: TrialResult, seeds: Sequence[TrialResult]) -> Interval | None:
    """The range of errors of the same configuration due to chance; None if `recorded` has no error.

    With two or more `seeds` of one configuration, trained and evaluated like the trial, its half-width is the
    difference of two trainings by chance; `resolution_pct` has the formula. Otherwise it is the difference of two equal
    error rates on independent samples of the same number of images: sqrt((p - l)^2 + (u - p)^2) with Wilson's limits l
    and u of the recorded error p, the hybrid score interval of a difference; method 10 of R. G. Newcombe, Statistics in
    Medicine 17 (1998) 873-890.
    """
    error_pct, num_images = recorded.val_error_rate_pct, recorded.val_images
    if error_pct is None or num_images is None:
        return None
    alike = [seed for seed in seeds if seed.val_images == num_images]
    errors = [seed.error_rate_pct for seed in alike if seed.error_rate_pct is not None]
    wrong = [seed.wrong_images for seed in alike if seed.wrong_images is not None]
    resolution = resolution_pct([errors], [wrong], num_images)
    if resolution is None:
        low_pct, high_pct = error_rate_interval_pct(error_pct, num_images)
        points, basis = math.hypot(error_pct - low_pct, high_pct - error_pct), "two equal error rates"
    else:
        points, basis = resolution.points, f"{len(errors)} seeds of the baseline"
    basis += f", {num_images:,} validation images"
    return Interval(max(0.0, error_pct - points), min(100.0, error_pct + points), basis)


def changed_origin(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Condition]:
    """Differing code, versions and machine; both arguments are of `session_provenance`."""
    for name, words in {"git_commit": "code", "git_diff": "uncommitted changes"}.items():
        before, after = recorded.get(name), now.get(name)
        if name == "git_diff":
            before, after = _changes(recorded), _changes(now)
        if before != after:
            yield Condition(words, _shown(before), _shown(after))
    for name, words in {"code_digest": "code that trains", "keras_settings": "Keras's settings"}.items():
        if name in recorded and recorded[name] != now.get(name):  # earlier versions recorded neither
            yield Condition(words, _shown(recorded[name]), _shown(now.get(name)))
    for name in ("data_digest", "python", *PACKAGES, "platform", "host"):
        if recorded.get(name) != now.get(name):
            yield Condition(name, _shown(recorded.get(name)), _shown(now.get(name)), name not in _HARMLESS)


def changed_device(recorded: Device | None, now: Device | None) -> Iterator[Condition]:
    """Differing properties of the devices."""
    for name in _DEVICE:
        before, after = getattr(recorded, name, None), getattr(now, name, None)
        if before != after:
            yield Condition(f"device {name}", _shown(before), _shown(after))


def _changes(origin: Mapping[str, Any]) -> str | None:
    """An identifier of uncommitted changes."""
    if origin.get("git_diff"):
        return diff_file(str(origin["git_diff"]))
    return "there were some, not kept" if origin.get("git_dirty") else None


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def _without_hidden(spec: SweepSpec, deviation: Deviation) -> Deviation:
    if deviation.what not in _OF_VALIDATION:
        return deviation
    recorded, now = (unless_trained_on(spec, text) for text in (deviation.recorded, deviation.now))
    return replace(deviation, recorded=recorded, now=now)


def _curve_deviations(recorded: Sequence[EpochReport], now: Sequence[EpochReport]) -> Iterator[Deviation]:
    before, after = ({report.epoch: report for report in curve} for curve in (recorded, now))
    for epoch in sorted({*before, *after}):
        if epoch not in before or epoch not in after:
            is_there, is_missing = "trained", "not trained"
            pair = (is_there, is_missing) if epoch in before else (is_missing, is_there)
            yield Deviation(epoch, "epoch", *pair)
            continue
        for metric in _comparable(before[epoch], after[epoch]):
            old, new = metric.read(before[epoch]), metric.read(after[epoch])
            if old != new:
                yield Deviation(epoch, metric.name, *_number_texts(old, new))


def _comparable(recorded: EpochReport, now: EpochReport) -> list[EpochMetric]:
    """The numbers of an epoch that are measured on as many images in both trainings.

    The last epoch of a rung is measured on all validation images, but not when the trial is trained in one go.
    """
    return [metric for metric in _CURVE if not metric.of_validation or recorded.val_images == now.val_images]


def _num_numbers(recorded: Sequence[EpochReport], now: Sequence[EpochReport]) -> int:
    """Number of compared numbers of all epochs; an epoch of one training alone has as many as any."""
    before, after = ({report.epoch: report for report in curve} for curve in (recorded, now))
    common = before.keys() & after.keys()
    alone = (before.keys() | after.keys()) - common
    return sum(len(_comparable(before[epoch], after[epoch])) for epoch in common) + len(alone) * len(_CURVE)


def _end_deviations(recorded: TrialResult, now: TrialResult) -> Iterator[Deviation]:
    for name, (before, after) in _ends(recorded, now).items():
        if before == after:
            continue
        if name == "wrong images":
            only_before, only_after = len(set(before) - set(after or ())), len(set(after or ()) - set(before))
            yield Deviation(None, name, f"{only_before} of them only then", f"{only_after} only now")
        else:
            yield Deviation(None, name, _shown(before), _shown(after))


def _ends(recorded: TrialResult, now: TrialResult) -> dict[str, tuple[Any, Any]]:
    """The compared properties of the trained model, as (recorded, now)."""
    names = {"num_params": "parameters", "error_rate_pct": "error %", "wrong_images": "wrong images"}
    pairs = {words: (getattr(recorded, name), getattr(now, name)) for name, words in names.items()}
    ends = {words: pair for words, pair in pairs.items() if pair[0] is not None}  # None if the worker died
    return ends | ({"outcome": (recorded.outcome, now.outcome)} if recorded.outcome.was_trained else {})


def _number_texts(recorded: float | None, now: float | None) -> tuple[str, str]:
    """Both numbers with enough digits to show their difference, and the difference."""
    if recorded is None or now is None:
        return _shown(recorded), _shown(now)
    apart = abs(now - recorded)
    digits = min(17, max(4, 2 + math.ceil(math.log10(max(abs(recorded), abs(now)) / apart))))
    return f"{recorded:.{digits}g}", f"{now:.{digits}g}, {apart:.2g} apart"
