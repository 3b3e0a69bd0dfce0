"""Studies beside each other: what is a repeat, what is paid, who is ahead, and what may be said of it."""

from __future__ import annotations

import csv
import io
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from filled_ledger import CPU, GPU, FilledLedger, make_spec

from harness.analysis.comparison.comparison import Comparison, compare, corrected_p_values, mean_ranks, set_beside
from harness.analysis.comparison.incumbents import Incumbents, read_incumbents
from harness.analysis.comparison.methods import find_methods
from harness.analysis.comparison.table import sentences, show_comparison, write_comparison
from harness.analysis.statistics import quartiles, share_below
from harness.errors import InputError
from harness.ledger.ledger import Ledger
from harness.study.records import Device, EpochReport, Outcome, Seconds, TrialResult

DEPTH = {"units_1": {"low": 64, "high": 1024}}


def fill(ledger: Ledger, study: str, errors: Sequence[float], device: Device = CPU, **settings: object) -> FilledLedger:
    """A study whose trials, 14 s of a device each, end with these errors; its baseline with 5 %."""
    filled = FilledLedger(ledger, make_spec(study, **settings))
    filled.add_baseline(5.0, device=device)
    for error in errors:
        filled.add(error, device=device)
    return filled


def incumbents(study: str, errors: Sequence[float], **settings: object) -> Incumbents:
    """What is read of a study whose trials, 14 s of a device each, end with these errors."""
    steps = np.arange(1.0, len(errors) + 1)
    least = np.minimum.accumulate(np.array(errors))
    timing = frozenset([CPU.timing_class])
    return Incumbents(make_spec(study, **settings), np.arange(len(errors)) + 2, 14 * steps, steps, least, timing)


def several(sampler: str, finals: Sequence[float]) -> list[Incumbents]:
    """A study for each final error, three trials each."""
    return [
        incumbents(f"{sampler}-{seed}", [9.0, 8.0, final], sampler=sampler, seed=seed)
        for seed, final in enumerate(finals)
    ]


# What a method is


def labels(*settings: dict[str, object]) -> list[str]:
    specs = [make_spec(f"study-{i}", **one) for i, one in enumerate(settings)]
    return [method.label for method in find_methods(specs)]


def test_studies_that_differ_in_seed_and_budget_are_repeats() -> None:
    specs = [make_spec("a"), make_spec("b", seed=1, budget={"trials": 3}), make_spec("c", sampler="random", seed=1)]
    assert [method.repeats for method in find_methods(specs)] == [(0, 1), (2,)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (({}, {"seed": 1}), ["optuna tpe"]),
        (
            ({"pruner": "none"}, {"engine": "keras-tuner", "sampler": "hyperband", "pruner": "none"}),
            ["optuna tpe", "keras-tuner hyperband"],
        ),
        (
            ({}, {"engine": "keras-tuner", "sampler": "hyperband", "pruner": "none"}),
            ["optuna tpe", "keras-tuner hyperband"],
        ),
        (
            ({}, {"pruner": "none"}, {"engine": "keras-tuner", "sampler": "hyperband", "pruner": "none"}),
            ["optuna tpe, median pruner", "optuna tpe, no pruner", "keras-tuner hyperband"],
        ),
        (({"pruner": "none"}, {"pruner": "median"}), ["no pruner", "median pruner"]),
        (({"patience": 0}, {"patience": 2}), ["patience 0", "patience 2"]),
        (({}, {"learn_from": "old"}), ["learn from none", "learn from old"]),
        (({}, {"enqueue": ({"units_1": 64, "units_2": 64},)}), ["first trials of study-0", "first trials of study-1"]),
        (({}, {"space": DEPTH}), ["space of study-0", "space of study-1"]),
        (
            ({}, {"sampler": "random", "space": DEPTH}, {"space": DEPTH}),
            ["optuna tpe, space of study-0", "optuna random, space of study-1", "optuna tpe, space of study-1"],
        ),
        (
            ({"pruner": "none"}, {"pruner": "none", "objective": ("error", "device_time")}),
            ["objective error", "objective error and device_time"],
        ),
    ],
)
def test_a_method_is_called_by_what_sets_it_apart(settings: tuple[dict[str, object], ...], expected: list[str]) -> None:
    assert labels(*settings) == expected


