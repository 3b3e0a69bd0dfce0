"""The doctor says what is there, what is wrong and what to do about it, and leaves everything as it was."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from audited_study import edit
from ports import free_port

from harness.cli import main
from harness.execution.machine import devices
from harness.execution.machine.gpus import Gpu
from harness.ledger.ledger import Ledger
from harness.ledger.locks import study_lock
from harness.ledger.schema import SCHEMA_VERSION
from harness.tracking import store
from harness.workflows import doctor
from harness.workflows.doctor import Level, examine

GONE = 2**22 - 1  # process ids end below it


@pytest.fixture(autouse=True)
def machine(digits_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with digits, without MNIST, without a GPU, with memory and room enough."""
    monkeypatch.setenv("HARNESS_DATA", str(digits_folder.parent))
    for name in ("MLFLOW_TRACKING_URI", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "this_machine", lambda: devices.Machine("a processor", 2, 16384.0, ()))
    monkeypatch.setattr(doctor.shutil, "which", lambda tool: None)
    set_memory(monkeypatch, 8192)
    set_space(monkeypatch, 50e9)


@pytest.fixture
def home(tmp_path: Path, sound_home: Path) -> Path:
    return Path(shutil.copytree(sound_home, tmp_path / "home", ignore=shutil.ignore_patterns("*-shm")))


def set_memory(monkeypatch: pytest.MonkeyPatch, free_mb: int) -> None:
    memory = namedtuple("Memory", ["available"])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(free_mb * 2**20))


