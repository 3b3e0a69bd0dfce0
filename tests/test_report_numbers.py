"""The numbers of a report, against examples that were computed by hand or by trying every case."""

import math
import random
import re
from itertools import combinations
from statistics import fmean

import numpy as np
import pytest
from filled_ledger import CPU, DOCUMENTED, GPU, WIDTHS, FilledLedger, filled_verdict, make_spec

from harness.analysis.report import early_errors, headline, space_figures
from harness.analysis.report.drawing import log_ticks
from harness.analysis.report.facts import Facts, TrialAttempt, gather, time_s
from harness.analysis.report.finding_cost import best_of, first_below, steps
from harness.analysis.report.importance import has_order, importance, num_needed, position, surfaces
from harness.analysis.report.search_figures import error_against_time
from harness.analysis.report.space_check import at_bounds, infeasible, moved, near_bounds, noise, sentences
from harness.analysis.report.space_figures import parallel_coordinates
from harness.analysis.report.time_use import time_use, timeline
from harness.analysis.report.work_figures import curve
from harness.analysis.statistics import pareto_front
from harness.errors import InputError
from harness.ledger.ledger import Ledger
from harness.study.records import EpochReport, Outcome, Role, Seconds, TrialResult
from harness.study.space import Choice, Float, Int


@pytest.fixture
def study(ledger: Ledger) -> FilledLedger:
    return FilledLedger(ledger, make_spec())


def facts(study: FilledLedger) -> Facts:
    return gather(study.ledger, study.spec.study)


def test_the_best_of_three_by_hand() -> None:
    found = best_of([3.0, 1.0, 2.0])
    assert found.num_draws.tolist() == [1, 2, 3]
    assert found.expected_pct == pytest.approx([2.0, 4 / 3, 1.0])  # of (1,2), (1,3), (2,3) two have the 1
    assert found.low_pct.tolist() == [1.0, 1.0, 1.0]
    assert found.high_pct.tolist() == [3.0, 2.0, 1.0]


def test_the_best_of_k_is_the_mean_over_all_draws() -> None:
    rng = random.Random(1)
    errors = [rng.uniform(1, 5) for _ in range(9)] + [2.0, 2.0]
    found = best_of(errors)
    for number, expected in zip(found.num_draws, found.expected_pct, strict=True):
        assert expected == pytest.approx(fmean(min(draw) for draw in combinations(errors, int(number))))


def test_the_best_of_many_is_looked_at_in_few_places() -> None:
    found = best_of([float(error) for error in range(3000)])
    assert len(found.num_draws) == 200
    assert found.num_draws[0] == 1
    assert found.num_draws[-1] == 3000
    assert found.expected_pct[0] == pytest.approx(1499.5)
    assert found.expected_pct[-1] == 0.0


def test_no_error_has_no_best() -> None:
    with pytest.raises(ValueError, match="at least one"):
        best_of([])


def test_the_front_is_of_means_over_seeds_and_of_times_in_the_main_timing_class(study: FilledLedger) -> None:
    study.add_baseline(2.0, train_s=6.0)
    study.add_baseline(2.4, train_s=8.0)
    best = {"units_1": 64, "units_2": 100}
    study.add(1.0, train_s=9.0, params=best)
    study.add(1.4, train_s=2.0, params=best, device=GPU)  # a further seed, on another machine
    study.add(3.0, train_s=9.0, params=DOCUMENTED)  # proposed by the search
    study.add(0.1, train_s=1.0, device=GPU)
    made = error_against_time(facts(study))
    shown = {trace.name: [*zip(trace.x, trace.y, strict=True)] for trace in made.data}
    assert shown["Pareto front (means over seeds)"] == [(pytest.approx(23 / 3), pytest.approx(7.4 / 3)), (9.0, 1.2)]
    assert shown["searched trial"] == [(9.0, 1.0)]
    assert shown["baseline"] == [(6.0, 2.0), (8.0, 2.4), (9.0, 3.0)]
    assert made.layout.xaxis.title.text == "device time of one training (s)"
    assert made.data[1].hovertext[0].split("<br>")[1] == "1.00 % in 9 s"


def test_the_best_is_told_by_its_means(study: FilledLedger) -> None:
    study.add_baseline(2.0, train_s=6.0)
    best = {"units_1": 64, "units_2": 100}
    study.add(1.0, train_s=9.0, params=best)
    study.add(1.4, train_s=2.0, params=best)
    star = error_against_time(facts(study)).data[-1]
    assert (star.x[0], star.y[0]) == (5.5, 1.2)
    assert star.hovertext[0].split("<br>")[:2] == ["<b>trial 1</b>", "1.20 % in 5.5 s (mean of 2 seeds)"]
    (line,) = (trace for trace in parallel_coordinates(facts(study)).data if trace.name == "best trial")
    assert "<br>1.20 % in 5.5 s (mean of 2 seeds)<br>" in line.hovertext[0]


