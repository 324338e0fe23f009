"""Peer: a connection to another server, on which calls are passed on to the shards that it owns.

    waiting      not sent: there is no connection yet, or the other server has not said anything on it
    sent         the answer has not come
    withdrawn    sent, but whoever called has left: what the answer delivers is given back

When the connection is lost, calls that were not sent find out who owns their shard now. So do those that may
be made again. The others fail with `OutcomeUnknown`.
"""

import asyncio
import logging
import ssl
import time
from asyncio import Future
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, cast

from msgspec import MsgspecError

from jobqueue.cluster import codec
from jobqueue.cluster.link import NONCE, connect, greeting, reason, receive, watch_other_side
from jobqueue.cluster.link_tls import proof
from jobqueue.model import Job
from jobqueue.steps import Kind
from jobqueue.storage.postgres_session import Place

_log: Final = logging.getLogger("jobqueue")
# Seconds that connecting may take, and before the next try.
_CONNECT: Final = 2.0
_PAUSE: Final = 0.2
# Milliseconds by which the clocks of two servers may differ before times are converted.
_TOLERANCE: Final = 5
# Milliseconds for which another server may read nothing.
UNREAD: Final = 5_000
# Who says this in a greeting passes on calls, not the connection of a client.
PASSES_CALLS: Final = "calls 1, from "


class Call(Protocol):
    """A call for a shard of another server."""

    kind: int
    shard_index: int
    body: bytes
    number: int  # on the connection; 0: it was not sent

    def answered(self, kind: int, body: bytes, behind: int) -> None:
        """Takes the answer. `behind`: milliseconds to add to the times of the owner's clock."""

    def unsent(self) -> None:
        """The call was not sent."""

    def lost(self, why: str) -> None:
        """The call was sent, and its answer is lost."""


class LeaseWatcher(Protocol):
    """A shard, which is told when leases end."""

    index: int

    def watch_leases(self) -> None:
        """Watches all its leases again: those who were asked before may have forgotten them."""

    def watch_leases_later(self) -> None:
        """The shard had no owner there."""

    def lease_ended(self, job: Job) -> None:
        """The lease that `job` has now has ended."""

    def lease_renewed(self, id: int, token: str, expires: int, length: int) -> None:
        """The lease was extended."""

    def lease_gone(self, id: int, token: str) -> None:
        """The lease has ended, and it is not known how."""


