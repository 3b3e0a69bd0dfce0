"""What a study keeps from its first start on, and what is said at its end."""

import re
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import pytest
from filled_ledger import FilledLedger, make_spec

from harness.commands import how_it_ended
from harness.errors import InputError, TroubleError
from harness.ledger.ledger import Ledger
from harness.planning.progress import StopReason
from harness.study.records import Trial
from harness.study.settings import Budget, Kind
from harness.study.spec import check_name
from harness.sweep.runner import StudyEnd, learned, open_study
from harness.workflows.ablation import plan_ablation
from harness.workflows.verdict import Request, plan_verdict


def begin(ledger: Ledger, study: str) -> None:
    """Proposes a first trial."""
    ledger.propose(study, Trial(uuid.uuid4().hex, 0, {"units_1": 64, "units_2": 64}, 0, 3), asks=1, search_time_s=0.1)


def test_a_study_learns_what_was_known_when_it_began(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        source = FilledLedger(ledger, make_spec("source"))
        first = source.add(1.5)
        spec = make_spec("pupil", learn_from="source")
        open_study(ledger, spec, fresh=False)
        begin(ledger, "pupil")
        source.add(1.4)
        open_study(ledger, spec, fresh=False)
        assert [lesson.trial.uid for lesson in learned(ledger, spec)] == [first]
        open_study(ledger, make_spec("source", precision="bfloat16"), fresh=True)
        FilledLedger(ledger, make_spec("other")).add(1.3)
        assert [lesson.trial.uid for lesson in learned(ledger, spec)] == [first], "its study has another name since"


def test_a_baseline_with_other_settings_names_a_way_that_its_command_has(tmp_path: Path) -> None:
    spec = make_spec("baseline-fc-quick", kind=Kind.BASELINE, space={})
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        FilledLedger(ledger, spec).add_baseline(2.0)
        with pytest.raises(InputError) as refused:
            open_study(ledger, spec.changed(seed=7), fresh=False)
    allowed = "allowed: `harness doctor --remove baseline-fc-quick`, which keeps a copy of the ledger"
    assert str(refused.value).endswith(allowed)


def test_names_of_full_length_have_room_for_what_is_appended(tmp_path: Path) -> None:
    """And two that differ at the end only are kept under names that differ, whatever the second."""
    first, second = "x" * 63 + "a", "x" * 63 + "b"
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        for short, name in (("a", first), ("b", second)):
            FilledLedger(ledger, make_spec(short)).add(2.0)
            ledger.rename_study(short, name)
            verdict, origin = plan_verdict(ledger, name, Request(), fresh=False)
            open_study(ledger, verdict, fresh=False, origin=origin)
            begin(ledger, verdict.study)
        for spec in [make_spec(name) for name in (first, second, first, first)]:
            open_study(ledger, spec, fresh=True)
            begin(ledger, spec.study)
        open_study(ledger, verdict, fresh=True)
        begin(ledger, verdict.study)
        names = ledger.study_names()
        assert [sum(name.startswith(about) for name in names) for about in (first, second)] == [3 + 1 + 1, 1 + 1 + 2]
        kept = next(name for name in names if name.startswith(f"{first}."))
        open_study(ledger, ledger.study(kept).spec, fresh=True)  # one that is kept, begun again
        assert len(ledger.study_names()) == len(set(names)) + 1
        for name in ledger.study_names():
            assert check_name(name, "study") == ledger.study(name).spec.study


@pytest.mark.parametrize("name", ["source", "x" * 64])
def test_a_study_is_kept_with_its_verdict_and_its_ablation(tmp_path: Path, name: str) -> None:
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        FilledLedger(ledger, make_spec("short")).add(2.0)
        ledger.rename_study("short", name)
        spec = ledger.study(name).spec
        for derived in (
            plan_verdict(ledger, name, Request(), fresh=False)[0],
            plan_ablation(ledger, name, 1, fresh=False),
        ):
            open_study(ledger, derived, fresh=False)
            begin(ledger, derived.study)
        open_study(ledger, ledger.study(f"{name}.ablation").spec, fresh=True)  # two of them now
        begin(ledger, f"{name}.ablation")
        open_study(ledger, spec, fresh=True)
        names = set(ledger.study_names())
        kept = next(one for one in names if re.fullmatch(rf"{name}\.\d{{8}}-\d{{6}}", one))
        alone = next(one for one in names if re.fullmatch(rf"{name}\.ablation\.\d{{8}}-\d{{6}}", one))
        assert names == {name, kept, alone, f"{kept}.verdict", f"{kept}.ablation"}
        for one in names:
            assert check_name(one, "study") == ledger.study(one).spec.study


def test_a_study_without_a_trial_makes_room_for_a_corrected_one(tmp_path: Path) -> None:
    """Its provenance goes as well, and the time that its sessions took."""
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        open_study(ledger, make_spec(epochs=2), fresh=False, origin={"backend": "jax"})
        ledger.touch_session(ledger.start_session("study"), 50.0)
        created_at = ledger.study("study").created_at
        corrected = make_spec(objective=("error", "device_time"), pruner="none")
        open_study(ledger, corrected, fresh=False, origin={"backend": "tensorflow"})
        assert (ledger.study("study").spec, ledger.study("study").created_at) == (corrected, created_at)
        assert ledger.study("study").provenance["backend"] == "tensorflow"
        assert ledger.usage("study").wall_s == 0.0

        begin(ledger, "study")
        with pytest.raises(InputError, match=r"started with other settings \(epochs\)"):
            open_study(ledger, corrected.changed(epochs=7), fresh=False)
        assert ledger.study("study").spec == corrected


def test_settings_that_no_version_can_read_make_room_as_well(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        open_study(ledger, make_spec(), fresh=False)
        huge = make_spec().model_dump_json().replace('"low":64', '"low":99999999999999999999999')
        with sqlite3.connect(ledger.path) as db:
            db.execute("UPDATE studies SET spec = ?", (huge,))
        db.close()
        with pytest.raises(TroubleError):
            ledger.study("study")
        open_study(ledger, make_spec(), fresh=False)
        assert ledger.study("study").spec == make_spec()


def test_no_study_begins_with_lessons_of_another_fidelity_and_one_that_has_goes_on(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        lesson = FilledLedger(ledger, make_spec("source", validation_images=50)).add(1.5)
        spec = make_spec("pupil", learn_from="source")
        with pytest.raises(InputError, match="source, where validation_images is 50; allowed: studies with 500"):
            open_study(ledger, spec, fresh=False)
        assert ledger.study_names() == ["source"]
        FilledLedger(ledger, spec, lessons=[lesson]).ask()  # as versions did that knew of no difference
        open_study(ledger, spec, fresh=False)
        assert [one.trial.uid for one in learned(ledger, spec)] == [lesson]
        with pytest.raises(InputError):
            open_study(ledger, spec, fresh=True)
        assert ledger.study_names() == ["source", "pupil"]


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (StopReason.TRIALS, "--trials 20 runs 10 more, --fresh starts a new study"),
        (StopReason.WALL_TIME, "a longer --budget continues it, --fresh starts a new study"),
        (StopReason.DEVICE_TIME, "a longer device_budget in the sweep file continues it, --fresh starts a new study"),
        (StopReason.EXHAUSTED, "--fresh starts a new study"),
    ],
)
def test_only_what_stopped_a_study_is_said_to_go_on_with_it(reason: StopReason, advice: str) -> None:
    assert how_it_ended(make_spec(), StudyEnd(reason, ran_nothing=False), 10, 10) == f"study: {reason.value}; {advice}"
    again = how_it_ended(make_spec(), StudyEnd(reason, ran_nothing=True), 10, 10)
    assert again == f"study: nothing to run, since {reason.value}; {advice}"


@pytest.mark.parametrize(("num_before", "advice"), [(3, "--trials 13 runs 10 more"), (16, "--trials 16 runs 13 more")])
def test_a_short_run_says_how_to_come_to_the_earlier_number_of_trials(num_before: int, advice: str) -> None:
    end = StudyEnd(StopReason.TRIALS, ran_nothing=False)
    assert advice in how_it_ended(make_spec(), end, 3, num_before)


def test_a_run_for_fewer_trials_leaves_the_studys_budget_as_it_is(tmp_path: Path) -> None:
    budgets = [Budget(trials=3, wall_s=600.0), Budget(trials=40), Budget(trials=2, wall_s=60.0), Budget(trials=16)]
    kept = []
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        for budget in budgets:
            open_study(ledger, make_spec(budget=budget), fresh=False)
            if budget is budgets[0]:
                begin(ledger, "study")
            kept.append(ledger.study("study").spec.budget)
    assert kept == [budgets[0], Budget(trials=40), Budget(trials=40), Budget(trials=40)]
