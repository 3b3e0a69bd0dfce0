"""The MLflow runs of one study, created and repaired to match the ledger.

A run is created once per `trial_uid`. Creation is not idempotent, so existing runs with that tag are searched first;
all later steps are idempotent. Only one process at a time logs a study's runs.
"""

from __future__ import annotations

import getpass
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from harness.errors import TroubleError
from harness.ledger.ledger import Ledger
from harness.study.comparability import by_uid
from harness.study.records import Attempt
from harness.support.failpoints import Step, reach
from harness.support.provenance import diff_file
from harness.support.redaction import reason
from harness.tracking.content import MAX_TAG, NOTE, RunContent, can_become, means
from harness.tracking.dataset import dataset_of
from harness.tracking.differences import curve_differences, logged_differences, run_differences
from harness.tracking.experiments import lost_artifacts, open_experiment
from harness.tracking.owners import PARENT, Owners
from harness.tracking.store import open_client
from harness.tracking.summary import REPORT_TAG, parent_content, progress, report_of
from harness.tracking.trial_runs import open_trials, trial_run
from harness.tracking.views import run_page

if TYPE_CHECKING:
    from mlflow.entities import Run

Status = Literal["RUNNING", "FINISHED", "KILLED"]

_PAGE = 1000
_POINTS_PER_BATCH = 900  # MLflow takes 1,000 items at once, parameters and tags among them
_SPEC_FILE = "sweep.json"
_REPORT_FOLDER = "report"
_OPEN = "open"  # logged state of a trial without a final result; no outcome, so that its end is always logged
ENDED: tuple[Status, ...] = ("FINISHED", "KILLED")  # status of a parent run while no process works on its study


@dataclass
class Repairs:
    """The repairs that made MLflow match the ledger, in numbers of runs."""

    created: int = 0
    completed: int = 0  # existed, but differed from the ledger
    replaced: int = 0  # could not be corrected, since logged values are permanent: deleted and created again
    surplus: int = 0  # second runs of one trial, deleted
    ended: int = 0  # had status RUNNING without a process
    problems: list[str] = field(default_factory=list)  # failed repairs, one line each

    def __str__(self) -> str:
        numbers = {
            "created": self.created,
            "completed": self.completed,
            "replaced": self.replaced,
            "surplus ones deleted": self.surplus,
            "ended": self.ended,
        }
        done = [f"{number} {what}" for what, number in numbers.items() if number]
        return "; ".join([f"runs {', '.join(done)}" if done else "as it should be", *self.problems])


