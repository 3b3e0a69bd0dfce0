"""The status of a study: finished trials, results, and the rest of its budget."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, repeat
from typing import Any, TextIO

from harness.analysis.verdict.findings import find_verdict
from harness.analysis.verdict.sentences import sentences
from harness.ledger.ledger import Ledger, find_study
from harness.planning.forecast import TimeLeft
from harness.planning.running import RunningTrial, lines, running_trials
from harness.study.comparability import Configurations
from harness.study.findings import Findings, against_baseline, find
from harness.study.formatting import changed, counted, duration, of_seeds, settings, time_range
from harness.study.records import Record, Scalar
from harness.study.settings import Kind
from harness.study.spec import SweepSpec
from harness.support.standard_streams import for_people

INDENT = 12  # of the values


@dataclass(frozen=True)
class Best:
    """The best searched configuration (`harness.study.comparability`).

    Attributes:
        trial: Number of its first trial.
        uid: Of the same.
        error_rate_pct: Its mean validation error over seeds.
        num_seeds: These seeds.
        interval_pct: 95 % interval of the mean.
        gain_points: Points by which it is below the baseline; None without one.
        is_within_noise: Whether it may be so by chance; None if unknown or if it is not below.
        device_time_s: What a training took (`Record.device_time_s`), their mean.
        params: Its hyperparameters.
        changed: Those that differ from the documented values.
    """

    trial: int
    uid: str
    error_rate_pct: float
    num_seeds: int
    interval_pct: tuple[float, float]
    gain_points: float | None
    is_within_noise: bool | None
    device_time_s: float
    params: dict[str, Scalar]
    changed: dict[str, Scalar]


@dataclass(frozen=True)
class Share:
    """Use and rest of a limit; None without a limit."""

    used: float
    limit: float | None
    left: float | None


@dataclass(frozen=True)
class Status:
    """The status of a study.

    Attributes:
        study: Its name.
        kind: Its purpose.
        done: Trials with a final result, including the baseline's.
        pending: Proposed trials without a result: running, or to be run when the study is resumed.
        running: Those that are being trained now.
        outcomes: Number of trials by outcome.
        best: The best so far; None while no searched trial is fully trained.
        summary: The same in words, beside the baseline.
        baseline_pct: Mean validation error of the documented configuration; None before its first result.
        num_baselines: Number of seeds in this mean.
        trials: Budget of searched trials, without infeasible ones.
        wall_s: Budget of wall seconds over all sessions.
        device_s: Budget of seconds for which a device was reserved.
        last_session_at: Start of the newest session, local time, ISO 8601; None if there was none.
        last_session_s: Its duration in seconds, up to its last message.
        num_test_reads: Number of models that have read the test images.
        answer: The first sentence of a verdict; None for other studies.
        time_left: Predicted time for the rest of the budget; None: nothing is left, or its speed is unknown.
        elsewhere: The device of this prediction, if this machine has none of its name.
    """

    study: str
    kind: Kind
    done: int
    pending: int
    running: list[RunningTrial]
    outcomes: dict[str, int]
    best: Best | None
    summary: str
    baseline_pct: float | None
    num_baselines: int
    trials: Share
    wall_s: Share
    device_s: Share
    last_session_at: str | None
    last_session_s: float
    num_test_reads: int
    answer: str | None = None
    time_left: TimeLeft | None = None
    elsewhere: str | None = None


def status(ledger: Ledger, study: str) -> Status:
    """Reads a study's status.

    Raises:
        InputError: there is no such study.
    """
    spec = find_study(ledger, study).spec
    outcomes, configurations = _results(ledger.finished(study), spec)
    findings = find(configurations, ledger.result)
    baseline = findings.baseline
    used, budget = ledger.usage(study), spec.budget
    started_at, session_s = ledger.last_session(study) or (None, 0.0)
    return Status(
        study=study,
        kind=spec.kind,
        done=sum(outcomes.values()),
        pending=ledger.num_pending(study),
        running=running_trials(ledger, spec),
        outcomes=dict(outcomes.most_common()),
        best=_best(spec, findings),
        summary=against_baseline(findings),
        baseline_pct=baseline.mean_error_pct if baseline else None,
        num_baselines=baseline.num_seeds if baseline else 0,
        trials=_share(used.trials, budget.trials),
        wall_s=_share(used.wall_s, budget.wall_s),
        device_s=_share(used.device_s, budget.device_s),
        last_session_at=None if started_at is None else datetime.fromtimestamp(started_at).isoformat(" ", "seconds"),
        last_session_s=session_s,
        num_test_reads=ledger.num_test_reads(study),
        answer=sentences(find_verdict(ledger, spec))[0] if spec.is_verdict else None,
    )


def to_json(status: Status) -> dict[str, Any]:
    return dataclasses.asdict(status)


def render(found: Iterable[Status], stream: TextIO) -> None:
    """Prints a block of lines for each study."""
    blocks = "\n\n".join(_block(one) for one in found)
    print(for_people(blocks, stream, indent=INDENT), file=stream)


def _results(records: Iterable[Record], spec: SweepSpec) -> tuple[Counter[str], Configurations]:
    """Counts by outcome, and what was trained to the end, in one pass."""
    outcomes: Counter[str] = Counter()
    configurations = Configurations(spec)
    for record in records:
        if record.result is not None:
            outcomes[record.result.outcome.value] += 1
            configurations.add(record)
    return outcomes, configurations


def _best(spec: SweepSpec, findings: Findings) -> Best | None:
    best = findings.best
    if best is None:
        return None
    params = dict(best.params)
    return Best(
        trial=best.first.trial.number,
        uid=best.first.trial.uid,
        error_rate_pct=best.mean_error_pct,
        num_seeds=best.num_seeds,
        interval_pct=best.interval_pct,
        gain_points=findings.gain_points,
        is_within_noise=findings.is_within_noise,
        device_time_s=best.mean_device_time_s,
        params=params,
        changed=changed(params, spec.baseline_params),
    )


def _share(used: float, limit: float | None) -> Share:
    return Share(used, limit, None if limit is None else max(0, limit - used))


def _block(status: Status) -> str:
    outcomes = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in status.outcomes.items())
    found = [
        status.study,
        f"  done      {status.done}" + (f" ({outcomes})" if outcomes else "") + f", {status.pending} pending",
    ]
    labels = chain(["running"], repeat(""))
    found += [f"  {label:9} {line}" for label, line in zip(labels, lines(status.running), strict=False)]
    if status.answer:
        found.append(f"  answer    {status.answer}")
    else:
        found += [f"  baseline  {_baseline(status)}", f"  best      {status.summary}"]
    if status.best:
        trained = duration(status.best.device_time_s)
        found.append(f"  settings  {settings(status.best.changed)}; otherwise as documented ({trained} per training)")
    found.append(f"  budget    {_budget(status)}")
    if status.time_left is not None:
        on = f" on {status.elsewhere}" if status.elsewhere else ""
        found.append(f"  left      about {time_range(status.time_left.low_s, status.time_left.high_s)}{on}")
    if status.last_session_at:
        found.append(f"  session   {status.last_session_at}, {duration(status.last_session_s)}")
    if status.num_test_reads:
        found.append(f"  test      {counted(status.num_test_reads, 'model')} saw the test images")
    return "\n".join(found)


def _baseline(status: Status) -> str:
    if status.baseline_pct is None:
        return "no result yet"
    return f"{status.baseline_pct:.2f} %{of_seeds(status.num_baselines)}"


def _budget(status: Status) -> str:
    limit = status.trials.limit or 0
    wall, device = _time(status.wall_s), _time(status.device_s)
    return f"{status.trials.used:g} of {limit:g} trials, {wall}, {device} of reserved time"


def _time(share: Share) -> str:
    limit = "" if share.limit is None else f" of {duration(share.limit)}"
    return duration(share.used) + limit
