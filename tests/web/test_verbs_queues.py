"""Queues: their settings, pauses and limits, and who may change them."""

import pytest
from leasing import NOW, dead, later, leased, said
from serving import check_problem

from jobqueue.web.http import Request


async def patch(server, name, body, headers=None):
    answer = await server.call("PATCH", f"/queues/{name}", body, headers)
    assert answer.status == 200, answer
    return answer.json


async def free(server):
    """Returns a client that waits for a job of the queue q, once it waits."""
    before = server.engine.stats().consumers_waiting
    client = await server.ask("POST", "/jobs/dequeue?queue=q&wait=60")
    await server.waiting(before + 1)
    return client


# -- settings ---------------------------------------------------------------------------------------

SETTINGS = {
    "lease_for": ("2m", 120), "max_attempts": (3, 3), "backoff": (["10s", 60], [10, 60]),
    "retain_for": (0, 0), "dead_letter": ("letters", "letters"), "max_jobs": (10, 10),
    "max_bytes": (1000, 1000), "max_in_progress": (2, 2),
    "rate": ({"count": 50, "per": "1m"}, {"count": 50, "per": 60, "burst": 5}),
    "key_limits": (
        {"max_in_progress": 1, "rate": {"count": 1, "burst": 0}},
        {"max_in_progress": 1, "rate": {"count": 1, "per": 1, "burst": 0}},
    ),
}  # fmt: skip


async def test_settings_are_merged_and_unset_by_null(server):
    expected = {}
    for name, (given, shown) in SETTINGS.items():
        expected[name] = shown
        assert (await patch(server, "q", {name: given}))["settings"] == expected
    assert (await server.get("/queues/q")).json["settings"] == expected
    assert (await patch(server, "q", {}))["settings"] == expected
    for name in SETTINGS:
        del expected[name]
        assert (await patch(server, "q", {name.upper(): None}))["settings"] == expected
    assert (await server.get("/queues/q")).json["settings"] == {}


async def test_nested_names_match_in_any_letter_case_and_null_means_left_out(server):
    settings = {
        "Rate": {"Count": 5, "PER": "1m", "burst": None},
        "key_limits": {"Rate": {"count": 1, "Per": 2}},
    }
    assert (await patch(server, "q", settings))["settings"] == {
        "rate": {"count": 5, "per": 60, "burst": 1},
        "key_limits": {"rate": {"count": 1, "per": 2, "burst": 1}},
    }  # fmt: skip


async def test_a_configured_queue_is_created_and_stays_listed(server):
    await patch(server, "q", {"max_jobs": 5})
    await later(server, "2h")
    assert [queue["name"] for queue in (await server.get("/queues")).json["queues"]] == ["q"]


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("lease_for", [0, "25h", "x", True, []]), ("max_attempts", [0, -1, 10_001, "3", 1.0]),
        ("backoff", [[], [-1], ["x"], 5, "10s", {"factor": 0.5}, {"jitter": 2},
         {"base": "x"}, {"factor": "2"}]),
        ("retain_for", [-1, "x", "367d"]), ("dead_letter", ["", "a b", 7, "-"]),
        ("max_jobs", [0, -1, 1.0, "5", 2**53]), ("max_bytes", [0, True, []]), ("max_in_progress", [0, "1"]),
        ("rate", [5, "5/s", [], {"count": 0}, {"count": 1, "per": 0},
         {"count": 1, "burst": -1}, {"count": "1"}]),
        ("key_limits", [5, [], {"max_in_progress": 0}, {"rate": {"count": 0}}, {"rate": 5}]),
    ],
)  # fmt: skip
async def test_the_settings_of_a_queue_are_checked(server, field, bad):
    await patch(server, "q", {field: SETTINGS[field][0]})
    for value in bad:
        answer = await server.call("PATCH", "/queues/q", {field: value})
        problem = check_problem(answer, 400, "invalid_field")
        assert field in problem["detail"] or problem["field"] in str(value), (value, problem)
    assert (await server.get("/queues/q")).json["settings"] == {field: SETTINGS[field][1]}


