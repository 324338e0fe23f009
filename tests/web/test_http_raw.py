"""Raw payloads, results and errors: any bytes are returned unchanged; and how they look in JSON."""

import base64
import json
import re

import pytest
from serving import check_problem

from jobqueue import Settings
from jobqueue.model import NewJob

BYTES = bytes(range(256)) * 3
FORM = "application/x-www-form-urlencoded"
PAYLOADS = [
    (BYTES, "image/jpeg"), (b"", "image/jpeg"), (b"{}", "image/jpeg"), (b"[", "x/y"), (b"a,b\n1,2\n", "text/csv"),
    (BYTES, "text/plain; charset=latin-1"), ("é\0\n".encode(), "text/plain"), (b'{"a":1}\n{"a":2}\n', "application/x-ndjson"),
    (b"\xff" * 100_000, 'multipart/x; boundary="a b"'),
]  # fmt: skip


async def put(server, body, kind, query="queue=q", path="/jobs/enqueue"):
    headers = {} if kind is None else {"Content-Type": kind}
    answer = await server.call("POST", f"{path}?raw=1&{query}", body, headers)
    assert answer.status == 201, answer
    return answer.json


async def take(server, query="queue=q"):
    answer = await server.post(f"/jobs/dequeue?raw=1&{query}")
    assert answer.status in (200, 204), answer
    return answer


# -- payloads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "kind"), PAYLOADS)
async def test_any_bytes_are_returned_unchanged(server, body, kind):
    made = await put(server, body, kind)
    assert (made["type"], made["queue"]) == ("q", "q")
    taken = await take(server)
    assert (taken.body, taken.headers["content-type"]) == (body, kind)


@pytest.mark.parametrize(("body", "kind"), PAYLOADS)
async def test_a_fetched_job_can_be_enqueued_again_as_it_is(server, body, kind):
    """JSON and raw calls share the same jobs."""
    await put(server, body, kind)
    job = (await server.post("/jobs/dequeue?queue=q")).json
    assert list(job)[-1] == "payload"
    assert job["content_type"] == kind
    if "payload_encoding" in job:
        assert base64.b64decode(job["payload"]) == body
    else:
        assert job["payload"].encode() == body
        assert kind.startswith("text/")
    again = await server.post("/jobs/enqueue", job)
    assert again.status == 201, again
    assert "payload" not in again.json
    taken = await take(server)
    assert (taken.body, taken.headers["content-type"], taken.headers["job-id"]) == (
        body, kind, str(again.json["id"])
    )  # fmt: skip
    whole = await server.job(again.json["id"])
    listed = (await server.get("/jobs?queue=q&payload=1")).json["jobs"][-1]
    assert whole["payload"] == listed["payload"] == job["payload"]
    assert whole.get("payload_encoding") == listed.get("payload_encoding") == job.get("payload_encoding")


@pytest.mark.parametrize(
    "kind", [None, FORM, FORM + "; charset=utf-8", "APPLICATION/X-WWW-FORM-URLENCODED", ""]
)
async def test_a_body_without_a_content_type_is_kept_as_bytes(server, kind):
    await put(server, BYTES, kind)
    assert (await take(server)).headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
async def test_json_sent_raw_becomes_a_json_job(server, kind):
    id = (await put(server, b' {"a":\n[1.50]}\n', kind))["id"]
    job = await server.job(id)
    assert "content_type" not in job
    assert job["payload"] == {"a": [1.5]}
    taken = await take(server)
    assert (taken.headers["content-type"], taken.body) == ("application/json", b'{"a": [1.50]}')


@pytest.mark.parametrize("body", [b"", b"{", b"nothing", b'"\xff"', b"1 2", b"NaN", b"[" * 65 + b"]" * 65])
async def test_a_raw_body_of_type_json_must_be_json(server, body):
    answer = await server.call("POST", "/jobs/enqueue?raw=1", body, {"Content-Type": "application/json"})
    check_problem(answer, 400, "invalid_json")


async def test_json_sent_raw_has_numbers_of_any_size(server):
    huge = b'{"n":1e999}'
    await put(server, huge, "application/json")
    job = await server.dequeue(queue="q")
    path = f"/jobs/{job['id']}/conclude?raw=1&lease={job['lease']}"
    assert (await server.call("POST", path, huge, {"Content-Type": "application/json"})).status == 200
    shown = (await server.get(f"/jobs/{job['id']}")).body
    assert (b'"payload":' + huge in shown, b'"result":' + huge in shown) == (True, True)


