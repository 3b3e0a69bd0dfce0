"""A trial takes over the result of an equal training, and of no other; the ledger says so, and nothing is charged."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from audited_study import edit
from filled_ledger import DOCUMENTED, make_spec
from killed_sweeps import STUDY, Sweeps, ledger_story
from mlflow import MlflowClient

from baselines.settings import Since
from harness.analysis.export.trials import export_table
from harness.analysis.files import write_csv
from harness.analysis.leaderboard.leaderboard import leaderboard
from harness.analysis.report.facts import gather
from harness.analysis.report.time_use import time_use
from harness.audit import audit, notes
from harness.audit.files import leaderboard_file
from harness.bench.scripted_workers import ScriptedWorkers
from harness.execution.base import Job, Place
from harness.execution.machine import backends
from harness.ledger import rows
from harness.ledger.ledger import Ledger
from harness.planning.cost_model import CostModel, cpu_estimate, measured
from harness.planning.plan import describe, make_plan
from harness.planning.progress import Progress
from harness.search.factory import make_search
from harness.search.proposer import Proposer
from harness.study.network import read_network
from harness.study.records import Device, EpochReport, Outcome, Record, Role, Seconds, Trial, TrialResult
from harness.study.settings import Budget, Decides, settings_that_decide
from harness.study.spec import SweepSpec
from harness.study.trainings import _NOT_OF_A_TRAINING, training_settings
from harness.support.failpoints import Step
from harness.sweep import loop, reuse
from harness.sweep.checkpoints import Checkpoints
from harness.sweep.display import PlainDisplay
from harness.sweep.loop import Sweep
from harness.sweep.reuse import Reuse, planned_trials
from harness.tracking.mlflow_runs import sync
from harness.workflows.removal import remove
from harness.workflows.report import write_report
from harness.workflows.verdict import Request, make_source, plan_verdict

OTHER = {"units_1": {"low": 16, "high": 2048}}
PLACE = Place("worker-0", "a processor", 1, 2, processor="its kind")
CPU = Device("a processor", "cpu", "tensorflow", "float32", "compiled", 1, 2)


def spec_of(study: str, **settings: Any) -> SweepSpec:
    few = {"dataset": "digits", "validation_images": 200, "pruner": "none", "budget": Budget(trials=2)}
    return make_spec(study, **(few | settings))


class Workers(ScriptedWorkers):
    """Their numbers follow from settings and seed, as those of trainings do; only the times are their own."""

    def __init__(self, spec: SweepSpec, places: Sequence[Place] = (PLACE,), crash: bool = False) -> None:
        super().__init__(len(places))
        self.places, self._spec, self._crash = list(places), spec, crash
        self.trained: list[Trial] = []

    def start(self, worker: str, job: Job) -> None:
        self.trained.append(job.trial)
        if job.save_to is not None:
            job.save_to.parent.mkdir(parents=True, exist_ok=True)
            job.save_to.write_bytes(self._bits(job.trial, 0))
        super().start(worker, job)

    def report(self, trial: Trial, epoch: int) -> EpochReport:
        seconds = Seconds(train=0.01 * len(self.trained))
        if epoch == trial.epochs:
            num_wrong, num_images = len(self._wrong(trial)), 297
        else:
            num_wrong, num_images = self._bits(trial, epoch)[0] % 200, 200
        return EpochReport(epoch, 0.5 / epoch, 0.5, 100 * num_wrong / num_images, num_images, seconds)

    def result(self, trial: Trial, curve: Sequence[EpochReport]) -> TrialResult:
        if self._crash or len(curve) < trial.epochs:
            return TrialResult(Outcome.CRASHED if self._crash else Outcome.PRUNED, curve=tuple(curve))
        wrong = self._wrong(trial)
        judges = not self._spec.trains_on_validation
        return TrialResult(
            Outcome.COMPLETED,
            curve=tuple(curve),
            seconds=Seconds(train=sum(report.seconds.train for report in curve)),
            num_params=1000,
            peak_memory_mb=600.0,
            device=CPU,
            wrong_images=wrong if judges else None,
            test_wrong_images=wrong[:9] if self._spec.reads_test else None,
        )

    def _wrong(self, trial: Trial) -> tuple[int, ...]:
        return tuple(sorted(set(self._bits(trial, 99))))

    def _bits(self, trial: Trial, epoch: int) -> bytes:
        return hashlib.sha256(json.dumps([training_settings(self._spec, trial), epoch]).encode()).digest()


class Home:
    """A ledger, and studies that are run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ledger, self.output = folder, Ledger(folder / "ledger.db"), io.StringIO()

    def run(
        self, spec: SweepSpec, *, reuses: bool = True, workers: Workers | None = None, source: Any = None
    ) -> list[Trial]:
        """Starts or continues a study; returns what was trained for it."""
        if not self.ledger.has_trials(spec.study):
            self.ledger.create_study(spec, {"data_digest": "digits"})
        records, workers = self.ledger.history(spec.study), workers or Workers(spec)
        source = source or (
            make_source(spec, self.ledger, records) if spec.is_verdict else Proposer(spec, make_search(spec), records)
        )
        display, costs = PlainDisplay(self.output), CostModel(spec, cpu_estimate(1e11))
        kept = Checkpoints(spec, self.folder / "checkpoints" / spec.study)
        reuse = Reuse(spec, self.ledger, kept, is_on=reuses)
        Sweep(spec, self.ledger, records, source, workers, [], display, kept, costs, reuse=reuse).run()
        return workers.trained

    def record(self, study: str, number: int) -> Record:
        return self.ledger.record(self.ledger.history(study)[number].trial.uid)

    def finder(self, spec: SweepSpec, **how: Any) -> Reuse:
        return Reuse(spec, self.ledger, Checkpoints(spec, self.folder / "checkpoints" / spec.study), **how)


