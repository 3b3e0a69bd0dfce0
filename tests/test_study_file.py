"""A study moves to another home in one file: whole, once, or not at all, and goes on there where it was."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from audited_study import add_study
from filled_ledger import FilledLedger, filled_verdict, make_spec, read_all
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from simulated_study import SimulatedStudy, epoch_report, simulated_spec

import harness
from harness.analysis.leaderboard.leaderboard import leaderboard
from harness.analysis.verdict.findings import find_verdict
from harness.audit import audit
from harness.cli import main
from harness.errors import InputError, TroubleError
from harness.ledger import checksums, schema, study_file
from harness.ledger.ledger import Ledger
from harness.ledger.locks import InUseError, study_lock
from harness.ledger.schema import SCHEMA_VERSION, STUDY_TABLES
from harness.search.factory import make_search
from harness.search.proposer import Proposer
from harness.study.records import Outcome, Seconds, Trial, TrialResult
from harness.sweep.runner import learned, open_study
from harness.workflows.study_file import Imported, export_study, import_study

NAMES = ["study", "study.verdict"]
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SECOND = Path(__file__).parent / "fixtures" / "ledger-v2.sql"


def export(home: Path, file: Path, study: str = "study") -> bytes:
    with closing(Ledger(home / "ledger.db")) as ledger:
        export_study(ledger, study, file)
    return file.read_bytes()


def rows(home: Path, names: list[str]) -> list[Any]:
    with closing(Ledger(home / "ledger.db", makes=False)) as ledger:
        return list(ledger.rows(names))


def pack(lines: list[bytes]) -> bytes:
    return gzip.compress(b"".join(line + b"\n" for line in lines))


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a study that has a trial of every kind and an attempt that runs, its verdict, and another study."""
    home = tmp_path_factory.mktemp("origin")
    with closing(Ledger(home / "ledger.db")) as ledger:
        FilledLedger(ledger, make_spec("before")).add(2.0)
        ledger.start_session("before")
        add_study(ledger)
        ledger.start_attempt("study-8", "worker-0")
        filled_verdict(ledger)
    return home


@pytest.fixture(scope="module")
def content(origin: Path) -> bytes:
    return export(origin, origin / "study.study.gz")


@pytest.fixture(scope="module")
def lines(content: bytes) -> list[bytes]:
    return gzip.decompress(content).splitlines()


