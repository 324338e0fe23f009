"""Allowed and refused values of the fields of the verbs: each bad value is a 400 that names the field, and
nothing changes."""

import pytest
from leasing import leased, said
from serving import check_problem

from jobqueue.web.schema.requests import SET_BY_THE_QUEUE, EnqueueOptions

YEAR = "366d"
DURATIONS = ["1s", "5m", 90, 0.5, "0.5", "1h30m", "500ms", YEAR]
NO_DURATIONS = [-1, "-1", "x", "", "5 m", "1e3", "1h-", True, [], {}, "367d", 1e300, 2**70]
TEXTS = ["a", "é ✓ ", "x" * 256]
NO_TEXTS = ["", "x" * 257, "a\nb", "\x00", "\x7f", 7, True, [], {}]

# Fields of a job at enqueue and by PATCH; some at enqueue only.
JOB = {
    "delay": ([0, *DURATIONS], NO_DURATIONS),
    "run_at": (["2027-06-01T00:00:00Z"], ["x", "", 5, "5", True, [], "2027-06-01", "2029-01-01T00:00:00Z"]),
    "expires_in": (DURATIONS, [0, "0s", *NO_DURATIONS]),
    "lease_for": ([1, "24h", "90s"], [0, 0.9, "24h1s", *NO_DURATIONS]),
    "max_attempts": ([1, 10_000, None], [0, -1, 10_001, 1.0, "1", True, [], 2**70]),
    "backoff": (
        [[1], ["1s", 2, 0], [1] * 100, {}, {"base": 0}, {"factor": 1},
         {"factor": 100, "jitter": 1, "max": 0}],
        [[], [1] * 101, [-1], [None], ["x"], [["1s"]], 5, "1s", True, {"base": -1},
         {"base": None, "factor": 0.9},
         {"factor": 101}, {"factor": "2"}, {"jitter": -0.1}, {"jitter": 1.1}, {"max": "x"}, {"base": []}],
    ),
    "retain_for": ([0, *DURATIONS], NO_DURATIONS),
    "key": (TEXTS, NO_TEXTS),
    "tags": ([[], ["a"], ["x" * 64], [str(n) for n in range(16)], ["a"] * 20],
             [[""], ["x" * 65], ["a\n"], [7], "a", 7, {}, [str(n) for n in range(17)], [None]]),
    "headers": ([{}, {"a": ""}, {"Case": "Kept", "é": "\n"}, {"x": "y" * 4088}],
                [[], "a", 7, {"a": 1}, {"a": None}, {"a": ["b"]}, {"x": "y" * 4089}]),
}  # fmt: skip
NEW_ONLY = {
    "unique_key": (TEXTS, NO_TEXTS),
    "unique_while": (["queued", "active", "exists"], ["", "Queued", "always", 1, [], True]),
    "on_conflict": (["ignore", "reject", "replace"], ["", "Reject", "fail", 1, [], True]),
}


def together(field, value):
    """Adds a key to a scope or conflict, which need one."""
    return {"unique_key": f"key {value}", field: value} if field[:2] in ("un", "on") else {field: value}


@pytest.mark.parametrize("field", [*JOB, *NEW_ONLY])
async def test_the_fields_of_a_new_job_are_checked(server, field):
    good, bad = {**JOB, **NEW_ONLY}[field]
    for value in good:
        answer = await server.post("/jobs/enqueue", {"type": "x", **together(field, value)})
        assert answer.status == 201, (value, answer)
    before = (await server.get("/jobs/count")).json
    for value in bad:
        job = {"type": "x", **together(field, value)}
        for body, index in (
            (job, None),
            ([{"type": "x"}, job], 1),
            ({n.upper(): v for n, v in job.items()}, None),
        ):
            problem = check_problem(
                await server.post("/jobs/enqueue", body), 400, "invalid_field", index=index
            )
            assert problem["field"] == field or f"'{problem['field']}'" in str(value), (value, problem)
            assert field in problem["detail"], (value, problem)
    assert (await server.get("/jobs/count")).json == before


