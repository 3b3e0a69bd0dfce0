"""How often a verdict is right, over many simulated ones: 10,000 test images, five seeds, three candidates.

docs/verdict.md has the same rates from more repeats.
"""

import math

import numpy as np
import pytest
from simulated_verdicts import NUM_IMAGES, PLAIN, Arm, World, verdicts

from harness.analysis.verdict.statistics import ALPHA, labels

# Seeds of one configuration lie 0.08, 0.09 and 0.10 points apart in these (standard deviations).
WORLDS = [World(0.8), World(1.2), World(1.6)]
ids = [f"{world.error_pct} %" for world in WORLDS]
TIE = [PLAIN] * 4


@pytest.mark.parametrize("world", WORLDS, ids=ids)
def test_seeds_lie_as_far_apart_as_real_ones(world: World) -> None:
    wrong = world.trainings(500, 5, [PLAIN, PLAIN], np.random.default_rng(1))
    errors_pct = 100 * wrong.sum(-1) / NUM_IMAGES
    assert errors_pct.mean() == pytest.approx(world.error_pct, abs=0.02)
    assert 0.05 < np.sqrt(errors_pct.var(-1, ddof=1).mean()) < 0.105
    assert np.sqrt(errors_pct.var(-1, ddof=1).mean()) == pytest.approx(world.spread_pct, rel=0.05)
    same_image = np.corrcoef(wrong[0, 0, 0], wrong[0, 1, 0])[0, 1]
    assert same_image > 0.2, "different networks find the same images hard"


def test_arms_are_what_they_say() -> None:
    arms = [Arm(gain=0.2), Arm(spread=4.0), Arm(bad_share=0.1, bad_points=1.0)]
    wrong = World(1.2).trainings(500, 5, arms, np.random.default_rng(1))
    errors_pct = 100 * wrong.sum(-1) / NUM_IMAGES
    assert errors_pct.mean((0, 2)) == pytest.approx([1.0, 1.2, 1.2], abs=0.025)
    spreads = np.sqrt(errors_pct.var(-1, ddof=1).mean(0)) / World(1.2).spread_pct
    # One in ten a point worse: 0.3 points beside 0.09.
    assert spreads == pytest.approx([0.91, 4.0, np.hypot(0.3, 0.09) / 0.09], rel=0.05)


@pytest.mark.parametrize("world", WORLDS, ids=ids)
def test_a_tie_is_not_distinguishable(world: World) -> None:
    assert (verdicts(world, TIE) != 0).any(-1).mean() <= ALPHA


@pytest.mark.parametrize("world", WORLDS, ids=ids)
def test_a_gain_of_three_tenths_of_a_point_is_found(world: World) -> None:
    found = verdicts(world, [PLAIN, Arm(gain=0.3), PLAIN, PLAIN])
    assert (found[:, 0] == -1).mean() >= 0.9
    assert (found[:, 1:] != 0).any(-1).mean() <= ALPHA


def test_a_loss_is_found_as_well() -> None:
    worse = Arm(gain=-0.3)
    assert (verdicts(World(1.0), [PLAIN, worse, worse, worse]) == 1).all(-1).mean() >= 0.7


def test_looking_again_and_again_finds_nothing_in_a_tie() -> None:
    assert (verdicts(World(1.2), TIE, num_seeds=20) != 0).any(-1).mean() <= ALPHA


def test_luck_in_the_study_is_not_called_better() -> None:
    """Forty networks of the same quality: the best three on the validation images look good, and are not better."""
    world, rng = World(1.2), np.random.default_rng(11)
    num_networks, num_repeats = 40, 300
    validation = world.trainings(num_repeats, 1, [PLAIN] * (1 + num_networks), rng).sum((-2, -1)) * 100 / NUM_IMAGES
    flattery = validation[:, :1] - np.sort(validation[:, 1:])[:, :3]
    assert flattery.mean() > 0.15, "so much better do the three look"
    # The test images are others, and what was luck on the validation images is not passed on to them.
    found = labels(world.trainings(num_repeats, 5, TIE, rng), NUM_IMAGES).sign
    assert (found == -1).any(-1).mean() <= ALPHA


@pytest.mark.parametrize("num_candidates", [1, 3])
@pytest.mark.parametrize("unstable", [0, 1])
def test_an_unstable_configuration_is_rarely_mistaken(unstable: int, num_candidates: int) -> None:
    """Its seeds lie five times as far apart as the others', and there are only five of them."""
    arms = [PLAIN] * (1 + num_candidates)
    arms[unstable] = Arm(spread=5.0)
    num_repeats = 800
    rate = (verdicts(World(1.2), arms, num_repeats=num_repeats) != 0).any(-1).mean()
    assert rate <= ALPHA + math.sqrt(ALPHA * (1 - ALPHA) / num_repeats), "but for the luck of so few repeats"
