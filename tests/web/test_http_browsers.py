"""Requests that web pages make browsers send, and calls that only this machine may make."""

import asyncio
import socket

import pytest
from serving import check_problem, patch_engine

from jobqueue import Settings
from jobqueue.errors import CrossOrigin, Refused, Stopping
from jobqueue.web.access.browser_policy import (
    BrowserPolicy,
    Proxies,
    is_program,
)
from jobqueue.web.http import Request

# Headers about the origin of a request to Host localhost:8080, and whether it may change something.
FROM = [
    ({}, True),
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": ""}, False),
    ({"Sec-Fetch-Site": "anything"}, False),
    ({"Sec-Fetch-Mode": "cors"}, True),
    ({"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, True),
    ({"Origin": "http://localhost:8080"}, True),
    ({"Origin": "HTTP://LOCALHOST:8080"}, True),
    ({"Origin": "https://localhost:8080"}, False),
    ({"Origin": "https://localhost:8080", "Sec-Fetch-Site": "none"}, False),
    # A proxy that ends TLS may be in between; then the browser knows.
    ({"Origin": "https://localhost:8080", "Sec-Fetch-Site": "same-origin"}, True),
    ({"Origin": "ftp://localhost:8080", "Sec-Fetch-Site": "same-origin"}, False),
    ({"Origin": "localhost:8080"}, False),
    ({"Origin": "http://localhost"}, False),
    ({"Origin": "http://localhost:8081"}, False),
    ({"Origin": "http://evil.example"}, False),
    ({"Origin": "http://evil.example/localhost:8080"}, False),
    ({"Origin": "http://localhost:8080.evil.example"}, False),
    ({"Origin": "null"}, False),
    ({"Origin": ""}, False),
    ({"Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"}, True),
    ({"Origin": "http://localhost:8080", "Sec-Fetch-Site": "cross-site"}, False),
    ({"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, False),
    ({"Origin": "http://evil.example", "Sec-Fetch-Site": "none"}, False),
    ({"Referer": "http://evil.example/"}, True),
]


async def test_a_request_from_a_page_of_another_origin_changes_nothing(server):
    for said, allowed in FROM:
        headers = {"Host": "localhost:8080", **said}
        id = await server.enqueue()
        for method, path, body, status in [
            ("POST", "/jobs/enqueue", '{"type":"x"}', 201), ("POST", "/jobs/dequeue", None, 200),
            ("POST", f"/jobs/{id}/heartbeat", None, 200), ("POST", f"/jobs/{id}/conclude", None, 200),
            ("DELETE", f"/jobs/{id + 1}", None, 200),
        ]:  # fmt: skip
            answer = await server.call(method, path, body, headers)
            if allowed:
                assert answer.status == status, (said, path, answer)
            else:
                problem = check_problem(answer, 403, "cross_origin")
                assert "origin" in problem["detail"]
        if not allowed:
            assert (await server.job(id))["status"] == "queued"
            assert (await server.get("/stats")).json["jobs"]["queued"] == 1, said
            await server.delete(f"/jobs/{id}")


async def test_a_page_of_another_origin_may_not_read_the_answer(server):
    await server.enqueue()
    for said, _ in FROM:
        for path in ("/jobs/1", "/queues", "/stats", "/help"):
            answer = await server.get(path, {"Host": "localhost:8080", **said})
            assert answer.status == 200
            assert not any(name.startswith("access-control-") for name in answer.headers)


async def test_a_preflight_gets_no_permission(server):
    answer = await server.call(
        "OPTIONS", "/jobs/enqueue", None,
        {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
    )  # fmt: skip
    check_problem(answer, 405, "method_not_allowed")
    assert not any(name.startswith("access-control-") for name in answer.headers)


async def test_route_and_method_are_checked_before_the_origin(server):
    headers = {"Origin": "http://evil.example"}
    check_problem(await server.post("/nowhere", None, headers), 404, "no_such_route")
    check_problem(await server.call("PUT", "/queues", None, headers), 405, "method_not_allowed")


async def test_the_origin_is_checked_before_the_body(server):
    check_problem(
        await server.post("/jobs/enqueue", "{", {"Origin": "http://evil.example"}), 403, "cross_origin"
    )


def sent(method, headers, path="/jobs", peer="127.0.0.1"):
    return Request(method, path, "", headers, b"", peer, "r")


def test_the_origin_is_checked_by_every_call_that_changes_something():
    headers = {b"host": b"localhost", b"origin": b"http://b"}
    guard = BrowserPolicy(Settings())
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        with pytest.raises(CrossOrigin):
            guard.check(sent(method, headers))
    for method in ("GET", "HEAD", "OPTIONS"):
        guard.check(sent(method, headers))


# -- who is a browser, and what it asks for ---------------------------------------------------------

CHROME = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
)
PROGRAMS = [
    {},
    {"User-Agent": "curl/8.5.0", "Accept": "*/*"},
    {"User-Agent": "node", "Accept": "*/*", "Accept-Language": "*", "Sec-Fetch-Mode": "cors"},
    {"User-Agent": "python-requests/2.32", "Accept-Encoding": "gzip, deflate", "Accept": "*/*"},
    {"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"},
]
BROWSERS = [
    {"User-Agent": CHROME},
    {"User-Agent": CHROME, "Accept-Language": "en-US,en;q=0.9", "Sec-Fetch-Site": "same-origin"},
    {"User-Agent": "mine", "Accept-Language": "de"},
    {"Referer": "http://evil.example:8080/"},
    {"Origin": "http://evil.example:8080"},
    {"Sec-Fetch-Site": "same-origin"},
]


@pytest.mark.parametrize("headers", PROGRAMS)
async def test_a_program_may_use_any_host_name(server, headers):
    answer = await server.get("/queues", {"Host": "queue.internal:8080", **headers})
    assert answer.status == 200
    assert "content-security-policy" not in answer.headers


@pytest.mark.parametrize("headers", BROWSERS)
async def test_a_foreign_host_name_that_resolves_here_is_refused_to_browsers(server, headers):
    await server.enqueue()
    for host in (
        "evil.example:8080",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "x",
    ):
        headers = {**headers, "Host": host, **({"Origin": f"http://{host}"} if "Origin" in headers else {})}
        for path in ("/jobs/1", "/queues", "/", "/stats"):
            refused = check_problem(await server.get(path, headers), 403, "forbidden")
            assert refused["setting"] == "JOBQUEUE_ALLOWED_HOSTS"
        check_problem(await server.post("/jobs/dequeue", None, headers), 403, "forbidden")
        assert (await server.get("/healthz", headers)).status == 200
    assert (await server.job(1))["status"] == "queued"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LOCALHOST:1",
        "127.0.0.1:8080",
        "10.1.2.3",
        "[::1]:8080",
        "app.localhost:80",
    ],
)
async def test_an_ip_address_or_localhost_is_an_accepted_host(server, host):
    for headers in BROWSERS[:3]:
        answer = await server.get("/queues", {"Host": host, **headers})
        assert answer.status == 200, host


def test_the_names_of_the_machine_and_of_the_setting_are_accepted_hosts():
    guard = BrowserPolicy(Settings(allowed_hosts="queue.example.com, .corp.example"))
    machine = socket.gethostname()
    for host in (machine, machine.upper(), "queue.example.com:80", "a.corp.example", "Queue.Example.com."):
        guard.check(sent("GET", {b"host": host.encode(), b"referer": b"x"}))
    for host in ("xqueue.example.com", "example.com", "corp.example.evil", "corp.example", ""):
        with pytest.raises(Refused):
            guard.check(sent("GET", {b"host": host.encode(), b"referer": b"x"}))


async def test_answers_forbid_framing_scripts_and_content_sniffing(server):
    headers = {"User-Agent": CHROME, "Host": "localhost"}
    await server.enqueue()
    for path in ("/jobs/1", "/queues", "/nowhere", "/jobs/enqueue", "/jobs?limit=x"):
        answer = await server.get(path, headers)
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
    page = await server.get("/", {**headers, "Accept": "text/html"})
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["content-security-policy"].count("frame-ancestors") == 1
    waiting = await server.connect()
    waiting.ask("POST", "/jobs/dequeue?queue=q&wait=30", None, headers)
    await server.waiting(1)
    await server.enqueue(queue="q")
    assert "content-security-policy" in (await waiting.read()).headers


# -- pages that may -----------------------------------------------------------------------------------

APP = "https://app.example.com"


@pytest.mark.parametrize("settings", [Settings(first_id=1, allowed_origins=APP, open_admin=True)])
async def test_a_page_may_read_answers_that_come_later_too(server, monkeypatch):
    headers = {"Origin": APP, "Sec-Fetch-Site": "cross-site", "User-Agent": CHROME}

    def check(answer, status):
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == APP
        assert "content-security-policy" in answer.headers

    async def refused(*_):
        raise Stopping("the server stops")

    check(await server.call("PUT", "/import", b'{"type":"x"}\n', headers), 200)
    check(await server.call("PUT", "/import", b'{"type":"x"}\n{"typ":"x"}\n', headers), 400)
    patch_engine(monkeypatch, server, dequeue=lambda *_: asyncio.ensure_future(refused()))
    check(await server.post("/jobs/dequeue", {"queue": "q"}, headers), 503)


@pytest.mark.parametrize(
    "settings", [Settings(first_id=1, allowed_origins=f"{APP}, http://other.example:3000")]
)
async def test_a_page_of_an_allowed_origin_may_call_and_read_the_answer(server):
    headers = {"Origin": APP, "Sec-Fetch-Site": "cross-site", "User-Agent": CHROME}
    asked = await server.call(
        "OPTIONS", "/jobs/enqueue", None, {**headers, "Access-Control-Request-Method": "POST"}
    )
    assert asked.status == 204
    assert asked.headers["access-control-allow-origin"] == APP
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert "Idempotency-Key" in asked.headers["access-control-allow-headers"]
    made = await server.post("/jobs/enqueue", {"type": "x"}, headers)
    assert made.status == 201
    assert made.headers["access-control-allow-origin"] == APP
    assert made.headers["vary"] == "Origin"
    assert "Location" in made.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in made.headers
    refused = await server.post("/jobs/enqueue", {"type": "x"}, {**headers, "Origin": "https://evil.example"})
    check_problem(refused, 403, "cross_origin")
    other = await server.call(
        "OPTIONS",
        "/jobs/enqueue",
        None,
        {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
    )
    check_problem(other, 405, "method_not_allowed")


# -- proxies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "said", "client"),
    [
        ("10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "9.9.9.9, 1.2.3.4, 10.0.0.7", "1.2.3.4"),
        ("10.0.0.1", "10.0.0.8, 10.0.0.7", "10.0.0.8"),
        ("10.0.0.1", "127.0.0.1, 1.2.3.4", "1.2.3.4"),
        ("::ffff:10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("1.1.1.1", "5.6.7.8", "1.1.1.1"),
        ("unix", "5.6.7.8", "unix"),
    ],
)
def test_the_client_is_taken_from_the_forwarded_headers_of_a_proxy(peer, said, client):
    headers = {} if said is None else {b"x-forwarded-for": said.encode()}
    assert Proxies(("10.0.0.0/8",)).client(peer, headers) == client


@pytest.mark.parametrize("settings", [Settings(first_id=1, trusted_proxies="127.0.0.1", rate=3)])
async def test_a_trusted_proxy_reports_the_client(server):
    for _ in range(8):
        last = await server.get("/stats", {"X-Forwarded-For": "1.2.3.4"})
    assert last.status == 429
    server.again = False
    assert (await server.get("/stats", {"X-Forwarded-For": "1.2.3.5"})).status == 200
    check_problem(
        await server.post("/queues/q/pause", None, {"X-Forwarded-For": "127.0.0.1"}), 403, "forbidden"
    )


@pytest.mark.parametrize(
    "settings", [Settings(first_id=1, trusted_proxies="127.0.0.1", allowed_hosts="q.example")]
)
async def test_the_host_that_a_trusted_proxy_forwards_is_checked(server):
    headers = {"User-Agent": CHROME, "Host": "backend:8080", "X-Forwarded-Host": "q.example"}
    assert (await server.get("/queues", headers)).status == 200
    same = {**headers, "Origin": "https://q.example", "Sec-Fetch-Site": "same-origin"}
    assert (await server.post("/jobs/enqueue", {"type": "x"}, same)).status == 201
    other = {**same, "Origin": "https://evil.example"}
    check_problem(await server.post("/jobs/enqueue", {"type": "x"}, other), 403, "cross_origin")


@pytest.mark.parametrize(
    ("scheme", "origin", "site", "allowed"),
    [
        ("https", "https", "same-origin", True),
        ("https", "https", None, True),
        ("HTTPS", "https", None, True),
        ("https", "http", "same-origin", False),
        ("https", "http", None, False),
        ("http", "https", "same-origin", False),
        ("http", "http", None, True),
        ("ftp", "https", None, False),
        ("", "https", "same-origin", True),
    ],
)
@pytest.mark.parametrize(
    "settings", [Settings(first_id=1, trusted_proxies="127.0.0.1", allowed_hosts="q.example")]
)
async def test_the_scheme_that_such_a_proxy_reports_is_that_of_our_pages(
    server, scheme, origin, site, allowed
):
    headers = {"Host": "q.example", "X-Forwarded-Proto": scheme, "Origin": f"{origin}://q.example"}
    answer = await server.post(
        "/jobs/enqueue", {"type": "x"}, headers | ({"Sec-Fetch-Site": site} if site else {})
    )
    assert answer.status == (201 if allowed else 403), answer


def test_pages_of_a_server_with_a_certificate_are_https():
    policy = BrowserPolicy(Settings(tls_cert="cert.pem"))
    host = {b"host": b"localhost"}
    for site in ({}, {b"sec-fetch-site": b"same-origin"}):
        policy.check(sent("POST", host | site | {b"origin": b"https://localhost"}))
        with pytest.raises(CrossOrigin):
            policy.check(sent("POST", host | site | {b"origin": b"http://localhost"}))


async def test_forwarded_headers_of_others_are_ignored(server):
    headers = {"User-Agent": CHROME, "Host": "evil.example", "X-Forwarded-Host": "localhost"}
    check_problem(await server.get("/queues", headers), 403, "forbidden")


def test_browsers_are_told_from_programs_by_their_headers():
    def lower(headers):
        return {name.lower().encode(): value.encode() for name, value in headers.items()}

    assert all(is_program(lower(headers)) for headers in PROGRAMS)
    assert not any(is_program(lower(headers)) for headers in BROWSERS)
