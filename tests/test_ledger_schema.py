"""The ledger's file: older versions are brought up to date once, and whatever else lies there is refused."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import fields
from itertools import combinations
from pathlib import Path

import pytest
from filled_ledger import FilledLedger, make_spec, read_all
from pydantic import BaseModel

from baselines.recipe import Recipe
from harness.audit.recount import recount
from harness.audit.rows import open_read_only, read_study
from harness.errors import TroubleError
from harness.ledger import schema
from harness.ledger.checksums import CELLS, add_function, add_triggers, broken_rows
from harness.ledger.ledger import Ledger, find_study
from harness.ledger.schema import JSON_RECORDS, MIGRATIONS, SCHEMA_VERSION, added_fields
from harness.planning.status import status
from harness.study.records import Device, EpochReport, Outcome, Role, Seconds, Trial, TrialResult
from harness.study.settings import Budget, Constraints, Kind
from harness.study.spec import SweepSpec
from harness.workflows.doctor import Level, examine

OLD = Path(__file__).parent / "fixtures" / "ledger-v1.sql"
SECOND = Path(__file__).parent / "fixtures" / "ledger-v2.sql"
STUDY = "smoke-quick"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "ledger.db"


@pytest.fixture
def old(path: Path) -> Path:
    """A ledger of schema 1, recorded from a sweep on digits: two sessions that ended, and one that was killed."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(OLD.read_text())
    return path


