"""A server that behaves as a test says, on real sockets, one connection after the other."""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

JOB = b'{"id":7,"status":"queued"}'


def answer(body: bytes = JOB, status: str = "201 Created", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(*pieces: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


class Peer:
    """One connection, on the server's side."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._kept = b""

    def request(self) -> bytes | None:
        """Reads one whole request; None: the client has closed, or the request is not whole."""
        with suppress(OSError):
            while b"\r\n\r\n" not in self._kept:
                if not (data := self.socket.recv(1 << 16)):
                    return None
                self._kept += data
            head, _, rest = self._kept.partition(b"\r\n\r\n")
            body = bytearray(rest)
            at = head.lower().find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n")[0]) if at >= 0 else 0
            while len(body) < size:
                if not (data := self.socket.recv(1 << 16)):
                    return None
                body.extend(data)
            self._kept = bytes(body[size:])
            return head + b"\r\n\r\n" + bytes(body[:size])
        return None

    def send(self, data: bytes) -> None:
        with suppress(OSError):
            self.socket.sendall(data)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


# The ways in which a connection may end.
CUTS = (Peer.close, Peer.reset)


class FakeServer:
    """Calls `serve(peer, number)` for each connection, in a thread of its own.

    `requests` has what `serve` put there, `connections` counts. An exception in `serve` is raised at the end.
    """

    def __init__(self, serve: Callable[[Peer, int], None] | None = None) -> None:
        self.serve = serve or self._always
        self.requests: list[bytes] = []
        self.connections = 0
        self._failed: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _always(self, peer: Peer, _: int) -> None:
        """Answers every request with a job."""
        while self.take(peer) is not None:
            peer.send(answer())

    def take(self, peer: Peer) -> bytes | None:
        """Reads a request, and keeps it in `requests`."""
        request = peer.request()
        if request is not None:
            self.requests.append(request)
        return request

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            if self.connections < 0:
                connected.close()
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connected, self.connections))
            thread.start()
            self._threads.append(thread)

    def _serve(self, connected: socket.socket, number: int) -> None:
        connected.settimeout(20)
        try:
            self.serve(Peer(connected), number)
        except BaseException as failed:
            self._failed.append(failed)
        finally:
            connected.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        counted, self.connections = self.connections, -1
        with suppress(OSError):
            socket.create_connection(self._listening.getsockname(), 1).close()
        self._accepting.join()
        self.connections = counted
        self._listening.close()
        for thread in self._threads:
            thread.join()
        if self._failed and kind is None:
            raise self._failed[0]
