"""GET /jobs, /jobs/count and /queues: filters, order, pages; and purge and redrive by the same filters."""

from urllib.parse import quote

import pytest
from leasing import dead, later, leased, said
from serving import check_problem


async def ids(server, query=""):
    """Returns the ids of all pages."""
    found, cursor = [], ""
    while True:
        answer = await server.get(f"/jobs?{query}{cursor}")
        assert answer.status == 200, answer
        found += [job["id"] for job in answer.json["jobs"]]
        if "next" not in answer.json:
            return found
        cursor = f"&cursor={quote(answer.json['next'])}"


async def some_jobs(server):
    """Enqueues six jobs of all statuses. The id of each is its line here."""
    await server.enqueue(type="a", queue="q", tags=["red", "big"], key="k1")
    await server.enqueue(type="b", queue="q", tags=["blue"], key="k2", delay="1h")
    await leased(server, {"type": "a"})
    job = await leased(server, {"type": "b", "tags": ["red"]})
    await server.post("/jobs/4/conclude", said(job))
    await dead(server, type="c", key="k1")
    await server.enqueue(type="c", queue="r")
    await server.delete("/jobs/6")


FILTERS = {
    "": [1, 2, 3, 4, 5, 6], "queue=q": [1, 2], "queue=q,r": [1, 2, 6], "queue=none": [],
    "status=queued": [1], "status=scheduled": [2], "status=in_progress": [3], "status=concluded": [4],
    "status=dead": [5], "status=cancelled": [6], "status=queued,dead": [1, 5],
    "type=a": [1, 3], "type=a,c": [1, 3, 5, 6], "tag=red": [1, 4], "tag=blue,big": [1, 2],
    "key=k1": [1, 5], "key=k1,k2": [1, 2, 5], "type=a&queue=q&tag=red&key=k1&status=queued": [1],
    "type=a&queue=r": [], "older_than=0": [1, 2, 3, 4, 5, 6], "older_than=1s": [],
    "order=desc": [6, 5, 4, 3, 2, 1],
    "order=desc&limit=2": [6, 5, 4, 3, 2, 1], "limit=1": [1, 2, 3, 4, 5, 6], "Queue=q&ORDER=asc": [1, 2],
}  # fmt: skip


async def test_jobs_are_listed_and_counted_by_filter(server):
    await some_jobs(server)
    for query, expected in FILTERS.items():
        assert await ids(server, query) == expected, query
        if "order" not in query.lower() and "limit" not in query:
            answer = await server.get(f"/jobs/count?{query}")
            assert (answer.status, answer.body) == (200, b'{"count":%d}\n' % len(expected)), query
    answer = await server.call("GET", "/jobs", {"queue": ["q", "r"], "status": "queued,cancelled"})
    assert [job["id"] for job in answer.json["jobs"]] == [1, 6]
    await later(server, 5)
    await server.enqueue()
    assert await ids(server, "older_than=5s") == [1, 2, 3, 4, 5, 6]


async def test_a_list_shows_jobs_without_payload_unless_asked(server):
    await server.enqueue(payload={"a": 1})
    await server.dequeue()
    answer = await server.get("/jobs")
    assert list(answer.json) == ["jobs"]
    [job] = answer.json["jobs"]
    assert "payload" not in job
    assert "lease" not in job
    for query in ("payload=1", "payload=true", "payload="):
        [job] = (await server.get(f"/jobs?{query}")).json["jobs"]
        assert (list(job)[-1], job["payload"]) == ("payload", {"a": 1})


async def test_without_jobs_a_list_is_empty(server):
    assert (await server.get("/jobs")).body == b'{"jobs":[]}\n'
    assert (await server.get("/jobs/count")).body == b'{"count":0}\n'


async def test_a_page_has_the_requested_number_of_jobs_and_100_by_default(server):
    await server.post("/jobs/enqueue", [{"type": "x"}] * 150)
    for query, count in [("", 100), ("?limit=1", 1), ("?limit=1000", 150), ("?limit=149&order=desc", 149)]:
        answer = await server.get(f"/jobs{query}")
        assert len(answer.json["jobs"]) == count
        assert ("next" in answer.json) is (count < 150)


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_neither_skip_nor_repeat_jobs_while_the_queue_changes(server, order):
    await server.post("/jobs/enqueue", [{"type": "x"}] * 30)
    there = [job["id"] for job in (await server.get("/jobs?limit=1000")).json["jobs"]]
    seen, cursor = [], ""
    for turn in range(100):
        answer = (await server.get(f"/jobs?limit=4&order={order}{cursor}")).json
        seen += [job["id"] for job in answer["jobs"]]
        if "next" not in answer:
            break
        cursor = f"&cursor={answer['next']}"
        # Jobs move, and even the last job of the page is forgotten.
        await server.enqueue(priority=turn)
        await server.delete(f"/jobs/{seen[-1]}")
        await server.post("/queues/default/purge?status=cancelled")
        await server.call("PATCH", f"/jobs/{there[15]}", {"priority": turn})
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen, reverse=order == "desc")
    assert set(there) <= set(seen)


