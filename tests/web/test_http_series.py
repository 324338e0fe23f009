"""GET /queues/{name}/series: what happened lately. tests/engine/test_series.py has its rules."""

import pytest
from leasing import later
from serving import check_problem


async def filled(server):
    await later(server, 0)
    for count in (3, 0, 7):
        for _ in range(count):
            await server.enqueue(queue="mail")
        await later(server, 10)
    await later(server, 30)


async def test_a_series_has_a_number_for_each_step_and_kind(server):
    await filled(server)
    answer = await server.get("/queues/mail/series?for=30s&step=10s")
    assert answer.json == {
        "queue": "mail", "kept": True, "from": "2027-01-15T08:00:30.000Z", "until": "2027-01-15T08:01:00.000Z",
        "step": 10, "enqueued": [0, 0, 0], "concluded": [0, 0, 0], "failed": [0, 0, 0], "stale": [0, 0, 0],
        "dead": [0, 0, 0], "queued": [10, 10, 10],
    }  # fmt: skip
    assert (await server.get("/queues/mail/series?for=6h&step=10s")).json["enqueued"] == [3, 0, 7, 0, 0, 0]
    minute = (await server.get("/queues/mail/series")).json
    assert (minute["step"], minute["enqueued"], minute["queued"]) == (60, [10], [10])


async def test_a_series_is_bars_as_text_and_in_a_browser(server):
    await filled(server)
    text = (await server.get("/queues/mail/series?step=10s&format=text")).body.decode()
    head, heads, enqueued, *_, queued = text.splitlines()
    assert head == ("mail  2027-01-15T08:00:00.000Z to 2027-01-15T08:01:00.000Z, in steps of 10 s")
    assert heads.split() == ["ALL", "LAST"]
    assert enqueued.split() == ["enqueued", "10", "0", "▄▁█▁▁▁"]
    assert queued.split() == ["queued", "10", "10", "▄▄████"]
    page = await server.get("/queues/mail/series?step=10s", {"Accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "▄▁█▁▁▁" in page.body.decode()


async def test_a_queue_that_is_not_used_has_no_series_and_says_so(server):
    answer = (await server.get("/queues/never/series")).json
    assert (answer["kept"], answer["enqueued"], answer["from"] == answer["until"]) == (False, [], True)
    assert "no series" in (await server.get("/queues/never/series?format=text")).body.decode()


@pytest.mark.parametrize(
    ("query", "field", "said"),
    [
        ("step=15s", "step", "multiple of 10 s"), ("step=5s", "step", ""), ("for=7h", "for", ""),
        ("for=5s", "for", ""), ("for=30s&step=1m", "for", "at least one step"), ("step=10.5", "step", "multiple"),
        ("format=events", "format", "json, text or html"), ("step=0", "step", ""),
    ],
)  # fmt: skip
async def test_lengths_that_there_are_not_are_refused(server, query, field, said):
    problem = check_problem(
        await server.get(f"/queues/mail/series?{query}"), 400, "invalid_field", field=field
    )
    assert said in problem["detail"]
