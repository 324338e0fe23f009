"""A client that reads an answer piece by piece."""

import asyncio
import json
from typing import Any, NamedTuple

from http_client import Client
from serving import Server


class Event(NamedTuple):
    id: int
    name: str
    data: Any


class StreamReader:
    """An answer whose head was read. Its body is read by lines, whatever chunks it comes in."""

    def __init__(self, client: Client, status: int, headers: dict[str, str]) -> None:
        self.client = client
        self.status = status
        self.headers = headers
        self._left = b""
        self.ended = False

    @classmethod
    async def begin(
        cls, server: Server, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> "StreamReader":
        client = await server.connect()
        client.ask(method, path, body, headers)
        head = (await client._reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        named = dict(line.lower().split(": ", 1) for line in lines)
        assert named.get("transfer-encoding") == "chunked", head
        return cls(client, int(first.split()[1]), named)

    async def _chunk(self) -> bytes:
        size = int(await self.client._reader.readline(), 16)
        data = await self.client._reader.readexactly(size + 2)
        self.ended = size == 0
        return data[:-2]

    async def until(self, mark: bytes, seconds: float = 5) -> bytes:
        """Returns everything up to `mark`, without it; or what is left if the stream ends."""
        async with asyncio.timeout(seconds):
            while mark not in self._left and not self.ended:
                self._left += await self._chunk()
        found, _, self._left = self._left.partition(mark)
        return found

    async def line(self) -> bytes:
        return await self.until(b"\n")

    async def job(self) -> Any:
        return json.loads(await self.line())

    async def frame(self) -> bytes:
        """Returns one frame of server-sent events."""
        return await self.until(b"\n\n")

    async def event(self) -> Event:
        """Returns the next frame that is an event."""
        while True:
            frame = await self.frame()
            assert frame, "it ended"
            if frame.startswith(b"id: "):
                id, name, data = (line.partition(b": ")[2] for line in frame.split(b"\n"))
                return Event(int(id), name.decode(), json.loads(data))

    async def rest(self) -> bytes:
        """Returns everything up to the end of the stream."""
        chunks, self._left = [self._left], b""
        async with asyncio.timeout(5):
            while not self.ended:
                chunks.append(await self._chunk())
        return b"".join(chunks)


async def consume(server: Server, **options: Any) -> StreamReader:
    """Returns a stream of jobs of a consumer."""
    return await StreamReader.begin(server, "POST", "/jobs/stream", options)


async def watch(server: Server, query: str = "", last: int | None = None) -> StreamReader:
    """Returns a stream of events whose first frame was read, so that it gets all events from now on."""
    headers = None if last is None else {"Last-Event-ID": str(last)}
    reading = await StreamReader.begin(server, "GET", f"/events{query}", None, headers)
    assert await reading.frame() == b"retry: 2000"
    return reading
