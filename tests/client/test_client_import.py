"""`import jobqueue` is cheap, and a client loads nothing of the server."""

import json
import subprocess
import sys
from pathlib import Path

import jobqueue

PACKAGE = Path(jobqueue.__file__).parents[1]
SERVER = ("core", "engine", "model", "server", "settings", "storage", "web")


def run(code):
    """What `code` prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(PACKAGE), "PATH": ""},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def loaded(code):
    return set(run(f"{code}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"))


def test_the_package_alone_loads_nothing_but_its_version():
    found = {name for name in loaded("import jobqueue") if name.partition(".")[0] == "jobqueue"}
    assert found == {"jobqueue", "jobqueue.version"}


def test_a_blocking_client_loads_neither_the_server_nor_asyncio_nor_tls():
    found = loaded("from jobqueue import Client\nClient('http://localhost:1')")
    assert "jobqueue.client.socket_transport" in found
    assert not found & {f"jobqueue.{layer}" for layer in SERVER}
    assert not found & {"tornado", "asyncio", "ssl", "uvloop", "prometheus_client", "http.client", "logging"}


def test_an_asyncio_client_does_not_load_the_server():
    found = loaded("from jobqueue import AsyncClient\nAsyncClient('http://localhost:1')")
    assert "jobqueue.client.asyncio_transport" in found
    assert not found & {f"jobqueue.{layer}" for layer in SERVER}
    assert "tornado" not in found


TIMED = """
import time, msgspec, socket, urllib.parse, uuid
before = time.process_time(); import jobqueue.client, jobqueue.client.socket_transport
print(time.process_time() - before)
"""


def test_the_client_itself_is_imported_in_less_than_60_ms_of_cpu():
    """Its own modules, after msgspec and the standard library's; the least of some, on a busy machine."""
    assert min(run(TIMED) for _ in range(5)) < 0.06


def test_every_name_of_the_package_is_there():
    found = run(
        "import jobqueue, json\n"
        "print(json.dumps([name for name in jobqueue.__all__ if getattr(jobqueue, name) is None]))"
    )
    assert found == []


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(jobqueue, "shiny")
    assert set(jobqueue.__all__) <= set(dir(jobqueue))
