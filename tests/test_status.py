import io
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from filled_ledger import DOCUMENTED, FilledLedger, filled_verdict, make_spec

from harness.analysis.verdict.findings import find_verdict
from harness.analysis.verdict.sentences import sentences
from harness.analysis.verdict.statistics import LOOKS
from harness.errors import InputError
from harness.ledger.ledger import Ledger
from harness.ledger.locks import study_lock
from harness.planning.forecast import TimeLeft
from harness.planning.running import RunningTrial, lines
from harness.planning.status import Best, Share, Status, render, status, to_json
from harness.study.records import EpochReport, Outcome, Role, Seconds, TrialResult
from harness.study.settings import Kind
from harness.support.intervals import error_rate_interval_pct

BEST = "trial 3 at 1.50 % (95 %: 0.91 to 2.46), 1.00 points below the baseline's 2.50 % (mean of 2 seeds): within noise"


@pytest.fixture
def study(tmp_path: Path) -> Iterator[FilledLedger]:
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        yield FilledLedger(ledger, make_spec(budget={"trials": 10, "wall_s": 600.0}))


def fill(study: FilledLedger) -> None:
    study.add_baseline(2.0, seed=1)
    study.add_baseline(3.0, seed=2)
    study.add(1.5, train_s=20.0)
    study.add(1.5, train_s=10.0, params={"units_1": 512, "units_2": 200})
    study.add(0.1, epochs=1)
    study.add(0.2, Outcome.PRUNED, epochs_done=2)
    study.add(0.3, role=Role.CONFIRM, test_wrong=[1, 2])
    study.add(outcome=Outcome.INFEASIBLE, train_s=0.0)
    study.ask()
    session = study.ledger.start_session("study")
    study.ledger.touch_session(session, 100.0)
    session = study.ledger.start_session("study")
    study.ledger.touch_session(session, 150.0)


def test_status_sums_up_what_the_ledger_holds(study: FilledLedger) -> None:
    fill(study)
    found = status(study.ledger, "study")
    started = found.last_session_at
    assert found == Status(
        study="study",
        kind=Kind.SEARCH,
        done=8,
        pending=1,
        running=[],
        outcomes={"completed": 6, "pruned": 1, "infeasible": 1},
        best=Best(
            trial=3,
            uid="study-3",
            error_rate_pct=1.5,
            num_seeds=1,
            interval_pct=error_rate_interval_pct(1.5, 1000),
            gain_points=1.0,
            is_within_noise=True,
            device_time_s=10.0,
            params={"units_1": 512, "units_2": 200},
            changed={"units_2": 200},
        ),
        summary=BEST,
        baseline_pct=2.5,
        num_baselines=2,
        trials=Share(5, 10, 5),
        wall_s=Share(250.0, 600.0, 350.0),
        device_s=Share(6 * 14.0 + 24.0 + 4.0, None, None),
        last_session_at=started,
        last_session_s=150.0,
        num_test_reads=1,
    )
    assert started is not None


def test_status_is_json(study: FilledLedger) -> None:
    fill(study)
    read = json.loads(json.dumps(to_json(status(study.ledger, "study"))))
    assert read["best"]["params"] == {"units_1": 512, "units_2": 200}
    assert read["trials"] == {"used": 5, "limit": 10, "left": 5}


def test_status_for_people(study: FilledLedger) -> None:
    fill(study)
    FilledLedger(study.ledger, make_spec("new", budget={"trials": 5, "device_s": 7200.0}))
    found = [status(study.ledger, name) for name in ("study", "new")]
    out = io.StringIO()
    render(found, out)
    lines = out.getvalue().splitlines()
    assert [line for line in lines if "session" not in line] == [
        "study",
        "  done      8 (6 completed, 1 pruned, 1 infeasible), 1 pending",
        "  baseline  2.50 % (mean of 2 seeds)",
        f"  best      {BEST}",
        "  settings  units_2=200; otherwise as documented (10 s per training)",
        "  budget    5 of 10 trials, 4 min of 10 min, 112 s of reserved time",
        "  test      1 model saw the test images",
        "",
        "new",
        "  done      0, 0 pending",
        "  baseline  no result yet",
        "  best      no searched trial is trained in full yet",
        "  budget    0 of 5 trials, 0 s, 0 s of 2 h 00 min of reserved time",
    ]
    assert [line for line in lines if "session" in line] == [f"  session   {found[0].last_session_at}, 2 min"]


