"""Checks the ledger for consistency: invariants of a study's rows, which hold after any kill of its processes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterator
from itertools import islice

from harness.audit.difference import Advice, Difference
from harness.audit.rows import AttemptRow, StudyRows, TrialRow
from harness.ledger.ledger import Ledger
from harness.study.records import Outcome, Role, TrialResult
from harness.study.spec import SweepSpec

MAX_SHOWN = 10  # of numbers that are missing
_CLOCK_S = 1.0  # tolerance for the clocks of coordinator and worker, and for rounding


def recount(rows: StudyRows) -> Iterator[Difference]:
    """All contradictions between the rows."""
    for problem in (*_numbers(rows), *_events(rows)):
        yield _contradiction(problem)
    for row in rows.trials:
        for attempt in row.attempts:
            if attempt.outcome is None:
                which = f"ledger: trial {row.trial.number}: attempt {attempt.attempt}"
                yield Difference(f"{which}: has no outcome, though no process works on the study", Advice.START)
        for problem in _trial_problems(row, rows):
            yield _contradiction(f"trial {row.trial.number}: {problem}")


def _contradiction(problem: str) -> Difference:
    return Difference(f"ledger: {problem}", Advice.COPY_OR_FRESH)


def total_differences(rows: StudyRows, ledger: Ledger) -> Iterator[Difference]:
    """Compares the ledger's sums for budgets and tables with sums of the rows, which can all be read."""
    used = ledger.usage(rows.study)
    attempts = [attempt for row in rows.trials for attempt in row.attempts]
    ended = [(row.trial.role, final.outcome) for row in rows.trials for final in row.finals]
    pairs = {
        "trials used": (used.trials, sum(r is not Role.BASELINE and o is not Outcome.INFEASIBLE for r, o in ended)),
        "wall time used": (used.wall_s, math.fsum(rows.sessions_s.values())),
        "device time used": (used.device_s, math.fsum(attempt.reserved_time_s for attempt in attempts)),
        "trials pending": (ledger.num_pending(rows.study), sum(not row.finals for row in rows.trials)),
        "test reads": (ledger.num_test_reads(rows.study), sum(a.test_wrong_images is not None for a in attempts)),
    }
    device_times_s = _device_times_s(rows)
    pairs |= {
        f"device time of trial {record.trial.number}": (record.device_time_s, device_times_s[record.trial.uid])
        for record in ledger.finished(rows.study)
    }
    for what, (stated, counted) in pairs.items():
        if not math.isclose(stated, counted, rel_tol=1e-9, abs_tol=1e-6):
            yield _contradiction(f"{what}: stated as {stated}, recounted as {counted}")


def _device_times_s(rows: StudyRows) -> dict[str, float]:
    """Training seconds of each trial's network, by uid, including the trials that it continues."""
    own_s = {
        row.trial.uid: math.fsum(final.result.seconds.train for final in row.finals if final.result)
        for row in rows.trials
    }
    times_s: dict[str, float] = {}
    for row in sorted(rows.trials, key=lambda row: row.asked_at):  # a continued trial was proposed earlier
        uid, before = row.trial.uid, row.trial.continues or ""
        times_s[uid] = own_s[uid] + times_s.get(before, own_s.get(before, 0.0))
    return times_s


def _numbers(rows: StudyRows) -> Iterator[str]:
    numbers = Counter(row.trial.number for row in rows.trials)
    missing = _absent(range(max(numbers, default=-1) + 1), numbers)
    if missing and not rows.unreadable:
        yield f"trial {missing}: not there, though later ones are"
    for number in (number for number, times in numbers.items() if times > 1):
        yield f"trial {number}: is there {numbers[number]} times"


def _events(rows: StudyRows) -> Iterator[str]:
    asked = [(row.asked_at, f"trial {row.trial.number} asked") for row in rows.trials]
    told = [
        (final.told_at, f"trial {row.trial.number} told")
        for row in rows.trials
        for final in row.finals
        if final.told_at is not None
    ]
    times = Counter(event for event, _ in asked + told)
    for event, what in asked + told:
        if not 1 <= event <= rows.num_events:
            yield f"{what} at event {event}; the study has 1 to {rows.num_events}"
        elif times[event] > 1:
            yield f"{what} at event {event}, as something else was"
    unused = _absent(range(1, rows.num_events + 1), times)
    if unused and not rows.unreadable:
        yield f"event {unused}: nothing happened there"


def _absent(expected: range, there: Container[int]) -> str:
    """The first of the expected numbers that are not there; a cell may state any number, so not all are looked for."""
    first = list(islice((number for number in expected if number not in there), MAX_SHOWN + 1))
    return ", ".join(map(str, first[:MAX_SHOWN])) + (" and more" if len(first) > MAX_SHOWN else "")


def _trial_problems(row: TrialRow, rows: StudyRows) -> Iterator[str]:
    yield from _attempts(row)
    before = rows.find(row.trial.continues) if row.trial.continues else None
    first_epoch = before.trial.epochs + 1 if before else 1
    for attempt in row.attempts:
        for problem in _attempt_problems(attempt, first_epoch):
            yield f"attempt {attempt.attempt}: {problem}"
        if attempt.session is not None and attempt.session not in rows.sessions_s:
            yield f"attempt {attempt.attempt}: ran in session {attempt.session}, which is none of this study's"
    if len(row.finals) == 1:
        yield from _end(row, row.finals[0], first_epoch)
    if before is not None:
        yield from _continued(row, before)
    elif row.trial.continues is not None and not rows.unreadable:
        yield f"continues {row.trial.continues}, which is no trial of this study"
    if rows.spec is not None:
        yield from _asked(row, rows.spec)
        yield from _looked_at(row, rows.spec)


