"""A team's MLflow: a server before PostgreSQL with a password, and a study that is logged through both."""

from __future__ import annotations

import importlib.util
import json
import signal
import tempfile
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from filled_ledger import FilledLedger, make_spec
from killed_sweeps import STUDY, Sweeps
from mlflow_server import Server
from postgres import PASSWORD, Postgres, postgres, what_is_missing
from storm import audited_in_peace

from harness.ledger.ledger import Ledger
from harness.study.records import Outcome

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(what_is_missing() is not None, reason=str(what_is_missing())),
]

ADMIN, ANNA = "pa55OfTheAdmin", "pa55OfAnna123"  # MLflow wants twelve characters
SESSION_KEY = "key5OfTheSessions"
SECRETS = (PASSWORD, ADMIN, ANNA, SESSION_KEY)
FORMS = {*SECRETS, *(b64encode(f"{who}:{word}".encode()).decode() for who, word in (("anna", ANNA), ("admin", ADMIN)))}
AUTH = """
[mlflow]
default_permission = READ
database_uri = {uri}
admin_username = admin
auth_cache_ttl_seconds = 60
"""
# Trials that take a while: when the server is away there come some, and not hundreds.
PROFILE = """
[profiles.team]
train_images = 1_000
validation_images = 100
baseline_seeds = 1
epochs = 40
trials = 100_000
"""
needs_login = pytest.mark.skipif(
    importlib.util.find_spec("flask_wtf") is None, reason="no Flask-WTF here, which MLflow's login needs (mlflow[auth])"
)


@pytest.fixture
def database() -> Iterator[Postgres]:
    """In a folder that another user can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        Path(folder).chmod(0o711)
        below = Path(folder, "postgres")
        below.mkdir(mode=0o755)
        with postgres(below) as server:
            yield server


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """For what only the server may read."""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def variables(database: Postgres, private: Path) -> dict[str, str]:
    """Of a server in front of the database."""
    database.write_password(private / "pgpass")
    return {"PGPASSFILE": str(private / "pgpass")}


def started(folder: Path, database: Postgres, variables: dict[str, str], *arguments: str) -> Server:
    folder.mkdir()
    server = Server(folder, database.uri, arguments, variables)
    server.start()
    server.wait_until_it_answers()
    return server


@pytest.fixture
def server(tmp_path: Path, database: Postgres, variables: dict[str, str]) -> Iterator[Server]:
    server = started(tmp_path / "server", database, variables)
    yield server
    server.kill()


@pytest.fixture
def server_with_login(tmp_path: Path, database: Postgres, private: Path, variables: dict[str, str]) -> Iterator[Server]:
    """Anna may log in."""
    settings = private / "basic_auth.ini"
    settings.write_text(AUTH.format(uri=database.uri))
    login = {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": SESSION_KEY,
    }
    server = started(tmp_path / "server", database, variables | login, "--app-name", "basic-auth")
    add_user(server, "anna", ANNA)
    yield server
    server.kill()


def add_user(server: Server, name: str, password: str) -> None:
    request = urllib.request.Request(  # noqa: S310 - http, of our own making
        f"{server.uri}/api/2.0/mlflow/users/create",
        json.dumps({"username": name, "password": password}).encode(),
        {
            "Content-Type": "application/json",
            "Authorization": f"Basic {b64encode(f'admin:{ADMIN}'.encode()).decode()}",
        },
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        assert answer.status == 200


def survives(database: Postgres, server: Server, sweeps: Sweeps) -> None:
    """A study that is logged while first MLflow's server and then the database go away, and come again."""
    sweeps.file.write_text(sweeps.file.read_text() + PROFILE)
    with sweeps.start() as sweep:
        sweep.wait_until(lambda: num_shown(sweeps) >= 3)
        server.stop()
        sweep.wait_until_it_says("the sweep continues, its runs follow")
        server.start()
        sweep.wait_until_it_says("MLflow answers again")
        database.stop()
        sweep.wait_until_it_says("the sweep continues, its runs follow", 2)
        database.start()
        sweep.wait_until_it_says("MLflow answers again", 2)
        num_then = num_shown(sweeps)
        sweep.wait_until(lambda: num_shown(sweeps) > num_then)
        sweep.send(signal.SIGINT)
        assert sweep.wait() == 130
        assert sweep.errors == ""
    num_searched = sweeps.ask("SELECT count(*) FROM attempts WHERE outcome != 'infeasible'")[0][0]
    assert list(audited_in_peace(sweeps, num_searched + 3, print)) == []


