"""What operators look for: retrying jobs, a text in payloads, groups of failures, last errors."""

import json

import pytest
from leasing import dead, later, leased, said
from serving import check_problem


async def ids(server, query):
    answer = await server.get(f"/jobs?{query}")
    assert answer.status == 200, answer
    return [job["id"] for job in answer.json["jobs"]]


async def failed(server, error=None, job=None):
    """Returns the id of a job whose attempt failed; it waits for its retry."""
    got = await leased(server, job)
    await server.post(
        f"/jobs/{got['id']}/fail", said(got, retry_in=60, **({} if error is None else {"error": error}))
    )
    return got["id"]


async def test_a_status_that_does_not_exist_is_answered_with_the_nearest(server):
    answer = await server.get("/jobs?status=conclude")
    check_problem(answer, 400, "invalid_field", field="status")
    assert answer.json["detail"].startswith("status: must be one of scheduled, queued, ")
    assert answer.json["detail"].endswith("; not 'conclude'; did you mean concluded?")
    assert "did you mean" not in (await server.get("/jobs?status=x")).json["detail"]


# -- retrying ---------------------------------------------------------------------------------------


async def test_jobs_that_wait_for_a_retry_are_told_apart_from_other_scheduled_ones(server):
    delayed = await server.enqueue(delay=60)
    released = await leased(server, {"priority": 1})
    await server.post(f"/jobs/{released['id']}/release", said(released, delay=60))
    retried = await failed(server)
    assert await ids(server, "retrying=1") == [retried]
    assert await ids(server, "status=scheduled&retrying=0") == [delayed, released["id"]]
    assert (await server.get("/jobs/count?retrying=true")).json == {"count": 1}
    assert (await server.job(retried))["retrying"] is True
    assert "retrying" not in await server.job(delayed)
    queue = (await server.get("/queues/default")).json
    assert (queue["jobs"]["scheduled"], queue["retrying"]) == (3, 1)
    await later(server, 60)
    assert "retrying" not in await server.job(retried)
    assert (await server.get("/queues/default")).json["retrying"] == 0
    check_problem(await server.get("/jobs?retrying=maybe"), 400, "invalid_field", field="retrying")


@pytest.mark.parametrize("end", ["run_now", "cancel", "purge", "move?to=other"])
async def test_a_retrying_job_that_leaves_its_queue_counts_there_no_more(server, end):
    await failed(server)
    await server.post(f"/queues/default/{end}", {"retrying": True})
    assert (await server.get("/queues/default")).json["retrying"] == 0
    moved = 1 if end.startswith("move") else 0
    assert (await server.get("/queues/other")).json["retrying"] == moved


@pytest.mark.parametrize("how", ["failed", "stale"])
async def test_a_redriven_job_that_is_delayed_is_not_retrying_here_and_where_it_is_imported(server, how):
    id = await server.enqueue(max_attempts=1)
    job = await server.dequeue()
    if how == "failed":
        await server.post(f"/jobs/{id}/fail", said(job))
    else:
        await later(server, 301)
    assert (await server.job(id))["status"] == "dead"
    await server.post(f"/jobs/{id}/redrive")
    await server.call("PATCH", f"/jobs/{id}", {"delay": "1h"})
    line = (await server.get("/queues/default/export")).body
    await server.post("/queues/default/purge", {"all": True})
    assert (await server.call("POST", "/import", line)).json["imported"] == 1
    for shown in (json.loads(line), *(await server.get("/jobs?status=scheduled")).json["jobs"]):
        assert (shown["status"], shown["attempts"]) == ("scheduled", 0)
        assert "retrying" not in shown
    assert (await server.get("/queues/default")).json["retrying"] == 0


async def test_an_exported_retrying_job_can_be_imported_and_enqueued_again(server):
    await failed(server)
    line = (await server.get("/queues/default/export")).body
    assert b'"retrying":true' in line
    await server.post("/queues/default/purge?retrying=1")
    assert (await server.call("PUT", "/import", line.replace(b'"origin":"', b'"origin":"x'))).json[
        "imported"
    ] == 1
    job = {
        name: value
        for name, value in (await server.get("/jobs?status=scheduled")).json["jobs"][0].items()
        if name != "run_at"
    }
    assert (await server.post("/jobs/enqueue", job | {"retrying": True})).status == 201


# -- text in payloads -------------------------------------------------------------------------------


async def test_jobs_are_found_by_a_text_in_their_payload(server):
    ada = await server.enqueue(payload={"to": "ada@example.com"})
    await server.enqueue(payload={"to": "bob@example.com"})
    escaped = await server.enqueue(payload='say "café"')  # the client of the tests writes ASCII
    sent = await server.post("/jobs/enqueue", '{"type":"x","payload":"un café"}'.encode())
    assert await ids(server, "text=ada@") == [ada]
    assert await ids(server, "text=Ada") == []
    assert b"caf\\u00e9" in (await server.get(f"/jobs/{escaped}")).body
    assert await ids(server, "text=caf%C3%A9") == [escaped, sent.json["id"]]
    assert await ids(server, "text=%22caf%C3%A9%22") == [escaped]
    assert (await server.get("/jobs/count?text=example.com")).json == {"count": 2}
    assert (await server.post("/queues/default/cancel?text=bob")).json["changed"] == 1
    for query in ("text=", "text=" + "x" * 257):
        check_problem(await server.get(f"/jobs?{query}"), 400, "invalid_field", field="text")


