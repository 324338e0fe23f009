"""What ends or keeps a lease is not refused for a text, and a bad text harms only the item that it stands in."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leasing import leased
from serving import check_problem

from jobqueue.web.readers import cut
from jobqueue.web.readers.json_text import items_of

RAW = {"Content-Type": "text/plain"}


@pytest.mark.parametrize(
    "error",
    ["e" * 20_000, '"\n' * 10_000, "é" * 9_000, {"type": "T" * 300, "message": "m" * 20_000, "details": {"a": "b" * 20_000}}],
    ids=["long", "escapes", "letters", "object"],
)  # fmt: skip
async def test_a_long_error_is_cut_and_the_failure_counts(server, error):
    job = await leased(server)
    answer = await server.post(f"/jobs/{job['id']}/fail", {"lease": job["lease"], "error": error})
    assert (answer.status, answer.json["status"], answer.json["truncated"]) == (200, "scheduled", ["error"])
    kept = (await server.job(job["id"]))["error"]
    assert 15_000 < len(json.dumps(kept, ensure_ascii=False).encode()) <= 16 << 10
    assert "left out" in (kept if isinstance(kept, str) else kept["message"])
    assert "truncated" not in await server.job(job["id"])


async def test_the_details_of_an_error_that_is_cut_have_numbers_of_any_size(server):
    job = await leased(server)
    error = b'{"message":"' + b"m" * 20_000 + b'","details":{"n":1e999}}'
    body = b'{"lease":"' + job["lease"].encode() + b'","error":' + error + b"}"
    answer = await server.post(f"/jobs/{job['id']}/fail", body)
    assert (answer.status, answer.json["truncated"]) == (200, ["error"])
    assert b'"details":{"n":1e999}' in (await server.get(f"/jobs/{job['id']}")).body


async def test_a_raw_error_is_cut_too(server):
    job = await leased(server)
    answer = await server.post(f"/jobs/{job['id']}/fail?raw=1&lease={job['lease']}", b"\xff" * 20_000, RAW)
    assert (answer.status, answer.json["truncated"]) == (200, ["error"])


@pytest.mark.parametrize(
    ("message", "kept", "truncated"),
    [("x" * 501, "x" * 499 + "…", ["message"]), ("a\nb\tc", "a\nb\tc", None), ("x" * 500, "x" * 500, None)],
    ids=["long", "lines", "fits"],
)
async def test_a_heartbeat_with_any_message_keeps_the_lease(server, message, kept, truncated):
    job = await leased(server)
    answer = await server.post(f"/jobs/{job['id']}/heartbeat", {"lease": job["lease"], "message": message})
    assert (answer.status, answer.json.get("truncated")) == (200, truncated)
    assert (await server.job(job["id"]))["message"] == kept


@pytest.mark.parametrize(("progress", "kept"), [(50.0, 50), (49.6, 50), (0.2, 0), (99.9, 100), (7, 7)])
async def test_progress_may_have_a_fraction(server, progress, kept):
    job = await leased(server)
    for path, body in (
        ("heartbeat", {"lease": job["lease"], "progress": progress}),
        (f"heartbeat?progress={progress}", {"lease": job["lease"]}),
    ):
        assert (await server.post(f"/jobs/{job['id']}/{path}", body)).status == 200
        assert (await server.job(job["id"]))["progress"] == kept
    check_problem(
        await server.post(f"/jobs/{job['id']}/heartbeat", {"progress": 100.6}),
        400,
        "invalid_field",
        field="progress",
    )


async def test_output_that_is_too_long_is_cut_and_the_job_is_concluded(server):
    most = server.engine.settings.max_result
    for body, start in (
        (b"a" * (most + 1), "aaa"),
        ("é\n".encode() * most, "é\né"),
        (b"\xff" * (most + 9), "////"),
    ):
        job = await leased(server)
        answer = await server.post(f"/jobs/{job['id']}/conclude?raw=1&lease={job['lease']}", body, RAW)
        assert (answer.status, answer.json["status"], answer.json["truncated"]) == (
            200,
            "concluded",
            ["result"],
        )
        found = await server.job(job["id"])
        assert found["result"].startswith(start)
        if body[:1] != b"\xff":
            assert found["result"].endswith(f"… (cut; it had {len(body):,} bytes)")


async def test_output_that_is_cut_is_followed_by_the_next_job(server):
    most = server.engine.settings.max_result
    job = await leased(server)
    await server.enqueue()
    path = f"/jobs/{job['id']}/conclude?raw=1&next=1&lease={job['lease']}"
    assert (await server.post(path, b"a" * (most + 1), RAW)).status == 200
    assert (await server.job(job["id"]))["status"] == "concluded"


async def test_json_is_not_cut(server):
    most = server.engine.settings.max_result
    job = await leased(server)
    long = {"lease": job["lease"], "result": "x" * most}
    check_problem(
        await server.post(f"/jobs/{job['id']}/conclude", long), 413, "body_too_large", field="result"
    )
    raw = json.dumps(["x" * most]).encode()
    answer = await server.post(
        f"/jobs/{job['id']}/conclude?raw=1&lease={job['lease']}", raw, {"Content-Type": "application/json"}
    )
    check_problem(answer, 413, "body_too_large", field="result")
    assert (await server.job(job["id"]))["status"] == "in_progress"


async def test_a_result_that_is_too_long_harms_only_its_item(server):
    most = server.engine.settings.max_result
    jobs = [await leased(server) for _ in range(3)]
    items = [{"id": job["id"], "lease": job["lease"], "result": "ok"} for job in jobs]
    items[1]["result"] = "x" * most
    answer = await server.post("/jobs/conclude", items)
    assert (answer.status, answer.json["ok"], answer.json["failed"]) == (200, 2, 1)
    bad = answer.json["results"][1]
    assert (bad["index"], bad["error"]["code"], bad["error"]["field"]) == (1, "body_too_large", "result")


async def test_of_many_reports_each_says_what_was_cut(server):
    jobs = [await leased(server) for _ in range(2)]
    items = [
        {"id": job["id"], "lease": job["lease"], "message": "x" * (400 + 200 * n)}
        for n, job in enumerate(jobs)
    ]
    results = (await server.post("/jobs/heartbeat", items)).json["results"]
    assert [result.get("truncated") for result in results] == [None, ["message"]]


TEXTS = {
    "half a character": b'"\\ud800"',
    "no UTF-8": b'"\xff"',
    "a control character": b'"\x01"',
    "a bracket": b'"]\\ud9ff,{"',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("form", ["array", "lines"])
async def test_a_text_that_is_no_json_harms_only_its_item(server, text, form):
    items = [b'{"type":"a"}', b'{"type":"b","payload":' + text + b"}", b'{"type":"c"}']
    if form == "array":
        body, headers = b"[" + b", ".join(items) + b"]", {}
    else:
        body, headers = b"\n".join(items), {"Content-Type": "application/x-ndjson"}
    problem = check_problem(await server.post("/jobs/enqueue", body, headers), 400, "invalid_json")
    assert problem["index"] == 1
    assert (await server.get("/jobs/count")).json["count"] == 0
    answer = await server.post("/jobs/enqueue?atomic=false", body, headers)
    assert (answer.status, answer.json["ok"], answer.json["failed"]) == (200, 2, 1)
    assert [part.get("index") for part in answer.json["results"]] == [None, 1, None]


@pytest.mark.parametrize(
    ("body", "index"),
    [
        (b'[{"type":"a"},{"type":b},{"type":"c"}]', 1),
        (b'[{"type":"a,b"},{"type":"c","tags":["]",}]', 1),
        (b"[,]", 0),
    ],
)
async def test_an_error_of_syntax_names_the_item(server, body, index):
    problem = check_problem(await server.post("/jobs/enqueue", body), 400, "invalid_json")
    assert problem["index"] == index


@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        )
    )
)
@settings(max_examples=200, deadline=None)
def test_items_are_found_as_they_stand(values):
    texts = [json.dumps(value, ensure_ascii=index % 2 == 0).encode() for index, value in enumerate(values)]
    assert items_of(b"[ " + b" , ".join(texts) + b"]") == texts


@given(st.text(max_size=300), st.integers(100, 400))
@settings(max_examples=200, deadline=None)
def test_a_cut_text_keeps_within_its_limit(text, most):
    assert len(cut.text_result(text * 20, most)) <= most


@given(st.dictionaries(st.sampled_from(["type", "message", "details"]), st.text(max_size=200)))
@settings(max_examples=200, deadline=None)
def test_a_cut_error_keeps_within_its_limit(error):
    long = json.dumps({name: value * 300 for name, value in error.items()}).encode()
    short, was_cut = cut.error(long)
    assert len(short) <= cut.MAX_ERROR
    assert was_cut == (short != long)
    assert (
        list(json.loads(short)) == [name for name in ("type", "message", "details") if name in error]
        or not was_cut
    )
