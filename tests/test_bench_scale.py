"""The bench of one coordinator under load: real parts but for the workers, true accounts, whole files."""

from __future__ import annotations

import csv
import json
from contextlib import closing
from pathlib import Path

import pytest

from harness.bench import parallel_search, scale, synthetic_objective
from harness.bench.load import STUDY, Load, Measured
from harness.bench.parallel_search import Crowd, found_pct
from harness.bench.scale import Plan
from harness.bench.sleeping_workers import Sleepers, TimeIsUpError
from harness.errors import TroubleError
from harness.execution.base import EpochDone, Event, Finished, Job, Ready
from harness.ledger.ledger import Ledger
from harness.search.base import NoProposal
from harness.search.proposer import Next, Proposer
from harness.study.records import Outcome, Trial, TrialResult

TRIAL = Trial("t", 0, {"filters_1": 32, "filters_2": 64, "kernel_1": 5, "kernel_2": 5, "dense_units": 1024}, 0, 2)
SMALL = Load("random", 12, 4, trial_s=0.05, with_mlflow=False, warm_up_s=0.3, measured_s=0.7)


def said(sleepers: Sleepers[None]) -> list[Event]:
    """What the workers say next, however long that takes."""
    while not (events := sleepers.events(0.25)):
        pass
    return events


def test_sleepers_say_what_workers_say_and_their_waits_are_noted() -> None:
    sleepers = Sleepers(2, 0.01, 0.0, 60.0, look=lambda: None)
    assert said(sleepers) == [Ready("worker-0"), Ready("worker-1")]
    sleepers.start("worker-0", Job(TRIAL))
    for epoch in (1, 2):
        (done,) = said(sleepers)
        assert isinstance(done, EpochDone)
        assert done.report.epoch == epoch
        sleepers.answer("worker-0", go_on=True)
    finished, ready = said(sleepers)
    assert isinstance(finished, Finished)
    assert finished.result.outcome is Outcome.COMPLETED
    assert ready == Ready("worker-0")
    seen = sleepers.seen
    assert (seen.num_epochs, seen.num_finished, len(seen.answer_s), len(seen.next_s)) == (2, 1, 2, 1)
    assert seen.num_whole == 1.0
    assert seen.trained_s > 0
    assert seen.coordinator_idle_s > 0
    assert sleepers.all_started_s is None, "worker-1 waits"
    sleepers.start("worker-1", Job(TRIAL))
    assert sleepers.all_started_s is not None


def test_a_stopped_trial_has_not_completed() -> None:
    sleepers = Sleepers(1, 0.01, 0.0, 60.0, look=lambda: None)
    said(sleepers)
    sleepers.start("worker-0", Job(TRIAL))
    said(sleepers)
    sleepers.answer("worker-0", go_on=False)
    finished, _ = said(sleepers)
    assert isinstance(finished, Finished)
    assert finished.result.outcome is Outcome.PRUNED
    assert sleepers.seen.num_whole == 0.5


def test_sleepers_go_when_the_time_is_up() -> None:
    looks = iter("ab")
    sleepers = Sleepers(1, 0.01, 0.0, 0.0, look=lambda: next(looks))
    sleepers.events(0.0)
    with pytest.raises(TimeIsUpError):
        sleepers.events(0.0)
    assert sleepers.looks == ["a", "b"]


def test_a_ledger_is_filled_from_a_smaller_one(tmp_path: Path) -> None:
    small, large = scale.filled(tmp_path, 0), scale.filled(tmp_path, 12)
    with closing(Ledger(small)) as ledger:
        baseline = [record.trial.uid for record in ledger.history(STUDY)]
    with closing(Ledger(large)) as ledger:
        uids = [record.trial.uid for record in ledger.history(STUDY)]
    assert len(baseline) == scale.study().baseline_seeds
    assert len(uids) == 12
    assert uids[: len(baseline)] == baseline


@pytest.mark.parametrize("with_mlflow", [False, True])
def test_a_coordinator_is_measured_under_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_mlflow: bool
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # not where the bench's runs may go
    (tmp_path / "bench").mkdir()
    ledger = scale.filled(tmp_path / "bench", SMALL.history)
    before = ledger.read_bytes()
    load = Load(**vars(SMALL) | {"with_mlflow": with_mlflow, "sampler": "tpe", "measured_s": 4.0})
    seen = scale.under(load, ledger)
    assert ledger.read_bytes() == before, "it works on a copy"
    assert seen.trials_per_s > 0
    assert seen.epochs_per_s > seen.trials_per_s
    assert 0 < seen.busy_share <= 1
    assert 0 <= seen.waiting_share < 1
    assert seen.ask_s
    assert seen.next_s
    assert len(seen.answer_s) > len(seen.next_s)
    assert (seen.mlflow_behind is None) == (seen.mlflow_per_s is None) == (not with_mlflow)
    assert seen.memory_mb > 10


