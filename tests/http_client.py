"""A raw HTTP/1.1 client for tests that decide which bytes are sent, and when the client hangs up.

    client = await Client.connect(port)
    answer = await client.call("POST", "/jobs/enqueue", {"type": "x"})      # send, and read one answer
    client.send(request("POST", "/jobs/dequeue?wait=30"))                   # only send
    client.close() | client.reset() | client.half_close()                   # three ways to hang up

It does not enforce the rules of HTTP: `send` sends the bytes that it is given.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

# Methods of both clients here.
HANG_UPS = ("close", "reset", "half_close")
Body = bytes | str | dict[str, Any] | list[Any] | None


class Answer(NamedTuple):
    """A response. `headers`: by lower-case name; values of a repeated header are joined by a comma."""

    status: int
    headers: dict[str, str]
    body: bytes
    reason: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The `code` of a problem document."""
        return self.json["code"]


def body_bytes(body: Body) -> bytes:
    """Bytes unchanged, text as UTF-8, anything else as JSON without spaces."""
    if body is None:
        return b""
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body, separators=(",", ":"))).encode()


def request(
    method: str,
    path: str,
    body: Body = None,
    headers: Mapping[str, str] | None = None,
    version: str = "HTTP/1.1",
) -> bytes:
    """The bytes of one request. Adds Host and Content-Length unless `headers` has them."""
    sent = body_bytes(body)
    given = {name.lower() for name in headers or {}}
    lines = [f"{method} {path} {version}"]
    if "host" not in given:
        lines.append("Host: localhost")
    if "content-length" not in given and "transfer-encoding" not in given and (sent or method == "POST"):
        lines.append(f"Content-Length: {len(sent)}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + sent


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.methods: list[str] = []  # of the requests sent by `call` or `ask`, not yet answered

    @classmethod
    async def connect(cls, port: int, host: str = "127.0.0.1") -> "Client":
        return cls(*await asyncio.open_connection(host, port, limit=64 << 20))

    # -- sending --------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Writes the bytes. They are sent at once unless the socket's buffer is full."""
        self._writer.write(data)

    def ask(
        self, method: str, path: str, body: Body = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Sends a request without reading its answer. `read` then knows its method."""
        self.methods.append(method)
        self.send(request(method, path, body, headers))

    async def call(
        self, method: str, path: str, body: Body = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Sends a request and reads its answer."""
        self.ask(method, path, body, headers)
        await self._writer.drain()
        return await self.read()

    # -- reading --------------------------------------------------------------------------------------

    async def read(self, method: str | None = None) -> Answer:
        """Reads one answer, and skips a 100 (Continue) before it. `method`: of its request, if that was not sent by
        `ask` or `call`: the answer to a HEAD has no body. Raises `IncompleteReadError` if the server ends the
        connection first."""
        if method is None:
            method = self.methods.pop(0) if self.methods else "GET"
        while True:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip("\r\n").split("\r\n")
            version, status, *reason = first.split(" ", 2)
            assert version == "HTTP/1.1", head
            if status != "100":
                break
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            assert colon, head
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        body = await self._body(headers, bodyless=method == "HEAD" or status in ("204", "304"))
        return Answer(int(status), headers, body, reason[0] if reason else "")

    async def _body(self, headers: dict[str, str], bodyless: bool) -> bytes:
        if bodyless:
            return b""
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self._reader.readline(), 16):
                body += await self._reader.readexactly(size)
                assert await self._reader.readline() == b"\r\n"
            assert await self._reader.readline() == b"\r\n"
            return body
        if "content-length" in headers:
            return await self._reader.readexactly(int(headers["content-length"]))
        return await self._reader.read()

    async def rest(self) -> bytes:
        """Reads up to the server's end of the connection. A reset counts as the end."""
        try:
            return await self._reader.read()
        except ConnectionError:
            return b""

    # -- hanging up -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Sends FIN as a client that exits (RST if it has unread bytes)."""
        self._writer.close()

    def reset(self) -> None:
        """Sends RST at once."""
        self._writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self._writer.transport.abort()

    def half_close(self) -> None:
        """Sends FIN, and goes on reading."""
        self._writer.write_eof()

    async def closed(self) -> None:
        """Closes the connection and waits until its transport is gone."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


class Blunt:
    """A client without a loop: each call takes effect before the next line of the test."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)
