"""MLflow against the ledger: one run for each finished trial, none for others, each showing what the ledger holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import TroubleError
from harness.ledger import Ledger, Study
from harness.redaction import reason, redact
from harness.tracking.content import Parent, Point, RunContent, trial_content
from harness.tracking.experiments import study_id
from harness.tracking.store import open_client, set_environment, sqlite_file, tracking_uri
from harness.tracking.summary import parent_content, progress, report_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_PAGE = 1000
_MENDS = "`harness sync` mends it"
_PARENT = "sweep"  # the role of a parent run
_LONG, _BEFORE = 60, 20  # characters of a text that are shown, and of those before the first that differs


def run_differences(home: Path, ledger: Ledger, study: str) -> Iterator[str]:
    """Every difference between a study's runs and its trials, one line each. The ledger's rows can all be read.

    Raises:
        InputError: MLFLOW_TRACKING_URI is not an address that runs can go to.
        TroubleError: MLflow cannot be had.
    """
    uri = tracking_uri(home)
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        yield f"MLflow: no store at {file}; `harness sync` makes it"
        return
    set_environment()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield from _Audit(open_client(home), ledger, study).differences()
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TroubleError(f"MLflow ({redact(uri)}): {reason(error)}") from error


def _experiments(client: MlflowClient, study: Study) -> dict[str, bool]:
    """Ids of the study's experiments, and whether each is live."""
    from mlflow.entities import ViewType

    found = client.search_experiments(ViewType.ALL, filter_string=f"tags.study_id = '{study_id(study)}'")
    return {experiment.experiment_id: experiment.lifecycle_stage != "deleted" for experiment in found}