@pytest.fixture
def second(path: Path) -> Path:
    """A ledger of schema 2: a study of 31 trials that has ended."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(SECOND.read_text())
    return path


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


def test_an_old_ledger_is_read_whole(old: Path) -> None:
    with closing(Ledger(old)) as ledger:
        assert ledger.study_names() == [STUDY]
        records = ledger.history(STUDY)
        assert [record.trial.number for record in records] == list(range(20))
        assert [record.trial.role for record in records[:3]] == [Role.BASELINE, Role.BASELINE, Role.TRIAL]
        assert [record.result is None for record in records] == [False] * 19 + [True]
        first = ledger.record(records[0].trial.uid)
        assert first.result.outcome is Outcome.COMPLETED
        assert first.result.error_rate_pct == pytest.approx(100 * len(first.result.wrong_images) / 297)
        assert [report.epoch for report in first.result.curve] == [1, 2, 3]
        assert sum(1 for _ in ledger.finished(STUDY)) == 19
        assert ledger.usage(STUDY).trials == 17
        assert ledger.usage(STUDY).wall_s == pytest.approx(41.8, abs=0.1)
        assert len(ledger.run_ids(STUDY)) == 18
        assert ledger.untracked(STUDY) == [records[18].trial.uid]
        assert ledger.origin(first.trial.uid)["git_commit"] == ledger.study(STUDY).provenance["git_commit"]
        ledger.study(STUDY).spec.search_space.validate(records[2].trial.params)
    assert version(old) == SCHEMA_VERSION


def test_an_old_study_goes_on_in_the_new_ledger(old: Path) -> None:
    with closing(Ledger(old)) as ledger:
        assert ledger.close_lost_attempts(STUDY) == 1
        ledger.start_session(STUDY, {"git_commit": "newer"})
        trial = Trial("new", 20, {"units_1": 16, "units_2": 32}, 0, 3)
        ledger.propose(STUDY, trial, 1, 0.0)
        ledger.start_attempt("new", "worker-0")
        assert ledger.origin("new") == {"git_commit": "newer"}
        assert ledger.num_pending(STUDY) == 2


def test_the_old_ledger_is_kept_beside_the_new_one(old: Path) -> None:
    before = dump(old)
    Ledger(old).close()
    copy = old.with_name("ledger.db.v1")
    assert (dump(copy), version(copy)) == (before, 1)
    assert sorted(file.name for file in old.parent.iterdir()) == ["ledger.db", "ledger.db.v1"]
    kept = copy.stat().st_mtime_ns
    Ledger(old).close()
    assert copy.stat().st_mtime_ns == kept


def test_a_new_ledger_leaves_no_copy(path: Path) -> None:
    Ledger(path).close()
    assert [file.name for file in path.parent.iterdir()] == ["ledger.db"]


def test_what_goes_wrong_on_the_way_leaves_the_old_ledger_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dump(old)
    monkeypatch.setattr(schema, "MIGRATIONS", {**MIGRATIONS, SCHEMA_VERSION: "ALTER TABLE nope ADD x;\n"})
    with pytest.raises(TroubleError, match=r"ledger\.db: no such table: nope; what was written before is safe"):
        Ledger(old)
    assert (dump(old), version(old)) == (before, 1)
    monkeypatch.undo()
    Ledger(old).close()
    assert version(old) == SCHEMA_VERSION


def test_without_room_for_a_copy_nothing_is_changed(old: Path) -> None:
    before = dump(old)
    old.with_name("ledger.db.v1").mkdir()  # so that the copy cannot take its place
    with pytest.raises(TroubleError, match=r"^ledger .*ledger\.db: "):
        Ledger(old)
    assert (dump(old), version(old)) == (before, 1)


def _open(path: Path) -> None:
    Ledger(path).close()


@pytest.mark.parametrize("is_old", [True, False])
def test_many_starts_at_once_make_or_migrate_once(path: Path, is_old: bool, request: pytest.FixtureRequest) -> None:
    before = dump(request.getfixturevalue("old")) if is_old else None
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_open, args=(path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert version(path) == SCHEMA_VERSION
    if before is not None:
        assert dump(path.with_name("ledger.db.v1")) == before  # not a copy of what another had migrated already


def test_a_newer_schema_is_refused(path: Path) -> None:
    Ledger(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    content = path.read_bytes()
    with pytest.raises(TroubleError, match=f"schema {SCHEMA_VERSION + 1}, this version knows up to {SCHEMA_VERSION}"):
        Ledger(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("text", ["x", "a text of some length\n" * 100, "x" * 4096 * 2], ids=len)
def test_a_text_file_is_refused(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(TroubleError, match=r"ledger\.db: (file is not a database|the file is cut off, or no database)"):
        Ledger(path)
    assert path.read_text() == text


@pytest.mark.parametrize("number", [0, 1, SCHEMA_VERSION])
def test_a_database_of_something_else_is_refused_and_left_alone(path: Path, number: int) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE recipes (dish TEXT)")
        db.execute(f"PRAGMA user_version = {number}")
    before = dump(path)
    with pytest.raises(TroubleError, match=r"ledger\.db(: | is no ledger but another database \(tables: recipes\))"):
        Ledger(path)
    assert (dump(path), version(path)) == (before, number)


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ("ALTER TABLE attempts DROP COLUMN worker", "table attempts, column worker TEXT is missing"),
        ("DROP TABLE tracked", "table tracked, column run_id TEXT is missing"),
        ("DROP INDEX one_final_result", "index one_final_result is missing"),
    ],
)
def test_what_is_missing_is_named(path: Path, change: str, missing: str) -> None:
    Ledger(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(change)
    with pytest.raises(TroubleError, match=missing):
        Ledger(path)


def test_a_truncated_file_is_one_clear_error_or_read_whole(path: Path) -> None:
    with closing(Ledger(path)) as ledger:
        study = FilledLedger(ledger, make_spec())
        for error_pct in range(1, 40):
            study.add(error_pct, wrong=range(100))
        whole = ledger.history("study"), ledger.usage("study")
    content = path.read_bytes()
    refusals = 0
    for length in range(1, len(content), 4096 - 7):
        path.write_bytes(content[:length])
        try:
            with closing(Ledger(path)) as ledger:
                assert (ledger.history("study"), ledger.usage("study")) == whole
        except TroubleError as error:
            assert str(error).startswith(f"ledger {path}: ")
            refusals += 1
    assert refusals > 10


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE sqlite_master SET sql = CAST(x'ff' || sql AS TEXT) WHERE name = 'trials'",
        "UPDATE sqlite_master SET sql = replace(sql, 'params', CAST(x'ff' AS TEXT)) WHERE name = 'trials'",
        "UPDATE sqlite_master SET name = CAST(x'ff' AS TEXT) WHERE name = 'trials'",
    ],
)
def test_a_schema_with_bytes_that_are_no_text_is_refused_in_one_line(path: Path, change: str) -> None:
    with closing(Ledger(path)) as ledger:
        FilledLedger(ledger, make_spec()).add(2.0)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA writable_schema = ON")
        assert db.execute(change).rowcount == 1
    with pytest.raises(TroubleError, match=r"^ledger .*ledger\.db: ") as caught:
        read_all(path)
    assert "\n" not in str(caught.value)
    assert not any(finding.level is Level.OK for finding in examine(path.parent) if finding.subject == "ledger")


def test_a_ledger_of_schema_2_is_read_whole_and_goes_on(second: Path) -> None:
    from harness.analysis.report.facts import gather  # which the processes of other tests here need not load

    before = dump(second)
    with closing(Ledger(second)) as ledger:
        study = ledger.study("cnn-quick")
        assert study.spec.digest() == "0d98b7f62c84ca02b7e7cd1396405e00f2f8ddb51bac205dfae34483cc3017a0"
        records = ledger.history("cnn-quick")
        assert [record.trial.number for record in records] == list(range(31))
        assert Counter(record.result.outcome for record in records) == {"completed": 13, "pruned": 13, "infeasible": 5}
        assert [len(record.result.curve) for record in records[:3]] == [5, 5, 0]
        ledger.check_study("cnn-quick")
        assert status(ledger, "cnn-quick").done == 31
        ledger.start_session("cnn-quick")
        ledger.propose("cnn-quick", Trial("new", 31, records[2].trial.params, 0, 5), 1, 0.0)
        ledger.start_attempt("new", "worker-0")
        assert ledger.num_pending("cnn-quick") == 1
        facts = gather(ledger, "cnn-quick")
        assert len(facts.records) == 32
    assert (version(second), dump(second.with_name("ledger.db.v2"))) == (SCHEMA_VERSION, before)
    assert audit_rows(second, "cnn-quick") == []


@pytest.mark.parametrize("name", ["old", "second"])
def test_rows_of_an_older_ledger_get_their_checksums(name: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(name)
    Ledger(path).close()
    assert damaged_rows(path) == []
    with closing(sqlite3.connect(path)) as db:
        counts = db.execute(
            "SELECT num_epochs, (SELECT count(*) FROM epochs e WHERE e.uid = a.uid AND e.attempt = a.attempt)"
            " FROM attempts a"
        ).fetchall()
    assert counts
    assert all(stated == found for stated, found in counts)


def audit_rows(path: Path, study: str) -> list[str]:
    """What the ledger's own rows say against each other; the trial in hand has no outcome yet."""
    with closing(open_read_only(path)) as db:
        rows = read_study(db, study)
        return [line for line in map(str, [*rows.unreadable, *recount(rows)]) if "has no outcome" not in line]


