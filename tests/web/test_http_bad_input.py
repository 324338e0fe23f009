"""Bad input of people and fuzzers: each gets the documented 4xx, nothing is logged, nothing changes, and the
server goes on. (`logged` in `tests/conftest.py` fails a test on any log record.)"""

import asyncio
import json
import time

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from serving import check_problem

from jobqueue import Settings
from jobqueue.errors import InvalidJson
from jobqueue.web.readers.json_text import one_line

# Bytes of the largest body.
LONGEST = Settings().max_request
CALLS = [
    "/jobs/enqueue", "/jobs/dequeue", "/jobs/1/conclude", "/jobs/1/heartbeat", "/jobs/1/release",
    "/jobs/1/fail",
]  # fmt: skip


def deep(levels, open="[", close="]"):
    return open * levels + close * levels


# -- bodies that are no JSON, for every call that takes one -----------------------------------------

NOT_JSON = {
    "words": b"hello", "a form": b"type=x&queue=y", "xml": b"<job/>", "cut off": b'{"type":"x"',
    "one brace": b"{",
    "single quotes": b"{'type':'x'}", "a trailing comma": b'{"type":"x",}', "a comment": b'{"type":"x"/**/}',
    "no quotes": b"{type:1}", "NaN": b"NaN", "Infinity": b"-Infinity", "NaN in a field": b'{"priority":NaN}',
    "Infinity in a field": b'{"wait":Infinity}', "-Infinity in a field": b'{"lease_for":-Infinity}',
    "a leading zero": b'{"wait":01}', "a plus": b'{"wait":+1}', "a bare point": b'{"wait":1.}',
    "invalid UTF-8": b'{"type":"\xff"}', "an overlong form": b'{"type":"\xc0\x80"}',
    "half a character": b'{"type":"\xe2\x82"}',
    "a surrogate": b'{"type":"\xed\xa0\x80"}', "a name in latin-1": b'{"t\xe9":1}',
    "UTF-16": '{"type":"x"}'.encode("utf-16"),
    "UTF-16 without a mark": '{"type":"x"}'.encode("utf-16-le"),
    "a byte order mark": b'\xef\xbb\xbf{"type":"x"}',
    "a raw line break": b'{"type":"a\nb"}', "a raw tab": b'{"type":"a\tb"}', "a raw NUL": b'{"type":"\x00"}',
    "NUL bytes": b"\x00" * 100, "a bad escape": b'{"type":"\\x41"}', "a cut escape": b'{"type":"\\u12"}',
    "1,000 levels": deep(1000).encode(), "100,000 levels": deep(100_000).encode(),
    "1,000 objects": deep(1000, '{"a":', "}").encode(),
    "100,000 levels open": b"[" * 100_000, "nested in a field": b'{"type":' + deep(1000).encode() + b"}",
    "only a comma": b",", "a vertical tab": b'\x0b{"type":"x"}',
    "no-break space": '\u00a0{"type":"x"}'.encode(),
}  # fmt: skip


@pytest.mark.parametrize("path", CALLS)
async def test_a_body_that_is_not_json_is_refused_as_invalid_json(server, path):
    await server.enqueue()
    job = await server.dequeue()
    for name, body in NOT_JSON.items():
        answer = await server.post(path, body)
        assert answer.status == 400, (name, answer)
        code = answer.json["code"]
        # If the nested value has a wrong type as well, or its field is unknown, either reason is true.
        assert code == "invalid_json" or (
            code in ("invalid_field", "unknown_field") and ("levels" in name or "nested" in name)
        ), name
        check_problem(answer, 400, code)
    assert (await server.job(1))["lease_expires_at"] == job["lease_expires_at"]
    assert (await server.get("/stats")).json["jobs"] == {
        "scheduled": 0, "queued": 0, "in_progress": 1, "concluded": 0, "dead": 0, "cancelled": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        ("[[[1]]]", 3), ("[[[]]]", 3), ('{"a":{"b":[{}]}}', 4), ("[[],[[]],[]]", 3), ('[{"a":[]},[[[1]]]]', 4),
        ('["[[[",[["]]"]],"]"]', 3), ('[["\\"[[["]]', 2), ('[["\\\\",["\\\\\\"[["]]]', 3), ('{"[{\\"":{"[":[]}}', 3),
        ('["[","[[[["]', 1), ('[[["ü\\u005b[["]]]', 3),
    ],
)  # fmt: skip
def test_brackets_in_strings_do_not_count_as_levels(text, depth):
    assert one_line(text.encode(), depth) == text.encode()
    with pytest.raises(InvalidJson, match=f"more than {depth - 1} levels"):
        one_line(text.encode(), depth - 1)