def live_runs(client: MlflowClient, experiments: list[str]) -> Iterator[Run]:
    """Every run of these experiments that is not deleted, page by page. Raises whatever MLflow raises."""
    token: str | None = None
    while experiments:
        page = client.search_runs(experiments, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


class _Audit:
    """The runs of one study beside its ledger; one use only."""

    def __init__(self, client: MlflowClient, ledger: Ledger, study: str) -> None:
        self._client, self._ledger, self._name = client, ledger, study
        self._study = ledger.study(study)
        self._runs: dict[str, list[Run]] = defaultdict(list)  # live ones, by trial uid; the parent's under its role

    def differences(self) -> Iterator[str]:
        experiments = _experiments(self._client, self._study)
        live = [experiment_id for experiment_id, is_live in experiments.items() if is_live]
        if not live:
            yield f"MLflow: no experiment of this study, or a deleted one; {_MENDS}"
            return
        if len(experiments) > 1:
            yield f"MLflow: experiments {', '.join(experiments)} are all of this study; must be one"
        for run in live_runs(self._client, live):
            uid = _PARENT if run.data.tags.get("role") == _PARENT else run.data.tags.get("trial_uid")
            if uid:  # what others put into the experiment is left alone
                self._runs[uid].append(run)
        yield from self._parent_differences()
        numbers = {record.trial.uid: record.trial.number for record in self._ledger.finished(self._name)}
        for uid, number in numbers.items():
            for difference in self._trial_differences(uid):
                yield f"MLflow: trial {number}: {difference}"
        for run in (run for uid, runs in self._runs.items() if uid not in {*numbers, _PARENT} for run in runs):
            yield f"MLflow: run {run.info.run_name}: is {run.info.status}, and of no finished trial; delete it there"

    def _parent_differences(self) -> Iterator[str]:
        for difference in self._one_run(_PARENT, self._name):
            yield f"MLflow: parent run: {difference}"
        run = self._run(_PARENT)
        if run is None:
            return
        content = parent_content(progress(self._ledger, self._name), report_of([run]))
        if run.info.status not in ("FINISHED", "KILLED"):
            yield f"MLflow: parent run: status is {run.info.status}, though nobody works on the study; {_MENDS}"
        for difference in self._content_differences(run, content):
            yield f"MLflow: parent run: {difference}"

    def _trial_differences(self, uid: str) -> Iterator[str]:
        record = self._ledger.record(uid)
        *_, started_at, held_s = self._ledger.attempts(uid)[-1]
        run, parent, before = self._run(uid), self._run(_PARENT), self._run(record.trial.continues or "")
        hangs = Parent(parent.info.run_id if parent else "", before.info.run_id if before else None)
        study = replace(self._study, provenance=self._ledger.origin(uid))
        content = trial_content(study, record, started_at, held_s, hangs)
        yield from self._one_run(uid, uid)
        if run is None:
            return
        if parent is None:
            del content.tags["mlflow.parentRunId"]  # which it should be cannot be told
        if run.info.status != content.status:
            yield f"status is {run.info.status}, should be {content.status}; {_MENDS}"
        yield from self._content_differences(run, content)

    def _run(self, uid: str) -> Run | None:
        """The only live run of a trial, or of the study itself."""
        runs = self._runs.get(uid, [])
        return runs[0] if len(runs) == 1 else None

    def _one_run(self, uid: str, tracked_as: str) -> Iterator[str]:
        """Whether there is one run, and it is the one that the ledger takes for it."""
        runs = self._runs.get(uid, [])
        tracked_id, _ = self._ledger.tracked(tracked_as) or (None, None)
        if len(runs) != 1:
            yield f"has {len(runs) or 'no'} runs; must have one; {_MENDS}"
        elif tracked_id != runs[0].info.run_id:
            yield f"the ledger takes its run to be {tracked_id}, it is {runs[0].info.run_id}; {_MENDS}"

    def _content_differences(self, run: Run, content: RunContent) -> Iterator[str]:
        data = run.data
        tags = {key: value for key, value in data.tags.items() if key in content.tags}  # people may add their own
        for difference in (
            *_unlike("parameter", data.params, content.params),
            *_unlike("tag", tags, content.tags),
        ):
            yield f"{difference}; {_MENDS}"
        yield from _unlike("metric", data.metrics, content.metrics)
        for key, points in _curves(content).items():
            history = self._client.get_metric_history(run.info.run_id, key) if key in data.metrics else []
            found: dict[int, list[float]] = defaultdict(list)
            for point in history:
                found[point.step].append(point.value)
            expected = {point.step: [point.value] for point in points}
            yield from _unlike(f"curve {key}, step", found, expected)


def _curves(content: RunContent) -> dict[str, list[Point]]:
    """The metrics that have more than a summary's one number, at step 0."""
    points: dict[str, list[Point]] = defaultdict(list)
    for point in content.points:
        points[point.key].append(point)
    return {key: of_key for key, of_key in points.items() if any(point.step > 0 for point in of_key)}


def _unlike(what: str, found: Mapping[Any, Any], expected: Mapping[Any, Any]) -> Iterator[str]:
    """Each key whose value is another, or which is on one side only."""
    for key in sorted({*found, *expected}):
        if key not in found:
            yield f"{what} {key} is missing, should be {_excerpt(_text(expected[key]))}"
        elif key not in expected:
            yield f"{what} {key} is {_excerpt(_text(found[key]))}, should not be there"
        elif found[key] != expected[key]:
            is_, should_be = _text(found[key]), _text(expected[key])
            start = _parting(is_, should_be)
            yield f"{what} {key} is {_excerpt(is_, start)}, should be {_excerpt(should_be, start)}"


def _text(value: object) -> str:
    if isinstance(value, list):
        return " and ".join(map(str, value))
    return str(value).replace("\n", " ")


def _parting(first: str, second: str) -> int:
    """From where two texts are to be shown, so that people see in what they differ."""
    if max(len(first), len(second)) <= _LONG:
        return 0
    same = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), _LONG)
    return max(0, same - _BEFORE)


def _excerpt(text: str, start: int = 0) -> str:
    end = start + _LONG
    return f"{'...' if start else ''}{text[start:end]}{'...' if len(text) > end else ''}"
