"""Trials on digits that are really trained, written down, and trained again."""

from __future__ import annotations

import dataclasses
import io
import json
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from audited_study import edit
from filled_ledger import RECIPE, make_spec

from harness.analysis.reproduction.agreement import (
    Agreement,
    Condition,
    Interval,
    Match,
    changed_device,
    changed_origin,
    judge,
    seeds_interval,
)
from harness.analysis.reproduction.sentences import sentences
from harness.cli import main
from harness.errors import TroubleError
from harness.execution.base import Died, EpochDone, Event, Finished, Job, Place, Ready
from harness.execution.data import cache
from harness.execution.machine.devices import Machine, this_machine
from harness.execution.machine.gpus import Gpu
from harness.execution.training.trainer import Trainer
from harness.ledger.ledger import Ledger
from harness.study.data import BUILT_IN
from harness.study.records import Device, EpochReport, Outcome, Params, Role, Seconds, Trial, TrialResult
from harness.study.settings import Kind
from harness.study.spec import SweepSpec
from harness.support.provenance import diff_file, session_provenance
from harness.sweep.display import PlainDisplay
from harness.workflows.reproduce import Reproduction, find_place, reproduce

SMALL = {"units_1": 64, "units_2": 32}
DROPOUT = {"dropout": {"low": 0.0, "high": 0.5}}


class InProcess:
    """A worker of this process, which has its framework loaded already; a thread waits for the answers."""

    def __init__(self, spec: SweepSpec, places: list[Place], data_folder: Path, log_folder: Path) -> None:
        self.places = places
        self._trainer = Trainer(spec, places[0], data_folder)
        self._events: queue.Queue[Event] = queue.Queue()
        self._answers: queue.Queue[bool] = queue.Queue()
        self._events.put(Ready(places[0].name))

    def start(self, worker: str, job: Job) -> None:
        def ask(report: EpochReport) -> bool:
            self._events.put(EpochDone(worker, report))
            return self._answers.get()

        def run() -> None:
            self._events.put(Finished(worker, self._trainer.run(job, ask)))
            self._events.put(Ready(worker))

        threading.Thread(target=run, daemon=True).start()

    def events(self, timeout_s: float) -> list[Event]:
        return [self._events.get(timeout=60)]

    def answer(self, worker: str, *, go_on: bool) -> None:
        self._answers.put(go_on)

    def kill(self, worker: str) -> None: ...

    def close(self) -> None: ...


class Study:
    """A study whose trials are trained here, as its ledger says."""

    def __init__(self, home: Path, spec: SweepSpec, data_folder: Path) -> None:
        self.home, self.spec = home, spec
        self.ledger = Ledger(home / "ledger.db")
        self.ledger.create_study(spec, {"data_digest": cache.data_digest(spec.dataset)})
        self.ledger.start_session(spec.study, session_provenance())
        self._trainer = Trainer(spec, Place("worker-0", this_machine().cpu_name, 1, 2), data_folder)
        self._number = 0
        self.lines = io.StringIO()  # what people see of a reproduction

    def propose(self, params: Params = SMALL, seed: int = 0, epochs: int = 3, **more: object) -> Trial:
        number, self._number = self._number, self._number + 1
        trial = Trial(f"{self.spec.study}-{number}", number, params, seed, epochs, **more)  # type: ignore[arg-type]
        self.ledger.propose(self.spec.study, trial, 1, 0.0)
        return trial

    def train(self, trial: Trial, stop_after: int = 99) -> TrialResult:
        attempt = self.ledger.start_attempt(trial.uid, "worker-0")

        def on_epoch(report: EpochReport) -> bool:
            self.ledger.add_epoch(trial.uid, attempt, report, 1.0)
            return report.epoch < stop_after

        before = self._checkpoint(trial.continues) if trial.continues else None
        result = self._trainer.run(Job(trial, before, self._checkpoint(trial.uid)), on_epoch)
        self.ledger.finish_attempt(trial.uid, attempt, result, 1.0, is_final=True)
        return result

    def edit(self, statement: str, *values: object) -> None:
        edit(self.ledger.path, statement, *values)

    def again(self, number: int) -> Reproduction:
        return reproduce(self.spec.study, number, self.home, PlainDisplay(self.lines))

    def content(self) -> str:
        """All that the ledger holds."""
        with closing(sqlite3.connect(self.ledger.path)) as db:
            return "\n".join(db.iterdump())

    def _checkpoint(self, uid: str) -> Path:
        return self.home / f"{uid}.npz"


