"""Which of a long study's trials a sampler is shown."""

from __future__ import annotations

import random
from heapq import nsmallest

import pytest

from harness.search import history_window
from harness.search.history_window import Window


@pytest.fixture(autouse=True)
def few_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_window, "NUM_SHOWN", 20)
    monkeypatch.setattr(history_window, "NUM_BEST_SHOWN", 6)


def test_a_short_study_is_shown_whole() -> None:
    assert history_window.shown([(1.0,)] * 20) is None


@pytest.mark.parametrize("num_objectives", [1, 2])
def test_it_is_the_best_and_the_latest_whatever_the_order_in_which_they_ended(num_objectives: int) -> None:
    rng = random.Random(0)
    scores = [
        [float(rng.randrange(9)) for _ in range(num_objectives)] if rng.random() < 0.7 else None for _ in range(90)
    ]
    numbers, kept = list(range(90)), Window()
    rng.shuffle(numbers)
    for number in numbers:
        kept.add(number, scores[number])
    wanted = set(range(90 - 14, 90))
    for objective in range(num_objectives):
        ranked = ((score[objective], number) for number, score in enumerate(scores) if score)
        wanted |= {number for _, number in nsmallest(6 // num_objectives, ranked)}
    assert kept.shown() == history_window.shown(scores) == wanted
