"""HAProxy with the configuration in `deploy/`, in front of three servers on one PostgreSQL database."""

import re
import shutil
import socket
import subprocess
from contextlib import suppress

import pytest
from postgres_server import needs_postgres
from running import ROOT, until

from jobqueue import Client
from jobqueue.errors import JobQueueError
from tests.cluster.crew import Crew

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
pytestmark = [
    needs_postgres,
    pytest.mark.skipif(shutil.which("haproxy", path=PATH) is None, reason="haproxy is not installed"),
]


@pytest.fixture
def crew(postgres, database):
    crew = Crew(postgres, database)
    yield crew
    crew.end()


@pytest.fixture
def proxied(crew, tmp_path):
    """The URL of HAProxy in front of three servers."""
    crew.start_all(3)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = (ROOT / "deploy" / "haproxy.cfg").read_text().replace("bind :8080", f"bind 127.0.0.1:{port}")
    ports = iter(server.port for server in crew.servers)
    text, count = re.subn(
        r"(?<= )[abc]:8080$", lambda _: f"127.0.0.1:{next(ports)}", text, flags=re.MULTILINE
    )
    assert count == 3
    (tmp_path / "haproxy.cfg").write_text(text)
    process = subprocess.Popen(
        ["haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")], env={"PATH": PATH}, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def accepts():
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return process.poll() is not None

    until(accepts, 20)
    assert process.poll() is None
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


def test_clients_of_haproxy_go_on_when_the_owner_and_then_a_server_on_standby_are_killed(crew, proxied):
    made = []

    def enqueue(key):
        with suppress(JobQueueError):  # HAProxy may have left all servers on a slow machine
            made.append(client.jobs.enqueue("x", idempotency_key=key).id)
            return True

    with Client(proxied) as client:
        until(lambda: enqueue("0"), 30)
        for key in ("1", "2"):
            crew.kill(crew.wait_for_owner() if key == "1" else crew.others()[0])
            until(lambda key=key: enqueue(key), 30)
        assert [client.jobs.dequeue(wait="5s").id for _ in made] == made
        assert client.jobs.dequeue(wait="50ms") is None