@pytest.fixture
def make_study(
    smoke: SweepSpec, digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Study]]:
    monkeypatch.setenv("HARNESS_DATA", str(digits_folder.parent))
    monkeypatch.setattr("harness.workflows.reproduce.LocalExecutor", InProcess)
    made: list[Study] = []

    def make(**settings: object) -> Study:
        spec = smoke.model_copy(update={"study": "study", "space": {**smoke.space, **DROPOUT}, **settings})
        made.append(Study(tmp_path, spec, digits_folder))
        return made[-1]

    yield make
    for study in made:
        study.ledger.close()


def differences(agreement: Agreement) -> list[tuple[int | None, str]]:
    return [(deviation.epoch, deviation.what) for deviation in agreement.deviations]


# What comes out the same


def test_a_trial_comes_out_the_same_and_leaves_no_trace_in_the_study(make_study: Callable[..., Study]) -> None:
    study = make_study()
    result = study.train(study.propose({**SMALL, "dropout": 0.3}))
    before = study.content()
    done = study.again(0)
    assert sentences(done.agreement) == [
        "IDENTICAL: all 16 numbers of 3 epochs and of the trained model are as recorded, bit for bit;"
        f" {result.error_rate_pct:.2f} %",
        "code, versions, machine and data are the same",
    ]
    assert (done.agreement.num_epochs, done.agreement.must_be_identical) == (3, True)
    assert study.content() == before
    written = json.loads(done.path.read_text())
    assert (written["match"], written["study"], written["trial"]) == ("identical", "study", 0)
    assert [epoch["train_loss"] for epoch in written["curve"]] == [report.train_loss for report in result.curve]


def test_a_pruned_trial_is_trained_as_far_as_it_was(make_study: Callable[..., Study]) -> None:
    study = make_study()
    assert study.train(study.propose(), stop_after=2).outcome is Outcome.PRUNED
    agreement = study.again(0).agreement
    assert (agreement.match, agreement.num_epochs) == (Match.IDENTICAL, 2)


def test_a_continued_trial_is_trained_from_its_first_epoch_on(make_study: Callable[..., Study]) -> None:
    study = make_study()
    params = {**SMALL, "dropout": 0.3}
    first = study.propose(params, epochs=1)
    rest = study.propose(params, continues=first.uid)
    assert [len(study.train(trial).curve) for trial in (first, rest)] == [1, 2]
    agreement = study.again(1).agreement
    assert (agreement.match, agreement.num_epochs, differences(agreement)) == (Match.IDENTICAL, 3, [])


def test_a_diverged_trial_diverges_again(make_study: Callable[..., Study]) -> None:
    study = make_study(recipe={**RECIPE, "learning_rate": 2e9, "schedule": "constant"})
    assert study.train(study.propose()).outcome is Outcome.DIVERGED
    agreement = study.again(0).agreement
    assert (agreement.match, agreement.num_epochs) == (Match.IDENTICAL, 1)


def test_a_trial_whose_worker_died_is_compared_as_far_as_it_came(make_study: Callable[..., Study]) -> None:
    study = make_study()
    trial = study.propose()
    study.train(trial, stop_after=2)
    died = "UPDATE attempts SET outcome = ?, result = ?, wrong_images = NULL"
    study.edit(died, "crashed", json.dumps({"outcome": "crashed", "error": "worker killed by SIGKILL"}))
    agreement = study.again(0).agreement
    assert (differences(agreement), agreement.num_numbers) == ([], 8)
    assert agreement.match is Match.IDENTICAL