async def test_a_json_job_may_be_dequeued_raw(server):
    id = await server.enqueue(queue="q", payload={"n": 1.50})
    taken = await take(server)
    assert (taken.body, taken.headers["content-type"]) == (b'{"n":1.5}', "application/json")
    assert taken.headers["job-id"] == str(id)


async def test_options_of_a_raw_enqueue_are_in_the_query_and_the_type_defaults_to_the_queue(server):
    made = await put(server, b"x", "a/b", "priority=5&delay=10m&tags=a,b&max_attempts=2&key=k")
    assert (made["type"], made["priority"], made["status"], made["tags"]) == (
        "default",
        5,
        "scheduled",
        ["a", "b"],
    )
    assert (made["max_attempts"], made["key"]) == (2, "k")
    assert (await put(server, b"x", "a/b", "type=t"))["type"] == "t"
    assert (await put(server, b"x", "a/b", "", "/queues/thumbs/enqueue"))["type"] == "thumbs"
    once = {"Content-Type": "a/b", "Idempotency-Key": "k"}
    first = await server.call("POST", "/jobs/enqueue?raw=1", BYTES, once)
    again = await server.call("POST", "/jobs/enqueue?raw=1", BYTES, once)
    assert (first.status, again.status, again.json["id"]) == (201, 200, first.json["id"])


@pytest.mark.parametrize(
    ("query", "headers", "field"),
    [
        ("priority=x", {}, "priority"), ("payload=1", {}, "payload"), ("content_type=a/b", {}, "content_type"),
        ("", {"Content-Type": "jpeg"}, "content_type"), ("", {"Content-Type": "a/b;\x80"}, "content_type"),
        ("", {"Content-Type": "a/" + "b" * 300}, "content_type"), ("nothing=1", {}, "nothing"), ("raw=2", {}, "raw"),
    ],
)  # fmt: skip
async def test_bad_options_of_a_raw_enqueue_are_refused(server, query, headers, field):
    answer = await server.call("POST", f"/jobs/enqueue?raw=1&{query}", b"x", headers)
    check_problem(answer, 400, "unknown_field" if field == "nothing" else "invalid_field", field=field)


async def test_raw_is_an_option_of_the_query_only(server):
    twice = check_problem(
        await server.post("/jobs/enqueue?raw=1&raw=0", b""), 400, "invalid_field", field="raw"
    )
    assert "twice" in twice["detail"]
    assert (await server.post("/jobs/enqueue?raw=1&RAW=true", b"")).status == 201
    check_problem(
        await server.post("/jobs/1/conclude?next=1", {"next": False}), 400, "invalid_field", field="next"
    )
    await server.post("/queues/default/purge?all=1")
    check_problem(
        await server.post("/jobs/enqueue", {"type": "x", "raw": True}), 400, "invalid_field", field="raw"
    )
    assert (await server.post("/jobs/enqueue?raw=0", {"type": "x"})).status == 201
    check_problem(await server.post("/jobs/dequeue?raw=1&count=1"), 400, "invalid_field", field="count")
    assert (await server.post("/jobs/dequeue", {"raw": True})).headers["job-id"]


async def test_a_json_enqueue_may_carry_bytes(server):
    async def made(**job):
        answer = await server.post("/queues/q/enqueue", {"type": "x", **job})
        return await take(server) if answer.status == 201 else answer

    text = await made(content_type="text/csv", payload="a,b")
    assert (text.body, text.headers["content-type"]) == (b"a,b", "text/csv")
    untyped = await made(payload_encoding="base64", payload=base64.b64encode(BYTES).decode())
    assert (untyped.body, untyped.headers["content-type"]) == (BYTES, "application/octet-stream")
    assert (await made(content_type="image/png")).body == b""
    in_json = await made(content_type="application/json", payload=[1])
    assert (in_json.body, in_json.headers["content-type"]) == (b"[1]", "application/json")
    encoded = await made(content_type="application/json", payload_encoding="base64", payload="WzFd")
    assert (encoded.body, encoded.headers["content-type"]) == (b"[1]", "application/json")
    check_problem(await made(content_type="a/b", payload=[1]), 400, "invalid_field", field="payload")
    check_problem(await made(payload_encoding="base64", payload="*"), 400, "invalid_field", field="payload")
    check_problem(await made(content_type="jpeg", payload=""), 400, "invalid_field", field="content_type")
    check_problem(
        await made(payload_encoding="hex", payload=""), 400, "invalid_field", field="payload_encoding"
    )