OLD_STUDIES = {
    "cnn-quick": Kind.SEARCH,
    "cnn-quick.verdict": Kind.VERDICT,
    "cnn-quick.20261129-221500.verdict": Kind.VERDICT,
    "baseline-fc-quick": Kind.BASELINE,
    "baseline-of-mine": Kind.SEARCH,
    "about.VERDICT": Kind.SEARCH,
}


@pytest.fixture
def third(path: Path) -> Path:
    """A ledger of schema 3: a study of each kind, by name and space, and three whose settings were changed by hand."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for script in [MIGRATIONS[1], MIGRATIONS[2], MIGRATIONS[3]]:
            db.executescript(script)
        add_function(db)
        add_triggers(db)
        for number, (name, kind) in enumerate([*OLD_STUDIES.items(), *((name, Kind.SEARCH) for name in EDITS)]):
            written = make_spec(name, **({"space": {}} if kind is Kind.BASELINE else {})).model_dump(mode="json")
            del written["kind"]
            insert = "INSERT INTO studies (study, spec, provenance, created_at) VALUES (?, ?, '{}', ?)"
            db.execute(insert, (name, json.dumps(written), number))
        db.execute("PRAGMA user_version = 3")
    with closing(sqlite3.connect(path)) as db, db:
        for name, change in EDITS.items():
            db.execute(f"UPDATE studies SET spec = {change} WHERE study = ?", (name,))  # noqa: S608
    return path


EDITS = {
    "edited": "json_set(spec, '$.seed', 5)",
    "edited.verdict": "'[' || spec || ']'",
    "no-json": "'{'",
}


def test_what_kind_an_older_study_is_is_written_into_its_settings(third: Path) -> None:
    before = dump(third)
    with closing(Ledger(third)) as ledger:
        assert {study.spec.study: study.spec.kind for study in ledger.studies()} == OLD_STUDIES
        digests = {study.spec.digest() for study in ledger.studies() if study.spec.is_search or study.spec.is_verdict}
        assert digests == {make_spec().digest()}
        assert list(ledger.unreadable_studies()) == list(EDITS), "still, though their rows were written again"
    assert damaged_rows(third) == [("studies", name) for name in EDITS]
    assert (version(third), dump(third.with_name("ledger.db.v3"))) == (SCHEMA_VERSION, before)


def test_the_kind_of_a_new_study_is_not_told_from_its_name(path: Path) -> None:
    with closing(Ledger(path)) as ledger:
        for spec in (make_spec("a.verdict"), make_spec("b", kind=Kind.VERDICT)):
            ledger.create_study(spec, {})
        assert [study.spec.kind for study in ledger.studies()] == [Kind.SEARCH, Kind.VERDICT]
        assert [find_study(ledger, "a.verdict").spec.about, status(ledger, "a.verdict").kind] == [
            "a.verdict",
            Kind.SEARCH,
        ]


# The fields that cells held as JSON in version 4 of the ledger, in order. None is ever added.
JSON_FIELDS: dict[type, str] = {
    SweepSpec: "study kind baseline dataset engine sampler pruner patience objective seed max_repeats max_attempts"
    " trial_timeout_s recipe space constraints enqueue learn_from profile train_images epochs validation_images"
    " baseline_seeds full_epochs confirms reads_test precision budget",
    Constraints: "max_params max_mflops_per_image max_memory_mb",
    Budget: "trials wall_s device_s",
    Recipe: "learning_rate schedule warmup_share batch_size",
    TrialResult: "outcome error curve seconds num_params peak_memory_mb device wrong_images test_wrong_images"
    " images_per_s final_error_rate_pct final_val_images gpu_busy_time_s gpu_energy_j gpu_peak_memory_mb",
    Seconds: "build compile train evaluate cpu",
    Device: "name kind backend precision engine threads sharing gpu_fraction",
    EpochReport: "epoch train_loss val_loss val_error_rate_pct val_images seconds",
}


@pytest.mark.parametrize("record", JSON_RECORDS, ids=lambda record: record.__name__)
def test_a_field_that_is_added_to_the_json_of_the_ledger_states_its_version(record: type) -> None:
    """`Annotated[..., Since(5)]`, and a default that describes how it was before."""
    added = added_fields(record)
    if issubclass(record, BaseModel):
        needed = {name: field.is_required() for name, field in record.model_fields.items()}
    else:
        needed = {one.name: one.default is one.default_factory is dataclasses.MISSING for one in fields(record)}
    assert [name for name in needed if name not in added] == JSON_FIELDS[record].split()
    assert [name for name, version in added.items() if needed[name] or not 4 < version <= SCHEMA_VERSION] == []


def damaged_rows(path: Path) -> list[tuple[str, ...]]:
    with closing(open_read_only(path)) as db:
        return [(table, *key) for table in CELLS for key in broken_rows(db, table)]


# Rows that were changed by something else


def test_checksums_cover_every_cell_of_the_tables(path: Path) -> None:
    Ledger(path).close()
    with closing(sqlite3.connect(path)) as db:
        for table, cells in CELLS.items():
            columns = {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
            assert columns - set(cells) == {"checksum"} | ({"num_events"} if table == "studies" else set())


def filled(path: Path) -> Path:
    """With rows of every kind, written, changed and renamed by all methods that do."""
    with closing(Ledger(path)) as ledger:
        study = FilledLedger(ledger, make_spec("first"))
        session = ledger.start_session("first", {"git_commit": "abc"})
        study.add_baseline(3.0, wrong=[1, 2])
        for number in range(25):
            study.add(2.0 + number / 100, wrong=range(40), test_wrong=[1] if number % 2 else None)
        ledger.touch_session(session, 12.5)
        ledger.add_search_time("first-1", 0.5)
        ledger.start_attempt(study.ask().uid, "worker-0")
        ledger.close_lost_attempts("first")
        ledger.update_budget(make_spec("first", budget={"trials": 99}))
        ledger.rename_study("first", "study")
        FilledLedger(ledger, make_spec("other")).add(1.0)
    return path


def test_whatever_the_ledger_writes_is_intact(path: Path) -> None:
    assert damaged_rows(filled(path)) == []
    read_all(path)


def test_a_damaged_table_that_sqlite_quotes_over_several_lines_is_one_line(path: Path) -> None:
    content = filled(path).read_bytes()
    assert content.count(b"test_wrong_images TEXT") == 1
    path.write_bytes(content.replace(b"test_wrong_images TEXT", b"test_wrong_images`TEXT"))
    with pytest.raises(TroubleError, match=r"^ledger .*: malformed database schema \(attempts\) - .*a ledger\?$"):
        Ledger(path)


@pytest.mark.parametrize("step", [1499, pytest.param(101, marks=pytest.mark.slow)])
def test_eight_flipped_bytes_are_noticed_wherever_they_are_read(path: Path, step: int) -> None:
    """Anywhere in the file, also where digits become other digits; what nobody reads may be anything."""
    content = filled(path).read_bytes()
    with closing(Ledger(path)) as ledger:
        sound = everything(ledger)
    spots = range(100, len(content) - 8, step)
    noticed = 0
    for spot in spots:
        flipped = bytes(byte ^ 0x01 for byte in content[spot : spot + 8])
        path.write_bytes(content[:spot] + flipped + content[spot + 8 :])
        noticed += not reads_as(path, sound)
    assert noticed > len(spots) / 3


@pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("max_checked_bytes", [0, schema.MAX_CHECKED_BYTES])
def test_pages_in_each_others_place_are_noticed(
    path: Path, max_checked_bytes: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large ledger as of a small one, whose structure is looked at when it is opened."""
    monkeypatch.setattr(schema, "MAX_CHECKED_BYTES", max_checked_bytes)
    content = filled(path).read_bytes()
    with closing(Ledger(path)) as ledger:
        sound = everything(ledger)
    pages = [content[start : start + 4096] for start in range(0, len(content), 4096)]
    with closing(sqlite3.connect(path)) as db:
        of_runs = [page - 1 for (page,) in db.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name = 'tracked'")]
    swaps = list(combinations(range(1, len(pages)), 2))[::step]
    for first, second in [of_runs, *swaps]:
        swapped = list(pages)
        swapped[first], swapped[second] = pages[second], pages[first]
        path.write_bytes(b"".join(swapped))
        is_read = reads_as(path, sound)
        assert not (is_read and max_checked_bytes), f"pages {first} and {second}"


def reads_as(path: Path, sound: list[object]) -> bool:
    """Whether a ledger is read; then it says what it said when it was sound."""
    try:
        with closing(Ledger(path)) as ledger:
            assert everything(ledger) == sound
    except KeyError:  # a trial that is looked for by its uid
        return False
    except TroubleError as error:
        assert "\n" not in str(error)
        return False
    return True


def everything(ledger: Ledger) -> list[object]:
    studies = ("study", "other")
    return [
        [
            (ledger.study(name), ledger.history(name), list(ledger.finished(name)), ledger.usage(name))
            for name in studies
        ],
        [ledger.record(f"first-{number}") for number in range(0, 25, 6)],
        [ledger.last_session("study"), ledger.origins("study"), ledger.num_pending("study")],
    ]
