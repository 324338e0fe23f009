"""POST /jobs/{id}/release and fail: what becomes of the job, of its attempts and of its history."""

import pytest
from leasing import NOW, VERBS, dead, later, leased, said
from serving import check_problem

from jobqueue import Settings

# -- release ----------------------------------------------------------------------------------------


async def test_a_released_job_is_queued_again_and_the_attempt_is_not_charged(server):
    job = await leased(server, consumer="w1")
    answer = await server.post("/jobs/1/release", said(job))
    assert answer.status == 200
    assert answer.body == (
        b'{"id":1,"status":"queued","queue":"default","type":"x","priority":0,"attempts":0,"leases":1,'
        b'"created_at":"2027-01-15T08:00:00.000Z","started_at":"2027-01-15T08:00:00.000Z","consumer":"w1"}\n'
    )
    assert answer.headers["etag"] == '"3"'
    again = await server.dequeue()
    assert (again["id"], again["attempts"], again["leases"]) == (1, 1, 2)


async def test_a_released_job_stands_ahead_of_jobs_never_leased(server):
    job = await leased(server)
    await server.enqueue()
    await server.post("/jobs/1/release", said(job))
    assert [(await server.dequeue())["id"], (await server.dequeue())["id"]] == [1, 2]


@pytest.mark.parametrize("path", ["/jobs/1/release", "/jobs/1/release?delay=90s"])
async def test_a_job_released_with_a_delay_rests_first(server, path):
    job = await leased(server)
    answer = await server.post(path, said(job, **({} if "?" in path else {"delay": 90})))
    assert (answer.status, answer.json["status"], answer.json["attempts"]) == (200, "scheduled", 0)
    assert answer.json["run_at"] == "2027-01-15T08:01:30.000Z"
    await later(server, "89s")
    assert await server.dequeue() is None
    await later(server, "2s")
    again = await server.dequeue()
    assert (again["id"], again["attempts"], again["leases"]) == (1, 1, 2)
    assert "run_at" not in again


async def test_a_released_job_goes_to_one_who_waits(server):
    job = await leased(server)
    client = await server.ask("POST", "/jobs/dequeue?wait=30")
    await server.waiting(1)
    answer = await server.post("/jobs/1/release", said(job))
    assert (answer.status, answer.json["status"]) == (200, "in_progress")
    assert (await client.read()).json["id"] == 1


# -- fail -------------------------------------------------------------------------------------------


async def test_a_failed_job_rests_and_shows_when_it_will_be_ready_and_why_it_failed(server):
    job = await leased(server, consumer="w1")
    answer = await server.post("/jobs/1/fail", said(job, error="no route to host", retry_in="90s"))
    assert answer.status == 200
    assert answer.body == (
        b'{"id":1,"status":"scheduled","queue":"default","type":"x","priority":0,"attempts":1,"leases":1,'
        b'"created_at":"2027-01-15T08:00:00.000Z","started_at":"2027-01-15T08:00:00.000Z","consumer":"w1",'
        b'"run_at":"2027-01-15T08:01:30.000Z","error":"no route to host"}\n'
    )
    assert answer.headers["etag"] == '"3"'
    await later(server, "91s")
    again = await server.dequeue()
    assert (again["id"], again["attempts"], again["error"]) == (1, 2, "no route to host")


async def test_without_more_said_it_rests_about_ten_seconds(server):
    job = await leased(server)
    answer = await server.post(f"/jobs/1/fail?lease={job['lease']}")
    assert answer.json["status"] == "scheduled"
    assert "2027-01-15T08:00:09.000Z" <= answer.json["run_at"] <= "2027-01-15T08:00:11.000Z"
    assert "error" not in answer.json


async def test_to_be_retried_at_once_it_is_queued(server):
    job = await leased(server)
    answer = await server.post("/jobs/1/fail", said(job, retry_in=0))
    assert (answer.json["status"], answer.json["attempts"]) == ("queued", 1)
    assert "run_at" not in answer.json
    assert (await server.dequeue())["attempts"] == 2


async def test_a_failed_job_keeps_its_place(server):
    job = await leased(server)
    await server.enqueue()
    await server.post("/jobs/1/fail", said(job, retry_in=5))
    await later(server, 6)
    assert (await server.dequeue())["id"] == 1


async def test_not_to_be_retried_it_is_dead(server):
    job = await leased(server)
    await later(server, 1)
    answer = await server.post("/jobs/1/fail", said(job, error="bad address", retry=False, retry_in=5))
    assert answer.status == 200
    assert answer.body == (
        b'{"id":1,"status":"dead","queue":"default","type":"x","priority":0,"attempts":1,"leases":1,'
        b'"created_at":"2027-01-15T08:00:00.000Z","started_at":"2027-01-15T08:00:00.000Z",'
        b'"finished_at":"2027-01-15T08:00:01.000Z","reason":"no_retry","error":"bad address"}\n'
    )
    assert await server.dequeue() is None
    assert (await server.get("/queues/default")).json["jobs"]["dead"] == 1


