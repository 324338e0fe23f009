"""Rules for every answer: form, headers, methods, paths."""

import asyncio
import json
import re

import pytest
from serving import check_problem

A_JOB = '{"type":"x","payload":{"a":[1,2]}}'


async def test_every_json_answer_is_one_line(server):
    for method, path, status in [
        ("POST", "/jobs/enqueue", 201), ("POST", "/jobs/dequeue", 200), ("GET", "/jobs/1", 200),
        ("POST", "/jobs/1/heartbeat", 200), ("POST", "/jobs/1/conclude", 200), ("POST", "/jobs/enqueue", 201),
        ("DELETE", "/jobs/2", 200), ("GET", "/queues", 200), ("GET", "/queues/default", 200),
        ("GET", "/stats", 200),
        ("GET", "/healthz", 200), ("GET", "/readyz", 200), ("GET", "/jobs/77", 404),
    ]:  # fmt: skip
        answer = await server.call(method, path, A_JOB if path.endswith("enqueue") else None)
        assert answer.status == status, answer
        kind = "application/json" if status < 400 else "application/problem+json"
        assert answer.headers["content-type"] == kind
        assert answer.body.endswith(b"}\n")
        assert answer.body.count(b"\n") == 1
        assert answer.body == json.dumps(answer.json, separators=(",", ":")).encode() + b"\n"
        assert int(answer.headers["content-length"]) == len(answer.body)


async def test_answers_have_a_date_and_no_server_header(server):
    await server.enqueue()
    for method, path, tagged in [
        ("GET", "/jobs/1", True), ("GET", "/help", False), ("GET", "/nowhere", False),
        ("GET", "/stats", False), ("GET", "/jobs", False), ("GET", "/queues", False),
        ("GET", "/queues/default", True), ("POST", "/jobs/dequeue?count=1", False),
    ]:  # fmt: skip
        headers = (await server.call(method, path)).headers
        assert "server" not in headers
        assert ("etag" in headers) is tagged, path
        assert "date" in headers


async def test_get_answers_have_no_store_and_others_no_cache_header(server):
    await server.enqueue()
    for method, path, told in [
        ("GET", "/jobs/1", True), ("HEAD", "/jobs/1", True), ("GET", "/jobs/77", True),
        ("GET", "/none", True),
        ("GET", "/stats", True), ("GET", "/help", True), ("GET", "/queues", True),
        ("GET", "/jobs/enqueue", True),
        ("POST", "/jobs/enqueue", False), ("POST", "/jobs/dequeue", False), ("DELETE", "/jobs/1", False),
    ]:  # fmt: skip
        answer = await server.call(method, path, A_JOB if path.endswith("enqueue") else None)
        assert answer.headers.get("cache-control") == ("no-store" if told else None), (method, path)


async def test_a_204_has_no_body_and_no_type(server):
    answer = await server.post("/jobs/dequeue")
    assert (answer.status, answer.body) == (204, b"")
    assert "content-type" not in answer.headers
    assert "content-length" not in answer.headers
    assert "transfer-encoding" not in answer.headers


# -- request ids ------------------------------------------------------------------------------------


async def test_the_request_id_of_a_client_is_returned(server):
    for id in ("a", "A.b_c-9", "x" * 64, "0"):
        for path in ("/stats", "/none", "/jobs/abc"):
            answer = await server.get(path, {"X-Request-Id": id})
            assert answer.headers["x-request-id"] == id
            if answer.status != 200:
                assert answer.json["request_id"] == id


async def test_a_malformed_request_id_is_replaced(server):
    for id in ("", "x" * 65, "a b", "a/b", "é", 'a"b', "a,b", "<a>", "a;b", "a\tb"):
        answer = await server.get("/stats", {"X-Request-Id": id})
        assert answer.status == 200
        assert answer.headers["x-request-id"] != id
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", answer.headers["x-request-id"])


async def test_two_request_ids_in_one_request_are_replaced(server):
    client = await server.connect()
    client.send(b"GET /stats HTTP/1.1\r\nHost: a\r\nX-Request-Id: one\r\nX-Request-Id: two\r\n\r\n")
    assert (await client.read()).headers["x-request-id"] not in ("one", "two", "one,two", "one, two")


async def test_a_request_without_an_id_gets_a_new_one(server):
    ids = [(await server.get("/stats")).headers["x-request-id"] for _ in range(5)]
    assert len(set(ids)) == 5


# -- HEAD -------------------------------------------------------------------------------------------


