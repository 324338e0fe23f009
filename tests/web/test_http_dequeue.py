"""POST /jobs/dequeue: its queues, count, lease, wait and consumer."""

import re
from urllib.parse import quote

import pytest
from serving import check_problem

from jobqueue import Settings

KEYS = ["id", "lease", "status", "queue", "type", "priority", "attempts", "leases", "created_at",
"started_at",
        "lease_expires_at", "lease_for", "payload"]  # fmt: skip


async def test_a_dequeue_returns_the_job_with_its_lease_and_payload(server):
    await server.enqueue(type="email", payload={"to": "ada"})
    server.clock.advance("90s")
    answer = await server.post("/jobs/dequeue")
    assert answer.status == 200
    lease = answer.json["lease"]
    assert re.fullmatch(r"[A-Za-z0-9_-]{16,64}", lease)
    assert answer.body.decode() == (
        f'{{"id":1,"lease":"{lease}","status":"in_progress","queue":"default","type":"email","priority":0,'
        '"attempts":1,"leases":1,"created_at":"2027-01-15T08:00:00.000Z","started_at":"2027-01-15T08:01:30.000Z",'
        '"lease_expires_at":"2027-01-15T08:06:30.000Z","lease_for":300,"payload":{"to":"ada"}}\n'
    )


async def test_id_is_first_lease_second_payload_last(server):
    """A POSIX shell can parse the answer because of this order."""
    await server.enqueue(payload=[1])
    await server.enqueue(payload=[1])
    one = (await server.post("/jobs/dequeue", {"consumer": "w"})).json
    assert list(one) == [*KEYS[:-1], "consumer", "payload"]
    many = (await server.post("/jobs/dequeue?count=5")).json
    assert list(many) == ["jobs"]
    assert [list(job) for job in many["jobs"]] == [KEYS]


async def test_the_answer_can_be_parsed_by_splitting_text(server):
    await server.enqueue(type='"id":9,"lease":"no', payload={"id": 5, "lease": "z", "payload": 1})
    text = (await server.post("/jobs/dequeue")).body.decode().rstrip("\n")
    id = text.split('"id":', 1)[1].split(",", 1)[0]
    lease = text.split('"lease":"', 1)[1].split('"', 1)[0]
    payload = text.split('"payload":', 1)[1].removesuffix("}")
    assert id == "1"
    assert (await server.post(f"/jobs/{id}/conclude?lease={lease}")).status == 200
    assert payload == '{"id":5,"lease":"z","payload":1}'


async def test_an_empty_queue_is_204_for_every_form_of_request(server):
    await server.enqueue(queue="other")
    for path, body in [
        ("", None),
        ("", ""),
        ("", "{}"),
        ("?count=1", None),
        ("?wait=0", None),
        ("", {"queue": "empty"}),
    ]:
        answer = await server.post(f"/jobs/dequeue{path}", body)
        assert (answer.status, answer.body) == (204, b"")
    assert [q["name"] for q in (await server.get("/queues")).json["queues"]] == ["other"]


async def test_every_lease_has_a_new_token(server):
    ids = [await server.enqueue() for _ in range(50)]
    assert len({(await server.dequeue())["lease"] for _ in ids}) == 50


# -- which queue ------------------------------------------------------------------------------------


async def test_a_dequeue_without_a_queue_uses_only_the_default_queue(server):
    await server.enqueue(queue="other")
    assert await server.dequeue() is None
    await server.enqueue(queue="default")
    assert (await server.dequeue())["queue"] == "default"


async def test_first_in_first_out_and_higher_priority_first(server):
    for type, priority in [
        ("a", 0),
        ("b", 5),
        ("c", 0),
        ("d", -1),
        ("e", 5),
        ("f", 2**31 - 1),
        ("g", -(2**31)),
    ]:
        await server.enqueue(type=type, priority=priority)
    assert [(await server.dequeue())["type"] for _ in range(7)] == list("fbeacdg")


async def test_queues_are_tried_in_strict_order(server):
    for queue in ("c", "b", "a", "b"):
        await server.enqueue(queue=queue, priority=9 if queue == "c" else 0)
    forms = [["a", "b", "c"], "a,b,c", " a , b,c ", ["a", "a", "b", "c"]]
    assert [(await server.dequeue(queues=queues))["queue"] for queues in forms] == list("abbc")
    assert await server.dequeue(queues=["a", "b", "c"]) is None


async def test_the_job_comes_from_the_first_queue_that_has_one(server):
    for queue in ("b", "a", "b"):
        await server.enqueue(queue=queue)
    got = [(await server.dequeue(queues=["a", "b"]))["queue"] for _ in range(3)]
    assert got == ["a", "b", "b"]