async def test_an_unknown_setting_is_refused_with_the_nearest_name(server):
    for body, field, nearest in [
        ({"max_job": 1}, "max_job", "max_jobs"), ({"rate": {"count": 1, "brust": 1}}, "brust", "burst"),
        ({"backoff": {"bas": 1}}, "bas", "base"), ({"key_limits": {"rat": 1}}, "rat", "rate"),
    ]:  # fmt: skip
        answer = await server.call("PATCH", "/queues/q", body)
        check_problem(answer, 400, "unknown_field", field=field, nearest=nearest)
    answer = await server.call("PATCH", "/queues/q", {"rate": {"per": 1}})
    assert "count" in check_problem(answer, 400, "missing_field", field="count")["detail"]
    check_problem(await server.call("PATCH", "/queues/a%20b", {}), 400, "invalid_field", field="name")


async def test_the_settings_of_a_queue_apply_to_its_jobs(server):
    await patch(server, "q", {"max_attempts": 2, "backoff": [7], "lease_for": 60})
    job = await leased(server, {"queue": "q"})
    assert job["lease_for"] == 60
    answer = await server.post("/jobs/1/fail", said(job))
    assert "2027-01-15T08:00:06.300Z" <= answer.json["run_at"] <= "2027-01-15T08:00:07.700Z"
    await later(server, 8)
    answer = await server.post("/jobs/1/fail", said(await server.dequeue(queue="q")))
    assert (answer.json["status"], answer.json["reason"]) == ("dead", "attempts")


# -- ETag and If-Match ------------------------------------------------------------------------------


async def test_only_settings_and_pauses_raise_the_version_of_a_queue(server):
    tag = (await server.get("/queues/q")).headers["etag"]
    await server.enqueue(queue="q")
    await server.dequeue(queue="q")
    assert (await server.get("/queues/q")).headers["etag"] == tag
    seen = {tag}
    for method, path, body in [
        ("PATCH", "/queues/q", {"max_jobs": 5}), ("POST", "/queues/q/pause", None),
        ("POST", "/queues/q/resume", None),
    ]:  # fmt: skip
        tag = (await server.call(method, path, body)).headers["etag"]
        assert tag not in seen
        assert (await server.get("/queues/q")).headers["etag"] == tag
        seen.add(tag)


@pytest.mark.parametrize("call", ["PATCH", "pause", "resume"])
async def test_if_match_refuses_a_queue_that_has_changed(server, call):
    method, path = ("PATCH", "/queues/q") if call == "PATCH" else ("POST", f"/queues/q/{call}")
    body = {"max_jobs": 5} if call == "PATCH" else None
    if call == "resume":
        await server.post("/queues/q/pause")
    before = await server.get("/queues/q")
    for tag in ('"99"', "x", '""'):
        check_problem(await server.call(method, path, body, {"If-Match": tag}), 412, "precondition_failed")
    assert (await server.get("/queues/q")).body == before.body
    for tag in (before.headers["etag"], "*"):
        assert (await server.call(method, path, body, {"If-Match": tag})).status == 200


# -- pause ------------------------------------------------------------------------------------------


async def test_a_paused_queue_delivers_nothing(server):
    held = await leased(server, {"queue": "q"})
    answer = await server.post("/queues/q/pause", {"reason": "deploy"})
    assert answer.status == 200
    assert (answer.json["paused"], answer.json["pause"]) == (True, {"at": NOW, "reason": "deploy"})
    assert list(answer.json)[:3] == ["name", "paused", "pause"]
    assert await server.enqueue(queue="q") == 2
    assert await server.dequeue(queue="q") is None
    assert await server.dequeue(queue="q", count=5) is None
    client = await free(server)
    assert (await server.post("/jobs/1/heartbeat", said(held))).status == 200
    assert (await server.post("/jobs/1/conclude", said(held))).json["status"] == "concluded"
    await server.waiting(1)
    answer = await server.post("/queues/q/resume")
    assert (answer.status, answer.json["paused"]) == (200, False)
    assert "pause" not in answer.json
    assert (await client.read()).json["id"] == 2


