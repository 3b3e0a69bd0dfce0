"""The bench of the hunts: a find counts when a second seed confirms it, and all are charged alike."""

from collections import deque
from pathlib import Path

import pytest
from filled_ledger import make_spec

from harness.bench import target
from harness.bench.confirming import Confirming
from harness.bench.target import CONFIRMING_SEED, OURS, PEERS, Effort, Hunt
from harness.search.base import NoProposal
from harness.search.proposer import Next
from harness.study.records import Outcome, Role, Trial, TrialResult


class Listed:
    """Proposes two trials, then nothing."""

    def __init__(self) -> None:
        self._trials = deque(Trial(f"t{n}", n, {"units_1": 64 + n, "units_2": 64}, 0, 3) for n in range(2))
        self.told: list[str] = []

    def next(self, *, finals: bool = False) -> Next | NoProposal:
        return Next(self._trials.popleft(), 1, 0.0) if self._trials else NoProposal.EXHAUSTED

    def tell(self, trial: Trial, result: TrialResult) -> None:
        self.told.append(trial.uid)


def ended(error_pct: float) -> TrialResult:
    return TrialResult(Outcome.COMPLETED, final_error_rate_pct=error_pct, final_val_images=1000)


def taken(source: Confirming) -> Trial:
    proposed = source.next()
    assert isinstance(proposed, Next)
    return proposed.trial


def test_what_looks_good_enough_is_trained_again_before_anything_else() -> None:
    proposer = Listed()
    source = Confirming(proposer, make_spec(), 2.0)  # type: ignore[arg-type]
    first = taken(source)
    source.tell(first, ended(1.9))
    again = taken(source)
    assert (again.params, again.seed, again.role) == (first.params, CONFIRMING_SEED, Role.CONFIRM)
    source.tell(again, ended(2.2))  # 2.05 in the mean: it was luck
    second = taken(source)
    assert second.uid == "t1"
    source.tell(second, ended(1.8))
    source.tell(taken(source), ended(2.1))
    assert source.is_found
    assert source.next() is NoProposal.EXHAUSTED
    assert proposer.told == ["t0", "t1"]


def test_what_is_not_good_enough_is_not_trained_again() -> None:
    source = Confirming(Listed(), make_spec(), 2.0)  # type: ignore[arg-type]
    source.tell(taken(source), ended(2.1))
    source.tell(taken(source), TrialResult(Outcome.PRUNED))
    assert source.next() is NoProposal.EXHAUSTED
    assert not source.is_found


def test_the_table_compares_medians_with_the_best_peer(tmp_path: Path) -> None:
    peers = {name: [Effort(50.0, 40.0 + place, 5, True)] * 3 for place, name in enumerate(PEERS)}
    efforts = peers | {OURS: [Effort(20.0, 10.0, 4, True), Effort(9.0, 8.0, 3, True), Effort(90.0, 80.0, 60, False)]}
    frame = target.table("fc-recipe", 3.1, efforts).set_index("contender")
    assert frame.loc[OURS, "device_s"] == 10.0
    assert frame.loc[OURS, "device_ratio"] == 0.25
    assert (frame.loc[OURS, "wall_s"], frame.loc[OURS, "wall_ratio"]) == (20.0, 0.4)
    assert frame.loc[OURS, "not_found"] == 1
    target.plot({"fc-recipe": efforts}, tmp_path / "target.png")
    assert (tmp_path / "target.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("contender", [*PEERS, OURS])
def test_every_contender_finds_what_is_easy(
    contender: str, digits_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(digits_folder.parent))
    effort = target.effort(contender, Hunt("fc-recipe", 0, 400, 2, target_pct=95.0, max_trials=6, dataset="digits"))
    assert effort.was_found
    assert effort.num_trainings >= 2
    assert 0 < effort.device_s < effort.wall_s
