"""The content of a study's parent run: its settings, its best so far, and a written summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from harness.ledger.ledger import Ledger
from harness.ledger.reader import Study, Usage
from harness.study.comparability import Configuration, Configurations
from harness.study.findings import Findings, against_baseline, find
from harness.study.formatting import fidelity, of_seeds
from harness.study.metrics import meanings_in_mlflow, test_error_rate_pct
from harness.study.records import Record
from harness.study.spec import SweepSpec
from harness.tracking.content import MEAN, NOTE, PROGRESS, Point, RunContent, run_name, study_tags

if TYPE_CHECKING:
    from mlflow.entities import Run

BEST = "best_error_rate_pct"  # curve of a parent run
REPORT_TAG = "report"  # of a parent run: not in the ledger, since it was written at one moment


_OUTCOMES = {"RUNNING": "running", "FINISHED": "finished", "KILLED": "stopped"}
_METRICS = "\n".join(
    [
        "Metrics of each training:\n\n| metric | meaning |\n|---|---|",
        *(f"| `{name}` | {meaning} |" for name, meaning in meanings_in_mlflow().items()),
        f"\nThe study's own `{BEST}` is the lowest mean validation error of a searched configuration so far, percent."
        f" The tag `{MEAN}` of a training is the mean of its configuration over several seeds, by which it is ranked.",
    ]
)


@dataclass(frozen=True)
class Progress:
    """The present state of a study.

    Attributes:
        study: Its settings.
        records: Its trials by number, pending ones included.
        configurations: Those that were trained in full.
        findings: The best of them against the baseline.
        usage: The used part of its budget.
        num_test_reads: Number of models that were evaluated on the test images.
        ended_at: When its last attempt ended, seconds since 1970.
    """

    study: Study
    records: Sequence[Record]
    configurations: Configurations
    findings: Findings
    usage: Usage
    num_test_reads: int
    ended_at: float

    @property
    def is_finished(self) -> bool:
        """Whether no started trial is pending and the budget is used.

        A time budget is used if a trial as long as the longest so far would not fit. A trial that did not fit may still
        be pending, not started.
        """
        budget, used = self.study.spec.budget, self.usage
        longest_s = max((record.reserved_time_s for record in self.records), default=0.0)
        times = ((budget.wall_s, used.wall_s + longest_s), (budget.device_s, used.device_s + longest_s))
        limits = ((budget.trials, used.trials), *times)
        is_used = any(limit is not None and amount >= limit for limit, amount in limits)
        is_idle = all(record.result or not record.attempts for record in self.records)
        # A verdict may end before its budget is used, if the answer is clear.
        return is_idle and (is_used or self.study.spec.is_verdict)


def progress(ledger: Ledger, study: str) -> Progress:
    """The present state of a study from the ledger."""
    settings, records = ledger.study(study), ledger.history(study)
    if settings.spec.is_verdict:  # with the test images they got wrong, which a history leaves out
        tested = {record.trial.uid: record for record in ledger.finished(study)}
        records = [tested.get(record.trial.uid, record) for record in records]
    ended_at_s = [record.ended_at_s for record in records if record.ended_at_s is not None]
    configurations = Configurations(settings.spec, records)
    return Progress(
        study=settings,
        records=records,
        configurations=configurations,
        findings=find(configurations, ledger.result),
        usage=ledger.usage(study),
        num_test_reads=ledger.num_test_reads(study),
        ended_at=max(ended_at_s, default=settings.created_at),
    )


def report_of(runs: Sequence[Run]) -> str:
    """The text of `harness report` in a study's parent run, of which there may be several for a while."""
    return next((str(run.data.tags[REPORT_TAG]) for run in runs if REPORT_TAG in run.data.tags), "")


def parent_content(progress: Progress, report: str = "", status: str | None = None) -> RunContent:
    """The parent run of a study.

    Args:
        progress: The state of the study.
        report: Markdown, with which its note ends.
        status: MLflow's status; None: from the end of the study.
    """
    study = progress.study
    status = status or ("FINISHED" if progress.is_finished else "KILLED")
    return RunContent(
        name=study.spec.study,
        status=status,
        start_ms=round(study.created_at * 1000),
        end_ms=round(max(progress.ended_at, study.created_at) * 1000),
        tags={
            **study_tags(study),
            "role": "sweep",
            "outcome": _OUTCOMES[status],
            PROGRESS: _trials_so_far(progress),
            "budget": study.spec.budget.model_dump_json(exclude_none=True),
            "mlflow.runName": study.spec.study,
            NOTE: "\n\n".join(filter(None, [summary(progress), _METRICS, report])),
            **({REPORT_TAG: report} if report else {}),
        },
        params=_settings(study),
        curves=_best_so_far(progress),
    )


def _trials_so_far(progress: Progress) -> str:
    ended = sum(record.result is not None for record in progress.records)
    best = progress.configurations.best
    return f"{ended} trials ended" + (f", best {best.mean_error_pct:.2f} %" if best else "")


def _settings(study: Study) -> dict[str, str]:
    spec = study.spec
    plain = spec.identity()
    for name in ("space", "recipe", "constraints", "objective", "enqueue"):
        del plain[name]
    settings = {
        **plain,
        "objective": ", ".join(spec.objective),
        **{f"space.{name}": domain for name, domain in spec.search_space.domains.items()},
        **{f"recipe.{name}": value for name, value in spec.recipe.items()},
        **{f"constraints.{name}": value for name, value in spec.constraints.model_dump(exclude_none=True).items()},
    }
    return {key: str(value) for key, value in settings.items() if value is not None}


