"""POST /jobs/{id}/release and fail: the job, its attempts and its history afterwards."""

import pytest
from leasing import NOW, VERBS, dead, later, leased, said
from serving import check_problem

from jobqueue import Settings

# -- release ----------------------------------------------------------------------------------------


async def test_a_released_job_is_queued_again_and_the_attempt_is_not_counted(server):
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


async def test_a_released_job_returns_ahead_of_jobs_never_leased(server):
    job = await leased(server)
    await server.enqueue()
    await server.post("/jobs/1/release", said(job))
    assert [(await server.dequeue())["id"], (await server.dequeue())["id"]] == [1, 2]


@pytest.mark.parametrize("path", ["/jobs/1/release", "/jobs/1/release?delay=90s"])
async def test_a_job_released_with_a_delay_is_scheduled(server, path):
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


async def test_a_released_job_goes_to_a_waiting_consumer(server):
    job = await leased(server)
    client = await server.ask("POST", "/jobs/dequeue?wait=30")
    await server.waiting(1)
    answer = await server.post("/jobs/1/release", said(job))
    assert (answer.status, answer.json["status"]) == (200, "in_progress")
    assert (await client.read()).json["id"] == 1


@pytest.mark.parametrize(("priority", "order"), [(-1, [2, 3, 1]), (0, [1, 2, 3]), (1, [1, 2, 3])])
async def test_a_release_may_have_another_priority(server, priority, order):
    job = await leased(server)
    await server.enqueue()
    await server.enqueue(priority=-1)
    answer = await server.post("/jobs/1/release", said(job, priority=priority))
    assert (answer.status, answer.json["priority"]) == (200, priority)
    assert [(await server.dequeue())["id"] for _ in range(3)] == order


async def test_with_another_priority_a_job_goes_to_the_end_there_and_with_the_same_one_to_its_place(server):
    jobs = [await leased(server) for _ in range(2)]
    await server.enqueue(priority=5)
    await server.enqueue()
    await server.post("/jobs/1/release?priority=5", said(jobs[0]))
    await server.post("/jobs/2/release?priority=0", said(jobs[1]))
    assert [(await server.dequeue())["id"] for _ in range(4)] == [3, 1, 2, 4]


async def test_a_release_with_a_delay_may_have_another_priority(server):
    job = await leased(server)
    await server.enqueue()
    answer = await server.post("/jobs/1/release", said(job, priority=2, delay=10))
    assert (answer.json["status"], answer.json["priority"]) == ("scheduled", 2)
    await later(server, 10)
    assert [(await server.dequeue())["id"] for _ in range(2)] == [1, 2]


async def test_a_release_that_is_sent_again_changes_no_priority(server):
    job = await leased(server)
    await server.post("/jobs/1/release", said(job, priority=2))
    again = await server.post("/jobs/1/release", said(job, priority=3))
    assert (again.status, again.json["priority"]) == (200, 2)


async def test_many_releases_may_each_have_a_priority(server):
    jobs = [await leased(server) for _ in range(2)]
    items = [{"id": job["id"], **said(job, priority=job["id"])} for job in jobs]
    answer = await server.post("/jobs/release", items)
    assert [result["job"]["priority"] for result in answer.json["results"]] == [1, 2]


async def test_a_bad_priority_releases_nothing(server):
    job = await leased(server)
    answer = await server.post("/jobs/1/release", said(job, priority=2**31))
    check_problem(answer, 400, "invalid_field", field="priority")
    assert (await server.job(1))["status"] == "in_progress"


async def test_in_a_key_in_strict_order_a_released_job_holds_up_the_others_at_any_priority(server):
    await server.call("PATCH", "/queues/default", {"key_limits": {"ordered": True}})
    job = await leased(server, {"key": "k"})
    await server.enqueue(key="k")
    await server.post("/jobs/1/release", said(job, priority=-1, delay=10))
    assert await server.dequeue() is None
    await later(server, 10)
    assert (await server.dequeue())["id"] == 2  # of a higher priority now


# -- fail -------------------------------------------------------------------------------------------


async def test_a_failed_job_is_scheduled_and_shows_when_it_is_ready_and_its_error(server):
    job = await leased(server, consumer="w1")
    answer = await server.post("/jobs/1/fail", said(job, error="no route to host", retry_in="90s"))
    assert answer.status == 200
    assert answer.body == (
        b'{"id":1,"status":"scheduled","queue":"default","type":"x","priority":0,"attempts":1,"leases":1,'
        b'"created_at":"2027-01-15T08:00:00.000Z","started_at":"2027-01-15T08:00:00.000Z","consumer":"w1",'
        b'"run_at":"2027-01-15T08:01:30.000Z","retrying":true,"error":"no route to host"}\n'
    )
    assert answer.headers["etag"] == '"3"'
    await later(server, "91s")
    again = await server.dequeue()
    assert (again["id"], again["attempts"], again["error"]) == (1, 2, "no route to host")


