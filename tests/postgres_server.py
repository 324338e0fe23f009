"""A PostgreSQL server of the tests' own, in a temporary folder. Debian's service plays no part."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

_ON_PATH = shutil.which("initdb")
_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
BINARIES = _FOLDERS[-1] if _FOLDERS else Path(_ON_PATH).resolve().parent if _ON_PATH else None
# PostgreSQL does not run as root.
_USER = "postgres" if os.geteuid() == 0 else None
_CONFIG = """
listen_addresses = '127.0.0.1'
unix_socket_directories = '{folder}'
fsync = {sync}
max_connections = 60
shared_buffers = 16MB
log_min_messages = fatal
"""
ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
# By TCP with a password, by the socket without.
_ACCESS = """
local all all trust
host all all 127.0.0.1/32 scram-sha-256
"""

installed = BINARIES is not None
needs_postgres = pytest.mark.skipif(not installed, reason="postgresql is not installed")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


class Postgres:
    """One cluster. `url(database)` is how its administrator gets there. `sync`: a commit is on the disk, in
    `parent`; without it only crashes of PostgreSQL are survived. `inside`: a command that starts another one in a network
    of its own, where it listens on all addresses, and asks for no password."""

    def __init__(self, sync: bool = False, parent: str | None = None, inside: tuple[str, ...] = ()) -> None:
        self._inside = inside
        self.folder = Path(tempfile.mkdtemp(prefix="jq-pg-", dir=parent))
        if _USER is not None:
            shutil.chown(self.folder, _USER)
        self.port = free_port()
        self.data = self.folder / "data"
        self.run("initdb", "-D", self.data, "-U", "admin", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(_CONFIG.format(folder=self.folder, sync="on" if sync else "off"))
            if inside:
                file.write("listen_addresses = '*'\n")
        (self.data / "pg_hba.conf").write_text(_ACCESS + ("host all all all trust\n" if inside else ""))
        try:
            self.start()
        except AssertionError:  # another program has taken the port meanwhile
            self.port = free_port()
            self.start()

    def run(self, program: str, *arguments: object, check: bool = True, typed: str = "", **env: str) -> str:
        """Runs a program of PostgreSQL, and returns what it prints. `typed`: what it reads."""
        assert BINARIES is not None
        done = subprocess.run(
            [BINARIES / program, *map(str, arguments)], user=_USER, cwd="/", check=False, env=ENVIRONMENT | env,
            input=typed, start_new_session=bool(typed), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0 or not check, done.stdout
        return done.stdout

    def start(self) -> None:
        arguments = ("-D", self.data, "-l", self.folder / "log", "-o", f"-p {self.port}", "-w", "start")
        if not self._inside:
            self.run("pg_ctl", *arguments)
            return
        assert BINARIES is not None
        assert _USER is not None
        command = [
            *self._inside,
            "setpriv",
            f"--reuid={_USER}",
            f"--regid={_USER}",
            "--init-groups",
            BINARIES / "pg_ctl",
        ]
        subprocess.run(
            [*command, *map(str, arguments)], cwd="/", check=True, env=ENVIRONMENT, timeout=60, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def stop(self, how: str = "fast") -> None:
        """`how`: "fast", or "immediate" for a crash."""
        self.run("pg_ctl", "-D", self.data, "-m", how, "-w", "stop")

    def freeze(self) -> None:
        """Stops all its processes where they are, as a machine that hangs."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in [postmaster, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def url(self, database: str, user: str = "admin") -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}&port={self.port}"

    def sql(self, text: str, database: str = "postgres", user: str = "admin") -> str:
        """Runs statements with psql, and returns what it prints."""
        return self.run(
            "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-p", self.port,
            "-U", user, "-d", database, "-c", text,
        ).strip()  # fmt: skip

    def create_database(self) -> str:
        """Returns the name of a new database."""
        name = f"q{uuid.uuid4().hex[:12]}"
        self.sql(f"CREATE DATABASE {name}")
        return name

    def sever(self, database: str) -> None:
        """Ends all connections of servers to a database, which takes no new ones until `restore`."""
        self.sql(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        self.sql(
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}'"
            " AND application_name LIKE 'jobqueue %'"
        )

    def restore(self, database: str) -> None:
        self.sql(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")

    def remove(self) -> None:
        with contextlib.suppress(OSError, IndexError):
            self.thaw()
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop", check=False)
        shutil.rmtree(self.folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    cluster = Postgres()
    yield cluster
    cluster.remove()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The name of an empty database."""
    name = postgres.create_database()
    yield name
    postgres.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
