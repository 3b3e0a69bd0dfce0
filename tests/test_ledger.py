import dataclasses
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from filled_ledger import CPU, GPU, FilledLedger, make_spec

from harness.analysis.leaderboard.leaderboard import leaderboard
from harness.errors import InputError, TroubleError
from harness.ledger import schema
from harness.ledger.ledger import Ledger
from harness.study.records import Device, EpochReport, Outcome, Role, Seconds, Trial, TrialResult
from harness.study.settings import Flags
from harness.study.spec import SweepSpec
from harness.study.sweep_file import load_sweep
from harness.support.home import sweeps_folder

DEVICE = Device("cpu", "cpu", "tensorflow 2", "float32", "fit", 1, 2)


@pytest.fixture
def spec() -> SweepSpec:
    return load_sweep(sweeps_folder() / "smoke.toml", Flags(study="study"), "quick")


@pytest.fixture
def ledger(tmp_path: Path, spec: SweepSpec):
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        ledger.create_study(spec, {"git_commit": "abc"})
        yield ledger


def trial(number: int, role: Role = Role.TRIAL, **changes: object) -> Trial:
    return dataclasses.replace(Trial(f"uid-{number}", number, {"units_1": 16, "units_2": 32}, 0, 3, role), **changes)


def report(epoch: int) -> EpochReport:
    return EpochReport(epoch, 0.5, None, 3.0 / epoch, 200, Seconds(train=2.0, evaluate=0.5))


def run(ledger: Ledger, number: int, outcome: Outcome = Outcome.COMPLETED, **changes: object) -> Trial:
    one = trial(number, **changes)
    ledger.propose("study", one, asks=1, search_time_s=0.1)
    attempt = ledger.start_attempt(one.uid, "worker-0")
    ledger.add_epoch(one.uid, attempt, report(1), 2.5)
    ledger.finish_attempt(one.uid, attempt, TrialResult(outcome, device=DEVICE), 3.0, is_final=True)
    return one


def test_what_goes_in_comes_out(ledger: Ledger) -> None:
    one = trial(0, Role.BASELINE, continues=None)
    ledger.propose("study", one, asks=0, search_time_s=0.25)
    attempt = ledger.start_attempt(one.uid, "worker-1")
    for epoch in (1, 2):
        ledger.add_epoch(one.uid, attempt, report(epoch), 2.5 * epoch)
    result = TrialResult(
        Outcome.COMPLETED, None, (report(1), report(2)), Seconds(train=4.0), 1000, 512.0, DEVICE, (3, 14), (1,), 99.5
    )
    ledger.finish_attempt(one.uid, attempt, result, 6.0, is_final=True)
    ledger.add_search_time(one.uid, 0.5)
    record = ledger.record(one.uid)
    assert record.trial == one
    assert record.result == result
    assert (record.asks, record.attempts, record.reserved_time_s, record.search_time_s) == (0, 1, 6.0, 0.75)
    (listed,) = ledger.history("study")
    assert listed.result == dataclasses.replace(result, wrong_images=None, test_wrong_images=None)
    assert ledger.num_test_reads("study") == 1


def test_a_continued_trial_took_what_all_its_rungs_took_and_the_study_pays_each_once(ledger: Ledger) -> None:
    study = FilledLedger(ledger, make_spec("rungs"))
    read = {"gpu_busy_time_s": 0.5, "gpu_energy_j": 10.0}
    first = study.add(5.0, epochs=1, train_s=1.0, device=GPU, gpu=read)
    second = study.add(4.0, epochs=2, train_s=2.0, device=GPU, gpu=read, continues=first)
    third = study.add(3.0, train_s=4.0, device=GPU, gpu=read, continues=second)
    study.add(3.0, train_s=5.0, device=GPU)
    study.ask(continues=second)
    histories = ledger.history("rungs"), list(ledger.finished("rungs")), ledger.newest("rungs", 9)
    for record in (ledger.record(third), *(history[2] for history in histories)):
        assert record.trial.uid == third
        assert (record.device_time_s, record.gpu_time_s) == (7.0, 3.5)
        assert (record.gpu_busy_time_s, record.gpu_energy_j) == (1.5, 30.0)
        assert record.timing_class == GPU.timing_class
        assert record.result.train_time_s == 4.0
        assert record.reserved_time_s == 8.0
        assert [result.train_time_s for result in record.before] == [1.0, 2.0]
    assert [record.device_time_s for record in histories[0]] == [1.0, 3.0, 7.0, 5.0, 0.0]
    assert ledger.usage("rungs").device_s == sum(record.reserved_time_s for record in histories[0]) == 5 + 6 + 8 + 9