async def test_after_its_last_attempt_it_is_dead(server):
    job = await leased(server, {"max_attempts": 2})
    assert (await server.post("/jobs/1/fail", said(job, retry_in=0))).json["status"] == "queued"
    job = await server.dequeue()
    answer = await server.post("/jobs/1/fail", said(job, retry_in=0))
    assert (answer.json["status"], answer.json["reason"], answer.json["attempts"]) == ("dead", "attempts", 2)


async def test_a_stale_lease_is_an_attempt_too(server):
    await leased(server, {"max_attempts": 1}, lease_for=1)
    await later(server, 2)
    job = await server.job(1)
    assert (job["status"], job["reason"]) == ("dead", "attempts")
    assert [line["outcome"] for line in job["history"]] == ["stale"]


async def test_a_release_is_no_attempt(server):
    job = await leased(server, {"max_attempts": 1})
    for _ in range(3):
        answer = await server.post("/jobs/1/release", said(job))
        assert answer.json["status"] == "queued"
        job = await server.dequeue()
        assert job["attempts"] == 1


@pytest.mark.parametrize("settings", [Settings(max_attempts=1, first_id=1)], ids=["one attempt"])
async def test_null_is_no_limit_and_the_default_is_a_setting(server):
    job = await leased(server)
    assert (await server.post("/jobs/1/fail", said(job))).json["status"] == "dead"
    job = await leased(server, {"max_attempts": None})
    for attempt in range(1, 31):
        assert (job["max_attempts"], job["attempts"]) == (None, attempt)
        answer = await server.post("/jobs/2/fail", said(job, retry_in=0))
        assert (answer.json["status"], answer.json["max_attempts"]) == ("queued", None)
        job = await server.dequeue()


async def test_the_default_is_25_attempts(server):
    await server.enqueue()
    for attempt in range(1, 26):
        job = await server.dequeue()
        answer = await server.post("/jobs/1/fail", said(job, retry_in=0))
        assert answer.json["status"] == ("dead" if attempt == 25 else "queued")


@pytest.mark.parametrize("settings", [Settings(dead_retain="1h", first_id=1)], ids=["an hour"])
async def test_dead_jobs_are_forgotten_after_their_own_time(server):
    await dead(server)
    await later(server, "59m")
    assert (await server.job(1))["status"] == "dead"
    await later(server, "2m")
    check_problem(await server.get("/jobs/1"), 410, "job_forgotten")


@pytest.mark.parametrize("settings", [Settings(dead_jobs=2, first_id=1)], ids=["two"])
async def test_of_too_many_dead_jobs_the_oldest_is_forgotten(server):
    for _ in range(3):
        await dead(server)
    check_problem(await server.get("/jobs/1"), 410, "job_forgotten")
    assert [(await server.job(id))["status"] for id in (2, 3)] == ["dead", "dead"]


# -- backoff ----------------------------------------------------------------------------------------


async def rests(server, count):
    """How long the only job rests after each of its failures, in seconds."""
    lengths = []
    for _ in range(count):
        job = await server.dequeue()
        answer = await server.post(f"/jobs/{job['id']}/fail", said(job))
        assert answer.json["status"] == "scheduled"
        before, length = server.clock.wall(), 0
        while await server.job(1) and (await server.job(1))["status"] == "scheduled":
            await later(server, 5)
        length = (server.clock.wall() - before) // 1000
        lengths.append(length)
    return lengths


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [
        (["10s", "1m"], [10, 60, 60]),
        ([5], [5, 5]),
        ({"base": "10s", "factor": 3, "max": "1m", "jitter": 0}, [10, 30, 60, 60]),
        ({"Base": 5, "FACTOR": 1, "jitter": 0, "max": None}, [5, 5, 5]),
    ],
)
async def test_how_long_it_rests_may_be_said_at_enqueue(server, backoff, expected):
    await server.enqueue(backoff=backoff)
    assert await rests(server, len(expected)) == expected


async def test_how_long_it_rests_may_be_said_in_a_query(server):
    assert (await server.post("/jobs/enqueue?type=x&backoff=5,1m")).json["backoff"] == [5, 60]
    assert await rests(server, 3) == [5, 60, 60]


async def test_how_long_it_rests_is_shown(server):
    for backoff, shown in [
        (["10s", 0.5], [10, 0.5]),
        ({"base": "1m"}, {"base": 60, "factor": 2.0, "max": 21600, "jitter": 0.1}),
    ]:
        id = await server.enqueue(backoff=backoff)
        assert (await server.job(id))["backoff"] == shown


