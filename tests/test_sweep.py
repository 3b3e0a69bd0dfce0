"""The loop, with a scripted search and scripted workers: what is committed, told and shown, and in which order."""

import dataclasses
import io
import itertools
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from harness.bench.scripted_workers import ScriptedWorkers
from harness.execution.base import Died, Event, Job, Ready
from harness.ledger.ledger import Ledger
from harness.planning.cost_model import CostModel, cpu_estimate
from harness.planning.progress import StopReason
from harness.planning.status import status
from harness.search.base import NoProposal
from harness.search.proposer import Next
from harness.study.records import EpochReport, Outcome, Role, Seconds, Trial, TrialResult
from harness.study.settings import Budget, Flags
from harness.study.spec import SweepSpec
from harness.study.sweep_file import load_sweep
from harness.support.home import sweeps_folder
from harness.sweep import loop
from harness.sweep.checkpoints import Checkpoints
from harness.sweep.display import PlainDisplay
from harness.sweep.loop import Sweep
from harness.sweep.reuse import Reuse
from harness.tracking.trial_runs import trial_run

EPOCHS = 3


class ScriptedProposer:
    """Proposes the given trials; stops those it is told to; remembers what it heard."""

    def __init__(self, proposals: list[Next | NoProposal], prune: dict[str, int] | None = None) -> None:
        self._proposals, self._prune = deque(proposals), prune or {}
        self.told: list[tuple[str, Outcome]] = []
        self.finals: list[bool] = []
        self.broken: dict[str, str] = {}

    def broken_limit(self, trial: Trial) -> str | None:
        return self.broken.get(trial.uid)

    def next(self, *, finals: bool = False) -> Next | NoProposal:
        self.finals.append(finals)
        return self._proposals.popleft() if self._proposals else NoProposal.EXHAUSTED

    def report(self, trial: Trial, report: EpochReport) -> bool:
        return report.epoch < self._prune.get(trial.uid, EPOCHS + 1)

    def continuable(self) -> frozenset[str]:
        planned = (proposal.trial.continues for proposal in self._proposals if isinstance(proposal, Next))
        return frozenset(uid for uid in planned if uid)

    def tell(self, trial: Trial, result: TrialResult) -> None:
        self.told.append((trial.uid, result.outcome))


class Workers(ScriptedWorkers):
    """Scripted workers whose trials report their epochs and complete, unless their script says otherwise.

    Scripts, by trial uid, one for each attempt: "die", "oom", "hang", "crash" happen after the first epoch.
    """

    def __init__(self, num_workers: int = 1, scripts: dict[str, list[str]] | None = None) -> None:
        super().__init__(num_workers)
        self._scripts = {uid: deque(script) for uid, script in (scripts or {}).items()}
        self._script: dict[str, str | None] = {}  # that a worker follows
        self.on_epoch = lambda trial, epoch: None
        self.started: list[str] = []

    def start(self, worker: str, job: Job) -> None:
        scripts = self._scripts.get(job.trial.uid)
        self._script[worker] = scripts.popleft() if scripts else None
        self.started.append(job.trial.uid)
        super().start(worker, job)

    def answer(self, worker: str, *, go_on: bool) -> None:
        match self._script[worker]:
            case "die":
                self.kill(worker)
            case "oom":
                self._die(worker, out_of_memory=True)
            case "crash":
                self._end(worker, TrialResult(Outcome.CRASHED, "ValueError: no"))
            case None:
                super().answer(worker, go_on=go_on)

    def kill(self, worker: str) -> None:
        self._die(worker, out_of_memory=False)

    def report(self, trial: Trial, epoch: int) -> EpochReport:
        self.on_epoch(trial, epoch)
        return EpochReport(epoch, 0.5, 0.5, 10.0 / epoch, 200, Seconds(train=1.0))

    def result(self, trial: Trial, curve: Sequence[EpochReport]) -> TrialResult:
        return TrialResult(Outcome.COMPLETED if len(curve) == trial.epochs else Outcome.PRUNED)

    def _die(self, worker: str, *, out_of_memory: bool) -> None:
        self._say(Died(worker, "killed by SIGKILL", out_of_memory))
        self._say(Ready(worker))