async def test_a_payload_set_by_patch_is_json(server):
    id = (await put(server, BYTES, "image/jpeg"))["id"]
    assert (await server.call("PATCH", f"/jobs/{id}", {"payload": {"a": 1}, "priority": 3})).status == 200
    job = await server.job(id)
    assert (job["payload"], job.get("content_type")) == ({"a": 1}, None)
    assert (await server.call("PATCH", f"/jobs/{id}", {"type": "other"})).status == 200


async def test_a_replaced_unique_job_gets_the_new_content_type(server):
    unique = "unique_key=u&on_conflict=replace"
    id = (await put(server, b"1", "application/json", unique))["id"]
    answer = await server.call("POST", f"/jobs/enqueue?raw=1&{unique}", BYTES, {"Content-Type": "image/png"})
    assert (answer.status, answer.json["id"]) == (200, id)
    taken = await take(server, "")
    assert (taken.body, taken.headers["content-type"]) == (BYTES, "image/png")


# -- the headers of a raw dequeue -------------------------------------------------------------------


async def test_a_raw_delivery_has_the_other_fields_in_headers(server):
    await put(server, BYTES, "text/html", "type=a%20%C3%A9%25b&priority=-3")
    taken = await take(server, "lease_for=30s&consumer=me")
    headers, id = taken.headers, taken.headers["job-id"]
    assert re.fullmatch(r"\d+", id)
    lease = headers["job-lease"]
    assert {name: value for name, value in headers.items() if name.startswith("job-")} == {
        "job-id": id, "job-queue": "default", "job-type": "a %C3%A9%25b", "job-priority": "-3", "job-attempts": "1",
        "job-lease": lease, "job-lease-for": "30", "job-lease-expires-at": "2027-01-15T08:00:30.000Z",
    }  # fmt: skip
    links = dict(re.findall(r'<([^>]+)>; rel="(\w+)"', headers["link"]))
    assert links == {
        f"/jobs/{id}/{verb}?lease={lease}": verb for verb in ("conclude", "heartbeat", "fail", "release")
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "sandbox"
    assert headers["content-disposition"] == "attachment"
    assert headers["etag"] == '"2"'
    for link, verb in links.items():
        if verb != "conclude":
            continue
        assert (await server.post(link)).json["status"] == "concluded"


async def test_a_raw_dequeue_waits_like_any_other(server):
    client = await server.connect()
    client.ask("POST", "/queues/q/dequeue?raw=1&wait=30")
    await server.waiting(1)
    await put(server, BYTES, "image/png")
    answer = await client.read()
    assert (answer.status, answer.body) == (200, BYTES)


# -- results and errors -----------------------------------------------------------------------------

RESULTS = [
    (b"done\n", None, "done\n", None), (b"done", FORM, "done", None), (b"[1, 2]", "application/json", [1, 2], None),
    (b"[1, 2]", "text/plain", "[1, 2]", None), (b"\xff\0", None, "/wA=", "base64"), (b"\0", "image/png", "\0", None),
    (b"\0\xff", None, "AP8=", "base64"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "kind", "result", "encoding"), RESULTS)
async def test_a_raw_conclude_takes_the_result_as_its_body(server, body, kind, result, encoding):
    await server.enqueue()
    taken = await take(server, "")
    headers = {"Job-Lease": taken.headers["job-lease"], **({} if kind is None else {"Content-Type": kind})}
    path = f"/jobs/{taken.headers['job-id']}"
    answer = await server.call("POST", f"{path}/conclude?raw=1", body, headers)
    assert (answer.status, answer.json["status"]) == (200, "concluded")
    for job in (answer.json, (await server.get(path)).json):
        assert (job["result"], job.get("result_encoding")) == (result, encoding)
    again = await server.post("/jobs/enqueue", (await server.get(path)).json)
    assert (again.status, again.json.get("result")) == (201, None)


async def test_an_empty_body_is_no_result(server):
    await server.enqueue()
    taken = await take(server, "")
    answer = await server.post(
        f"/jobs/{taken.headers['job-id']}/conclude?raw=1&lease={taken.headers['job-lease']}"
    )
    assert (answer.status, "result" in answer.json) == (200, False)


@pytest.mark.parametrize("settings", [Settings(first_id=1, max_result="1KiB")], ids=["1 KiB"])
async def test_a_raw_result_has_the_limit_of_any_result(server):
    await server.enqueue()
    taken = await take(server, "")
    path = f"/jobs/{taken.headers['job-id']}/conclude?raw=1&lease={taken.headers['job-lease']}"
    json = {"Content-Type": "application/json"}
    answer = await server.call("POST", path, b'"%b"' % (b"x" * 1023), json)
    check_problem(answer, 413, "body_too_large", setting="JOBQUEUE_MAX_RESULT")
    answer = await server.call("POST", path, b"[1", {"Content-Type": "application/json"})
    check_problem(answer, 400, "invalid_json")
    answer = await server.post(path, b"x" * 1022)
    assert (answer.status, "truncated" in answer.json) == (200, False)


async def test_a_raw_fail_takes_the_message_as_its_body(server):
    async def failed(body):
        await server.enqueue(queue="f")
        taken = await take(server, "queue=f")
        path = f"/jobs/{taken.headers['job-id']}/fail?raw=1&retry=0&lease={taken.headers['job-lease']}"
        return await server.post(path, body)

    assert (await failed(b'no "such" host\n')).json["error"] == 'no "such" host\n'
    assert (await failed(b"cut \xc3")).json["error"] == "cut �"
    assert "error" not in (await failed(b"")).json
    assert (await failed(b"x" * 20_000)).json["truncated"] == ["error"]
    await server.enqueue(queue="g")
    taken = await take(server, "queue=g")
    path = f"/jobs/{taken.headers['job-id']}/fail?raw=1&error=x&lease={taken.headers['job-lease']}"
    check_problem(await server.post(path, b"y"), 400, "invalid_field", field="error")


# -- the queue in the path --------------------------------------------------------------------------


async def test_the_queue_of_the_path_is_used(server):
    assert (await server.post("/queues/a/enqueue", {"type": "x"})).json["queue"] == "a"
    many = await server.post("/queues/a/enqueue", [{"type": "x"}, {"type": "y", "queue": "a"}])
    assert [job["queue"] for job in many.json["jobs"]] == ["a", "a"]
    assert (await server.post("/queues/a/dequeue", {"consumer": "me"})).json["queue"] == "a"
    assert len((await server.post("/queues/a/dequeue?count=5")).json["jobs"]) == 2
    assert (await server.post("/queues/a/dequeue")).status == 204
    check_problem(
        await server.post("/queues/a/enqueue", {"type": "x", "queue": "b"}),
        400,
        "invalid_field",
        field="queue",
    )
    check_problem(await server.post("/queues/a/enqueue", {}), 400, "missing_field", field="type")
    check_problem(await server.post("/queues/a/dequeue", {"queue": "b"}), 400, "invalid_field", field="queue")
    check_problem(await server.post("/queues/a/dequeue?queues=a,b"), 400, "invalid_field", field="queue")
    for verb in ("enqueue", "dequeue"):
        check_problem(
            await server.post(f"/queues/a%20b/{verb}", {"type": "x"}), 400, "invalid_field", field="name"
        )
        check_problem(await server.get(f"/queues/a/{verb}"), 405, "method_not_allowed")


@pytest.mark.parametrize(("body", "kind"), [*PAYLOADS, (b"\xff" * (1 << 20), "as/large-as-may-be")])
async def test_a_raw_job_moves_to_another_queue_as_it_is(server, body, kind):
    """Export and import carry it as JSON."""
    await put(server, body, kind)
    lines = (await server.get("/queues/q/export")).body
    assert (await server.post("/queues/q/purge?all=1")).json["changed"] == 1
    assert (await server.call("PUT", "/import", lines)).json == {"imported": 1, "known": 0}
    taken = await take(server)
    assert (taken.body, taken.headers["content-type"]) == (body, kind)


async def test_a_plain_job_has_no_options_record(server):
    """Raw payloads must not make plain jobs larger."""
    id = await server.enqueue(payload={"a": 1})
    assert server.engine.get(id).extras is None
    assert NewJob("x").options is None
    await server.call("POST", "/jobs/enqueue?raw=1", b"1", {"Content-Type": "application/json"})
    assert server.engine.get(id + 1).extras is None
    assert json.loads(server.engine.get(id + 1).payload) == 1
