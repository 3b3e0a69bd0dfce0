import csv
import io
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from filled_ledger import CPU, DOCUMENTED, GPU, FilledLedger, filled_verdict, make_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis.files import write_csv
from harness.analysis.leaderboard import table
from harness.analysis.leaderboard.leaderboard import leaderboard
from harness.analysis.leaderboard.table import show_leaderboard
from harness.analysis.report.facts import gather
from harness.errors import InputError
from harness.ledger.ledger import Ledger
from harness.planning.status import status
from harness.study import metrics
from harness.study.comparability import Configurations
from harness.study.data import Content, OwnData
from harness.study.findings import find, sentences
from harness.study.metrics import Metric
from harness.study.records import Outcome, Role, Shown
from harness.study.settings import Budget
from harness.support.intervals import error_rate_interval_pct
from harness.tracking.summary import progress

BEFORE = [
    "rank",
    "study",
    "trial",
    "role",
    "outcome",
    "message",
    "started_at",
    "ended_at",
    "mean_error_rate_pct",
    "mean_error_rate_ci_low_pct",
    "mean_error_rate_ci_high_pct",
    "num_seeds",
    "error_rate_pct",
    "error_rate_ci_low_pct",
    "error_rate_ci_high_pct",
    "test_error_rate_pct",
    "gpu_time_s",
    "device_time_s",
    "num_params",
    "flops_per_image",
]
AFTER = [
    "epochs",
    "train_images",
    "profile",
    "dataset",
    "seed",
    "engine",
    "sampler",
    "backend",
    "device",
    "timing_class",
    "run_id",
    "git_commit",
]


@pytest.fixture
def study(ledger: Ledger) -> FilledLedger:
    return FilledLedger(ledger, make_spec())


def shown(ledger: Ledger, *studies: str, top: int = 20, width: int = 120) -> str:
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        show_leaderboard(ledger, studies, leaderboard(ledger, studies), out, top)
    return out.getvalue()


def test_columns_come_in_the_documented_order(study: FilledLedger) -> None:
    study.add(2.0)
    columns = list(leaderboard(study.ledger, ["study"]))
    assert columns[: len(BEFORE) + 2 + len(AFTER)] == [*BEFORE, "units_1", "units_2", *AFTER]
    assert columns[len(BEFORE) + 2 + len(AFTER) :] == [
        *("continues", "attempts", "val_error_rate_pct", "val_images"),
        *("epochs_done", "reserved_time_s"),
    ]


def test_what_was_read_off_a_gpu_has_columns_where_there_is_any(study: FilledLedger) -> None:
    study.add(2.0, device=GPU)
    study.add(3.0, device=GPU, gpu={"gpu_energy_j": 1250.5})
    board = leaderboard(study.ledger, ["study"])
    assert list(board)[-2:] == ["reserved_time_s", "gpu_energy_j"]
    assert list(board["gpu_energy_j"].fillna(-1)) == [-1, 1250.5]


def test_the_test_error_is_shown_with_its_interval_where_it_was_read(study: FilledLedger) -> None:
    study.add_baseline(2.0, seed=1, test_wrong=range(75))
    study.add_baseline(3.0, seed=2, test_wrong=range(85))
    table = shown(study.ledger, "study")
    assert "0.80 (0.64-0.99)" in table
    assert "mean of 2 seeds: validation 2.50 %, test 0.80 %" in table


def test_a_row_holds_what_the_ledger_holds(study: FilledLedger) -> None:
    uid = study.add(1.2, params={"units_1": 100, "units_2": 200}, seed=7, device=GPU, test_wrong=range(150))
    study.ledger.set_tracked(uid, "run-1", "completed")
    row = leaderboard(study.ledger, ["study"]).loc[uid]
    expected = {
        "rank": 1,
        "trial": 0,
        "role": "trial",
        "outcome": "completed",
        "error_rate_pct": 1.2,
        "test_error_rate_pct": 1.5,
        "gpu_time_s": 5.0,
        "device_time_s": 10.0,
        "num_params": 1000,
        "flops_per_image": 2 * (784 * 100 + 100 * 200 + 200 * 10),
        "units_1": 100,
        "epochs": 3,
        "train_images": 1000,
        "profile": "quick",
        "dataset": "mnist",
        "seed": 7,
        "engine": "optuna",
        "sampler": "tpe",
        "backend": GPU.backend,
        "device": GPU.name,
        "timing_class": GPU.timing_class,
        "run_id": "run-1",
        "git_commit": "abc",
        "epochs_done": 3,
        "attempts": 1,
        "reserved_time_s": 14.0,
    }
    assert {name: row[name] for name in expected} == expected
    assert (row["error_rate_ci_low_pct"], row["error_rate_ci_high_pct"]) == pytest.approx((0.688, 2.086), abs=1e-3)


