"""Passing: takes clients' connections, and passes them on to the owner of the jobs, byte by byte.

Nothing is read of what passes, so everything works as at the owner: long polls, streams, uploads, TLS. While
no owner is known a connection waits for one. When the owner goes, so do the connections that were passed to
it."""

import asyncio
import logging
import socket
from contextlib import suppress
from typing import cast

from jobqueue.cluster.link import NONCE, connect, greeting, reason, receive, watch_other_side
from jobqueue.errors import NotReady
from jobqueue.storage.postgres_session import Place
from jobqueue.web.http import REASONS
from jobqueue.web.writers.problems import problem

_log = logging.getLogger("jobqueue")
# Seconds for which a connection waits for an owner, and between two tries to reach one.
_WAIT = 5.0
_PAUSE = 0.1
# Seconds that connecting to the owner may take.
_CONNECT = 2.0
# Seconds after which an owner that cannot be reached is reported, and between two tries to reach it.
_REPORT = 5.0
_REPORT_PAUSE = 1.0
# Seconds for which a refused connection stays open, so that its client can read why.
_LINGER = 1.0
# Seconds that a client has to close a connection that the owner has closed.
_END = 30.0
# Bytes that may wait for the slower side, of each connection and direction.
_BUFFER = 256 << 10


class Passing:
    """`owner`: where connections go now; None while there is nobody. `by_tls`: the clients speak TLS.
    `unread`: milliseconds for which the owner may read nothing."""

    def __init__(self, by_tls: bool, unread: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._by_tls = by_tls
        self._unread = unread
        self._owner: Place | None = None
        self._changed = asyncio.Event()
        # The clients that wait for an owner, and their addresses
        self._waiting: dict[asyncio.Task[None], tuple[socket.socket, str]] = {}
        self._passed: set[_End] = set()
        self._refused = 0
        self._probing: asyncio.Task[None] | None = None

    def count(self) -> int:
        """Returns the number of clients that wait or are passed on."""
        return len(self._waiting) + len(self._passed) // 2

    def send_to(self, owner: Place | None) -> None:
        if owner != self._owner:
            self._owner = owner
            self._changed.set()
            self._changed = asyncio.Event()
            self._probe()

    def _probe(self) -> None:
        """Finds out whether the owner can be reached, also while there are no clients."""
        if self._probing is not None:
            self._probing.cancel()
            self._probing = None
        if self._owner is not None:
            self._probing = self._loop.create_task(self._report(self._owner))

    async def _report(self, owner: Place) -> None:
        """Returns when the owner is reached. Warns if that lasts long."""
        began, warned = self._loop.time(), False
        while True:
            try:
                link, _ = await self._connect(owner)
            except (OSError, EOFError, ValueError) as failed:
                if not warned and self._loop.time() - began >= _REPORT:
                    warned = True
                    _log.warning(
                        "the owner of the jobs cannot be reached at %s: %s. Clients of this server get 503. "
                        "Is its JOBQUEUE_ADVERTISE right, and may this machine connect there?",
                        owner.address,
                        reason(failed),
                    )
            else:
                link.close()
                if warned:
                    _log.info("the owner of the jobs is reached at %s", owner.address)
                return
            await asyncio.sleep(min(_REPORT, _REPORT_PAUSE))

    def take(self, accepted: socket.socket, peer: str) -> None:
        """Passes on a connection from now on, and owns its socket."""
        task = self._loop.create_task(self._pass_on(accepted, peer))
        self._waiting[task] = accepted, peer
        task.add_done_callback(lambda task: self._waiting.pop(task, None))

    def close(self) -> list[tuple[socket.socket, str]]:
        """Ends what is passed on. Returns the clients that still wait for an owner, of whom nothing was read,
        and their addresses."""
        if self._probing is not None:
            self._probing.cancel()
        waiting = [client for task, client in self._waiting.items() if task.cancel()]
        self._waiting.clear()
        for end in list(self._passed):
            end.abort()
        return waiting

    async def _pass_on(self, accepted: socket.socket, peer: str) -> None:
        until = self._loop.time() + _WAIT
        while (link := await self._reach(peer)) is None:
            left = until - self._loop.time()
            if left <= 0:
                self._forget()
                await self._refuse(accepted)
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, _PAUSE if self._owner is not None else left)):
                    await self._changed.wait()
        self._forget()
        client, owner = _End(self._passed, False), _End(self._passed, True)
        client.other, owner.other = owner, client
        try:
            await self._loop.create_connection(lambda: owner, sock=link)
        except OSError:
            link.close()
            accepted.close()
            return
        try:
            await self._loop.connect_accepted_socket(lambda: client, accepted)
        except OSError:
            owner.abort()
            accepted.close()

    def _forget(self) -> None:
        """This task's client waits no more."""
        task = asyncio.current_task()
        assert task is not None
        del self._waiting[task]

    async def _reach(self, peer: str) -> socket.socket | None:
        """Returns a connection to the owner that was greeted, or None."""
        place = self._owner
        if place is None:
            return None
        try:
            link, nonce = await self._connect(place)
        except (OSError, EOFError, ValueError):
            if self._probing is None or self._probing.done():
                self._probe()
            return None
        try:
            async with asyncio.timeout(_CONNECT):
                await self._loop.sock_sendall(link, greeting(peer, nonce, place.secret))
        except BaseException as failed:
            link.close()
            if isinstance(failed, OSError):
                return None
            raise
        return link

    async def _connect(self, place: Place) -> tuple[socket.socket, bytes]:
        """Returns a connection to another server, and what that says first. Raises `OSError`, `EOFError` or
        `ValueError`."""
        link: socket.socket | None = None
        try:
            async with asyncio.timeout(_CONNECT):
                link = await connect(place.address)
                watch_other_side(link, self._unread)
                return link, await receive(self._loop, link, NONCE)
        except BaseException:
            if link is not None:
                link.close()
            raise

    async def _refuse(self, accepted: socket.socket) -> None:
        """Answers 503, by plain HTTP only."""
        try:
            if not self._by_tls:
                self._refused += 1
                await self._loop.sock_sendall(accepted, self._not_ready())
                accepted.shutdown(socket.SHUT_WR)
                await asyncio.sleep(_LINGER)
        except OSError:
            pass
        finally:
            accepted.close()

    def _not_ready(self) -> bytes:
        why = "no server is the owner of the jobs at present; one takes over in a few seconds"
        if self._owner is not None:
            why = "this server does not reach the owner of the jobs; its log says why"
        request_id = f"standby-{self._refused}"
        answer = problem(NotReady(why, retry_after=1), request_id)
        head = (
            f"HTTP/1.1 {answer.status} {REASONS[answer.status]}\r\nContent-Type: {answer.content_type}\r\n"
            f"X-Request-Id: {request_id}\r\nContent-Length: {len(answer.body)}\r\nConnection: close"
        )
        return head.encode("latin-1") + answer.headers + b"\r\n\r\n" + answer.body


