"""The bench of the precisions: pairs of trainings, compared as in a verdict."""

import csv
import json
from contextlib import closing
from pathlib import Path

import pytest

from harness.bench import precision
from harness.bench.precision import Network, Pair
from harness.errors import TroubleError
from harness.ledger.ledger import Ledger
from harness.study.settings import Flags
from harness.study.spec import SweepSpec
from harness.study.sweep_file import load_sweep
from harness.support.home import sweeps_folder
from harness.sweep.runner import run_study

TINY = (
    Network("fc, documented", "fc", "fc", {}),
    Network("fc, normalised", "fc-norm", "fc", {"units_1": 8, "units_2": 8, "batch_norm": True}),
)


@pytest.fixture(autouse=True)
def _digits(monkeypatch: pytest.MonkeyPatch) -> None:
    def digits(path: Path, flags: Flags, profile: str) -> object:
        return load_sweep(sweeps_folder() / "fc.toml", Flags(dataset="digits"), profile)

    monkeypatch.setattr(precision, "load_sweep", digits)
    monkeypatch.setattr(precision, "NETWORKS", TINY)


def test_every_seed_is_trained_in_both_precisions_and_compared(tmp_path: Path) -> None:
    frame = precision.run(tmp_path, repeats=3, quick=True)
    assert list(frame["network"]) == [network.name for network in TINY]
    pairs = json.loads((tmp_path / "precision.json").read_text())["pairs"]
    for pair, printed in zip(pairs, frame.to_dict("records"), strict=True):
        float32, bfloat16 = pair["errors_pct"]["float32"], pair["errors_pct"]["bfloat16"]
        assert (len(float32), len(bfloat16)) == (3, 3)
        assert float32 != bfloat16
        assert pair["points"] == pytest.approx(sum(bfloat16) / 3 - sum(float32) / 3)
        assert pair["low"] < pair["points"] < pair["high"]
        assert printed["float32_error_pct"] == pytest.approx(sum(float32) / 3, abs=1e-3)
    with (tmp_path / "precision.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
    assert (tmp_path / "precision.png").read_bytes().startswith(b"\x89PNG")


def test_a_comparison_without_all_trainings_gives_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_float32(spec: SweepSpec, *given: object, **more: object) -> None:
        if spec.precision == "float32":
            run_study(spec, *given, **more)

    monkeypatch.setattr(precision, "run_study", only_float32)
    with pytest.raises(TroubleError, match="fc-bfloat16 lacks trainings; the same command goes on"):
        precision.compare(TINY[0], 2, tmp_path, quick=True)
    monkeypatch.setattr(precision, "run_study", run_study)
    assert len(precision.compare(TINY[0], 2, tmp_path, quick=True).errors_pct["float32"]) == 2
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        assert {record.attempts for record in ledger.history("fc-float32")} == {1}, "nothing is trained again"


def test_the_table_gives_means_spreads_and_the_interval() -> None:
    pair = Pair("fc", 1_000, 2, {"float32": [1.0, 2.0], "bfloat16": [1.0, 3.0]}, 0.5, -0.25, 1.25, 0.125)
    (row,) = precision.table([pair]).to_dict("records")
    assert (row["train_images"], row["epochs"], row["seeds"]) == (1_000, 2, 2)
    assert (row["float32_error_pct"], row["float32_sd_pct"]) == (1.5, 0.707)
    assert (row["bfloat16_error_pct"], row["bfloat16_sd_pct"]) == (2.0, 1.414)
    assert (row["difference_points"], row["low_points"], row["high_points"]) == (0.5, -0.25, 1.25)
    assert row["p_value"] == 0.125