def test_ranks_by_error_then_device_time_and_leaves_the_rest_below(study: FilledLedger) -> None:
    study.add(outcome=Outcome.CRASHED, error="worker killed")
    study.add(1.0, Outcome.PRUNED, epochs_done=2)
    study.add(2.0, train_s=20.0)
    study.add(0.5, role=Role.CONFIRM)
    study.add(2.0, train_s=10.0)
    study.add(90.0, Outcome.DIVERGED)
    study.add_baseline(1.5)
    study.ask()
    frame = leaderboard(study.ledger, ["study"])
    assert list(frame["trial"]) == [6, 4, 2, 3, 1, 0, 5]
    assert list(frame["rank"].dropna()) == [1, 2, 3]
    pruned = frame[frame["outcome"] == "pruned"].iloc[0]
    assert pd.isna(pruned["error_rate_pct"])
    assert (pruned["val_error_rate_pct"], pruned["val_images"]) == (1.0, 1000)
    assert (pruned["epochs"], pruned["epochs_done"]) == (3, 2)
    crashed = frame[frame["outcome"] == "crashed"].iloc[0]
    assert pd.isna(crashed["val_error_rate_pct"])
    assert crashed["message"] == "worker killed"
    assert pd.isna(crashed["timing_class"])
    assert crashed["num_params"] == 784 * 64 + 64 + 64 * 64 + 64 + 64 * 10 + 10


def test_a_continued_trial_loses_a_tie_by_what_its_rungs_took_together(ledger: Ledger) -> None:
    study = FilledLedger(ledger, make_spec(objective=("error", "device_time"), pruner="none"))
    first = study.add(5.0, epochs=1, train_s=6.0)
    study.add(2.0, train_s=5.0, continues=first)
    study.add(2.0, train_s=10.0)
    frame = leaderboard(ledger, ["study"]).set_index("trial")
    assert list(frame.index) == [2, 1, 0]
    assert list(frame["device_time_s"]) == [10.0, 11.0, 6.0]
    assert list(frame["reserved_time_s"]) == [14.0, 9.0, 10.0]  # what was paid, each rung's apart
    assert list(frame["pareto"]) == [True, False, True]
    found = status(ledger, "study").best
    assert found is not None
    assert (found.trial, found.device_time_s) == (2, 10.0)
    best = progress(ledger, "study").configurations.best
    assert best is not None
    assert best.first.trial.number == 2
    assert [found.first.trial.number for found in gather(ledger, "study").top_ten] == [2, 1]


def test_each_fidelity_is_ranked_apart_the_fullest_first(study: FilledLedger) -> None:
    short = study.add(1.0, epochs=1)
    study.add(3.0, epochs=1)
    study.add(2.0, continues=short)
    study.add(4.0, Outcome.PRUNED, epochs_done=1)
    FilledLedger(study.ledger, make_spec("full", profile="full", train_images=50_000)).add(9.0)
    frame = leaderboard(study.ledger, ["study", "full"])
    assert list(zip(frame["study"], frame["trial"], frame["rank"].fillna(0), strict=True)) == [
        ("full", 0, 1),
        ("study", 2, 1),
        ("study", 3, 0),
        ("study", 0, 1),
        ("study", 1, 2),
    ]
    assert list(frame["continues"].dropna()) == [0]


