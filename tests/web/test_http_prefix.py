"""A proxy that publishes the server below a path: every URL in an answer has that path."""

import re
from urllib.parse import urldefrag, urljoin

import pytest

from jobqueue import Settings
from jobqueue.web.access.browser_policy import BrowserPolicy
from jobqueue.web.http import Request

ASKED = {"X-Forwarded-Host": "q.example", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/a/queue"}
HERE = "https://q.example/a/queue"
TRUSTING = Settings(first_id=1, trusted_proxies="127.0.0.1", allowed_hosts="q.example")
proxied = pytest.mark.parametrize("settings", [TRUSTING])


@proxied
async def test_the_location_of_a_new_job_has_the_prefix(server):
    for path in ("/jobs/enqueue", "/queues/q/enqueue"):
        made = await server.post(path, {"type": "x"}, ASKED)
        assert made.headers["location"] == f"/a/queue/jobs/{made.json['id']}"
    again = await server.post("/jobs/enqueue", {"type": "x"}, ASKED | {"Idempotency-Key": "k"})
    assert again.headers["location"].startswith("/a/queue/jobs/")
    # An answer that comes later
    client = await server.connect()
    client.ask("POST", "/jobs/enqueue", {"type": "x", "queue": "w"}, ASKED | {"Prefer": "wait=1"})
    await server.dequeue(queue="w", wait=5)
    await server.post("/jobs/4/conclude", None)
    assert (await client.read()).headers.get("location", "/a/queue/jobs/4") == "/a/queue/jobs/4"


@proxied
async def test_links_to_what_takes_a_lease_have_the_prefix(server):
    await server.enqueue()
    taken = await server.post("/jobs/dequeue?raw=1", None, ASKED)
    links = re.findall(r"<([^>]*)>", taken.headers["link"])
    assert len(links) > 2
    assert all(link.startswith("/a/queue/jobs/1/") for link in links)


@proxied
async def test_workers_and_help_are_for_the_address_with_the_prefix(server):
    for path in ("/worker.sh", "/worker.py", "/help", "/"):
        text = (await server.get(path, ASKED)).body.decode()
        assert HERE in text
        assert "localhost:8080" not in text
    assert f"curl -X POST {HERE}/jobs/dequeue" in text


@proxied
async def test_the_server_in_the_openapi_document_has_the_prefix(server):
    assert (await server.get("/openapi.json", ASKED)).json["servers"] == [{"url": "/a/queue/"}]
    assert (await server.get("/openapi.json")).json["servers"] == [{"url": "/"}]


async def test_links_on_pages_are_relative_so_they_need_no_report_of_a_proxy(server):
    for _ in range(60):
        await server.enqueue(queue="q")
    seen = {"/"}
    left = ["/"]
    while left:
        path = left.pop()
        answer = await server.get(path, {"Accept": "text/html"})
        assert answer.status == 200, path
        for link in re.findall(r'href="([^"]*)"', answer.body.decode()):
            assert not link.startswith("/"), link
            there = urljoin(f"https://q.example/a{path}", link.replace("&amp;", "&"))
            assert there.startswith("https://q.example/a/"), (path, link)
            there = urldefrag(there.removeprefix("https://q.example/a")).url
            if there not in seen and len(seen) < 40:
                seen.add(there)
                left.append(there)
    assert {"/", "/stats", "/help", "/queues/q"} <= seen


async def test_nobody_but_a_trusted_proxy_sets_the_prefix(server):
    made = await server.post("/jobs/enqueue", {"type": "x"}, ASKED)
    assert made.headers["location"] == "/jobs/1"
    assert b"/a/queue" not in (await server.get("/worker.sh", ASKED)).body


@pytest.mark.parametrize(
    ("said", "prefix"),
    [
        (b"/queue", "/queue"), (b"/queue/", "/queue"), (b"/a/b-c_d.e~", "/a/b-c_d.e~"), (b"/", ""), (b"", ""),
        (b"queue", ""), (b"//evil.example", ""), (b"/a b", ""), (b"/$(id)", ""), (b"/a;b", ""), (b"/a\r\nX: y", ""),
        (b"/a, /b", ""), (b"/" + b"x" * 65, ""), (b"/a" * 9, ""),
    ],
)  # fmt: skip
def test_what_counts_as_a_prefix(said, prefix):
    request = Request("GET", "/", "", {b"x-forwarded-prefix": said}, b"", "1.2.3.4", "r", through="127.0.0.1")
    assert BrowserPolicy(TRUSTING).prefix(request) == prefix
