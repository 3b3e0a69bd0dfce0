"""The command is killed at every step, at random, and by Ctrl-C: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from killed_sweeps import STUDY, WAIT_S, Started, Sweeps, ledger_story, runs_story, table_story
from test_champion import CHAMPION_KILLS
from test_reuse import REUSE_KILLS
from test_study_file import IMPORT_KILLS

from harness.audit import audit
from harness.study.records import Outcome
from harness.support.failpoints import Step
from harness.tracking.mlflow_runs import sync

slow = pytest.mark.slow

# One study is killed at each of these, one after the other: an entry is a step, and for the how-manieth time. Those of
# a run's way come twice, first for the study's own run and then for that of a trial.
KILLS = [
    "before_study", "after_study", "after_session", "after_lost_attempts",
    "before_experiment", "after_experiment", "before_parent_run", "before_create_run", "after_create_run",
    "after_log_batch", "before_terminated", "after_terminated", "after_tracked",
    "before_propose", "after_propose", "after_start_attempt", "after_hand_out", "before_epoch", "after_epoch",
    "before_answer", "after_answer", "after_failed_attempt", "before_result",
    "after_result", "before_create_run", "after_tell", "after_create_run", "after_search_time", "after_log_batch:2",
    "after_notify", "before_terminated:2", "after_terminated:2", "after_tracked:2", "after_propose:3",
    "before_file", "after_file",
]  # fmt: skip
IN_WORKER = "before_checkpoint:2"

PRUNED: tuple[str, ...] = ()
HYPERBAND = ("--engine", "keras-tuner", "--sampler", "hyperband", "--pruner", "none", "--trials", "8")
FINALS = ("--profile", "finals", "--pruner", "none")
ENDLESS = ("--profile", "endless")


def test_every_step_is_killed_at() -> None:
    kills = [*KILLS, *CHAMPION_KILLS, *REUSE_KILLS, *IMPORT_KILLS, IN_WORKER]
    assert {kill.partition(":")[0] for kill in kills} == set(Step)


@pytest.mark.parametrize("setting", ["nowhere", "after_propose:0", "after_propose:", "AFTER_PROPOSE"])
def test_an_unknown_step_is_refused(setting: str, digits_folder: Path, tmp_path: Path) -> None:
    with Sweeps(tmp_path, digits_folder.parent).start(failpoint=setting) as refused:
        assert refused.wait() == 2
    assert f"HARNESS_FAILPOINT is {setting!r}; allowed: one of before_study, " in refused.errors


# Kills


@pytest.fixture(scope="module")
def undisturbed(digits_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], Sweeps]:
    """The study of some flags as it is when nobody kills it, run once."""
    done: dict[tuple[str, ...], Sweeps] = {}

    def run(flags: tuple[str, ...]) -> Sweeps:
        if flags not in done:
            done[flags] = Sweeps(tmp_path_factory.mktemp("undisturbed"), digits_folder.parent, flags)
            done[flags].run_to_the_end()
        return done[flags]

    return run


@pytest.fixture(scope="module")
def sweeps(digits_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweeps:
    """The study that is killed at each step, by one test after the other."""
    return Sweeps(tmp_path_factory.mktemp("killed"), digits_folder.parent, PRUNED)


def assert_equal_in_the_end(sweeps: Sweeps, undisturbed: Sweeps) -> None:
    sweeps.run_to_the_end()
    assert ledger_story(sweeps.home) == ledger_story(undisturbed.home)
    assert runs_story(sweeps.home) == runs_story(undisturbed.home)
    assert table_story(sweeps.home) == table_story(undisturbed.home)
    assert sweeps.ask("SELECT * FROM attempts WHERE outcome IS NULL") == []
    assert audit(sweeps.home, STUDY) == []
    sweeps.assert_workers_end()


@slow
@pytest.mark.parametrize("kill", KILLS)
def test_a_kill_leaves_a_sound_ledger(sweeps: Sweeps, kill: str) -> None:
    final_results = "SELECT uid, attempt, result FROM attempts WHERE told_at IS NOT NULL"
    before = sweeps.ask(final_results)
    with sweeps.start(failpoint=kill) as started:
        if kill == "after_failed_attempt":
            started.wait_until_it_says("started on worker-0")
            sweeps.workers()["worker-0"].kill()
        assert started.wait() == -signal.SIGKILL, started.output + started.errors
    assert sweeps.ask("PRAGMA integrity_check") in ([], [("ok",)])
    assert set(before) <= set(sweeps.ask(final_results))


@slow
def test_after_all_kills_the_study_is_as_if_there_was_none(
    sweeps: Sweeps, undisturbed: Callable[[tuple[str, ...]], Sweeps]
) -> None:
    outcomes = [outcome for (outcome,) in sweeps.ask("SELECT outcome FROM attempts")]
    assert outcomes.count(Outcome.CANCELLED) > 3
    assert outcomes.count(Outcome.CRASHED) == 1
    assert_equal_in_the_end(sweeps, undisturbed(PRUNED))


@slow
@pytest.mark.parametrize(("flags", "failpoint"), [(PRUNED, None), (HYPERBAND, IN_WORKER)], ids=["pruned", "hyperband"])
def test_a_study_that_is_killed_at_random_moments(
    undisturbed: Callable[[tuple[str, ...]], Sweeps],
    digits_folder: Path,
    tmp_path: Path,
    flags: tuple[str, ...],
    failpoint: str | None,
) -> None:
    """Twice the coordinator; with hyperband, before that also workers while they write checkpoints."""
    sweeps, rng = Sweeps(tmp_path, digits_folder.parent, flags), random.Random(0)
    for i in range(2):
        with sweeps.start(failpoint=failpoint if i == 0 else None) as started:
            started.wait_until_it_says("it will be tried again" if failpoint and i == 0 else " %")
            started.goes_on_for(rng.uniform(0.0, 3.0))
    assert len(sweeps.ask("SELECT 1 FROM attempts WHERE outcome = 'crashed'")) == (1 if failpoint else 0)
    assert_equal_in_the_end(sweeps, undisturbed(flags))


@slow
def test_kills_among_the_further_seeds_of_the_best_change_none_of_them(
    undisturbed: Callable[[tuple[str, ...]], Sweeps], digits_folder: Path, tmp_path: Path
) -> None:
    sweeps = Sweeps(tmp_path, digits_folder.parent, FINALS)
    further_seeds = "SELECT COUNT(*) - COUNT(DISTINCT params) FROM trials WHERE role = 'trial'"
    for number in (1, 3, 6):
        with sweeps.start() as started:
            started.wait_until(lambda: sweeps.ask(further_seeds)[:1] >= [(number,)])  # noqa: B023 - used at once
    assert_equal_in_the_end(sweeps, undisturbed(FINALS))
    assert sweeps.ask(further_seeds)[0][0] >= 7


# Signals


def assert_interrupted(started: Started) -> None:
    """It ends with 130 and says so in one line."""
    assert started.wait() == 130, started.output + started.errors
    assert (started.output + started.errors).count("interrupted; nothing is lost") == 1
    assert started.errors in ("", "harness: interrupted; nothing is lost\n")


def assert_sound(sweeps: Sweeps) -> None:
    """Nothing is left of it, and once MLflow has heard the rest, all is as it should be."""
    sweeps.assert_workers_end()
    sync(sweeps.home, [STUDY], print)
    assert audit(sweeps.home, STUDY) == []


ATTEMPTS = "SELECT uid, attempt, outcome, reserved_time_s > 0 FROM attempts WHERE worker = ? ORDER BY uid, attempt"


@slow
def test_a_worker_dies_alone_and_a_signal_ends_the_others_with_their_epoch(digits_folder: Path, tmp_path: Path) -> None:
    sweeps = Sweeps(tmp_path, digits_folder.parent, (*ENDLESS, "--workers", "2"))
    with sweeps.start() as started:
        started.wait_until(lambda: len(sweeps.ask("SELECT DISTINCT uid FROM epochs")) == 2)
        ((victim, *_),), ((other, *_),) = sweeps.ask(ATTEMPTS, "worker-0"), sweeps.ask(ATTEMPTS, "worker-1")
        neighbour = sweeps.workers()["worker-1"]
        sweeps.workers()["worker-0"].kill()
        started.wait_until_it_says("crashed (worker killed by SIGKILL); it will be tried again")
        started.wait_until(lambda: bool(sweeps.ask("SELECT 1 FROM epochs WHERE uid = ? AND attempt = 2", victim)))
        sweeps.workers()["worker-0"].kill()
        started.wait_until_it_says("crashed (worker killed by SIGKILL)", times=2)
        assert neighbour.is_running()
        started.send(signal.SIGTERM)
        assert_interrupted(started)
    assert sweeps.ask(ATTEMPTS, "worker-0")[:2] == [(victim, 1, Outcome.CRASHED, 1), (victim, 2, Outcome.CRASHED, 1)]
    assert sweeps.ask(ATTEMPTS, "worker-1") == [(other, 1, Outcome.CANCELLED, 1)]
    assert_sound(sweeps)


@slow
def test_a_second_signal_ends_it_at_once(digits_folder: Path, tmp_path: Path) -> None:
    sweeps = Sweeps(tmp_path, digits_folder.parent, ENDLESS)
    with sweeps.start() as started:
        started.wait_until(lambda: bool(sweeps.ask("SELECT 1 FROM epochs")))
        sweeps.workers()["worker-0"].suspend()  # its epoch will never end
        started.send(signal.SIGINT)
        started.wait_until_it_says("once more to stop at once")
        started.send(signal.SIGINT)
        assert_interrupted(started)
    assert [attempt[1:] for attempt in sweeps.ask(ATTEMPTS, "worker-0")] == [(1, Outcome.CANCELLED, 1)]
    assert_sound(sweeps)


@slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_command_is_loaded(digits_folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    sweeps, rng = Sweeps(tmp_path, digits_folder.parent), random.Random(number)
    for _ in range(5):
        with sweeps.start() as started:
            started.wait_until(lambda: started.is_listening)
            started.goes_on_for(rng.uniform(0.0, 0.5))
            started.send(number)
            assert_interrupted(started)


@slow
def test_a_signal_while_engine_and_workers_are_loaded(digits_folder: Path, tmp_path: Path) -> None:
    sweeps, rng = Sweeps(tmp_path, digits_folder.parent, HYPERBAND), random.Random(0)
    for longest_s in (0.0, 1.0, 2.0, 4.0):
        with sweeps.start() as started:
            started.wait_until_it_says("budget ")
            started.goes_on_for(rng.uniform(longest_s / 2, longest_s))
            started.send(signal.SIGINT)
            assert_interrupted(started)
        sweeps.assert_workers_end()


@slow
def test_a_signal_while_mlflow_keeps_it_waiting(digits_folder: Path, tmp_path: Path) -> None:
    sweeps = Sweeps(tmp_path, digits_folder.parent, ("--trials", "1"))
    store = sweeps.home / "mlflow.db"
    with sweeps.start() as started:
        started.wait_until(store.exists)
        with contextlib.closing(sqlite3.connect(store, isolation_level=None, timeout=WAIT_S)) as db:
            db.execute("BEGIN IMMEDIATE")
            started.wait_until_it_says("2 of 2 trials")
            started.send(signal.SIGINT)
            assert_interrupted(started)
    sweeps.run_to_the_end()
    assert_sound(sweeps)