async def test_head_answers_like_get_without_the_body(server):
    await server.enqueue()
    id = {"X-Request-Id": "same"}
    for path, status in [
        ("/jobs/1", 200), ("/jobs/99", 404), ("/queues", 200), ("/queues/default", 200), ("/healthz", 200),
        ("/readyz", 200), ("/help", 200), ("/", 200), ("/nowhere", 404), ("/queues/a%20b", 400),
    ]:  # fmt: skip
        got = await server.call("GET", path, headers=id)
        told = await server.call("HEAD", path, headers=id)
        assert (got.status, told.status, told.body) == (status, status, b"")
        del got.headers["date"], told.headers["date"]
        assert told.headers == got.headers
        # There was no body, or the next answer on this connection could not be parsed.
        assert (await server.call("GET", path, headers=id)).body == got.body


async def test_a_refused_head_request_has_a_status_and_no_body(server):
    answer = await server.call("HEAD", "/jobs/dequeue")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


# -- methods ----------------------------------------------------------------------------------------


ALLOWED = {
    "/jobs": "GET, HEAD", "/jobs/count": "GET, HEAD", "/jobs/groups": "GET, HEAD", "/consumers": "GET, HEAD",
    "/jobs/enqueue": "POST", "/jobs/dequeue": "POST", "/jobs/7": "DELETE, GET, HEAD, PATCH",
    "/jobs/7/dequeue": "POST", "/jobs/7/conclude": "POST", "/jobs/7/heartbeat": "POST", "/jobs/7/release": "POST",
    "/jobs/7/fail": "POST", "/jobs/7/redrive": "POST", "/jobs/conclude": "POST", "/jobs/heartbeat": "POST",
    "/jobs/release": "POST", "/jobs/fail": "POST", "/queues": "GET, HEAD",
    "/queues/a": "GET, HEAD, PATCH", "/queues/a/pause": "POST", "/queues/a/resume": "POST",
    "/queues/a/peek": "GET, HEAD", "/queues/a/series": "GET, HEAD", "/queues/a/purge": "POST", "/queues/a/redrive": "POST",
    "/queues/a/cancel": "POST", "/queues/a/run_now": "POST", "/queues/a/move": "POST", "/stats": "GET, HEAD", "/healthz": "GET, HEAD",
    "/readyz": "GET, HEAD", "/help": "GET, HEAD", "/": "GET, HEAD",
}  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "TRACE"])
async def test_a_wrong_method_is_405_and_allow_lists_the_right_ones(server, method):
    for path, allow in ALLOWED.items():
        if method in allow.split(", "):
            continue
        answer = await server.call(method, path)
        problem = check_problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == allow
        assert "allow" not in problem
        assert allow in problem["detail"]


async def test_a_method_with_a_body_is_answered_once(server):
    answer = await server.call("PUT", "/jobs/enqueue", A_JOB)
    check_problem(answer, 405, "method_not_allowed")
    assert (await server.get("/queues")).json == {"queues": []}


# -- paths ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_path_is_404(server, method):
    for path in (
        "/jobs/", "/jobs/count/", "/jobs/enqueue/", "/jobs//enqueue", "//jobs/enqueue", "/jobs/1/",
        "/jobs/1//conclude",
        "/jobs/1/conclude/", "/jobs/1/conclude/x", "/jobs//conclude", "/queues/", "/queues//", "/queues/a/",
        "/queues/a/b", "/queues//pause", "/queues/a/pause/", "/queues/a/fail", "/jobs/1/pause",
        "/queues/../jobs/1", "/stats/", "/stats/x", "/healthz/", "/help/", "//",
        "/favicon.ico",
        "/Jobs/enqueue", "/JOBS/1", "/jobs/1/Conclude", "/jobs/1/explode", "/.", "/..", "/index.html",
        "/jobs/1/conclude/?lease=a", "/%6Aobs/1", "/jobs;a/1",
    ):  # fmt: skip
        problem = check_problem(await server.call(method, path), 404, "no_such_route")
        assert "/help" in problem["detail"]


async def test_paths_are_percent_decoded_and_then_checked(server):
    await server.enqueue(queue="a:b.c-d_e")
    assert (await server.get("/queues/a%3Ab%2Ec%2dd%5Fe")).json["name"] == "a:b.c-d_e"
    assert (await server.get("/queues/a:b.c-d_e")).json["jobs"]["queued"] == 1
    assert (await server.get("/jobs/%31")).json["id"] == 1
    for path in ("/queues/a%2Fb", "/queues/%2e%2e", "/queues/..", "/queues/a%00", "/queues/a%0Ab",
    "/queues/%FF",
                 "/queues/a%20b", "/queues/a+b", "/queues/%C3%A9", "/queues/" + "a" * 129, "/queues/-a",
                 "/queues/%"):  # fmt: skip
        check_problem(await server.get(path), 400, "invalid_field", field="name")


