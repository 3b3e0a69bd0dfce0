"""What each change of a best configuration is worth."""

from __future__ import annotations

import io
import re
from contextlib import closing
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from filled_ledger import FilledLedger, make_spec

from harness.analysis.ablation import show_worths, without_each, worths
from harness.cli import main
from harness.errors import InputError
from harness.ledger.ledger import Ledger
from harness.study.network import read_network
from harness.study.records import Role
from harness.study.spec import SweepSpec
from harness.support.home import project_root
from harness.sweep.display import PlainDisplay
from harness.workflows.ablation import best_of, plan_ablation, say_if_another_is_best

SPACE = {
    "units_1": {"low": 64, "high": 1024},
    "batch_norm": {"values": [False, True]},
    "dropout": {"low": 0.0, "high": 0.5, "step": 0.1, "when": {"batch_norm": [True]}},
    "augment_shift": {"low": 0.0, "high": 0.1, "step": 0.05},
    "augment_zoom": {"low": 0.0, "high": 0.1, "step": 0.05},
}
DOCUMENTED = {"units_1": 512, "batch_norm": False, "augment_shift": 0.0, "augment_zoom": 0.0}
BEST = {"units_1": 512, "batch_norm": True, "dropout": 0.3, "augment_shift": 0.1, "augment_zoom": 0.05}


NETWORK_OF_ONES_OWN = project_root() / "docs" / "examples" / "strided.py"


@pytest.fixture
def searched(ledger: Ledger) -> FilledLedger:
    study = FilledLedger(ledger, make_spec(space=SPACE))
    study.add(2.0, params=DOCUMENTED, role=Role.BASELINE)
    study.add(1.0, params=BEST)
    return study


def test_each_change_is_taken_back_alone_and_augmentation_also_as_a_whole() -> None:
    assert without_each(make_spec(space=SPACE), BEST) == {
        "batch_norm": {**DOCUMENTED, "augment_shift": 0.1, "augment_zoom": 0.05},  # dropout goes with it
        "augment_shift": {**BEST, "augment_shift": 0.0},
        "augment_zoom": {**BEST, "augment_zoom": 0.0},
        "augment_*": {**BEST, "augment_shift": 0.0, "augment_zoom": 0.0},
    }


def test_changes_of_a_network_of_ones_own_are_taken_back() -> None:
    network = read_network(NETWORK_OF_ONES_OWN)
    spec = make_spec(baseline=network.name, network=network, space={"filters": {"low": 8, "high": 32}})
    assert without_each(spec, {"filters": 32}) == {"filters": {"filters": network.documented["filters"]}}


def test_a_setting_that_becomes_active_has_its_documented_value() -> None:
    space = SPACE | {"warmup_share": {"low": 0.0, "high": 0.5, "when": {"schedule": ["warmup_cosine"]}}}
    space = {"schedule": {"values": ["constant", "warmup_cosine"]}} | space
    best = {**BEST, "schedule": "constant"}
    assert without_each(make_spec(space=space), best)["schedule"] == {
        **BEST,
        "schedule": "warmup_cosine",
        "warmup_share": 0.1,
    }


def filled(study: FilledLedger, num_seeds: int) -> tuple[SweepSpec, FilledLedger]:
    """An ablation in which each change is worth something else, and the seeds differ by 0.1 points."""
    spec = plan_ablation(study.ledger, "study", num_seeds, fresh=False)
    ablation = FilledLedger(study.ledger, spec)
    worth = {"": 0.0, "batch_norm": 0.5, "augment_shift": 0.2, "augment_zoom": -0.1, "augment_*": 0.3}
    for seed in range(num_seeds):
        ablation.add(3.0, params=DOCUMENTED, role=Role.BASELINE, seed=2000 + seed)
        for change, params in {"": BEST, **without_each(spec, BEST)}.items():
            odd = 0.02 if change == "batch_norm" and seed == 1 else 0.0
            ablation.add(1.0 + 0.1 * seed + worth[change] + odd, params=params, seed=2000 + seed)
    return spec, ablation


def test_the_worth_is_the_mean_difference_over_equal_seeds(searched: FilledLedger) -> None:
    spec, ablation = filled(searched, 2)
    found = worths(spec, best_of(spec), ablation.ledger.history(spec.study))
    assert [(one.change, one.best, one.documented, one.num_seeds) for one in found] == [
        ("batch_norm", "True", "False", 2),
        ("augment_*", "", "", 2),
        ("augment_shift", "0.1", "0", 2),
        ("augment_zoom", "0.05", "0", 2),
    ]
    assert [one.points for one in found] == pytest.approx([0.51, 0.3, 0.2, -0.1])
    assert [one.error_pct for one in found] == pytest.approx([1.56, 1.35, 1.25, 0.95])
    half = 2.776445 * (2 * 0.01**2 / 4) ** 0.5 / 2**0.5  # t of 4 degrees; pooled over 4 changes, of 2 seeds each
    assert [one.high - one.points for one in found] == pytest.approx([half] * 4, rel=1e-5)
    assert [one.points - one.low for one in found] == pytest.approx([half] * 4, rel=1e-5)


def test_one_seed_has_no_interval_and_what_is_not_trained_no_row(searched: FilledLedger) -> None:
    spec, ablation = filled(searched, 1)
    assert {(one.low, one.high) for one in worths(spec, BEST, ablation.ledger.history(spec.study))} == {(None, None)}
    part = [record for record in ablation.ledger.history(spec.study) if record.trial.number < 3]
    assert [one.change for one in worths(spec, BEST, part)] == ["batch_norm"]
    out = io.StringIO()
    show_worths(spec, BEST, part[:1], out)
    assert out.getvalue() == "no change was trained yet with a seed of the best\n"


