"""What a study keeps from its first start on."""

from contextlib import closing
from pathlib import Path

from filled_ledger import FilledLedger, make_spec

from harness.ledger import Ledger
from harness.runner import learned, open_study


def test_a_study_learns_what_was_known_when_it_began(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        source = FilledLedger(ledger, make_spec("source"))
        first = source.add(1.5)
        spec = make_spec("pupil", learn_from="source")
        open_study(ledger, spec, fresh=False)
        source.add(1.4)
        open_study(ledger, spec, fresh=False)
        assert [lesson.trial.uid for lesson in learned(ledger, spec)] == [first]