@pytest.mark.parametrize(("in_a_row", "num_rows"), [(3, 1), (2, 2), (1, 3)])
def test_titles_of_many_axes_are_in_as_many_rows_as_they_need(
    study: FilledLedger, monkeypatch: pytest.MonkeyPatch, in_a_row: int, num_rows: int
) -> None:
    monkeypatch.setattr(space_figures, "MAX_IN_A_ROW", in_a_row)
    study.add(1.0)
    made = parallel_coordinates(facts(study))  # two hyperparameters and the error
    heights = {note.yshift for note in made.layout.annotations if note.text.startswith("<b>")}
    assert heights == {50 * row for row in range(num_rows)}
    assert made.layout.margin.t > max(heights) + 50


def test_no_cpu_time_is_called_gpu_time(study: FilledLedger) -> None:
    study.add_baseline(2.0, train_s=6.0)
    study.add(1.0, train_s=9.0)
    study.add(3.0, train_s=9.0, device=GPU)
    found = facts(study)
    assert found.time_word == "device time"
    assert "at 1.50x the baseline's device time" in headline.headline(found)


def test_device_time_adds_up_over_all_trials(study: FilledLedger) -> None:
    study.add_baseline(2.0, train_s=6.0)
    study.add(3.0, train_s=16.0)
    study.add(None, Outcome.CRASHED, train_s=1.0)
    study.add(2.5, Outcome.PRUNED, epochs_done=1, train_s=1.0)
    study.add(1.5, train_s=6.0)
    study.add(1.8, train_s=6.0)
    found = steps(facts(study))
    assert [step.device_s for step in found] == [10.0, 30.0, 35.0, 40.0, 50.0, 60.0]
    assert [step.best_pct for step in found] == [None, 3.0, 3.0, 3.0, 1.5, 1.5]
    assert [step.num_searched for step in found] == [0, 1, 1, 1, 2, 3]
    assert [step.is_new_best for step in found] == [False, True, False, False, True, False]
    first = first_below(found, 2.0)
    assert first is not None
    assert (first.trial, first.device_s) == (4, 50.0)
    assert first_below(found, 1.5) is None


def test_ticks_of_an_axis_of_magnitudes() -> None:
    assert log_ticks(1.4, 31.0) == [2.0, 5.0, 10.0, 20.0]
    assert log_ticks(1.4, 6.0) == [1.5, 2.0, 3.0, 5.0]  # of the plain ones there are but two
    assert log_ticks(1.7, 2.6) == [1.8, 2.0, 2.5]


def test_the_front_holds_what_nothing_beats() -> None:
    points = [(3.0, 1.0), (1.0, 3.0), (2.0, 3.0), (2.0, 2.0), (1.0, 3.0), (4.0, 1.0)]
    assert sorted(pareto_front(points)) == [0, 1, 3, 4]
    assert pareto_front([]) == []


def test_a_continued_trial_includes_the_one_before(study: FilledLedger) -> None:
    short = study.add(5.0, epochs=1, train_s=4.0)
    long = study.ask(epochs=3, continues=short)
    study.end(long, 2.0, train_s=7.0)
    found = facts(study)
    _, record = found.records
    assert found.searched == [record]  # the short one has another fidelity
    assert time_s(record) == 11.0
    assert curve(found, record)[0] == (1, 5.0)


def test_time_of_gpus_is_compared_where_there_are_any(study: FilledLedger) -> None:
    study.add(2.0, train_s=8.0, device=GPU)
    found = facts(study)
    assert found.time_word == "GPU time"
    assert time_s(found.records[0]) == 4.0  # half a GPU


def test_time_by_what_it_was_used_for(study: FilledLedger) -> None:
    study.add_baseline(2.0, train_s=10.0)
    study.add(3.0, train_s=20.0)
    study.add(4.0, Outcome.PRUNED, epochs_done=1, train_s=5.0)
    study.add(None, Outcome.CRASHED, train_s=3.0)
    lost = study.ask()
    study.ledger.start_attempt(lost.uid, "worker-1")
    study.ledger.close_lost_attempts(study.spec.study)
    found = time_use(facts(study))
    assert found.completed == {
        "training": 30.0,
        "evaluation": 4.0,
        "compiling": 3.0,
        "building": 1.0,
        "waiting and hand-over": 0.0,
    }
    assert found.pruned["training"] == 5.0
    assert found.lost_s == 7.0  # the crash with what surrounds its training; the lost attempt never got to an epoch
    assert found.device_s == 38.0 + 9.0 + 7.0
    assert found.search_s == 5 * 0.25


