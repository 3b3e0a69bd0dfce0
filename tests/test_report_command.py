"""The command `harness report`, and what it adds to the study's parent run in MLflow, on a real SQLite store."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from filled_ledger import FilledLedger, filled_verdict, make_spec

from harness.audit.runs import run_differences
from harness.cli import main
from harness.ledger.ledger import Ledger
from harness.ledger.locks import runs_lock
from harness.study.records import Outcome
from harness.tracking import store
from harness.tracking.mlflow_runs import sync
from harness.tracking.summary import REPORT_TAG

STILLS = {"best_so_far.png", "error_against_time.png", "importance.png", "learning_curves.png"}


@pytest.fixture
def home(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "Höfe und Häuser"
    home.mkdir()
    shutil.copy(empty_store, home / "mlflow.db")
    monkeypatch.setenv("HARNESS_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return home


@pytest.fixture
def study(home: Path) -> Iterator[FilledLedger]:
    """Two seeds of the baseline, twelve trials and a pruned one."""
    with closing(Ledger(home / "ledger.db")) as ledger:
        study = FilledLedger(ledger, make_spec())
        study.add_baseline(2.0, seed=0)
        study.add_baseline(2.3, seed=1)
        for place in range(12):
            study.add(3.5 - 0.15 * place, params={"units_1": 64 + 61 * place, "units_2": 64 + (377 * place) % 900})
        study.add(4.0, Outcome.PRUNED, epochs_done=2)
        yield study


def parent(home: Path, study: str = "study") -> object:
    client = store.open_client(home)
    experiment = client.get_experiment_by_name(study)
    (run,) = client.search_runs([experiment.experiment_id], "tags.role = 'sweep'")
    return run


def artifacts(home: Path) -> dict[str, Path]:
    run = parent(home)
    folder = Path(unquote(urlsplit(run.info.artifact_uri).path)) / "report"
    return {path.name: path for path in folder.iterdir()}


def test_the_page_is_written_and_the_parent_run_shows_the_figures(
    study: FilledLedger, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "study"]) == 0
    path = home / "reports" / "study.html"
    assert (
        capsys.readouterr().out
        == f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB, all of it in one file), to open in a browser\n"
    )
    assert artifacts(home).keys() == STILLS
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in artifacts(home).values())
    note = parent(home).data.tags["mlflow.note.content"]
    before, report = note.split("### Report")
    assert "| documented baseline (mean of 2 seeds) |" in before
    assert "the best of 12 trained in full" in report
    assert "`harness verdict study`" in report
    assert "by chance" in report


def test_the_report_stays_when_the_run_is_brought_up_to_date(study: FilledLedger, home: Path) -> None:
    main(["report", "study"])
    study.add(1.0)
    assert sync(home, ["study"], pytest.fail).is_complete
    run = parent(home)
    note = run.data.tags["mlflow.note.content"]
    assert "16 trials (15 completed, 1 pruned)" in note
    assert "after 15 trials" in note  # what was known when the report was made
    client = store.open_client(home)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"sweep.json", "report"}
    assert list(run_differences(home, study.ledger, "study")) == []


def test_a_second_report_takes_the_place_of_the_first(study: FilledLedger, home: Path) -> None:
    main(["report", "study"])
    first = artifacts(home)["best_so_far.png"].read_bytes()
    study.add(1.0)
    main(["report", "study"])
    note = parent(home).data.tags["mlflow.note.content"]
    assert note.count("### Report") == 1
    assert "the best of 13 trained in full" in note
    assert "after 16 trials" in note
    assert artifacts(home)["best_so_far.png"].read_bytes() != first


def test_a_changed_report_is_a_difference(study: FilledLedger, home: Path) -> None:
    main(["report", "study"])
    sync(home, ["study"], pytest.fail)
    run = parent(home)
    store.open_client(home).set_tag(run.info.run_id, REPORT_TAG, "something else")
    (difference,) = run_differences(home, study.ledger, "study")
    assert "tag mlflow.note.content" in difference.what


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "file:///somewhere"])
def test_without_mlflow_the_page_is_written_all_the_same(
    study: FilledLedger, home: Path, uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    out = home / "b.html"
    assert main(["report", "study", "--out", str(out)]) == 0
    assert out.stat().st_size > 4e6
    assert not (home / "reports").exists()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"wrote {out} (")
    assert lines[1].startswith("its figures are not in MLflow: ")
    assert lines[1].endswith("; the same command tries again")


def test_a_sweep_that_brings_its_runs_is_not_disturbed(
    study: FilledLedger, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with runs_lock(home, "study"):
        assert main(["report", "study"]) == 0
    assert "another process is bringing its runs to MLflow" in capsys.readouterr().out


def test_artifacts_are_not_put_where_the_home_was(
    study: FilledLedger, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["report", "study"])
    study.ledger.close()
    moved = home.rename(home.with_name("moved"))
    monkeypatch.setenv("HARNESS_HOME", str(moved))
    capsys.readouterr()
    assert main(["report", "study"]) == 0
    assert f"{moved} has moved: MLflow still looks for artifacts" in capsys.readouterr().out
    assert not home.exists()


def test_a_file_of_sweeps_names_the_study_it_makes(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.api.studies.default_profile", lambda: "quick")
    assert main(["report", "cnn"]) == 2
    assert "study is 'cnn', a sweep whose study here would be cnn-quick; allowed: none yet" in capsys.readouterr().err


def test_what_cannot_be_reported_is_said_in_one_line(
    study: FilledLedger, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled_verdict(study.ledger)
    assert main(["report", "other"]) == 2
    assert capsys.readouterr().err == "harness: study is 'other'; allowed: study, study.verdict\n"
    assert main(["report", "study.verdict"]) == 2
    assert "which is a verdict; allowed: study, whose report shows it" in capsys.readouterr().err
    (home / "file").write_text("")
    assert main(["report", "study", "--out", str(home / "file" / "b.html")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_report_goes_to_standard_output_alone(
    study: FilledLedger, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///somewhere")
    assert main(["report", "study", "--out", "-"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("<!DOCTYPE html>")
    assert out.rstrip().endswith("</html>")
    assert err.startswith("its figures are not in MLflow: ")
    assert not (home / "reports").exists()