def test_what_went_on_elsewhere_has_a_timing_class_of_its_own(ledger: Ledger) -> None:
    study = FilledLedger(ledger, make_spec("rungs"))
    first = study.add(5.0, epochs=1, device=GPU, gpu={"gpu_energy_j": 10.0})
    second = study.add(4.0, epochs=2, continues=first, device=CPU)
    third = ledger.record(study.add(3.0, continues=second, device=GPU, gpu={"gpu_energy_j": 10.0}))
    assert third.timing_class == f"{GPU.timing_class} + {CPU.timing_class}"
    assert (third.gpu_time_s, third.gpu_energy_j) == (10.0, None)  # 10 s on a CPU, of which nothing was read


def test_a_trial_has_one_final_result(ledger: Ledger) -> None:
    one = run(ledger, 0)
    again = ledger.start_attempt(one.uid, "worker-1")
    with pytest.raises(sqlite3.IntegrityError):
        ledger.finish_attempt(one.uid, again, TrialResult(Outcome.PRUNED), 1.0, is_final=True)
    assert ledger.record(one.uid).result.outcome is Outcome.COMPLETED


def test_a_number_is_used_once(ledger: Ledger) -> None:
    run(ledger, 0)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.propose("study", trial(0, uid="other"), asks=1, search_time_s=0.0)


def test_events_are_in_order(ledger: Ledger) -> None:
    ledger.propose("study", trial(0), asks=1, search_time_s=0.0)
    ledger.propose("study", trial(1), asks=3, search_time_s=0.0)
    for uid in ("uid-1", "uid-0"):
        ledger.finish_attempt(uid, ledger.start_attempt(uid, "w"), TrialResult(Outcome.PRUNED), 1.0, is_final=True)
    first, second = ledger.history("study")
    assert (first.asked_at, second.asked_at, second.told_at, first.told_at) == (1, 2, 3, 4)
    assert second.asks == 3


def test_the_newest_are_those_that_ended_last(ledger: Ledger) -> None:
    for number in range(3):
        ledger.propose("study", trial(number), asks=1, search_time_s=0.0)
    for uid in ("uid-2", "uid-0"):
        attempt = ledger.start_attempt(uid, "w")
        ledger.add_epoch(uid, attempt, report(1), 1.0)
        ledger.finish_attempt(uid, attempt, TrialResult(Outcome.PRUNED), 1.0, is_final=True)
    assert [record.trial.uid for record in ledger.newest("study", 5)] == ["uid-2", "uid-0"]
    (last,) = ledger.newest("study", 1)
    assert last == ledger.history("study")[0]
    assert last.result.curve == (report(1),)


def test_a_trial_lasts_from_its_first_attempt_to_its_last(ledger: Ledger) -> None:
    one = trial(0)
    ledger.propose("study", one, asks=1, search_time_s=0.0)
    assert (ledger.record(one.uid).started_at_s, ledger.record(one.uid).ended_at_s) == (None, None)
    for held_s in (2.0, 3.0):
        result = TrialResult(Outcome.CRASHED)
        ledger.finish_attempt(one.uid, ledger.start_attempt(one.uid, "w"), result, held_s, is_final=held_s == 3.0)
    first, second = ledger.attempts(one.uid)
    assert first.started_at_s < second.started_at_s
    for record in (ledger.record(one.uid), *ledger.history("study"), *ledger.finished("study")):
        assert (record.started_at_s, record.ended_at_s) == (first.started_at_s, second.started_at_s + 3.0)