# What is paid, and what is found


def test_only_trials_trained_in_full_count_and_all_are_paid_for(ledger: Ledger) -> None:
    study = FilledLedger(ledger, make_spec())
    study.add_baseline(1.0)
    study.add(2.0, Outcome.PRUNED, epochs_done=1)
    study.add(None, Outcome.CRASHED)
    study.add(None, Outcome.INFEASIBLE)
    study.add(6.0)
    study.add(7.0)
    study.add(1.5, epochs=2)
    study.add(4.0)
    study.ask()
    found = read_incumbents(ledger, study.spec)
    assert found.trials.tolist() == [1, 2, 4, 5, 6, 7]
    assert found.error_pct.tolist() == [math.inf, math.inf, 6.0, 6.0, 6.0, 4.0]
    assert found.device_s.tolist() == [14.0, 28.0, 42.0, 56.0, 70.0, 84.0]
    assert found.trainings.tolist() == pytest.approx([1 / 3, 1 / 3, 4 / 3, 7 / 3, 3, 4])


def test_trials_count_in_the_order_they_end(ledger: Ledger) -> None:
    study = FilledLedger(ledger, make_spec())
    slow, quick = study.ask(), study.ask()
    study.end(quick, 3.0)
    study.end(slow, 5.0)
    found = read_incumbents(ledger, study.spec)
    assert (found.trials.tolist(), found.error_pct.tolist()) == ([1, 0], [3.0, 3.0])


def test_a_continued_trial_pays_for_its_own_epochs_and_for_its_crashes(ledger: Ledger) -> None:
    study = FilledLedger(ledger, make_spec())
    first = study.ask({"units_1": 100, "units_2": 100}, epochs=1)
    study.end(first, 6.0)
    trial = study.ask({"units_1": 100, "units_2": 100}, continues=first.uid)
    crash = ledger.start_attempt(trial.uid, "worker-0")
    ledger.finish_attempt(trial.uid, crash, TrialResult(Outcome.CRASHED, "killed"), 7.0, is_final=False)
    study.end(trial, 4.0)
    found = read_incumbents(ledger, study.spec)
    assert found.trainings.tolist() == pytest.approx([1 / 3, 1])
    assert found.device_s.tolist() == [14.0, 35.0]


def test_an_incumbent_counts_from_its_trials_end_on(ledger: Ledger) -> None:
    found = read_incumbents(ledger, fill(ledger, "study", [9.0, 7.0, 8.0]).spec)
    assert found.at(np.array([0.0, 13.9, 14.0, 28.0, 42.0]), "device_s").tolist() == [math.inf, math.inf, 9.0, 7.0, 7.0]
    assert found.at(np.array([0.9, 1.0, 2.5]), "trainings").tolist() == [math.inf, 9.0, 7.0]


# Who is ahead


def test_methods_are_compared_at_what_every_study_has_used(ledger: Ledger) -> None:
    fill(ledger, "tpe-0", [9.0, 4.0, 1.0], sampler="tpe")
    fill(ledger, "tpe-1", [9.0, 3.0], sampler="tpe", seed=1)
    fill(ledger, "random-0", [6.0, 6.0, 5.0], sampler="random")
    found = compare(ledger, ["tpe-0", "random-0", "tpe-1", "tpe-0"])
    assert (found.unit, found.budget) == ("device_s", 28.0)
    assert {one.method.label: one.error_pct for one in found.standings} == {
        "optuna tpe": (4.0, 3.0),
        "optuna random": (6.0,),
    }
    assert (found.baseline_pct, found.num_baselines) == (5.0, 3)
    # Up to half of the budget no study has a trial, then random search leads, and at its end TPE does.
    assert {one.method.label: one.mean_rank for one in found.standings} == {
        "optuna random": pytest.approx(1 + (4 * 0.5 + 5 * 0 + 1) / 10),
        "optuna tpe": pytest.approx(1 + (4 * 0.5 + 5 * 1 + 0) / 10),
    }
    assert [one.method.label for one in found.standings] == ["optuna random", "optuna tpe"]