@pytest.mark.parametrize("field", JOB)
async def test_the_fields_of_a_change_are_checked(server, field):
    good, bad = JOB[field]
    await server.enqueue()
    for value in good:
        answer = await server.call("PATCH", "/jobs/1", {field: value})
        assert answer.status == 200, (value, answer)
    before = await server.get("/jobs/1")
    for value in bad:
        answer = await server.call("PATCH", "/jobs/1", {field: value})
        problem = check_problem(answer, 400, "invalid_field")
        assert problem["field"] == field or f"'{problem['field']}'" in str(value), (value, problem)
    after = await server.get("/jobs/1")
    assert (after.body, after.headers["etag"]) == (before.body, before.headers["etag"])


async def test_zero_attempts_are_answered_with_what_to_write(server):
    for path, body in [
        ("/jobs/enqueue", {"type": "x", "max_attempts": 0}),
        ("/jobs/enqueue?type=x&max_attempts=0", None),
    ]:
        problem = check_problem(await server.post(path, body), 400, "invalid_field", field="max_attempts")
        assert "1 is no retry" in problem["detail"]
        assert "null is no limit" in problem["detail"]


async def test_refusals_name_the_limit(server):
    for job, limit in [
        ({"tags": [str(n) for n in range(17)]}, 16), ({"headers": {"x": "y" * 5000}}, 4096),
        ({"max_attempts": 10_001}, 10_000),
        ({"lease_for": "25h"}, 86400),
    ]:  # fmt: skip
        answer = await server.post("/jobs/enqueue", {"type": "x", **job})
        check_problem(answer, 400, "invalid_field", limit=limit)


QUERIES = [
    ("priority=1.0", "priority"), ("delay=", "delay"), ("delay=soon", "delay"), ("delay=-5", "delay"),
    ("run_at=tomorrow", "run_at"), ("run_at=", "run_at"), ("run_at=2027-06-01T00:00:00", "run_at"),
    ("expires_in=0", "expires_in"), ("max_attempts=many", "max_attempts"), ("max_attempts=", "max_attempts"),
    ("backoff=", "backoff"), ("backoff=1,x", "backoff"), ("retain_for=x", "retain_for"), ("key=", "key"),
    ("unique_key=", "unique_key"), ("unique_key=k&unique_while=always", "unique_while"),
    ("unique_key=k&on_conflict=fail", "on_conflict"), ("tags=a,,b", "tags"), ("headers=a", "headers"),
    ("atomic=no", "atomic"), ("atomic=2", "atomic"), ("lease_for=1ms", "lease_for"),
]  # fmt: skip


async def test_options_that_do_not_belong_in_the_query_are_refused(server):
    for query, field in QUERIES:
        for body in (None, [{"payload": 1}]):
            answer = await server.post(f"/jobs/enqueue?type=x&{query}", body)
            check_problem(answer, 400, "invalid_field", field=field)
    assert (await server.get("/jobs/count")).json == {"count": 0}


async def test_an_option_given_twice_must_mean_the_same(server):
    for query, body in [
        ("delay=60", {"delay": "1m"}), ("max_attempts=null", {"max_attempts": None}),
        ("tags=a,b", {"tags": ["a", "b"]}),
        ("retain_for=1h", {"retain_for": 3600}), ("unique_key=k&unique_while=exists", {"unique_key": "k"}),
    ]:  # fmt: skip
        answer = await server.post(f"/jobs/enqueue?type=x&{query}", body)
        assert answer.status in (200, 201), answer
    for query, body, field in [
        ("delay=60", {"delay": 61}, "delay"), ("max_attempts=1", {"max_attempts": None}, "max_attempts"),
        ("tags=a", {"tags": ["b"]}, "tags"), ("key=a", {"key": "b"}, "key"), ("delay=1&delay=2", {}, "delay"),
    ]:  # fmt: skip
        answer = await server.post(f"/jobs/enqueue?type=x&{query}", body)
        check_problem(answer, 400, "invalid_field", field=field)


HOLDER = {
    "heartbeat": {
        "progress": ([0, 100, 5.0, 99.5], [-1, 101, "5", True, []]),
        "message": (["", "x" * 501, "a\nb"], [7, [], {}]),
    },
    "release": {"delay": ([0], NO_DURATIONS)},
    "fail": {"retry": ([], ["true", 1, 0, "", []]), "retry_in": ([0], NO_DURATIONS)},
}  # fmt: skip


