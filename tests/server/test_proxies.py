"""The proxies of docs/security.md with the configurations that stand there, in front of the real program.

A proxy that is not installed is skipped by name. Each runs as a user of its own, as its package has it.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from running import Program, until

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
# What nginx and HAProxy pass on as they are: no header says that they did.
PLAIN = {
    "nginx": "location / {\n    proxy_pass http://127.0.0.1:8080;\n}\n",
    "haproxy": """\
defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 75s
frontend public
    bind :80
    default_backend jobqueue
backend jobqueue
    server one 127.0.0.1:8080
""",
}
SERVICE = 33  # the uid of www-data on Debian
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a proxy as another user")


def documented(kind: str) -> str:
    found = re.search(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


class Proxy:
    """One running proxy, as the user `SERVICE` if `as_service`."""

    def __init__(self, kind: str, text: str, server_port: int, folder: Path, as_service: bool) -> None:
        self.port = free_port()
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{server_port}")
        text = text.replace("bind :80", f"bind 127.0.0.1:{self.port}")
        text = re.sub(r"^:80 ", f"http://:{self.port} ", text, flags=re.MULTILINE)
        path = folder / "configuration"
        command = {
            "nginx": ["nginx", "-p", str(folder), "-c", str(path), "-e", str(folder / "error.log")],
            "haproxy": ["haproxy", "-db", "-f", str(path)],
            "caddy": ["caddy", "run", "--adapter", "caddyfile", "--config", str(path)],
        }[kind]
        if kind == "nginx":
            folders = "".join(
                f"{each}_temp_path {folder}/{each}; "
                for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            text = (
                f"daemon off; pid {folder}/pid; events {{}}\nhttp {{ access_log off; {folders}\n"
                f"server {{ listen 127.0.0.1:{self.port};\n{text} }} }}\n"
            )
        if kind == "caddy":
            text = "{\n    admin off\n    auto_https off\n    default_bind 127.0.0.1\n}\n" + text
        path.write_text(text, encoding="utf-8")
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            user=SERVICE if as_service else None, group=SERVICE if as_service else None,
            extra_groups=[] if as_service else None, cwd=folder,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder)},
        )  # fmt: skip
        try:
            until(lambda: self._process.poll() is not None or self._accepts(), 20)
            assert self._process.poll() is None, text
        except BaseException:
            self.close()
            raise

    def _accepts(self) -> bool:
        with socket.socket() as trying:
            return trying.connect_ex(("127.0.0.1", self.port)) == 0

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            sent = None if body is None else json.dumps(body)
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, sent, names)
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()


@contextmanager
def proxy(kind: str, text: str, program: Program, as_service: bool = False) -> Iterator[Proxy]:
    if shutil.which(kind, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
        pytest.skip(f"{kind} is not installed")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        running = Proxy(kind, text, program.port, folder, as_service)
        try:
            yield running
        finally:
            running.close()


@pytest.fixture
def program() -> Iterator[Program]:
    with Program(JOBQUEUE_FIRST_ID="1", JOBQUEUE_TRUSTED_PROXIES="127.0.0.1") as program:
        yield program


KINDS = pytest.mark.parametrize("kind", ["nginx", "haproxy", "caddy"])


@needs_root
@pytest.mark.parametrize("kind", PLAIN)
def test_through_a_proxy_that_adds_no_header_nobody_administers(program, kind):
    with proxy(kind, PLAIN[kind], program, as_service=True) as front:
        assert front.call("POST", "/jobs/enqueue", {"type": "x", "queue": "q"})[0].status == 201
        for path in ("/queues/q/purge?all=true", "/queues/q/pause"):
            answer, body = front.call("POST", path, Host="localhost")
            assert answer.status == 403, body
            assert b"user id 33" in body
        assert front.call("GET", "/queues/q/export", Host="127.0.0.1")[0].status == 403
    assert program.call("GET", "/queues/q")[1]["jobs"]["queued"] == 1
    assert program.call("POST", "/queues/q/purge?all=true")[1]["changed"] == 1


@KINDS
def test_the_configuration_of_the_docs_publishes_the_server_below_a_path(program, kind):
    with proxy(kind, documented(kind), program) as front:
        here = f"127.0.0.1:{front.port}/queue"
        answer, _ = front.call("POST", "/queue/jobs/enqueue", {"type": "x", "queue": "q"})
        assert (answer.status, answer.headers["Location"]) == (201, "/queue/jobs/1")
        assert front.call("GET", answer.headers["Location"])[0].status == 200
        assert f"curl {here}/queues".encode() in front.call("GET", "/queue/help")[1]
        assert f"http://{here}".encode() in front.call("GET", "/queue/worker.py")[1]
        answer, body = front.call("POST", "/queue/queues/q/purge?all=true", Host="localhost")
        assert answer.status == 403, body
        assert program.call("GET", "/queues/q")[1]["jobs"]["queued"] == 1


@KINDS
def test_a_stream_comes_through_as_it_is_sent(program, kind):
    with proxy(kind, documented(kind), program) as front:
        connection = HTTPConnection("127.0.0.1", front.port, timeout=20)
        connection.request("GET", "/queue/events")
        events = connection.getresponse()
        assert events.readline() == b"retry: 2000\n"
        front.call("POST", "/queue/jobs/enqueue", {"type": "x"})
        while not (line := events.readline()).startswith(b"data:"):
            assert line
        connection.close()


@KINDS
def test_a_client_that_leaves_its_wait_takes_no_job(program, kind):
    with proxy(kind, documented(kind), program) as front:
        waiting = socket.create_connection(("127.0.0.1", front.port))
        waiting.sendall(
            b"POST /queue/jobs/dequeue?wait=60 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"
        )
        until(lambda: program.call("GET", "/stats")[1]["consumers_waiting"] == 1)
        waiting.close()
        until(lambda: program.call("GET", "/stats")[1]["consumers_waiting"] == 0)
