"""Nobody is let in: no foreign code is run, no path leads out of its folder, no password is written down."""

from __future__ import annotations

import ast
import base64
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

import pytest
from filled_ledger import FilledLedger, make_spec
from ports import free_port

from harness.cli import main
from harness.ledger.ledger import Ledger
from harness.support.redaction import redact
from harness.tracking import ui

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [file for package in ("harness", "baselines") for file in sorted((ROOT / package).rglob("*.py"))]

# What runs code out of data, or hands data to a shell.
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "multiprocessing"}
# Its loader refuses every name, so nothing can be called: tests/test_bench_tables.py.
# A file that the user names is run as a network (`harness/study/network.py`); tests/test_own_network.py has its limits.
ALLOWED = {"harness/bench/hpo_tables.py": ["pickle"], "harness/study/network.py": ["exec", "compile"]}
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_CALLS = {
    "os.system",
    "os.popen",
    "pickle.load",
    "pickle.loads",
    "tempfile.mktemp",
    "torch.load",
    "yaml.load",
    "yaml.unsafe_load",
}
FORBIDDEN_METHODS = {"read_pickle", "to_pickle", "extractall", "enable_unsafe_deserialization"}


def unsafe(source: str) -> Iterator[str]:
    """What in a module's source may run foreign code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (name for name in names if name.split(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.Call):
            yield from unsafe_call(ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords})


def unsafe_call(function: str, keywords: dict[str | None, str]) -> Iterator[str]:
    method = function.rpartition(".")[2]
    if function in FORBIDDEN_NAMES | FORBIDDEN_CALLS or method in FORBIDDEN_METHODS:
        yield function
    if keywords.get("shell", "False") != "False":
        yield f"{function}(shell=)"
    if function in ("np.load", "numpy.load", "np.save", "numpy.save") and keywords.get("allow_pickle") != "False":
        yield f"{function} without allow_pickle=False"
    if method == "load_model" and keywords.get("safe_mode") != "True":
        yield f"{function} without safe_mode=True"


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "import multiprocessing.pool",
        "eval(text)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.save(path, array)",
        "pd.read_pickle(path)",
        "archive.extractall(folder)",
        "keras.models.load_model(path)",
        "keras.models.load_model(path, safe_mode=False)",
        "keras.config.enable_unsafe_deserialization()",
    ],
)
def test_what_runs_foreign_code_is_found(line: str) -> None:
    assert len(list(unsafe(line))) == 1


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_source_runs_foreign_code(file: Path) -> None:
    assert list(unsafe(file.read_text(encoding="utf-8"))) == ALLOWED.get(str(file.relative_to(ROOT)), [])


# Names and paths

BAD_NAMES = [
    ".",
    "..",
    "../x",
    "/etc/x",
    "a/b",
    "a\\b",
    "a b",
    "a\nb",
    "ä",
    "a" * 65,
    "",
    "x\0",
    "\udcff",
    "a;b",
    "$(a)",
]


TAKE_A_NAME = [
    ["sweep", "smoke", "--as"],
    ["sweep", "smoke", "--learn-from"],
    ["status"],
    ["leaderboard"],
    ["export", "--csv", "x.csv"],
    ["export", "--study", "x.study.gz"],
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
@pytest.mark.parametrize("command", TAKE_A_NAME, ids=" ".join)
def test_a_name_that_is_none_is_refused_in_one_line(
    command: list[str],
    name: str,
    tmp_path: Path,
    digits_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HARNESS_DATA", str(digits_folder.parent))
    monkeypatch.chdir(tmp_path)
    if command == ["status"] and not name:
        return  # all studies
    assert main([*command, name]) == 2
    out, err = capfd.readouterr()
    assert err.count("\n") == 1
    assert "allowed: " in err
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] in ([], ["home"])


@pytest.mark.parametrize("dataset", ["../mnist", "/etc", "..", "mnist/../mnist"])
def test_a_data_set_is_no_path(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    assert main(["data", "fetch", "--dataset", dataset]) == 2
    assert "allowed: mnist, digits" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


# How MLflow is started

WANTED = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """The opposite of all that can be set, as a user's environment may have it."""
    for name in WANTED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    monkeypatch.setenv("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


class StartedError(Exception):
    """Instead of starting a process."""


@pytest.mark.usefixtures("careless")
def test_every_process_with_mlflow_in_it_is_started_safely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []

    def start(command: list[str], **how: object) -> None:
        started.append((command, dict(how.get("env") or os.environ)))
        raise StartedError

    monkeypatch.setattr(subprocess, "run", start)
    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(StartedError):
        ui.serve(tmp_path, free_port())  # makes the store first
    (tmp_path / "mlflow.db").touch()
    with pytest.raises(StartedError):
        ui.serve(tmp_path, free_port())
    assert ["mlflow" in " ".join(command) for command, _ in started] == [True, True]
    assert ["server" in command for command, _ in started] == [False, True]
    for _, environment in started:
        assert {name: environment.get(name) for name in WANTED} == WANTED
    assert started[1][0][started[1][0].index("--host") + 1] == "127.0.0.1"
    assert not any("sqlite" in word for word in started[1][0])  # an address may hold a password, and ps shows words


@pytest.mark.slow
@pytest.mark.usefixtures("careless")
def test_mlflow_reports_nothing_to_anybody(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from harness.tracking.store import open_client\n"
        "open_client(Path(sys.argv[1])).search_experiments()\n"
        "from mlflow.telemetry import get_telemetry_client\n"
        "assert get_telemetry_client() is None\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


# Passwords

PASSWORD = "Kaff%2Fee7Pot"  # noqa: S105 - as it stands in an address
SECRETS = {PASSWORD, unquote(PASSWORD), "t0kenOfAnna", "pa55OfAnna"}
FORMS = {form for secret in SECRETS for form in (secret, base64.b64encode(f"anna:{secret}".encode()).decode())}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a study, and an environment with passwords."""
    home = tmp_path / "home"
    with closing(Ledger(home / "ledger.db")) as ledger:
        study = FilledLedger(ledger, make_spec(dataset="digits"))
        study.add_baseline(3.0)
        study.add(2.5)
    monkeypatch.setenv("HARNESS_HOME", str(home))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pa55OfAnna")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0kenOfAnna")
    monkeypatch.delenv("DISPLAY", raising=False)
    return home


def leaks(folder: Path, *texts: str) -> list[str]:
    """Where a secret stands: in a file below `folder`, or in a text."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = [str(path) for path in files if any(form.encode() in path.read_bytes() for form in FORMS)]
    return found + [text for text in texts if any(form in text for form in FORMS)]


def test_a_leak_is_found(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "log").write_text(f"got https://anna:{unquote(PASSWORD)}@host")
    assert len(leaks(tmp_path, "t0kenOfAnna", "nothing")) == 2


ADDRESSES = [
    f"http://anna:{PASSWORD}@127.0.0.1:{{port}}",
    f"postgresql://anna:{PASSWORD}@127.0.0.1:{{port}}/runs",
    f"postgresql://127.0.0.1:{{port}}/runs?user=anna&password={PASSWORD}",
    f"mysql+pymysql://anna:{PASSWORD}@127.0.0.1:{{port}}/runs",
    f"anna:{PASSWORD}@127.0.0.1:{{port}}",
    f"ftp://anna:{PASSWORD}@127.0.0.1:{{port}}/x y",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("command", [["sync"], ["ui"], ["status"], ["leaderboard"], ["doctor"]], ids=" ".join)
def test_no_password_of_the_tracking_server_is_written_down(
    home: Path, address: str, command: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.format(port=free_port()))
    arguments = ["--port", str(free_port())] if command == ["ui"] else []
    status = main([*command, *arguments])
    out, err = capfd.readouterr()
    assert leaks(home, out, err) == []
    if command in (["sync"], ["ui"]):
        assert status in (1, 2)
        assert err.count("\n") == 1


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_password_of_an_optuna_storage_is_written_down(
    home: Path, address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "study", "--optuna", address.format(port=free_port())]) in (1, 2)
    out, err = capfd.readouterr()
    assert leaks(home, out, err) == []
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_sweep_that_cannot_reach_its_server_writes_no_password_down(home: Path, digits_folder: Path) -> None:
    changed = {
        "HARNESS_DATA": str(digits_folder.parent),
        "MLFLOW_TRACKING_URI": f"http://anna:{PASSWORD}@127.0.0.1:{free_port()}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "sweep", "smoke", "--trials", "1", "--workers", "1"],
        env=os.environ | changed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "MLflow (http://***@127.0.0.1" in done.stdout
    assert len(list((home / "logs").rglob("*.log"))) == 1
    assert leaks(home, done.stdout, done.stderr) == []


@pytest.mark.slow
def test_a_server_that_answers_gets_the_runs_and_nobody_the_password(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    port, behind = free_port(), tmp_path / "behind"
    with ui._server(behind, f"sqlite:///{behind / 'mlflow.db'}", port, behind / "server.log") as server:
        ui._wait_until_it_answers(server, port, behind / "server.log")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna:{PASSWORD}@127.0.0.1:{port}")
        assert main(["sync"]) == 0
        assert main(["ui"]) == 0
    out, err = capfd.readouterr()
    assert f"http://127.0.0.1:{port}/#/experiments/" in out
    assert leaks(tmp_path, out, err) == []


def test_what_is_set_in_the_environment_is_kept_out_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws5ecret")
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi123")
    monkeypatch.setenv("PGPASSWORD", "pg5ecret")
    assert redact("no access with aws5ecret, pg5ecret or dapi123") == "no access with ***, *** or ***"
    assert redact("host=x password=abc port=1") == "host=x password=*** port=1"


# What is installed


def test_every_installation_from_a_lock_checks_its_hashes() -> None:
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    installs = [line for line in lines if re.match(r"\t\$\((UV_INSTALL\)|BIN\)/python -m pip install)", line)]
    from_locks = [line for line in installs if "--requirement" in line]
    assert len(from_locks) == 2
    assert all("--require-hashes" in line for line in from_locks)
    (itself,) = (line for line in installs if line not in from_locks)
    assert "--no-deps --no-build-isolation --editable ." in itself


PIP_AUDIT = {
    "clean": ("echo 'No known vulnerabilities found' >&2", 0),
    "holes": ("echo 'pkg 1.0 ID-1'; echo 'Found 1 known vulnerability in 1 package' >&2; exit 1", 2),
    "unreachable": ("printf 'Traceback:\\n  x\\nrequests.exceptions.ProxyError: no way\\n' >&2; exit 1", 2),
}


@pytest.mark.parametrize("case", PIP_AUDIT)
def test_audit_tells_a_hole_from_a_service_out_of_reach(case: str, tmp_path: Path) -> None:
    script, status = PIP_AUDIT[case]
    for name, text in (("ruff", "true"), ("pip-audit", script)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    make = shutil.which("make")
    assert make
    command = [make, "--no-print-directory", "--old-file=.venv/ready", "audit", f"BIN={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.returncode == status
    said = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    if case == "unreachable":
        assert said == [
            "make audit: could not look for known holes; is the package index in reach?"
            " (requests.exceptions.ProxyError: no way)"
        ]
    elif case == "holes":
        assert "pkg 1.0 ID-1" in done.stdout
        assert said == ["Found 1 known vulnerability in 1 package"]
    else:
        assert said == []