async def test_the_default_backoff_is_about_ten_seconds(server):
    job = await leased(server)
    answer = await server.post(f"/jobs/1/fail?lease={job['lease']}")
    assert answer.json["status"] == "scheduled"
    assert "2027-01-15T08:00:09.000Z" <= answer.json["run_at"] <= "2027-01-15T08:00:11.000Z"
    assert "error" not in answer.json


async def test_a_failed_job_retried_at_once_is_queued(server):
    job = await leased(server)
    answer = await server.post("/jobs/1/fail", said(job, retry_in=0))
    assert (answer.json["status"], answer.json["attempts"]) == ("queued", 1)
    assert "run_at" not in answer.json
    assert (await server.dequeue())["attempts"] == 2


@pytest.mark.parametrize("call", ["fail", "release"])
async def test_a_job_that_rested_goes_after_those_that_were_ready_before(server, call):
    job = await leased(server)
    other = await server.enqueue()
    await server.post(f"/jobs/1/{call}", said(job, **{"retry_in" if call == "fail" else "delay": 5}))
    await later(server, 6)
    assert [(await server.dequeue())["id"], (await server.dequeue())["id"]] == [other, 1]


@pytest.mark.parametrize("call", ["fail", "release"])
async def test_a_job_that_comes_back_at_once_keeps_its_place(server, call):
    job = await leased(server)
    await server.enqueue()
    await server.post(f"/jobs/1/{call}", said(job, **({"retry_in": 0} if call == "fail" else {})))
    assert (await server.dequeue())["id"] == 1


async def test_a_failed_job_without_retry_is_dead(server):
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


async def test_a_job_is_dead_after_its_last_attempt(server):
    job = await leased(server, {"max_attempts": 2})
    assert (await server.post("/jobs/1/fail", said(job, retry_in=0))).json["status"] == "queued"
    job = await server.dequeue()
    answer = await server.post("/jobs/1/fail", said(job, retry_in=0))
    assert (answer.json["status"], answer.json["reason"], answer.json["attempts"]) == ("dead", "attempts", 2)


async def test_a_stale_lease_counts_as_an_attempt(server):
    await leased(server, {"max_attempts": 1}, lease_for=1)
    await later(server, 2)
    job = await server.job(1)
    assert (job["status"], job["reason"]) == ("dead", "attempts")
    assert [line["outcome"] for line in job["history"]] == ["stale"]


async def test_a_release_does_not_count_as_an_attempt(server):
    job = await leased(server, {"max_attempts": 1})
    for _ in range(3):
        answer = await server.post("/jobs/1/release", said(job))
        assert answer.json["status"] == "queued"
        job = await server.dequeue()
        assert job["attempts"] == 1


@pytest.mark.parametrize("settings", [Settings(max_attempts=1, first_id=1)], ids=["one attempt"])
async def test_max_attempts_null_is_no_limit_and_the_default_is_a_setting(server):
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
async def test_dead_jobs_have_a_retention_of_their_own(server):
    await dead(server)
    await later(server, "59m")
    assert (await server.job(1))["status"] == "dead"
    await later(server, "2m")
    check_problem(await server.get("/jobs/1"), 410, "job_forgotten")


@pytest.mark.parametrize("settings", [Settings(dead_jobs=2, first_id=1)], ids=["two"])
async def test_the_oldest_dead_job_is_forgotten_beyond_the_limit(server):
    for _ in range(3):
        await dead(server)
    check_problem(await server.get("/jobs/1"), 410, "job_forgotten")
    assert [(await server.job(id))["status"] for id in (2, 3)] == ["dead", "dead"]


# -- backoff ----------------------------------------------------------------------------------------