async def test_an_absolute_url_in_the_request_line_is_accepted(server):
    await server.enqueue()
    client = await server.connect()
    client.send(b"GET http://localhost/jobs/1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await client.read()).json["id"] == 1


# -- what a call does not know ----------------------------------------------------------------------


async def test_an_unknown_parameter_is_refused_with_the_nearest(server):
    await server.enqueue()
    for method, path, nearest in [
        ("POST", "/jobs/enqueue?typ=x", "type"), ("POST", "/jobs/dequeue?leasefor=5", "lease_for"),
        ("POST", "/jobs/1/conclude?leese=a", "lease"), ("POST", "/jobs/1/heartbeat?lease_fro=5", "lease_for"),
        ("GET", "/jobs/1?qqq=1", None), ("DELETE", "/jobs/1?qqq=1", None), ("GET", "/queues?qqq=1", None),
        ("GET", "/queues/a?qqq=1", None), ("GET", "/stats?qqq=1", None),
    ]:  # fmt: skip
        problem = check_problem(await server.call(method, path), 400, "unknown_field")
        name = re.search(r"\?(\w+)=", path)[1]
        assert problem["field"] == name
        assert name in problem["detail"]
        assert problem.get("nearest") == nearest


async def test_calls_without_options_take_an_empty_object(server):
    await server.enqueue()
    for method, path in [
        ("GET", "/jobs/1"), ("GET", "/jobs"), ("GET", "/jobs/count"), ("GET", "/queues"),
        ("GET", "/queues/a"), ("GET", "/stats"), ("POST", "/queues/a/pause"), ("POST", "/queues/a/resume"),
        ("PATCH", "/queues/a"), ("PATCH", "/jobs/1"), ("DELETE", "/jobs/1"),
    ]:  # fmt: skip
        assert (await server.call(method, path, "{}")).status == 200, path
        check_problem(await server.call(method, path, '{"forced":1}'), 400, "unknown_field", field="forced")
        check_problem(await server.call(method, path, "[]"), 400, "invalid_field")
        check_problem(await server.call(method, path, "{"), 400, "invalid_json")


# -- bodies in --------------------------------------------------------------------------------------


async def test_the_content_type_is_ignored(server):
    body = '{"type":"a&b=c%20d+e","payload":"x&y=z"}'
    for type in (
        "application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x",
        "application/json; charset=utf-16", "nonsense", "", None,
    ):  # fmt: skip
        answer = await server.post("/jobs/enqueue", body, {} if type is None else {"Content-Type": type})
        assert answer.status == 201
        job = (await server.get(answer.headers["location"])).json
        assert (job["type"], job["payload"]) == ("a&b=c%20d+e", "x&y=z")


async def test_an_encoded_body_is_refused(server):
    for coding in ("gzip", "br", "identity, gzip", "x"):
        answer = await server.post("/jobs/enqueue", A_JOB, {"Content-Encoding": coding})
        check_problem(answer, 415, "unsupported_encoding")
    assert (await server.get("/queues")).json == {"queues": []}


async def test_the_encoding_identity_is_accepted(server):
    assert (await server.post("/jobs/enqueue", A_JOB, {"Content-Encoding": "identity"})).status == 201


async def test_a_chunked_body_is_accepted(server):
    client = await server.connect()
    client.send(
        b"POST /jobs/enqueue HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'8\r\n{"type":\r\n4\r\n"x"}\r\n0\r\n\r\n'
    )
    assert (await client.read()).status == 201


async def test_a_request_may_come_byte_by_byte(server):
    client = await server.connect()
    for byte in b'POST /jobs/enqueue HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n{"type":"x"}':
        client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.read()).status == 201


async def test_the_same_head_is_parsed_separately_for_http_1_0_and_1_1(server):
    """A cached head is not used for another version of HTTP."""
    for block, status in [(b"\r\n", b"400"), (b"Host: a\r\n\r\n", b"200")]:
        client = await server.connect()
        client.send(b"GET /healthz HTTP/1.0\r\n" + block)
        assert (await client.rest()).startswith(b"HTTP/1.1 200 ")
        client = await server.connect()
        client.send(b"GET /healthz HTTP/1.1\r\n" + block)
        if status == b"400":
            assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
        else:
            assert "connection" not in (await client.read()).headers