def test_studies_with_other_spaces_stand_side_by_side(study: FilledLedger) -> None:
    space = {
        "units_2": {"low": 64, "high": 1024},
        "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "batch_norm": {"values": [False, True]},
        "schedule": {"values": ["constant", "cosine"], "when": {"batch_norm": [True]}},
    }
    other = FilledLedger(study.ledger, make_spec("other", space=space, engine="keras-tuner", sampler="bayesian"))
    study.add(2.0, params={"units_1": 100, "units_2": 300})
    other.add(1.0, params={"units_2": 128, "learning_rate": 0.003, "batch_norm": True, "schedule": "cosine"})
    other.add(1.5, params={"units_2": 128, "learning_rate": 0.01, "batch_norm": False})
    frame = leaderboard(study.ledger, ["study", "other", "study"])
    names = ["units_1", "units_2", "learning_rate", "batch_norm", "schedule"]
    assert list(frame.columns)[len(BEFORE) : len(BEFORE) + 5] == names
    assert frame[names].astype(object).where(frame[names].notna(), None).to_numpy().tolist() == [
        [None, 128, 0.003, True, "cosine"],
        [None, 128, 0.01, False, None],
        [100, 300, None, None, None],
    ]
    assert list(frame["rank"]) == [1, 2, 3]
    assert list(frame["engine"]) == ["keras-tuner", "keras-tuner", "optuna"]


def test_pareto_front_is_marked_within_fidelity_and_timing_class(ledger: Ledger) -> None:
    study = FilledLedger(ledger, make_spec(objective=("error", "device_time"), pruner="none"))
    times = {1.0: 50.0, 1.5: 30.0, 1.6: 30.0, 2.0: 40.0, 3.0: 10.0}
    for error, train_s in times.items():
        study.add(error, train_s=train_s)
    study.add(3.0, train_s=10.0)  # equal to one on the front: neither is better
    study.add(1.5, train_s=35.0)  # no better than trial 1, and slower
    study.add(4.0, train_s=20.0, device=GPU)
    study.add(5.0, train_s=99.0, epochs=1)
    study.add(0.1, Outcome.PRUNED, epochs_done=1, train_s=1.0)
    frame = leaderboard(ledger, ["study"]).set_index("trial")
    assert list(frame["pareto"][frame["pareto"]].index) == [0, 1, 4, 5, 7, 8]
    assert "*" in shown(ledger, "study")


def test_no_front_where_only_the_error_counts(study: FilledLedger) -> None:
    study.add(1.0)
    assert "pareto" not in leaderboard(study.ledger, ["study"])


def test_a_study_without_results_has_the_columns_and_no_rows(study: FilledLedger, tmp_path: Path) -> None:
    study.ask()
    frame = leaderboard(study.ledger, ["study"])
    assert len(frame) == 0
    assert list(frame)[: len(BEFORE)] == BEFORE
    assert "no trial has ended yet" in shown(study.ledger, "study")


def test_an_empty_study_beside_a_full_one_changes_no_column(study: FilledLedger) -> None:
    FilledLedger(study.ledger, make_spec("empty"))
    study.add(1.0)
    both, alone = leaderboard(study.ledger, ["empty", "study"]), leaderboard(study.ledger, ["study"])
    pd.testing.assert_frame_equal(both, alone)


def test_no_study_is_refused(ledger: Ledger) -> None:
    with pytest.raises(InputError, match="no study is named"):
        leaderboard(ledger, [])


def test_an_unknown_study_is_refused_with_the_known_ones(study: FilledLedger) -> None:
    with pytest.raises(InputError, match=r"study is 'stduy'; allowed: study; did you mean study\?$"):
        leaderboard(study.ledger, ["stduy"])


# What the numbers allow to say


def test_noise_comes_from_the_baselines_seeds(study: FilledLedger) -> None:
    study.add_baseline(1.5, seed=1, wrong=range(15))
    study.add_baseline(1.6, seed=2, wrong=range(16))
    study.add(1.4)
    noise, best = findings(study)
    # A standard deviation of 0.0707, more than one discordant image of 1,000 has to say; 3.182 and 2.353 are the points
    # of t with three degrees of freedom: 3.182 * sqrt(2) * 0.0707, and 2.353 * sqrt(3 / 2) * 0.0707 beside two seeds.
    assert noise == (
        "by chance two trials differ by up to 0.32 points, and the best of 1 may lead the baseline by 0.20"
        " (95 %; 2 seeds of the baseline, 1,000 validation images)"
    )
    assert best == (
        "best so far trial 2 at 1.40 % (95 %: 0.84 to 2.34),"
        " 0.15 points below the baseline's 1.55 % (mean of 2 seeds): within noise"
    )


