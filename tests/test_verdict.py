"""A verdict over scripted workers: what is trained, in which order, how it goes on, and what is said in the end."""

import csv
import dataclasses
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from filled_ledger import CPU, DOCUMENTED, RECIPE, FilledLedger, make_spec
from matplotlib.figure import Figure
from verdict_workers import Killed, VerdictWorkers, Wrong, train

from harness.analysis.leaderboard.leaderboard import leaderboard
from harness.analysis.leaderboard.table import show_leaderboard
from harness.analysis.report.facts import gather
from harness.analysis.verdict import picture
from harness.analysis.verdict.findings import Configuration, Interval, find_verdict
from harness.analysis.verdict.sentences import sentences
from harness.analysis.verdict.table import show_verdict, write_verdict
from harness.analysis.verdict.trainings import Answer
from harness.errors import InputError, TroubleError
from harness.execution import local
from harness.ledger.ledger import Ledger
from harness.ledger.locks import study_lock
from harness.planning.progress import StopReason
from harness.study.data import BUILT_IN
from harness.study.records import Outcome, Role, Trial
from harness.study.spec import SweepSpec
from harness.sweep import runner
from harness.sweep.display import PlainDisplay
from harness.sweep.loop import Sweep
from harness.workflows.verdict import Request, VerdictEnd, best_trials, plan_verdict, run_verdict

EPOCHS = 2
NUM_IMAGES = BUILT_IN["mnist"].sizes["test"]


def every(number: int, seed: int, first: int = 0) -> set[int]:
    """`number` test images, most of them the same for all seeds."""
    return {first + 7 * image for image in range(number - 3)} | {
        NUM_IMAGES - 1 - 3 * seed - extra for extra in (0, 1, 2)
    }


def a_tie(trial: Trial) -> set[int]:
    return every(100 + trial.seed % 3, trial.seed)


def one_is_better(trial: Trial) -> set[int]:
    return every(40 if trial.params["units_1"] == 101 else 100, trial.seed)


def all_are_worse(trial: Trial) -> set[int]:
    return every(100 if dict(trial.params) == DOCUMENTED else 200, trial.seed)


@pytest.fixture
def study(ledger: Ledger) -> FilledLedger:
    """Trials 2 to 7; the best three in full are 4, 2 and 7."""
    study = FilledLedger(ledger, make_spec("study", full_epochs=EPOCHS, trial_timeout_s=60.0))
    study.add_baseline(3.0, seed=0)
    study.add_baseline(3.2, seed=1)
    study.add(2.0, params={"units_1": 101, "units_2": 64}, train_s=9.0)
    study.add(1.0, params={"units_1": 102, "units_2": 64}, epochs=1)  # not in full
    study.add(1.8, params={"units_1": 103, "units_2": 64})
    study.add(1.5, Outcome.PRUNED, params={"units_1": 104, "units_2": 64})
    study.add(1.9, params={"units_1": 103, "units_2": 64})  # the same configuration again
    study.add(2.0, params={"units_1": 105, "units_2": 64}, train_s=9.5)
    study.add(1.0, params=DOCUMENTED)  # is the baseline, and no candidate
    study.add(5.0)
    return study


def spec_for(ledger: Ledger, **request: int | float) -> SweepSpec:
    """The verdict's study, opened as a command does."""
    spec, origin = plan_verdict(ledger, "study", Request(**request), fresh=False)
    runner.open_study(ledger, spec, fresh=False, origin=origin)
    return spec


def said(ledger: Ledger) -> list[str]:
    return sentences(find_verdict(ledger, ledger.study("study.verdict").spec))


# What is planned


def test_candidates_are_the_best_configurations_that_were_trained_in_full(study: FilledLedger) -> None:
    records = study.ledger.history("study")
    assert [record.trial.number for record in best_trials(study.spec, records, 4)] == [4, 2, 7, 9]
    assert [record.trial.number for record in best_trials(study.spec, records, 1)] == [4]


def test_where_device_time_is_minimised_the_fastest_as_good_as_the_baseline_come_first(ledger: Ledger) -> None:
    spec = make_spec("front", objective=("error", "device_time"), pruner="none")
    study = FilledLedger(ledger, spec)
    study.add_baseline(3.0, seed=0)
    study.add_baseline(3.2, seed=1)
    for number, (error_pct, train_s) in enumerate([(2.0, 9.0), (3.1, 2.0), (3.3, 1.0), (3.2, 0.5), (2.9, 4.0)]):
        study.add(error_pct, params={"units_1": 101 + number, "units_2": 64}, train_s=train_s)
    records = ledger.history("front")
    assert [record.trial.number for record in best_trials(spec, records, 9)] == [3, 6, 2, 5, 4]