def test_the_test_images_stay_sealed(make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the trial has read them: a verdict's trainings, which learn from the validation images."""
    sizes = BUILT_IN["digits"].sizes
    study = make_study(
        study="study.verdict",
        kind=Kind.VERDICT,
        train_images=sizes["train"] + sizes["validation"],
        reads_test=True,
    )
    assert study.train(study.propose(role=Role.CONFIRM)).test_wrong_images is not None
    load, opened = cache.load, []

    def watched(dataset: str, split: cache.Split, folder: Path) -> object:
        opened.append(split)
        return load(dataset, split, folder)

    monkeypatch.setattr(cache, "load", watched)
    done = study.again(0)
    agreement = done.agreement
    assert (agreement.match, opened) == (Match.IDENTICAL, ["train", "validation"])
    assert sentences(agreement)[0].endswith("are as recorded, bit for bit")  # and no error on images that it knows
    curve = json.loads(done.path.read_text())["curve"]
    assert [(epoch["val_loss"], epoch["val_error_rate_pct"]) for epoch in curve] == [(None, None)] * 3
    assert "%" not in study.lines.getvalue()
    assert study.ledger.num_test_reads("study.verdict") == 1


# What comes out otherwise


def test_an_edited_number_is_found_with_its_epoch(make_study: Callable[..., Study]) -> None:
    study = make_study()
    loss = study.train(study.propose()).curve[1].train_loss
    assert loss is not None
    study.edit("UPDATE epochs SET report = json_set(report, '$.train_loss', ?) WHERE epoch = 2", loss + 1e-12)
    agreement = study.again(0).agreement
    assert (agreement.match, differences(agreement)) == (Match.DIFFERENT, [(2, "train_loss")])
    said = sentences(agreement)
    assert said[0].startswith("DIFFERENT: ")
    assert "nothing is known to have changed, so the numbers should be the same" in said[0]
    assert said[1].startswith("1 of 16 numbers differ, first in epoch 2: train_loss is ")
    assert said[1].endswith("1e-12 apart now")


def test_another_seed_or_recipe_is_found_in_the_first_epoch(make_study: Callable[..., Study]) -> None:
    study = make_study()
    study.train(study.propose())
    study.train(study.propose())
    study.edit("UPDATE trials SET seed = 1 WHERE number = 0")
    by_seed = study.again(0).agreement
    assert (by_seed.match, differences(by_seed)[0]) == (Match.DIFFERENT, (1, "train_loss"))
    study.edit("UPDATE studies SET spec = json_set(spec, '$.recipe.learning_rate', 0.001)")
    by_recipe = study.again(1).agreement
    assert (by_recipe.match, differences(by_recipe)[0]) == (Match.DIFFERENT, (1, "train_loss"))


def test_a_trial_of_a_dirty_tree_names_its_diff(make_study: Callable[..., Study]) -> None:
    study = make_study()
    diff = "--- a/baselines/fc.py\n+++ b/baselines/fc.py\n"
    commit = session_provenance()["git_commit"]
    origin = {**session_provenance(), "git_commit": "0a1b", "git_dirty": True, "git_diff": diff, "keras": "3.0.0"}
    study.ledger.start_session("study", origin)
    study.train(study.propose())
    done = study.again(0)
    assert [path.name for path in done.diffs] == [diff_file(diff)]
    assert done.diffs[0].read_text() == diff
    changed = {condition.what: condition.recorded for condition in done.agreement.conditions}
    assert changed == {"code": "0a1b", "uncommitted changes": diff_file(diff), "keras": "3.0.0"}
    assert any(line.startswith("  code                 0a1b -> ") for line in sentences(done.agreement)) or not commit


# What cannot be trained again


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (9, "trial is 9; allowed in study: 0 to 1"),
        (0, "trial 0 of study has no result yet; allowed: a trial that has ended"),
        (1, "trial 1 of study is infeasible with no epoch trained: 9 MFLOP per image; allowed: a trained one"),
    ],
)
def test_what_was_never_trained_is_refused_in_one_line(
    smoke: SweepSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    message: str,
) -> None:
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        ledger.create_study(smoke.model_copy(update={"study": "study"}), {})
        for one in (0, 1):
            ledger.propose("study", Trial(f"study-{one}", one, SMALL, 0, 3), 1, 0.0)
        attempt = ledger.start_attempt("study-1", "none")
        refused = TrialResult(Outcome.INFEASIBLE, "9 MFLOP per image")
        ledger.finish_attempt("study-1", attempt, refused, 0.0, is_final=True)
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    assert main(["reproduce", "study", str(number)]) == 2
    assert capsys.readouterr().err == f"harness: {message}\n"
    assert main(["reproduce", "other", "0"]) == 2
    assert "study is 'other'; allowed: study" in capsys.readouterr().err