async def test_with_count_the_first_queue_is_emptied_before_the_next(server):
    for queue in ("b", "a", "b", "a"):
        await server.enqueue(queue=queue)
    jobs = (await server.dequeue(queues=["a", "b"], count=3))["jobs"]
    assert [job["queue"] for job in jobs] == ["a", "a", "b"]


async def jobs_of(server, *jobs):
    """Enqueues jobs, each a queue and a priority, and returns their ids."""
    return [await server.enqueue(queue=queue, priority=priority) for queue, priority in jobs]


async def test_by_priority_the_highest_priority_in_any_queue_is_first_and_of_equals_the_oldest(server):
    ids = await jobs_of(server, ("b", 0), ("a", 0), ("c", 2), ("b", 1), ("c", 0), ("a", 2))
    want = {"queues": "a,b,c", "order": "priority"}
    got = [(await server.dequeue(**want))["id"] for _ in ids]
    assert got == [ids[index] for index in (2, 5, 3, 0, 1, 4)]
    assert await server.dequeue(**want) is None


async def test_by_priority_and_with_count_the_jobs_are_in_the_same_order(server):
    ids = await jobs_of(server, ("b", 0), ("a", 0), ("b", 1), ("a", 1))
    jobs = (await server.dequeue(queues=["a", "a", "b"], order="priority", count=3))["jobs"]
    assert [job["id"] for job in jobs] == [ids[index] for index in (2, 3, 0)]


async def test_by_priority_paused_queues_and_those_at_a_limit_are_left_out(server):
    ids = await jobs_of(server, ("a", 9), ("a", 8), ("b", 7), ("c", 0), ("c", -1))
    await server.call("PATCH", "/queues/a", {"max_in_progress": 1})
    await server.post("/queues/b/pause")
    want = {"queues": "c,b,a", "order": "priority", "count": 9}
    assert [job["id"] for job in (await server.dequeue(**want))["jobs"]] == [ids[0], *ids[3:]]


async def test_by_priority_a_waiting_consumer_gets_the_highest_of_what_comes_at_once(server):
    client = await server.ask("POST", "/jobs/dequeue?queues=a,b&order=priority&wait=30")
    await server.waiting(1)
    jobs = [{"type": "x", "queue": queue, "priority": number} for number, queue in enumerate("abab")]
    made = (await server.post("/jobs/enqueue", jobs)).json["jobs"]
    assert (await client.read("POST")).json["id"] == made[-1]["id"]


async def test_the_order_of_queues_is_said_or_left_out(server):
    for order in ({}, {"order": "queues"}, {"order": None}):
        ids = await jobs_of(server, ("a", 0), ("b", 9))
        assert (await server.dequeue(queues="a,b", **order))["id"] == ids[0]
        await server.dequeue(queues="b")
    check_problem(await server.post("/jobs/dequeue?order=asc"), 400, "invalid_field", field="order")