@pytest.mark.parametrize("path", ["/queues/q/pause?for=45s", "/queues/q/pause?for=45", "/queues/q/pause"])
async def test_a_pause_may_end_by_itself(server, path):
    await server.enqueue(queue="q")
    answer = await server.post(path, None if "?" in path else {"for": "0m45s", "reason": "é"})
    pause = answer.json["pause"]
    assert pause["until"] == "2027-01-15T08:00:45.000Z"
    client = await free(server)
    await later(server, 44)
    assert (await server.get("/queues/q")).json["paused"] is True
    await later(server, 2)
    assert (await client.read()).json["id"] == 1
    assert (await server.get("/queues/q")).json["paused"] is False


async def test_pause_and_resume_may_be_repeated(server):
    for _ in range(2):
        assert (await server.post("/queues/q/resume")).json["paused"] is False
    await server.post("/queues/q/pause", {"for": 10, "reason": "first"})
    answer = await server.post("/queues/q/pause", {"reason": "second"})
    assert answer.json["pause"] == {"at": NOW, "reason": "second"}
    await later(server, 11)
    assert (await server.get("/queues/q")).json["paused"] is True


async def test_the_other_queues_of_a_dequeue_are_not_paused(server):
    await server.enqueue(queue="q")
    await server.enqueue(queue="r")
    await server.post("/queues/q/pause")
    assert (await server.dequeue(queues="q,r"))["id"] == 2


async def test_the_fields_of_a_pause_are_checked(server):
    for body, code, field in [
        ({"for": -1}, "invalid_field", "for"), ({"for": 0}, "invalid_field", "for"),
        ({"for": "x"}, "invalid_field", "for"), ({"for": "367d"}, "invalid_field", "for"),
        ({"reason": 7}, "invalid_field", "reason"), ({"reason": "x" * 501}, "invalid_field", "reason"),
        ({"length": 5}, "unknown_field", "length"), ({"fro": 5}, "unknown_field", "fro"),
    ]:  # fmt: skip
        check_problem(await server.post("/queues/q/pause", body), 400, code, field=field)
    check_problem(await server.post("/queues/q/resume", {"for": 1}), 400, "unknown_field", field="for")
    assert (await server.get("/queues/q")).json["paused"] is False


# -- attributes -------------------------------------------------------------------------------------


async def attributes(server, given):
    answer = await server.call("PATCH", "/queues/q", {"attributes": given})
    assert answer.status == 200, answer
    return answer


async def test_attributes_are_kept_and_shown_as_they_are(server):
    text = '{ "attributes" : {"Owner":"ada","n":1.50,"deep":{"a":[1,{"b":null}]},\n"é":"\\u00e9"} }'
    answer = await server.call("PATCH", "/queues/q", text)
    kept = '{"Owner":"ada","n":1.50,"deep":{"a":[1,{"b":null}]},"é":"\\u00e9"}'
    assert f'"settings":{{"attributes":{kept}}}' in answer.body.decode()
    for path in ("/queues/q", "/queues"):
        assert kept in (await server.get(path)).body.decode()
    assert (await attributes(server, {})).json["settings"] == {"attributes": {}}
    assert (await attributes(server, None)).json["settings"] == {}


async def test_attributes_change_as_a_whole_and_with_the_etag(server):
    etag = (await attributes(server, {"a": 1, "b": 2})).headers["etag"]
    await patch(server, "q", {"max_jobs": 5})
    answer = await server.call("PATCH", "/queues/q", {"attributes": {"c": 3}}, {"If-Match": etag})
    check_problem(answer, 412, "precondition_failed")
    assert (await attributes(server, {"c": 3})).json["settings"] == {"max_jobs": 5, "attributes": {"c": 3}}