async def test_one_request_examines_a_bounded_number_of_jobs(server):
    """A page may be empty and have a `next`."""
    for _ in range(6):
        await server.post("/jobs/enqueue", [{"type": "x"}] * 1000)
    last = await server.enqueue(type="y")
    answer = (await server.get("/jobs?type=y")).json
    assert answer["jobs"] == []
    assert [
        job["id"] for job in (await server.get(f"/jobs?type=y&cursor={answer['next']}")).json["jobs"]
    ] == [last]
    assert await ids(server, "type=y&order=desc") == [last]
    assert (await server.get("/jobs/count?type=x")).json == {"count": 6000}


BAD_FILTERS = [
    ("status=", "status"), ("status=running", "status"), ("status=queued,Dead", "status"), ("type=", "type"),
    ("tag=", "tag"), ("tag=a,,b", "tag"), ("key=", "key"), ("older_than=x", "older_than"),
    ("older_than=-1", "older_than"),
]  # fmt: skip


async def test_an_invalid_filter_is_refused(server):
    await server.enqueue()
    for path in (
        "GET /jobs",
        "GET /jobs/count",
        "POST /queues/default/purge",
        "POST /queues/default/redrive",
    ):
        method, path = path.split()
        for query, field in BAD_FILTERS:
            answer = await server.call(method, f"{path}?{query}")
            check_problem(answer, 400, "invalid_field", field=field)
        for field in ("status", "type", "tag", "key"):
            for value in ([], [""], 7, {}, [7]):
                answer = await server.call(method, path, {field: value})
                check_problem(answer, 400, "invalid_field", field=field)
        check_problem(await server.call(method, f"{path}?statu=dead"), 400, "unknown_field", nearest="status")
    for query, field in [
        ("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("limit=", "limit"),
        ("order=up", "order"), ("order=", "order"), ("cursor=x", "cursor"), ("cursor=", "cursor"),
        ("cursor=-1", "cursor"), ("cursor=" + "9" * 17, "cursor"), ("payload=2", "payload"),
        ("queue=", "queue"),
    ]:  # fmt: skip
        check_problem(await server.get(f"/jobs?{query}"), 400, "invalid_field", field=field)
    check_problem(await server.call("GET", "/jobs", {"order": "up"}), 400, "invalid_field", field="order")
    assert (await server.get("/jobs?limit=1&cursor=" + "9" * 16)).json == {"jobs": []}
    assert (await server.get("/jobs/count")).json == {"count": 1}


async def test_queues_are_listed_in_pages(server):
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        await server.enqueue(queue=name)
    seen, cursor = [], ""
    while True:
        answer = (await server.get(f"/queues?limit=2{cursor}")).json
        seen += [queue["name"] for queue in answer["queues"]]
        if "next" not in answer:
            break
        cursor = f"&cursor={answer['next']}"
        await server.enqueue(queue="aa")
    assert seen == names
    assert "next" not in (await server.get("/queues")).json
    for query, field in [("limit=0", "limit"), ("limit=1001", "limit"), ("cursor=a%20b", "cursor")]:
        check_problem(await server.get(f"/queues?{query}"), 400, "invalid_field", field=field)


# -- purge ------------------------------------------------------------------------------------------


async def test_purge_and_redrive_need_a_filter(server):
    await dead(server)
    await server.enqueue()
    for path in ("purge", "redrive"):
        for body in (None, {}, {"status": None, "dry_run": True}, {"all": False}):
            answer = await server.post(f"/queues/default/{path}", body)
            check_problem(answer, 400, "missing_field", field="all")
        assert (await server.post(f"/queues/default/{path}?dry_run=1&all=1")).status == 200
    assert await ids(server) == [1, 2]


@pytest.mark.parametrize(
    ("query", "gone"),
    [
        ("all=true", [1, 2]), ("all=1&status=dead", [5]), ("status=queued", [1]), ("status=scheduled", [2]),
        ("status=in_progress", [3]), ("status=concluded,dead,cancelled", [4, 5, 6]),
        ("type=a", [1]), ("type=a&status=in_progress,queued", [1, 3]), ("tag=red", [1, 4]), ("key=k", [5]),
        ("older_than=0s", [1, 2, 4, 5, 6]), ("older_than=1s", []), ("type=none", []), ("all=1&type=b", [2]),
    ],
)  # fmt: skip
async def test_a_purged_job_is_forgotten(server, query, gone):
    await server.enqueue(type="a", tags=["red"])
    await server.enqueue(type="b", delay=60)
    held = await leased(server, {"type": "a", "priority": 1})
    job = await leased(server, {"type": "b", "tags": ["red"], "priority": 1})
    await server.post("/jobs/4/conclude", said(job))
    await dead(server, type="c", key="k", priority=1)
    await server.enqueue(type="c")
    await server.delete("/jobs/6")
    other = await server.enqueue(queue="other", type="a", tags=["red"], key="k")
    answer = await server.post(f"/queues/default/purge?{query}&dry_run=1")
    assert answer.body == b'{"matched":%d,"changed":0,"sample":%s}\n' % (
        len(gone), str(gone).replace(" ", "").encode()
    )  # fmt: skip
    assert await ids(server) == [1, 2, 3, 4, 5, 6, other]
    answer = await server.post(f"/queues/default/purge?{query}")
    assert (answer.status, answer.json) == (200, {"matched": len(gone), "changed": len(gone), "sample": gone})
    assert await ids(server) == [id for id in (1, 2, 3, 4, 5, 6, other) if id not in gone]
    for id in gone:
        check_problem(await server.get(f"/jobs/{id}"), 410, "job_forgotten")
    if 3 in gone:
        check_problem(await server.post("/jobs/3/conclude", said(held)), 410, "job_forgotten")


async def test_a_purge_of_many_jobs_counts_them(server):
    for _ in range(3):
        await server.post("/jobs/enqueue", [{"type": "x"}] * 1000)
    answer = await server.post("/queues/default/purge", {"all": True, "dry_run": True})
    assert (answer.json["matched"], answer.json["changed"]) == (3000, 0)
    client = await server.ask("POST", "/queues/default/purge?all=1")
    answer = await client.read()
    assert (answer.json["matched"], answer.json["changed"]) == (3000, 3000)
    assert 1 <= len(answer.json["sample"]) <= 100
    assert (await server.get("/jobs/count")).json == {"count": 0}
    assert await server.dequeue() is None


# -- redrive by filter ------------------------------------------------------------------------------


async def test_dead_jobs_are_redriven_by_filter(server):
    for job in ({"type": "a"}, {"type": "b", "tags": ["t"]}, {"type": "a", "key": "k"}, {"type": "a"}):
        await dead(server, **job)
    await server.enqueue(type="a", delay=60)
    await dead(server, queue="other", type="a")
    path = "/queues/default/redrive"
    for query, matched in [("type=a", [1, 3, 4]), ("tag=t", [2]), ("key=k", [3]), ("all=1", [1, 2, 3, 4]),
                           ("status=dead", [1, 2, 3, 4]), ("older_than=1s", [])]:  # fmt: skip
        answer = await server.post(f"{path}?{query}&dry_run=1")
        assert answer.json == {"matched": len(matched), "changed": 0, "sample": matched}, query
    answer = await server.post(path, {"type": "a", "limit": 2})
    assert answer.json == {"matched": 2, "changed": 2, "sample": [1, 3]}
    assert await ids(server, "status=dead&queue=default") == [2, 4]
    answer = await server.post(path + "?all=true")
    assert answer.json == {"matched": 2, "changed": 2, "sample": [2, 4]}
    jobs = (await server.dequeue(count=10))["jobs"]
    assert [(job["id"], job["attempts"]) for job in jobs] == [(1, 1), (3, 1), (2, 1), (4, 1)]
    assert await ids(server, "status=dead") == [6]


async def test_only_dead_jobs_are_redriven(server):
    for status in ("queued", "dead,queued"):
        answer = await server.post(f"/queues/default/redrive?status={status}")
        check_problem(answer, 400, "invalid_field", field="status")
    for limit in (0, -1, "1"):
        answer = await server.post("/queues/default/redrive", {"all": True, "limit": limit})
        check_problem(answer, 400, "invalid_field", field="limit")


async def test_the_name_of_the_queue_is_checked(server):
    for path in ("purge", "redrive", "pause", "resume"):
        check_problem(await server.post(f"/queues/a%20b/{path}"), 400, "invalid_field", field="name")


async def test_peek_shows_the_next_jobs_in_the_order_of_dequeue_and_leases_none(server):
    for priority in (0, 5, 0, -3):
        await server.enqueue(queue="q", priority=priority, payload=priority)
    back = (await server.post("/jobs/dequeue", {"queue": "q"})).json
    assert back["id"] == 2
    await server.post("/jobs/2/release", said(back))
    answer = await server.get("/queues/q/peek?limit=3")
    assert answer.status == 200
    assert [job["id"] for job in answer.json["jobs"]] == [2, 1, 3]
    assert "payload" not in answer.json["jobs"][0]
    assert [job["payload"] for job in (await server.get("/queues/q/peek?payload=1")).json["jobs"]] == [
        5,
        0,
        0,
        -3,
    ]
    assert (await server.get("/queues/q")).json["jobs"]["queued"] == 4
    assert (await server.get("/queues/never-used/peek")).json == {"jobs": []}
    check_problem(await server.get("/queues/q/peek?limit=0"), 400, "invalid_field", field="limit")