async def test_queue_names_one_and_queues_several_but_not_both(server):
    await server.enqueue(queue="a:1.b-c")
    for body in ({"queue": "a", "queues": ["a"]}, {"queue": "a", "queues": "b"}):
        problem = check_problem(await server.post("/jobs/dequeue", body), 400, "invalid_field", field="queue")
        assert "not both" in problem["detail"]
    check_problem(
        await server.post("/jobs/dequeue?queues=b", {"queue": "a"}), 400, "invalid_field", field="queue"
    )
    assert (await server.dequeue(queue="a:1.b-c", queues=None))["queue"] == "a:1.b-c"


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("queue", ["", "../x", "a b", "a/b", "x" * 129, "a\u0000", "é", 7, ["a"], {}, True]),
        ("queues",
        ["", ",", "a,,b", "a,b c", "../x", [], [""], ["a", 7], ["a", None], [["a"]], ["../x"], 7, {},
        ["q"] * 1001]),
        ("count", [0, -1, 1001, 2**70, 1.0, "1", True, [], {}]),
        ("wait", [-1, -0.001, 61, 60.001, "61s", "-1s", "1x", "", "1m 1s", "x", True, [], {}, 2**70, "1m1s"]),
        ("lease_for", [0, 0.999, "999ms", "25h", 86401, -5, "x", "", True, [], {}, 2**70]),
        ("consumer", ["", "x" * 129, "a\nb", "\u0000", "\u007f", 7, [], {}, True]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_an_invalid_field_is_refused(server, field, values):
    await server.enqueue()
    for value in values:
        for name in (field, field.upper()):
            answer = await server.post("/jobs/dequeue", {name: value})
            problem = check_problem(answer, 400, "invalid_field", field=field)
            assert field in problem["detail"]
    assert (await server.job(1))["status"] == "queued"


async def test_a_refusal_names_the_limit_and_the_setting(server):
    for body, limit, setting in [
        ({"wait": 61}, 60, "JOBQUEUE_WAIT_MAX"), ({"count": 1001}, 1000, "JOBQUEUE_MAX_BATCH"),
        ({"lease_for": "25h"}, 86400, "JOBQUEUE_LEASE_MAX"),
    ]:  # fmt: skip
        check_problem(
            await server.post("/jobs/dequeue", body), 400, "invalid_field", limit=limit, setting=setting
        )


async def test_an_unknown_field_is_refused_with_the_nearest_name(server):
    await server.enqueue()
    for name, nearest in [
        ("que", "queue"),
        ("leasefor", "lease_for"),
        ("zzzz", None),
        ("Waits", "wait"),
        ("type", None),
    ]:
        answer = await server.post("/jobs/dequeue", {name: "x"})
        assert check_problem(answer, 400, "unknown_field", field=name).get("nearest") == nearest
    assert (await server.job(1))["status"] == "queued"


# -- how many ---------------------------------------------------------------------------------------


async def test_count_takes_at_most_what_is_there(server):
    for _ in range(5):
        await server.enqueue()
    assert [job["id"] for job in (await server.dequeue(count=3))["jobs"]] == [1, 2, 3]
    assert [job["id"] for job in (await server.dequeue(count=1000))["jobs"]] == [4, 5]
    assert await server.dequeue(count=1000) is None


async def test_a_count_of_one_is_answered_as_a_list(server):
    await server.enqueue()
    assert [job["id"] for job in (await server.post("/jobs/dequeue?count=1")).json["jobs"]] == [1]


async def test_count_never_waits_to_fill_up(server):
    await server.enqueue()
    assert len((await server.dequeue(count=10, wait=60))["jobs"]) == 1


async def test_a_thousand_jobs_may_be_dequeued_at_once(server):
    await server.post("/jobs/enqueue", [{"type": "x"}] * 1000)
    jobs = (await server.dequeue(count=1000))["jobs"]
    assert [job["id"] for job in jobs] == list(range(1, 1001))
    assert len({job["lease"] for job in jobs}) == 1000


# -- how long ---------------------------------------------------------------------------------------


async def test_a_duration_in_any_form_is_answered_in_seconds(server):
    for text, seconds in [
        (90, 90), (1, 1), (1.5, 1.5), ("90", 90), ("1.5", 1.5), ("90s", 90), ("5m", 300), ("2h", 7200),
        ("1h30m", 5400),
        ("1500ms", 1.5), ("24h", 86400), ("1d", 86400), ("0.5h", 1800), ("1m0.5s", 60.5), (1.0001, 1.001),
        (1e3, 1000),
    ]:  # fmt: skip
        for path, body in [("", {"lease_for": text}), (f"?lease_for={quote(str(text))}", None)]:
            await server.enqueue()
            job = (await server.post(f"/jobs/dequeue{path}", body)).json
            assert job["lease_for"] == seconds
            assert type(job["lease_for"]) is type(seconds)


async def test_a_lease_ends_after_its_length_and_the_job_is_first_again(server):
    first = await server.enqueue()
    await server.enqueue()
    job = await server.dequeue(lease_for="10s")
    assert job["lease_expires_at"] == "2027-01-15T08:00:10.000Z"
    server.clock.advance("9.8s")
    assert server.engine.tick() == 0
    server.clock.advance("0.3s")
    assert server.engine.tick() == 1
    again = await server.dequeue()
    assert (again["id"], again["attempts"], again["leases"]) == (first, 2, 2)
    assert again["lease"] != job["lease"]


@pytest.mark.parametrize(
    "settings", [Settings(lease="2s", lease_max="1m", wait_max="5s", first_id=1)], ids=["own limits"]
)
async def test_limits_and_defaults_come_from_settings(server):
    await server.enqueue()
    check_problem(await server.post("/jobs/dequeue", {"lease_for": 61}), 400, "invalid_field", limit=60)
    check_problem(await server.post("/jobs/dequeue", {"wait": 6}), 400, "invalid_field", limit=5)
    assert (await server.dequeue())["lease_for"] == 2


async def test_a_wait_of_zero_or_of_the_maximum_is_accepted(server):
    for wait in (0, "0", 0.0, -0.0, "0s", 60, "60", "1m", "60000ms"):
        await server.enqueue()
        assert (await server.dequeue(wait=wait)) is not None


# -- for whom ---------------------------------------------------------------------------------------


async def test_the_consumer_is_read_from_body_query_or_header(server):
    async def named(path="", body=None, **headers):
        await server.enqueue()
        sent = {name.replace("__", "-"): value for name, value in headers.items()}
        return (await server.post(f"/jobs/dequeue{path}", body, sent)).json.get("consumer")

    every = {"Queue__Consumer": "q", "X__Queue__Consumer": "x", "QUEUE_CONSUMER": "u"}
    assert await named(body={"consumer": "b"}, **every) == "b"
    assert await named("?consumer=y", **every) == "y"
    assert await named("?consumer=b", {"consumer": "b"}, **every) == "b"
    assert await named(**every) == "q"
    assert await named(X__Queue__Consumer="x", QUEUE_CONSUMER="u") == "x"
    assert await named(QUEUE_CONSUMER="u") == "u"
    assert await named(queue__consumer="low") == "low"
    assert await named() is None
    assert await named(body={"consumer": None}) is None
    assert await named(body={"consumer": None}, **every) == "q"


async def test_body_and_query_may_not_name_two_consumers(server):
    problem = await server.post("/jobs/dequeue?consumer=a", {"consumer": "b"})
    check_problem(problem, 400, "invalid_field", field="consumer")


async def test_a_consumer_name_may_be_in_any_language(server):
    name = "Büro ✓"
    for body, headers in [
        ({"consumer": name}, {}),
        (None, {"Queue-Consumer": name.encode().decode("latin-1")}),
    ]:
        await server.enqueue()
        assert (await server.post("/jobs/dequeue", body, headers)).json["consumer"] == name
    await server.enqueue()
    assert (await server.post(f"/jobs/dequeue?consumer={quote(name)}")).json["consumer"] == name


async def test_a_bad_name_in_a_header_is_refused_too(server):
    await server.enqueue()
    answer = await server.post("/jobs/dequeue", None, {"Queue-Consumer": "x" * 129})
    check_problem(answer, 400, "invalid_field", field="consumer")


# -- options by query -------------------------------------------------------------------------------


async def test_all_options_may_come_in_the_query(server):
    await server.enqueue(queue="b")
    jobs = (await server.post("/jobs/dequeue?queues=a,b&count=2&wait=30&lease_for=1m&consumer=w")).json[
        "jobs"
    ]
    assert [(job["queue"], job["lease_for"], job["consumer"]) for job in jobs] == [("b", 60, "w")]
    await server.enqueue(queue="b")
    assert (await server.post("/jobs/dequeue?Queue=b&WAIT=1m")).json["queue"] == "b"


async def test_the_same_value_in_two_notations_is_accepted(server):
    for query, body in [
        ("wait=30", {"wait": 30}), ("wait=30s", {"wait": 30.0}), ("lease_for=1m", {"lease_for": 60}),
        ("queues=a,b", {"queues": ["a", "b"]}), ("queue=a", {"queue": "a"}), ("count=2", {"count": 2}),
        ("wait=30&wait=30s&wait=0.5m", {}),
    ]:  # fmt: skip
        await server.enqueue(queue="a")
        await server.enqueue()
        assert (await server.post(f"/jobs/dequeue?{query}", body)).status == 200, (query, body)


async def test_an_option_given_twice_with_different_values_is_refused(server):
    await server.enqueue()
    for query, body, field in [
        ("wait=30", {"wait": 31}, "wait"), ("wait=30&wait=31", None, "wait"),
        ("lease_for=1m", {"lease_for": 61}, "lease_for"),
        ("queue=a", {"queue": "b"}, "queue"), ("queues=a,b", {"queues": ["b", "a"]}, "queues"),
        ("count=1&COUNT=2", None, "count"),
    ]:  # fmt: skip
        check_problem(await server.post(f"/jobs/dequeue?{query}", body), 400, "invalid_field", field=field)
    assert (await server.job(1))["status"] == "queued"


async def test_an_empty_or_odd_option_in_the_query_is_refused(server):
    await server.enqueue()
    for query in (
        "count=",
        "count=1.0",
        "count=x",
        "wait=",
        "wait=x",
        "lease_for=",
        "queue=",
        "queues=",
        "consumer=",
    ):
        field = query.split("=")[0]
        check_problem(await server.post(f"/jobs/dequeue?{query}"), 400, "invalid_field", field=field)