def test_running_trials_are_shown_with_their_settings_epoch_and_error(study: FilledLedger, tmp_path: Path) -> None:
    fill(study)
    ledger, out = study.ledger, io.StringIO()
    new, old = study.ask({"units_1": 96, "units_2": 512}), study.ask({"units_1": 512, "units_2": 512})
    ledger.start_attempt(new.uid, "worker-0")
    crash = ledger.start_attempt(old.uid, "worker-1")
    ledger.add_epoch(old.uid, crash, EpochReport(1, 0.1, 0.2, 9.0, 500, Seconds(train=1.0)), 1.0)
    ledger.finish_attempt(old.uid, crash, TrialResult(Outcome.CRASHED), 1.0, is_final=False)
    assert status(ledger, "study").running == []  # nobody works on the study
    with study_lock(tmp_path, "study"):
        assert [one.trial for one in status(ledger, "study").running] == [new.number]
        again = ledger.start_attempt(old.uid, "worker-1")
        for epoch, error_pct in ((1, 4.0), (2, 2.6)):
            report = EpochReport(epoch, 0.1, 0.2, error_pct, 500, Seconds(train=1.0))
            ledger.add_epoch(old.uid, again, report, 1.0)
        found = status(ledger, "study")
    render([found], out)
    assert out.getvalue().splitlines()[2:4] == [
        f"  running   trial {new.number}, epoch 0 of 3, units_1=96, otherwise as documented",
        f"            trial {old.number}, epoch 2 of 3, attempt 2: 2.60 % of 500 images",
    ]
    assert to_json(found)["running"][1]["val_error_rate_pct"] == 2.6


def test_of_many_running_trials_the_first_are_shown() -> None:
    one = RunningTrial(7, Role.BASELINE, 1, "worker-0", 2, 5, None, None, {}, {})
    assert list(lines([one] * 10)) == ["baseline 7, epoch 2 of 5"] * 8 + ["and 2 more"]


def test_time_left_is_shown_where_it_is_known(study: FilledLedger) -> None:
    fill(study)
    found = replace(status(study.ledger, "study"), time_left=TimeLeft(540.0, 840.0))
    out = io.StringIO()
    render([found], out)
    assert "  left      about 9 to 14 min" in out.getvalue().splitlines()
    assert to_json(found)["time_left"] == {"low_s": 540.0, "high_s": 840.0}


def test_an_overrun_budget_has_nothing_left(study: FilledLedger) -> None:
    session = study.ledger.start_session("study")
    study.ledger.touch_session(session, 700.0)
    assert status(study.ledger, "study").wall_s == Share(700.0, 600.0, 0)


def test_an_unknown_study_is_refused(study: FilledLedger) -> None:
    with pytest.raises(InputError, match="study is 'other'; allowed: study"):
        status(study.ledger, "other")


def test_a_verdict_has_an_answer_and_no_best_so_far(study: FilledLedger) -> None:
    verdict = filled_verdict(study.ledger)
    out = io.StringIO()
    render([status(study.ledger, "study.verdict")], out)
    assert [line for line in out.getvalue().splitlines() if not line.startswith("  session")] == [
        "study.verdict",
        "  done      3 (3 completed), 0 pending",
        "  answer    NO VERDICT YET: too few seeds are trained; the same command continues",
        "  budget    3 of 6 trials, 0 s, 42 s of reserved time",
        "  test      3 models saw the test images",
    ]
    assert status(study.ledger, "study").answer is None
    (candidate,) = verdict.spec.enqueue
    for seed in range(min(LOOKS)):
        for params, num_wrong in ((DOCUMENTED, 100), (dict(candidate), 10 + seed)):
            wrong = range(num_wrong)
            verdict.add(0.0, params=params, seed=verdict.spec.seed + seed, role=Role.CONFIRM, test_wrong=wrong)
    answer = status(study.ledger, "study.verdict").answer
    assert answer.startswith("BETTER: trial 7 of study has an error ")
    assert answer == sentences(find_verdict(study.ledger, verdict.spec))[0]