@pytest.fixture
def file(content: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "s.study.gz"
    path.write_bytes(content)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another home, without a ledger; MLflow is out of reach."""
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    return tmp_path / "home"


def assert_refused(home: Path, file: Path, match: str | None = None) -> None:
    """In one line, and nothing is written."""
    with pytest.raises(TroubleError, match=match) as caught:
        import_study(home, str(file))
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 2000
    assert "harness-" not in str(caught.value).replace("harness-study", ""), "the temporary folder is shown"
    assert not home.exists()


# The same study in another home


def test_all_of_a_study_and_its_verdict_is_in_the_other_home(
    origin: Path, content: bytes, file: Path, home: Path, tmp_path: Path
) -> None:
    with closing(Ledger(home / "ledger.db")) as ledger:
        other = FilledLedger(ledger, make_spec("other"))
        for _ in range(3):
            ledger.start_session("other")
        other.add(1.0)
    assert import_study(home, str(file)) == Imported("study", {"study": 9, "study.verdict": 3}, None)
    assert rows(home, NAMES) == rows(origin, NAMES)
    assert {table for table, _ in rows(home, NAMES)} == set(STUDY_TABLES)
    assert export(home, tmp_path / "again.study.gz") == content
    with closing(Ledger(home / "ledger.db")) as there, closing(Ledger(origin / "ledger.db")) as here:
        boards = [leaderboard(ledger, NAMES) for ledger in (there, here)]
        pd.testing.assert_frame_equal(*boards)
        verdicts = [find_verdict(ledger, ledger.study("study.verdict").spec) for ledger in (there, here)]
        assert verdicts[0] == verdicts[1]
        assert there.history("other")[0].result.outcome is Outcome.COMPLETED
        assert there.last_session("study") == here.last_session("study")
        assert there.num_workers("study") == here.num_workers("study")
        assert there.close_lost_attempts("study") == 1
    read_all(home / "ledger.db")


def test_a_trial_may_stand_before_the_one_that_it_continues(tmp_path: Path, home: Path) -> None:
    """Rows are in the order of their keys: study-10 before study-9."""
    with closing(Ledger(tmp_path / "a" / "ledger.db")) as ledger:
        study = FilledLedger(ledger, make_spec())
        for _ in range(9):
            study.add(2.0)
        first = study.ask({"units_1": 100, "units_2": 100}, epochs=1)
        study.end(first, 6.0)
        study.ask({"units_1": 100, "units_2": 100}, continues=first.uid)
    export(tmp_path / "a", tmp_path / "x.study.gz")
    assert import_study(home, str(tmp_path / "x.study.gz")).num_trials == {"study": 11}
    with closing(Ledger(home / "ledger.db")) as ledger:
        assert ledger.record("study-10").trial.continues == "study-9"


def test_the_tables_of_a_study_are_those_with_checksums() -> None:
    assert set(STUDY_TABLES) == set(checksums.CELLS)
    with closing(sqlite3.connect(":memory:")) as db:
        schema.run_scripts(db, 0, SCHEMA_VERSION)
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert tables == {*STUDY_TABLES, "tracked"}, "of which all but a cache is exported"


def test_a_file_is_text_that_says_its_versions(lines: list[bytes]) -> None:
    assert json.loads(lines[0]) == {
        "format": "harness-study", "version": 1, "schema": SCHEMA_VERSION, "study": "study"
    }  # fmt: skip
    assert json.loads(lines[-1]) == {"rows": len(lines) - 2}
    assert not any(b"before" in line for line in lines), "of another study"


def test_the_audit_finds_nothing_and_mlflow_shows_it(
    file: Path, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(empty_store, home / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert harness.import_study(file, home=home) == "study"
    with closing(Ledger(home / "ledger.db")) as ledger:
        assert len(ledger.run_ids("study")) == 9  # the one that was interrupted as well
        ledger.close_lost_attempts("study")  # as the next start does
    assert audit(home, "study") == []
    assert audit(home, "study.verdict") == []


def test_a_second_import_adds_nothing_and_says_so(file: Path, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(file)]) == 0
    said = capfd.readouterr().out.splitlines()
    assert said[:2] == ["study: 9 trials are new in the ledger", "study.verdict: 3 trials are new in the ledger"]
    assert said[-1].endswith("`harness sync` tries again")
    before = (home / "ledger.db").read_bytes()
    assert main(["import", str(file)]) == 0
    assert capfd.readouterr().out.splitlines()[:2] == [f"{name}: the ledger has all of it" for name in NAMES]
    assert (home / "ledger.db").read_bytes() == before


def test_a_verdict_that_came_later_is_added(origin: Path, file: Path, home: Path, tmp_path: Path) -> None:
    without = shutil.copytree(origin, tmp_path / "without")
    with closing(Ledger(without / "ledger.db")) as ledger:
        ledger.remove_study("study.verdict")
    export(without, tmp_path / "without.study.gz")
    assert import_study(home, str(tmp_path / "without.study.gz")).num_trials == {"study": 9}
    assert import_study(home, str(file)).num_trials == {"study": 0, "study.verdict": 3}
    assert rows(home, NAMES) == rows(origin, NAMES)


def test_it_may_have_another_name(origin: Path, file: Path, home: Path, tmp_path: Path) -> None:
    assert import_study(home, str(file), "mine").num_trials == {"mine": 9, "mine.verdict": 3}
    assert import_study(home, str(file), "mine").num_trials == {"mine": 0, "mine.verdict": 0}
    read_all(home / "ledger.db")
    export(home, tmp_path / "mine.study.gz", "mine")
    assert import_study(tmp_path / "third", str(tmp_path / "mine.study.gz"), "study").num_trials["study"] == 9
    assert rows(tmp_path / "third", NAMES)[2:] == rows(origin, NAMES)[2:], "but for the settings' text"


@pytest.mark.parametrize("new_name", ["study", "study.verdict", "study.verdict.verdict", "x"])
def test_a_name_that_the_other_of_the_two_has_now(file: Path, home: Path, new_name: str) -> None:
    assert import_study(home, str(file), new_name).num_trials == {new_name: 9, f"{new_name}.verdict": 3}
    read_all(home / "ledger.db")


@pytest.mark.parametrize("new_name", ["", "a/b", "x" * 65, "ä"])
def test_a_name_that_is_none_is_refused(file: Path, home: Path, new_name: str) -> None:
    with pytest.raises(InputError, match=r"--as is .*; allowed: "):
        import_study(home, str(file), new_name)
    assert not home.exists()


# Conflicts


def test_another_study_of_that_name_is_refused(file: Path, home: Path) -> None:
    with closing(Ledger(home / "ledger.db")) as ledger:
        ledger.create_study(make_spec("study"), {})
    with pytest.raises(
        InputError, match=r"^study study: this ledger has another study of that name; allowed: --as NAME$"
    ):
        import_study(home, str(file))
    assert [table for table, _ in rows(home, NAMES)] == ["studies"]
    assert import_study(home, str(file), "mine").num_trials["mine"] == 9


def test_the_same_study_under_two_names_is_refused(file: Path, home: Path) -> None:
    import_study(home, str(file))
    refused = "^study mine: its trials are already in this ledger as study study; allowed: another home$"
    with pytest.raises(InputError, match=refused):
        import_study(home, str(file), "mine")


def test_a_study_that_went_on_is_refused(file: Path, home: Path) -> None:
    import_study(home, str(file))
    with closing(Ledger(home / "ledger.db")) as ledger:
        ledger.propose("study", Trial("new", 9, {"units_1": 64, "units_2": 64}, 0, 3), 1, 0.0)
    before = rows(home, NAMES)
    with pytest.raises(InputError, match=r"has gone on in one of the two \(9 trials in the file, 10 in this ledger\)"):
        import_study(home, str(file))
    assert rows(home, NAMES) == before


def test_a_study_that_a_process_begins_at_this_moment_is_refused(file: Path, home: Path) -> None:
    with study_lock(home, "study.verdict"), pytest.raises(InUseError):
        import_study(home, str(file))
    assert not (home / "ledger.db").exists()


@pytest.mark.parametrize(
    ("name", "why"), [("nope", "study is 'nope'; allowed: "), ("study.verdict", "a verdict, which")]
)
def test_what_is_no_study_of_its_own_is_not_exported(origin: Path, tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        export(origin, tmp_path / "x.study.gz", name)
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_of_one_moment_also_while_the_study_runs(origin: Path, tmp_path: Path) -> None:
    home = shutil.copytree(origin, tmp_path / "home")
    expected = rows(home, NAMES)
    with closing(Ledger(home / "ledger.db")) as reader, closing(Ledger(home / "ledger.db")) as writer:
        with reader.snapshot():
            found = [next(stream := reader.rows(NAMES))]
            FilledLedger(writer, make_spec("new")).add(1.0)
            writer.finish_attempt("study-8", 1, TrialResult(Outcome.CRASHED), 1.0, is_final=True)
            found += stream
        assert found == expected
        with study_lock(home, "study"), writer.together():
            writer.add_search_time("study-8", 1.0)  # not committed yet
            export_study(reader, "study", tmp_path / "x.study.gz")


def test_a_ledger_that_was_edited_is_not_exported(origin: Path, tmp_path: Path) -> None:
    home = shutil.copytree(origin, tmp_path / "home")
    with closing(sqlite3.connect(home / "ledger.db")) as db, db:
        db.execute("UPDATE attempts SET reserved_time_s = 1 WHERE uid = 'study-2'")
    with pytest.raises(
        TroubleError, match=r"^study study is not exported: .*'study-2/1'.* its checksum differs; `harness"
    ):
        export(home, tmp_path / "x.study.gz")
    assert not (tmp_path / "x.study.gz").exists()


# Going on


def loop(ledger: Ledger, study: SimulatedStudy, num_trials: int) -> None:
    """Runs a simulated study, and commits it as the real loop does."""
    known = len(study.records)
    name = study.spec.study
    for record in study.run(num_trials).records[known:]:
        ledger.propose(name, record.trial, record.asks, 0.0)
        attempt = ledger.start_attempt(record.trial.uid, "worker-0")
        ledger.add_epoch(record.trial.uid, attempt, epoch_report(study.spec, record.trial, 1), 0.0)
        result = TrialResult(Outcome.COMPLETED, seconds=Seconds(train=1.0))
        ledger.finish_attempt(record.trial.uid, attempt, result, 60.0, is_final=True)


@pytest.mark.parametrize(
    ("engine", "sampler"), [("optuna", "tpe"), ("keras-tuner", "random"), ("keras-tuner", "bayesian")]
)
def test_the_search_goes_on_where_it_was(tmp_path: Path, engine: str, sampler: str) -> None:
    spec = simulated_spec(engine=engine, sampler=sampler, epochs=1)
    with closing(Ledger(tmp_path / "a" / "ledger.db")) as ledger:
        ledger.create_study(spec, {})
        loop(ledger, SimulatedStudy(spec), 12)
        expected = proposals(ledger)
    export(tmp_path / "a", tmp_path / "x.study.gz", spec.study)
    import_study(tmp_path / "b", str(tmp_path / "x.study.gz"))
    with closing(Ledger(tmp_path / "b" / "ledger.db")) as ledger:
        assert proposals(ledger) == expected


def proposals(ledger: Ledger) -> list[Any]:
    """The next three, of which none is told."""
    spec = ledger.study("simulated").spec
    proposer = Proposer(spec, make_search(spec), ledger.history("simulated"))
    trials = [proposer.next().trial for _ in range(3)]
    return [(trial.number, dict(trial.params), trial.seed) for trial in trials]


def test_what_a_study_has_learned_from_another_one_is_missed_in_one_line(
    tmp_path: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = make_spec("pupil", dataset="digits", learn_from="source")
    with closing(Ledger(tmp_path / "a" / "ledger.db")) as ledger:
        FilledLedger(ledger, make_spec("source", dataset="digits")).add(2.0)
        open_study(ledger, spec, fresh=False)
        ledger.propose("pupil", Trial("p", 0, {"units_1": 64, "units_2": 64}, 0, 3), 1, 0.0)
        lessons = learned(ledger, spec)
    export(tmp_path / "a", tmp_path / "source.study.gz", "source")
    export(tmp_path / "a", tmp_path / "pupil.study.gz", "pupil")
    assert main(["import", str(tmp_path / "pupil.study.gz")]) == 0
    assert "pupil: it goes on only beside study source, from which it has learned\n" in capfd.readouterr().out
    with closing(Ledger(home / "ledger.db")) as ledger:
        refused = (
            "^study pupil has learned from 1 trials of study source, and this ledger has 0 of them; allowed: to `har"
        )
        with pytest.raises(InputError, match=refused):
            learned(ledger, spec)
        import_study(home, str(tmp_path / "source.study.gz"))
        assert learned(ledger, spec) == lessons


# Versions


def test_a_newer_file_is_refused_in_one_line(lines: list[bytes], home: Path, tmp_path: Path) -> None:
    for key, newest in (("schema", SCHEMA_VERSION), ("version", study_file.VERSION)):
        header = {**json.loads(lines[0]), key: newest + 1, "unknown": 1}
        (tmp_path / "x.study.gz").write_bytes(pack([json.dumps(header).encode(), *lines[1:]]))
        newer = f"its {key} is {newest + 1}, this harness knows up to {newest}; install a newer one$"
        assert_refused(home, tmp_path / "x.study.gz", newer)


def test_a_file_of_an_older_version_is_migrated_like_its_ledger(tmp_path: Path, home: Path) -> None:
    """As if version 2 had written such files."""
    (tmp_path / "old").mkdir()
    with closing(sqlite3.connect(tmp_path / "old" / "ledger.db")) as db:
        db.executescript(SECOND.read_text())
        db.row_factory = sqlite3.Row
        written = [{table: dict(row)} for table in STUDY_TABLES for row in db.execute(f"SELECT * FROM {table}")]  # noqa: S608
    header = {"format": "harness-study", "version": 1, "schema": 2, "study": "cnn-quick"}
    text = [json.dumps(line).encode() for line in [header, *written, {"rows": len(written)}]]
    (tmp_path / "x.study.gz").write_bytes(pack(text))
    assert import_study(home, str(tmp_path / "x.study.gz")).num_trials == {"cnn-quick": 31}
    assert rows(home, ["cnn-quick"]) == rows(tmp_path / "old", ["cnn-quick"])


# What is no file, or not as it was written

FOREIGN = {
    "an empty file": (b"", "it is no file of `harness export STUDY --study`"),
    "a text": (b"study,trial\n", "it is no file of `harness export STUDY --study`"),
    "a picture": (b"\xff\xd8\xff\xe0JFIF", "it is no file of `harness export STUDY --study`"),
    "a foreign gzip": (gzip.compress(b"study,trial\ncnn,1\n"), "it is no file of `harness export STUDY --study`"),
    "other JSON": (gzip.compress(b'{"format": "other"}\n'), "it is no file of `harness export STUDY --study`"),
    "deep JSON": (gzip.compress(b'{"format":' * 10_000), "it is no file of `harness export STUDY --study`"),
    "a long line": (gzip.compress(b"0" * (study_file.MAX_LINE_BYTES + 5), 1), "larger when unpacked than is allowed"),
    "no version": (gzip.compress(b'{"format": "harness-study"}\n'), "its version is None; allowed: 1 to 1"),
    "no whole version": (
        gzip.compress(b'{"format": "harness-study", "version": true}\n'),
        "its version is True; allow",
    ),
    "no study": (gzip.compress(b'{"format": "harness-study", "version": 1, "schema": 4}\n'), "study is missing"),
    "no rows": (
        gzip.compress(b'{"format": "harness-study", "version": 1, "schema": 4, "study": "x"}\n'),
        "it has 0 rows",
    ),
    "rows of nothing": (
        gzip.compress(b'{"format": "harness-study", "version": 1, "schema": 4, "study": "x"}\n{"rows":0}\n'),
        r"it has the studies \[\]; allowed: 'x' and its verdict",
    ),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_file_is_refused_in_one_line(what: str, home: Path, tmp_path: Path) -> None:
    content, why = FOREIGN[what]
    (tmp_path / "x.study.gz").write_bytes(content)
    assert_refused(home, tmp_path / "x.study.gz", why)


def test_a_file_that_unpacks_to_too_much_is_refused(file: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_file, "MAX_BYTES", 10_000)
    assert_refused(home, file, "larger when unpacked than is allowed")


@pytest.mark.parametrize("kind", ["folder", "missing", "pipe", "a\0b", "x" * 5000])
def test_what_is_no_plain_file_is_refused(kind: str, home: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"^FILE is '.*; allowed: a file of `harness export STUDY --study`, or -$"):
        import_study(home, str(tmp_path / kind))
    assert not home.exists()


def test_a_file_that_is_cut_off_anywhere_is_refused(content: bytes, home: Path, tmp_path: Path) -> None:
    for length in [*range(30), *range(30, len(content), 97), *range(len(content) - 12, len(content))]:
        (tmp_path / "x.study.gz").write_bytes(content[:length])
        assert_refused(home, tmp_path / "x.study.gz", "cut off" if length > 1 else "no file of")


def test_a_file_that_lacks_or_repeats_a_line_is_refused(lines: list[bytes], home: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.study.gz"
    for i in range(len(lines)):
        for changed in (lines[:i] + lines[i + 1 :], lines[: i + 1] + lines[i:]):
            path.write_bytes(pack(changed))
            assert_refused(home, path)
            may_lack = lines[i].startswith((b'{"sessions"', b'{"attempts":{"uid":"study-8"'))  # on which nothing rests
            if 0 < i < len(lines) - 1 and not may_lack:
                path.write_bytes(pack([*changed[:-1], b'{"rows":%d}' % (len(changed) - 2)]))
                assert_refused(home, path)


@FEW
@given(data=st.data())
def test_flipped_bytes_are_noticed(content: bytes, home: Path, tmp_path: Path, data: st.DataObject) -> None:
    path, flipped = tmp_path / "x.study.gz", bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        flipped[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(flipped)
    try:
        import_study(home, str(path))
    except TroubleError as error:
        assert len(str(error).splitlines()) == 1
        assert not home.exists()
    else:  # a byte of gzip's header that says nothing of the content
        assert flipped[10:] == content[10:]
        shutil.rmtree(home)


cells = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400) | st.just([])


def is_taken(changed: list[Any], home: Path, folder: Path) -> bool:
    """Whether a file of these lines is imported; a refusal is one line, and writes nothing."""
    (folder / "x.study.gz").write_bytes(pack([json.dumps(line).encode() for line in changed]))
    try:
        import_study(home, str(folder / "x.study.gz"))
    except TroubleError as error:
        assert len(str(error).splitlines()) == 1
        assert not home.exists()
        return False
    return True


@FEW
@given(data=st.data())
def test_a_changed_cell_is_noticed(
    origin: Path, lines: list[bytes], home: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """Also if a checksum goes with it, as a hostile hand would do it: then what is taken can be read."""
    shutil.rmtree(home, ignore_errors=True)  # of the example before
    changed = [json.loads(line) for line in lines]
    i = data.draw(st.integers(1, len(lines) - 2))
    ((table, row),) = changed[i].items()
    column = data.draw(st.sampled_from(sorted(row)))
    others = [other[table][column] for other in changed[1:-1] if table in other]
    row[column] = data.draw(cells | st.sampled_from(others))
    is_stamped = data.draw(st.booleans())
    with suppress(UnicodeEncodeError):
        if is_stamped and column != "checksum":
            row["checksum"] = checksums._of(table, row)
    if is_taken(changed, home, tmp_path):
        assert is_stamped or rows(home, NAMES) == rows(origin, NAMES), "a change that no checksum goes with"
        read_all(home / "ledger.db")


def leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of each value that is no container itself."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if isinstance(inner, dict | list):
            yield from leaves(inner)
        else:
            yield value, key


@FEW
@given(data=st.data())
def test_a_changed_value_within_a_cell_is_refused_or_can_be_read(
    lines: list[bytes], home: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """With the checksum that goes with it."""
    shutil.rmtree(home, ignore_errors=True)  # of the example before
    changed = [json.loads(line) for line in lines]
    ((table, row),) = changed[data.draw(st.integers(1, len(lines) - 2))].items()
    column = data.draw(st.sampled_from(sorted(c for c, cell in row.items() if str(cell).startswith("{")) or ["uid"]))
    assume(column != "uid")
    content = json.loads(row[column])
    container, key = data.draw(st.sampled_from(list(leaves(content))))
    container[key] = data.draw(cells | st.just(2**62) | st.just(1e300))
    row[column] = json.dumps(content)
    row["checksum"] = checksums._of(table, row)
    if is_taken(changed, home, tmp_path):
        read_all(home / "ledger.db")


@pytest.mark.parametrize(("table", "column"), [("studies", "num_events"), ("trials", "number"), ("trials", "asked_at")])
def test_a_huge_number_costs_nothing(lines: list[bytes], home: Path, tmp_path: Path, table: str, column: str) -> None:
    changed = [json.loads(line) for line in lines]
    row = next(line[table] for line in reversed(changed) if table in line)
    row[column] = 2**62
    row["checksum"] = checksums._of(table, row)
    (tmp_path / "x.study.gz").write_bytes(pack([json.dumps(line).encode() for line in changed]))
    assert_refused(home, tmp_path / "x.study.gz")


def test_swapped_rows_are_noticed_or_the_same(lines: list[bytes], home: Path, tmp_path: Path, origin: Path) -> None:
    path, attempts = tmp_path / "x.study.gz", [i for i, line in enumerate(lines) if line.startswith(b'{"attempts"')]
    first, second = (json.loads(lines[i])["attempts"] for i in attempts[:2])
    first["result"], second["result"] = second["result"], first["result"]
    swapped = {i: json.dumps({"attempts": row}).encode() for i, row in zip(attempts, (first, second), strict=False)}
    path.write_bytes(pack([swapped.get(i, line) for i, line in enumerate(lines)]))
    assert_refused(home, path, "its checksum differs")
    path.write_bytes(pack([lines[0], *lines[-2:0:-1], lines[-1]]))
    import_study(home, str(path))
    assert rows(home, NAMES) == rows(origin, NAMES)


def test_a_second_study_in_a_file_is_refused(origin: Path, home: Path, tmp_path: Path) -> None:
    with closing(Ledger(origin / "ledger.db")) as ledger:
        study_file.pack(ledger, ["study", "before"], tmp_path / "x.study.gz")
    assert_refused(home, tmp_path / "x.study.gz", r"it has the studies \['before', 'study'\]; allowed: 'study' and its")


# Commands

HARNESS = [sys.executable, "-m", "harness.cli"]
IMPORT_KILLS = ["before_import", "before_import_ends", "after_import"]


@pytest.fixture
def environment(environment_of: Callable[[Path], dict[str, str]], home: Path) -> dict[str, str]:
    return environment_of(home) | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}


def test_a_study_goes_through_standard_output_and_input(
    origin: Path, content: bytes, home: Path, environment: dict[str, str]
) -> None:
    exported = subprocess.run(
        [*HARNESS, "export", "study", "--study", "-"],
        env=environment | {"HARNESS_HOME": str(origin)}, capture_output=True, check=True,
    )  # fmt: skip
    assert (exported.stdout, exported.stderr) == (content, b"")
    for taken in (exported.stdout, exported.stdout[:100]):
        done = subprocess.run([*HARNESS, "import", "-"], env=environment, input=taken, capture_output=True, check=False)
        assert done.returncode == (0 if taken == content else 1), done.stderr
    assert done.stderr == b"harness: file '-': it is cut off; export it again, or copy all of it\n"
    assert rows(home, NAMES) == rows(origin, NAMES)


def test_a_file_has_its_ending(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(origin))
    with pytest.raises(InputError, match=r"^file is '.*x.json'; allowed: a name that ends in .study.gz, a pipe, or -$"):
        harness.export_study("study", tmp_path / "x.json")
    assert main(["export", "study", "--study", str(tmp_path / "x.json")]) == 2
    assert list(tmp_path.iterdir()) == []
    harness.export_study(make_spec("study"), tmp_path / "x.study.gz", home=origin)


@pytest.mark.slow
@pytest.mark.parametrize("kill", IMPORT_KILLS)
def test_a_kill_leaves_all_of_an_import_or_nothing(
    kill: str, origin: Path, file: Path, home: Path, environment: dict[str, str]
) -> None:
    killed = subprocess.run(
        [*HARNESS, "import", str(file)], env=environment | {"HARNESS_FAILPOINT": kill}, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert rows(home, NAMES) == (rows(origin, NAMES) if kill == "after_import" else [])
    import_study(home, str(file))
    assert rows(home, NAMES) == rows(origin, NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("kill", ["before_file", "after_file"])
def test_a_kill_leaves_the_old_file_or_the_new_one(
    kill: str, origin: Path, content: bytes, tmp_path: Path, environment: dict[str, str]
) -> None:
    path = tmp_path / "x.study.gz"
    path.write_bytes(b"old")
    killed = subprocess.run(
        [*HARNESS, "export", "study", "--study", str(path)],
        env=environment | {"HARNESS_HOME": str(origin), "HARNESS_FAILPOINT": kill}, capture_output=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert path.read_bytes() == (content if kill == "after_file" else b"old")
    assert export(origin, path) == content
    assert [one.name for one in tmp_path.iterdir() if "unfinished" in one.name] == []