def test_a_verdict_is_at_full_recipe_on_seeds_that_the_study_never_used(study: FilledLedger) -> None:
    study.add(9.0, seed=41)
    spec, origin = plan_verdict(study.ledger, "study", Request(), fresh=False)
    assert (spec.study, spec.profile, spec.epochs, spec.train_images) == ("study.verdict", "verdict", EPOCHS, 60_000)
    assert (spec.is_verdict, spec.trains_on_validation, spec.reads_test) == (True, True, True)
    assert spec.seed == 1000
    assert [params["units_1"] for params in spec.enqueue] == [103, 101, 105]
    assert (spec.budget.trials, spec.budget.wall_s) == (4 * 5, None)
    assert spec.trial_timeout_s == pytest.approx(60.0 * EPOCHS * 60_000 / (3 * 1000))
    assert spec.confirms == (4, 2, 7)
    assert origin == {"verdict_of": "study", "confirms": ["study-4", "study-2", "study-7"]}
    assert SweepSpec.model_validate_json(spec.model_dump_json()) == spec


def test_seeds_stay_within_their_range(study: FilledLedger) -> None:
    study.add(9.0, seed=2**31 - 2)
    spec, _ = plan_verdict(study.ledger, "study", Request(), fresh=False)
    used = {record.trial.seed for record in study.ledger.history("study")}
    assert used.isdisjoint(range(spec.seed, spec.seed + 20))
    assert spec.seed + 20 < 2**31


def test_without_a_full_profile_the_studys_own_epochs_count(ledger: Ledger) -> None:
    study = FilledLedger(ledger, make_spec("study"))
    study.add(2.0)
    assert plan_verdict(ledger, "study", Request(), fresh=False)[0].epochs == 3
    asked = Request(top=1, num_seeds=8, epochs=7, wall_s=60.0)
    spec, _ = plan_verdict(ledger, "study", asked, fresh=False)
    assert (spec.epochs, spec.budget.trials, spec.budget.wall_s) == (7, 2 * 8, 60.0)


# What is trained


def test_every_configuration_is_trained_on_the_same_seeds_and_reads_the_test_images_once(study: FilledLedger) -> None:
    ledger = study.ledger
    spec = spec_for(ledger)
    assert train(ledger, spec, VerdictWorkers(a_tie)) is StopReason.TRIALS
    records = ledger.history("study.verdict")
    assert {record.trial.role for record in records} == {Role.CONFIRM}
    assert [record.trial.number for record in records] == list(range(20))
    assert [record.trial.params["units_1"] for record in records[:5]] == [512, 103, 101, 105, 512]
    seeds = list(range(spec.seed, spec.seed + 5))
    assert [record.trial.seed for record in records] == [seed for seed in seeds for _ in range(4)]
    assert {record.trial.epochs for record in records} == {EPOCHS}
    assert (ledger.num_test_reads("study.verdict"), ledger.num_test_reads("study")) == (20, 0)


def test_a_tie_takes_all_seeds_and_more_may_be_added(study: FilledLedger) -> None:
    spec = spec_for(study.ledger)
    train(study.ledger, spec, VerdictWorkers(a_tie))
    assert said(study.ledger)[0].startswith("NOT DISTINGUISHABLE: trial ")
    more = VerdictWorkers(a_tie)
    train(study.ledger, spec_for(study.ledger, num_seeds=8), more)
    assert [trial.number for trial in more.trained] == list(range(20, 32))
    found = find_verdict(study.ledger, study.ledger.study("study.verdict").spec)
    assert (found.answer, len(found.seeds), found.num_planned) == (Answer.NOT_DISTINGUISHABLE, 8, 8)


