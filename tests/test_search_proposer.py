"""Which trial is next, with a search that proposes what it is told to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import pytest
from simulated_study import NUMBERS, SimulatedStudy, epoch_report, simulated_spec

from harness.search.base import NoProposal, Proposal
from harness.search.proposer import MAX_DECLINES, MAX_INFEASIBLE, Next, Proposer
from harness.study.records import EpochReport, Outcome, Params, Record, Role, Seconds, Trial, TrialResult

BASELINE = {"units_1": 512, "dropout": 0.0}
A, B, C = ({"units_1": units, "dropout": 0.25} for units in (64, 128, 256))


class Scripted:
    """Proposes one entry of a script after the other, and writes down what it hears."""

    def __init__(self, script: Iterable[Params | Proposal | NoProposal]) -> None:
        self._script = iter(script)
        self.heard: list[tuple[object, ...]] = []

    def replay(self, records: Sequence[Record]) -> None:
        self.heard.append(("replay", len(records)))

    def ask(self, uid: str, number: int, retry: int) -> Proposal | NoProposal:
        self.heard.append(("ask", number, retry))
        step = next(self._script)
        return step if isinstance(step, Proposal | NoProposal) else Proposal(step)

    def decline(self, uid: str) -> None:
        self.heard.append(("decline",))

    def add(self, trial: Trial) -> None:
        self.heard.append(("add", dict(trial.params)))

    def report(self, trial: Trial, report: EpochReport) -> bool:
        self.heard.append(("report", report.epoch))
        return False

    def tell(self, trial: Trial, result: TrialResult) -> None:
        self.heard.append(("tell", result.outcome))

    def continuable(self) -> frozenset[str]:
        return frozenset({"kept"})


def proposer(
    script: Iterable[Params | Proposal | NoProposal], records: Sequence[Record] = (), **settings: object
) -> tuple[Proposer, Scripted]:
    search = Scripted(script)
    return Proposer(simulated_spec(**({"space": NUMBERS, "baseline_seeds": 1} | settings)), search, records), search


def ask(source: Proposer, outcome: Outcome = Outcome.COMPLETED) -> Next:
    """The next trial, told to have ended so."""
    proposed = source.next()
    assert isinstance(proposed, Next)
    source.tell(proposed.trial, TrialResult(outcome))
    return proposed


def test_the_baseline_is_first_with_its_own_seeds() -> None:
    source, search = proposer([A], baseline_seeds=3, seed=7)
    trials = [ask(source).trial for _ in range(4)]
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert [trial.role for trial in trials] == [Role.BASELINE] * 3 + [Role.TRIAL]
    assert [trial.seed for trial in trials] == [7, 8, 9, 7]
    assert [dict(trial.params) for trial in trials] == [BASELINE] * 3 + [A]
    assert search.heard[:2] == [("replay", 0), ("add", BASELINE)]
    assert len({trial.uid for trial in trials}) == 4


def test_with_an_empty_space_there_is_only_the_baseline() -> None:
    source, _ = proposer([NoProposal.EXHAUSTED], space={}, baseline_seeds=2)
    assert [dict(ask(source).trial.params) for _ in range(2)] == [{}, {}]
    assert source.next() is NoProposal.EXHAUSTED


def test_enqueued_configurations_come_before_the_search() -> None:
    source, search = proposer([C], enqueue=[A, BASELINE, B])
    trials = [ask(source) for _ in range(5)]
    assert [dict(each.trial.params) for each in trials] == [BASELINE, A, BASELINE, B, C]
    assert [each.asks for each in trials] == [0, 0, 0, 0, 1]
    assert [each.trial.seed for each in trials] == [0, 0, 1, 0, 0]
    assert trials[2].trial.role is Role.TRIAL
    assert ("add", A) in search.heard


def test_enqueued_configurations_are_not_run_again_after_a_resume() -> None:
    spec = simulated_spec(space=NUMBERS, enqueue=[A, B, A])
    study = SimulatedStudy(spec).run(4)
    resumed = SimulatedStudy(spec, study.records).run(6)
    assert [dict(trial.params) for trial in resumed.trials[2:5]] == [A, B, A]
    assert [trial.seed for trial in resumed.trials[2:5]] == [0, 0, 1]
    assert resumed.records[5].asks == 1


def test_a_repetition_is_another_seed_a_few_times_then_declined() -> None:
    source, search = proposer([A, A, A, A, B], max_repeats=2)
    ask(source)
    trials = [ask(source) for _ in range(4)]
    assert [dict(each.trial.params) for each in trials] == [A, A, A, B]
    assert [each.trial.seed for each in trials] == [0, 1, 2, 0]
    assert [each.asks for each in trials] == [1, 1, 1, 2]
    assert [step for step in search.heard if step[0] in ("ask", "decline")][-3:] == [
        ("ask", 4, 0),
        ("decline",),
        ("ask", 4, 1),
    ]


def test_a_repetition_of_the_baseline_goes_on_with_its_seeds() -> None:
    source, _ = proposer([BASELINE, B], baseline_seeds=2, max_repeats=2)
    assert [ask(source).trial.seed for _ in range(4)] == [0, 1, 2, 0]


@pytest.mark.parametrize("outcome", [Outcome.DIVERGED, Outcome.OUT_OF_MEMORY, Outcome.TIMED_OUT])
def test_what_has_failed_is_not_repeated(outcome: Outcome) -> None:
    source, _ = proposer([A, A, B])
    ask(source)
    ask(source, outcome)
    assert dict(ask(source).trial.params) == B


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.PRUNED, Outcome.CRASHED])
def test_what_may_have_had_bad_luck_is_repeated(outcome: Outcome) -> None:
    source, _ = proposer([A, A, B])
    ask(source)
    ask(source, outcome)
    assert dict(ask(source).trial.params) == A


def test_a_search_that_only_repeats_itself_ends() -> None:
    source, search = proposer(iter(lambda: A, None), max_repeats=0)
    ask(source)
    ask(source)
    assert source.next() is NoProposal.EXHAUSTED
    num_asks = search.heard.count(("decline",))
    assert num_asks == MAX_DECLINES + 1
    assert source.next() is NoProposal.EXHAUSTED
    assert search.heard.count(("decline",)) == num_asks


def test_a_search_that_only_breaks_limits_ends() -> None:
    wide = ({"units_1": 2048, "dropout": 0.001 * i} for i in range(1000))
    source, _ = proposer(wide, constraints={"max_params": 1_000_000})
    ask(source)
    for _ in range(MAX_INFEASIBLE):
        proposed = ask(source, Outcome.INFEASIBLE)
        assert proposed.infeasible is not None
        assert proposed.infeasible.startswith("max_params is 1,000,000, this configuration needs 2,6")
    assert source.next() is NoProposal.EXHAUSTED


def test_a_configuration_within_limits_starts_the_count_anew() -> None:
    wide = [{"units_1": 2048, "dropout": 0.001 * i} for i in range(MAX_INFEASIBLE - 1)]
    source, _ = proposer([*wide, A, *wide], constraints={"max_params": 1_000_000}, max_repeats=1000)
    ask(source)
    for _ in range(2 * MAX_INFEASIBLE - 1):
        ask(source)


def test_limits_do_not_touch_the_baseline_but_what_the_user_enqueues() -> None:
    source, _ = proposer([A], enqueue=[BASELINE], constraints={"max_params": 200_000})
    assert ask(source).infeasible is None
    assert ask(source).infeasible is not None
    assert ask(source).infeasible is None


def test_a_continued_trial_keeps_its_seed_and_is_no_repetition() -> None:
    def script() -> Iterable[Proposal | Params]:
        yield A
        yield Proposal(A, epochs=2)
        yield Proposal(A, epochs=5, continues=trials[-1].trial.uid)
        yield A
        yield A
        yield B

    trials: list[Next] = []
    source, _ = proposer(script(), max_repeats=2)
    while len(trials) < 6:
        trials += [ask(source)]
    assert [each.trial.epochs for each in trials] == [5, 5, 2, 5, 5, 5]
    assert [each.trial.seed for each in trials] == [0, 0, 1, 1, 2, 0]
    assert [each.trial.continues for each in trials] == [None, None, None, trials[2].trial.uid, None, None]
    assert dict(trials[5].trial.params) == B


def test_what_was_declined_before_a_wait_is_not_asked_again() -> None:
    source, search = proposer([A, A, NoProposal.WAIT, B], max_repeats=0)
    ask(source)
    ask(source)
    assert source.next() is NoProposal.WAIT
    proposed = ask(source)
    assert (dict(proposed.trial.params), proposed.asks) == (B, 2)
    assert [step for step in search.heard if step[0] == "ask"][1:] == [("ask", 2, 0), ("ask", 2, 1), ("ask", 2, 1)]


def test_the_baseline_is_never_stopped_and_nothing_is_after_its_last_epoch() -> None:
    source, _ = proposer([A])
    baseline, trial = ask(source).trial, ask(source).trial
    spec = simulated_spec(space=NUMBERS)
    assert source.report(baseline, epoch_report(spec, baseline, 1))
    assert not source.report(trial, epoch_report(spec, trial, 4))
    assert source.report(trial, epoch_report(spec, trial, 5))


def test_what_a_verdict_ran_again_counts_for_its_number_only() -> None:
    ran = Record(Trial("v", 1, A, 0, 5, Role.CONFIRM), TrialResult(Outcome.DIVERGED), 3, 4, asks=0)
    first = Record(Trial("b", 0, BASELINE, 0, 5, Role.BASELINE), TrialResult(Outcome.COMPLETED), 1, 2, asks=0)
    source, search = proposer([A], [first, ran])
    proposed = ask(source)
    assert (proposed.trial.number, dict(proposed.trial.params), proposed.trial.seed) == (2, A, 0)
    assert search.heard[0] == ("replay", 1)


def test_a_pending_trial_that_breaks_a_limit_is_known_by_it() -> None:
    source, _ = proposer([], constraints={"max_params": 1_000_000})
    wide = Trial("w", 1, {"units_1": 2048, "dropout": 0.0}, 0, 5)
    assert source.broken_limit(wide) is not None
    assert source.broken_limit(dataclasses.replace(wide, role=Role.BASELINE)) is None


def test_time_and_checkpoints_are_passed_on() -> None:
    source, _ = proposer([A])
    assert ask(source).search_time_s > 0
    assert ask(source).search_time_s > 0
    assert source.continuable() == {"kept"}


def trained(source: Proposer, error_pct: float, *, finals: bool = False) -> Trial:
    """The next trial, told to have ended with this error."""
    proposed = source.next(finals=finals)
    assert isinstance(proposed, Next)
    tell(source, proposed.trial, error_pct)
    return proposed.trial


def tell(source: Proposer, trial: Trial, error_pct: float) -> None:
    curve = (EpochReport(trial.epochs, 0.1, 0.1, error_pct, 10_000, Seconds()),)
    source.tell(trial, TrialResult(Outcome.COMPLETED, curve=curve))


def test_in_the_finals_the_best_get_further_seeds() -> None:
    source, search = proposer([A, B, C], baseline_seeds=2)
    baseline = [trained(source, error_pct) for error_pct in (2.0, 2.2)]
    first = [trained(source, error_pct) for error_pct in (1.7, 1.5, 3.0)]
    again = trained(source, 1.9, finals=True)
    assert (again.params, again.seed, again.role) == (B, first[1].seed + 1, Role.TRIAL)
    assert ("add", B) in search.heard
    assert source.report(again, epoch_report(simulated_spec(space=NUMBERS), again, 1)), "it is not stopped early"
    assert trained(source, 1.6, finals=True).params == A, "whose bound is now the lowest"
    assert len({trial.uid for trial in (*baseline, *first, again)}) == 6


def test_trainings_under_way_count_for_the_finalists_bound() -> None:
    source, _ = proposer([A, B], baseline_seeds=2)
    for error_pct in (2.0, 2.6, 1.50, 1.52):
        trained(source, error_pct)
    asked = [source.next(finals=True) for _ in range(2)]
    assert [proposed.trial.params for proposed in asked if isinstance(proposed, Next)] == [A, B]


def test_without_a_trial_trained_in_full_the_search_goes_on_in_the_finals() -> None:
    source, _ = proposer([A, B], baseline_seeds=1)
    trained(source, 2.0, finals=True)
    first = source.next(finals=True)
    assert isinstance(first, Next)
    assert first.trial.params == A
    source.tell(first.trial, TrialResult(Outcome.PRUNED))
    second = source.next(finals=True)
    assert isinstance(second, Next)
    assert second.trial.params == B


def test_a_configuration_that_fails_is_no_finalist() -> None:
    source, _ = proposer([A, B], baseline_seeds=1)
    for error_pct in (2.0, 1.0, 1.5):
        trained(source, error_pct)
    again = source.next(finals=True)
    assert isinstance(again, Next)
    assert again.trial.params == A
    source.tell(again.trial, TrialResult(Outcome.OUT_OF_MEMORY))
    assert trained(source, 1.5, finals=True).params == B