class Heard:
    def __init__(self) -> None:
        self.count = 0

    def notify(self) -> None:
        self.count += 1


@pytest.fixture
def spec() -> SweepSpec:
    spec = load_sweep(sweeps_folder() / "smoke.toml", Flags(study="study"), "quick")
    return spec.model_copy(update={"baseline_seeds": 1, "budget": Budget(trials=3)})


@pytest.fixture
def ledger(tmp_path: Path, spec: SweepSpec) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        ledger.create_study(spec, {})
        yield ledger


def trials(count: int = 4) -> list[Trial]:
    params = {"units_1": 16, "units_2": 16}
    roles = [Role.BASELINE] + [Role.TRIAL] * (count - 1)
    return [Trial(f"t{n}", n, params, 0, EPOCHS, role) for n, role in enumerate(roles)]


def proposals(count: int = 4) -> list[Next | NoProposal]:
    return [Next(trial, asks=1, search_time_s=0.0, infeasible=None) for trial in trials(count)]


def continued(*, after: int) -> list[Next | NoProposal]:
    """Three proposals, of which the last continues the one before after so many epochs."""
    first, second, third = (Next(trial, asks=1, search_time_s=0.0) for trial in trials(3))
    return [
        first,
        dataclasses.replace(second, trial=dataclasses.replace(second.trial, epochs=after)),
        dataclasses.replace(third, trial=dataclasses.replace(third.trial, continues="t1")),
    ]