def test_mean_ranks_are_expected_over_all_ways_to_pick_repeats() -> None:
    a, b, c = np.array([[1.0], [4.0]]), np.array([[2.0]]), np.array([[2.0], [5.0], [math.inf]])
    assert mean_ranks([a, b, c]) == pytest.approx([1 + 1 / 2 + 1 / 6, 1 + 1 / 2 + 1 / 6, 1 + 5 / 6 + 5 / 6])
    nothing_yet = np.array([[math.inf, 1.0]])
    assert mean_ranks([nothing_yet, nothing_yet.copy()]) == [1.5, 1.5]


def test_times_of_several_timing_classes_are_not_compared(ledger: Ledger) -> None:
    fill(ledger, "here", [4.0, 3.0])
    fill(ledger, "there", [4.0, 2.0, 1.0], device=GPU, sampler="random")
    found = compare(ledger, ["here", "there"])
    assert (found.unit, found.budget) == ("trainings", 2.0)
    assert "2.0 full trainings' worth of epochs" in sentences(found)[0]
    assert "times come from several timing classes and are not compared" in sentences(found)[0]


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("epochs", {"epochs": 4}),
        ("dataset", {"dataset": "digits"}),
        ("train_images", {"train_images": 2000}),
        ("baseline", {"baseline": "cnn", "space": {"dense_units": {"low": 64, "high": 2048}}}),
    ],
)
def test_what_is_not_comparable_is_refused_in_one_line(ledger: Ledger, key: str, settings: dict[str, object]) -> None:
    fill(ledger, "one", [4.0])
    FilledLedger(ledger, make_spec("other", **settings))
    with pytest.raises(InputError) as caught:
        compare(ledger, ["one", "other"])
    assert str(caught.value).startswith(f"{key} is ")
    assert "(one) and " in str(caught.value)
    assert "allowed: studies of one baseline, dataset, train_images, epochs" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_studies_that_cannot_take_part_are_named(ledger: Ledger) -> None:
    fill(ledger, "one", [4.0])
    FilledLedger(ledger, make_spec("new"))
    FilledLedger(ledger, make_spec("seeds", space={}))
    FilledLedger(ledger, make_spec("time", objective=("device_time",)))
    for studies, message in {
        ("one", "one"): "studies are one; allowed: at least two",
        ("one", "nope"): "study is 'nope'; allowed: one, new",
        ("one", "new"): "study new has no searched trial that was trained in full",
        ("one", "seeds"): "study is seeds, which searches nothing",
        ("one", "time"): "study is time, which searches for time",
    }.items():
        with pytest.raises(InputError, match=message):
            compare(ledger, studies)


# What may be said


def said(studies: Sequence[Incumbents]) -> str:
    return "\n".join(sentences(set_beside(studies)))


def test_what_a_study_took_over_counts_and_is_said(ledger: Ledger) -> None:
    fill(ledger, "first", [2.0, 1.0])
    second = fill(ledger, "second", [2.0], sampler="random")
    taken = second.ask()
    result = TrialResult(Outcome.COMPLETED, seconds=Seconds(0.5, 1.5, 296.0, 2.0), device=CPU, reused_from="first-1")
    attempt = ledger.start_attempt(taken.uid, "worker-0")
    for epoch in (1, 2, 3):
        ledger.add_epoch(taken.uid, attempt, EpochReport(epoch, 0.1, None, 1.0, 1000, Seconds(3.0)), 0.0)
    ledger.finish_attempt(taken.uid, attempt, result, 0.0, is_final=True)
    found = compare(ledger, ["first", "second"])
    assert found.studies[1].device_s.tolist() == [14.0, 314.0]
    assert [(one.num_reused, one.reused_s) for one in found.studies] == [(0, 0.0), (1, 300.0)]
    (line,) = (line for line in sentences(found) if "took over" in line)
    assert line == (
        "1 of 2 trials of second took over results of equal trainings: the 5 min of those trainings count as if the"
        " study had trained them, which it has not paid"
    )