@pytest.fixture
def home(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    home = Home(tmp_path)
    with closing(home.ledger):
        yield home


def numbers(result: TrialResult) -> TrialResult:
    return dataclasses.replace(result, reused_from=None)


# What decides a training's numbers


def trial_of(spec: SweepSpec, **changes: Any) -> Trial:
    return Trial("uid", 0, **{"params": spec.baseline_params, "seed": 0, "epochs": spec.epochs, **changes})


def test_studies_with_different_spaces_share_the_documented_training(home: Home) -> None:
    first = spec_of("first")
    digest = home.finder(first).training(trial_of(first), PLACE)
    assert digest is not None
    for other in (
        spec_of("second", space={"dropout": {"low": 0.0, "high": 0.5}, "learning_rate": {"low": 1e-3, "high": 1e-2}}),
        spec_of("third", sampler="random", seed=7, baseline_seeds=9, budget=Budget(trials=99), trial_timeout_s=9.0),
        spec_of("fourth", space={}),
    ):
        assert home.finder(other).training(trial_of(other), PLACE) == digest
    place = dataclasses.replace(PLACE, name="worker-9", sharing=8, node="another")
    assert home.finder(first).training(trial_of(first, role=Role.BASELINE), place) == digest


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 4},
        {"train_images": 999},
        {"validation_images": 100},
        {"dataset": "mnist"},
        {"precision": "bfloat16"},
        {"baseline": "cnn", "space": {}},
        {"recipe": {"learning_rate": 1e-3, "schedule": "warmup_cosine", "warmup_share": 0.1, "batch_size": 128}},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_another_study_trains_otherwise(home: Home, settings: dict[str, Any]) -> None:
    spec, other = spec_of("study"), spec_of("other", **settings)
    assert home.finder(spec).training(trial_of(spec), PLACE) != home.finder(other).training(trial_of(other), PLACE)