def test_a_gain_beyond_what_the_best_of_so_many_owes_to_luck_is_more_than_noise(study: FilledLedger) -> None:
    study.add_baseline(2.0, seed=1, wrong=range(20))
    study.add_baseline(2.0, seed=2, wrong=range(4, 24))
    for error in (1.9, 1.0, 1.8):
        study.add(error)
    noise, best = findings(study)
    # sqrt(8) / 1000 = 0.283 points for a difference, 0.2 for one trial; the best of 3 leads by 4.15 of these.
    assert best == (
        "best so far trial 3 at 1.00 % (95 %: 0.54 to 1.83),"
        " 1.00 points below the baseline's 2.00 % (mean of 2 seeds): more than noise"
    )
    assert ", and the best of 3 may lead the baseline by 0.83 (95 %;" in noise
    study.add(0.9)
    for _ in range(20):
        study.add(1.9)
    assert findings(study)[1].endswith("within noise"), "two trials that far apart are no chance; the best of 24 is"


def test_repeated_configurations_count_and_repeated_seeds_do_not(study: FilledLedger) -> None:
    study.add_baseline(2.0, seed=1)
    study.add_baseline(2.2, seed=2)
    study.add(2.1, params=DOCUMENTED, seed=2)  # another training of the same seed says nothing about seeds
    study.add(1.0, params={"units_1": 64, "units_2": 64}, seed=1)
    study.add(1.4, params={"units_1": 64, "units_2": 64}, seed=5)
    study.add(9.0, params={"units_1": 64, "units_2": 64}, seed=6, epochs=1)
    noise, _ = findings(study)
    # Pooled variance (0.02 + 0.08) / 2 with two degrees of freedom, less than that of independent images with an error
    # of 1.65 %: 0.4028; 2.776 is the point of t with four.
    assert noise.startswith("by chance two trials differ by up to 1.58 points, and the best of 1 may lead")
    assert "(95 %; 4 seeds of 2 configurations," in noise


def test_without_repeats_or_results_the_words_say_so(study: FilledLedger) -> None:
    unknown = "no configuration was trained with two seeds, so which differences are noise is not known"
    assert findings(study) == [unknown, "no searched trial is ranked yet"]
    study.add(3.0)
    best = "best so far trial 0 at 3.00 % (95 %: 2.11 to 4.25)"
    assert findings(study)[1] == f"{best}; the baseline has no result yet to compare with"
    study.add_baseline(2.0)
    assert findings(study)[1] == f"{best}, 1.00 points above the baseline's 2.00 %"
    study.add(1.0)
    assert "1.00 points below the baseline's 2.00 %: whether that is noise is not known" in findings(study)[1]


def test_a_study_of_the_baseline_alone_tells_its_noise(ledger: Ledger) -> None:
    study = FilledLedger(ledger, make_spec(space={}, budget={"trials": 0}))
    study.add(2.0, params={}, role=Role.BASELINE, seed=1)
    study.add(2.1, params={}, role=Role.BASELINE, seed=2)
    # That of independent images: 3.182 * sqrt(2) * 100 * sqrt(0.0205 * 0.9795 / 1000)
    assert findings(study)[0] == (
        "by chance two trials differ by up to 2.02 points (95 %; 2 seeds of the baseline, 1,000 validation images)"
    )


def findings(study: FilledLedger) -> list[str]:
    configurations = Configurations(study.spec, study.ledger.finished(study.spec.study))
    return sentences(find(configurations, study.ledger.result))


# On the terminal


def test_table_shows_the_top_the_baseline_and_what_is_left_out(study: FilledLedger) -> None:
    study.add_baseline(5.0, seed=1)
    for number in range(6):
        study.add(1.0 + number, params={"units_1": 900 + number, "units_2": 64})
    study.add(4.0, Outcome.PRUNED, epochs_done=1)
    text = shown(study.ledger, "study", top=2)
    lines = [line.split() for line in text.splitlines()]
    assert ["1", "1", "1.00", "(0.54-1.83)", "10.0", "1,001", "900", "64"] in lines
    assert any(line[:4] == ["5", "0", "baseline", "5.00"] for line in lines)
    assert "903" not in text
    assert "configurations not shown: 4 completed, 1 pruned" in text