def attempt(trial: int, started_at_s: float, held_s: float, worker: str = "worker-0") -> TrialAttempt:
    return TrialAttempt(1, Outcome.COMPLETED, worker, started_at_s, held_s, trial, Role.TRIAL, is_final=True)


def test_time_without_any_trial_is_cut_out() -> None:
    found = timeline(
        [
            attempt(0, 1000.0, 100.0),
            attempt(1, 1050.0, 100.0, "worker-1"),
            attempt(2, 1101.0, 49.0),  # while the other worker was busy: no cut
            attempt(3, 9000.0, 100.0),  # the next day
            attempt(4, 9001.0, 0.0),
            attempt(5, 9002.0, 0.1, "none"),
        ]
    )
    assert [one.start_s for one in found.stretches] == [0.0, 50.0, 101.0, 150.0]
    assert found.cuts_s == [150.0]
    assert found.cut_s == 7850.0
    assert timeline([]).stretches == []


def fill_space(study: FilledLedger, near_high: bool) -> None:
    """Sixteen trials; the four best at the upper end of `units_1`, or spread over it."""
    best = (1024, 1000, 960, 930) if near_high else (100, 400, 700, 1000)
    study.add_baseline(2.0)
    study.add_baseline(2.2, seed=7)
    for number, width in enumerate(best):
        study.add(1.0 + 0.1 * number, params={"units_1": width, "units_2": 300 + number})
    for number in range(12):
        study.add(3.0 + 0.1 * number, params={"units_1": 64 + 70 * number, "units_2": 300 + 10 * number})


def test_good_trials_at_a_bound_are_found(study: FilledLedger) -> None:
    fill_space(study, near_high=True)
    (found,) = near_bounds(facts(study))
    assert (found.name, found.end, found.bound, found.num_near, found.num_top) == ("units_1", "high", 1024, 4, 4)
    assert found.try_value == 1504
    line = sentences(facts(study), None)[0]
    assert "4 of the 4 best trials lie in the upper tenth of units_1" in line
    assert "try `high = 1504` instead of 1024 under `space.units_1`" in line


def test_a_bound_that_cannot_be_moved_is_not_in_the_way(ledger: Ledger) -> None:
    space = {**WIDTHS, "layers": {"low": 1, "high": 3}, "dropout": {"low": 0.0, "high": 0.6, "step": 0.1}}
    study = FilledLedger(ledger, make_spec(space=space))
    study.add(2.0, params={**DOCUMENTED, "layers": 2, "dropout": 0.0}, role=Role.BASELINE)
    for number in range(16):
        best = number < 4
        widths = {"units_1": 64 + 60 * number, "units_2": 64 + 60 * (15 - number)}
        params = {**widths, "layers": 3 if best else 1 + number % 2, "dropout": 0.0 if best else 0.1 * (1 + number % 5)}
        study.add(1.0 + 0.1 * number, params=params)
    assert near_bounds(facts(study)) == []


def test_good_trials_all_over_are_no_reason_to_move_a_bound(study: FilledLedger) -> None:
    fill_space(study, near_high=False)
    assert near_bounds(facts(study)) == []
    assert sentences(facts(study), None)[0].startswith("No bound is in the way")


def test_pruned_trials_count_among_the_worse(study: FilledLedger) -> None:
    """Four trained in full are a quarter of sixteen, whatever the errors at which the others were stopped."""
    study.add_baseline(2.0)
    for number in range(4):
        study.add(1.0 + 0.1 * number, params={"units_1": 960 + number, "units_2": 300 + 100 * number})
    few = "Bounds: 4 trials trained in full and 8 pruned ones are too few"
    for number in range(12):
        if number == 8:
            assert sentences(facts(study), None)[0].startswith(few)
        params = {"units_1": 64 + 70 * number, "units_2": 300}
        study.add(0.9, Outcome.PRUNED, epochs_done=1, params=params)
    (found,) = near_bounds(facts(study))
    assert (found.name, found.end, found.num_near, found.num_top) == ("units_1", "high", 4, 4)


def test_a_best_trial_alone_at_a_bound_is_mentioned(study: FilledLedger) -> None:
    fill_space(study, near_high=False)
    study.add(0.5, params={"units_1": 64, "units_2": 301})
    assert at_bounds(facts(study)) == [("units_1", "low", 64)]
    assert any("this alone is no reason" in line for line in sentences(facts(study), None))


