"""The data of a report, read from the ledger once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import pandas as pd

from harness.analysis.leaderboard.leaderboard import leaderboard
from harness.analysis.verdict.findings import Verdict, find_verdict
from harness.errors import InputError
from harness.ledger.ledger import Ledger, find_study
from harness.ledger.reader import Study, Usage
from harness.study.comparability import Configuration, Configurations, full_error_pct, key_of, not_inherited
from harness.study.findings import Findings, find
from harness.study.records import Attempt, Record, Role
from harness.study.spec import SweepSpec, verdict_name


@dataclass(frozen=True)
class TrialAttempt(Attempt):
    """An attempt with its trial.

    Attributes:
        trial: Number of the trial.
        role: Role of the trial.
        is_final: Whether the attempt has the trial's result.
    """

    trial: int
    role: Role
    is_final: bool


@dataclass(frozen=True)
class Facts:
    """The present state of a study.

    Attributes:
        study: Its settings.
        records: Its trials by number, pending ones included.
        attempts: Attempts of these trials, by trial.
        origins: Code, versions and machine of ended trials, by trial uid.
        usage: The used part of its budget.
        board: Its leaderboard.
        findings: Its best configuration against its baseline.
        verdict: The present state of its verdict; None if there is none.
    """

    study: Study
    records: Sequence[Record]
    attempts: Sequence[TrialAttempt]
    origins: dict[str, dict[str, object]]
    usage: Usage
    board: pd.DataFrame
    findings: Findings
    verdict: Verdict | None

    @property
    def spec(self) -> SweepSpec:
        return self.study.spec

    @cached_property
    def ended(self) -> list[Record]:
        """Trials with a final result, in the order of their end."""
        return sorted((record for record in self.records if record.result), key=lambda record: record.told_at or 0)

    @cached_property
    def full(self) -> list[Record]:
        """Ended trials that were trained in full, whose errors can be compared."""
        return [record for record in self.ended if full_error_pct(self.spec, record) is not None]

    @cached_property
    def configurations(self) -> Configurations:
        """The configurations of these trials, in the order of their first results."""
        return Configurations(self.spec, self.full)

    @cached_property
    def searched(self) -> list[Record]:
        """Trainings of searched configurations, in the order of their end."""
        return [record for record in self.full if record.trial.uid not in self._baseline_uids]

    @cached_property
    def baselines(self) -> list[Record]:
        """Trainings of the documented configuration, in the order of their end."""
        return [record for record in self.full if record.trial.uid in self._baseline_uids]

    @property
    def baseline(self) -> Configuration | None:
        return self.configurations.baseline

    @property
    def best(self) -> Configuration | None:
        return self.configurations.best

    @cached_property
    def top_ten(self) -> list[Configuration]:
        """The ten best searched configurations."""
        return self.configurations.ranked[:10]

    @property
    def outcomes(self) -> Counter[str]:
        """Numbers of trials by outcome."""
        names = [record.result.outcome.value if record.result else "pending" for record in self.records]
        return Counter(name.replace("_", " ") for name in names)

    @property
    def time_word(self) -> str:
        """Name of the time that is compared within the main timing class."""
        return time_word(self.in_main_class(self.full))

    def mean_time_s(self, configuration: Configuration) -> float | None:
        """The mean compared time of a configuration's trainings; None if they cannot be compared."""
        classes = {timing_class(record) for record in configuration.records}
        return fmean(map(time_s, configuration.records)) if len(classes) == 1 else None

    def main_time_s(self, configuration: Configuration) -> float | None:
        """The mean over its trainings of the main timing class; None if there are none."""
        found = self.in_main_class(configuration.records)
        return fmean(map(time_s, found)) if found else None

    def in_main_class(self, records: Sequence[Record]) -> list[Record]:
        """Those of the timing class that most trials have which were trained in full."""
        (main, _), *_ = self.timing_classes.most_common(1) or [("", 0)]
        return [record for record in records if timing_class(record) == main]

    @cached_property
    def _baseline_uids(self) -> set[str]:
        return {record.trial.uid for record in self.baseline.records} if self.baseline else set()

    @cached_property
    def _by_uid(self) -> dict[str, Record]:
        return {record.trial.uid: record for record in self.records}

    def predecessor(self, record: Record) -> Record | None:
        """The trial that it continues."""
        return self._by_uid.get(record.trial.continues or "")

    @cached_property
    def timing_classes(self) -> Counter[str]:
        """Numbers of trials trained in full by timing class; times are compared only within one."""
        return Counter(timing_class(record) for record in self.full)


def gather(ledger: Ledger, name: str) -> Facts:
    """Reads a study.

    Raises:
        InputError: there is no such study, or it is a verdict.
    """
    study = find_study(ledger, name)
    if study.spec.is_verdict:
        raise InputError(f"study is {name!r}, which is a verdict; allowed: {study.spec.about}, whose report shows it")
    records = ledger.history(name)
    return Facts(
        study=study,
        records=records,
        attempts=[attempt for record in records for attempt in _attempts(ledger, record)],
        origins=ledger.origins(name),
        usage=ledger.usage(name),
        board=leaderboard(ledger, [name]),
        findings=find(Configurations(study.spec, records), ledger.result),
        verdict=_verdict(ledger, study.spec, records),
    )


def _verdict(ledger: Ledger, spec: SweepSpec, records: Sequence[Record]) -> Verdict | None:
    """The verdict on a study; None if it has none, or only that on an earlier study of its name."""
    name = verdict_name(spec.study)
    verdict = ledger.study(name).spec if name in ledger.study_names() else None
    if verdict is None or not_inherited(verdict, spec) or not _are_trials(verdict, records):
        return None
    return find_verdict(ledger, verdict)


def _are_trials(verdict: SweepSpec, records: Sequence[Record]) -> bool:
    """Whether the trials that a verdict confirms are among a study's."""
    found = {record.trial.number: key_of(record.trial.params) for record in records}
    confirmed = zip(verdict.confirms, verdict.enqueue, strict=True)
    return all(found.get(number) == key_of(params) for number, params in confirmed)


def timing_class(record: Record) -> str:
    return record.timing_class or "unknown"


def time_s(record: Record) -> float:
    """The compared time of a trial, seconds: that of GPUs if it used one."""
    return record.gpu_time_s or record.device_time_s


def time_word(records: Sequence[Record]) -> str:
    """Name of that time, for trials of one timing class."""
    return "GPU time" if any(record.gpu_time_s for record in records) else "device time"


def _attempts(ledger: Ledger, record: Record) -> list[TrialAttempt]:
    found = ledger.attempts(record.trial.uid)
    final = found[-1] if found and record.result else None
    trial = record.trial
    return [
        TrialAttempt(**vars(attempt), trial=trial.number, role=trial.role, is_final=attempt is final)
        for attempt in found
    ]