async def test_attributes_are_an_object_of_limited_length_and_depth(server):
    fits = {"x": "y" * (4096 - len('{"x":""}'))}
    await attributes(server, fits)
    for bad, limit in [({"x": fits["x"] + "y"}, 4096), ([], None), ("x", None), (7, None), (True, None)]:
        answer = await server.call("PATCH", "/queues/q", {"attributes": bad})
        check_problem(answer, 400, "invalid_field", field="attributes", limit=limit)
    deep = '{"attributes":{"x":' + "[" * 64 + "]" * 64 + "}}"
    check_problem(await server.call("PATCH", "/queues/q", deep), 400, "invalid_json")
    answer = await server.call("PATCH", "/queues/q?attributes={}", {})
    check_problem(answer, 400, "invalid_field", field="attributes")
    assert (await server.get("/queues/q")).json["settings"]["attributes"] == fits


async def test_a_queue_with_attributes_stays(server):
    await attributes(server, {"a": 1})
    await later(server, "2h")
    assert [queue["name"] for queue in (await server.get("/queues")).json["queues"]] == ["q"]


async def test_a_page_of_queues_with_attributes_is_limited(server):
    for number in range(600):
        server.engine.configure(f"q{number:03}", {"attributes": b'{"x":"%b"}' % (b"y" * 4000)})
    seen, path = [], "/queues"
    while path:
        answer = await server.get(path)
        assert len(answer.body) < 2_500_000
        seen += [queue["name"] for queue in answer.json["queues"]]
        path = f"/queues?cursor={answer.json['next']}" if "next" in answer.json else ""
    assert seen == [f"q{number:03}" for number in range(600)]


# -- bounds -----------------------------------------------------------------------------------------


async def full(server, limit, body=None):
    answer = await server.post("/jobs/enqueue", body or {"type": "x", "queue": "q"})
    problem = check_problem(answer, 429, "queue_full", limit=limit)
    assert int(answer.headers["retry-after"]) == problem["retry_after"] >= 1


async def test_max_jobs_limits_the_waiting_jobs_of_a_queue(server):
    await patch(server, "q", {"max_jobs": 2})
    await server.enqueue(queue="q")
    await server.enqueue(queue="q", delay=60)
    await full(server, 2)
    await server.enqueue(queue="other")
    await server.dequeue(queue="q")
    assert await server.enqueue(queue="q") == 4
    await full(server, 2)
    await patch(server, "q", {"max_jobs": None})
    await server.enqueue(queue="q")


async def test_a_batch_beyond_the_limit_is_refused_as_a_whole(server):
    await patch(server, "q", {"max_jobs": 2})
    await full(server, 2, [{"type": "x", "queue": queue} for queue in ("default", "q", "q", "q")])
    assert (await server.get("/jobs/count")).json == {"count": 0}
    answer = await server.post("/jobs/enqueue", [{"type": "x", "queue": "q"}] * 2)
    assert answer.status == 201


async def test_max_bytes_limits_the_payloads_of_a_queue(server):
    await patch(server, "q", {"max_bytes": 100})
    await server.enqueue(queue="q", payload="x" * 58)
    await full(server, 100, {"type": "x", "queue": "q", "payload": "x" * 39})
    await server.enqueue(queue="q", payload="x" * 38)
    await full(server, 100)


async def test_a_job_that_returns_is_never_refused(server):
    await patch(server, "q", {"max_jobs": 1})
    job = await leased(server, {"queue": "q"})
    await server.enqueue(queue="q")
    answer = await server.post("/jobs/1/release", said(job))
    assert (answer.status, answer.json["status"]) == (200, "queued")
    await full(server, 1)


async def test_retry_after_follows_from_the_rate_of_dequeues(server):
    await patch(server, "q", {"max_jobs": 20})
    for _ in range(20):
        await server.enqueue(queue="q")
    for _ in range(10):
        await later(server, 1)
        await server.dequeue(queue="q")
    for _ in range(10):
        await server.enqueue(queue="q")
    answer = await server.post("/jobs/enqueue", {"type": "x", "queue": "q"})
    check_problem(answer, 429, "queue_full")
    assert 1 <= int(answer.headers["retry-after"]) <= 5


# -- limits -----------------------------------------------------------------------------------------