@pytest.mark.parametrize(
    ("errors", "answer", "answers"),
    [
        (one_is_better, Answer.BETTER, [Answer.NOT_DISTINGUISHABLE, Answer.BETTER, Answer.NOT_DISTINGUISHABLE]),
        (all_are_worse, Answer.WORSE, [Answer.WORSE] * 3),
    ],
)
def test_a_clear_answer_ends_it_at_the_first_look(
    study: FilledLedger, errors: Wrong, answer: Answer, answers: list[Answer]
) -> None:
    workers = VerdictWorkers(errors, num_workers=3)
    assert train(study.ledger, spec_for(study.ledger), workers) is StopReason.EXHAUSTED
    assert len(workers.trained) == 4 * 3
    found = find_verdict(study.ledger, study.ledger.study("study.verdict").spec)
    assert (found.answer, len(found.seeds), found.num_planned) == (answer, 3, 5)
    assert [candidate.answer for candidate in found.candidates] == answers
    assert [candidate.trial for candidate in found.candidates] == [4, 2, 7]


def test_all_seeds_are_trained_where_asked(command: Callable[..., VerdictEnd], study: FilledLedger) -> None:
    assert len(command(one_is_better).verdict.seeds) == 3
    found = command(one_is_better, takes_all_seeds=True).verdict
    assert (found.answer, len(found.seeds), found.num_test_reads) == (Answer.BETTER, 5, 20)
    assert command(None, takes_all_seeds=True).verdict == found
    assert command(None).verdict == found


