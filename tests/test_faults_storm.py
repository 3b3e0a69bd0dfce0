"""A short storm; `make storm` makes a long one."""

from pathlib import Path

import pytest
from storm import storm

pytestmark = pytest.mark.slow


def test_after_a_storm_nothing_is_lost_and_nothing_is_there_twice(digits_folder: Path, tmp_path: Path) -> None:
    counts, problems = storm(tmp_path, digits_folder.parent, seed=0, seconds=60.0, say=print)
    assert problems == []
    assert counts.total() > 0