class Peer:
    """The connection to the server at `place`. `own`: the address of this server, for the log of that one.
    `clock()`: the wall clock of this server when its monotonic clock was 0. `tls`: with which it calls."""

    def __init__(
        self, place: Place, own: str, clock: Callable[[], int], tls: ssl.SSLContext | None = None
    ) -> None:
        self.place = place
        self._own = own
        self._clock = clock
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._ready: Future[bool] | None = None  # done once the other server has said something
        self._waiting: dict[Call, None] = {}
        self._sent: dict[int, Call] = {}
        self._number = 0
        self.passed_on = 0  # calls that were sent
        self.url: str | None = None  # at which clients reach the other server, if it has told that
        self._out: list[bytes] = []
        self._received = bytearray()
        self._their_clock: int | None = None
        self._leases: dict[tuple[int, str], LeaseWatcher] = {}
        self._observer: Callable[[Kind, Job | str], None] | None = None
        self._closed = False
        self._warned = False
        self._away_since: float | None = None  # since when there is no connection, after one, or a try
        self._connecting = self._loop.create_task(self._connect())

    # -- calls --------------------------------------------------------------------------------------

    @property
    def _connected(self) -> bool:
        return self._transport is not None and self._their_clock is not None

    @property
    def away(self) -> float:
        """The seconds for which the other server has not been reached."""
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    def _is_away(self) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether the answer to a call has not come."""
        return bool(self._sent)

    def send(self, call: Call) -> None:
        if not self._connected:
            if self._closed:
                call.unsent()
            else:
                self._waiting[call] = None
            return
        self._number = number = (self._number + 1) & 0xFFFFFFFF or 1
        self._sent[number] = call
        call.number = number
        self.passed_on += 1
        body = call.body
        self._write(
            codec.CALL.pack(codec.CALL.size - codec.LENGTH + len(body), number, call.kind, call.shard_index)
            + body
        )

    def cancel(self, call: Call) -> None:
        """Tells the owner that whoever made this call has left."""
        self._waiting.pop(call, None)
        if self._sent.get(call.number) is call:
            self._tell(codec.CANCEL, call.number, b"")

    def watch_leases(self, watcher: LeaseWatcher, leases: Sequence[tuple[int, str]]) -> None:
        """Has `watcher` told when these leases end."""
        for lease in leases:
            self._leases[lease] = watcher
        self._tell(codec.WATCH_LEASES, watcher.index, codec.encode(leases))

    def forget_leases(self, watcher: LeaseWatcher) -> None:
        """The shard has another owner now."""
        for lease in [lease for lease, known in self._leases.items() if known is watcher]:
            del self._leases[lease]

    def watch(self, observer: Callable[[Kind, Job | str], None] | None) -> None:
        """Has the events of all shards of the other server passed to `observer`, or ends that."""
        self._observer = observer
        self._tell(codec.WATCH, 0, b"\x01" if observer is not None else b"")

    def _tell(self, kind: int, about: int, body: bytes) -> None:
        """Sends what has no answer. `about`: a call, or a shard."""
        if self._connected:
            number, shard = (about, 0) if kind == codec.CANCEL else (0, about)
            self._write(
                codec.CALL.pack(codec.CALL.size - codec.LENGTH + len(body), number, kind, shard) + body
            )

    def _write(self, frame: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    # -- the connection -----------------------------------------------------------------------------

    async def _connect(self) -> None:
        while not self._closed:
            try:
                async with asyncio.timeout(_CONNECT):
                    link = await connect(self.place.address)
                    try:
                        watch_other_side(link, UNREAD)
                        nonce = await receive(self._loop, link, NONCE)
                        said = greeting(PASSES_CALLS + self._own, nonce, self.place.secret)
                        await self._loop.sock_sendall(link, said)
                        self._ready = self._loop.create_future()
                        await self._loop.create_connection(
                            lambda: cast(Any, self),
                            sock=link,
                            ssl=self._tls,
                            server_hostname="" if self._tls is not None else None,
                        )
                    except BaseException:
                        link.close()
                        raise
                    if not await self._ready:
                        raise EOFError
                if self._transport is not None:
                    return
            except Exception as failed:  # whatever it is, the calls that wait must not wait for ever
                if not isinstance(failed, (OSError, EOFError, ValueError)):
                    _log.exception("unexpected error")
                if self._transport is not None:
                    self._transport.abort()
                self._is_away()
                if not self._warned:
                    self._warned = True
                    _log.warning(
                        "the server at %s cannot be reached: %s. Calls for its jobs get 503. Is its "
                        "JOBQUEUE_ADVERTISE right, and may this machine connect there?",
                        self.place.address,
                        reason(failed),
                    )
                self._none_sent()
            await asyncio.sleep(_PAUSE)

    def _none_sent(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            call.unsent()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's has another base
        if self._tls is not None:
            certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
            self._write(proof(self.place.secret, certificate))

    def _accepted(self) -> None:
        """The other server has taken the greeting: it tells its clock first."""
        self._away_since = None
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(True)
        if self._warned:
            self._warned = False
            _log.info("the server at %s is reached", self.place.address)
        if self._observer is not None:
            self.watch(self._observer)
        watchers = set(self._leases.values())
        self._leases.clear()
        for watcher in watchers:
            watcher.watch_leases()
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            self.send(call)

    def connection_lost(self, error: Exception | None) -> None:
        self._is_away()
        self._transport = self._their_clock = self.url = None
        self._received.clear()
        sent, self._sent = self._sent, {}
        for call in sent.values():
            call.lost(f"the connection to the server at {self.place.address} was lost")
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(False)
        if self._connecting.done() and not self._closed:  # else it tries again
            self._connecting = self._loop.create_task(self._connect())

    # A compiled class cannot inherit from `asyncio.Protocol`; it has its methods.

    def eof_received(self) -> None:
        """The other side sends no more: the connection is closed."""

    def pause_writing(self) -> None:
        """What is unsent waits in the transport."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    def close(self) -> None:
        """Closes the connection: the other server has gone, or this one goes."""
        self._closed = True
        self._connecting.cancel()
        if self._transport is not None:
            self._flush()
            if self._transport.get_write_buffer_size():
                self._transport.abort()  # it reads nothing
            else:
                self._transport.close()
        self._none_sent()

    # -- answers ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        start, end = 0, len(received)
        size = codec.ANSWER.size
        frames: list[tuple[int, int, bytes]] = []
        while end - start >= size:
            length, number, kind = codec.ANSWER.unpack_from(received, start)
            following = start + codec.LENGTH + length
            if not size - codec.LENGTH <= length <= codec.LONGEST:
                self._cut("no frame")
                return
            if following > end:
                break
            frames.append((number, kind, bytes(received[start + size : following])))
            start = following
        del received[:start]
        for number, kind, body in frames:
            if number:
                if (call := self._sent.pop(number, None)) is not None:
                    call.answered(kind, body, self._behind())
                continue
            try:
                self._notice(kind, body)
            except MsgspecError as bad:
                self._cut(f"a notice that cannot be read: {bad}")
                return
            except Exception:
                _log.exception("unexpected error")

    def _cut(self, why: str) -> None:
        _log.error("the server at %s sent %s", self.place.address, why)
        if self._transport is not None:
            self._transport.abort()

    def _behind(self) -> int:
        """Returns by how much the monotonic clock of the other server is behind this one's, or 0 if there is
        hardly a difference."""
        if self._their_clock is None:
            return 0
        behind = self._their_clock - self._clock()
        return behind if abs(behind) > _TOLERANCE else 0

    def _notice(self, kind: int, body: bytes) -> None:
        if kind == codec.CLOCK:
            first = self._their_clock is None
            self._their_clock = int.from_bytes(body, "big", signed=True)
            if first:
                self._accepted()
        elif kind == codec.URL:
            self.url = body.decode("ascii")
        elif kind == codec.EVENT:
            if self._observer is not None:
                what, job, name = codec.read_event(body)
                self._observer(what, codec.shift(job, self._behind()) if job is not None else name)
        elif kind == codec.LEASE_ENDED:
            self._lease_ended(body)
        elif kind == codec.LEASES_GONE:
            for id, token in codec.read_ids(body):
                if (watcher := self._leases.pop((id, token), None)) is not None:
                    watcher.lease_gone(id, token)
        elif kind == codec.LEASES_RENEWED:
            for id, token, expires, length in codec.read_renewed(body):
                if (watcher := self._leases.get((id, token))) is not None:
                    watcher.lease_renewed(id, token, expires + self._behind(), length)
        elif kind == codec.NOT_WATCHED:
            for watcher in set(self._leases.values()):
                if watcher.index == body[0]:
                    watcher.watch_leases_later()

    def _lease_ended(self, body: bytes) -> None:
        job: Job = codec.shift(codec.read_job(body), self._behind())
        if job.lease is not None and (watcher := self._leases.pop((job.id, job.lease.token), None)):
            watcher.lease_ended(job)
