"""Sending: what one client is answered, as bytes. What is answered in one loop pass goes together."""

import asyncio
import select
from collections.abc import Callable
from typing import TYPE_CHECKING

from jobqueue.web.http import JSON, Request, Response

if TYPE_CHECKING:
    from jobqueue.server.http1.front import FastFront

_HUNG_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
# Answers gathered for one `send`: at most so many, and none that is longer.
_GATHERED = 64
_GATHERED_BYTES = 8192


class ResponseWriter:
    """What is answered, and not yet sent. `_close`: with it the connection ends. `_clear`: nothing is in the
    way of the next request; False where something may be: then it is looked at. `_blocked`: the client does
    not take what it is sent. `_unsent`: give back the jobs in what is not sent."""

    __slots__ = ("_blocked", "_clear", "_close", "_front", "_gone", "_out", "_transport", "_unsent", "peer")

    _transport: asyncio.Transport

    def __init__(self, front: "FastFront", peer: str) -> None:
        self._front = front
        self.peer = peer
        self._out: list[bytes] = []
        self._unsent: list[Callable[[], None]] = []
        self._blocked = self._gone = self._close = False
        self._clear = True

    def _said(self) -> None:
        """All that was answered is sent, and the connection is to end: now, or after one that still waits."""
        raise NotImplementedError

    def _answer(
        self, answer: Response, request: Request, close: bool, started: float, alone: bool = False
    ) -> None:
        """`alone`: nothing else is to be sent in this loop pass, so why wait for its end."""
        on_undelivered = answer.on_undelivered
        if self._gone:
            if on_undelivered is not None:
                on_undelivered()
            return
        front = self._front
        method, status, body, extra = request.method, answer.status, answer.body, answer.headers
        shown = body
        if method != "POST" and (method == "GET" or method == "HEAD"):
            extra += b"\r\nCache-Control: no-store"
            if method == "HEAD":
                shown = b""
        if close or front.draining:
            self._close = True
            self._clear = False
            extra += b"\r\nConnection: close"
        elif b"connection" in request.headers and request.headers[b"connection"].lower() == b"keep-alive":
            extra += b"\r\nConnection: keep-alive"
        kind = answer.content_type
        head = front.heads[status] if kind is JSON else front.head(status, kind)
        id = request.id.encode("latin-1")
        if status == 204:
            text = b"%b%b%b\r\n\r\n" % (head, id, extra)
        else:
            text = b"%b%b%b\r\nContent-Length: %d\r\n\r\n%b" % (head, id, extra, len(body), shown)
        if on_undelivered is not None:
            self._unsent.append(on_undelivered)
        out = self._out
        first = not out
        out.append(text)
        if alone or len(text) > _GATHERED_BYTES:
            self.send()
        elif first and not front.answering:
            front.send_soon(self)
        elif len(out) > _GATHERED:
            self.send()
        log = front.log
        if status < 400 and log.full:
            log.summed += 1
        else:
            log.request(method, request.path, status, started, len(body), request.peer, request.id)

    def send(self) -> None:
        """Sends what is answered, if anything. Called by the front, once after `send_soon`."""
        out = self._out
        if not out or self._gone:
            return
        if self._unsent and self._transport.is_closing():
            return  # to what it holds a client that has hung up has no claim
        if self._unsent and self._front.encrypts:
            # By TLS nothing says that the client does not take what is written first, only what comes behind.
            last = out.pop()
            self._transport.writelines([*out, last[:-1]])
            self._transport.write(last[-1:])
        else:
            self._transport.writelines(out)
        out.clear()
        if self._unsent and not self._blocked:
            if self._front.encrypts:  # only at the end of this loop pass is it handed to the system
                asyncio.get_running_loop().call_soon(self._sent)
            else:
                self._sent()
        if self._close and not self._gone:
            self._said()

    def _sent(self) -> None:
        """What was written may not have been: then the transport is about to close."""
        if not (self._blocked or self._out or self._transport.is_closing()):
            self._unsent.clear()

    def write(self, data: bytes) -> None:
        """For the bridge."""
        self._transport.write(data)

    def abort(self) -> None:
        self._transport.abort()

    def _hung_up(self) -> bool:
        """The client has gone, or will be found to have when the loop next looks."""
        if self._gone or self._transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), _HUNG_UP)
        return bool(poll.poll(0))
