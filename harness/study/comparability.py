"""The rules for comparing and ranking trials.

Errors are compared within one fidelity, curves within one fidelity and number of validation images, times within one
timing class (`Device.timing_class`). `SweepSpec` marks the settings for each rule (`Decides`).

Configurations are ranked, not trainings: one that was trained with several seeds counts once, with the mean over them.
The documented configuration is one of them, also if the search proposed a training of it. *The best* of a study is the
searched configuration that ranks first. It is compared with the baseline.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from harness.errors import InputError
from harness.study.records import Params, Record, Role, Scalar
from harness.study.settings import Decides, settings_that_decide
from harness.study.spec import SweepSpec
from harness.support.intervals import error_rate_interval_pct

# Errors are compared among trials that agree in all of these; `epochs` are the trial's own.
FIDELITY = settings_that_decide(Decides.ERRORS)

Key = frozenset[tuple[str, Scalar]]  # of a configuration within its study


@dataclass(frozen=True)
class Configuration:
    """Hyperparameters with all their trainings to the end of one number of epochs, in one study.

    Attributes:
        params: The hyperparameters.
        records: The trainings by number, at least one; each has an error that may be ranked.
        is_baseline: Whether the hyperparameters are the documented ones.
    """

    params: Params
    records: tuple[Record, ...]
    is_baseline: bool

    @property
    def key(self) -> Key:
        return key_of(self.params)

    @property
    def first(self) -> Record:
        """The first training, by whose uid and number the configuration is known."""
        return self.records[0]

    @cached_property
    def one_per_seed(self) -> tuple[Record, ...]:
        """The first training of each seed; a second one of the same seed says nothing more."""
        found: dict[int, Record] = {}
        for record in self.records:
            found.setdefault(record.trial.seed, record)
        return tuple(found.values())

    @cached_property
    def errors_pct(self) -> tuple[float, ...]:
        """Validation error of each seed, percent."""
        return tuple(map(error_pct, self.one_per_seed))

    @property
    def num_seeds(self) -> int:
        return len(self.errors_pct)

    @cached_property
    def mean_error_pct(self) -> float:
        """Mean validation error over seeds, percent."""
        return fmean(self.errors_pct)

    @property
    def interval_pct(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the mean error over other images, percent, the seeds taken as given."""
        return error_rate_interval_pct(self.mean_error_pct, self.num_images)

    @property
    def num_images(self) -> int:
        """Validation images of an error."""
        return max(record.result.val_images or 0 for record in self.records if record.result)

    @cached_property
    def mean_device_time_s(self) -> float:
        """Mean over trainings of `Record.device_time_s`; to be compared within one `timing_class`."""
        return fmean(record.device_time_s for record in self.records)

    @cached_property
    def timing_class(self) -> str:
        """That of its trainings; one of its own where they have several. Empty: they had no device."""
        return " + ".join(dict.fromkeys(record.timing_class for record in self.records if record.timing_class))

    @property
    def rank_key(self) -> tuple[float, str, float, int]:
        """Ranks configurations of one fidelity, the least first.

        The mean error decides, then within one timing class the mean device time, then which was tried first.
        """
        return self.mean_error_pct, self.timing_class, self.mean_device_time_s, self.first.trial.number