def _best_so_far(progress: Progress) -> list[Point]:
    """Error of the best configuration after each searched training, in the order of their end."""
    points: list[Point] = []
    start_ms = round(progress.study.created_at * 1000)
    so_far = Configurations(progress.study.spec)
    for record in sorted(progress.records, key=lambda record: record.told_at or 0):
        changed = so_far.add(record)
        if so_far.best and changed and not changed.is_baseline:
            points.append(Point(BEST, so_far.best.mean_error_pct, len(points), start_ms))
    return points


def summary(progress: Progress) -> str:
    """The study in Markdown: search space, baseline and best, cost, and how to continue."""
    spec = progress.study.spec
    engine = f" ({spec.engine}, sampler {spec.sampler}, pruner {spec.pruner})" if spec.is_search else ""
    how = fidelity(spec.train_images, spec.epochs, spec.precision)
    parts = [
        f"{subject(spec)}{engine}, profile {spec.profile}: {how}, seed {spec.seed}.",
        _confirmations(progress) if spec.is_verdict else _results(progress),
        "" if spec.is_verdict else _searched(progress),
        _cost(progress),
        _how_to_go_on(progress),
    ]
    return "\n\n".join(part for part in parts if part)


def subject(spec: SweepSpec) -> str:
    """The subject of the study, in a few words."""
    if spec.is_verdict:
        trials = f"its best trials and the documented {spec.baseline}"
        return f"Verdict on {spec.about}: {trials}, trained again with fresh seeds"
    documented = f"the documented {spec.baseline} on {spec.dataset}"
    return f"Search around {documented}" if spec.is_search else f"Training of {documented}"


def _results(progress: Progress) -> str:
    study, best, baseline = progress.study, progress.configurations.best, progress.configurations.baseline
    rows = []
    if baseline:
        rows.append(_result_row(study, f"documented baseline{of_seeds(baseline.num_seeds)}", baseline))
    if best:
        which = f"trial {best.first.trial.number}{of_seeds(best.num_seeds)}"
        which += f", the best of {len(progress.configurations.searched)} trained in full"
        rows.append(_result_row(study, which, best))
    if not rows:
        return "No trial has been trained in full yet."
    head = "| | validation error | 95 % interval | parameters | device time | run |\n|---|---|---|---|---|---|"
    table = "\n".join([head, *rows])
    if not best:
        return table
    compared = against_baseline(progress.findings)
    return f"{table}\n\nBest so far {compared}. It was chosen by this error, which makes the error look lower."


def _confirmations(progress: Progress) -> str:
    """Mean test error by configuration."""
    spec = progress.study.spec
    tested = [record for record in progress.records if record.result and record.result.test_wrong_images is not None]
    groups: dict[int | None, list[Record]] = {}
    for record in tested:
        groups.setdefault(spec.confirmed_trial(record.trial.params), []).append(record)
    head = "| | test error, mean | seeds | parameters | device time |\n|---|---|---|---|---|"
    rows = [_confirmed_row(spec, number, group) for number, group in groups.items()]
    return "\n".join([head, *rows]) if rows else "No training has ended yet."


def _confirmed_row(spec: SweepSpec, number: int | None, records: Sequence[Record]) -> str:
    results = [record.result for record in records if record.result]
    errors = [test_error_rate_pct(spec, result) or 0.0 for result in results]
    label = "documented baseline" if number is None else f"trial {number}"
    return f"| {label} | {mean(errors):.2f} % | {len(errors)} | {results[0].num_params or 0:,} | {_time(records)} |"


def _time(records: Sequence[Record]) -> str:
    """Mean device time; None for times of several timing classes."""
    classes = {record.timing_class for record in records} - {None}
    return f"{mean(record.device_time_s for record in records):.1f} s" if len(classes) < 2 else "not comparable"


def _result_row(study: Study, label: str, found: Configuration) -> str:
    low_pct, high_pct = found.interval_pct
    runs = ", ".join(run_name(study, record) for record in found.records)
    num_params = found.first.result.num_params if found.first.result else None
    return (
        f"| {label} | {found.mean_error_pct:.2f} % | {low_pct:.2f} to {high_pct:.2f} % | {num_params or 0:,} |"
        f" {_time(found.records)} | {runs} |"
    )


def _searched(progress: Progress) -> str:
    spec = progress.study.spec
    if not spec.is_search:
        return ""
    best = progress.configurations.best.params if progress.configurations.best else {}
    head = "| hyperparameter | searched | baseline | best |\n|---|---|---|---|"
    rows = [
        f"| {name} | {domain} | {spec.baseline_params.get(name, '')} | {best.get(name, '')} |"
        for name, domain in spec.search_space.domains.items()
    ]
    return "\n".join([head, *rows])


def _cost(progress: Progress) -> str:
    outcomes = Counter(record.result.outcome if record.result else "pending" for record in progress.records)
    shares = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in outcomes.most_common())
    usage = progress.usage
    return (
        f"{len(progress.records)} trials ({shares or 'none yet'}); {usage.device_s / 60:.1f} minutes of reserved time,"
        f" failed and pruned ones included, in {usage.wall_s / 60:.1f} minutes."
        f" Models of this study that were shown the test images: {progress.num_test_reads}."
    )


def _how_to_go_on(progress: Progress) -> str:
    spec = progress.study.spec
    name = spec.study
    if spec.is_verdict:
        return f"`harness leaderboard {name}` shows the answer so far; `harness verdict {spec.about}` continues it."
    commands = [
        (f"harness leaderboard {name}", "ranking, also as CSV"),
        (f"harness status {name}", "how far it is"),
        (f"harness export {name} --csv FILE", "every trial; with `--epochs` their learning curves"),
    ]
    lines = "\n".join(f"* `{command}`: {what}" for command, what in commands)
    return f"The command that started the study resumes it; `--trials N` raises the budget.\n\n{lines}"
