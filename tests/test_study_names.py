"""Each command that reads a study finds it by its own name, or by that of its file in sweeps/."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from filled_ledger import FilledLedger, make_spec

import harness
from harness.api.studies import study_named
from harness.api.sweeps import default_profile
from harness.cli import main
from harness.errors import InputError
from harness.ledger.ledger import Ledger

KNOWN = f"fc-{default_profile()}"  # the default study of sweeps/fc.toml
READERS = {
    "status": ["status", "{}"],
    "leaderboard": ["leaderboard", "{}"],
    "leaderboard --out": ["leaderboard", "{}", "--out", "board.csv"],
    "compare": ["compare", "{}", "other"],
    "export --csv": ["export", "{}", "--csv", "trials.csv"],
    "export --optuna": ["export", "{}", "--optuna", "sqlite:///trials.db"],
    "export --study": ["export", "{}", "--study", "one.study.gz"],
    "report": ["report", "{}", "--out", "report.html"],
    "doctor --audit": ["doctor", "--audit", "{}"],
}
TRAINERS = {"verdict": ["verdict", "{}"], "ablate": ["ablate", "{}"], "reproduce": ["reproduce", "{}", "0"]}
REMOVER = {"doctor --remove": ["doctor", "--remove", "{}"]}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        for name in (KNOWN, "other"):
            study = FilledLedger(ledger, make_spec(name, sampler="random" if name == "other" else "tpe"))
            study.add_baseline(3.0)
            study.add(2.5)
    return tmp_path


def line(words: list[str], study: str) -> list[str]:
    return [word.format(study) for word in words]


@pytest.mark.parametrize("words", READERS.values(), ids=READERS)
def test_a_command_takes_the_name_of_a_sweep_file(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(line(words, "fc")) != 2, capfd.readouterr().err  # the audit finds that this ledger was written by hand


@pytest.mark.parametrize("words", [*READERS.values(), *TRAINERS.values(), *REMOVER.values()], ids=" ".join)
def test_an_unknown_study_is_refused_by_each_command_in_the_same_line(
    words: list[str], home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(home.rglob("*"))
    assert main(line(words, "othr")) == 2
    assert capfd.readouterr() == (
        "",
        f"harness: study is 'othr'; allowed: {KNOWN}, other; did you mean other?\n",
    )
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize("words", [*READERS.values(), *TRAINERS.values()], ids=" ".join)
def test_a_sweep_without_its_default_study_is_refused_with_that_name(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(line(words, "fc-recipe")) == 2
    looked_up = f"a sweep whose study here would be fc-recipe-{default_profile()}"
    assert f"harness: study is 'fc-recipe', {looked_up}; allowed: {KNOWN}, other" in capfd.readouterr().err


def test_functions_take_the_name_of_a_sweep_file() -> None:
    assert harness.best("fc") == harness.best(KNOWN)
    assert [one.study for one in harness.status("fc")] == [KNOWN]
    assert set(harness.leaderboard("fc")["study"]) == {KNOWN}
    with pytest.raises(InputError, match="study is 'othr'; allowed: "):
        harness.trials("othr")


def test_an_audit_without_a_name_is_of_all_studies(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--audit"])
    audited = {text.split(":")[0] for text in capfd.readouterr().out.splitlines()}
    assert audited == {KNOWN, "other"}


def test_an_audit_without_a_name_and_without_a_study_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "new"))
    assert main(["doctor", "--audit"]) == 2
    assert capfd.readouterr().err.startswith("harness: studies: none yet")


def test_a_misspelt_sweep_with_a_study_is_recognised() -> None:
    with pytest.raises(InputError, match=r"study is 'fcc'.*; did you mean fc[?]"):
        study_named("fcc")


def test_a_study_is_removed_by_its_own_name_only(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--remove", "fc"]) == 2
    assert capfd.readouterr().err == f"harness: study is 'fc'; allowed: {KNOWN}, other; did you mean {KNOWN}?\n"
    with closing(Ledger(home / "ledger.db")) as ledger:
        assert KNOWN in ledger.study_names()