async def test_jitter_keeps_to_its_share(server):
    for _ in range(10):
        job = await leased(server, {"backoff": {"base": 100, "jitter": 0.5}})
        answer = await server.post(f"/jobs/{job['id']}/fail", said(job))
        assert "2027-01-15T08:00:50.000Z" <= answer.json["run_at"] <= "2027-01-15T08:02:30.000Z"


# -- errors -----------------------------------------------------------------------------------------


async def test_an_error_is_text_or_an_object(server):
    for error in (
        "x", "", "é ✓ \n", {}, {"type": "Timeout"}, {"message": "no", "details": [1, {"a": None}]},
        {"type": "T", "message": "m", "details": "d"},
    ):  # fmt: skip
        job = await leased(server)
        answer = await server.post(f"/jobs/{job['id']}/fail", said(job, error=error))
        assert answer.status == 200, error
        assert answer.json["error"] == error
        shown = await server.job(job["id"])
        assert shown["error"] == error
        assert [line["error"] for line in shown["history"]] == [error]


async def test_an_error_may_come_in_the_query_and_null_is_none(server):
    job = await leased(server)
    answer = await server.post(f"/jobs/1/fail?lease={job['lease']}&error=no%20route&retry=0")
    assert (answer.json["error"], answer.json["status"]) == ("no route", "dead")
    for body in ('"error":null', '"Error":null', '"error":null,"retry":null,"retry_in":null'):
        job = await leased(server)
        answer = await server.post(f"/jobs/{job['id']}/fail", f'{{"lease":"{job["lease"]}",{body}}}')
        assert (answer.status, answer.json["status"]) == (200, "scheduled")
        assert "error" not in answer.json


async def test_the_names_in_an_error_match_whatever_their_letter_case(server):
    job = await leased(server)
    error = {"Type": "T", "MESSAGE": "m", "Details": {"Case": 1}}
    answer = await server.post("/jobs/1/fail", said(job, error=error))
    assert answer.json["error"] == {"type": "T", "message": "m", "details": {"Case": 1}}
    job = await leased(server)
    answer = await server.post("/jobs/2/fail", said(job, Error={"Message": "m", "type": None}))
    assert answer.json["error"] == {"message": "m"}


async def test_an_error_has_16_kib(server):
    job = await leased(server)
    for error in ("x" * ((16 << 10) - 1), {"message": "x" * (16 << 10)}, {"details": ["x" * (16 << 10)]}):
        answer = await server.post("/jobs/1/fail", said(job, error=error))
        check_problem(answer, 400, "invalid_field", field="error", limit=16 << 10)
    assert (await server.job(1))["status"] == "in_progress"
    assert (await server.post("/jobs/1/fail", said(job, error="x" * ((16 << 10) - 2)))).status == 200


async def test_what_is_no_error_is_refused(server):
    await leased(server)
    for error, code, field in [
        (7, "invalid_field", "error"), (True, "invalid_field", "error"), ([], "invalid_field", "error"),
        ({"type": 7}, "invalid_field", "type"), ({"message": ["x"]}, "invalid_field", "message"),
        ({"typ": "x"}, "unknown_field", "typ"),
    ]:  # fmt: skip
        problem = check_problem(await server.post("/jobs/1/fail", {"error": error}), 400, code, field=field)
        assert "error" in problem["detail"]
    assert (await server.job(1))["status"] == "in_progress"


# -- the history ------------------------------------------------------------------------------------


async def test_every_way_for_an_attempt_to_end_is_in_the_history(server):
    job = await leased(server, consumer="w1")
    await later(server, 1)
    await server.post("/jobs/1/release", said(job))
    job = await server.dequeue(consumer="w2")
    await server.post("/jobs/1/fail", said(job, error="first", retry_in=0))
    await server.dequeue(lease_for=1)
    await later(server, 2)
    job = await server.dequeue()
    await server.post("/jobs/1/fail", said(job, retry_in=0))
    job = await server.dequeue()
    assert "history" not in job
    await server.post("/jobs/1/conclude", said(job))
    at = {seconds: f"2027-01-15T08:00:0{seconds}.000Z" for seconds in (0, 1, 3)}
    assert (await server.job(1))["history"] == [
        {"attempt": 1, "consumer": "w1", "started_at": at[0], "ended_at": at[1], "outcome": "released"},
        {"attempt": 1, "consumer": "w2", "started_at": at[1], "ended_at": at[1], "outcome": "failed",
         "error": "first"},
        {"attempt": 2, "started_at": at[1], "ended_at": at[3], "outcome": "stale"},
        {"attempt": 3, "started_at": at[3], "ended_at": at[3], "outcome": "failed"},
        {"attempt": 4, "started_at": at[3], "ended_at": at[3], "outcome": "concluded"},
    ]  # fmt: skip


