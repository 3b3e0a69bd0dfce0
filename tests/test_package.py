"""The package without its checkout: what `pip install` of a wheel gives."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import harness
from harness import commands
from harness.cli import main
from harness.support.home import project_root, sweeps_folder
from harness.support.own_code import typed

SWEEPS = sorted(path.stem for path in sweeps_folder().glob("*.toml"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the contents of the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    copied = folder / "source"  # setuptools leaves files beside the sources
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=project_root(), capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        source = project_root() / name
        if source.is_file() and not source.is_symlink():
            (copied / name).parent.mkdir(parents=True, exist_ok=True)
            (copied / name).write_bytes(source.read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(copied)], check=True)
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.startswith(f"harness-{harness.__version__}-")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_a_wheel_has_the_sweeps_and_runs_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        code = "import sys; from harness.cli import main; sys.exit(main())"
        environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("--version") == f"harness {harness.__version__}\n"
    listed = run("sweep", "--list")
    assert [line.split()[0] for line in listed.splitlines() if line[0] not in " -"] == SWEEPS
    assert "none yet" in run("status")
    assert list(tmp_path.iterdir()) == [], "reading writes nothing"


def test_the_list_has_a_short_line_for_each_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    starts = [place for place, line in enumerate(listed) if line[0] not in " -"]
    assert [listed[place] for place in starts] == SWEEPS
    purposes = [listed[place + 1] for place in starts]
    assert all(len(line) <= 90 and line.endswith(".") for line in purposes)
    assert "    profiles: quick (24 trials, 18m), medium (40 trials, 1h), full (100 trials)" in listed
    assert "--engine optuna --sampler tpe        default; any search space; also learns from pruned trials" in listed


def test_the_list_is_indented_where_a_terminal_is_narrow(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["sweep", "--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert max(map(len, listed)) <= 60
    assert {line for line in listed if not line.startswith(("    ", "--engine ", "--pruner "))} == set(SWEEPS)


def test_a_sweep_without_a_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep"]) == 2
    assert "NAME|FILE.toml --list is required" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("started_as", "on_path", "expected"),
    [
        (".venv/bin/harness", False, ".venv/bin/harness"),
        (".venv/bin/harness", True, "harness"),
        ("pytest", False, None),
    ],
)
def test_advice_names_the_command_as_it_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started_as: str, on_path: bool, expected: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    command = tmp_path / started_as
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(command)])
    monkeypatch.setenv("PATH", str(command.parent) if on_path else str(tmp_path / "empty"))
    assert typed() == (expected or "harness")


def test_a_sweep_file_that_is_no_text_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "sweeps_folder", lambda: tmp_path)
    mine = (sweeps_folder() / "smoke.toml").read_text()
    (tmp_path / "a.toml").write_text("\ufeff# Mine.\n" + mine, encoding="utf-8")
    assert main(["sweep", "--list"]) == 0
    assert capsys.readouterr().out.startswith("a\n    Mine.\n")
    (tmp_path / "b.toml").write_bytes(b"# Gr\xf6sse\n" + mine.encode())
    assert main(["sweep", "--list"]) == 2
    assert f"{tmp_path / 'b.toml'}: " in capsys.readouterr().err


def test_a_reader_that_stops_reading_is_no_error() -> None:
    command = [sys.executable, "-c", "from harness.cli import main; main(['sweep', '--list'])"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=project_root()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_version_that_cannot_be_written_is_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main(['--version']))"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=project_root(), check=False, text=True)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