@pytest.mark.parametrize("number", [0, 5, 11, 12, 19])
@pytest.mark.parametrize("how", ["Ctrl-C", "kill -9"])
def test_an_interrupted_verdict_goes_on(
    study: FilledLedger, number: int, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = study.ledger
    spec = spec_for(ledger)
    if how == "Ctrl-C":
        first = VerdictWorkers(a_tie, stop_at=number)
        assert train(ledger, spec, first) is StopReason.INTERRUPTED
    else:
        first = VerdictWorkers(a_tie, die_at=number)
        monkeypatch.setattr(Sweep, "_cancel_running", lambda self: None)  # a killed process cleans nothing up
        with pytest.raises(Killed):
            train(ledger, spec, first)
    second = VerdictWorkers(a_tie)
    assert train(ledger, spec_for(ledger), second) is StopReason.TRIALS
    records = list(ledger.finished("study.verdict"))
    assert [record.trial.number for record in records] == list(range(20))
    assert all(record.result.outcome is Outcome.COMPLETED for record in records)
    assert ledger.num_test_reads("study.verdict") == 20
    finished_first = {trial.uid for trial in first.trained} - {trial.uid for trial in second.trained}
    assert len(finished_first) + len(second.trained) == 20
    configurations = Counter((trial.seed, trial.params["units_1"]) for trial in (record.trial for record in records))
    assert set(configurations.values()) == {1}


def test_a_candidate_that_fails_is_out_and_the_others_go_on(study: FilledLedger) -> None:
    def errors(trial: Trial) -> set[int] | Outcome:
        fails = trial.params["units_1"] == 103 and trial.number >= 4
        return Outcome.DIVERGED if fails else a_tie(trial)

    workers = VerdictWorkers(errors, num_workers=1)
    train(study.ledger, spec_for(study.ledger), workers)
    trained = Counter(trial.params["units_1"] for trial in workers.trained)
    assert trained == {512: 5, 103: 2, 101: 5, 105: 5}
    found = find_verdict(study.ledger, study.ledger.study("study.verdict").spec)
    assert found.answer is Answer.NOT_DISTINGUISHABLE
    first, *others = found.candidates
    assert (first.answer, first.errors, first.comparison) == (Answer.FAILED, None, None)
    assert first.failures == (f"seed {workers.trained[5].seed}: diverged (no luck)",)
    assert [other.answer for other in others] == [Answer.NOT_DISTINGUISHABLE] * 2


@pytest.mark.parametrize(
    ("failing", "num_trained", "sentence"),
    [
        ({512}, 1, "FAILED: a training of the baseline failed, so there is nothing to compare with"),
        ({103, 101, 105}, 4, "FAILED: no candidate could be trained with every seed"),
    ],
)
def test_where_nothing_is_left_to_compare_nothing_more_is_trained(
    study: FilledLedger, failing: set[int], num_trained: int, sentence: str
) -> None:
    workers = VerdictWorkers(
        lambda trial: Outcome.OUT_OF_MEMORY if trial.params["units_1"] in failing else a_tie(trial), num_workers=1
    )
    train(study.ledger, spec_for(study.ledger), workers)
    assert len(workers.trained) == num_trained
    assert said(study.ledger)[0] == sentence


def test_a_used_budget_leaves_the_answer_open_until_more_is_given(study: FilledLedger) -> None:
    spec = spec_for(study.ledger, wall_s=0.001)
    study.ledger.touch_session(study.ledger.start_session("study.verdict"), 1.0)
    assert train(study.ledger, spec, VerdictWorkers(a_tie)) is StopReason.WALL_TIME
    assert said(study.ledger) == [
        "NO VERDICT YET: too few seeds are trained; the same command continues",
        "0 of 5 fresh seeds each, 2 epochs on 60,000 images; 0 models have read the 10,000 test images, each once",
    ]
    assert train(study.ledger, spec_for(study.ledger), VerdictWorkers(a_tie)) is StopReason.TRIALS


# What is said


def test_the_answer_and_the_cost_in_sentences(study: FilledLedger, tmp_path: Path) -> None:
    train(study.ledger, spec_for(study.ledger), VerdictWorkers(one_is_better))
    better, cost, basis = said(study.ledger)
    assert better.startswith(
        "BETTER: trial 2 of study, the best of 3, has an error 0.60 points lower than the documented baseline"
        " (0.40 % against 1.00 % of the test images, worst seed 0.40 % against 1.00 %; 95 % interval from 0."
    )
    assert cost == (
        "cost: trial 2 takes 0.40x the device time (4.0 s against 10.0 s per training) and 0.40x the parameters"
    )
    assert basis.startswith("3 of 5 fresh seeds each, 2 epochs on 60,000 images; 12 models have read the 10,000 test")


def test_a_tie_says_how_well_the_cheapest_is_known(study: FilledLedger) -> None:
    train(study.ledger, spec_for(study.ledger), VerdictWorkers(a_tie))
    found = find_verdict(study.ledger, study.ledger.study("study.verdict").spec)
    answer, cost, _ = sentences(found)
    assert answer.startswith("NOT DISTINGUISHABLE: ")
    assert " has the same mean error as the documented baseline (" in answer
    worst = min(candidate.comparison.corrected.high for candidate in found.candidates)
    assert f"is as good to within {worst:.2f} points at 0.40x the device time" in cost


def test_an_interval_that_says_nothing_is_not_said(study: FilledLedger) -> None:
    train(study.ledger, spec_for(study.ledger), VerdictWorkers(a_tie))
    found = find_verdict(study.ledger, study.ledger.study("study.verdict").spec)
    wide = Interval(-32.0, 31.0)

    def with_interval(candidate: Configuration) -> Configuration:
        assert candidate.comparison
        comparison = dataclasses.replace(candidate.comparison, points=0.2, corrected=wide, num_seeds_needed=8)
        return dataclasses.replace(candidate, comparison=comparison)

    found = dataclasses.replace(found, candidates=tuple(map(with_interval, found.candidates)))
    answer, cost, _ = sentences(found)
    assert " has an error 0.20 points higher than the documented baseline, which may be chance (" in answer
    assert answer.endswith(
        "; too few seeds for an interval that says anything). A difference of this size would show with about 8 seeds"
        " (--seeds 8)"
    )
    (one, *_), (before, _) = found.candidates, answer.split(" A difference of this size ")
    assert one.comparison
    never = dataclasses.replace(one, comparison=dataclasses.replace(one.comparison, num_seeds_needed=None))
    assert sentences(dataclasses.replace(found, candidates=(never, *found.candidates[1:])))[0] == (
        f"{before} 20 seeds, the most that a verdict can have, are too few to show a difference of this size"
    )
    assert "as good" not in cost
    assert "0.40x the device time" in cost
    stream = io.StringIO()
    show_verdict(found, stream)
    assert "32.0" not in stream.getvalue()
    assert "(too few seeds)" in stream.getvalue()


def test_the_cost_is_of_the_named_trial_and_a_cheaper_equal_one_has_its_own_line(study: FilledLedger) -> None:
    train(study.ledger, spec_for(study.ledger), VerdictWorkers(a_tie))
    found = find_verdict(study.ledger, study.ledger.study("study.verdict").spec)

    def made(candidate: Configuration, mean_pct: float, seconds: float) -> Configuration:
        assert candidate.errors
        assert candidate.cost
        assert candidate.comparison
        return dataclasses.replace(
            candidate,
            errors=dataclasses.replace(candidate.errors, mean_pct=mean_pct),
            cost=dataclasses.replace(candidate.cost, device_time_s=seconds),
            comparison=dataclasses.replace(candidate.comparison, device_time_ratio=seconds / 10.0),
        )

    def costs(*made_of: tuple[float, float]) -> list[str]:
        candidates = tuple(made(one, *these) for one, these in zip(found.candidates, made_of, strict=True))
        return sentences(dataclasses.replace(found, candidates=candidates))[1:-1]

    named, cheaper = costs((0.9, 12.0), (1.0, 6.0), (1.1, 2.0))
    assert named == (
        "cost: trial 4 takes 1.20x the device time (12.0 s against 10.0 s per training) and 0.40x the parameters"
    )
    assert cheaper.startswith("cheaper: trial 7 (also NOT DISTINGUISHABLE) is as good to within ")
    assert " points at 0.20x the device time (2.0 s against 10.0 s per training)" in cheaper
    assert len(costs((0.9, 2.0), (1.0, 6.0), (1.1, 2.001))) == 1  # none is cheaper than the named one


def test_a_cheaper_trial_that_is_worse_is_not_said(study: FilledLedger) -> None:
    train(study.ledger, spec_for(study.ledger), VerdictWorkers(one_is_better))
    found = find_verdict(study.ledger, study.ledger.study("study.verdict").spec)

    def cheap(candidate: Configuration) -> Configuration:
        assert candidate.comparison
        if candidate.answer is Answer.BETTER:
            return candidate
        return dataclasses.replace(
            candidate, comparison=dataclasses.replace(candidate.comparison, device_time_ratio=0.1)
        )

    lines = sentences(dataclasses.replace(found, candidates=tuple(map(cheap, found.candidates))))
    assert [line.partition(":")[0] for line in lines[:-1]] == ["BETTER", "cost"]


def board(study: FilledLedger, width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    stream, names = io.StringIO(), ["study.verdict"]
    show_leaderboard(study.ledger, names, leaderboard(study.ledger, names), stream)
    return stream.getvalue().splitlines()


def cells(lines: list[str], network: str) -> list[str]:
    (line,) = (line for line in lines if line.startswith(f"{network} "))
    return re.split(r"\s{2,}", line.strip())


def test_its_leaderboard_has_what_it_measured(study: FilledLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    train(study.ledger, spec_for(study.ledger), VerdictWorkers(one_is_better))
    wide = board(study, 160, monkeypatch)
    error = r"0\.40 \(0\.\d\d-0\.\d\d\)"
    difference = r"-0\.60 \(-0\.\d\d to -0\.\d\d\)"
    expected = ["trial 2", "BETTER", "3", error, difference, r"0\.\d{3}|<0\.001", "4.0", "400", "units_1=101 .*"]
    found = cells(wide, "trial 2")
    assert len(found) == len(expected)
    for text, pattern in zip(found, expected, strict=True):
        assert re.fullmatch(pattern, text), (text, pattern)
    assert cells(wide, "baseline")[:2] == ["baseline", "3"]
    assert {"network", "answer", "seeds", "p-value", "params"} <= set(" ".join(wide[:2]).split())
    text = " ".join(wide)
    assert "p-value: chance of so large a difference between equal networks" in text
    assert "BETTER: trial 2 of study, the best of 3, has an error 0.60 points lower" in text
    assert "validation" not in text

    narrow = board(study, 80, monkeypatch)
    assert max(map(len, narrow)) <= 80
    assert [re.sub(r"\s", "", cell) for cell in cells(narrow, "trial 2")] == [
        re.sub(r"\s", "", cell) for cell in [*found[:2], *found[3:5], found[6]]
    ]
    words = " ".join(" ".join(narrow).split())
    assert "no room in 80 columns for changed from the documented network, params, seeds, p-value" in words
    assert "p-value: chance" not in words  # is about no column there


@pytest.mark.parametrize("width", [45, 60, 70, 80, 100])
def test_its_leaderboard_cuts_no_text_off(study: FilledLedger, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    train(study.ledger, spec_for(study.ledger), VerdictWorkers(one_is_better))
    lines = board(study, width, monkeypatch)
    assert not [line for line in lines if "\N{HORIZONTAL ELLIPSIS}" in line]
    assert max(map(len, lines)) <= width
    assert any(line.startswith("trial 2 ") and "BETTER" in line and "0.40 (" in line for line in lines)


def test_its_leaderboard_before_the_first_look_has_the_errors_so_far(
    study: FilledLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(study.ledger, spec_for(study.ledger), VerdictWorkers(a_tie, stop_at=4))
    lines = board(study, 160, monkeypatch)
    assert cells(lines, "baseline")[:4] == ["baseline", "1", "1.01", "10.0"]
    assert "the first look is after 3 seeds of each" in " ".join(lines)
    assert "NO VERDICT YET: too few seeds are trained" in " ".join(lines)


def test_what_columns_mean_is_said_below_the_tables(study: FilledLedger) -> None:
    train(study.ledger, spec_for(study.ledger), VerdictWorkers(one_is_better))
    stream = io.StringIO()
    show_verdict(find_verdict(study.ledger, study.ledger.study("study.verdict").spec), stream)
    _, errors, p_values, _ = stream.getvalue().split("\n\n")
    assert "\nsd: between seeds; difference: from the baseline, negative is better" in errors
    about = " ".join(p_values.partition("\np-value: ")[2].split())
    assert about.startswith("chance of so large a difference between equal networks")
    for title in ("corrected", " t ", "McNemar", "probability of improvement"):
        assert title in about


def test_a_tie_that_takes_longer_is_not_praised(study: FilledLedger) -> None:
    train(study.ledger, spec_for(study.ledger), VerdictWorkers(a_tie, candidate_s=20.0))
    assert said(study.ledger)[1] == (
        "cost: trial 4 takes 2.00x the device time (20.0 s against 10.0 s per training) and 0.40x the parameters"
    )


def test_times_of_two_devices_are_not_compared(study: FilledLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_for(study.ledger)
    train(study.ledger, spec, VerdictWorkers(a_tie, die_at=None, stop_at=13))
    monkeypatch.setattr("verdict_workers.CPU", CPU.__class__(**{**vars(CPU), "threads": 7}))
    train(study.ledger, spec, VerdictWorkers(a_tie))
    assert said(study.ledger)[1] == "cost: device times are not compared, since they come from several timing classes"


def test_the_tables_fit_a_terminal_and_show_every_number(study: FilledLedger) -> None:
    train(study.ledger, spec_for(study.ledger), VerdictWorkers(a_tie))
    found = find_verdict(study.ledger, study.ledger.study("study.verdict").spec)
    stream = io.StringIO()
    show_verdict(found, stream)
    tables = stream.getvalue().split("\n\n", 1)[1]
    assert max(map(len, tables.splitlines())) <= 80
    assert "…" not in tables
    for row in (found.baseline, *found.candidates):
        errors = f"{row.errors.mean_pct:.2f} ± {row.errors.sd_pct:.2f}", f"{row.errors.worst_pct:.2f}"
        assert re.search(r"\s+".join(map(re.escape, errors)), tables)
        assert row.errors.worst_pct == max(row.errors.by_seed_pct)
    for row in found.candidates:
        assert f"{row.comparison.points:+.2f} ({row.comparison.corrected.low:+.2f} to" in tables


def test_the_files_hold_what_the_verdict_holds(study: FilledLedger, tmp_path: Path) -> None:
    train(study.ledger, spec_for(study.ledger), VerdictWorkers(one_is_better))
    found = find_verdict(study.ledger, study.ledger.study("study.verdict").spec)
    paths = write_verdict(found, tmp_path / "verdicts")
    assert paths == [tmp_path / "verdicts" / f"study.{suffix}" for suffix in ("json", "csv", "png")]
    path = paths[0]
    read = json.loads(path.read_text())
    assert read["answer"] == "BETTER"
    assert read["sentences"] == sentences(found)
    assert read["candidates"][1]["comparison"]["p_value"] == found.candidates[1].comparison.p_value
    assert read["baseline"]["errors"]["by_seed_pct"] == list(found.baseline.errors.by_seed_pct)
    with path.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["baseline", "trial 4", "trial 2", "trial 7"]
    assert [row["answer"] for row in rows] == ["", "NOT DISTINGUISHABLE", "BETTER", "NOT DISTINGUISHABLE"]
    assert float(rows[2]["comparison.points"]) == found.candidates[1].comparison.points
    assert rows[1]["params.units_1"] == "103"
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_a_verdict_that_compares_nothing_yet_has_no_picture(study: FilledLedger, tmp_path: Path) -> None:
    spec = spec_for(study.ledger)
    train(study.ledger, spec, VerdictWorkers(a_tie, stop_at=1))
    assert [path.suffix for path in write_verdict(find_verdict(study.ledger, spec), tmp_path)] == [".json", ".csv"]


@pytest.mark.parametrize("has_one_class", [True, False])
def test_the_picture_shows_each_configurations_errors_and_cost(
    study: FilledLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_one_class: bool
) -> None:
    train(study.ledger, spec_for(study.ledger), VerdictWorkers(one_is_better))
    found = find_verdict(study.ledger, study.ledger.study("study.verdict").spec)
    if not has_one_class:
        cost = dataclasses.replace(found.baseline.cost, timing_classes=("another",))
        found = dataclasses.replace(found, baseline=dataclasses.replace(found.baseline, cost=cost))
    drawn: list[Figure] = []
    monkeypatch.setattr(picture, "save_picture", lambda figure, path: drawn.append(figure))
    picture.draw_verdict(found, tmp_path / "study.png")
    (axes,), (legend,) = drawn[0].axes, drawn[0].legends
    drawn[0].draw_without_rendering()
    assert not legend.get_window_extent().overlaps(axes.get_window_extent()), "it may cover errors"
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[0].startswith("baseline, ")
    assert labels[0].endswith(" %, 1,000 parameters")
    assert labels[2] == f"trial 2, {found.candidates[1].errors.mean_pct:.2f} %, 400 parameters: BETTER"
    assert len(labels) == 4
    by_seed = [line for line in axes.lines if list(line.get_ydata()) == list(found.candidates[1].errors.by_seed_pct)]
    assert [set(line.get_xdata()) for line in by_seed] == [{4.0 if has_one_class else 400}]
    assert axes.get_xlabel() == ("device time of a training (s)" if has_one_class else "parameters")


# The command's own part: locks, what was begun before, wrong input


@pytest.fixture
def command(tmp_path: Path, study: FilledLedger, monkeypatch: pytest.MonkeyPatch) -> Callable[..., VerdictEnd]:
    """`run_verdict` on the study, without processes and without MLflow."""

    class NoTracker:
        def __init__(self, *how: object) -> None: ...

        def notify(self) -> None: ...

        def close(self, *how: object, **more: object) -> int:
            return 0

    monkeypatch.setattr(runner.cache, "prepare", lambda dataset, progress: tmp_path)
    monkeypatch.setattr(runner, "Tracker", NoTracker)
    monkeypatch.setattr("harness.workflows.verdict.bring_to_mlflow", lambda home, study, display: None)

    def run(errors: Wrong | None, *, fresh: bool = False, **request: int | float) -> VerdictEnd:
        def executor(*how: object) -> VerdictWorkers:
            assert errors is not None, "nothing was to be trained"
            return VerdictWorkers(errors)

        monkeypatch.setattr(local, "LocalExecutor", executor)
        display = PlainDisplay(sys.stdout)
        return run_verdict("study", Request(**request), tmp_path, display, num_workers=2, fresh=fresh)

    return run


def test_the_same_command_shows_what_is_settled_and_trains_nothing(
    command: Callable[..., VerdictEnd], study: FilledLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    first = command(one_is_better)
    assert (first.verdict.answer, first.was_interrupted) == (Answer.BETTER, False)
    capsys.readouterr()
    assert command(None).verdict == first.verdict
    assert capsys.readouterr().out == (
        "study.verdict has its answer (trials 4, 2, 7, up to 5 seeds, 2 epochs), and nothing is trained;"
        " --fresh starts a new verdict\n"
    )
    assert study.ledger.num_test_reads("study.verdict") == 12
    assert study.ledger.study("study.verdict").provenance["verdict_of"] == "study"


def test_a_verdict_of_a_study_that_has_gone_on_is_begun_anew_only_when_asked(
    command: Callable[..., VerdictEnd], study: FilledLedger
) -> None:
    command(a_tie)
    study.add(0.5, params={"units_1": 107, "units_2": 64})
    with pytest.raises(InputError) as refused:
        command(None)
    assert str(refused.value) == (
        "study.verdict was begun with trials 4, 2, 7 for 2 epochs, and would now train trials 10, 4, 2 for 2 epochs;"
        " allowed: --fresh to keep the old one under a dated name and start a new one"
    )
    again = command(a_tie, fresh=True)
    assert [candidate.trial for candidate in again.verdict.candidates] == [10, 4, 2]
    (kept,) = (name for name in study.ledger.study_names() if name.startswith("study.2"))
    assert kept.endswith(".verdict")
    assert [one.trial for one in find_verdict(study.ledger, study.ledger.study(kept).spec).candidates] == [4, 2, 7]


def test_other_epochs_are_another_verdict(command: Callable[..., VerdictEnd]) -> None:
    command(a_tie, epochs=1, top=1)
    assert command(None).verdict.epochs == 1, "as it was begun"
    with pytest.raises(InputError, match="was begun with trial 4 for 1 epochs, and would now train trial 4 for 3 ep"):
        command(None, epochs=3)


@pytest.mark.parametrize("settings", [{"precision": "bfloat16"}, {"recipe": RECIPE | {"batch_size": 64}}])
def test_a_verdict_does_not_go_on_for_another_study_of_that_name(
    command: Callable[..., VerdictEnd], study: FilledLedger, settings: dict[str, object]
) -> None:
    command(a_tie, top=1)
    study.ledger.remove_study("study")
    other = FilledLedger(study.ledger, study.spec.changed(**settings))
    other.add(1.8, params={"units_1": 103, "units_2": 64})
    (name,) = settings
    with pytest.raises(InputError) as refused:
        command(None, top=1)
    assert str(refused.value) == (
        f"study.verdict is about an earlier study study with other settings ({name}); allowed: --fresh to keep it under"
        " a dated name and start a new one"
    )
    assert gather(study.ledger, "study").verdict is None, "the report leaves it out"
    command(a_tie, fresh=True, top=1)
    assert getattr(study.ledger.study("study.verdict").spec, name) == settings[name]
    assert gather(study.ledger, "study").verdict is not None


def test_the_study_is_held_meanwhile(command: Callable[..., VerdictEnd], tmp_path: Path) -> None:
    with study_lock(tmp_path, "study"), pytest.raises(TroubleError, match="study study is in use by process"):
        command(a_tie)


def test_a_study_that_is_begun_anew_keeps_its_verdict(command: Callable[..., VerdictEnd], study: FilledLedger) -> None:
    command(a_tie)
    runner.open_study(study.ledger, study.spec, fresh=True)
    old, verdict_on_it = sorted(name for name in study.ledger.study_names() if name.startswith("study.2"))
    assert verdict_on_it == f"{old}.verdict"
    assert "study.verdict" not in study.ledger.study_names()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"num_seeds": 4}, "--seeds is 4; allowed: 3, 5, 8, 12, 20, after which the results are looked at"),
        ({"top": 0}, "--top is 0; allowed: 1 to 2147483647"),
        ({"epochs": 0}, "--epochs is 0; allowed: 1 to 2147483647"),
    ],
)
def test_wrong_requests(study: FilledLedger, request_: dict[str, int], message: str) -> None:
    with pytest.raises(InputError) as refused:
        plan_verdict(study.ledger, "study", Request(**request_), fresh=False)
    assert str(refused.value) == message


def test_studies_that_no_verdict_can_be_on(study: FilledLedger) -> None:
    ledger = study.ledger
    empty = FilledLedger(ledger, make_spec("empty"))
    empty.add_baseline(3.0)
    empty.add(1.0, Outcome.PRUNED)
    spec_for(ledger)
    for name, message in (
        ("nope", "study is 'nope'; allowed: "),
        ("empty", "study empty has no searched trial that was trained in full; allowed: a study that has one"),
        ("study.verdict", "study is 'study.verdict', which is a verdict itself; allowed: a study that searched"),
    ):
        with pytest.raises(InputError) as refused:
            plan_verdict(ledger, name, Request(), fresh=False)
        assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"epochs": 3_000_000_000}, "--epochs is 3000000000; allowed: 1 to 2147483647"),
        ({"top": 10**50}, "--top is 10**50; allowed: 1 to 2147483647"),
        ({"wall_s": 3.6e12}, "--budget is 3.6e+12 s; allowed: above 0 and at most 2147483647 s"),
    ],
)
def test_what_a_verdict_cannot_be_asked_for_is_refused(asked: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Request(**asked)
    assert str(caught.value) == message


def test_the_time_limit_of_a_verdicts_trainings_can_be_read_again(ledger: Ledger) -> None:
    study = FilledLedger(ledger, make_spec("study", trial_timeout_s=2e9))
    study.add(2.0)
    spec, _ = plan_verdict(ledger, "study", Request(), fresh=False)
    assert spec.trial_timeout_s == 2**31 - 1
    ledger.create_study(spec, {})
    assert ledger.study(spec.study).spec == spec
