"""Compares MLflow with the ledger: one run for each trial that was started, none for others, all with its content.

The audit holds the study's lock, so no process works on it: no run may be RUNNING.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.audit.difference import Advice, Difference
from harness.errors import TroubleError
from harness.ledger.ledger import Ledger
from harness.study.comparability import by_uid
from harness.support.redaction import redact
from harness.tracking import differences
from harness.tracking.content import RunContent, means
from harness.tracking.experiments import find_experiments
from harness.tracking.owners import PARENT, Owners
from harness.tracking.store import open_client, set_environment, sqlite_file, tracking_uri, trouble
from harness.tracking.study_runs import ENDED
from harness.tracking.summary import parent_content, progress, report_of
from harness.tracking.trial_runs import trial_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_PAGE = 1000


def run_differences(home: Path, ledger: Ledger, study: str) -> Iterator[Difference]:
    """All differences between a study's runs and its trials. The ledger's rows can all be read.

    Raises:
        InputError: MLFLOW_TRACKING_URI is not a valid address.
        TroubleError: MLflow is unavailable.
    """
    uri = tracking_uri(home)
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        yield Difference(f"MLflow: no store at {file}", Advice.SYNC)
        return
    set_environment()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield from _Audit(open_client(home), uri, ledger, study).differences()
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TroubleError(trouble(uri, error)) from error


def live_runs(client: MlflowClient, experiments: list[str]) -> Iterator[Run]:
    """All live runs of these experiments, page by page. Passes on MLflow's exceptions."""
    token: str | None = None
    while experiments:
        page = client.search_runs(experiments, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


class _Audit:
    """Compares the runs of one study with its ledger; used once."""

    def __init__(self, client: MlflowClient, uri: str, ledger: Ledger, study: str) -> None:
        self._client, self._uri, self._ledger, self._name = client, uri, ledger, study
        self._study = ledger.study(study)
        self._progress = progress(ledger, study)
        self._means = means(by_uid(self._study.spec, self._progress.records))
        self._runs: dict[str, list[Run]] = defaultdict(list)  # live ones, by trial uid; the parent's under its role

    def differences(self) -> Iterator[Difference]:
        found = find_experiments(self._client, self._study)
        live = [experiment.experiment_id for experiment in found if experiment.lifecycle_stage != "deleted"]
        if not live:
            yield _for_sync("no experiment of this study, or a deleted one")
            return
        if len(live) > 1:
            yield _for_sync(f"experiments {', '.join(live)} are all of this study; must be one")
        numbers = {record.trial.uid: record.trial.number for record in self._ledger.finished(self._name)}
        numbers |= {uid: self._ledger.whereabouts(uid)[1] for uid in self._ledger.open_attempts(self._name)}
        owners = Owners(self._ledger, self._name)
        for run in live_runs(self._client, live):
            uid = owners.of(run)
            if uid:  # other runs in the experiment are ignored
                self._runs[uid].append(run)
        for problem in self._parent_problems():
            yield _for_sync(f"parent run: {problem}")
        for uid, number in numbers.items():
            for problem in self._trial_problems(uid):
                yield _for_sync(f"trial {number}: {problem}")
        for run in (run for uid, runs in self._runs.items() if uid not in {*numbers, PARENT} for run in runs):
            what = f"MLflow: run {run.info.run_name}: is {run.info.status}, and of no trial that was started"
            uri = shlex.quote(redact(self._uri))
            command = f"MLFLOW_TRACKING_URI={uri} mlflow runs delete --run-id {run.info.run_id}"
            yield Difference(what, Advice.DELETE_RUN, command)

    def _parent_problems(self) -> Iterator[str]:
        yield from self._one_run(PARENT, self._name)
        run = self._run(PARENT)
        if run is None:
            return
        status = run.info.status if run.info.status in ENDED else None  # the ledger does not have the right one
        content = parent_content(self._progress, report_of([run]), status)
        yield from self._content_problems(run, content)

    def _trial_problems(self, uid: str) -> Iterator[str]:
        run, parent = self._run(uid), self._run(PARENT)
        parent_id = parent.info.run_id if parent else ""
        content = trial_run(self._ledger, self._study, uid, parent_id, self._run_id, mean=self._means.get(uid))
        yield from self._one_run(uid, uid)
        if run is None:
            return
        if parent is None:
            del content.tags["mlflow.parentRunId"]  # the right one is unknown
        yield from self._content_problems(run, content)

    def _run(self, uid: str) -> Run | None:
        """The only live run of a trial, or of the study itself."""
        runs = self._runs.get(uid, [])
        return runs[0] if len(runs) == 1 else None

    def _run_id(self, uid: str) -> str | None:
        run = self._run(uid)
        return run.info.run_id if run else None

    def _one_run(self, uid: str, tracked_as: str) -> Iterator[str]:
        """Checks that there is one run, and that its id is the ledger's."""
        runs = self._runs.get(uid, [])
        tracked_id, _ = self._ledger.tracked(tracked_as) or (None, None)
        if len(runs) != 1:
            yield f"has {len(runs) or 'no'} runs; must have one"
        elif tracked_id != runs[0].info.run_id:
            yield f"the ledger takes its run to be {tracked_id}, it is {runs[0].info.run_id}"

    def _content_problems(self, run: Run, content: RunContent) -> Iterator[str]:
        yield from differences.run_differences(run, content)
        yield from differences.curve_differences(self._client, run, content)


def _for_sync(problem: str) -> Difference:
    return Difference(f"MLflow: {problem}", Advice.SYNC)