@pytest.mark.parametrize(
    ("domain", "end", "value"),
    [
        (Int(64, 2048, log=True), "high", 4096),
        (Int(64, 2048, log=True), "low", 32),
        (Int(8, 64, 8), "high", 96),  # half of 56 in whole steps
        (Int(8, 64, 8), "low", 8),  # there is nothing below it in whole steps
        (Int(100, 200), "low", 50),
        (Float(0.1, 0.5), "high", 0.7),
        (Float(0.1, 0.5), "low", 0.05),
        (Float(1e-4, 1e-2, log=True), "low", 5e-5),
    ],
)
def test_where_a_bound_goes(domain: Int | Float, end: str, value: float) -> None:
    assert moved(domain, end) == pytest.approx(value)


def test_noise_against_the_spread_of_the_best(study: FilledLedger) -> None:
    study.add_baseline(2.0)
    study.add_baseline(2.4, seed=7)
    for error in (1.5, 1.6, 1.7, *(3.0 + number for number in range(9))):
        study.add(error)
    found = noise(facts(study))
    assert found is not None
    assert found.num_top == 10
    assert found.top_range == pytest.approx(9.0 - 1.5)
    assert found.resolution is not None
    assert found.resolution.sd == pytest.approx(100 * math.sqrt(0.022 * 0.978 / 1000)), "of independent images"
    assert re.search(r", and \d+ of their \d+ pairs differ by more\.$", sentences(facts(study), None)[-1])


def test_the_order_of_equals_is_called_chance(study: FilledLedger) -> None:
    study.add_baseline(2.0)
    study.add_baseline(2.4, seed=7)
    for error in (1.5, 1.6, 1.7):
        study.add(error)
    assert "their order is chance" in sentences(facts(study), None)[-1]


def test_without_two_seeds_the_noise_is_not_known(study: FilledLedger) -> None:
    study.add_baseline(2.0)
    study.add(1.5)
    study.add(1.6)
    assert "not known without a second seed" in sentences(facts(study), None)[-1]


def test_infeasible_configurations_are_counted(study: FilledLedger) -> None:
    study.add_baseline(2.0)
    study.add(1.5, seed=0, params={"units_1": 64, "units_2": 64})
    study.add(1.4, seed=1, params={"units_1": 64, "units_2": 64})
    study.add(None, Outcome.INFEASIBLE)
    assert infeasible(facts(study)) == (1, 2)
    assert any("1 of 2 proposed configurations (50%)" in line for line in sentences(facts(study), None))


def fill_for_importance(study: FilledLedger, number: int) -> None:
    rng = random.Random(3)
    for _ in range(number):
        params = {"units_1": rng.randrange(64, 1025), "units_2": rng.randrange(64, 1025)}
        study.add(1.0 + 4 * params["units_1"] / 1024 + 0.01 * rng.random(), params=params)


def test_what_the_error_follows_is_important(study: FilledLedger) -> None:
    fill_for_importance(study, 24)
    known = facts(study)
    found = importance(known)
    assert found is not None
    assert found == importance(known)  # the same trials, the same shares
    assert list(found.of_error) == ["units_1", "units_2"]
    assert found.of_error["units_1"].low > 0.8
    assert sum(share.mean for share in found.of_error.values()) == pytest.approx(1.0)
    assert found.of_time == {}
    assert any("Hardly matters" in line and "units_2" in line for line in sentences(known, found))
    (surface,) = surfaces(known, found)
    assert (surface.x, surface.y) == ("units_1", "units_2")
    assert np.nanmin(surface.error_pct[:, :4]) == pytest.approx(1.25, abs=0.4)
    assert np.nanmax(surface.error_pct[:, -4:]) == pytest.approx(5.0, abs=0.4)


def test_noise_has_no_clear_importance(study: FilledLedger) -> None:
    rng = random.Random(5)
    for _ in range(16):
        study.add(1.0 + rng.random(), params={"units_1": rng.randrange(64, 1025), "units_2": rng.randrange(64, 1025)})
    known = facts(study)
    found = importance(known)
    assert found is not None
    assert not found.is_first_clear
    assert all(share.low <= share.mean <= share.high for share in found.of_error.values())
    assert not any("Hardly matters" in line for line in sentences(known, found))


