"""The comparison of a repeated training with its record, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from harness.analysis.reproduction.agreement import Agreement, Match
from harness.study.formatting import counted


def sentences(agreement: Agreement) -> list[str]:
    """The answer, then the first difference in the numbers, then all differing conditions."""
    return [_answer(agreement), *_numbers(agreement), *_conditions(agreement)]


def _answer(agreement: Agreement) -> str:
    said = f"{agreement.match.upper()}: "
    if agreement.match is Match.IDENTICAL:
        numbers = f"all {agreement.num_numbers} numbers of {_epochs(agreement)} and of the trained model"
        error = "" if agreement.now_pct is None else f"; {_percent(agreement.now_pct)}"
        return f"{said}{numbers} are as recorded, bit for bit{error}"
    if agreement.recorded_pct is None:
        said += "it was trained on the validation images, so its error on them is not shown"
    else:
        said += f"{_percent(agreement.now_pct)} now, {_percent(agreement.recorded_pct)} recorded"
    interval = agreement.interval
    if agreement.must_be_identical:
        said += "; nothing is known to have changed, so the numbers should be the same"
    elif interval is not None:
        said += f"; allowed: {interval.low_pct:.2f} to {interval.high_pct:.2f} % ({interval.basis})"
    return said


def _numbers(agreement: Agreement) -> Iterator[str]:
    if not agreement.deviations:
        return
    first = agreement.deviations[0]
    where = f"in epoch {first.epoch}" if first.epoch is not None else f"after {_epochs(agreement)} that are the same"
    count = f"{len(agreement.deviations)} of {agreement.num_numbers} numbers differ"
    values = "" if first.recorded is None else f" is {first.recorded} recorded, {first.now} now"
    yield f"{count}, first {where}: {first.what}{values}"


def _conditions(agreement: Agreement) -> Iterator[str]:
    if not agreement.conditions:
        yield "code, versions, machine and data are the same"
        return
    yield "these conditions differ:"
    width = max(len(condition.what) for condition in agreement.conditions)
    for condition in agreement.conditions:
        harmless = "" if condition.may_matter else " (no number depends on it)"
        yield f"  {condition.what:<{width}}  {condition.recorded} -> {condition.now}{harmless}"


def _epochs(agreement: Agreement) -> str:
    return counted(agreement.num_epochs, "epoch")


def _percent(error_pct: float | None) -> str:
    return "no error rate" if error_pct is None else f"{error_pct:.2f} %"