def test_table_shows_outcomes_where_failures_are_shown(study: FilledLedger) -> None:
    study.add(1.0)
    study.add(outcome=Outcome.OUT_OF_MEMORY)
    assert "1 out of memory" in shown(study.ledger, "study")


def test_table_has_a_column_for_each_setting_in_which_fidelities_differ(study: FilledLedger) -> None:
    study.add(1.0)
    FilledLedger(study.ledger, make_spec("full", profile="full", train_images=50_000)).add(9.0)
    assert "50000" in shown(study.ledger, "study", "full")
    assert "50000" not in shown(study.ledger, "full")


def test_table_warns_of_mixed_timing_classes_fidelities_and_continued_trials(study: FilledLedger) -> None:
    short = study.add(1.0, device=CPU)
    assert "timing class" not in shown(study.ledger, "study")
    study.add(1.0, device=GPU)
    study.add(1.0, epochs=1)
    study.add(1.0, continues=short)
    text = shown(study.ledger, "study")
    assert "times come from 2 timing classes: compare them only within one" in text
    assert "the time of a trial that continues another one includes that one's" in text
    assert "ranks count within one fidelity: dataset, train_images, epochs" in text
    assert "GPU time" in text


@pytest.mark.parametrize("width", [25, 30, 40])
def test_a_very_narrow_table_has_ranks_trials_and_errors(study: FilledLedger, width: int) -> None:
    study.add_baseline(5.0)
    study.add(1.0, params={"units_1": 1001, "units_2": 77})
    lines = shown(study.ledger, "study", width=width).splitlines()
    first, second = (line for line in lines if re.match(r" +[12]  ", line))
    assert re.match(r" +1  1 .* 1\.00\b", first)
    assert re.match(r" +2  0 baseline .* 5\.00\b", second)
    assert "…" not in first + second


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_table_keeps_within_the_window(study: FilledLedger, width: int) -> None:
    study.add_baseline(5.0)
    study.add(1.0, Outcome.PRUNED, epochs_done=1, params={"units_1": 1001, "units_2": 77})
    text = shown(study.ledger, "study", width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "5.00 (3.81-6.53)" in text
    assert "1001" in text


def test_a_narrow_table_says_what_was_changed_from_the_documented_network(ledger: Ledger) -> None:
    space = {
        "layers": {"low": 1, "high": 3},
        "units_1": {"low": 8, "high": 2048},
        "units_3": {"low": 8, "high": 2048, "when": {"layers": [3]}},
        "dropout": {"low": 0.0, "high": 0.5},
        "batch_norm": {"values": [False, True]},
    }
    study = FilledLedger(ledger, make_spec("recipe", space=space))
    documented = {"layers": 2, "units_1": 512, "dropout": 0.0, "batch_norm": False}
    study.add(3.0, params=documented, role=Role.BASELINE)
    study.add(1.0, params={**documented, "batch_norm": True, "dropout": 0.25})
    study.add(2.0, params={**documented, "layers": 3, "units_3": 512})
    text = shown(ledger, "recipe", width=90)
    assert text.splitlines()[1].rstrip().endswith("documented network")
    ends = {
        line.split()[0]: line[line.index(")") :].split()[3:] for line in text.splitlines() if line[:4].strip().isdigit()
    }
    assert ends == {"1": ["dropout=0.25", "batch_norm=True"], "2": ["layers=3", "units_3=512"], "3": []}


@pytest.mark.parametrize("width", [40, 80, 200])
def test_all_settings_of_the_best_are_shown_whatever_the_width(study: FilledLedger, width: int) -> None:
    study.add_baseline(5.0)
    study.add(4.0, params={"units_1": 700, "units_2": 99})
    study.add(1.0, params={"units_1": 1001, "units_2": 512})
    text = " ".join(shown(study.ledger, "study", width=width).split())
    assert text.endswith("settings of trial 2: units_1=1001; otherwise as documented")


@pytest.mark.parametrize("width", [50, 60, 70, 80, 90])
def test_no_setting_is_broken_inside_a_word(ledger: Ledger, width: int) -> None:
    names = ["augment_rotation", "augment_shift", "augment_shear", "dropout", "input_dropout"]
    study = FilledLedger(ledger, make_spec("recipe", space={name: {"low": 0.0, "high": 0.1} for name in names}))
    study.add(1.0, params=dict.fromkeys(names, 0.01234))
    text = shown(ledger, "recipe", width=width).partition("by chance")[0]
    for name in names:
        assert f"{name}=0.01234" in text
    assert max(map(len, text.splitlines())) <= width


def test_what_has_no_room_is_named_and_no_number_is_cut(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["cnn-quick-keras-tuner-bayesian", "cnn-quick-seed1"]
    for name in names:
        study = FilledLedger(ledger, make_spec(name))
        study.add_baseline(5.0, seed=0)
        study.add_baseline(5.5, seed=1, train_s=1234.5)
        study.add(1.0, params={"units_1": 1001, "units_2": 77})
        study.add(2.0, device=GPU)
    texts = {width: shown(ledger, *names, width=width) for width in (60, 80, 160)}
    for text in texts.values():
        assert "…" not in text
        assert text.partition("by chance")[0].count(" 5.25 ") == 2
        assert "units_1=1001" in text or "1001" in text
    assert "no room" not in texts[160]
    assert "no room in 80 columns for params, 95 % intervals, GPU time s: the CSV" in " ".join(texts[80].split())
    assert "no room in 60 columns for params, 95 % intervals, GPU time s" in " ".join(texts[60].split())
    assert "bayesian" in texts[60]
    without_value = Metric("load_pct", "float", "", Shown.LEADERBOARD_IF_KNOWN | Shown.TABLE, lambda t: None)
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, without_value))
    assert shown(ledger, *names, width=80) == texts[80]