class StudyRuns:
    """The experiment of one study, with its parent run and its trials' runs.

    Every method passes on exceptions of MLflow, its database and the network. Use it from one thread.
    """

    def __init__(self, home: Path, ledger: Ledger, study: str) -> None:
        self._home, self._ledger, self._name = home, ledger, study
        self._study = ledger.study(study)
        self._client = open_client(home)
        self._parent_id = ""
        self._num_points_sent: dict[str, int] = {}  # of the curves of the parent and of open trials, by run id
        self._unmatched: dict[str, list[Run]] = {}  # runs of trials that were not started, by uid
        self._is_live = False
        self._open: dict[str, Attempt] = {}  # the last attempt that was logged of trials without a final result, by uid
        self._means: dict[str, str] = {}  # of configurations with several seeds, by the uids of their trials
        self._added: dict[str, int] = {}  # hash of what was logged of each trial that has ended since, by uid
        self._is_thorough = False
        self.num_steps = 0  # number of writes and reads; grows while there is progress
        reach(Step.BEFORE_EXPERIMENT)
        self.experiment_id = open_experiment(self._client, home, ledger, self._study)
        self.repairs = Repairs()

    def reconcile(self, status: Status | None = None, *, is_thorough: bool = False) -> None:
        """Makes the runs of the parent and the trials match the ledger, also after changes in MLflow.

        Args:
            status: Status of the parent run; RUNNING: a process works on the study; None: from the end of the study.
            is_thorough: Compare curves point by point, and check repaired runs again.
        """
        self._is_thorough, self._is_live = is_thorough, status == "RUNNING"
        runs, owners = defaultdict[str, list["Run"]](list), Owners(self._ledger, self._name)
        for run in self._search(""):
            if uid := owners.of(run):  # other runs in the experiment are not changed
                runs[uid].append(run)
        self._mend_parent(runs.pop(PARENT, []), status)
        for uid in [record.trial.uid for record in self._ledger.finished(self._name)]:
            self._mend_trial(uid, runs.pop(uid, []))
        for uid, attempt in self._open_trials().items():
            self._mend_trial(uid, runs.pop(uid, []))
            self._open[uid] = attempt
        unknown = (run for runs_of_one in runs.values() for run in runs_of_one)
        for run in (run for run in unknown if run.info.status == "RUNNING" and not _is_deleted(run)):
            self._client.set_terminated(run.info.run_id, "KILLED")
            self.repairs.ended += 1
        self._unmatched = runs
        self._save_files()
        self._is_thorough = False

    def add_new(self) -> None:
        """Logs the trials that have ended since. Call `reconcile` first.

        It has listed all runs. A search per trial would take longer with each trial.
        """
        for uid in self._ledger.untracked(self._name):
            self._mend_trial(uid, self._known_runs(uid))

    def show_open(self) -> None:
        """Logs the trials that were started, and the epochs that they have trained since. Call `reconcile` first."""
        for uid, attempt in self._open_trials().items():
            if self._open.get(uid) != attempt:
                self._mend_trial(uid, self._known_runs(uid))
                self._open[uid] = attempt

    def show_progress(self, status: Status | None) -> None:
        """Updates the parent run, and the means in the runs of configurations that have got a further seed."""
        before = self._means
        self._show_parent(status)
        for uid, _ in self._means.items() - before.items():
            if run_id := self._run_id(uid):
                self._mend_trial(uid, [self._client.get_run(run_id)])

    def show_report(self, text: str, files: Sequence[Path]) -> None:
        """Adds `text` to the parent run's note and `files` to its artifacts; replaces those of an earlier report.

        Raises:
            TroubleError: the home has moved, and MLflow uses the old path of the artifacts.
        """
        self._show_parent(None)
        lost = self._lost_artifacts()
        if lost:
            raise TroubleError(lost)
        self._client.set_tag(self._parent_id, REPORT_TAG, text[:MAX_TAG])
        for file in files:
            self._client.log_artifact(self._parent_id, str(file), _REPORT_FOLDER)
        self._show_parent(None)

    def finish(self, status: Status | None) -> None:
        """Updates added trials and the parent; changes by other programs are left to `reconcile`. No trial runs now."""
        self._is_live = False
        self.show_open()
        for uid, shown in list(self._added.items()):
            if hash(repr(self._trial_content(uid))) != shown:  # search times are committed after the result
                self._mend_trial(uid, self._search(f"tags.trial_uid = '{uid}'"))
        self.show_progress(status)
        self._save_files()  # this session may have been too young for `reconcile` to see its own

    def _search(self, filter_string: str) -> list[Run]:
        """Searches runs, including deleted ones."""
        from mlflow.entities import ViewType

        runs: list[Run] = []
        token: str | None = None
        while True:
            page = self._client.search_runs([self.experiment_id], filter_string, ViewType.ALL, _PAGE, page_token=token)
            self.num_steps += 1
            runs += page
            token = page.token
            if not token:
                return runs

    def _open_trials(self) -> dict[str, Attempt]:
        return open_trials(self._ledger, self._name, is_live=self._is_live)

    def _known_runs(self, uid: str) -> list[Run]:
        """The runs of a trial, without a search."""
        run_id = self._run_id(uid) if uid in self._open else None
        return [self._client.get_run(run_id)] if run_id else self._unmatched.pop(uid, [])

    def _mend_trial(self, uid: str, found: Sequence[Run]) -> None:
        content, before = self._trial_content(uid), self._ledger.tracked(uid)
        run_id = self._mend(uid, found, content, state=_OPEN if content.is_open else content.tags["outcome"])
        if content.is_open:
            self._num_points_sent[run_id] = len(content.curves)
            return
        self._num_points_sent.pop(run_id, None)
        self._open.pop(uid, None)
        if uid in self._added or self._ledger.tracked(uid) != before:  # whichever update was the first to see its end
            self._added[uid] = hash(repr(content))

    def _trial_content(self, uid: str) -> RunContent:
        mean = self._means.get(uid)
        return trial_run(
            self._ledger, self._study, uid, self._parent_id, self._run_id, mean=mean, is_live=self._is_live
        )

    def _run_id(self, uid: str) -> str | None:
        tracked = self._ledger.tracked(uid)
        return tracked[0] if tracked else None

    def _show_parent(self, status: Status | None) -> None:
        self._mend_parent(self._search(f"tags.role = '{PARENT}'"), status)

    def _mend_parent(self, found: Sequence[Run], status: Status | None) -> None:
        tracked = self._ledger.tracked(self._name)
        found = _in_order(found, tracked)
        ended: list[Status] = [run.info.status for run in found if run.info.status in ENDED]
        status = status or (ended[0] if ended else None)
        known = progress(self._ledger, self._name)
        self._means = means(by_uid(self._study.spec, known.records))
        content = parent_content(known, report_of(found), status)
        reach(Step.BEFORE_PARENT_RUN)
        self._parent_id = self._mend(self._name, found, content, state=content.status.lower())
        self._num_points_sent[self._parent_id] = len(content.curves)

    def _mend(self, uid: str, found: Sequence[Run], content: RunContent, state: str) -> str:
        """Makes exactly one run, of `found` or a new one, match `content`; returns its id."""
        tracked = self._ledger.tracked(uid)
        found = _in_order(found, tracked)
        kept = next(filter(None, (self._bring(run, content) for run in found)), None)
        run = kept or self._create(content, found)
        run_id = str(run.info.run_id)
        others = [other for other in found if other.info.run_id != run_id and not _is_deleted(other)]
        for other in others:
            self._take_over_artifacts(run_id, other.info.run_id)
            self._client.delete_run(other.info.run_id)
        is_replaced = kept is None and bool(others)
        self.repairs.replaced += is_replaced
        self.repairs.created += kept is None and not others
        self.repairs.surplus += len(others) - is_replaced
        if self._is_thorough and run not in found:  # it has been changed, and is claimed to be as it should be
            for difference in self._differences(run, content)[:1]:
                self.repairs.problems.append(f"{content.name}: {difference}, and cannot be changed")
        if tracked != (run_id, state):
            self._ledger.set_tracked(uid, run_id, state)
            reach(Step.AFTER_TRACKED)
        self.num_steps += 1
        return run_id

    def _differences(self, run: Run, content: RunContent) -> list[str]:
        curves = curve_differences(self._client, run, content) if self._is_thorough else ()
        return [*run_differences(run, content), *curves]

    def _bring(self, run: Run, content: RunContent) -> Run | None:
        """Makes a run match `content`; None if that is impossible, since logged values are permanent."""
        run_id, was_deleted = run.info.run_id, _is_deleted(run)
        if not run.data.params.items() <= content.allowed_params.items() or not can_become(run.data.tags, content):
            return None
        if not was_deleted and not self._differences(run, content):
            return run
        if was_deleted:
            self._client.restore_run(run_id)
        self._fill(run, content)
        if self._is_thorough:
            run = self._client.get_run(run_id)
            if any((*logged_differences(run, content), *curve_differences(self._client, run, content))):
                if was_deleted:
                    self._client.delete_run(run_id)
                return None
        self.repairs.completed += 1
        return run

    def _create(self, content: RunContent, instead_of: Sequence[Run]) -> Run:
        """Creates a run, with the users' tags of the runs that it replaces."""
        live = [run for run in instead_of if not _is_deleted(run)]
        found = {key: value for run in reversed(live) for key, value in run.data.tags.items()}
        added = {key: value for key, value in found.items() if key not in content.wrong_tags}
        reach(Step.BEFORE_CREATE_RUN)
        tags = {NOTE: self._note(), **added, **content.tags, **_user_tag()}
        run = self._client.create_run(self.experiment_id, content.start_ms, tags, content.name)
        reach(Step.AFTER_CREATE_RUN)
        self._fill(run, content)
        return self._client.get_run(run.info.run_id) if self._is_thorough else run

    def _note(self) -> str:
        """The description of a new run; users may change it."""
        study_run = f"[the study's own run]({run_page(self.experiment_id, self._parent_id)})"
        return f"A training of {self._name}. Its metrics are explained in the description of {study_run}."

    def _take_over_artifacts(self, run_id: str, old_id: str) -> None:
        """Copies artifacts that the new run lacks, such as a report's figures, from a run that will be deleted."""
        try:
            there = {artifact.path for artifact in self._client.list_artifacts(run_id)}
            lacking = [found.path for found in self._client.list_artifacts(old_id) if found.path not in there]
            with TemporaryDirectory() as folder:
                for path in lacking:
                    self._client.download_artifacts(old_id, path, folder)
                if lacking:
                    self._client.log_artifacts(run_id, folder)
        except Exception as error:  # an unreachable artifact store must not block the runs
            self.repairs.problems.append(f"the artifacts of run {old_id} are there alone: {reason(error)}")

    def _fill(self, run: Run, content: RunContent) -> None:
        """Logs what a run lacks. Idempotent: MLflow keeps one of several equal parameters, points and tags."""
        from mlflow.entities import Metric, Param, RunTag

        run_id = run.info.run_id
        points = [*content.curves[self._num_points_sent.get(run_id, 0) :], *content.summary]
        metrics = [Metric(point.key, point.value, point.time_ms, point.step) for point in points]
        params = [Param(key, value) for key, value in content.params.items() if key not in run.data.params]
        tags = [RunTag(key, value) for key, value in content.tags.items() if run.data.tags.get(key) != value]
        self._client.log_batch(run_id, metrics[:_POINTS_PER_BATCH], params, tags)
        for key in content.wrong_tags & run.data.tags.keys():
            self._client.delete_tag(run_id, key)
        for start in range(_POINTS_PER_BATCH, len(metrics), _POINTS_PER_BATCH):
            self.num_steps += 1
            self._client.log_batch(run_id, metrics[start : start + _POINTS_PER_BATCH])
        reach(Step.AFTER_LOG_BATCH)
        if not (run.inputs and run.inputs.dataset_inputs):
            self._log_dataset(run_id)
        reach(Step.BEFORE_TERMINATED)
        if content.status != "RUNNING":
            self._client.set_terminated(run_id, content.status, content.end_ms)
        elif run.info.status != "RUNNING":
            self._client.update_run(run_id, "RUNNING")
        reach(Step.AFTER_TERMINATED)

    def _log_dataset(self, run_id: str) -> None:
        from mlflow.entities import DatasetInput, InputTag

        dataset = dataset_of(self._study)
        if dataset:
            self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def _save_files(self) -> None:
        """Logs the study's settings and diffs as files. An unreachable artifact store must not block the runs."""
        try:
            lost = self._lost_artifacts()
            if lost:
                self.repairs.problems.append(lost)
                return
            saved = {file.path for file in self._client.list_artifacts(self._parent_id)}
            files = [(_SPEC_FILE, self._study.spec.model_dump_json(indent=2))]
            files += [(diff_file(diff), diff) for diff in self._ledger.diffs(self._name)]  # uncommitted changes
            for name, text in files:
                if (
                    name not in saved or name == _SPEC_FILE
                ):  # its budget may have changed, or, before the first trial, any setting
                    self._client.log_text(self._parent_id, text, name)
                    saved.add(name)
        except TroubleError:  # the ledger's
            raise
        except Exception as error:
            self.repairs.problems.append(f"{_SPEC_FILE} was not saved to MLflow: {reason(error)}")

    def _lost_artifacts(self) -> str | None:
        lost = lost_artifacts(self._client, self._home, self.experiment_id)
        return lost and (
            f"{self._home} has moved: MLflow still looks for artifacts of {self._name} in {lost};"
            " without mlflow.db, `harness sync` makes it again"
        )


def _in_order(runs: Sequence[Run], tracked: tuple[str, str] | None) -> list[Run]:
    """Sorts live runs first, and among these the one in the ledger."""
    tracked_id = tracked[0] if tracked else None
    return sorted(runs, key=lambda run: (_is_deleted(run), run.info.run_id != tracked_id))


def _is_deleted(run: Run) -> bool:
    return bool(run.info.lifecycle_stage == "deleted")


def _user_tag() -> dict[str, str]:
    with suppress(OSError, KeyError):  # a container may run under an id that has no name
        return {"mlflow.user": getpass.getuser()}
    return {}