def _attempts(row: TrialRow) -> Iterator[str]:
    numbers = [attempt.attempt for attempt in row.attempts]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"attempts are {', '.join(map(str, numbers))}; must count from 1"
    if len(row.finals) > 1:
        yield f"has {len(row.finals)} final results; must have one at most"
    elif row.finals and row.finals[0].attempt != numbers[-1]:
        yield f"attempt {numbers[-1]} began though attempt {row.finals[0].attempt} had ended the trial"
    if row.finals and row.finals[-1].told_at is not None and row.finals[-1].told_at <= row.asked_at:
        yield f"told at event {row.finals[-1].told_at}, before it was asked for at event {row.asked_at}"


def _attempt_problems(attempt: AttemptRow, first_epoch: int) -> Iterator[str]:
    outcome = attempt.outcome
    if attempt.told_at is None and outcome is not None and not outcome.may_retry:
        yield f"ended as {outcome} and is not the trial's final result"
    elif attempt.told_at is not None and outcome is Outcome.CANCELLED:
        yield "is the trial's final result though it was cancelled"
    if attempt.num_epochs != len(attempt.reports):
        yield f"has {len(attempt.reports)} epochs; {attempt.num_epochs} were written"
    if attempt.result is not None:
        yield from _result_problems(attempt, attempt.result)
    epochs = list(attempt.reports)
    if epochs != list(range(first_epoch, first_epoch + len(epochs))):
        yield f"epochs are {', '.join(map(str, epochs))}; must count from {first_epoch}"


def _result_problems(attempt: AttemptRow, result: TrialResult) -> Iterator[str]:
    if result.reused_from is None and result.seconds.wall > attempt.reserved_time_s + _CLOCK_S:
        yield f"took {result.seconds.wall:.3f} s of the {attempt.reserved_time_s:.3f} s that its device was held"
    if result.outcome.was_trained and attempt.reports:
        train_s = math.fsum(report.seconds.train for report in attempt.reports.values())
        if not math.isclose(result.seconds.train, train_s, abs_tol=1e-3):
            yield f"trained for {result.seconds.train} s, its epochs for {train_s:.6g} s"
    wrong, num_images = attempt.wrong_images, result.val_images
    if result.error_rate_pct is not None and wrong is not None and num_images is not None:
        recounted = 100 * len(wrong) / num_images
        if not math.isclose(result.error_rate_pct, recounted, abs_tol=1e-9):
            yield f"error is {result.error_rate_pct} %, its wrong images make {recounted} %"


def _continued(row: TrialRow, before: TrialRow) -> Iterator[str]:
    which = f"continues trial {before.trial.number}"
    if dict(before.trial.params) != dict(row.trial.params):
        yield f"{which}, which has other params"
    if before.trial.epochs >= row.trial.epochs:
        yield f"{which} up to epoch {row.trial.epochs}, which that one had reached"
    if not any((final.told_at or 0) < row.asked_at for final in before.finals):
        yield f"{which}, which had not ended when this one was asked for"


def _end(row: TrialRow, final: AttemptRow, first_epoch: int) -> Iterator[str]:
    """Checks that the outcome agrees with the epochs."""
    last = max(final.reports, default=first_epoch - 1)
    if last > row.trial.epochs:
        yield f"has epoch {last} of {row.trial.epochs}"
    if final.outcome is Outcome.COMPLETED and last < row.trial.epochs:
        yield f"completed with epoch {last} of {row.trial.epochs}"
    if final.outcome is Outcome.PRUNED and not first_epoch <= last < row.trial.epochs:
        yield f"pruned after epoch {last} of {row.trial.epochs}"
    if final.outcome is Outcome.INFEASIBLE and final.reports:
        yield "infeasible, and has epochs"


def _asked(row: TrialRow, spec: SweepSpec) -> Iterator[str]:
    """Checks that the study could have proposed this trial."""
    trial = row.trial
    if not 1 <= trial.epochs <= spec.epochs:
        yield f"is to train for {trial.epochs} epochs; the study's trials train for 1 to {spec.epochs}"
    if trial.role is Role.BASELINE and dict(trial.params) != dict(spec.baseline_params):
        yield "role is baseline, and its params are not the documented ones"
    active = [name for name in spec.search_space if spec.search_space.is_active(name, trial.params)]
    if set(trial.params) != set(active):
        yield f"params set {', '.join(trial.params) or 'nothing'}; must set {', '.join(active) or 'nothing'}"


def _looked_at(row: TrialRow, spec: SweepSpec) -> Iterator[str]:
    """Checks the images that it was evaluated on."""
    sizes = spec.sizes
    for attempt in row.attempts:
        if attempt.test_wrong_images is not None and not spec.reads_test:
            yield f"attempt {attempt.attempt}: read the test images, which are sealed in a sweep"
        for split, images in (("validation", attempt.wrong_images), ("test", attempt.test_wrong_images)):
            if images and max(images) >= sizes[split]:
                yield f"attempt {attempt.attempt}: got image {max(images)} of {sizes[split]} {split} images wrong"
            if images and len(set(images)) < len(images):
                yield f"attempt {attempt.attempt}: got one of the {split} images wrong twice"