class _End(asyncio.Protocol):
    """One side of a connection that is passed on. It writes what the other side receives."""

    other: "_End"

    def __init__(self, open_ends: set["_End"], is_owner: bool) -> None:
        self._open = open_ends
        self.is_owner = is_owner
        self._transport: asyncio.Transport | None = None
        self._early = b""  # what came for it before it was connected
        self._ended = False  # nothing more comes from it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:

        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's has another base
        transport.set_write_buffer_limits(_BUFFER)
        self._open.add(self)
        if self._early:
            transport.write(self._early)
        if self.other._ended:
            transport.write_eof()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        to = self.other._transport
        if to is None:
            self.other._early += data
        elif not to.is_closing():
            to.write(data)

    def eof_received(self) -> bool:
        to = self.other._transport
        if to is not None and not to.is_closing():
            with suppress(OSError, RuntimeError):
                to.write_eof()
        self._ended = True
        if self.other._ended:
            self.other.close()
            return False
        if self.is_owner:  # it says no more; its client may still read, or send what nobody wants
            asyncio.get_running_loop().call_later(_END, self.abort)
        return True  # the other direction goes on

    def pause_writing(self) -> None:
        if (other := self.other._transport) is not None and not other.is_closing():
            other.pause_reading()

    def resume_writing(self) -> None:
        if (other := self.other._transport) is not None and not other.is_closing():
            other.resume_reading()

    def close(self) -> None:
        """Closes when all is written."""
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._open.discard(self)
        if error is None:
            self.other.close()
        else:
            self.other.abort()