def test_lost_attempts_are_charged_and_their_trials_pending(ledger: Ledger) -> None:
    one = trial(0)
    ledger.propose("study", one, asks=1, search_time_s=0.0)
    attempt = ledger.start_attempt(one.uid, "worker-0")
    ledger.add_epoch(one.uid, attempt, report(1), 2.5)
    assert ledger.close_lost_attempts("study") == 1
    assert ledger.close_lost_attempts("study") == 0
    assert [(a.number, a.outcome, a.held_s) for a in ledger.attempts(one.uid)] == [(1, Outcome.CANCELLED, 2.5)]
    (record,) = ledger.history("study")
    assert record.result is None
    assert ledger.usage("study").device_s == 2.5


def test_usage_counts_searched_trials_that_cost_something(ledger: Ledger) -> None:
    run(ledger, 0, role=Role.BASELINE)
    run(ledger, 1)
    run(ledger, 2, Outcome.PRUNED)
    run(ledger, 3, Outcome.INFEASIBLE)
    for wall_s in (10.0, 5.0):
        session = ledger.start_session("study")
        ledger.touch_session(session, 1.0)
        ledger.touch_session(session, wall_s)
    usage = ledger.usage("study")
    assert (usage.trials, usage.wall_s, usage.device_s) == (2, 15.0, 12.0)


def test_untracked_are_those_whose_final_outcome_is_not_shown(ledger: Ledger) -> None:
    one, two = run(ledger, 0), run(ledger, 1)
    assert ledger.untracked("study") == [one.uid, two.uid]
    ledger.set_tracked(one.uid, "run-1", Outcome.COMPLETED)
    ledger.set_tracked(two.uid, "run-2", Outcome.CANCELLED)
    assert ledger.untracked("study") == [two.uid]
    assert ledger.run_ids("study") == {one.uid: "run-1", two.uid: "run-2"}


def test_a_renamed_study_keeps_everything(ledger: Ledger, spec: SweepSpec) -> None:
    run(ledger, 0)
    ledger.start_session("study")
    ledger.set_tracked("study", "parent", "RUNNING")
    ledger.rename_study("study", "kept")
    assert ledger.study_names() == ["kept"]
    assert ledger.study("kept").spec.study == "kept"
    assert len(ledger.history("kept")) == 1
    assert ledger.tracked("kept") == ("parent", "RUNNING")
    ledger.create_study(spec, {})
    assert ledger.history("study") == []


def test_a_failed_write_leaves_nothing_behind(ledger: Ledger) -> None:
    with pytest.raises(KeyError):
        ledger.propose("no-such-study", trial(0), asks=1, search_time_s=0.0)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.add_epoch("no-such-trial", 1, report(1), 1.0)
    assert ledger.history("study") == []
    run(ledger, 0)  # the connection is usable, no transaction is open


def test_everything_is_there_when_opened_again(ledger: Ledger, spec: SweepSpec) -> None:
    run(ledger, 0)
    with closing(Ledger(ledger.path)) as other:
        assert other.history("study") == ledger.history("study")
        assert other.study("study").spec == spec
        assert other.study("study").provenance == {"git_commit": "abc"}


def test_a_full_disk_is_one_clear_error_and_loses_nothing(ledger: Ledger) -> None:
    run(ledger, 0)
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own way to have no room
    with pytest.raises(TroubleError, match=r"ledger\.db: database or disk is full; what was written before is safe"):
        _ = [run(ledger, number) for number in range(1, 1000)]
    ledger._db.execute("PRAGMA max_page_count = 100000")
    done = len(ledger.history("study"))
    run(ledger, 1000)
    assert len(ledger.history("study")) == done + 1


def test_each_trial_comes_from_the_session_that_ran_it_last(ledger: Ledger) -> None:
    ledger.start_session("study")
    before = run(ledger, 0)
    ledger.start_session("study", {"git_commit": "def", "host": "second"})
    after = run(ledger, 1)
    assert ledger.origin(before.uid) == {"git_commit": "abc"}  # as when the study was made
    assert ledger.origin(after.uid) == {"git_commit": "def", "host": "second"}
    assert ledger.origins("study") == {trial.uid: ledger.origin(trial.uid) for trial in (before, after)}
    frame = leaderboard(ledger, ["study"]).set_index("trial")
    assert frame["git_commit"].to_dict() == {0: "abc", 1: "def"}
    with pytest.raises(KeyError):
        ledger.origin("nobody")