def test_checking_a_deeply_nested_payload_costs_little_more():
    def seconds(text):
        """Returns the least processor time of several runs, in seconds."""
        times = []
        for _ in range(5):
            start = time.process_time()
            assert one_line(text, 64) == text
            times.append(time.process_time() - start)
        return min(times)

    flat, nested = [
        b"[" + b",".join([one] * (1_000_000 // len(one))) + b"]" for one in (b"[]", b"[" * 61 + b"]" * 61)
    ]
    assert seconds(nested) < 15 * seconds(flat)


@pytest.mark.parametrize("path", CALLS)
async def test_json_that_is_no_object_is_refused(server, path):
    await server.enqueue()
    await server.dequeue()
    for body in ("7", '"type"', "null", "true", "1e999", "-0"):
        check_problem(await server.post(path, body), 400, "invalid_field")
    if path != "/jobs/enqueue":
        for body in ("[]", "[{}]", '[{"type":"x"}]'):
            check_problem(await server.post(path, body), 400, "invalid_field")
    for body in (b"{}{}", b'{} {"a":1}', b"{}]", b"{}x", b"{}\x00"):
        check_problem(await server.post(path, body), 400, "invalid_json")
    assert (await server.job(1))["status"] == "in_progress"


@pytest.mark.parametrize("path", CALLS)
async def test_an_empty_body_is_an_empty_object(server, path):
    for body in (None, b"", b" ", b"\r\n\t \n", b"{}", b" { } \n"):
        id = await server.enqueue()
        if path != "/jobs/dequeue":
            id = (await server.dequeue())["id"]
        answer = await server.post(path.replace("1", str(id)), body)
        if path == "/jobs/enqueue":
            check_problem(answer, 400, "missing_field", field="type")
        else:
            assert answer.status == 200, answer


async def test_a_json_body_full_of_ampersands_sent_as_a_form_is_json(server):
    body = '{"type":"a&b=c","payload":"' + "&x=%zz;+" * 10_000 + '"}'
    answer = await server.post("/jobs/enqueue", body, {"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status == 201
    assert (await server.job(1))["payload"] == "&x=%zz;+" * 10_000


# -- payloads and results are checked too, although nobody looks into them --------------------------

BAD_INSIDE = {
    "invalid UTF-8": b'"\xff"', "overlong": b'"\xc0\xaf"', "a surrogate": b'"\xed\xa0\x80"',
    "UTF-8 in a key": b'{"\xff":1}',
    "NaN": b"NaN", "Infinity": b"[Infinity]", "-Infinity": b"-Infinity", "nan": b"nan",
    "a leading zero": b"01", "a bare point": b"1.",
    "a point first": b".5", "a plus": b"+1", "a bare exponent": b"1e", "hexadecimal": b"0x10",
    "an underscore": b"1_000",
    "a raw line break": b'"a\nb"', "a raw carriage return": b'"a\rb"', "a raw tab": b'"a\tb"',
    "a raw NUL": b'"\x00"', "an escape": b'"\x1b"',
    "a bad escape": b'"\\x41"', "a cut escape": b'"\\u12"', "a trailing comma": b"[1,]",
    "a missing comma": b"[1 2]",
    "a wrong bracket": b"[1}", "single quotes": b"'a'", "undefined": b"undefined", "nothing": b"",
    "a comment": b"1/**/",
    "65 levels": deep(65).encode(), "65 objects": deep(65, '{"a":', "}").replace(":}", ":1}").encode(),
    "65 levels in a string's company": b'["]]]]",' * 65 + b"1" + b"]" * 65,
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/jobs/enqueue", b'{"type":"x","payload":%b}'), ("/jobs/enqueue", b'{"Type":"x","Payload":%b}'),
        ("/jobs/enqueue", b'[{"type":"x"},{"type":"x","payload":%b}]'),
        ("/jobs/enqueue", b'{"type":"x"}\n{"type":"x","payload":%b}'),
        ("/jobs/1/conclude", b'{"result":%b}'), ("/jobs/1/conclude", b'{"Result":%b,"consumer":null}'),
    ],
    ids=["payload", "Payload", "in an array", "in a line", "result", "Result"],
)  # fmt: skip
async def test_a_payload_or_result_must_be_json_throughout(server, path, template):
    await server.enqueue()
    await server.dequeue()
    for name, inside in BAD_INSIDE.items():
        answer = await server.post(path, template % inside)
        check_problem(answer, 400, "invalid_json")
        assert "levels" not in name or ("65" in name and answer.json["limit"] == 64), name
    assert (await server.job(1))["status"] == "in_progress"
    assert (await server.get("/stats")).json["jobs"]["queued"] == 0


async def test_64_levels_are_accepted_and_brackets_in_strings_do_not_count(server):
    for inside in (
        deep(64), deep(64, '{"a":', "}").replace(":}", ":1}"), '"' + "[" * 1000 + '"',
        '["' + "[" * 500 + '\\"' + "{" * 500 + '"]',
        "[" + ",".join(["[]"] * 1000) + "]", "[" + ",".join([deep(63)] * 100) + "]", '{"[[[":"]]]"}',
    ):  # fmt: skip
        answer = await server.post("/jobs/enqueue", '{"type":"x","payload":' + inside + "}")
        assert answer.status == 201, inside[:80]
        job = (await server.post("/jobs/dequeue")).json
        assert json.dumps(job["payload"], separators=(",", ":")) == inside
        answer = await server.post(f"/jobs/{job['id']}/conclude", '{"result":' + inside + "}")
        assert answer.status == 200


# -- sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CALLS)
async def test_a_body_over_the_limit_is_too_large(server, path):
    await server.enqueue()
    body = b'{"type":"x"}'.ljust(LONGEST + 1)
    for headers in ({}, {"Content-Encoding": "identity"}):
        check_problem(
            await server.post(path, body, headers),
            413,
            "body_too_large",
            limit=LONGEST,
            setting="JOBQUEUE_MAX_BODY",
        )
        assert (await server.get("/healthz")).status == 200
    assert (await server.job(1))["status"] == "queued"


async def test_route_and_method_are_checked_before_the_size_and_the_encoding(server):
    for body, headers in [(b"x" * (LONGEST + 1), {}), (b"{}", {"Content-Encoding": "gzip"})]:
        check_problem(await server.post("/nowhere", body, headers), 404, "no_such_route")
        answer = await server.call("PUT", "/queues", body, headers)
        check_problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD"


async def test_a_chunked_body_over_the_limit_is_too_large(server):
    client = await server.connect()
    client.send(b"POST /jobs/enqueue HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(LONGEST // 65536 + 1):
        client.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    client.send(b"0\r\n\r\n")
    check_problem(await client.read(), 413, "body_too_large")


async def test_a_body_of_exactly_the_limit_is_accepted(server):
    body = b'{"type":"x"}'.ljust(LONGEST)
    assert (await server.post("/jobs/enqueue", body)).status == 201
    assert (await server.post("/jobs/enqueue", body + b" ")).status == 413


# -- hypothesis -------------------------------------------------------------------------------------

NAMES = [
    "type",
    "queue",
    "queues",
    "priority",
    "payload",
    "wait",
    "lease_for",
    "count",
    "consumer",
    "lease",
    "result",
    "id",
    "x",
]
NAMES += ["delay", "run_at", "expires_in", "max_attempts", "backoff", "retain_for", "unique_key", "tags"]
NAMES += ["unique_while", "on_conflict", "headers", "key", "atomic", "error", "retry", "retry_in", "progress"]
NAMES += ["message", "force", "status", "tag", "older_than", "all", "dry_run", "order", "limit", "cursor"]
NAMES += ["rate", "key_limits", "max_jobs", "max_in_progress", "dead_letter", "for", "reason"]
# A path with a query of its own is another call.
FUZZED = [("POST", path) for path in CALLS]
FUZZED += [("POST", f"/jobs/{verb}") for verb in ("conclude", "heartbeat", "release", "fail")]
FUZZED += [("POST", "/jobs/1/redrive"), ("PATCH", "/jobs/1"), ("GET", "/jobs/1"), ("DELETE", "/jobs/1")]
FUZZED += [("GET", "/jobs"), ("GET", "/jobs/count"), ("GET", "/queues"), ("PATCH", "/queues/default")]
FUZZED += [("POST", f"/queues/default/{verb}") for verb in ("pause", "resume", "purge", "redrive")]
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    | st.sampled_from(["default", "5m", "30", "a,b", "\x00", "../x", "-1", "1e5", "\ud800"])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
objects = st.dictionaries(
    st.sampled_from(NAMES) | st.sampled_from([n.title() for n in NAMES]) | st.text(max_size=8),
    values,
    max_size=5,
)
documents = objects | st.lists(objects, max_size=4) | values
json_bodies = documents.map(lambda document: json.dumps(document).encode()) | documents.map(
    lambda document: json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")
)
line_bodies = st.lists(json_bodies, max_size=4).map(b"\n".join)
cut_bodies = st.tuples(json_bodies, st.integers(0, 60), st.binary(max_size=3)).map(
    lambda t: t[0][: t[1]] + t[2] + t[0][t[1] :]
)
bodies = json_bodies | line_bodies | cut_bodies | st.binary(max_size=64)
queries = st.lists(
    st.tuples(st.sampled_from(NAMES), st.text("aZ0.,-%+ \u00e9", max_size=6)), max_size=2
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs).replace(" ", "+").encode("ascii",
"ignore").decode())  # fmt: skip


@pytest.mark.parametrize("server", ["fast", "tornado"], indirect=True)
@given(call=st.sampled_from(FUZZED), query=queries, body=bodies, lines=st.booleans())
@example(call=FUZZED[0], query="", body=b'{"type":"\\ud800"}', lines=False)
@example(call=FUZZED[0], query="", body=b"", lines=True)
@example(call=FUZZED[1], query="wait=%", body=b"", lines=False)
@example(call=FUZZED[0], query="type=x&unique_key=k&unique_while=x", body=b"", lines=False)
@example(call=FUZZED[0], query="type=x&unique_key=k&on_conflict=x", body=b"", lines=False)
@example(call=("POST", "/jobs/fail"), query="error=%00&retry=", body=b'[{"id":1},{}]', lines=False)
@example(call=("PATCH", "/jobs/1"), query="", body=b'{"key":"\\ud800"}', lines=False)
@hypothesis_settings(
    max_examples=150, deadline=None, database=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
def test_any_body_is_answered_by_a_success_or_a_problem_document(server, io_loop, call, query, body, lines):
    method, path = call
    headers = {"Content-Type": "application/x-ndjson"} if lines else {}

    async def ask():
        client = await server.connect()
        client.ask(method, f"{path}?{query}", body, headers)
        answered = client.read()
        # Do not wait for a wait that was accepted.
        task = asyncio.ensure_future(answered)
        while not task.done():
            await asyncio.sleep(0)
            server.clock.advance("2m")
            server.engine.tick()
        client.close()
        return task.result()

    answer = io_loop.run_sync(ask)
    assert answer.status < 500, answer
    if answer.status >= 400:
        check_problem(answer, answer.status, answer.json["code"])
    else:
        assert answer.status in (200, 201, 202, 204), answer
        assert answer.status == 204 or answer.json