def test_how_many_of_the_best_were_good_early_is_counted(ledger: Ledger) -> None:
    study = FilledLedger(ledger, make_spec("early", epochs=4))
    for number in range(8):
        trial = study.ask({"units_1": 100 + number, "units_2": 100})
        attempt = ledger.start_attempt(trial.uid, "worker-0")
        for epoch in range(1, 5):
            error_pct = (
                9.0 - number if epoch == 1 else 1.0 + number
            )  # the first epoch has the reverse of the final order
            ledger.add_epoch(trial.uid, attempt, EpochReport(epoch, 0.1, 0.1, error_pct, 1000, Seconds(train=1.0)), 1.0)
        result = TrialResult(Outcome.COMPLETED, seconds=Seconds(train=4.0), device=CPU)
        ledger.finish_attempt(trial.uid, attempt, result, 5.0, is_final=True)
    assert early_errors.sentence(facts(study)) == (
        "Stopping early: of the 2 best of 8 trials trained to their end, in the better half were 0 after epoch 1,"
        " 2 after epoch 2 of 4. A pruner pays if these are nearly all of them."
    )


def test_seven_trials_say_nothing_about_stopping_early(study: FilledLedger) -> None:
    for number in range(7):
        study.add(1.0 + number, params={"units_1": 100 + number, "units_2": 100})
    assert early_errors.sentence(facts(study)) is None


def test_a_surface_ends_where_no_trial_is_near(study: FilledLedger) -> None:
    rng = random.Random(3)
    for _ in range(16):
        params = {"units_1": rng.randrange(64, 400), "units_2": rng.randrange(64, 400)}
        study.add(1.0 + params["units_1"] / 1024, params=params)
    known = facts(study)
    (surface,) = surfaces(known, importance(known))
    assert np.isnan(surface.error_pct[-1, -1])
    assert not np.isnan(surface.error_pct[2, 2])


def test_two_objectives_have_two_importances(ledger: Ledger) -> None:
    study = FilledLedger(ledger, make_spec(objective=("error", "device_time")))
    rng = random.Random(3)
    for _ in range(16):
        params = {"units_1": rng.randrange(64, 1025), "units_2": rng.randrange(64, 1025)}
        study.add(1.0 + params["units_1"] / 1024, params=params, train_s=1.0 + params["units_2"])
    found = importance(facts(study))
    assert found is not None
    assert next(iter(found.of_error)) == "units_1"
    assert next(iter(found.of_time)) == "units_2"


def test_too_few_trials_have_no_importances(study: FilledLedger) -> None:
    fill_for_importance(study, num_needed(study.spec) - 1)
    assert importance(facts(study)) is None


def test_trials_that_do_not_differ_have_no_importances(study: FilledLedger) -> None:
    for _ in range(12):
        study.add(1.5)
    assert importance(facts(study)) is None


def test_order_and_position() -> None:
    assert has_order(Choice((3, 5, 7)))
    assert not has_order(Choice((7, 3, 5)))
    assert not has_order(Choice(("a", "b")))
    assert not has_order(Choice((False, True)))
    assert not has_order(Int(5, 5))
    assert position(Choice((3, 5, 7)), 5) == 0.5
    assert position(Int(10, 1000, log=True), 100) == pytest.approx(0.5)
    assert position(Float(0.0, 0.5), 0.25) == 0.5


def test_a_verdict_is_part_of_the_report_on_its_study(ledger: Ledger) -> None:
    study = FilledLedger(ledger, make_spec(dataset="digits"))
    study.add_baseline(2.0)
    study.add(1.0, params={"units_1": 96, "units_2": 64})
    assert facts(study).verdict is None
    filled_verdict(ledger, 1)
    found = facts(study).verdict
    assert found is not None
    assert found.study == "study"
    with pytest.raises(
        InputError, match=r"'study\.verdict', which is a verdict; allowed: study, whose report shows it"
    ):
        gather(ledger, "study.verdict")


@pytest.mark.parametrize("units", [64, 128], ids=["not-there", "another-network"])
def test_a_verdict_on_trials_that_the_study_does_not_have_is_left_out(ledger: Ledger, units: int) -> None:
    """The study was removed, and another one was begun under its name."""
    study = FilledLedger(ledger, make_spec(dataset="digits"))
    study.add_baseline(2.0)
    study.add(1.0, params={"units_1": units, "units_2": 64})
    filled_verdict(ledger, 2 if units == 64 else 1, {"units_1": 64, "units_2": 64})
    assert facts(study).verdict is None


def test_the_documented_configuration_is_no_searched_trial(study: FilledLedger) -> None:
    study.add_baseline(1.0)
    study.add(2.0, params={**DOCUMENTED, "units_1": 64})
    found = facts(study)
    assert found.best is not None
    assert found.best.first.trial.number == 1
    assert found.baseline is not None
    assert found.baseline.mean_error_pct == 1.0