def num_shown(sweeps: Sweeps) -> int:
    """Trials that the ledger knows to be in MLflow."""
    rows = sweeps.ask("SELECT count(*) FROM tracked WHERE uid != ?", STUDY)
    return int(rows[0][0]) if rows else 0


def assert_all_is_there_once(database: Postgres, sweeps: Sweeps) -> None:
    """By the two databases alone: what MLflow and the audit say of themselves is not asked."""
    uids = {uid for (uid,) in sweeps.ask("SELECT uid FROM trials")}
    assert sorted(uid for (uid,) in database.ask("SELECT value FROM tags WHERE key = 'trial_uid'")) == sorted(uids)
    statuses = {status for (status,) in database.ask("SELECT status FROM runs")}
    assert "FINISHED" in statuses
    assert "RUNNING" not in statuses
    assert database.ask("SELECT count(*) FROM runs WHERE lifecycle_stage = 'active'") == [[str(len(uids) + 1)]]


def leaks(*folders: Path) -> list[str]:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(form.encode() in path.read_bytes() for form in FORMS)]


def assert_no_secret_is_written_down(database: Postgres, server: Server, tmp_path: Path) -> None:
    assert server.process
    processes = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    assert [form for form in FORMS if any(form in " ".join(process.cmdline()) for process in processes)] == []
    dump = database.dump()
    assert STUDY in dump
    assert [form for form in FORMS if form in dump] == []
    assert leaks(tmp_path / "private")
    assert leaks(tmp_path / "mine", tmp_path / "server", database.folder) == []


def test_a_study_outlives_its_server_and_the_database(
    database: Postgres, server: Server, digits_folder: Path, tmp_path: Path
) -> None:
    variables = {"MLFLOW_TRACKING_URI": server.uri}
    sweeps = Sweeps(tmp_path / "mine", digits_folder.parent, ("--profile", "team"), variables)
    survives(database, server, sweeps)
    assert_all_is_there_once(database, sweeps)
    assert_no_secret_is_written_down(database, server, tmp_path)


@needs_login
def test_a_study_outlives_a_server_with_a_login(
    database: Postgres, server_with_login: Server, digits_folder: Path, tmp_path: Path
) -> None:
    variables = {
        "MLFLOW_TRACKING_URI": server_with_login.uri,
        "MLFLOW_TRACKING_USERNAME": "anna",
        "MLFLOW_TRACKING_PASSWORD": ANNA,
    }
    sweeps = Sweeps(tmp_path / "mine", digits_folder.parent, ("--profile", "team"), variables)
    survives(database, server_with_login, sweeps)
    assert_all_is_there_once(database, sweeps)
    assert_no_secret_is_written_down(database, server_with_login, tmp_path)
    refused = Sweeps(tmp_path / "mine", digits_folder.parent, (), {"MLFLOW_TRACKING_URI": server_with_login.uri})
    assert refused.harness("sync").returncode == 1


def test_what_is_odd_in_an_error_comes_through(database: Postgres, server: Server, tmp_path: Path) -> None:
    sweeps = Sweeps(tmp_path / "mine", tmp_path, (), {"MLFLOW_TRACKING_URI": server.uri})
    with closing(Ledger(sweeps.home / "ledger.db")) as ledger:
        study = FilledLedger(ledger, make_spec(dataset="digits"))
        study.add_baseline(3.0)
        for error in ("before\0after", "x" * 100_000, "100 % of 'it' \\ \"_\" {} :name ; DROP TABLE runs"):
            study.add(outcome=Outcome.CRASHED, error=error)
    for arguments in (("sync",), ("leaderboard", "study"), ("doctor", "--audit", "study")):
        done = sweeps.harness(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