async def test_a_cancelled_attempt_is_in_the_history(server):
    await leased(server)
    await server.delete("/jobs/1?force=1")
    assert [line["outcome"] for line in (await server.job(1))["history"]] == ["cancelled"]


async def test_the_history_has_the_last_20_attempts(server):
    await server.enqueue(max_attempts=None)
    for attempt in range(1, 24):
        job = await server.dequeue(consumer=f"w{attempt}")
        await server.post("/jobs/1/fail", said(job, retry_in=0))
        history = (await server.job(1))["history"]
        first = max(attempt - 19, 1)
        assert [line["attempt"] for line in history] == list(range(first, attempt + 1))
        assert [line["consumer"] for line in history] == [f"w{n}" for n in range(first, attempt + 1)]


async def test_there_is_no_history_before_the_first_attempt_has_ended(server):
    await leased(server)
    assert "history" not in await server.job(1)


# -- who may, what is special for these two; the other rows stand in test_http_conclude -------------


@pytest.mark.parametrize(
    ("verb", "first", "again"),
    [
        ("release", {}, {"delay": 60}), ("release", {"delay": 60}, {}),
        ("fail", {"error": "a", "retry_in": 60}, {"error": "b", "retry_in": 5}),
        ("fail", {"error": "a", "retry_in": 0}, {"error": "b", "retry": False}),
        ("fail", {"error": "a", "retry": False}, {"error": "b"}),
    ],
)  # fmt: skip
async def test_row_3_whoever_did_it_may_say_so_again_and_nothing_changes(server, verb, first, again):
    job = await leased(server, consumer="w1")
    done = await server.post(f"/jobs/1/{verb}", said(job, **first))
    assert done.status == 200
    for body in (said(job, **again), said(job), said(job, consumer="somebody"), {"consumer": "w1", **again}):
        answer = await server.post(f"/jobs/1/{verb}", body)
        assert (answer.status, answer.body) == (200, done.body)
    for other in set(VERBS) - {verb}:
        answer = await server.post(f"/jobs/1/{other}", said(job))
        check_problem(answer, 409, "lease_lost", job_status=done.json["status"])
        answer = await server.post(f"/jobs/1/{other}", {"consumer": "w1"})
        check_problem(answer, 409, "not_in_progress", job_status=done.json["status"])


@pytest.mark.parametrize("verb", ["release", "fail"])
async def test_row_3_holds_as_long_as_it_is_the_last_lease_the_job_had(server, verb):
    job = await leased(server, consumer="w1")
    await server.post(f"/jobs/1/{verb}", said(job, **({"retry_in": 5} if verb == "fail" else {})))
    await later(server, 6)
    answer = await server.post(f"/jobs/1/{verb}", said(job))
    assert (answer.status, answer.json["status"]) == (200, "queued")
    again = await server.dequeue(consumer="w1")
    for name in VERBS:
        problem = await server.post(f"/jobs/1/{name}", said(job, consumer="w1"))
        check_problem(problem, 409, "lease_lost", job_status="in_progress", attempts=again["attempts"])
    assert (await server.post("/jobs/1/heartbeat", said(again))).status == 200


@pytest.mark.parametrize("verb", VERBS)
async def test_a_stale_holder_is_told_also_when_the_same_name_leased_the_job_again(server, verb):
    lost = await leased(server, consumer="w1", lease_for=1)
    await later(server, 2)
    check_problem(
        await server.post(f"/jobs/1/{verb}", said(lost)), 409, "lease_lost", job_status="queued", attempts=1
    )
    again = await server.dequeue(consumer="w1")
    for body in (said(lost), said(lost, consumer="w1")):
        problem = await server.post(f"/jobs/1/{verb}", body)
        check_problem(problem, 409, "lease_lost", job_status="in_progress", attempts=2)
    job = await server.job(1)
    assert (job["status"], job["lease_expires_at"]) == ("in_progress", again["lease_expires_at"])


# -- cancellation was asked for ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "body"),
    [("release", {}), ("release", {"delay": 60}), ("fail", {"error": "x"}), ("fail", {"retry": False}),
     ("fail", {"retry_in": 0})],
)  # fmt: skip
async def test_a_job_asked_to_be_cancelled_is_cancelled_when_it_is_given_up(server, verb, body):
    job = await leased(server)
    assert (await server.delete("/jobs/1")).status == 202
    answer = await server.post(f"/jobs/1/{verb}", said(job, **body))
    assert (answer.status, answer.json["status"]) == (200, "cancelled")
    assert answer.json["finished_at"] == NOW
    assert "run_at" not in answer.json
    again = await server.post(f"/jobs/1/{verb}", said(job, **body))
    assert (again.status, again.body) == (200, answer.body)
    await later(server, "2m")
    assert await server.dequeue() is None
    outcome = {"release": "released", "fail": "failed"}[verb]
    assert [line["outcome"] for line in (await server.job(1))["history"]] == [outcome]