def test_few_seeds_say_nothing_and_single_ones_are_named() -> None:
    text = said(several("tpe", [1.0]) + several("random", [6.0, 6.1]))
    assert "too few seeds to say which is better: even the clearest difference could be chance (p = 1.00" in text
    assert "one seed says little: optuna tpe" in text
    assert "Mann-Whitney" not in text


def test_three_seeds_each_are_too_few_and_four_are_not() -> None:
    tpe, random = several("tpe", [1.0, 1.1, 1.2, 1.3]), several("random", [6.0, 6.1, 6.2, 6.3])
    assert "too few seeds" in said(tpe[:3] + random[:3])
    assert "optuna tpe ends below optuna random: p = 0.029 (Mann-Whitney)" in said(tpe + random)
    assert "one seed" not in said(tpe + random)


def test_a_difference_that_chance_could_do_is_none() -> None:
    tpe, random = several("tpe", [1.0, 3.1, 5.2, 6.3]), several("random", [2.0, 4.1, 1.2, 6.1])
    text = said(tpe + random)
    assert "the two differ by no more than chance could do: least p = " in text
    assert "ends below" not in text


def test_pairs_are_corrected_for_their_number() -> None:
    finals = {"tpe": [1.0, 1.1, 1.2, 1.3, 1.4], "random": [6.0, 6.1, 6.2, 6.3, 6.4], "qmc": [6.05, 6.15, 6.2, 6.3, 6.4]}
    found = set_beside([one for sampler, errors in finals.items() for one in several(sampler, errors)])
    exact = 2 / math.comb(10, 5)
    assert found.p_values["optuna tpe", "optuna random"] == pytest.approx(3 * exact)
    assert found.p_values["optuna tpe", "optuna qmc"] == pytest.approx(3 * exact), "never less than what came before"
    text = "\n".join(sentences(found))
    assert "optuna tpe ends below optuna random: p = 0.024 (Mann-Whitney, corrected for 3 pairs)" in text
    assert "the other pairs differ by no more than chance could do" in text


def test_a_method_alone_is_not_ranked() -> None:
    assert "one method only" in said(several("tpe", [1.0, 2.0]))


def test_the_same_seed_twice_is_no_second_repeat() -> None:
    studies = [incumbents(name, [3.0], sampler=sampler) for name, sampler in (("a", "tpe"), ("c", "tpe"), ("b", "qmc"))]
    assert "not independent, since some have the same seed: a, c" in said(studies)


# The numbers behind it


def test_quartiles_and_shares_take_what_has_not_begun_for_the_worst() -> None:
    assert quartiles([4.0, 1.0, 3.0, 2.0]) == (1.75, 2.5, 3.25)
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)
    assert quartiles([1.0, math.inf, 2.0]) == (1.5, 2.0, math.inf)
    assert share_below([1.0, 2.0], [2.0, math.inf]) == 3.5 / 4
    assert share_below([math.inf], [math.inf]) == 0.5


def test_p_values_are_those_of_the_exact_test_with_ties() -> None:
    values = [1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 4.0]
    found = set_beside(several("tpe", values[:4]) + several("random", values[4:]))
    assert corrected_p_values(found.standings)["optuna tpe", "optuna random"] == pytest.approx(exact_p(values, 4))


def exact_p(values: list[float], num_first: int) -> float:
    """Of all ways to pick the first group, the share whose U is as far from its mean as the first ones' or further."""

    def distance(picked: Sequence[int]) -> float:
        first = [values[i] for i in picked]
        others = [values[i] for i in range(len(values)) if i not in picked]
        return abs(share_below(first, others) - 0.5)

    ways = list(combinations(range(len(values)), num_first))
    return sum(distance(way) >= distance(range(num_first)) - 1e-9 for way in ways) / len(ways)


# Table, curves, picture


@pytest.fixture
def found() -> Comparison:
    return set_beside([*several("random", [6.0, 7.0]), *several("tpe", [1.0, 2.0])], [5.0, 5.5])