def test_the_table_has_a_row_per_change(searched: FilledLedger) -> None:
    spec, ablation = filled(searched, 2)
    out = io.StringIO()
    show_worths(spec, BEST, ablation.ledger.history(spec.study), out)
    lines = out.getvalue().splitlines()
    assert re.fullmatch(r"batch_norm +True +False +2 +1\.56 +\+0\.51 \(\+0\.50 to \+0\.52\) *", lines[3])
    assert lines[-2:] == ["with all changes 1.05 % (mean of 2 seeds)", "documented network 3.00 % (mean of 2 seeds)"]


def test_an_ablation_is_a_study_whose_trials_are_all_known(searched: FilledLedger) -> None:
    spec = plan_ablation(searched.ledger, "study", None, fresh=False)
    assert (spec.study, spec.baseline_seeds, spec.seed) == ("study.ablation", 3, 2000)
    assert spec.enqueue[:5] == (BEST, *without_each(spec, BEST).values())
    assert spec.enqueue == spec.enqueue[:5] * 3
    assert spec.budget.trials == 15
    assert (spec.epochs, spec.train_images) == (searched.spec.epochs, searched.spec.train_images)


def test_what_equals_the_documented_network_is_trained_once(ledger: Ledger) -> None:
    FilledLedger(ledger, make_spec(space=SPACE)).add(1.0, params={**DOCUMENTED, "units_1": 600})
    spec = plan_ablation(ledger, "study", 2, fresh=False)
    assert spec.enqueue == ({**DOCUMENTED, "units_1": 600},) * 2


def test_a_begun_ablation_goes_on_with_its_best_and_its_seeds(searched: FilledLedger) -> None:
    spec, _ = filled(searched, 2)
    searched.add(0.5, params={**BEST, "augment_zoom": 0.1})  # a better one since
    assert plan_ablation(searched.ledger, "study", None, fresh=False) == spec
    with pytest.raises(InputError, match="--seeds is 3; allowed: 2, as at its start, or --fresh for a new one"):
        plan_ablation(searched.ledger, "study", 3, fresh=False)
    assert best_of(plan_ablation(searched.ledger, "study", 3, fresh=True))["augment_zoom"] == 0.1


def test_an_ablation_says_that_another_configuration_is_the_best_now(searched: FilledLedger) -> None:
    spec, _ = filled(searched, 1)
    out = io.StringIO()
    say = partial(say_if_another_is_best, searched.ledger, "study", spec, PlainDisplay(out))
    say()
    assert out.getvalue() == ""
    searched.add(0.5, params={**BEST, "augment_zoom": 0.1})
    say()
    assert "augment_zoom=0.05, and in study the best is now trial 2; --fresh starts a new one" in out.getvalue()


def test_an_ablation_does_not_go_on_for_another_study_of_that_name(searched: FilledLedger) -> None:
    filled(searched, 2)
    searched.ledger.remove_study("study")
    other = FilledLedger(searched.ledger, make_spec(space=SPACE, precision="bfloat16"))
    other.add(1.0, params=BEST)
    with pytest.raises(InputError, match=r"study.ablation is about an earlier study study with other .*\(precision\)"):
        plan_ablation(searched.ledger, "study", None, fresh=False)
    assert plan_ablation(searched.ledger, "study", None, fresh=True).precision == "bfloat16"


def test_what_has_no_best_is_refused(searched: FilledLedger) -> None:
    FilledLedger(searched.ledger, make_spec("empty", space=SPACE))
    with pytest.raises(InputError, match="study empty has no searched trial that was trained in full"):
        plan_ablation(searched.ledger, "empty", None, fresh=False)
    with pytest.raises(InputError, match="--seeds is 0; allowed: 1 to"):
        plan_ablation(searched.ledger, "study", 0, fresh=False)
    with pytest.raises(InputError, match="study is 'other'; allowed: "):
        plan_ablation(searched.ledger, "other", None, fresh=False)


SWEEP = """
baseline = "fc"
dataset = "digits"
pruner = "none"
[recipe]
batch_size = 32
[space]
units_1 = { low = 8, high = 512 }
units_2 = { low = 8, high = 512 }
[profiles.quick]
train_images = 64
validation_images = 100
baseline_seeds = 1
epochs = 1
trials = 2
"""


def test_the_command_trains_what_is_missing_and_prints_the_table(
    tmp_path: Path, digits_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HARNESS_DATA", str(digits_folder.parent))
    file = tmp_path / "tiny.toml"
    file.write_text(SWEEP)
    assert main(["sweep", str(file), "--workers", "1"]) == 0
    capfd.readouterr()
    assert main(["ablate", "tiny-quick", "--seeds", "1", "--workers", "1"]) == 0
    out = capfd.readouterr().out
    assert "with all changes " in out
    board = pd.read_csv(tmp_path / "home" / "ablations" / "tiny-quick.ablation.csv")
    assert set(board["change"]) == {"units_1", "units_2"}
    with closing(Ledger(tmp_path / "home" / "ledger.db")) as ledger:
        assert [record.trial.seed for record in ledger.history("tiny-quick.ablation")] == [2000] * 4
    assert main(["ablate", "tiny-quick", "--workers", "1"]) == 0
    assert "started on" not in capfd.readouterr().out, "nothing is trained twice"