def test_changes_together_are_one_or_none(ledger: Ledger) -> None:
    with ledger.together():
        run(ledger, 0)
        with closing(Ledger(ledger.path)) as reader:
            assert reader.history("study") == []
    assert [record.trial.number for record in ledger.history("study")] == [0]

    def fail_half_way() -> None:
        with ledger.together():
            run(ledger, 1)
            run(ledger, 0)  # is there already

    with pytest.raises(sqlite3.IntegrityError):
        fail_half_way()
    assert [record.trial.number for record in ledger.history("study")] == [0]
    run(ledger, 2)
    assert len(ledger.history("study")) == 2


def test_settings_that_could_not_be_read_again_are_not_written(ledger: Ledger, spec: SweepSpec) -> None:
    before = ledger.study("study")
    unchecked = {"epochs": 0, "baseline_seeds": -1, "seed": 2**31, "recipe": {"learning_rate": float("nan")}}
    for key, value in unchecked.items():
        wrong = spec.model_copy(update={key: value})
        with pytest.raises(InputError, match=rf"^study study: .*{key}.*; nothing was written$"):
            ledger.update_budget(wrong)
        with pytest.raises(InputError, match="nothing was written"):
            ledger.create_study(wrong.model_copy(update={"study": "other"}), {})
    with pytest.raises(InputError, match=r"study is 'a/b'; allowed: 1 to 64 letters"):
        ledger.rename_study("study", "a/b")
    assert (ledger.study_names(), ledger.study("study")) == (["study"], before)


HOLDS = ["BEGIN IMMEDIATE", "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE"]


@pytest.fixture
def is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "BUSY_TIMEOUT_S", 0.0)
    monkeypatch.setattr(schema, "NUM_TRIES", 3)


def hold(path: Path, how: str) -> sqlite3.Connection:
    """Another's connection, which keeps the ledger to itself."""
    other = sqlite3.connect(path, isolation_level=None)
    for statement in how.split("; "):
        other.execute(statement)
    return other


@pytest.mark.usefixtures("is_quick")
@pytest.mark.parametrize("how", HOLDS)
def test_a_ledger_that_another_process_holds_is_waited_for(tmp_path: Path, spec: SweepSpec, how: str) -> None:
    path, others, said = tmp_path / "ledger.db", [], []

    def let_go(line: str) -> None:
        said.append(line)
        others.pop().close()

    with closing(Ledger(path, say=let_go)) as ledger:
        ledger.create_study(spec, {})
    others.append(hold(path, how))
    with closing(Ledger(path, say=let_go)) as ledger:
        ledger.propose("study", trial(0), asks=1, search_time_s=0.0)
        assert said == [f"ledger {path} is held by another process; waiting for it, 10 minutes at most"]
        others.append(hold(path, HOLDS[0]))
        ledger.start_attempt("uid-0", "worker-0")
        assert len(said) == 2
        assert len(ledger.history("study")) == 1


@pytest.mark.usefixtures("is_quick")
def test_a_ledger_that_stays_held_is_given_up_with_nothing_lost(tmp_path: Path, spec: SweepSpec) -> None:
    path = tmp_path / "ledger.db"
    with closing(Ledger(path)) as ledger:
        ledger.create_study(spec, {})
        with (
            closing(hold(path, HOLDS[0])),
            pytest.raises(TroubleError, match=r"ledger\.db: database is locked; what was written before is safe"),
        ):
            run(ledger, 0)
        run(ledger, 0)
        assert len(ledger.history("study")) == 1


def test_a_reader_of_a_ledger_that_is_not_there_sees_an_empty_one_and_makes_none(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "home" / "ledger.db", makes=False)) as ledger:
        assert ledger.study_names() == []
        with pytest.raises(KeyError):
            ledger.study("study")
    assert list(tmp_path.iterdir()) == []