def test_another_trial_or_place_or_version_trains_otherwise(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of("study")
    finder, trial = home.finder(spec), trial_of(spec)
    found = [
        finder.training(trial, PLACE),
        finder.training(dataclasses.replace(trial, seed=1), PLACE),
        finder.training(dataclasses.replace(trial, params=DOCUMENTED | {"units_1": 511}), PLACE),
        *(
            finder.training(trial, dataclasses.replace(PLACE, **change))
            for change in ({"device_name": "another"}, {"threads": 2}, {"processor": "another kind"})
        ),
    ]
    monkeypatch.setattr(reuse, "is_code_committed", lambda: True)
    found.append(home.finder(spec).training(trial, PLACE))
    monkeypatch.setattr(reuse, "TRAINING_VERSION", reuse.TRAINING_VERSION + 1)
    found.append(home.finder(spec).training(trial, PLACE))
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    found.append(home.finder(spec).training(trial, PLACE))
    monkeypatch.setattr(reuse, "versions", lambda: {"numpy": "9"})
    found.append(home.finder(spec).training(trial, PLACE))
    committed = found.pop(6)
    assert len(set(found)) == len(found)
    assert committed not in found[6:]


@pytest.mark.parametrize("variable", ["TF_XLA_FLAGS", "TF_DETERMINISTIC_OPS", "XLA_FLAGS", "ONEDNN_MAX_CPU_ISA"])
def test_variables_that_choose_kernels_count(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = reuse.conditions("digits")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "7")
    assert reuse.conditions("digits") == before
    monkeypatch.setenv(variable, "1")
    assert reuse.conditions("digits") != before


def test_a_changed_network_trains_otherwise(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each network by its own file, so that none needs known results (tests/test_training_version.py)."""
    fc, cnn = spec_of("study"), spec_of("other", baseline="cnn", space={"filters_1": {"low": 8, "high": 64}})
    before = [home.finder(spec).training(trial_of(spec), PLACE) for spec in (fc, cnn)]
    changed = Path(shutil.copytree(reuse.BASELINES, tmp_path / "baselines"))
    monkeypatch.setattr(reuse, "BASELINES", changed)
    assert [home.finder(spec).training(trial_of(spec), PLACE) for spec in (fc, cnn)] == before
    (changed / "fc.py").write_bytes((changed / "fc.py").read_bytes() + b"# another\n")
    after = [home.finder(spec).training(trial_of(spec), PLACE) for spec in (fc, cnn)]
    assert [after[0] == before[0], after[1] == before[1]] == [False, True]


MINE = """
from baselines.fc import Config, DOCUMENTED, NUM_PARAMS, build, cost
"""


@pytest.mark.parametrize(
    ("imports", "is_known"),
    [
        ("import math, keras.layers as layers", True),
        ("from tensorflow import nn", True),
        ("import pytest", False),
        ("def late():\n    from torch import nn", False),
        ("import importlib", False),
        ("from . import other", False),
    ],
)
def test_a_network_of_ones_own_is_known_by_its_file_and_the_built_in_ones(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imports: str, is_known: bool
) -> None:
    """Nothing is recorded of other packages that it imports, and an installed one may change."""
    file = tmp_path / "mine.py"
    file.write_text(MINE + (f"if False:\n    {imports}\n" if "\n" not in imports else f"{imports}\n"))
    network = read_network(file)
    spec = spec_of("study", baseline=network.name, network=network)
    before = home.finder(spec).training(trial_of(spec), PLACE)
    assert (before is not None) == is_known
    changed = Path(shutil.copytree(reuse.BASELINES, tmp_path / "baselines"))
    monkeypatch.setattr(reuse, "BASELINES", changed)
    assert home.finder(spec).training(trial_of(spec), PLACE) == before
    (changed / "fc.py").write_bytes((changed / "fc.py").read_bytes() + b"# another\n")
    assert (home.finder(spec).training(trial_of(spec), PLACE) == before) == (before is None)


def test_a_source_that_is_another_training_is_not_taken_over(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """An imported study may have wrong digests."""
    home.run(spec_of("source"))
    finder, trial = home.finder(spec_of("study")), trial_of(spec_of("study"))
    assert finder.find(trial, PLACE) is not None
    of_another = finder.training(dataclasses.replace(trial, seed=1), PLACE)
    assert finder.find(dataclasses.replace(trial, seed=1), PLACE) is not None
    monkeypatch.setattr(finder, "training", lambda *given: of_another)
    assert finder.find(trial, PLACE) is None


def test_uncommitted_code_is_known_by_its_digest(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "is_code_committed", lambda: False)
    before = reuse.conditions("digits")
    monkeypatch.setattr(reuse.own_code, "digest", lambda: "edited")
    assert reuse.conditions("digits") == {**before, "code": "edited"}


def test_what_cannot_be_repeated_is_never_taken_over(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of("study")
    finder, trial = home.finder(spec), trial_of(spec)
    assert finder.training(trial, dataclasses.replace(PLACE, gpu="GPU-1")) is None
    assert finder.training(trial, None) is None
    assert finder.training(dataclasses.replace(trial, epochs=2), PLACE) is None
    assert finder.training(dataclasses.replace(trial, continues="another"), PLACE) is None
    for other in ("jax", "torch"):
        monkeypatch.setattr(backends, "backend", lambda other=other: other)
        assert home.finder(spec).training(trial, PLACE) is None, other


def test_a_setting_counts_unless_it_is_known_not_to(home: Home) -> None:
    assert set(SweepSpec.model_fields) >= _NOT_OF_A_TRAINING
    decide = settings_that_decide(Decides.ARCHITECTURE, Decides.ERRORS, Decides.CURVES)
    assert _NOT_OF_A_TRAINING.isdisjoint(decide)
    spec = spec_of("study")
    later = {name for name in decide if any(isinstance(mark, Since) for mark in SweepSpec.model_fields[name].metadata)}
    has_to_count = {name for name in decide if name not in later or spec.sets(name)}
    assert set(training_settings(spec, trial_of(spec))["study"]) >= has_to_count


# The loop


def test_a_second_study_takes_over_the_documented_network(home: Home) -> None:
    first, second = spec_of("first"), spec_of("second", space=OTHER, sampler="random")
    assert len(home.run(first)) == 4
    trained = home.run(second)
    assert [trial.number for trial in trained] == [2, 3]
    for number in (0, 1):
        source, taken = home.record("first", number), home.record("second", number)
        assert taken.result.reused_from == source.trial.uid
        assert numbers(taken.result) == source.result
        assert taken.result.curve == source.result.curve
        assert (taken.attempts, taken.reserved_time_s, taken.device_time_s) == (1, 0.0, source.device_time_s)
        assert taken.reused_time_s == source.result.seconds.wall
        assert measured(second, taken) is None, "its time is known from the other study"
    used = [record.reserved_time_s for record in home.ledger.history("second")[2:]]
    assert home.ledger.usage("second").device_s == sum(used)
    assert home.ledger.usage("second").trials == 2
    assert "baseline 0" in home.output.getvalue()
    (line,) = (line for line in home.output.getvalue().splitlines() if "reused from first trial 0" in line)
    assert line.startswith("baseline 0")


def test_a_chain_never_forms(home: Home) -> None:
    for name in ("first", "second", "third"):
        home.run(spec_of(name))
    assert home.record("third", 0).result.reused_from == home.record("first", 0).trial.uid
    home.ledger.rename_study("first", "first.20260101-000000")
    assert home.run(spec_of("first")) == []
    assert "reused from first.20260101-000000 trial 0" in home.output.getvalue()


@pytest.mark.parametrize(
    ("engine", "sampler", "pruner"),
    [
        ("optuna", "tpe", "median"),
        ("optuna", "tpe", "successive_halving"),
        ("keras-tuner", "random", "none"),
        ("keras-tuner", "hyperband", "none"),
    ],
)
def test_a_repeated_study_finds_the_same_and_trains_only_what_was_not_trained_to_its_end(
    home: Home, engine: str, sampler: str, pruner: str
) -> None:
    settings = {"engine": engine, "sampler": sampler, "pruner": pruner, "budget": Budget(trials=15)}
    home.run(spec_of("first", **settings))
    trained = {trial.number for trial in home.run(spec_of("second", **settings))}
    for one, other in zip(home.ledger.history("first"), home.ledger.history("second"), strict=True):
        assert one.trial == dataclasses.replace(other.trial, uid=one.trial.uid, continues=one.trial.continues)
        assert (one.asks, one.result.outcome) == (other.asks, other.result.outcome)
        may_be_taken = one.result.outcome is Outcome.COMPLETED and not one.trial.continues and one.trial.epochs == 3
        assert (other.trial.number in trained) != may_be_taken
    assert 0 < len(trained) < 17 or (trained == set() and pruner == "none")


def test_nothing_is_taken_over_where_it_is_switched_off(home: Home) -> None:
    home.run(spec_of("first"))
    assert len(home.run(spec_of("second"), reuses=False)) == 4
    assert home.record("second", 0).result.reused_from is None
    assert home.record("second", 0).result.training == home.record("first", 0).result.training


def test_only_what_was_trained_to_its_end_is_taken_over(home: Home) -> None:
    crashed = spec_of("crashed", budget=Budget(trials=0))
    home.run(crashed, workers=Workers(crashed, crash=True))
    assert len(home.run(spec_of("second"))) == 4


def test_a_gpu_takes_over_nothing_and_leaves_nothing(home: Home) -> None:
    spec = spec_of("first")
    gpu = dataclasses.replace(PLACE, gpu="GPU-1")
    home.run(spec, workers=Workers(spec, [gpu]))
    assert home.record("first", 0).result.training is None
    assert len(home.run(spec_of("cpu"))) == 4
    assert len(home.run(spec_of("second"), workers=Workers(spec, [gpu]))) == 4


def test_what_a_worker_may_take_over_depends_on_its_place(home: Home) -> None:
    """As on a cluster, whose nodes differ."""
    home.run(spec_of("first", budget=Budget(trials=0)))
    spec = spec_of("second", budget=Budget(trials=0))
    elsewhere = dataclasses.replace(PLACE, device_name="another processor")
    assert len(home.run(spec, workers=Workers(spec, [elsewhere]))) == 2


def test_a_damaged_source_is_trained_again(home: Home) -> None:
    home.run(spec_of("first"))
    uid = home.record("first", 0).trial.uid
    with closing(sqlite3.connect(home.folder / "ledger.db")) as db, db:
        db.execute("UPDATE attempts SET reserved_time_s = 5 WHERE uid = ?", (uid,))
    assert [trial.number for trial in home.run(spec_of("second", budget=Budget(trials=0)))] == [0]


def test_a_pruner_stops_a_trial_that_takes_over_where_it_would_stop_its_training(home: Home) -> None:
    class Stops(Proposer):
        def report(self, trial: Trial, report: EpochReport) -> bool:
            return trial.role is not Role.TRIAL or report.epoch < 2

    whole = spec_of("whole", sampler="random")
    home.run(whole)
    spec = spec_of("stopped", sampler="random")
    assert home.run(spec, source=Stops(spec, make_search(spec), [])) == []
    source, taken = home.record("whole", 2), home.record("stopped", 2)
    assert (taken.result.outcome, taken.result.curve) == (Outcome.PRUNED, source.result.curve[:2])
    assert taken.result.seconds.train == sum(report.seconds.train for report in taken.result.curve)
    assert (taken.result.wrong_images, taken.result.error_rate_pct) == (None, None)
    assert taken.result.val_error_rate_pct == taken.result.curve[-1].val_error_rate_pct
    sync(home.folder, ["stopped"], pytest.fail)
    assert audit(home.folder, "stopped") == []


class KilledError(BaseException):
    """The coordinator's end."""


@pytest.mark.parametrize("step", [Step.BEFORE_PROPOSE, Step.BEFORE_REUSE, Step.AFTER_REUSE, Step.AFTER_TELL])
@pytest.mark.parametrize("at", [1, 3])
def test_a_kill_loses_nothing_and_counts_nothing_twice(
    home: Home, monkeypatch: pytest.MonkeyPatch, step: Step, at: int
) -> None:
    settings: dict[str, Any] = {"sampler": "tpe", "budget": Budget(trials=14)}
    home.run(spec_of("first", **settings))
    reached: list[Step] = []

    def reach(now: Step) -> None:
        reached.append(now)
        if now is step and reached.count(step) == at:
            raise KilledError

    monkeypatch.setattr(loop, "reach", reach)
    second = spec_of("second", **settings)
    with pytest.raises(KilledError):
        home.run(second)
    assert home.ledger.num_pending("second") == 0
    assert home.run(second) == []
    pairs = list(zip(home.ledger.history("first"), home.ledger.history("second"), strict=True))
    assert [one.trial.params for one, _ in pairs] == [other.trial.params for _, other in pairs]
    assert all(other.attempts == 1 and numbers(other.result) == one.result for one, other in pairs)


def test_a_trial_whose_attempt_was_lost_may_take_over(home: Home) -> None:
    home.run(spec_of("first", budget=Budget(trials=0)))
    spec = spec_of("second", budget=Budget(trials=0))
    home.ledger.create_study(spec, {})
    home.ledger.propose("second", trial_of(spec, role=Role.BASELINE), 0, 0.0)
    home.ledger.start_attempt("uid", "worker-0")
    assert home.run(spec) == []
    assert [attempt.outcome for attempt in home.ledger.attempts("uid")] == [Outcome.CANCELLED, Outcome.COMPLETED]


def test_a_time_budget_has_room_for_what_takes_no_time(home: Home) -> None:
    home.run(spec_of("first", sampler="random"))
    short = spec_of("short", sampler="random", budget=Budget(trials=2, device_s=1e-9))
    home.run(short)
    assert [bool(record.result) for record in home.ledger.history("short")][:2] == [True, True]
    assert home.ledger.usage("short").device_s == 0.0


# What is shown


def test_the_plan_says_what_is_not_trained_again_and_counts_no_time_for_it(home: Home) -> None:
    spec, place = spec_of("second", budget=Budget(trials=0)), [PLACE]
    home.run(spec_of("first", budget=Budget(trials=0)))

    def plan(num_reusable: int) -> Any:
        costs = CostModel(spec, cpu_estimate(1e11))
        return make_plan(Progress(spec, [], home.ledger.usage("second"), costs, num_reusable), [], 1)

    num_reusable = home.finder(spec).num_foreseen([], PLACE)
    assert num_reusable == 2
    assert home.finder(spec, is_on=False).num_foreseen([], PLACE) == 0
    assert describe(spec, place, plan(2))[-1] == "reuse     2 of them are in the ledger"
    assert not any(line.startswith("reuse") for line in describe(spec, place, plan(0)))
    assert plan(2).time_left.high_s < plan(1).time_left.high_s < plan(0).time_left.high_s


def test_leaderboard_export_and_mlflow_name_the_source(home: Home, tmp_path: Path) -> None:
    home.run(spec_of("first"))
    assert "reused_from" not in leaderboard(home.ledger, ["first"])
    home.run(spec_of("second", space=OTHER))
    board = leaderboard(home.ledger, ["second"])
    assert dict(zip(board["trial"], board["reused_from"].fillna(""), strict=True)) == {
        0: "first:0",
        1: "first:1",
        2: "",
        3: "",
    }
    uid = home.record("first", 0).trial.uid
    export_table(home.ledger, "second", tmp_path / "trials.json", "json")
    assert json.loads((tmp_path / "trials.json").read_text())[0]["reused_from"] == uid
    sync(home.folder, ["second"], pytest.fail)
    assert audit(home.folder, "second") == []
    client = MlflowClient(f"sqlite:///{home.folder}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(experiments, f"tags.reused_from = '{uid}'")
    assert run.data.tags["trial"] == "0"
    assert run.data.metrics["device_time_s"] == home.record("first", 0).device_time_s


def test_a_report_counts_the_time_of_its_own_trainings_and_shows_the_other(home: Home) -> None:
    home.run(spec_of("first"))
    home.run(spec_of("second", space=OTHER))
    found, records = time_use(gather(home.ledger, "second")), home.ledger.history("second")
    assert found.completed["training"] == pytest.approx(sum(one.result.train_time_s for one in records[2:]))
    assert found.reused_s == pytest.approx(sum(one.result.seconds.wall for one in records[:2]))
    assert found.lost_s == 0.0
    page = write_report(home.folder, "second").path.read_text()
    assert "2 trials took over the result of an equal training in the ledger." in page


# The audit


@pytest.fixture
def taken(home: Home) -> Home:
    home.run(spec_of("first", budget=Budget(trials=0)))
    home.run(spec_of("second", budget=Budget(trials=0)))
    sync(home.folder, ["second"], pytest.fail)
    assert (audit(home.folder, "second"), notes(home.folder, "second")) == ([], [])
    return home


def differences(home: Home) -> list[str]:
    return [line for line in audit(home.folder, "second") if "reused from" in line]


def test_a_removed_source_is_a_note(taken: Home) -> None:
    uid = taken.record("first", 0).trial.uid
    file = leaderboard_file(taken.folder, "second")
    file.parent.mkdir()
    write_csv(leaderboard(taken.ledger, ["second"]), file)
    taken.ledger.rename_study("first", "renamed")
    assert audit(taken.folder, "second") == [], "the file names the source as it was then"
    remove(taken.folder, "renamed")
    assert audit(taken.folder, "second") == []
    file.write_text(file.read_text().replace("first:1", ""))
    assert [line.partition(";")[0] for line in audit(taken.folder, "second")] == [
        f"second.csv: trial 1: reused_from is empty, should be {taken.record('second', 1).result.reused_from}"
    ]
    file.unlink()
    assert notes(taken.folder, "second")[0] == (
        f"trial 0: its result is from trial {uid}, which is not in this ledger; it is not compared"
    )
    assert leaderboard(taken.ledger, ["second"])["reused_from"].iloc[0] in notes(taken.folder, "second")[0]
    third = spec_of("third", budget=Budget(trials=0))
    assert len(taken.run(third)) == 2, "what was taken over is no source"


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("result = json_set(result, '$.reused_from', :other)", "that trial is another training"),
        ("result = json_set(result, '$.training', 'made up')", "that trial is another training"),
        ("result = json_set(result, '$.reused_from', uid)", "that trial was not trained to its end itself"),
        ("result = json_set(result, '$.peak_memory_mb', 1)", "other numbers than that trial (peak_memory_mb)"),
        ("reserved_time_s = 1.0", "held a device for 1.0 s; must be 0"),
    ],
)
def test_a_doctored_link_is_found(taken: Home, statement: str, problem: str) -> None:
    uid, other = taken.record("second", 0).trial.uid, taken.record("first", 1).trial.uid
    change = statement.replace(":other", f"'{other}'")
    edit(taken.folder / "ledger.db", f"UPDATE attempts SET {change} WHERE uid = ?", uid)  # noqa: S608 - ours
    (line,) = differences(taken)
    assert line.startswith("ledger: trial 0: reused from ")
    assert problem in line


def test_a_doctored_curve_is_found(taken: Home) -> None:
    uid = taken.record("second", 1).trial.uid
    change = "UPDATE epochs SET report = json_set(report, '$.train_loss', 9.5) WHERE uid = ? AND epoch = 2"
    edit(taken.folder / "ledger.db", change, uid)
    (line,) = differences(taken)
    assert "other numbers than that trial (curve)" in line


# Verdicts


def confirm(home: Home, study: str, **how: Any) -> list[Trial]:
    """Runs the verdict on a study; returns what was trained for it."""
    spec, _ = plan_verdict(home.ledger, study, Request(top=1, num_seeds=3), fresh=False)
    return home.run(spec, **how)


def is_documented(trial: Trial) -> bool:
    return dict(trial.params) == dict.fromkeys(trial.params, 512)


def test_a_second_verdict_trains_only_its_candidates(home: Home) -> None:
    home.run(spec_of("first"))
    home.run(spec_of("second", sampler="random", seed=5, space={"units_1": {"low": 64, "high": 1024}}))
    assert sum(map(is_documented, confirm(home, "first"))) == 3
    trained = confirm(home, "second")
    assert len(trained) == 3
    assert not any(map(is_documented, trained))
    taken = [record for record in home.ledger.finished("second.verdict") if record.result.reused_from]
    assert [is_documented(record.trial) for record in taken] == [True] * 3
    assert all(record.result.test_wrong_images for record in taken)
    # It may become the champion.
    own = home.folder / "checkpoints" / "second.verdict" / f"{taken[0].trial.uid}.npz"
    other = home.folder / "checkpoints" / "first.verdict" / f"{taken[0].result.reused_from}.npz"
    assert own.read_bytes() == other.read_bytes()


def test_without_its_weights_the_first_seed_is_trained_again(home: Home) -> None:
    home.run(spec_of("first"))
    home.run(spec_of("second", sampler="random", space=OTHER, seed=5))
    confirm(home, "first")
    shutil.rmtree(home.folder / "checkpoints")
    trained = confirm(home, "second")
    seed = min(trial.seed for trial in trained)
    assert [trial.seed for trial in trained if is_documented(trial)] == [seed]


def test_a_trial_without_test_errors_is_no_source_for_one_that_needs_them(home: Home) -> None:
    plain, reading = spec_of("plain", space={}), spec_of("reading", space={}, reads_test=True)
    home.run(plain)
    assert len(home.run(reading)) == 2
    home.ledger.remove_study("plain")
    assert home.run(spec_of("again", space={})) == []
    assert home.record("again", 0).result.test_wrong_images is None, "they stay sealed"


def test_the_plan_of_a_verdict_knows_all_its_trainings(home: Home) -> None:
    home.run(spec_of("first"))
    spec, _ = plan_verdict(home.ledger, "first", Request(top=1, num_seeds=3), fresh=False)
    trained = home.run(spec)
    planned = planned_trials(spec)
    assert [(trial.params, trial.seed, trial.epochs) for trial in planned] == [
        (trial.params, trial.seed, trial.epochs) for trial in trained
    ]


# Many trials, and real processes


def test_a_source_is_found_through_an_index(home: Home) -> None:
    plan = home.ledger._db.execute("EXPLAIN QUERY PLAN " + rows.TRAINED, ("training", "completed", True)).fetchall()
    assert any("USING INDEX trainings" in row["detail"] for row in plan)
    assert not any(row["detail"].startswith("SCAN") for row in plan)


REUSE_KILLS = ["before_reuse", "after_reuse:2"]


@pytest.mark.slow
def test_a_command_that_is_killed_while_it_takes_over_goes_on(digits_folder: Path, tmp_path: Path) -> None:
    sweeps = Sweeps(tmp_path, digits_folder.parent)
    sweeps.run_to_the_end()
    before = ledger_story(sweeps.home)
    again = dataclasses.replace(sweeps, flags=("--fresh",))
    for kill in REUSE_KILLS:
        with (again if kill == REUSE_KILLS[0] else sweeps).start(failpoint=kill) as started:
            started.wait()
    sweeps.run_to_the_end()
    assert ledger_story(sweeps.home)[0] == before[0]
    assert audit(sweeps.home, STUDY) == []
    reused = sweeps.ask("SELECT count(*) FROM attempts WHERE json_extract(result, '$.reused_from') IS NOT NULL")
    assert reused[0][0] > 3
