"""A PostgreSQL server of a test's own, from the programs that the system's packages install."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ports import free_port

START_TIMEOUT_S = 120
ROLE = "mlflow"
PASSWORD = "pa55OfTheDatabase"  # noqa: S105
SYSTEM_USERS = ("postgres", "nobody")  # PostgreSQL does not run as root

SET_UP = f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}';\nCREATE DATABASE {ROLE} OWNER {ROLE};\n"


def program(name: str) -> str | None:
    """Its path; where Debian keeps several versions beside each other, the newest one's."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    return shutil.which(name) or (str(versions[-1]) if versions else None)


@dataclass(frozen=True)
class Postgres:
    """A server on 127.0.0.1 with a database for MLflow, whose owner needs a password; made by `postgres`.

    Attributes:
        folder: Holds all that it writes, and its socket.
        user: The system's user that it runs as; the one who may do anything in it, too.
        port: On 127.0.0.1.
    """

    folder: Path
    user: str
    port: int

    @property
    def uri(self) -> str:
        """Without the password, which libpq takes from the file that PGPASSFILE names."""
        return f"postgresql+psycopg2://{ROLE}@127.0.0.1:{self.port}/{ROLE}"

    @property
    def log(self) -> Path:
        return self.folder / "postgres.log"

    def write_password(self, file: Path) -> None:
        """For libpq, which takes it only from a file that others cannot read."""
        file.touch(mode=0o600)
        file.write_text(f"127.0.0.1:{self.port}:{ROLE}:{ROLE}:{PASSWORD}\n")

    def make(self) -> None:
        self._run("initdb", "--auth-local=peer", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C", "data")
        self.start()
        self._run("psql", "-h", str(self.folder), *self._port, "-v", "ON_ERROR_STOP=1", "postgres", text=SET_UP)

    def start(self) -> None:
        """Returns when it answers."""
        how = f"-c listen_addresses=127.0.0.1 -k {self.folder} -p {self.port}"
        self._run("pg_ctl", "start", "-D", "data", "-l", self.log.name, "-t", str(START_TIMEOUT_S), "-w", "-o", how)

    def stop(self) -> None:
        """At once for those who are connected; returns when it has ended."""
        self._run("pg_ctl", "stop", "-D", "data", "-m", "fast", "-w")

    def kill(self) -> None:
        """If it runs."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)

    def ask(self, query: str) -> list[list[str]]:
        """Rows of MLflow's database."""
        said = self._run("psql", "-h", str(self.folder), *self._port, "-AtF\t", "-c", query, ROLE)
        return [line.split("\t") for line in said.splitlines()]

    def dump(self) -> str:
        """All that is in MLflow's database, as SQL."""
        return self._run("pg_dump", "-h", str(self.folder), *self._port, ROLE)

    @property
    def _port(self) -> tuple[str, str]:
        return "-p", str(self.port)

    def _run(self, name: str, *arguments: str, text: str = "") -> str:
        """What one of its programs says, run as its user; what it complains of goes to the log."""
        command = program(name)
        assert command, f"{name} is not installed"
        is_other = self.user != pwd.getpwuid(os.getuid()).pw_name
        with (self.folder / "programs.log").open("ab") as complaints, (self.folder / "said.txt").open("w+b") as said:
            # Files and no pipes: `pg_ctl start` leaves the server behind, which would hold a pipe open.
            subprocess.run(
                [command, *arguments],
                cwd=self.folder, input=text.encode(), stdout=said, stderr=complaints, check=True,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                user=self.user if is_other else None, group=pwd.getpwnam(self.user).pw_gid if is_other else None,
                extra_groups=[] if is_other else None,
            )  # fmt: skip
            said.seek(0)
            return said.read().decode()


def system_user() -> str | None:
    """Whom PostgreSQL may run as, started by us."""
    if os.getuid():
        return pwd.getpwuid(os.getuid()).pw_name
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in SYSTEM_USERS if name in known), None)


def what_is_missing() -> str | None:
    """Why it cannot be run here; None if it can."""
    absent = [name for name in ("initdb", "pg_ctl", "psql", "pg_dump") if program(name) is None]
    if absent:
        return f"no PostgreSQL here ({', '.join(absent)}); Debian's package is postgresql"
    return (
        None if system_user() else f"none of the users {', '.join(SYSTEM_USERS)}, and PostgreSQL does not run as root"
    )


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """A server that runs; `folder` is there, and everybody may go through the folders above it."""
    user = system_user()
    assert user
    shutil.chown(folder, user)
    server = Postgres(folder, user, free_port())
    try:
        server.make()
        yield server
    finally:
        server.kill()
