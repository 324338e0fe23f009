"""What a web page may make a browser send, and what is for this machine only."""

import socket

import pytest
from serving import check_problem

from jobqueue import Settings
from jobqueue.errors import CrossOrigin, Refused
from jobqueue.web.access.browser_policy import (
    BrowserPolicy,
    Proxies,
    check_administrator,
    is_local,
    is_program,
)
from jobqueue.web.http import Request

# What a request says of where it comes from, sent to Host localhost:8080; and whether it may change things.
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
    ({"Origin": "https://localhost:8080"}, True),
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


async def test_what_a_page_of_another_origin_sends_changes_nothing(server):
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


async def test_a_page_of_another_origin_may_ask_but_is_not_shown_the_answer(server):
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


async def test_route_and_method_are_looked_at_before_the_origin(server):
    headers = {"Origin": "http://evil.example"}
    check_problem(await server.post("/nowhere", None, headers), 404, "no_such_route")
    check_problem(await server.call("PUT", "/queues", None, headers), 405, "method_not_allowed")


async def test_the_origin_is_looked_at_before_the_body(server):
    check_problem(
        await server.post("/jobs/enqueue", "{", {"Origin": "http://evil.example"}), 403, "cross_origin"
    )


def sent(method, headers, path="/jobs", peer="127.0.0.1"):
    return Request(method, path, "", headers, b"", peer, "r")


def test_the_origin_matters_where_something_may_change():
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
async def test_a_program_may_call_by_any_name(server, headers):
    answer = await server.get("/queues", {"Host": "queue.internal:8080", **headers})
    assert answer.status == 200
    assert "content-security-policy" not in answer.headers


@pytest.mark.parametrize("headers", BROWSERS)
async def test_a_name_that_points_here_gives_a_page_nothing(server, headers):
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
async def test_an_address_or_localhost_is_ours(server, host):
    for headers in BROWSERS[:3]:
        answer = await server.get("/queues", {"Host": host, **headers})
        assert answer.status == 200, host


def test_the_names_of_the_machine_and_of_the_setting_are_ours():
    guard = BrowserPolicy(Settings(allowed_hosts="queue.example.com, .corp.example"))
    machine = socket.gethostname()
    for host in (machine, machine.upper(), "queue.example.com:80", "a.corp.example", "Queue.Example.com."):
        guard.check(sent("GET", {b"host": host.encode(), b"referer": b"x"}))
    for host in ("xqueue.example.com", "example.com", "corp.example.evil", "corp.example", ""):
        with pytest.raises(Refused):
            guard.check(sent("GET", {b"host": host.encode(), b"referer": b"x"}))


async def test_what_a_browser_gets_is_not_to_be_framed_run_or_guessed_at(server):
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


@pytest.mark.parametrize(
    "settings", [Settings(first_id=1, allowed_origins=f"{APP}, http://other.example:3000")]
)
async def test_a_page_on_the_list_may_call_and_see_the_answer(server):
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
def test_whom_a_proxy_speaks_for(peer, said, client):
    headers = {} if said is None else {b"x-forwarded-for": said.encode()}
    assert Proxies(("10.0.0.0/8",)).client(peer, headers) == client


@pytest.mark.parametrize("settings", [Settings(first_id=1, trusted_proxies="127.0.0.1", rate=3)])
async def test_a_proxy_that_is_believed_says_who_calls(server):
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
async def test_the_host_that_such_a_proxy_was_asked_for_counts(server):
    headers = {"User-Agent": CHROME, "Host": "backend:8080", "X-Forwarded-Host": "q.example"}
    assert (await server.get("/queues", headers)).status == 200
    same = {**headers, "Origin": "https://q.example", "Sec-Fetch-Site": "same-origin"}
    assert (await server.post("/jobs/enqueue", {"type": "x"}, same)).status == 201
    other = {**same, "Origin": "https://evil.example"}
    check_problem(await server.post("/jobs/enqueue", {"type": "x"}, other), 403, "cross_origin")


async def test_nobody_else_is_believed(server):
    headers = {"User-Agent": CHROME, "Host": "evil.example", "X-Forwarded-Host": "localhost"}
    check_problem(await server.get("/queues", headers), 403, "forbidden")


def test_programs_and_browsers():
    def lower(headers):
        return {name.lower().encode(): value.encode() for name, value in headers.items()}

    assert all(is_program(lower(headers)) for headers in PROGRAMS)
    assert not any(is_program(lower(headers)) for headers in BROWSERS)


# -- this machine -------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_local(peer):
    assert is_local(peer, {b"host": b"evil.example"})
    check_administrator(peer, {})


@pytest.mark.parametrize(
    "peer",
    ["10.0.0.1", "192.168.1.1", "128.0.0.1", "1.127.0.0", "12.7.0.1", "::", "::2", "::1:2", "::1234",
    "fe80::1",
             "::ffff:10.0.0.1", "2001:db8::1", ""],
)  # fmt: skip
def test_other_machines_are_not(peer):
    assert not is_local(peer, {})
    with pytest.raises(Refused) as refused:
        check_administrator(peer, {})
    assert refused.value.code == "forbidden"


@pytest.mark.parametrize(
    "header", [b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"]
)
def test_what_a_proxy_passed_on_is_not_local(header):
    assert not is_local("127.0.0.1", {header: b"for=127.0.0.1"})