def set_space(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    usage = namedtuple("Usage", ["free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free))


def found(home: Path, subject: str) -> list[tuple[Level, str]]:
    return [(finding.level, finding.text) for finding in examine(home) if finding.subject == subject]


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.name.endswith(("-shm", "-wal"))}


def test_all_is_well_where_a_study_has_run(home: Path) -> None:
    before = files(home)
    findings = list(examine(home))
    assert {finding.level for finding in findings} == {Level.OK}, [str(finding) for finding in findings]
    assert f"schema {SCHEMA_VERSION}, journal mode wal, intact, 2 studies" in found(home, "ledger")[0][1]
    assert found(home, "mlflow") == [(Level.OK, f"sqlite:///{home / 'mlflow.db'} has all finished trials")]
    assert files(home) == before


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_home_is_new_and_stays_empty(tmp_path: Path, exists: bool) -> None:
    home = tmp_path / "a" / "new one"
    if exists:
        home.mkdir(parents=True)
    findings = list(examine(home))
    assert {finding.level for finding in findings} == {Level.OK}
    assert found(home, "home") == [(Level.OK, f"new: {home}")]
    assert found(home, "mlflow") == [(Level.OK, f"new: sqlite:///{home / 'mlflow.db'}")]
    assert home.exists() is exists
    assert files(tmp_path) == ({home.parent, home} if exists else set())


def test_what_is_installed_is_said_without_loading_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    ((level, text),) = found(home, "libraries")
    assert level is Level.OK
    assert f"tensorflow {metadata.version('tensorflow')}, keras {metadata.version('keras')}" in text
    monkeypatch.setattr(
        metadata, "requires", lambda package: ["numpy>=2", "nowhere[all]>=3", "elsewhere; extra == 'x'"]
    )
    assert found(home, "libraries") == [(Level.PROBLEM, "nowhere not installed; `make clean setup` installs all again")]


def test_too_little_memory_is_a_warning(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(home, "machine") == [
        (Level.OK, "a processor, 2 cores, 8.0 of 16.0 GiB memory free; 2 trials at once, in float32")
    ]
    set_memory(monkeypatch, 2048)
    ((level, text),) = found(home, "machine")
    assert level is Level.WARNING
    assert text.endswith("2 trials at once may take 2.9 GiB: close other programs, or take fewer --workers")


def test_a_gpu_that_cannot_be_used_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(home, "gpu") == [(Level.OK, "none; sweeps take the CPU")]
    monkeypatch.setattr(doctor.shutil, "which", lambda tool: f"/usr/bin/{tool}")
    assert found(home, "gpu")[0][0] is Level.WARNING
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden on purpose
    assert found(home, "gpu")[0][0] is Level.OK
    gpus = tuple(Gpu("H100", f"GPU-{number}") for number in range(2))
    monkeypatch.setattr(devices, "this_machine", lambda: devices.Machine("a processor", 2, 16384.0, gpus))
    monkeypatch.setattr(doctor, "CUDA_LIBRARY", "nowhere")
    ((level, text),) = found(home, "gpu")
    assert (level, text.split(";")[0]) == (Level.PROBLEM, "H100, H100")
    monkeypatch.setattr(doctor, "CUDA_LIBRARY", "numpy")
    assert found(home, "gpu") == [(Level.OK, "H100, H100; --gpu tries what holds on them")]
    monkeypatch.setattr(doctor, "CUDA_LIBRARY", "nowhere")  # which is TensorFlow's
    monkeypatch.setattr(doctor.backends, "backend", lambda: "jax")
    assert found(home, "gpu")[0][0] is Level.OK


def test_a_home_that_is_no_folder_is_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for home in (file, file / "below"):
        ((level, text),) = found(home, "home")
        assert level is Level.PROBLEM
        assert text.startswith(f"{home}: {file} is no folder; set HARNESS_HOME to one")


def test_a_home_that_cannot_be_written_is_a_problem(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write anywhere
    ((level, text),) = found(home, "home")
    assert (level, text.split(";")[0]) == (Level.PROBLEM, f"{home}: {home} is not writable")


@pytest.mark.parametrize(("free", "level"), [(3e9, Level.OK), (1e9, Level.WARNING), (5e7, Level.PROBLEM)])
def test_a_full_disk_is_said(home: Path, monkeypatch: pytest.MonkeyPatch, free: float, level: Level) -> None:
    set_space(monkeypatch, free)
    ((found_level, text),) = found(home, "disk")
    assert found_level is level
    assert ("make room" in text) is (level is not Level.OK)


@pytest.mark.parametrize(
    ("statement", "level", "part"),
    [
        ("PRAGMA user_version = 99", Level.PROBLEM, "is of a newer version; install that"),
        ("PRAGMA user_version = 1", Level.WARNING, "schema 1, journal mode wal, intact, 2 studies; the next command"),
        ("PRAGMA journal_mode = delete", Level.WARNING, "is it a network drive?"),
        ("DELETE FROM studies", Level.PROBLEM, "belongs to a row of studies that is not there; put a copy back"),
        ("DROP TABLE studies", Level.PROBLEM, "put a copy back"),
    ],
)
def test_a_ledger_that_is_not_as_it_should_be(home: Path, statement: str, level: Level, part: str) -> None:
    edit(home / "ledger.db", statement)
    ((found_level, text),) = found(home, "ledger")
    assert found_level is level
    assert part in text


def test_a_ledger_that_is_none_is_a_problem(home: Path) -> None:
    (home / "ledger.db").write_text("these are no pages of a database" * 100)
    ((level, text),) = found(home, "ledger")
    assert level is Level.PROBLEM
    assert text.startswith(f"{home / 'ledger.db'}: file is not a database; is it a ledger, and readable?")


def test_trials_that_mlflow_lacks_are_counted(home: Path) -> None:
    client = store.open_client(home)
    experiment = client.get_experiment_by_name("study")
    for run in client.search_runs([experiment.experiment_id], "tags.role = 'trial'", max_results=2):
        client.delete_run(run.info.run_id)
    ((level, text),) = found(home, "mlflow")
    assert (level, text.split(" lacks ")[1]) == (Level.WARNING, "2 finished trials; `harness sync` brings them there")
    for file in home.glob("mlflow.db*"):
        file.unlink()
    ((level, text),) = found(home, "mlflow")
    assert (level, text.split(" lacks ")[1]) == (Level.WARNING, "9 finished trials; `harness sync` brings them there")
    assert not (home / "mlflow.db").exists()


def test_mlflow_that_does_not_answer_is_a_problem(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    ((level, text),) = found(home, "mlflow")
    assert level is Level.PROBLEM
    assert text.startswith(f"http://***@127.0.0.1:{port}: ")
    assert text.endswith("; sweeps continue without it, `harness sync` logs their runs later")
    assert "secret" not in text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://elsewhere")
    ((level, text),) = found(home, "mlflow")
    assert level is Level.PROBLEM
    assert text.startswith("MLFLOW_TRACKING_URI is 'ftp://elsewhere'; allowed: ")


def test_data_sets_are_checked_byte_by_byte(
    home: Path, digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "data"
    shutil.copytree(digits_folder, cache / "digits")
    monkeypatch.setenv("HARNESS_DATA", str(cache))
    assert found(home, "data") == [
        (Level.OK, f"mnist: not here yet; the first sweep on it fetches it to {cache / 'mnist'}"),
        (Level.OK, f"digits: intact, {cache / 'digits'}"),
    ]
    file = cache / "digits" / "train_images.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    _, (level, text) = found(home, "data")
    assert level is Level.PROBLEM
    assert text.startswith(f"{file}: holds other bytes than it should")
    assert text.endswith("; `harness data fetch --dataset digits` mends it")
    file.unlink()
    _, (level, text) = found(home, "data")
    assert (level, str(file) in text) == (Level.PROBLEM, True)
    monkeypatch.setenv("HARNESS_DATA", str(file.with_name("train_labels.npy")))
    assert {level for level, _ in found(home, "data")} == {Level.PROBLEM}


def test_who_holds_a_study_is_said(home: Path) -> None:
    assert found(home, "lock") == [(Level.OK, "no study is in use")]
    with study_lock(home, "study"):
        ((level, text),) = found(home, "lock")
        assert level is Level.OK
        assert text.startswith(f"study: process {os.getpid()} since 20")
    holder = home / "locks" / "study.json"
    holder.write_text(f'{{"pid": {GONE}, "since": "2026-01-01 00:00:00"}}')
    assert found(home, "lock") == [
        (Level.WARNING, f"study: process {GONE} since 2026-01-01 00:00:00, which is gone; its next start takes over")
    ]
    for nonsense in ("", "[]", '{"pid": "many", "since": 0}', '{"pid": 1}'):
        holder.write_text(nonsense)
        assert found(home, "lock") == []


def test_files_left_unfinished_are_listed(home: Path) -> None:
    name = f".other.csv.{GONE}.unfinished"
    (home / "leaderboards" / name).touch()
    assert found(home, "leftover") == [
        (Level.WARNING, f"leaderboards/{name}: left unfinished by a process that is gone; delete it")
    ]


def test_the_command_ends_with_1_only_where_something_is_a_problem(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(home))
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list(examine(home)))
    assert all(line.startswith("ok       ") for line in lines)
    set_space(monkeypatch, 1e9)
    assert main(["doctor"]) == 0
    assert "\nwarning  disk " in capsys.readouterr().out
    set_space(monkeypatch, 1e6)
    assert main(["doctor"]) == 1
    assert "\nproblem  disk " in capsys.readouterr().out


def test_a_ledger_that_is_written_meanwhile_is_read(home: Path) -> None:
    with closing(Ledger(home / "ledger.db")) as ledger, ledger._transaction():
        assert found(home, "ledger")[0][0] is Level.OK