def test_a_coordinator_that_fails_is_said_to_have_failed(tmp_path: Path) -> None:
    (tmp_path / "bench" / "12").mkdir(parents=True)
    (tmp_path / "bench" / "12" / "ledger.db").write_text("no ledger")
    with pytest.raises(TroubleError, match=r"bench scale failed: .*ledger"):
        scale.under(SMALL, tmp_path / "bench" / "12" / "ledger.db")


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_crowd_finds_the_same_with_the_same_seed(sampler: str) -> None:
    crowd = Crowd(sampler, 8, seed=1)
    found = found_pct(crowd, (10, 30))
    assert found == found_pct(crowd, (10, 30))
    assert found != found_pct(Crowd(sampler, 8, seed=2), (10, 30))
    assert all(synthetic_objective.best_error_pct() <= error_pct < 3 for error_pct in found)


@pytest.mark.parametrize("num_workers", [1, 7])
def test_each_proposal_of_a_crowd_knows_nothing_of_the_trials_that_run(
    num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: set[str] = set()
    num_running: list[int] = []

    class Watched(Proposer):
        def next(self, *, finals: bool = False) -> Next | NoProposal:
            proposed = super().next(finals=finals)
            assert isinstance(proposed, Next)
            running.add(proposed.trial.uid)
            num_running.append(len(running))
            return proposed

        def tell(self, trial: Trial, result: TrialResult) -> None:
            running.remove(trial.uid)
            super().tell(trial, result)

    monkeypatch.setattr(parallel_search, "Proposer", Watched)
    found_pct(Crowd("random", num_workers, seed=0), (20,))
    assert max(num_running) == num_workers
    assert set(num_running[num_workers:]) == {num_workers}, "a worker that is free asks at once"


def test_all_is_written_whole(tmp_path: Path) -> None:
    out_dir = tmp_path / "bench"
    plan = Plan([SMALL], (5, 10), (1, 4), num_seeds=2)
    frame = scale.carry_out(plan, out_dir)
    assert list(frame["what"]) == ["load"] + ["search"] * 4
    with (out_dir / "scale.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["sampler"] for row in rows] == ["random", "random", "random", "tpe", "tpe"]
    assert (rows[0]["history"], rows[0]["workers"], rows[0]["mlflow_behind"]) == ("12", "4", "")
    assert float(rows[0]["reached_per_s"]) > 0
    assert rows[0]["regret_5_pct"] == ""
    assert float(rows[1]["regret_10_pct"]) >= 0
    data = json.loads((out_dir / "scale.json").read_text())
    assert data["machine"]
    assert len(data["searches"]) == 8
    assert len(data["loads"][0]["ask_s"]) > 0
    assert (out_dir / "scale.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in out_dir.iterdir()) == ["scale.csv", "scale.json", "scale.png"]


def measured(**changes: object) -> Measured:
    settings = {
        "resume_s": 1.0, "all_started_s": None, "trials_per_s": 10.0, "epochs_per_s": 40.0, "trained_share": 0.8,
        "waiting_share": 0.2,
        "ask_s": [0.01, 0.02], "next_s": [], "answer_s": [0.001], "busy_share": 0.4, "loop_cpu_pct": 30.0,
        "other_cpu_pct": 0.0, "memory_mb": 100.0, "mlflow_per_s": None, "mlflow_behind": None,
    }  # fmt: skip
    return Measured(**settings | changes)  # type: ignore[arg-type]


def test_what_is_offered_and_what_could_be_done_follow_from_what_was_done() -> None:
    assert scale.offered_per_s(SMALL, measured()) == pytest.approx(4 / 0.05 / 0.8)
    assert scale.could_per_s(measured()) == pytest.approx(25.0)
    row = scale.table([(SMALL, measured())], {12: 0.5}, {}, ()).iloc[0]
    assert (row["ask_ms"], row["ask_ms_p95"], row["next_ms"], row["cpu_ms"]) == (15.0, 19.5, "", 30.0)


def test_the_plans_offer_what_a_thousand_workers_with_trials_of_a_minute_do() -> None:
    for plan in (scale.full_plan(None), scale.quick_plan(2)):
        rates = [load.num_workers / load.trial_s for load in plan.loads]
        assert min(rates) == pytest.approx(1000 / 60)
        assert all(load.history == 0 for load in plan.loads if load.with_mlflow)
    assert {load.history for load in scale.full_plan(None).loads} == {0, 1000, 10_000, 100_000}
    assert len(scale.quick_plan(2).crowds) == 2 * 3 * 2
