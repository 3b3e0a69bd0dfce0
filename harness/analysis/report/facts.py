"""All that a report is about, read off the ledger once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import pandas as pd

from harness.analysis.leaderboard.findings import Findings, find
from harness.analysis.leaderboard.leaderboard import leaderboard
from harness.analysis.verdict.findings import Verdict, find_verdict
from harness.errors import InputError
from harness.ledger.ledger import Ledger, Study, Usage, find_study
from harness.study.comparability import Configuration, Configurations, full_error_pct
from harness.study.records import Attempt, Record, Role
from harness.study.spec import SweepSpec, verdict_name


@dataclass(frozen=True)
class TrialAttempt(Attempt):
    """An attempt with the trial that it was at.

    Attributes:
        trial: Number of the trial.
        role: Why the trial was run.
        is_final: Whether the trial's result is this attempt's.
    """

    trial: int
    role: Role
    is_final: bool


@dataclass(frozen=True)
class Facts:
    """A study as it stands.

    Attributes:
        study: Its settings.
        records: Its trials by number, pending ones included.
        attempts: Of these trials, by trial.
        origins: Code, versions and machine by trial uid, of trials that have ended.
        usage: What of its budget is used.
        board: Its leaderboard.
        findings: Its best against its baseline.
        verdict: On its best, as far as it has come; None if none was begun.
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
        """Trials with a final result, in the order they ended."""
        return sorted((record for record in self.records if record.result), key=lambda record: record.told_at or 0)

    @cached_property
    def full(self) -> list[Record]:
        """Those of them that were trained in full, whose errors can be compared."""
        return [record for record in self.ended if full_error_pct(self.spec, record) is not None]

    @cached_property
    def configurations(self) -> Configurations:
        """What these are trainings of, in the order of their first results."""
        return Configurations(self.spec, self.full)

    @cached_property
    def searched(self) -> list[Record]:
        """Trainings of searched configurations, in the order they ended."""
        return [record for record in self.full if record.trial.uid not in self._baseline_uids]

    @cached_property
    def baselines(self) -> list[Record]:
        """Trainings of the documented one, in the order they ended."""
        return [record for record in self.full if record.trial.uid in self._baseline_uids]

    @property
    def baseline(self) -> Configuration | None:
        return self.configurations.baseline

    @property
    def best(self) -> Configuration | None:
        return self.configurations.best

    @cached_property
    def top_ten(self) -> list[Configuration]:
        """The best of the searched ones."""
        return self.configurations.ranked[:10]

    @property
    def outcomes(self) -> Counter[str]:
        """How many trials ended how."""
        names = [record.result.outcome.value if record.result else "pending" for record in self.records]
        return Counter(name.replace("_", " ") for name in names)

    @property
    def time_word(self) -> str:
        """Which time is compared: that of GPUs where any was used."""
        used_gpu = any(record.gpu_time_s for record in self.full)
        return "GPU time" if used_gpu else "device time"

    def time_s(self, record: Record) -> float:
        """The one of its times that is compared."""
        return record.gpu_time_s if self.time_word == "GPU time" else record.device_time_s

    def mean_time_s(self, configuration: Configuration) -> float | None:
        """The same of a configuration, the mean over its trainings; None where these may not be compared."""
        classes = {timing_class(record) for record in configuration.records}
        return fmean(map(self.time_s, configuration.records)) if len(classes) == 1 else None

    @cached_property
    def _baseline_uids(self) -> set[str]:
        return {record.trial.uid for record in self.baseline.records} if self.baseline else set()

    @cached_property
    def _by_uid(self) -> dict[str, Record]:
        return {record.trial.uid: record for record in self.records}

    def predecessor(self, record: Record) -> Record | None:
        """The trial that it goes on from."""
        return self._by_uid.get(record.trial.continues or "")

    @property
    def timing_classes(self) -> Counter[str]:
        """How many trials trained in full there are of each; times are compared only within one."""
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
    board = leaderboard(ledger, [name])
    verdict = verdict_name(name)
    return Facts(
        study=study,
        records=records,
        attempts=[attempt for record in records for attempt in _attempts(ledger, record)],
        origins=ledger.origins(name),
        usage=ledger.usage(name),
        board=board,
        findings=find(ledger, study.spec, board),
        verdict=find_verdict(ledger, ledger.study(verdict).spec) if verdict in ledger.study_names() else None,
    )


def error_pct(record: Record) -> float:
    """Of a trial that was trained in full."""
    error = record.result.error_rate_pct if record.result else None
    if error is None:
        raise ValueError(f"trial {record.trial.uid} has no error rate")
    return error


def timing_class(record: Record) -> str:
    return record.timing_class or "unknown"


def _attempts(ledger: Ledger, record: Record) -> list[TrialAttempt]:
    found = ledger.attempts(record.trial.uid)
    final = found[-1] if found and record.result else None
    trial = record.trial
    return [
        TrialAttempt(**vars(attempt), trial=trial.number, role=trial.role, is_final=attempt is final)
        for attempt in found
    ]
