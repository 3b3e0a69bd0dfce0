"""What a study keeps from its first start on, and what is said at its end."""

from contextlib import closing
from pathlib import Path

import pytest
from filled_ledger import FilledLedger, make_spec

from harness.commands import how_it_ended
from harness.ledger import Ledger
from harness.progress import StopReason
from harness.runner import StudyEnd, learned, open_study


def test_a_study_learns_what_was_known_when_it_began(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        source = FilledLedger(ledger, make_spec("source"))
        first = source.add(1.5)
        spec = make_spec("pupil", learn_from="source")
        open_study(ledger, spec, fresh=False)
        source.add(1.4)
        open_study(ledger, spec, fresh=False)
        assert [lesson.trial.uid for lesson in learned(ledger, spec)] == [first]


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (StopReason.TRIALS, "--trials 26 goes on, --fresh starts anew"),
        (StopReason.WALL_TIME, "a longer --budget goes on, --fresh starts anew"),
        (StopReason.DEVICE_TIME, "a longer device_budget in the sweep file goes on, --fresh starts anew"),
        (StopReason.EXHAUSTED, "--fresh starts anew"),
    ],
)
def test_only_what_stopped_a_study_is_said_to_go_on_with_it(reason: StopReason, advice: str) -> None:
    assert how_it_ended(make_spec(), StudyEnd(reason, was_used_up=False)) == f"study: {reason.value}; {advice}"
    again = how_it_ended(make_spec(), StudyEnd(reason, was_used_up=True))
    assert again == f"study: nothing to run, since {reason.value}; {advice}"