async def rests(server, count):
    """Returns the delays after each failure of the only job, in seconds."""
    lengths = []
    for _ in range(count):
        job = await server.dequeue()
        answer = await server.post(f"/jobs/{job['id']}/fail", said(job))
        assert answer.json["status"] == "scheduled"
        before, length = server.clock.wall(), 0
        while await server.job(1) and (await server.job(1))["status"] == "scheduled":
            await later(server, 1)
        length = (server.clock.wall() - before) // 1000
        lengths.append(length)
    return lengths


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [
        (["10s", "1m"], [(9, 11), (54, 66), (54, 66)]),
        ([5], [(4, 6), (4, 6)]),
        ({"base": "10s", "factor": 3, "max": "1m", "jitter": 0}, [(10, 10), (30, 30), (60, 60), (60, 60)]),
        ({"Base": 5, "FACTOR": 1, "jitter": 0, "max": None}, [(5, 5), (5, 5), (5, 5)]),
    ],
)
async def test_the_backoff_may_be_set_at_enqueue(server, backoff, expected):
    await server.enqueue(backoff=backoff)
    for length, (least, most) in zip(await rests(server, len(expected)), expected, strict=True):
        assert least <= length <= most


async def test_the_backoff_may_be_set_in_the_query(server):
    assert (await server.post("/jobs/enqueue?type=x&backoff=5,1m")).json["backoff"] == [5, 60]
    first, second, third = await rests(server, 3)
    assert 4 <= first <= 6
    assert all(54 <= length <= 66 for length in (second, third))


@pytest.mark.parametrize("of_queue", [False, True])
async def test_jobs_that_fail_together_are_not_retried_together_also_by_a_list(server, of_queue):
    asked = {"backoff": ["100s"]}
    if of_queue:
        assert (await server.call("PATCH", "/queues/default", asked)).status == 200
        asked = {}
    await server.post("/jobs/enqueue", [{"type": "x", **asked}] * 50)
    for job in (await server.dequeue(count=50))["jobs"]:
        await server.post(f"/jobs/{job['id']}/fail", said(job))
    jobs = (await server.get("/jobs?status=scheduled")).json["jobs"]
    retried = sorted(job["run_at"] for job in jobs)
    assert len(set(retried)) > 40
    assert "2027-01-15T08:01:30.000Z" <= retried[0] < retried[-1] <= "2027-01-15T08:01:50.000Z"


async def test_the_backoff_of_a_job_is_shown(server):
    for backoff, shown in [
        (["10s", 0.5], [10, 0.5]),
        ({"base": "1m"}, {"base": 60, "factor": 2.0, "max": 21600, "jitter": 0.1}),
    ]:
        id = await server.enqueue(backoff=backoff)
        assert (await server.job(id))["backoff"] == shown


async def test_jitter_stays_within_its_share(server):
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


async def test_an_error_may_be_sent_in_the_query_and_null_means_none(server):
    job = await leased(server)
    answer = await server.post(f"/jobs/1/fail?lease={job['lease']}&error=no%20route&retry=0")
    assert (answer.json["error"], answer.json["status"]) == ("no route", "dead")
    for body in ('"error":null', '"Error":null', '"error":null,"retry":null,"retry_in":null'):
        job = await leased(server)
        answer = await server.post(f"/jobs/{job['id']}/fail", f'{{"lease":"{job["lease"]}",{body}}}')
        assert (answer.status, answer.json["status"]) == (200, "scheduled")
        assert "error" not in answer.json


async def test_the_names_in_an_error_match_in_any_letter_case(server):
    job = await leased(server)
    error = {"Type": "T", "MESSAGE": "m", "Details": {"Case": 1}}
    answer = await server.post("/jobs/1/fail", said(job, error=error))
    assert answer.json["error"] == {"type": "T", "message": "m", "details": {"Case": 1}}
    job = await leased(server)
    answer = await server.post("/jobs/2/fail", said(job, Error={"Message": "m", "type": None}))
    assert answer.json["error"] == {"message": "m"}


async def test_an_error_is_kept_up_to_16_kib(server):
    for error in ("x" * ((16 << 10) - 2), {"message": "x" * ((16 << 10) - 14)}):
        job = await leased(server)
        answer = await server.post(f"/jobs/{job['id']}/fail", said(job, error=error))
        assert (answer.status, "truncated" in answer.json) == (200, False)
        assert (await server.job(job["id"]))["error"] == error


async def test_an_invalid_error_is_refused(server):
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
async def test_row_3_the_same_call_may_be_repeated_and_changes_nothing(server, verb, first, again):
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
async def test_row_3_applies_while_it_is_the_last_lease_of_the_job(server, verb):
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
async def test_a_stale_holder_is_refused_even_if_its_name_leased_the_job_again(server, verb):
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
async def test_a_job_with_a_requested_cancel_is_cancelled_when_it_is_given_up(server, verb, body):
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
