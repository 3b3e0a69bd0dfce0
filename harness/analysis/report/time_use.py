"""The use of device time, and the timeline of the workers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum

from harness.analysis.report.facts import Facts, TrialAttempt
from harness.study.records import Outcome, Record

NO_WORKER = "none"  # of an infeasible configuration
MAX_STRETCHES = 1_500  # of one figure
MIN_GAP_SHARE = 0.02  # of the time with trials; shorter pauses are not cut


@dataclass(frozen=True)
class TimeUse:
    """Seconds by use.

    Attributes:
        completed: Of trials that were trained in full: training, evaluation, and so on.
        pruned: The same, of trials that were stopped early.
        lost_s: Device time of attempts without a result: failed, timed out, lost with their worker.
        search_s: Time of the search; devices do not wait for it while other trials run.
        reused_s: Time of the trainings whose results were taken over; no device was held for it.
    """

    completed: dict[str, float]
    pruned: dict[str, float]
    lost_s: float
    search_s: float
    reused_s: float = 0.0

    @property
    def device_s(self) -> float:
        """Total seconds for which devices were held."""
        return fsum([*self.completed.values(), *self.pruned.values(), self.lost_s])

    @property
    def training_share(self) -> float:
        """Share of training in `device_s`."""
        training_s = self.completed["training"] + self.pruned["training"]
        return training_s / self.device_s if training_s else 0.0


def time_use(facts: Facts) -> TimeUse:
    """The use of all attempts so far; the rest of an attempt's time is "waiting and hand-over"."""
    held_s = {attempt.trial: attempt.held_s for attempt in facts.attempts if attempt.is_final}
    trained = [record for record in facts.ended if record.result and not record.result.reused_from]
    kept = [record for record in trained if _outcome(record) in (Outcome.COMPLETED, Outcome.PRUNED)]
    numbers = {record.trial.number for record in kept}
    given = (one for one in facts.attempts if one.worker != NO_WORKER)
    lost = (one.held_s for one in given if not (one.is_final and one.trial in numbers))
    return TimeUse(
        completed=_parts([record for record in kept if _outcome(record) is Outcome.COMPLETED], held_s),
        pruned=_parts([record for record in kept if _outcome(record) is Outcome.PRUNED], held_s),
        lost_s=fsum(lost),
        search_s=fsum(record.search_time_s for record in facts.records),
        reused_s=fsum(record.reused_time_s for record in facts.records),
    )


def _parts(records: Sequence[Record], held_s: dict[int, float]) -> dict[str, float]:
    seconds = [record.result.seconds for record in records if record.result]
    parts = {
        "training": fsum(one.train for one in seconds),
        "evaluation": fsum(one.evaluate for one in seconds),
        "compiling": fsum(one.compile for one in seconds),
        "building": fsum(one.build for one in seconds),
    }
    held = fsum(held_s.get(record.trial.number, 0.0) for record in records)
    return {**parts, "waiting and hand-over": max(0.0, held - fsum(parts.values()))}


def _outcome(record: Record) -> Outcome | None:
    return record.result.outcome if record.result else None


@dataclass(frozen=True)
class Stretch:
    """An attempt on the time axis, from which the time without any attempt is cut.

    Attributes:
        attempt: Which.
        start_s: Seconds since the study's first attempt.
    """

    attempt: TrialAttempt
    start_s: float


@dataclass(frozen=True)
class Timeline:
    """The attempts of all workers over time.

    Attributes:
        stretches: Attempts in the order of their starts.
        cuts_s: Positions where time without any attempt was cut out.
        cut_s: Total time that was cut out.
        num_short: Number of attempts that are left out, since they are too short to be visible.
    """

    stretches: list[Stretch]
    cuts_s: list[float]
    cut_s: float
    num_short: int = 0


def timeline(attempts: Iterable[TrialAttempt]) -> Timeline:
    """Attempts that held a device, long pauses between them cut out."""
    held = sorted(
        (one for one in attempts if one.worker != NO_WORKER and one.held_s > 0), key=lambda one: one.started_at_s
    )
    pauses = _pauses(held)
    longest = MIN_GAP_SHARE * (held[-1].started_at_s - held[0].started_at_s - fsum(pauses)) if held else 0.0
    stretches: list[Stretch] = []
    cuts_s: list[float] = []
    cut_s = 0.0
    for attempt, pause_s in zip(held, pauses, strict=True):
        if pause_s > longest:
            cut_s += pause_s
            cuts_s.append(attempt.started_at_s - held[0].started_at_s - cut_s)
        stretches.append(Stretch(attempt, attempt.started_at_s - held[0].started_at_s - cut_s))
    shown = sorted(stretches, key=lambda one: -one.attempt.held_s)[:MAX_STRETCHES]
    shown.sort(key=lambda one: one.start_s)
    return Timeline(shown, cuts_s, cut_s, len(stretches) - len(shown))


def _pauses(held: Sequence[TrialAttempt]) -> list[float]:
    """Seconds without any attempt before each attempt, possibly 0."""
    pauses, busy_until = [], held[0].started_at_s if held else 0.0
    for attempt in held:
        pauses.append(max(0.0, attempt.started_at_s - busy_until))
        busy_until = max(busy_until, attempt.ended_at_s)
    return pauses
