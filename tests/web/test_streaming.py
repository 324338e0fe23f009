"""Flow control of streams: how much is written at once, and in one pass of the loop."""

import asyncio
from time import monotonic

import pytest
from serving import until
from streams import StreamReader

from jobqueue import MemoryEngine, Settings
from jobqueue.model import NewJob
from jobqueue.web.bytes_in_flight import BytesInFlight
from jobqueue.web.http import Stream
from jobqueue.web.streams.flow import LONG, Client, Streams, StreamWriter, gathered


def test_many_lines_are_written_at_once_and_a_long_one_by_itself():
    short, long = b"s" * (LONG // 4), b"l" * (2 * LONG)
    assert [len(piece) for piece in gathered([short] * 9)] == [LONG, LONG, LONG // 4]
    assert list(gathered([short, long, short, short])) == [short, long, short * 2]
    assert list(gathered([])) == []


class FastReader:
    """A client whose system accepts everything at once."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.turn = 0

    def write(self, piece: bytes) -> None:
        self.taken.append(self.turn)

    def abort(self) -> None:
        raise AssertionError


async def test_a_stream_lets_other_work_run_however_small_its_pieces_are(io_loop):
    async def pieces():
        for _ in range(64):
            yield bytes(LONG // 16)

    async def others():
        while True:
            reader.turn += 1
            await asyncio.sleep(0)

    reader = FastReader()
    taking_turns = asyncio.ensure_future(others())
    pouring = StreamWriter(Stream(pieces(), print, print), reader)
    assert await pouring.pour(Streams(MemoryEngine(Settings()), BytesInFlight(None, 1)))
    taking_turns.cancel()
    assert len(reader.taken) == 64
    assert all(reader.taken.count(turn) <= 16 for turn in reader.taken)


def look(streams, seconds):
    """Runs the check of the streams after so much time."""
    for running in list(streams._open):
        running.look(monotonic() + seconds, streams)


TIMEOUTS = Settings(first_id=1, write_timeout="200s", body_timeout="100s")


@pytest.mark.parametrize("settings", [TIMEOUTS])
async def test_a_client_that_reads_nothing_is_disconnected_after_the_write_timeout(server):
    server.engine.enqueue_many([NewJob("x", "q", payload=b'"%b"' % (b"y" * 100_000))] * 400)
    reading = await StreamReader.begin(server, "GET", "/queues/q/export")
    reading.client._writer.transport.pause_reading()
    await until(lambda: any(running._writing for running in server.dispatcher.streams._open))
    look(server.dispatcher.streams, 195)
    await asyncio.sleep(0)
    assert len(server.dispatcher.streams) == 1
    await until(lambda: look(server.dispatcher.streams, 205) or len(server.dispatcher.streams) == 0)


@pytest.mark.parametrize("settings", [TIMEOUTS])
async def test_an_import_that_sends_nothing_is_disconnected_after_the_body_timeout(server):
    client = await server.connect()
    client.send(b"PUT /import HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send(b'd\r\n{"type":"a"}\n\r\n')
    await until(lambda: server.engine.stats().jobs["queued"] == 1)
    [receiving] = server.dispatcher.streams._open
    await until(lambda: receiving._since is not None)
    look(server.dispatcher.streams, 95)
    await asyncio.sleep(0)
    assert len(server.dispatcher.streams) == 1
    look(server.dispatcher.streams, 105)
    assert await client.rest() == b""
    await until(lambda: len(server.dispatcher.streams) == 0)


async def test_large_jobs_are_exported_one_by_one(server, monkeypatch):
    """A client that stops reading costs no more memory than one job."""
    lengths = []

    class Measuring:
        def __init__(self, client: Client) -> None:
            self._client = client
            self.abort = client.abort

        def write(self, piece: bytes) -> "asyncio.Future[None] | None":
            lengths.append(len(piece))
            return self._client.write(piece)

    begin = StreamWriter.__init__
    monkeypatch.setattr(
        StreamWriter, "__init__", lambda self, stream, client: begin(self, stream, Measuring(client))
    )
    server.engine.enqueue_many([NewJob("x", "q", payload=b'"%b"' % (b"y" * 100_000))] * 20)
    reading = await StreamReader.begin(server, "GET", "/queues/q/export")
    assert (await reading.rest()).count(b"\n") == 20
    assert len(lengths) == 20
    assert max(lengths) < 101_000
