"""What KerasTuner's Oracles are told and asked."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from keras_tuner.oracles import BayesianOptimizationOracle
from simulated_study import CONDITIONAL, NUMBERS, STEPPED, SimulatedStudy, simulated_spec, some_fail

from harness.search import history_window
from harness.search.base import NoProposal
from harness.search.keras_tuner_search import RANDOM_PER_DIMENSION, KerasTunerSearch
from harness.study.records import Outcome, Params, Record, Role, Trial
from harness.support.home import project_root


def study(sampler: str, **settings: object) -> SimulatedStudy:
    fails = settings.pop("fails", lambda trial: None)
    spec = simulated_spec(**({"engine": "keras-tuner", "sampler": sampler} | settings))
    return SimulatedStudy(spec, fails=fails)  # type: ignore[arg-type]


def by_uid(run: SimulatedStudy) -> dict[str, Record]:
    return {record.trial.uid: record for record in run.records}


class TestHyperband:
    def test_promotes_the_best_of_each_rung_with_more_epochs(self) -> None:
        run = study("hyperband").run(23)  # two seeds of the baseline, then one pass over all brackets
        searched = run.searched()
        assert Counter((t.epochs, t.continues is not None) for t in searched) == {
            (2, False): 6,
            (3, True): 3,
            (5, True): 4,
            (3, False): 4,
            (5, False): 4,
        }
        records = by_uid(run)
        for trial in searched:
            if trial.continues is None:
                continue
            before = records[trial.continues]
            assert before.trial.params == trial.params
            assert before.trial.seed == trial.seed
            assert before.trial.epochs < trial.epochs
            assert before.trial.number < trial.number
            assert before.result is not None
        first_rung = sorted(searched[:6], key=lambda trial: records[trial.uid].result.error_rate_pct)  # type: ignore[union-attr]
        assert {trial.continues for trial in searched[6:9]} == {trial.uid for trial in first_rung[:3]}
        assert all(len(records[trial.uid].result.curve) == 1 for trial in searched[6:9])  # type: ignore[union-attr]

    def test_three_rungs_from_nine_epochs_on(self) -> None:
        run = study("hyperband", epochs=9).run(15)
        assert [trial.epochs for trial in run.searched()] == [1] * 9 + [3] * 3 + [9]

    def test_goes_on_as_long_as_there_is_budget(self) -> None:
        run = study("hyperband").run(60)
        assert len(run.records) == 60
        assert run.end is None

    def test_what_is_infeasible_takes_no_place_in_a_rung(self) -> None:
        run = study("hyperband", constraints={"max_params": 600_000}).run(40)
        records = by_uid(run)
        feasible = [t for t in run.searched() if records[t.uid].result.outcome is Outcome.COMPLETED]  # type: ignore[union-attr]
        assert len(feasible) < len(run.searched())
        assert [trial.epochs for trial in feasible[:11]] == [2] * 6 + [3] * 3 + [5] * 2

    def test_what_has_failed_is_not_gone_on_from(self) -> None:
        run = study("hyperband", fails=lambda t: Outcome.DIVERGED if t.number in (2, 3, 4, 5) else None).run(8)
        assert run.search.continuable() == {run.trials[6].uid, run.trials[7].uid}
        run.run(30)
        records, searched = by_uid(run), run.searched()
        # Four of six are gone: the two that are left go on, and the third place stays empty.
        assert [t.epochs for t in searched[:10]] == [2] * 6 + [3] * 2 + [5] * 2
        for trial in searched:
            if trial.continues is not None:
                assert records[trial.continues].result.outcome is Outcome.COMPLETED  # type: ignore[union-attr]

    def test_keeps_the_checkpoints_that_a_rung_may_need(self) -> None:
        run = study("hyperband")
        kept_when_needed = []
        for count in range(3, 24):
            run.run(count)
            trial = run.trials[-1]
            if count < 23:
                kept = run.search.continuable()
                run.run(count + 1)
                after = run.trials[-1].continues
                kept_when_needed.append(after is None or after in kept)
            assert trial.uid in {t.uid for t in run.trials}
        assert all(kept_when_needed)
        # One pass is over: of its first two brackets nothing is needed any more.
        assert not run.search.continuable() & {trial.uid for trial in run.searched()[:17]}

    def test_a_running_trial_keeps_what_it_goes_on_from(self) -> None:
        run = study("hyperband").run(8)  # the first rung is full
        proposed = run.proposer.next()
        assert not isinstance(proposed, NoProposal)
        assert proposed.trial.continues in run.search.continuable()

    def test_waits_for_the_rest_of_a_rung_while_trials_run(self) -> None:
        run = study("hyperband", space=STEPPED, epochs=2, baseline_seeds=1).run(1)
        proposals = [run.proposer.next() for _ in range(40)]
        kinds = [proposal for proposal in proposals if isinstance(proposal, NoProposal)]
        assert set(kinds) == {NoProposal.WAIT}  # 18 points are out, none has ended


class TestBayesian:
    def test_finds_the_bottom_of_a_bowl(self) -> None:
        run = study("bayesian", space=NUMBERS).run(15)
        late = run.searched()[-6:]
        assert all(abs(float(trial.params["dropout"]) - 0.3) < 0.2 for trial in late[-3:])
        assert len({tuple(trial.params.values()) for trial in late}) == 6

    def test_stays_away_from_what_fails(self) -> None:
        run = study(
            "bayesian",
            space=NUMBERS,
            fails=lambda t: Outcome.OUT_OF_MEMORY if int(t.params["units_1"]) > 700 else None,
        ).run(24)
        assert sum(int(trial.params["units_1"]) > 700 for trial in run.searched()[-8:]) <= 2

    def test_leaves_the_oracle_as_it_was(self) -> None:
        run = study("bayesian", space=NUMBERS, fails=some_fail).run(14)
        assert isinstance(run.search, KerasTunerSearch)
        trials = run.search._oracle.trials.values()
        ends = [record.result.outcome for record in run.records if record.result]
        assert [trial.status for trial in trials] == [
            "COMPLETED" if outcome is Outcome.COMPLETED else "FAILED" for outcome in ends
        ]
        assert all((trial.score is None) is (trial.status == "FAILED") for trial in trials)
        assert run.search._oracle.ongoing_trials == {}

    def test_is_shown_the_best_and_latest_of_a_long_study(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(history_window, "NUM_SHOWN", 6)
        monkeypatch.setattr(history_window, "NUM_BEST_SHOWN", 2)
        run = study("bayesian", space=NUMBERS, fails=some_fail)
        assert isinstance(run.search, KerasTunerSearch)
        sizes: list[int] = []
        fit = run.search._oracle.gpr.fit
        monkeypatch.setattr(run.search._oracle.gpr, "fit", lambda x, y: sizes.append(len(x)) or fit(x, y))
        run.run(11)
        assert 4 <= sizes[-1] <= max(sizes) == 6
        scores = [trial.score for trial in run.search._oracle.trials.values() if trial.status == "COMPLETED"]
        ended = [record.result for record in run.records if record.result]
        assert scores == [result.error_rate_pct for result in ended if result.outcome is Outcome.COMPLETED]
        resumed = SimulatedStudy(run.spec, run.stopped_at(19), fails=some_fail).run(11)
        assert resumed.story() == run.story()

    def test_settings_that_are_not_its_own_are_told(self) -> None:
        run = study("bayesian", space=NUMBERS)
        oracle = run.search._oracle  # type: ignore[attr-defined]
        own = inspect.signature(BayesianOptimizationOracle).parameters["alpha"].default
        table = (project_root() / "docs" / "search.md").read_text(encoding="utf-8")
        assert f"counts as noise | {own:g} | {oracle.alpha:g} |" in table
        assert f"before the Gaussian process is used | 3 | {RANDOM_PER_DIMENSION} |" in table
        run.run(4)
        assert oracle.num_initial_points == RANDOM_PER_DIMENSION * len(NUMBERS)


class TestGrid:
    def test_lists_every_point_of_a_conditional_space_once(self) -> None:
        run = study("grid", space=CONDITIONAL, max_repeats=2).run(100)
        points = [tuple(sorted(trial.params.items())) for trial in run.searched()]
        space = run.spec.search_space
        assert Counter(points) == Counter(tuple(sorted(point.items())) for point in space.grid())
        assert run.end is NoProposal.EXHAUSTED

    def test_takes_ten_values_of_a_range_without_a_step(self) -> None:
        run = study("grid", space={"dropout": {"low": 0.0, "high": 0.5}}).run(50)
        assert len({trial.params["dropout"] for trial in run.trials}) == 11  # and the lowest, where the baseline is


def test_a_proposal_depends_on_its_number_and_not_on_how_many_were_asked_for() -> None:
    first, second = (KerasTunerSearch(simulated_spec(engine="keras-tuner", sampler="random")) for _ in range(2))
    for number in range(5):
        first.ask(str(number), number, 0)
    assert first.ask("one", 5, 0) == second.ask("one", 5, 0)
    assert first.ask("two", 6, 1) != second.ask("two", 6, 0)


def test_what_is_declined_has_still_been_tried() -> None:
    search = KerasTunerSearch(simulated_spec(engine="keras-tuner", sampler="random", space=STEPPED))
    seen = []
    for retry in range(18):
        proposal = search.ask("uid", 0, retry)
        assert not isinstance(proposal, NoProposal)
        seen.append(tuple(proposal.params.values()))
        search.decline("uid")
    assert len(set(seen)) == 18
    assert search.ask("uid", 0, 18) is NoProposal.EXHAUSTED


def test_random_draws_end_with_the_last_point() -> None:
    run = study("random", space=STEPPED).run(50)
    assert run.end is NoProposal.EXHAUSTED
    assert len({tuple(trial.params.values()) for trial in run.trials}) == 18


@pytest.mark.parametrize("sampler", ["random", "hyperband"])
def test_values_are_of_our_types(sampler: str) -> None:
    space = {
        "batch_norm": {"values": [False, True]},
        "schedule": {"values": ["warmup_cosine", "cosine"]},
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "dropout": {"low": 0.0, "high": 0.3, "step": 0.1},
        "units_1": {"low": 500, "high": 515, "log": True},
        "batch_size": {"values": [128, 64], "when": {"batch_norm": [True], "dropout": [0.1, 0.3]}},
    }
    # The documented point has no batch_size here, which is as good as any other.
    run = study(sampler, space=space).run(60)
    types: dict[str, set[type]] = {}
    for trial in run.searched():
        run.spec.search_space.validate(trial.params)
        for name, value in trial.params.items():
            types.setdefault(name, set()).add(type(value))
    assert {name: kinds.pop() for name, kinds in types.items() if len(kinds) == 1} == {
        "batch_norm": bool,
        "schedule": str,
        "learning_rate": float,
        "dropout": float,
        "units_1": int,
        "batch_size": int,
    }


def test_a_past_that_the_oracle_would_propose_otherwise_is_taken_as_it_ran() -> None:
    run = study("hyperband").run(8)
    other: Params = {**run.trials[4].params, "units_1": 777}
    record = run.records[4]
    trial = Trial(record.trial.uid, 4, other, 0, 2, Role.TRIAL)
    records = [*run.records[:4], Record(trial, record.result, record.asked_at, record.told_at), *run.records[5:]]
    resumed = SimulatedStudy(run.spec, records).run(12)
    assert len(resumed.records) == 12


def test_it_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for sampler in ("random", "hyperband", "grid"):
        study(sampler, fails=some_fail).run(8)
    assert list(tmp_path.iterdir()) == []


def test_loading_it_leaves_the_screen_alone() -> None:
    code = (
        "import sys; from simulated_study import simulated_spec; from harness.search.factory import make_search;"
        "make_search(simulated_spec(engine='keras-tuner', sampler='random'));"
        "print('seen', file=sys.stderr)"
    )
    tests = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tests)
    assert (done.stdout, done.stderr) == ("", "seen\n")