class Study:
    """A sweep over scripted parts, and what came of it."""

    def __init__(
        self,
        spec: SweepSpec,
        ledger: Ledger,
        folder: Path,
        proposer: ScriptedProposer | None = None,
        workers: Workers | None = None,
        *,
        reuses: bool = False,  # all of `trials()` are the same training
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ledger, self.heard = ledger, Heard()
        self.proposer, self.workers = proposer or ScriptedProposer(proposals()), workers or Workers()
        self._said = io.StringIO()
        display = PlainDisplay(self._said)
        records, costs = ledger.history(spec.study), CostModel(spec, cpu_estimate(1e11))
        checkpoints = Checkpoints(spec, folder / "checkpoints")
        self.sweep = Sweep(
            spec,
            ledger,
            records,
            self.proposer,
            self.workers,
            [self.heard],
            display,
            checkpoints,
            costs,
            clock,
            reuse=Reuse(spec, ledger, checkpoints, is_on=reuses),
        )

    def said(self) -> str:
        return self._said.getvalue()

    def outcomes(self) -> dict[str, Outcome | None]:
        records = self.ledger.history("study")
        return {record.trial.uid: record.result.outcome if record.result else None for record in records}

    def attempts(self, uid: str) -> list[Outcome | None]:
        return [attempt.outcome for attempt in self.ledger.attempts(uid)]


def test_a_plain_run_ends_with_the_budget(spec: SweepSpec, ledger: Ledger, tmp_path: Path) -> None:
    study = Study(spec, ledger, tmp_path)
    assert study.sweep.run() is StopReason.TRIALS
    assert study.outcomes() == dict.fromkeys(("t0", "t1", "t2", "t3"), Outcome.COMPLETED)
    assert study.proposer.told == [(f"t{n}", Outcome.COMPLETED) for n in range(4)]
    assert study.heard.count == 4
    record = ledger.record("t0")
    assert [report.epoch for report in record.result.curve] == [1, 2, 3]
    assert record.attempts == 1


@pytest.mark.parametrize(("takes_s", "shown"), [(0.0, [1, 2, 3, 4]), (5.0, [1, 1, 1, 4])])
def test_results_are_shown_as_they_are_unless_computing_them_takes_long(
    spec: SweepSpec, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes_s: float, shown: list[int]
) -> None:
    now_s, seen = 0.0, {}

    def results(findings: object) -> str:
        nonlocal now_s
        now_s += takes_s
        return f"results of {len(list(ledger.finished(spec.study)))}"

    monkeypatch.setattr(loop, "so_far", results)
    monkeypatch.setattr(PlainDisplay, "progress", lambda display, far: seen.update({far.done: far.results}))
    study = Study(spec, ledger, tmp_path, clock=lambda: now_s)
    study.sweep.run()
    assert [seen[done] for done in (1, 2, 3, 4)] == [f"results of {number}" for number in shown]


def test_the_last_part_of_the_budget_is_for_the_finalists(spec: SweepSpec, ledger: Ledger, tmp_path: Path) -> None:
    finals = spec.changed(budget=Budget(trials=5, finalists_share=0.4))
    study = Study(finals, ledger, tmp_path, ScriptedProposer(proposals(6)))
    assert study.sweep.run() is StopReason.TRIALS
    assert study.proposer.finals == [False] * 4 + [True] * 2, "the baseline, and five trials"
    assert study.said().count("finals: from now on the best configurations get further seeds") == 1


def test_a_pruned_trial_counts(spec: SweepSpec, ledger: Ledger, tmp_path: Path) -> None:
    study = Study(spec, ledger, tmp_path, ScriptedProposer(proposals(), prune={"t2": 1}))
    assert study.sweep.run() is StopReason.TRIALS
    assert study.outcomes()["t2"] is Outcome.PRUNED
    assert len(ledger.record("t2").result.curve) == 1


def test_a_refusal_that_a_kill_kept_out_of_the_ledger_is_made_again(
    spec: SweepSpec, ledger: Ledger, tmp_path: Path
) -> None:
    for number, trial in enumerate(trials(2)):
        ledger.propose("study", trial, asks=number, search_time_s=0.0)
    study = Study(spec, ledger, tmp_path, ScriptedProposer(proposals(5)[2:]))
    study.proposer.broken["t1"] = "num_params is 9; allowed: at most 8"
    assert study.sweep.run() is StopReason.TRIALS
    assert study.outcomes()["t1"] is Outcome.INFEASIBLE
    assert study.workers.started == ["t0", "t2", "t3", "t4"]
    assert study.proposer.told[0] == ("t0", Outcome.COMPLETED)
    assert study.proposer.told[1] == ("t1", Outcome.INFEASIBLE)


def test_an_infeasible_trial_reaches_no_worker_and_uses_no_budget(
    spec: SweepSpec, ledger: Ledger, tmp_path: Path
) -> None:
    planned = proposals(5)
    planned[1] = dataclasses.replace(planned[1], infeasible="num_params is 9; allowed: at most 8")
    study = Study(spec, ledger, tmp_path, ScriptedProposer(planned))
    assert study.sweep.run() is StopReason.TRIALS
    assert study.outcomes()["t1"] is Outcome.INFEASIBLE
    assert "t1" not in study.workers.started
    assert len(study.outcomes()) == 5
    assert ledger.record("t1").result.error == "num_params is 9; allowed: at most 8"
    assert ("t1", Outcome.INFEASIBLE) in study.proposer.told


def test_a_dead_worker_costs_one_attempt(spec: SweepSpec, ledger: Ledger, tmp_path: Path) -> None:
    study = Study(spec, ledger, tmp_path, workers=Workers(scripts={"t1": ["die"]}))
    assert study.sweep.run() is StopReason.TRIALS
    assert study.attempts("t1") == [Outcome.CRASHED, Outcome.COMPLETED]
    assert study.proposer.told.count(("t1", Outcome.COMPLETED)) == 1
    assert ledger.record("t1").reserved_time_s == sum(attempt.held_s for attempt in ledger.attempts("t1"))


class DiesBetweenTrials(Workers):
    """One worker that dies after its first trial, and says so in one breath; its successor takes a while."""

    def events(self, timeout_s: float) -> list[Event]:
        now = list(self._events)
        self._events.clear()
        if Died in map(type, now):
            self._events.append(Ready("worker-0"))
        return now

    def _end(self, worker: str, result: TrialResult) -> None:
        super()._end(worker, result)
        if len(self.started) == 1:
            self._events.append(Died(worker, "killed by SIGKILL", out_of_memory=False))


def test_a_worker_that_died_between_two_trials_gets_none_before_it_is_ready_again(
    spec: SweepSpec, ledger: Ledger, tmp_path: Path
) -> None:
    study = Study(spec, ledger, tmp_path, workers=DiesBetweenTrials())
    assert study.sweep.run() is StopReason.TRIALS
    assert study.outcomes() == dict.fromkeys(("t0", "t1", "t2", "t3"), Outcome.COMPLETED)
    assert [study.attempts(uid) for uid in ("t0", "t1", "t2", "t3")] == [[Outcome.COMPLETED]] * 4


@pytest.mark.parametrize("script", ["die", "crash"])
def test_attempts_are_bounded(spec: SweepSpec, ledger: Ledger, tmp_path: Path, script: str) -> None:
    study = Study(spec, ledger, tmp_path, workers=Workers(scripts={"t1": [script] * 9}))
    assert study.sweep.run() is StopReason.TRIALS
    assert study.attempts("t1") == [Outcome.CRASHED] * spec.max_attempts
    assert study.outcomes()["t1"] is Outcome.CRASHED


def test_out_of_memory_is_not_tried_again(spec: SweepSpec, ledger: Ledger, tmp_path: Path) -> None:
    study = Study(spec, ledger, tmp_path, workers=Workers(scripts={"t1": ["oom"]}))
    assert study.sweep.run() is StopReason.TRIALS
    assert study.attempts("t1") == [Outcome.OUT_OF_MEMORY]
    assert ("t1", Outcome.OUT_OF_MEMORY) in study.proposer.told


def test_a_hanging_trial_is_killed(spec: SweepSpec, ledger: Ledger, tmp_path: Path) -> None:
    spec = spec.model_copy(update={"trial_timeout_s": 0.001})
    study = Study(spec, ledger, tmp_path, workers=Workers(scripts={f"t{n}": ["hang"] for n in range(4)}))
    assert study.sweep.run() is StopReason.TRIALS
    assert set(study.outcomes().values()) == {Outcome.TIMED_OUT}


def test_a_clock_that_jumps_changes_no_duration_and_uses_no_budget(
    spec: SweepSpec, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec.model_copy(
        update={"budget": Budget(trials=3, wall_s=3600.0, device_s=3600.0), "trial_timeout_s": 600.0}
    )
    clock, jumps = time.time, itertools.cycle([0.0, 86_400.0, -86_400.0, 7200.0])
    monkeypatch.setattr(time, "time", lambda: clock() + next(jumps))
    study = Study(spec, ledger, tmp_path, workers=Workers(2, scripts={"t1": ["die"]}))
    assert study.sweep.run() is StopReason.TRIALS
    assert set(study.outcomes().values()) == {Outcome.COMPLETED}
    attempts = [attempt for uid in study.outcomes() for attempt in ledger.attempts(uid)]
    started = [attempt.started_at_s for attempt in attempts]
    assert max(started) - min(started) > 3600.0, "it did jump"
    assert all(0.0 <= attempt.held_s < 600.0 for attempt in attempts)
    assert all(0.0 <= record.search_time_s < 600.0 for record in ledger.history("study"))
    assert 0.0 < ledger.usage("study").wall_s < 600.0
    assert 0.0 < status(ledger, "study").last_session_s < 600.0
    for record in ledger.history("study"):
        run = trial_run(ledger, ledger.study("study"), record.trial.uid)
        held_s = sum(attempt.held_s for attempt in ledger.attempts(record.trial.uid))
        assert run.end_ms - run.start_ms == round(held_s * 1000)


def test_an_exhausted_search_ends_the_study(spec: SweepSpec, ledger: Ledger, tmp_path: Path) -> None:
    study = Study(spec, ledger, tmp_path, ScriptedProposer(proposals(2)))
    assert study.sweep.run() is StopReason.EXHAUSTED
    assert len(study.outcomes()) == 2


def test_a_waiting_search_is_asked_again(spec: SweepSpec, ledger: Ledger, tmp_path: Path) -> None:
    planned = proposals()
    waiting = [planned[0], planned[1], NoProposal.WAIT, planned[2], planned[3]]
    study = Study(spec, ledger, tmp_path, ScriptedProposer(waiting), Workers(num_workers=3))
    assert study.sweep.run() is StopReason.TRIALS
    assert len(study.outcomes()) == 4


def test_a_search_that_waits_for_nothing_has_ended(spec: SweepSpec, ledger: Ledger, tmp_path: Path) -> None:
    study = Study(spec, ledger, tmp_path, ScriptedProposer([proposals()[0], NoProposal.WAIT]))
    assert study.sweep.run() is StopReason.EXHAUSTED


def test_a_used_time_budget_still_runs_the_baseline(spec: SweepSpec, ledger: Ledger, tmp_path: Path) -> None:
    spec = spec.model_copy(update={"budget": Budget(trials=3, wall_s=1.0)})
    ledger.touch_session(ledger.start_session("study"), 5.0)
    study = Study(spec, ledger, tmp_path)
    assert study.sweep.run() is StopReason.WALL_TIME
    assert list(study.outcomes()) == ["t0"]


def test_resume_runs_pending_trials_first_and_only_once(spec: SweepSpec, ledger: Ledger, tmp_path: Path) -> None:
    first, second, *_ = trials()
    ledger.propose("study", first, 0, 0.0)
    ledger.finish_attempt("t0", ledger.start_attempt("t0", "w"), TrialResult(Outcome.COMPLETED), 1.0, is_final=True)
    ledger.propose("study", second, 1, 0.0)
    ledger.start_attempt("t1", "w")  # its coordinator was killed here
    study = Study(spec, ledger, tmp_path, ScriptedProposer(proposals()[2:]))
    assert study.sweep.run() is StopReason.TRIALS
    assert study.workers.started == ["t1", "t2", "t3"]
    assert study.attempts("t1") == [Outcome.CANCELLED, Outcome.COMPLETED]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_stops_at_the_epochs_end(
    spec: SweepSpec, ledger: Ledger, tmp_path: Path, number: signal.Signals
) -> None:
    study = Study(spec, ledger, tmp_path)
    study.workers.on_epoch = lambda trial, epoch: os.kill(os.getpid(), number) if trial.uid == "t1" else None
    before = signal.getsignal(number)
    assert study.sweep.run() is StopReason.INTERRUPTED
    assert signal.getsignal(number) is before
    assert study.outcomes() == {"t0": Outcome.COMPLETED, "t1": None}
    assert study.attempts("t1") == [Outcome.CANCELLED]
    again = Study(spec, ledger, tmp_path, ScriptedProposer(proposals()[2:]))
    assert again.sweep.run() is StopReason.TRIALS
    assert study.attempts("t1") == [Outcome.CANCELLED, Outcome.COMPLETED]


@pytest.mark.parametrize("comes_out_as", [KeyboardInterrupt, ImportError])
def test_a_second_signal_stops_at_once_and_charges_the_attempt(
    spec: SweepSpec, ledger: Ledger, tmp_path: Path, comes_out_as: type[BaseException]
) -> None:
    study = Study(spec, ledger, tmp_path, workers=Workers(scripts={"t1": ["hang"]}))

    def twice(trial: Trial, epoch: int) -> None:
        if trial.uid == "t1":
            os.kill(os.getpid(), signal.SIGINT)
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                raise comes_out_as from None

    study.workers.on_epoch = twice
    with pytest.raises(KeyboardInterrupt):
        study.sweep.run()
    assert study.attempts("t1") in ([Outcome.CANCELLED], [])
    assert study.outcomes()["t1"] is None


def test_what_may_be_continued_leaves_a_checkpoint(spec: SweepSpec, ledger: Ledger, tmp_path: Path) -> None:
    planned = continued(after=1)
    study = Study(spec, ledger, tmp_path, ScriptedProposer(planned))
    jobs: dict[str, Job] = {}
    start = study.workers.start
    study.workers.start = lambda worker, job: (jobs.setdefault(job.trial.uid, job), start(worker, job))[1]
    study.sweep.run()
    assert jobs["t0"].save_to is None
    assert jobs["t1"].save_to == jobs["t2"].load_from == tmp_path / "checkpoints" / "t1.npz"
    assert jobs["t2"].save_to is None


@pytest.mark.parametrize("is_there", [True, False])
def test_a_continued_trial_whose_checkpoint_is_gone_knows_how_much_to_train_again(
    spec: SweepSpec, ledger: Ledger, tmp_path: Path, is_there: bool
) -> None:
    planned = continued(after=2)
    study = Study(spec, ledger, tmp_path, ScriptedProposer(planned))
    jobs: dict[str, Job] = {}
    start = study.workers.start

    def save_and_start(worker: str, job: Job) -> None:
        jobs[job.trial.uid] = job
        if job.save_to and is_there:
            job.save_to.parent.mkdir(exist_ok=True)
            job.save_to.touch()
        start(worker, job)

    study.workers.start = save_and_start
    study.sweep.run()
    assert [jobs[uid].epochs_before for uid in ("t0", "t1", "t2")] == [0, 0, 2]
    said = "trial 2 continues trial 1, whose checkpoint is gone; its training up to epoch 2 is repeated"
    assert (said in study.said()) is not is_there


def test_checkpoints_go_when_nothing_needs_them(spec: SweepSpec, ledger: Ledger, tmp_path: Path) -> None:
    planned = continued(after=1)
    study = Study(spec, ledger, tmp_path, ScriptedProposer(planned), Workers(num_workers=2))
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    being_written, left = f".t3.npz.{os.getpid()}.unfinished", ".t3.npz.4194303.unfinished"  # ids end below that
    for name in ("old.npz", "t1.npz", being_written, left):
        (folder / name).touch()
    seen: list[set[str]] = []

    def look(trial: Trial, epoch: int) -> None:
        if trial.uid == "t2":
            seen.append({path.name.removesuffix(".npz") for path in folder.iterdir()})

    study.workers.on_epoch = look
    study.sweep.run()
    assert all("t1" in names for names in seen), "t2 goes on from it"
    assert {path.name for path in folder.iterdir()} == {being_written}


class AllAtOnce(Workers):
    """Says all there is to say at once, and notes what it is told, in order."""

    def __init__(self, num_workers: int) -> None:
        super().__init__(num_workers)
        self.heard: list[str] = []

    def events(self, timeout_s: float) -> list[Event]:
        now = list(self._events)
        self._events.clear()
        return now

    def start(self, worker: str, job: Job) -> None:
        self.heard.append("start")
        super().start(worker, job)

    def answer(self, worker: str, *, go_on: bool) -> None:
        self.heard.append("answer")
        super().answer(worker, go_on=go_on)


def test_workers_are_heard_between_two_asks(spec: SweepSpec, ledger: Ledger, tmp_path: Path) -> None:
    study = Study(spec, ledger, tmp_path, workers=AllAtOnce(4))
    assert study.sweep.run() is StopReason.TRIALS
    assert study.workers.heard[:4] == ["start", "answer", "start", "answer"]
    assert len(set(study.workers.started)) == 4


def test_epochs_reported_at_once_are_committed_together_before_anybody_is_answered(
    spec: SweepSpec, ledger: Ledger, tmp_path: Path
) -> None:
    study = Study(spec, ledger, tmp_path, workers=AllAtOnce(4))
    commits: list[str] = []
    ledger._db.set_trace_callback(lambda statement: commits.append(statement))
    known: list[int] = []
    answer = study.workers.answer

    def look_and_answer(worker: str, *, go_on: bool) -> None:
        with closing(Ledger(ledger.path)) as reader:  # sees what is committed, and nothing else
            known.append(reader._count("epochs"))
        answer(worker, go_on=go_on)

    study.workers.answer = look_and_answer
    study.sweep.run()
    ledger._db.set_trace_callback(None)
    assert known == sorted(known)
    assert all(committed >= answered for answered, committed in enumerate(known, start=1))
    num_transactions = sum(" epochs " in statement for statement in _first_of_each_transaction(commits))
    assert 0 < num_transactions < 4 * EPOCHS


def _first_of_each_transaction(statements: list[str]) -> list[str]:
    return [after for before, after in itertools.pairwise(statements) if before.startswith("BEGIN")]