@pytest.mark.parametrize("verb", HOLDER)
async def test_the_fields_of_calls_under_a_lease_are_checked(server, verb):
    job = await leased(server)
    for field, (good, bad) in HOLDER[verb].items():
        for value in bad:
            answer = await server.post(f"/jobs/{job['id']}/{verb}", said(job, **{field: value}))
            check_problem(answer, 400, "invalid_field", field=field)
            answer = await server.post(f"/jobs/{verb}", [{"id": job["id"], field: value}])
            assert answer.json["results"][0]["error"]["field"] == field
        assert (await server.job(job["id"]))["status"] == "in_progress"
        for value in good:
            answer = await server.post(f"/jobs/{job['id']}/{verb}", said(job, **{field: value}))
            assert answer.status == 200, answer
            job = job if verb == "heartbeat" else await leased(server, {"priority": 1})
    for query in ("progress=x", "retry=perhaps", "delay=soon", "retry_in=-1"):
        field = query.split("=")[0]
        if field in HOLDER[verb]:
            answer = await server.post(f"/jobs/{job['id']}/{verb}?{query}")
            check_problem(answer, 400, "invalid_field", field=field)


async def test_every_call_refuses_an_unknown_field_with_the_nearest_name(server):
    await leased(server)
    for method, path, name, nearest in [
        ("POST", "/jobs/enqueue", "max_attempt", "max_attempts"), ("POST", "/jobs/enqueue", "tag", "tags"),
        ("POST", "/jobs/1/release", "dealy", "delay"), ("POST", "/jobs/1/fail", "eror", "error"),
        ("POST", "/jobs/1/heartbeat", "progess", "progress"), ("PATCH", "/jobs/1", "prioritee", "priority"),
        ("GET", "/jobs/1", "wiat", "wait"), ("DELETE", "/jobs/1", "forced", "force"),
        ("GET", "/jobs", "limits", "limit"), ("GET", "/jobs/count", "states", "status"),
        ("GET", "/queues", "curser", "cursor"), ("PATCH", "/queues/q", "max_job", "max_jobs"),
        ("POST", "/queues/q/pause", "fore", "for"), ("POST", "/queues/q/purge", "dryrun", "dry_run"),
        ("POST", "/queues/q/redrive", "olderthan", "older_than"),
    ]:  # fmt: skip
        for answer in (
            await server.call(
                method, f"{path}?type=x&{name}=1" if path.endswith("enqueue") else f"{path}?{name}=1"
            ),
            await server.call(
                method, path, {"type": "x", name: 1} if path.endswith("enqueue") else {name: 1}
            ),
        ):
            problem = check_problem(answer, 400, "unknown_field", field=name, nearest=nearest)
            assert name in problem["detail"]
    check_problem(await server.post("/jobs/1/redrive", {"delay": 1}), 400, "unknown_field", field="delay")
    check_problem(await server.post("/queues/q/resume?for=1"), 400, "unknown_field", field="for")
    assert (await server.job(1))["status"] == "in_progress"


def test_no_field_of_an_enqueue_is_both_read_and_ignored():
    assert SET_BY_THE_QUEUE.isdisjoint(EnqueueOptions.__struct_fields__)


async def test_a_fetched_job_can_be_enqueued_again_as_it_is(server):
    await server.enqueue(
        delay=1, expires_in=3600, lease_for=30, max_attempts=2, backoff={"base": 1}, retain_for=60, key="k",
        unique_key="u", unique_while="queued", tags=["t"], headers={"a": "b"}, payload=[1],
    )  # fmt: skip
    before = await server.job(1)
    server.clock.advance(2)
    server.engine.tick()
    job = await server.dequeue()
    await server.post("/jobs/1/heartbeat", said(job, progress=5, message="m"))
    await server.post("/jobs/1/fail", said(job, error="e", retry=False))
    for seen in (before, job, await server.job(1)):
        answer = await server.post("/jobs/enqueue", seen)
        assert answer.status == 201, answer
        new = await server.job(answer.json["id"])
        for name in ("lease_for", "max_attempts", "backoff", "retain_for", "key", "unique_key", "tags",
                     "headers", "payload"):  # fmt: skip
            assert new[name] == before[name]
        for name in ("reason", "error", "history", "progress", "message", "expires_at", "finished_at"):
            assert name not in new
        await server.delete(f"/jobs/{new['id']}")
