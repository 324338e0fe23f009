"""The workers that the server hands out have the address of the request in them, and no other text from clients."""

import re

import pytest
from serving import check_problem

from jobqueue import Settings
from jobqueue.version import VERSION
from jobqueue.web.writers.worker_files import _FOLDER

FILES = ["/worker.sh", "/worker.py"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("host", ["localhost:8080", "a.b-c:1", "[::1]:8080", "192.0.2.7", "QUEUE.example"])
async def test_the_address_and_the_version_are_written_in(server, file, host):
    answer = await server.get(file, {"Host": host})
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    text = answer.body.decode()
    addresses = set(re.findall(r"http://[^\s\"'}/)]+", text))
    assert addresses == {f"http://{host}"}
    assert f"jobqueue {VERSION}:" in text
    assert "0.0.0" not in text.replace(host, "")


async def address(server, file, **headers):
    given = {"Host": "q.example", **{name.replace("_", "-"): value for name, value in headers.items()}}
    text = (await server.get(file, given)).body.decode()
    return re.search(r"https?://[^\s\"'}/)]+", text)[0]


@pytest.mark.parametrize("settings", [Settings(first_id=1, trusted_proxies="127.0.0.1")])
@pytest.mark.parametrize("file", FILES)
async def test_behind_a_trusted_proxy_the_address_is_that_of_the_proxy(server, file):
    assert await address(server, file, X_Forwarded_Proto="https") == "https://q.example"
    for proto in ("http", "javascript", ""):
        assert await address(server, file, X_Forwarded_Proto=proto) == "http://q.example"
    both = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "jobs.example"}
    assert await address(server, file, **both) == "https://jobs.example"
    refused = await server.get(file, {"Host": "q.example", "X-Forwarded-Host": "$(id)"})
    assert refused.status == 400
    text = (await server.get("/help", {"Host": "q.example", "X-Forwarded-Proto": "https"})).body.decode()
    assert "curl https://q.example/queues " in text


@pytest.mark.parametrize("file", FILES)
async def test_forwarded_addresses_of_others_are_ignored(server, file):
    both = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "evil.example"}
    assert await address(server, file, **both) == "http://q.example"


@pytest.mark.parametrize("file", FILES)
async def test_an_invalid_host_is_refused_and_never_written(server, file):
    """A script that is piped to a shell must contain nothing that others chose."""
    for host in (
        "$(id)", "`id`", "a;id", "a b", "a'b", 'a"b', "a/b", "a@b", "a&b", "a|b", "a%24b", "a_b", "", "x" * 256,
        "é", "a,b", "a{b}", "a\\b", "a*b", "a~b", "a!b",
    ):  # fmt: skip
        client = await server.connect()
        client.send(f"GET {file} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        said = await client.rest()
        assert said.startswith(b"HTTP/1.1 400 "), (host, said)
        assert not host or host.encode() not in said


@pytest.mark.parametrize("file", FILES)
async def test_a_request_without_a_host_is_refused(server, file):
    client = await server.connect()
    client.send(f"GET {file} HTTP/1.0\r\n\r\n".encode())
    assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
    check_problem(await server.get(f"{file}?x=1"), 400, "unknown_field", field="x")


@pytest.mark.parametrize("name", ["worker.sh", "worker.py"])
def test_the_templates_are_in_the_package(name):
    """They are found in the source tree and in a wheel, which includes the whole folder."""
    assert (_FOLDER / name).read_text(encoding="utf-8").startswith("#!/")
    assert _FOLDER.parts[-3:] == ("jobqueue", "web", "static")