async def test_max_in_progress_limits_the_jobs_in_progress(server):
    await patch(server, "q", {"max_in_progress": 2})
    for _ in range(4):
        await server.enqueue(queue="q")
    jobs = (await server.dequeue(queue="q", count=10))["jobs"]
    assert [job["id"] for job in jobs] == [1, 2]
    assert await server.dequeue(queue="q") is None
    client = await free(server)
    await server.post("/jobs/1/conclude", said(jobs[0]))
    assert (await client.read()).json["id"] == 3
    assert await server.dequeue(queue="q") is None
    await patch(server, "q", {"max_in_progress": None})
    assert (await server.dequeue(queue="q"))["id"] == 4


@pytest.mark.parametrize("end", ["conclude", "release", "fail", "stale", "cancel", "purge"])
async def test_any_end_of_a_lease_frees_its_slot(server, end):
    await patch(server, "q", {"max_in_progress": 1})
    job = await leased(server, {"queue": "q"}, lease_for=1)
    await server.enqueue(queue="q", priority=1)
    client = await free(server)
    if end == "stale":
        await later(server, 2)
    elif end == "cancel":
        await server.delete("/jobs/1?force=1")
    elif end == "purge":
        await server.post("/queues/q/purge?status=in_progress")
    else:
        await server.post(f"/jobs/1/{end}", said(job))
    assert (await client.read()).json["id"] == 2


async def test_a_rate_limits_how_many_jobs_start(server):
    await patch(server, "q", {"rate": {"count": 1, "per": "10s"}})
    for _ in range(3):
        await server.enqueue(queue="q")
    assert (await server.dequeue(queue="q"))["id"] == 1
    assert await server.dequeue(queue="q") is None
    client = await free(server)
    await later(server, "9s")
    await server.waiting(1)
    await later(server, "2s")
    assert (await client.read()).json["id"] == 2
    assert await server.dequeue(queue="q") is None


async def test_a_burst_may_start_after_a_quiet_time(server):
    await patch(server, "q", {"rate": {"count": 1, "per": "10s", "burst": 3}})
    await server.post("/jobs/enqueue", [{"type": "x", "queue": "q"}] * 5)
    assert len((await server.dequeue(queue="q", count=5))["jobs"]) == 3
    await later(server, "11s")
    assert len((await server.dequeue(queue="q", count=5))["jobs"]) == 1


async def test_key_limits_limit_the_jobs_of_a_key_in_progress(server):
    await patch(server, "q", {"key_limits": {"max_in_progress": 1}})
    for key in ("a", "a", "b", None, "a"):
        await server.enqueue(queue="q", key=key)
    jobs = (await server.dequeue(queue="q", count=10))["jobs"]
    assert [job["id"] for job in jobs] == [1, 3, 4]
    client = await free(server)
    await server.post("/jobs/1/conclude", said(jobs[0]))
    assert (await client.read()).json["id"] == 2
    assert await server.dequeue(queue="q") is None


async def test_a_key_rate_limits_how_many_jobs_of_a_key_start(server):
    await patch(server, "q", {"key_limits": {"rate": {"count": 1, "per": "10s"}}})
    for key in ("a", "a", "b"):
        await server.enqueue(queue="q", key=key)
    jobs = (await server.dequeue(queue="q", count=10))["jobs"]
    assert [job["id"] for job in jobs] == [1, 3]
    for job in jobs:
        await server.post(f"/jobs/{job['id']}/conclude", said(job))
    assert await server.dequeue(queue="q") is None
    client = await free(server)
    await later(server, "11s")
    assert (await client.read()).json["id"] == 2


# -- dead letters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["attempts", "no_retry", "expired"])
async def test_a_job_that_dies_is_queued_in_the_dead_letter_queue(server, reason):
    await patch(server, "q", {"dead_letter": "letters"})
    if reason == "expired":
        await server.enqueue(queue="q", expires_in=5, payload=1)
        await later(server, 6)
        shown = await server.job(1)
    else:
        job = await leased(server, {"queue": "q", "max_attempts": 1, "payload": 1})
        body = said(job, error="e", retry=reason == "attempts")
        shown = (await server.post("/jobs/1/fail", body)).json
        assert [line["outcome"] for line in (await server.job(1))["history"]] == ["failed"]
    assert (shown["id"], shown["status"], shown["queue"], shown["attempts"]) == (1, "queued", "letters", 0)
    assert shown["dead_from"] == {"queue": "q", "reason": reason}
    assert "reason" not in shown
    assert "finished_at" not in shown
    job = await server.dequeue(queue="letters")
    assert (job["id"], job["attempts"], job["payload"], job["dead_from"]) == (1, 1, 1, shown["dead_from"])