def test_the_table_on_the_terminal(found: Comparison) -> None:
    stream = io.StringIO()
    show_comparison(found, stream)
    text = stream.getvalue()
    first, second = [line.split() for line in text.splitlines() if line.startswith("optuna")]
    assert first[:2] == ["optuna", "tpe"]
    assert first[-3:] == ["1.50", "(1.25-1.75)", "100"]
    assert second[-3:] == ["6.50", "(6.25-6.75)", "0"]
    assert "compared at 42 s of reserved time, which every study has reached" in text
    assert "the documented network: 5.25 %, mean of 2 trainings" in text


def test_in_a_notebook_it_is_plain_text_too(found: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a kernel does
    stream = io.StringIO()
    show_comparison(found, stream)
    assert "optuna tpe" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_method_that_had_nothing_by_then_says_so(ledger: Ledger) -> None:
    late = FilledLedger(ledger, make_spec("late", sampler="random"))
    late.add(9.0, Outcome.PRUNED, train_s=100.0, epochs_done=1)
    late.add(2.0)
    fill(ledger, "early", [4.0])
    found = compare(ledger, ["early", "late"])
    stream = io.StringIO()
    show_comparison(found, stream)
    assert "none by then" in stream.getvalue()
    assert found.table["error_rate_pct"].isna().tolist() == [False, True]


def test_the_files_say_the_same(found: Comparison, tmp_path: Path) -> None:
    path = write_comparison(found, tmp_path / "comparisons")
    name = "random-0-vs-random-1-vs-tpe-0-vs-tpe-1"
    assert path.name == f"{name}.csv"
    assert {file.name for file in path.parent.iterdir()} == {f"{name}.csv", f"{name}.curves.csv", f"{name}.png"}
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["optuna tpe", "optuna random"]
    assert (rows[0]["studies"], rows[0]["seeds"], rows[0]["budget"]) == ("tpe-0 tpe-1", "2", "42")
    assert (float(rows[0]["error_rate_pct"]), rows[0]["budget_unit"]) == (1.5, "device_s")
    with (path.parent / f"{name}.curves.csv").open() as file:
        curves = list(csv.DictReader(file))
    assert len(curves) == 12
    assert [row["error_rate_pct"] for row in curves[:3]] == ["9", "8", "1"]
    assert [row["device_s"] for row in curves[:3]] == ["14", "28", "42"]
    assert (path.parent / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_many_studies_make_a_short_name(tmp_path: Path) -> None:
    studies = several("tpe", [1.0] * 12)
    paths = {write_comparison(set_beside(studies[:n]), tmp_path).name for n in (11, 12)}
    assert len(paths) == 2
    assert all(len(name) < 80 and name.startswith("tpe-0-and-1") for name in paths)


def test_no_test_image_is_looked_at(ledger: Ledger) -> None:
    fill(ledger, "one", [4.0])
    other = FilledLedger(ledger, make_spec("other", sampler="random"))
    other.add(5.0, test_wrong=[1, 2, 3])
    found = compare(ledger, ["one", "other"])
    assert not [column for frame in (found.table, found.curves) for column in frame if "test" in column]
    assert replace(found.standings[0], mean_rank=0.0).error_pct == (4.0,)


def test_the_command_prints_the_table_and_says_where_the_files_are(ledger: Ledger, tmp_path: Path) -> None:
    fill(ledger, "one", [4.0])
    fill(ledger, "other", [5.0], sampler="random")

    def run(*studies: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "harness.cli", "compare", *studies],
            env=os.environ | {"HARNESS_HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = run("one", "other")
    assert (done.returncode, done.stderr) == (0, "")
    assert "optuna tpe" in done.stdout
    path = tmp_path / "comparisons" / "one-vs-other.csv"
    assert done.stdout.endswith(f"wrote {path}, its curves as .curves.csv and their picture as .png\n")
    assert path.is_file()
    refused = run("one")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "harness: studies are one; allowed: at least two, to compare with each other\n"
