"""GET /top: a screen that is redrawn."""

from serving import until
from streams import StreamReader

from jobqueue.web.streams import top
from jobqueue.web.writers import top_screen


async def test_the_screen_is_redrawn_in_place(server, monkeypatch):
    monkeypatch.setattr(top, "REDRAW", 0.01)
    monkeypatch.setattr(top_screen, "REDRAW", 0.01)
    reading = await StreamReader.begin(server, "GET", "/top")
    assert reading.headers["content-type"].startswith("text/plain")
    assert await reading.until(b"\x1b[J") != b""
    id = await server.enqueue(queue="mail")
    screen = b""
    while b"mail" not in screen:
        screen = await reading.until(b"\x1b[J")
    assert screen.startswith(b"\x1b[H")
    assert b"queued 1" in screen
    assert b"\x1b[2J" not in screen
    assert id


async def test_top_ends_on_request_on_a_hang_up_and_when_the_server_stops(server):
    assert 1 <= (await server.get("/top?for=10ms")).body.count(b"\x1b[J") <= 3
    gone = await StreamReader.begin(server, "GET", "/top")
    await gone.until(b"\x1b[J")
    gone.client.reset()
    await until(lambda: len(server.dispatcher.streams) == 0)
    reading = await StreamReader.begin(server, "GET", "/top")
    await reading.until(b"\x1b[J")
    server.stop_waiting()
    await reading.rest()
    await until(lambda: server.front.busy() == 0)


async def test_all_watchers_share_one_screen(server, monkeypatch):
    drawn = []
    monkeypatch.setattr(top_screen, "screen", lambda *_: drawn.append(1) or "screen\n")
    for _ in range(20):
        await (await StreamReader.begin(server, "GET", "/top")).until(b"\x1b[J")
    assert len(drawn) <= 2
