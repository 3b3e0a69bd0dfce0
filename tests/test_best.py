"""The best of a study is the same in each place that shows it."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from filled_ledger import FilledLedger, make_spec

from harness.analysis.comparison.incumbents import read_incumbents
from harness.analysis.leaderboard.leaderboard import by_configuration, leaderboard
from harness.analysis.leaderboard.table import show_leaderboard
from harness.analysis.report.facts import gather
from harness.analysis.report.finding_cost import steps
from harness.analysis.report.headline import headline
from harness.analysis.report.page import page
from harness.analysis.report.tables import top_trials
from harness.ledger.ledger import Ledger
from harness.planning.cost_model import CostModel, cpu_estimate
from harness.planning.progress import Progress
from harness.planning.status import render, status
from harness.study import metrics
from harness.study.findings import find, so_far
from harness.study.metrics import Metric
from harness.study.records import Role, Shown
from harness.tracking.summary import parent_content
from harness.tracking.summary import progress as mlflow_progress
from harness.tracking.views import view_tags
from harness.workflows.verdict import best_trials

REPEATED = {"units_1": 100, "units_2": 100}


@pytest.fixture
def study(tmp_path: Path) -> Iterator[FilledLedger]:
    """A lucky seed of the baseline, a lucky seed of a configuration that was repeated, and a tie for the best."""
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        study = FilledLedger(ledger, make_spec())
        study.add_baseline(3.0, seed=0, wrong=range(30))
        study.add_baseline(1.0, seed=1, wrong=range(10))
        study.add(1.0, params=REPEATED, seed=0)
        study.add(1.5, train_s=20.0)
        study.add(1.5, train_s=10.0)
        study.add(2.5, params=REPEATED, seed=1)
        study.add(0.9, epochs=1)
        yield study


BEST_UID, BEST_PCT = "study-4", 1.5


def test_all_name_the_same_trial_and_error(study: FilledLedger) -> None:
    ledger, spec = study.ledger, study.spec
    facts, board = gather(ledger, "study"), leaderboard(ledger, ["study"])
    live = Progress(spec, ledger.history("study"), ledger.usage("study"), CostModel(spec, cpu_estimate(1e11)))
    shown = mlflow_progress(ledger, "study").configurations
    full = by_configuration(board)
    full = full[full["rank"].notna() & (full["epochs"] == spec.epochs)]
    first = full[full["role"] == Role.TRIAL].iloc[0]
    found = status(ledger, "study").best
    assert found is not None
    assert facts.best is not None
    assert live.configurations.best is not None
    assert shown.best is not None
    (finalist,) = best_trials(spec, ledger.history("study"), 1)
    assert {
        "leaderboard": first.name,
        "status": found.uid,
        "report": facts.best.first.trial.uid,
        "live": live.configurations.best.first.trial.uid,
        "MLflow": shown.best.first.trial.uid,
        "verdict": finalist.trial.uid,
    } == dict.fromkeys(["leaderboard", "status", "report", "live", "MLflow", "verdict"], BEST_UID)
    logged = parent_content(mlflow_progress(ledger, "study")).metrics
    assert {
        "leaderboard": first["error_rate_pct"],
        "status": found.error_rate_pct,
        "report": facts.best.mean_error_pct,
        "report's curve": steps(facts)[-1].best_pct,
        "compare": read_incumbents(ledger, spec).error_pct[-1],
        "live": live.configurations.best.mean_error_pct,
        "MLflow": logged["best_error_rate_pct"],
    }.items() == dict.fromkeys(
        ["leaderboard", "status", "report", "report's curve", "compare", "live", "MLflow"], BEST_PCT
    ).items()


def test_all_say_so_in_the_same_words(study: FilledLedger) -> None:
    ledger, spec = study.ledger, study.spec
    facts = gather(ledger, "study")
    live = Progress(spec, ledger.history("study"), ledger.usage("study"), CostModel(spec, cpu_estimate(1e11)))
    board, said = io.StringIO(), io.StringIO()
    show_leaderboard(ledger, ["study"], leaderboard(ledger, ["study"]), board)
    render([status(ledger, "study")], said)
    note = parent_content(mlflow_progress(ledger, "study")).tags["mlflow.note.content"]
    html = page(facts, [], datetime(2026, 1, 1))
    words = "trial 4 at 1.50 % (95 %: 0.91 to 2.46), 0.50 points below the baseline's 2.00 % (mean of 2 seeds):"
    words += " within noise"
    places = {
        "leaderboard": " ".join(board.getvalue().split()),
        "status": said.getvalue(),
        "live": so_far(find(live.configurations, ledger.result)),
        "MLflow": note,
        "report": headline(facts),
    }
    assert [place for place, text in places.items() if words not in text] == []
    assert "  settings  units_1=" in said.getvalue()
    assert "| documented baseline (mean of 2 seeds) | 2.00 % |" in note
    assert "<b>1.50 %</b><span>best so far, trial 4: validation error</span>" in html
    assert "<b>2.00 %</b><span>documented fc (mean of 2 seeds)</span>" in html
    assert ". It is the best of 3 trained in full, at 1.00x the baseline's device time and" in headline(facts)


@pytest.mark.parametrize(
    ("error_pct", "words"),
    [
        (2.0, "trial 2 at 2.00 % (95 %: 1.30 to 3.07), equal to the baseline's 2.00 % (mean of 2 seeds)"),
        (
            2.5,
            "trial 2 at 2.50 % (95 %: 1.70 to 3.66), 0.50 points above the baseline's 2.00 % (mean of 2 seeds):"
            " within noise",
        ),
        (2.001, "trial 2 at 2.00 % (95 %: 1.30 to 3.07), equal to the baseline's 2.00 % (mean of 2 seeds)"),
    ],
)
def test_what_is_not_below_the_baseline_is_told_so(ledger: Ledger, error_pct: float, words: str) -> None:
    study = FilledLedger(ledger, make_spec())
    study.add_baseline(1.0, seed=0)
    study.add_baseline(3.0, seed=1)
    study.add(error_pct)
    found = status(ledger, "study")
    assert found.summary == words
    assert found.best is not None
    assert found.best.is_within_noise is None
    assert str(found.best.gain_points) == str(round(2.0 - round(error_pct, 2), 2))  # never -0.0


def test_people_see_a_row_for_each_configuration_and_programs_one_for_each_training(
    study: FilledLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    board, out = leaderboard(study.ledger, ["study"]), io.StringIO()
    show_leaderboard(study.ledger, ["study"], board, out)
    rows = [line.split() for line in out.getvalue().splitlines()]
    assert [row[:4] for row in rows if row and row[0].isdigit()][:4] == [
        ["1", "4", "1", "1.50"],
        ["2", "3", "1", "1.50"],
        ["3", "2", "2", "1.75"],
        ["4", "0", "baseline", "2"],
    ]
    full = board[board["epochs"] == 3]
    columns = ["rank", "trial", "error_rate_pct", "mean_error_rate_pct", "num_seeds"]
    assert full[columns].to_numpy().tolist() == [
        [1, 4, 1.5, 1.5, 1],
        [2, 3, 1.5, 1.5, 1],
        [3, 2, 1.0, 1.75, 2],
        [3, 5, 2.5, 1.75, 2],
        [4, 0, 3.0, 2.0, 2],
        [4, 1, 1.0, 2.0, 2],
    ]


def test_a_further_metric_is_in_each_table_for_people(study: FilledLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    where = Shown.LEADERBOARD | Shown.TABLE
    added = (
        Metric("seed_error_j", "float", "", where, lambda t: t.record.trial.seed * 1000.0 if t.result else None),
        Metric("num_epochs", "int", "", where, lambda t: t.record.trial.epochs, label="length"),
        Metric("gpu_load_pct", "float", "", where, lambda t: None),
    )
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, *added))
    monkeypatch.setenv("COLUMNS", "160")
    out = io.StringIO()
    show_leaderboard(study.ledger, ["study"], leaderboard(study.ledger, ["study"]), out)
    table = top_trials(gather(study.ledger, "study"))
    rows = {row[1]: dict(zip(table.head, row, strict=True)) for row in table.rows}
    assert table.head[-4:] == ["seed error J", "length", "units_1", "units_2"]  # none without a value
    assert [rows["2"][name] for name in ("seed error J", "length")] == ["500.0", "3"]  # the mean of two seeds
    titles, best = out.getvalue().splitlines()[:2], out.getvalue().splitlines()[3]
    assert "seed error" in titles[0]
    assert "length" in titles[1]
    assert rows["4"]["seed error J"] == "4,000.0"
    assert "4,000.0" in best
    names = {name for pair in view_tags(["units_1"], ["units_1"], 1000).values() for name in _columns_of(pair)}
    assert {f"metrics.`{metric.name}`" for metric in added} <= names


def _columns_of(view: str) -> list[str]:
    packed = json.loads(view)["state"].removeprefix("deflate;")
    found: list[str] = json.loads(zlib.decompress(base64.b64decode(packed)))["selectedColumns"]
    return found


def test_a_metric_of_tables_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="a column of the leaderboard as well"):
        Metric("speed_s", "float", "", Shown.TABLE, lambda t: None)