class Configurations:
    """The configurations of a study that were trained to the end.

    Args:
        spec: The study.
        records: Its trials so far, in any order.
        epochs: Trials that were to be trained for so many are taken in; None: those of the study.
    """

    def __init__(self, spec: SweepSpec, records: Iterable[Record] = (), epochs: int | None = None) -> None:
        self.spec, self._documented, self._epochs = spec, key_of(spec.baseline_params), epochs or spec.epochs
        self._found: dict[Key, Configuration] = {}
        self.best: Configuration | None = None
        for record in records:
            self.add(record)

    def add(self, record: Record) -> Configuration | None:
        """Takes in one more trial; returns its configuration as it is now, None where it was not trained to the end."""
        if record.trial.epochs != self._epochs or not may_be_ranked(self.spec, record):
            return None
        mine = key_of(record.trial.params)
        before = self._found.get(mine)
        now = _with(before, record, is_baseline=mine == self._documented)
        self._found[mine] = now
        if before is not None and before is self.best:
            self.best = min(self.searched, key=_rank_key)  # it may have fallen behind
        elif not now.is_baseline and (self.best is None or now.rank_key < self.best.rank_key):
            self.best = now
        return now

    @property
    def baseline(self) -> Configuration | None:
        """The documented configuration; None before its first result."""
        return self._found.get(self._documented)

    @property
    def all(self) -> list[Configuration]:
        """In the order of their first results."""
        return list(self._found.values())

    @property
    def searched(self) -> list[Configuration]:
        """All but the documented one."""
        return [configuration for configuration in self.all if not configuration.is_baseline]

    @property
    def ranked(self) -> list[Configuration]:
        """The same, the best first."""
        return sorted(self.searched, key=_rank_key)


def by_uid(spec: SweepSpec, records: Iterable[Record]) -> dict[str, Configuration]:
    """The configurations of a study, at each number of epochs that trials were to be trained for, by trial."""
    found: dict[int, Configurations] = {}
    for record in records:
        if record.trial.epochs not in found:
            found[record.trial.epochs] = Configurations(spec, epochs=record.trial.epochs)
        found[record.trial.epochs].add(record)
    return {record.trial.uid: one for same in found.values() for one in same.all for record in one.records}


def differing(spec: SweepSpec, other: SweepSpec, *what: Decides) -> list[str]:
    """The settings that decide any of `what` in which two studies differ."""
    return [name for name in settings_that_decide(*what) if getattr(spec, name) != getattr(other, name)]


def not_inherited(derived: SweepSpec, source: SweepSpec) -> list[str]:
    """The settings that a verdict or an ablation has from its study in which it differs from `source`.

    None, unless the study was removed and another one was begun under its name.
    """
    own = {"train_images", "epochs"} if derived.is_verdict else set()
    inherited = {*settings_that_decide(Decides.ARCHITECTURE, Decides.ERRORS), "recipe", "space"} - own
    return [name for name in source.differing_keys(derived) if name in inherited]


def check_inherited(derived: SweepSpec, source: SweepSpec) -> None:
    """Raises InputError for a verdict or an ablation of an earlier study of the name of `source`."""
    if odd := not_inherited(derived, source):
        raise InputError(
            f"{derived.study} is about an earlier study {source.study} with other settings ({', '.join(odd)}); allowed:"
            " --fresh to keep it under a dated name and start a new one"
        )


def may_be_ranked(spec: SweepSpec, record: Record) -> bool:
    """Whether a trial has an error that may be ranked among trials of its own epochs.

    It has to be trained to their end, on other images than its error is about. A verdict's trainings are not ranked.
    """
    result = record.result
    is_ranked = result is not None and result.error_rate_pct is not None
    return is_ranked and not spec.trains_on_validation and record.trial.role is not Role.CONFIRM


def full_error_pct(spec: SweepSpec, record: Record) -> float | None:
    """Validation error, percent, of a trial that was trained to the end of its study's epochs; None: not ranked."""
    is_full = record.trial.epochs == spec.epochs and may_be_ranked(spec, record)
    return error_pct(record) if is_full else None


def key_of(params: Params) -> Key:
    return frozenset(params.items())


def _with(configuration: Configuration | None, record: Record, *, is_baseline: bool) -> Configuration:
    records = (*configuration.records, record) if configuration else (record,)
    return Configuration(record.trial.params, tuple(sorted(records, key=_number)), is_baseline)


def error_pct(record: Record) -> float:
    """Validation error of a trial that has one, percent."""
    found = record.result.error_rate_pct if record.result else None
    if found is None:
        raise ValueError(f"trial {record.trial.uid} has no error rate")
    return found


def _number(record: Record) -> int:
    return record.trial.number


def _rank_key(configuration: Configuration) -> tuple[float, str, float, int]:
    return configuration.rank_key