async def test_a_search_for_a_text_examines_a_limited_number_of_bytes(server):
    """The page is short, and its cursor leads on to the job that is found."""
    for _ in range(6):
        await server.enqueue(payload="x" * 1_000_000)
    wanted = await server.enqueue(payload="needle")
    first = (await server.get("/jobs?text=needle")).json
    assert first["jobs"] == []
    second = (await server.get(f"/jobs?text=needle&cursor={first['next']}")).json
    assert [job["id"] for job in second["jobs"]] == [wanted]
    assert (await server.get("/jobs/count?text=needle")).json == {"count": 1}


# -- groups -----------------------------------------------------------------------------------------


async def test_dead_and_retrying_jobs_are_counted_by_type_and_error(server):
    timeouts = [
        await failed(server, {"type": "Timeout", "message": f"{n} s"}, {"type": "a"}) for n in range(2)
    ]
    died = [await dead(server, type="b") for _ in range(2)]
    died.append(await dead(server, type="a"))
    await server.enqueue(type="a", delay=60)
    await server.enqueue(type="a")
    await failed(server, "line one\nline two", {"type": "c", "priority": 1})
    assert (await server.get("/jobs/groups")).json == {
        "groups": [
            {"count": 2, "dead": 0, "retrying": 2, "type": "a", "error": "Timeout", "sample": timeouts},
            {"count": 2, "dead": 2, "retrying": 0, "type": "b", "error": "no good", "sample": died[:2]},
            {"count": 1, "dead": 1, "retrying": 0, "type": "a", "error": "no good", "sample": died[2:]},
            {"count": 1, "dead": 0, "retrying": 1, "type": "c", "error": "line one", "sample": [died[2] + 3]},
        ],
        "rest": 0,
    }
    answer = (await server.get("/jobs/groups?by=error&status=dead&limit=1")).json
    assert answer == {
        "groups": [{"count": 3, "dead": 3, "retrying": 0, "error": "no good", "sample": died}],
        "rest": 0,
    }
    answer = (await server.get("/jobs/groups?by=queue,reason&limit=1&type=a,b")).json
    assert answer["groups"][0] | {"sample": []} == {
        "count": 3, "dead": 3, "retrying": 0, "queue": "default", "reason": "no_retry", "sample": [],
    }  # fmt: skip
    assert answer["rest"] == 2


async def test_groups_of_what_has_no_error_or_key_leave_the_field_out(server):
    got = await leased(server, {"max_attempts": 1, "key": "k"}, lease_for=1)
    await later(server, 2)
    assert (await server.job(got["id"]))["status"] == "dead"
    answer = (await server.get("/jobs/groups?by=error,key")).json
    assert answer["groups"] == [{"count": 1, "dead": 1, "retrying": 0, "key": "k", "sample": [got["id"]]}]


async def test_one_error_with_a_number_that_no_float_holds_does_not_spoil_the_groups(server):
    got = await leased(server)
    error = b'{"type":"Overflow","details":{"n":1e999}}'
    body = b'{"lease":"' + got["lease"].encode() + b'","retry":false,"error":' + error + b"}"
    assert (await server.post(f"/jobs/{got['id']}/fail", body)).status == 200
    [group] = (await server.get("/jobs/groups?by=error")).json["groups"]
    assert (group["error"], group["count"]) == ("Overflow", 1)


async def buried(server, error, type):
    id = await server.enqueue(max_attempts=1, type=type)
    got = await server.dequeue()
    await server.post(f"/jobs/{id}/fail", said(got, error=error))
    return id


async def test_jobs_are_selected_by_the_name_of_their_last_error(server):
    named = await buried(server, {"type": "Timeout", "message": "after 30 s"}, "a")
    spoken = await buried(server, "no host, none\nat all", "a")
    without = await dead(server, type="b")
    retried = await failed(server, {"type": "Timeout"})
    await server.enqueue(type="c")
    assert await ids(server, "error=Timeout") == [named, retried]
    assert await ids(server, "error=no+host,+none") == [spoken]
    assert await ids(server, "error=no") == []
    assert await ids(server, "type=b") == [without]
    group = (await server.get("/jobs/groups?by=error&error=Timeout")).json["groups"]
    assert [(one["error"], one["count"]) for one in group] == [("Timeout", 2)]
    swept = await server.post("/queues/default/redrive", {"error": "Timeout"})
    assert swept.json == {"matched": 1, "changed": 1, "sample": [named]}


async def test_what_cannot_be_grouped_is_refused(server):
    for query, field in (("by=size", "by"), ("by=", "by"), ("status=queued", "status"), ("limit=0", "limit")):
        check_problem(await server.get(f"/jobs/groups?{query}"), 400, "invalid_field", field=field)


# -- the last error in lists ------------------------------------------------------------------------


async def test_lists_show_the_last_error_of_each_job(server):
    await failed(server, {"type": "Timeout", "message": "after 30 s\nand more"})
    await dead(server, type="b", priority=1)
    await server.enqueue(type="c")
    errors = [job.get("error") for job in (await server.get("/jobs")).json["jobs"]]
    assert errors == [{"type": "Timeout", "message": "after 30 s\nand more"}, "no good", None]
    lines = (await server.get("/jobs?format=text")).body.decode().splitlines()
    assert lines[1].endswith("Timeout: after 30 s")
    assert lines[2].endswith("no good")
    assert lines[3].endswith("Z")
    assert b"Timeout: after 30 s<" in (await server.get("/jobs?format=html")).body
