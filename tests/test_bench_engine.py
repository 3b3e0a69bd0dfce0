"""The bench of the training engine: the same work for all, and figures that follow from the rounds."""

import csv
import json
from pathlib import Path

import pytest

from harness.bench import engine
from harness.bench.engine import BY_HAND, NETWORKS, OURS, OURS_BFLOAT16, STOCK, STOCK_BFLOAT16, Network, Timing

TINY = (Network("tiny", "fc", {"units_1": 8, "units_2": 8, "batch_norm": True, "augment_shift": 0.1}, 512),)


def test_it_writes_a_table_numbers_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "NETWORKS", TINY)
    monkeypatch.setattr(engine, "GEMM_SIDE", 64)
    monkeypatch.setattr(engine, "fastest_precision", lambda places: "float32")
    frame = engine.run(tmp_path / "bench", repeats=2)
    assert list(frame["contender"]) == [STOCK, OURS, BY_HAND]
    assert frame["ratio_to_fit"][0] == frame["ratio_to_loop_by_hand"][2] == 1.0
    with (tmp_path / "bench" / "engine.csv").open() as file:
        assert [row["contender"] for row in csv.DictReader(file)] == list(frame["contender"])
    (timing,) = json.loads((tmp_path / "bench" / "engine.json").read_text())["timings"]
    assert [len(speeds) for speeds in timing["images_per_s"].values()] == [2, 2, 2]
    assert all(100 < memory_mb < 10_000 for memory_mb in timing["peak_memory_mb"].values())
    assert (tmp_path / "bench" / "engine.png").read_bytes().startswith(b"\x89PNG")


def test_bfloat16_is_measured_where_the_device_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "fastest_precision", lambda places: "bfloat16")
    monkeypatch.setattr(engine, "GEMM_SIDE", 64)
    monkeypatch.setattr(engine, "_memory_of", lambda network, contender: 500.0)  # the process finds the device itself
    timing = engine.measure(TINY[0], 1)
    assert list(timing.images_per_s) == [STOCK, OURS, BY_HAND, STOCK_BFLOAT16, OURS_BFLOAT16]
    monkeypatch.setattr(engine, "fastest_precision", lambda places: "float32")
    assert list(engine._contenders()) == [STOCK, OURS, BY_HAND]


def test_ratios_are_taken_within_a_round() -> None:
    # The machine was three times slower in the second round.
    timing = Timing(
        NETWORKS[0], {STOCK: [300.0, 100.0, 310.0], OURS: [600.0, 200.0, 620.0], BY_HAND: [1.0] * 3}, {}, {}
    )
    assert timing.ratio(OURS, STOCK) == 2.0


def test_the_share_of_the_peak_counts_training_as_three_forward_passes() -> None:
    forward = 2 * (784 * 512 + 512 * 512 + 512 * 10)
    peaks = {"float32": 600.0 * forward, "bfloat16": 1200.0 * forward}
    timing = Timing(NETWORKS[0], {OURS: [100.0], OURS_BFLOAT16: [100.0]}, peaks, {})
    assert timing.share_of_peak(OURS) == pytest.approx(0.5)
    assert timing.share_of_peak(OURS_BFLOAT16) == pytest.approx(0.25)
