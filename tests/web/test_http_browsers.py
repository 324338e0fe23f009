"""What a web page may make a browser send, and what is for this machine only."""

import pytest
from serving import check_problem

from jobqueue.errors import CrossOrigin, Refused
from jobqueue.web.guard import check_administrator, check_origin, is_local

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


def test_check_origin_looks_at_changing_methods_only():
    headers = {b"host": b"a", b"origin": b"http://b"}
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        with pytest.raises(CrossOrigin):
            check_origin(method, headers)
    for method in ("GET", "HEAD", "OPTIONS"):
        check_origin(method, headers)


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