async def test_a_job_goes_to_a_dead_letter_queue_only_once(server):
    await patch(server, "q", {"dead_letter": "letters"})
    await patch(server, "letters", {"dead_letter": "q"})
    await dead(server, queue="q")
    job = await server.dequeue(queue="letters")
    answer = await server.post("/jobs/1/fail", said(job, retry=False))
    assert (answer.json["status"], answer.json["queue"]) == ("dead", "letters")
    assert answer.json["dead_from"] == {"queue": "q", "reason": "no_retry"}
    answer = await server.post("/jobs/1/redrive")
    assert (answer.json["status"], answer.json["queue"]) == ("queued", "letters")


async def test_a_dead_letter_goes_to_a_consumer_waiting_there(server):
    await patch(server, "default", {"dead_letter": "q"})
    client = await free(server)
    await dead(server)
    assert (await client.read()).json["dead_from"]["queue"] == "default"


# -- who may ----------------------------------------------------------------------------------------

ADMIN = [
    ("PATCH", "/queues/q"),
    *(("POST", f"/queues/q/{n}") for n in ("pause", "resume", "purge", "redrive")),
]


@pytest.mark.parametrize(("method", "path"), ADMIN)
async def test_administrative_calls_are_accepted_only_from_this_machine(server, method, path):
    await server.enqueue(queue="q")
    query = "?all=1" if path.endswith(("purge", "redrive")) else ""
    for header in ("X-Forwarded-For", "Forwarded", "Via", "X-Forwarded-Proto"):
        problem = check_problem(
            await server.call(method, path + query, None, {header: "1"}), 403, "forbidden"
        )
        assert "machine" in problem["detail"]
    # The check comes before the body is read.
    check_problem(await server.call(method, path, "{", {"Via": "1"}), 403, "forbidden")
    for peer in ("10.0.0.7", "2001:db8::1"):
        sent = Request(method, path, query[1:], {b"host": b"localhost"}, b"", peer, "id")
        assert server.dispatcher.answer(sent).status == 403
    assert (await server.call(method, path + query)).status == 200


async def test_all_other_calls_are_accepted_from_anywhere(server):
    job = await leased(server)
    for method, path, body in [
        ("POST", "/jobs/enqueue", {"type": "x"}), ("POST", "/jobs/dequeue", None), ("GET", "/queues/q", None),
        ("POST", "/jobs/1/fail", said(job, retry=False)), ("POST", "/jobs/1/redrive", None),
        ("PATCH", "/jobs/1", {"type": "y"}), ("DELETE", "/jobs/1", None), ("GET", "/jobs", None),
    ]:  # fmt: skip
        answer = await server.call(method, path, body, {"X-Forwarded-For": "10.0.0.7"})
        assert answer.status in (200, 201), answer


# -- how a queue fares ------------------------------------------------------------------------------


async def test_a_queue_shows_wait_and_run_times_and_rates(server):
    await server.get("/queues/q")
    for priority in (5, 0, 0, -1):
        await server.enqueue(queue="q", priority=priority)
    await later(server, 10)
    job = await server.dequeue(queue="q")
    await later(server, 2)
    await server.post("/jobs/1/conclude", said(job))
    queue = (await server.get("/queues/q")).json
    assert queue["by_priority"] == {"0": 2, "-1": 1}
    assert list(queue["by_priority"]) == ["0", "-1"]
    assert set(queue["rates"]) == {"in", "out"}
    assert queue["rates"]["in"] > queue["rates"]["out"] > 0
    for name, seconds in (("wait_p50", 10), ("wait_p95", 10), ("run_p50", 2), ("run_p95", 2)):
        assert 0.75 * seconds <= queue[name] <= 1.25 * seconds, queue
    assert (await server.get("/queues")).json["queues"] == [queue]
