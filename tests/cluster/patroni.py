"""Two PostgreSQL servers under Patroni, with a synchronous standby, on one etcd; all of it on loopback addresses."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

from postgres_server import BINARIES, ENVIRONMENT, free_port, installed
from running import until

_TTL, _LOOP = 20, 5


def missing() -> str | None:
    """Returns why it cannot run here; None if it can."""
    if os.geteuid() != 0:
        return "only root can start it as the user postgres"
    for program in ("patroni", "etcd", "setpriv"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return None if installed else "postgresql is not installed"


class Node:
    """One PostgreSQL server and its Patroni."""

    def __init__(self, name: str, folder: Path, etcd: int) -> None:
        self.name, self.folder = name, folder / name
        self.port, self.rest = free_port(), free_port()
        self.folder.mkdir()
        shutil.chown(self.folder, "postgres")
        self.config = self.folder / "patroni.json"
        login = {"authentication": {
            "superuser": {"username": "admin", "password": "admin"},
            "replication": {"username": "replicator", "password": "replicator"},
        }}  # fmt: skip
        self.config.write_text(
            json.dumps({
                "scope": "jobqueue", "name": name,
                "restapi": {"listen": f"127.0.0.1:{self.rest}", "connect_address": f"127.0.0.1:{self.rest}"},
                "etcd3": {"host": f"127.0.0.1:{etcd}"},
                "bootstrap": {
                    "dcs": {
                        "ttl": _TTL, "loop_wait": _LOOP, "retry_timeout": 5, "synchronous_mode": True,
                        "postgresql": {"use_pg_rewind": False, "parameters": {"max_connections": 60}},
                    },
                    "initdb": [{"encoding": "UTF8"}, {"locale": "C"}],
                },
                "postgresql": {
                    "listen": f"127.0.0.1:{self.port}", "connect_address": f"127.0.0.1:{self.port}",
                    "data_dir": str(self.folder / "data"), "bin_dir": str(BINARIES), "pgpass": str(self.folder / "pgpass"),
                    "parameters": {"unix_socket_directories": str(self.folder), "shared_buffers": "16MB"},
                    "pg_hba": ["local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"],
                } | login,
            })
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                ["patroni", str(self.config)], user="postgres", group="postgres", extra_groups=[], cwd="/",
                env=ENVIRONMENT | {"PATH": "/usr/bin:/bin", "HOME": str(self.folder)}, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """Kills everything of this node at once, as the loss of its machine."""
        assert self._process is not None
        with suppress(OSError, IndexError):
            postmaster = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
            os.kill(postmaster, signal.SIGSTOP)  # so that it starts nothing
            children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
            for pid in [*map(int, children), postmaster]:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def status(self) -> dict[str, Any]:
        with (
            suppress(OSError, ValueError),
            urlopen(f"http://127.0.0.1:{self.rest}/patroni", timeout=2) as answer,
        ):
            found: dict[str, Any] = json.load(answer)
            return found
        return {}


class Patroni:
    """The cluster, for the length of a `with`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="jq-pg-"))
        self.folder.chmod(0o755)
        client, peer = free_port(), free_port()
        self._etcd = subprocess.Popen(
            [
                "etcd", "--data-dir", str(self.folder / "etcd"), "--listen-client-urls", f"http://127.0.0.1:{client}",
                "--advertise-client-urls", f"http://127.0.0.1:{client}", "--listen-peer-urls", f"http://127.0.0.1:{peer}",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        self.nodes = [Node(name, self.folder, client) for name in ("one", "two")]

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
                until(lambda: self.primary is not None, 90)
            self.wait_until_synchronous()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            with suppress(AssertionError):
                node.kill()
        self._etcd.kill()
        self._etcd.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def primary(self) -> Node | None:
        """The node that takes writes; None while there is none."""
        for node in self.nodes:
            if node.status().get("role") in ("master", "primary"):
                with suppress(AssertionError):
                    if self._psql(node, "SELECT pg_is_in_recovery()", "postgres") == "f":
                        return node
        return None

    def wait_until_synchronous(self) -> None:
        until(lambda: any(node.status().get("sync_standby") for node in self.nodes), 90)

    def switch_over(self) -> None:
        """Makes the other node the primary."""
        primary = self.primary
        assert primary is not None
        other = next(node for node in self.nodes if node is not primary)
        subprocess.run(
            [
                "patronictl", "-c", str(primary.config), "switchover", "jobqueue", "--master", primary.name,
                "--candidate", other.name, "--force",
            ],
            check=True, capture_output=True, timeout=60, env=ENVIRONMENT | {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}, cwd="/",
        )  # fmt: skip

    def wait_until_writable(self, seconds: float = 90) -> float:
        """Returns when the database takes a commit again, as `time.monotonic()`."""
        until(self._is_writable, seconds)
        return time.monotonic()

    def _is_writable(self) -> bool:
        primary = self.primary
        if primary is None:
            return False
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self._psql(
                primary,
                "CREATE TABLE IF NOT EXISTS probe (at timestamptz); INSERT INTO probe VALUES (now())",
                "postgres",
            )
            return True
        return False

    def url(self, database: str) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"postgresql://admin@{hosts}/{database}?target_session_attrs=read-write"

    def sql(self, text: str, database: str) -> str:
        primary = self.primary
        return "" if primary is None else self._psql(primary, text, database)

    def create_database(self) -> str:
        self.sql("CREATE DATABASE queue", "postgres")
        return "queue"

    def _psql(self, node: Node, text: str, database: str) -> str:
        assert BINARIES is not None
        done = subprocess.run(
            [
                BINARIES / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(node.port),
                "-U", "admin", "-d", database, "-c", text,
            ],
            cwd="/", env=ENVIRONMENT | {"PGCONNECT_TIMEOUT": "2"}, capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()
