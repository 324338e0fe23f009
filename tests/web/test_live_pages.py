"""GET /live: tells open pages of the dashboard that something has changed."""

import pytest
from serving import until
from streams import StreamReader

from jobqueue.web.dashboard import live

CHANGED = b"event: changed\ndata:"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(live, "LOOK", 0.01)


async def opened(server, query=""):
    reading = await StreamReader.begin(server, "GET", f"/live{query}")
    assert reading.headers["content-type"].startswith("text/event-stream")
    await reading.until(b"\n\n")
    return reading


async def test_a_page_is_told_that_something_has_changed(server):
    id = await server.enqueue(queue="mail")
    pages = [await opened(server, query) for query in ("", "?queue=mail", f"?job={id}")]
    await server.dequeue(queue="mail")
    for page in pages:
        assert await page.until(b"\n\n") == CHANGED


async def test_the_page_of_a_queue_is_told_of_its_settings_and_its_pause(server):
    page = await opened(server, "?queue=mail")
    await server.post("/queues/mail/pause")
    assert await page.until(b"\n\n") == CHANGED


async def test_the_pages_of_schedules_are_told_of_edits_and_of_instants(server):
    daily = {"cron": "@daily", "job": {"type": "report"}}
    await server.call("PUT", "/schedules/nightly", daily)
    changes = (
        lambda: server.post("/schedules/nightly/pause"),
        lambda: server.post("/schedules/nightly/resume"),
        lambda: server.post("/schedules/nightly/run"),
        lambda: server.call("PUT", "/schedules/nightly", {**daily, "cron": "@hourly"}),
        lambda: server.delete("/schedules/nightly"),
    )
    for change in changes:
        pages = [await opened(server, query) for query in ("?schedule=nightly", "?list=schedules")]
        await change()
        for page in pages:
            assert await page.until(b"\n\n") == CHANGED
    page = await opened(server, "?list=schedules")
    await server.call("PUT", "/schedules/other", daily)
    assert await page.until(b"\n\n") == CHANGED


async def test_the_page_of_a_schedule_is_not_told_of_others(server):
    for name in ("a", "b"):
        await server.call("PUT", f"/schedules/{name}", {"cron": "@daily", "job": {"type": "report"}})
    page, other = await opened(server, "?schedule=a"), await opened(server, "?schedule=b")
    await server.post("/schedules/b/pause")
    assert await other.until(b"\n\n") == CHANGED
    server.stop_waiting()
    assert await page.rest() == b""


async def test_the_page_of_the_audit_log_is_told_of_calls(server):
    page = await opened(server, "?list=audit")
    await server.post("/queues/mail/pause")
    assert await page.until(b"\n\n") == CHANGED


async def test_the_page_of_a_queue_is_not_told_of_others(server):
    page = await opened(server, "?queue=mail")
    await server.enqueue(queue="other")
    other = await opened(server, "?queue=other")
    await server.enqueue(queue="other")
    assert await other.until(b"\n\n") == CHANGED
    server.stop_waiting()
    assert await page.rest() == b""


async def test_a_page_is_loaded_again_now_and_then_since_ages_change(server, monkeypatch):
    monkeypatch.setattr(live, "AT_LEAST", 0.05)
    monkeypatch.setattr(live, "_SPARE", 1)
    assert await (await opened(server)).until(b"\n\n") == CHANGED


async def test_pages_that_show_the_same_share_a_look(server, monkeypatch):
    looks = []
    monkeypatch.setattr(live, "LOOK", 60)
    monkeypatch.setattr(live, "_fingerprint", lambda *_: looks.append(1) or 1)
    for _ in range(10):
        await opened(server)
    assert len(looks) == 1


async def test_it_ends_with_its_client_and_with_the_server(server):
    gone = await opened(server)
    gone.client.reset()
    await until(lambda: len(server.dispatcher.streams) == 0)
    page = await opened(server)
    server.stop_waiting()
    await page.rest()
    await until(lambda: server.front.busy() == 0)


async def test_what_does_not_exist_is_not_watched(server):
    assert (await server.get("/live?job=77")).status == 404
    assert (await server.get("/live?queue=a/b")).status == 400
    assert (await server.get("/live?schedule=none")).status == 404
    assert (await server.get("/live?list=jobs")).status == 400


async def test_expensive_pages_are_told_less_often(server, monkeypatch):
    looks = []
    monkeypatch.setattr(live, "_PAGE", 10)  # seconds
    monkeypatch.setattr(live, "_fingerprint", lambda *_: looks.append(1) or len(looks))
    page = await opened(server, "?queue=mail")
    await until(lambda: len(looks) > 3)
    server.stop_waiting()
    assert await page.rest() == b""