def test_a_worker_that_dies_is_trouble(make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study()
    study.train(study.propose(), stop_after=1)
    dead = [Died("worker-0", "killed by SIGKILL", out_of_memory=False)]
    monkeypatch.setattr(InProcess, "events", lambda self, timeout_s: dead)
    with pytest.raises(TroubleError, match=r"^worker killed by SIGKILL while it trained the trial again$"):
        study.again(0)


# Numbers made up

CPU = Device("a processor", "cpu", "tensorflow 2.21.0", "float32", "compiled", 1, 2)
GPU = dataclasses.replace(CPU, name="an accelerator", kind="gpu", gpu_fraction=1.0)
SPEC = make_spec()
NEWER = Condition("keras", "3.15.0", "3.15.1")


def result(error_pct: float, loss: float = 0.5, wrong: tuple[int, ...] = (), device: Device = CPU) -> TrialResult:
    return TrialResult(
        Outcome.COMPLETED,
        curve=(EpochReport(1, loss, 0.25, error_pct, 1000, Seconds(train=1.0)),),
        num_params=10,
        device=device,
        wrong_images=wrong,
        final_error_rate_pct=error_pct,
        final_val_images=1000,
    )


def match(recorded: TrialResult, now: TrialResult, *conditions: Condition) -> Match:
    return judge(SPEC, recorded, now, Interval(2.0, 4.0, "seeds"), conditions).match


def test_the_same_numbers_are_identical_whatever_has_changed() -> None:
    assert match(result(3.0), result(3.0)) is Match.IDENTICAL
    assert match(result(3.0), result(3.0, device=GPU), NEWER) is Match.IDENTICAL
    slower = dataclasses.replace(result(3.0), seconds=Seconds(train=9.0), peak_memory_mb=5.0)
    assert match(result(3.0), slower) is Match.IDENTICAL


def test_an_error_within_the_interval_is_a_match_where_something_has_changed_or_on_a_gpu() -> None:
    recorded, now = result(3.0), result(3.5, loss=0.6)
    assert match(recorded, now) is Match.DIFFERENT
    assert match(recorded, now, Condition("host", "one", "other", may_matter=False)) is Match.DIFFERENT
    assert match(recorded, now, NEWER) is Match.WITHIN
    assert match(recorded, dataclasses.replace(now, device=GPU)) is Match.WITHIN
    assert match(recorded, result(4.01, loss=0.6), NEWER) is Match.DIFFERENT
    assert match(recorded, result(3.0, wrong=(1,)), NEWER) is Match.WITHIN
    diverged = dataclasses.replace(now, outcome=Outcome.DIVERGED)
    assert match(recorded, diverged, NEWER) is Match.DIFFERENT


def test_each_number_is_compared() -> None:
    recorded = result(3.0, wrong=(1, 2))
    (epoch,) = recorded.curve
    for name, value in {"train_loss": None, "val_loss": 0.26, "val_error_rate_pct": 3.1}.items():
        now = dataclasses.replace(recorded, curve=(dataclasses.replace(epoch, **{name: value}),))
        assert differences(judge(SPEC, recorded, now, None, [])) == [(1, name)]
    for name, value in {"num_params": 11, "final_error_rate_pct": 3.1, "wrong_images": (1, 3)}.items():
        now = dataclasses.replace(recorded, **{name: value})
        assert [epoch for epoch, _ in differences(judge(SPEC, recorded, now, None, []))] == [None]
    other_images = dataclasses.replace(epoch, val_images=999, val_loss=0.26)
    assert differences(judge(SPEC, recorded, dataclasses.replace(recorded, curve=(other_images,)), None, [])) == []
    longer = dataclasses.replace(recorded, curve=(epoch, dataclasses.replace(epoch, epoch=2)))
    assert differences(judge(SPEC, recorded, longer, None, [])) == [(2, "epoch")]


def test_what_is_said_of_a_match_within_the_interval() -> None:
    now = result(3.5, loss=0.5000001, wrong=(1, 2))
    agreement = judge(SPEC, result(3.0, wrong=(2, 3)), now, Interval(2.0, 4.0, "2 seeds of the baseline"), [NEWER])
    assert sentences(agreement) == [
        "WITHIN THE SEEDS' INTERVAL: 3.50 % now, 3.00 % recorded; allowed: 2.00 to 4.00 % (2 seeds of the baseline)",
        "4 of 8 numbers differ, first in epoch 1: train_loss is 0.5 recorded, 0.5000001, 1e-07 apart now",
        "these conditions differ:",
        "  keras  3.15.0 -> 3.15.1",
    ]


def test_no_error_on_images_that_were_trained_on_is_shown() -> None:
    verdict = make_spec(train_images=sum(BUILT_IN["mnist"].sizes.values()))
    agreement = judge(verdict, result(3.0, wrong=(2, 3)), result(3.5), Interval(2.0, 4.0, "seeds"), [NEWER])
    assert (agreement.recorded_pct, agreement.now_pct, agreement.interval) == (None, None, None)
    assert [(deviation.recorded, deviation.now) for deviation in agreement.deviations] == [(None, None)] * 3
    assert sentences(agreement)[:2] == [
        "WITHIN THE SEEDS' INTERVAL: it was trained on the validation images, so its error on them is not shown",
        "3 of 8 numbers differ, first in epoch 1: val_error_rate_pct",
    ]


def test_the_interval_is_that_of_the_seeds_or_of_the_images() -> None:
    seeds = [result(3.0, wrong=tuple(range(30))), result(3.2, wrong=tuple(range(32)))]
    by_seeds = seeds_interval(result(5.0), seeds)
    # sqrt(2) times the standard deviation of two, which is their difference over sqrt(2); t with three degrees.
    points = 3.182446 * 0.2
    assert (by_seeds.low_pct, by_seeds.high_pct) == pytest.approx((5.0 - points, 5.0 + points))
    assert by_seeds.basis == "2 seeds of the baseline, 1,000 validation images"
    far = seeds_interval(result(5.0), [seeds[0], result(3.0, wrong=tuple(range(100, 130)))])
    assert far.high_pct == pytest.approx(5.0 + 3.182446 * 100 * 60**0.5 / 1000)
    for few in ([], seeds[:1], [seeds[0], dataclasses.replace(seeds[1], final_val_images=500)]):
        by_images = seeds_interval(result(5.0), few)
        assert (by_images.low_pct, by_images.high_pct) == pytest.approx((3.063, 6.937), abs=1e-3)
        assert by_images.basis == "two equal error rates, 1,000 validation images"
    assert seeds_interval(TrialResult(Outcome.CRASHED), seeds) is None


def test_what_has_changed_is_listed() -> None:
    then = {"git_commit": "abc", "git_dirty": True, "python": "3.11.1", "optuna": "5.0.0", "host": "one"}
    now = {"git_commit": "def", "git_dirty": False, "python": "3.11.1", "optuna": "5.1.0", "host": "two", "torch": "2"}
    found = {condition.what: condition for condition in changed_origin(then, now)}
    assert found.keys() == {"code", "uncommitted changes", "optuna", "host", "torch"}
    assert [found[name].may_matter for name in ("code", "torch", "optuna", "host")] == [True, True, False, False]
    assert found["uncommitted changes"].recorded == "there were some, not kept"
    assert (found["torch"].recorded, found["torch"].now) == ("none", "2")
    old = {"code_digest": "1", "keras_settings": "float32"}
    assert [str(c.what) for c in changed_origin(old, {**old, "code_digest": "2"})] == ["code that trains"]
    assert list(changed_origin({}, old)) == []  # of a version that recorded neither
    same = {"git_diff": "a diff", "git_dirty": True}
    assert list(changed_origin(same, same)) == []
    devices = {condition.what: condition.now for condition in changed_device(CPU, dataclasses.replace(GPU, threads=2))}
    assert devices == {"device name": "an accelerator", "device kind": "gpu", "device threads": "2"}
    assert list(changed_device(CPU, dataclasses.replace(CPU, sharing=1))) == []


def test_a_trial_runs_alone_on_what_it_had() -> None:
    gpu = Gpu("an accelerator", "GPU-1")
    machine = Machine("another processor", 8, 16_000.0, (gpu,))
    assert find_place(machine, CPU) == Place("worker-0", "another processor", 1, 1)
    assert find_place(machine, GPU).gpu == "GPU-1"
    without = dataclasses.replace(machine, gpus=())
    assert find_place(without, GPU) == Place("worker-0", "another processor", 8, 1)
