"""The bench of the numbers to choose by: made-up configurations with a known truth, and a real study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.bench import choice
from harness.bench.choice import BEST, ERROR, LINE, RULES, SOFT, TWO, Trained, error_and_line, table
from harness.study.settings import Flags
from harness.study.sweep_file import load_sweep
from harness.support.home import sweeps_folder

TRUTH_PCT = np.linspace(2.0, 3.0, 30)


def trained(*, sd: float, soft_sd: float) -> Trained:
    """Thirty configurations with four seeds; the soft error is twice the error, with a noise of its own."""
    rng, shape = np.random.default_rng(1), (len(TRUTH_PCT), 4)
    error_pct = TRUTH_PCT[:, None] + rng.normal(0, sd, shape)
    soft_pct = 2 * TRUTH_PCT[:, None] + rng.normal(0, soft_sd, shape)
    return Trained(error_pct, soft_pct, soft_pct / 100, sd**2 / 2.5)


def gains(found: Trained) -> dict[str, float]:
    frame = table("a-sweep", found, 400)
    assert list(frame["rule"]) == 2 * list(RULES)
    assert (frame["gain_points"] <= frame["possible_points"]).all()
    of_all = frame[frame["pool"] == "all"]
    return dict(zip(of_all["rule"], of_all["gain_points"], strict=True))


def test_a_less_noisy_number_chooses_better() -> None:
    found = gains(trained(sd=0.2, soft_sd=0.05))
    assert found[ERROR] == 0
    assert found[SOFT] > 0.04
    assert found[LINE] > 0.04
    assert found[TWO] > 0.01


def test_a_number_that_says_nothing_is_no_help_and_the_line_does_little_harm() -> None:
    found = gains(trained(sd=0.05, soft_sd=9.0))
    assert found[SOFT] < -0.2
    assert found[LINE] > -0.01


def test_without_noise_nothing_is_lost() -> None:
    exact = trained(sd=0.0, soft_sd=0.0)
    frame = table("a-sweep", exact, 20)
    assert set(frame["gain_points"]) == set(frame["possible_points"]) == {0.0}
    assert set(frame[frame["pool"] == BEST]["drawn"]) == {10}


def test_errors_are_shrunk_to_the_line_as_far_as_their_noise_explains_the_distance() -> None:
    soft = np.linspace(1.0, 5.0, 41)
    on_line = 1.0 + 0.5 * soft
    assert error_and_line(on_line, soft, 0.01) == pytest.approx(on_line)
    rng = np.random.default_rng(0)
    noisy = on_line + rng.normal(0, 0.1, 41)
    pure_noise = error_and_line(noisy, soft, 0.2)
    assert np.abs(pure_noise - on_line).mean() < 0.4 * np.abs(noisy - on_line).mean()
    no_noise = error_and_line(noisy, soft, 1e-9)
    assert no_noise == pytest.approx(noisy, abs=1e-3)


def test_it_trains_and_writes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digits(path: Path, flags: Flags, profile: str) -> object:
        changed = {"dataset": "digits", "study": flags.study, "sampler": flags.sampler, "pruner": flags.pruner}
        return load_sweep(sweeps_folder() / "fc.toml", Flags(**changed), profile)

    monkeypatch.setattr(choice, "load_sweep", digits)
    monkeypatch.setattr(choice, "NUM_CONFIGURATIONS_QUICK", 4)
    frame = choice.run(tmp_path, repeats=10, quick=True)
    assert list(frame["pool"]) == ["all"] * len(RULES) + [BEST] * len(RULES)
    assert set(frame["drawn"]) == {2}
    assert {path.name for path in tmp_path.iterdir()} >= {"choice.csv", "choice.json", "choice-quick"}
