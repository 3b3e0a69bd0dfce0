"""A study without training: the loop of a sweep with one worker around a function of the hyperparameters."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence

from filled_ledger import make_spec

from harness.search.base import NoProposal
from harness.search.encoding import encode
from harness.search.factory import make_search
from harness.search.proposer import Next, Proposer
from harness.study.records import EpochReport, Outcome, Record, Role, Scalar, Seconds, Trial, TrialResult
from harness.study.settings import Budget
from harness.study.space import Choice, Domain
from harness.study.spec import SweepSpec

# Documented: units_1 512, units_2 512, units_3 512, layers 2, dropout 0, batch_norm false, learning_rate 2e-3.
NUMBERS = {"units_1": {"low": 64, "high": 2048, "log": True}, "dropout": {"low": 0.0, "high": 0.5}}
MIXED = NUMBERS | {"units_2": {"low": 128, "high": 1024, "step": 128}, "batch_norm": {"values": [False, True]}}
STEPPED = {"dropout": {"low": 0.0, "high": 0.5, "step": 0.1}, "units_1": {"values": [256, 512, 1024]}}
CONDITIONAL = {
    "layers": {"low": 1, "high": 3},
    "units_2": {"low": 128, "high": 1024, "step": 128, "when": {"layers": [2, 3]}},
    "batch_norm": {"values": [False, True]},
    "units_3": {"low": 256, "high": 1024, "step": 256, "when": {"layers": [3], "batch_norm": [True]}},
}
STEPPED_PARENT = {
    "dropout": {"low": 0.0, "high": 0.6, "step": 0.1},
    "input_dropout": {"values": [0.0, 0.1, 0.2], "when": {"dropout": [0.3, 0.6]}},
}
TWELVE = {"units_1": {"values": [256, 512, 1024]}, "units_2": {"low": 256, "high": 1024, "step": 256}}


def simulated_spec(**settings: object) -> SweepSpec:
    defaults: dict[str, object] = {
        "study": "simulated",
        "pruner": "none",
        "space": MIXED,
        "epochs": 5,
        "validation_images": 100,
        "budget": Budget(trials=100),
    }
    return make_spec(**(defaults | settings))


class SimulatedStudy:
    """Proposes, trains and tells like the real loop, keeping records as the ledger does.

    Args:
        spec: The study.
        records: Its past.
        learned: Records of another study.
        fails: What a trial ends with other than by its curve.
        num_open: How many trials are asked for before the oldest of them is trained and told.
        finals_from: After how many searched trials the best get further seeds.
    """

    def __init__(
        self,
        spec: SweepSpec,
        records: Sequence[Record] = (),
        *,
        learned: Sequence[Record] = (),
        fails: Callable[[Trial], Outcome | None] = lambda trial: None,
        num_open: int = 1,
        finals_from: float = math.inf,
    ) -> None:
        self.finals_from = finals_from
        self.spec, self.records, self.fails, self.num_open = spec, list(records), fails, num_open
        self.search = make_search(spec)
        self.proposer = Proposer(spec, self.search, self.records, learned)
        self.end: NoProposal | None = None
        told = [record.told_at or 0 for record in self.records]
        self._events = max([record.asked_at for record in self.records] + told, default=0)

    def run(self, num_trials: int) -> SimulatedStudy:
        """Goes on until the study has so many trials, or there are no more."""
        while self.end is None:
            running = self._pending()
            if len(self.records) < num_trials and len(running) < self.num_open:
                self._ask()
            elif running:
                self._train(running[0])
            else:
                break
        return self

    def stopped_at(self, num_events: int) -> list[Record]:
        """The records as they were after so many events."""
        return [
            record
            if record.told_at is not None and record.told_at <= num_events
            else dataclasses.replace(record, told_at=None, result=None)
            for record in self.records
            if record.asked_at <= num_events
        ]

    @property
    def num_events(self) -> int:
        return self._events

    @property
    def trials(self) -> list[Trial]:
        return [record.trial for record in self.records]

    def searched(self) -> list[Trial]:
        """What the search proposed."""
        return [record.trial for record in self.records if record.asks]

    def story(self) -> list[tuple[object, ...]]:
        """All that happened, without the names that chance gave."""
        numbers = {trial.uid: trial.number for trial in self.trials} | {None: None}
        return [
            (
                record.trial.number,
                dict(record.trial.params),
                record.trial.seed,
                record.trial.epochs,
                numbers[record.trial.continues],
                record.asks,
                record.result and record.result.outcome,
            )
            for record in self.records
        ]

    def _pending(self) -> list[int]:
        return [i for i, record in enumerate(self.records) if record.result is None]

    def _ask(self) -> None:
        num_searched = sum(trial.role is Role.TRIAL for trial in self.trials)
        proposed = self.proposer.next(finals=num_searched >= self.finals_from)
        if isinstance(proposed, Next):
            self._events += 1
            self.records.append(Record(proposed.trial, asked_at=self._events, asks=proposed.asks))
        elif proposed is NoProposal.EXHAUSTED or not self._pending():
            self.end = proposed
        else:
            self._train(self._pending()[0])

    def _train(self, position: int) -> None:
        trial = self.records[position].trial
        broken = self.proposer.broken_limit(trial)
        if broken:
            self._tell(position, TrialResult(Outcome.INFEASIBLE, broken))
            return
        first = next((t.epochs for t in self.trials if t.uid == trial.continues), 0)
        curve: list[EpochReport] = []
        outcome = self.fails(trial) or Outcome.COMPLETED
        last = trial.epochs if outcome is Outcome.COMPLETED else first + 1
        for epoch in range(first + 1, last + 1):
            curve.append(epoch_report(self.spec, trial, epoch))
            if not self.proposer.report(trial, curve[-1]):
                outcome = Outcome.PRUNED
                break
        self._tell(position, TrialResult(outcome, curve=tuple(curve), seconds=Seconds(train=device_time_s(trial))))

    def _tell(self, position: int, result: TrialResult) -> None:
        self._events += 1
        self.records[position] = dataclasses.replace(self.records[position], told_at=self._events, result=result)
        self.proposer.tell(self.records[position].trial, result)


def epoch_report(spec: SweepSpec, trial: Trial, epoch: int) -> EpochReport:
    """A bowl over the space, falling with the epochs, with a little noise by seed."""
    domains = spec.search_space.domains
    error_pct = 2.0 + sum(4 * (_position(domains[name], value) - 0.6) ** 2 for name, value in trial.params.items())
    error_pct += 3 * math.exp(-epoch) + 0.1 * chance(trial.seed, sorted(trial.params.items()), epoch)
    return EpochReport(epoch, 0.1, 0.1, error_pct, 100, Seconds(train=1.0))


def device_time_s(trial: Trial) -> float:
    return 1.0 + float(trial.params.get("units_1", 512)) / 512


def chance(*of: object) -> float:
    """A number from 0 to 1 that depends on the arguments only."""
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:4], "big") / 2**32


def some_fail(trial: Trial) -> Outcome | None:
    """Every tenth configuration ends in each of these ways; the baseline in none."""
    ways = (Outcome.DIVERGED, Outcome.OUT_OF_MEMORY, Outcome.TIMED_OUT, Outcome.CRASHED)
    position = int(chance(sorted(trial.params.items())) * 10)
    return ways[position] if position < len(ways) and trial.role is Role.TRIAL else None


def _position(domain: Domain, value: Scalar) -> float:
    if isinstance(domain, Choice):
        return encode(domain, value) / len(domain.options)
    low, high, number = float(domain.low), float(domain.high), float(value)
    if low == high:
        return 0.0
    if domain.log:
        return math.log(number / low) / math.log(high / low)
    return (number - low) / (high - low)