def test_tall_rows_of_many_hyperparameters_are_left_out_where_the_table_is_narrow(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "TALL", 3)
    reals = [f"augment_{name}" for name in ("shift", "rotation", "zoom", "shear")]
    reals += ["dropout", "input_dropout", "warmup_share", "learning_rate"]
    space: dict[str, dict[str, object]] = {name: {"low": 0.0, "high": 1.0} for name in reals}
    space |= {f"units_{number}": {"low": 64, "high": 1024} for number in (1, 2, 3)}
    study = FilledLedger(ledger, make_spec(space=space))
    study.add(1.0, params={name: 777 if name.startswith("units") else 0.01234 for name in space})
    narrow, wide = shown(ledger, "study", width=80), shown(ledger, "study", width=200)
    assert "no room in 80 columns for hyperparameters: the CSV file has them" in narrow
    assert "1.00 (0.5" in narrow
    assert narrow.count("augment_zoom=0.01234") == 1, "in the line of the best alone"
    assert "no room" not in wide


# The CSV


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_csv_reads_back_as_the_leaderboard(study: FilledLedger, tmp_path: Path) -> None:
    study.add(100 / 3, train_s=1 / 3)
    study.add(outcome=Outcome.INFEASIBLE)
    frame = leaderboard(study.ledger, ["study"])
    path = tmp_path / "new" / "board.csv"
    write_csv(frame, path)
    again = pd.read_csv(path).astype(frame.dtypes)
    pd.testing.assert_frame_equal(again, frame.reset_index(drop=True), check_index_type=False, rtol=1e-5)
    assert [name.name for name in path.parent.iterdir()] == ["board.csv"]


FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")  # noqa: RUF001 - the wide forms are the point
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.sampled_from(
    ["=1+1", "-2+3", "@SUM(A1)", "+4", "\t=1", "\r=1", "'=1", "''-1", "'plain", "a,b", 'say "x"', "a\r\nb", "x\ry", "1"]
)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(TEXT, st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**63 - 1)), min_size=1
    )
)
def test_csv_of_anything_reads_back_and_holds_no_formula(rows: list[tuple[str, float, int]]) -> None:
    frame = pd.DataFrame(rows, columns=["text", "=number", "count"])
    with TemporaryDirectory() as folder:
        write_csv(frame, Path(folder) / "board.csv")
        header, *cells = read((Path(folder) / "board.csv").read_bytes().decode())
    assert header == ["text", "'=number", "count"]
    for (text, number, count), (text_cell, number_cell, count_cell) in zip(rows, cells, strict=True):
        assert not text_cell.startswith(FORMULA_STARTS)
        plain = text.replace("\r\n", "\n").replace("\r", "\n")
        assert text_cell in (plain, "'" + plain)
        was_marked = text_cell.lstrip("'").startswith(FORMULA_STARTS)
        assert plain == (text_cell[1:] if was_marked else text_cell)
        assert float(number_cell) == float(f"{number:.6g}")
        assert int(count_cell) == count


def test_mixed_columns_keep_their_numbers_beside_marked_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"value": pd.Series([1, True, 0.5, "=x", None, np.nan], dtype=object)})
    write_csv(frame, tmp_path / "mixed.csv")
    assert [row[0] if row else "" for row in read((tmp_path / "mixed.csv").read_text())] == [
        "value",
        "1",
        "True",
        "0.5",
        "'=x",
        "",
        "",
    ]


def test_a_verdict_has_test_errors_and_no_ranks(ledger: Ledger) -> None:
    filled_verdict(ledger)
    table = leaderboard(ledger, ["study.verdict"])
    assert table["rank"].isna().all()
    assert table[["error_rate_pct", "error_rate_ci_low_pct", "error_rate_ci_high_pct"]].isna().all(axis=None)
    assert sorted(table["test_error_rate_pct"]) == pytest.approx([100 / 300, 200 / 300, 1.0])
    out = io.StringIO()
    show_leaderboard(ledger, ["study.verdict"], table, out)
    assert "`harness verdict study` shows further tests" in out.getvalue()
    assert "interval)" not in out.getvalue(), "there is none before the first look"
    assert "rank" not in out.getvalue()


@pytest.mark.parametrize("width", [30, 40])
def test_a_narrow_table_of_a_verdict_has_networks_and_errors(ledger: Ledger, width: int) -> None:
    filled_verdict(ledger)
    lines = shown(ledger, "study.verdict", width=width).splitlines()
    baseline, candidate = [line for line in lines if line.startswith(("baseline ", "trial 7 "))][:2]
    assert re.match(r"baseline .*\b1\.00\b", baseline)
    assert re.match(r"trial 7 .*\b0\.50\b", candidate)
    assert "…" not in baseline + candidate


def test_a_verdict_is_shown_beside_its_study_in_a_table_of_its_own(ledger: Ledger) -> None:
    study = FilledLedger(ledger, make_spec("study", dataset="digits"))
    study.add_baseline(3.0)
    filled_verdict(ledger)
    names, out = ["study", "study.verdict"], io.StringIO()
    show_leaderboard(ledger, names, leaderboard(ledger, names), out)
    search, verdict = out.getvalue().split("\n\nstudy.verdict:\n")
    assert "0 baseline" in search
    assert "confirm" not in search
    assert [line.split()[:2] for line in verdict.splitlines() if line.startswith(("baseline", "trial"))] == [
        ["baseline", "1"],
        ["trial", "7"],
    ]


def test_test_errors_on_data_of_ones_own_have_their_interval(ledger: Ledger) -> None:
    own = OwnData(
        stem="mine",
        num_classes=10,
        kept={
            f"{split}_{kind}": Content(shape=shape, dtype="uint8", sha256="0" * 64)
            for split, size in (("train", 1000), ("validation", 200), ("test", 400))
            for kind, shape in (("images", (size, 28, 28)), ("labels", (size,)))
        },
    )
    spec = make_spec("mine", space={}, dataset=own.name, own_data=own, reads_test=True, budget=Budget(trials=0))
    FilledLedger(ledger, spec).add(3.0, params={}, role=Role.BASELINE, test_wrong=range(8))
    out = io.StringIO()
    show_leaderboard(ledger, ["mine"], leaderboard(ledger, ["mine"]), out)
    low, high = error_rate_interval_pct(2.0, 400)
    assert f"2.00 ({low:.2f}-{high:.2f})" in out.getvalue()
