"""ReadAhead: bytes that a client has sent before their turn.

They are kept up to `READ_AHEAD`, so that a hang-up is seen at once while a request waits. Beyond that the
transport reads no more. It cannot see the client's end then, so the socket is asked for it now and again.
"""

import asyncio
import select
from typing import Final

# Bytes kept of what a client sends while an earlier request of it waits.
READ_AHEAD: Final = 65536
# The most that is parsed in one go, in bytes.
SLICE: Final = 65536
# Seconds between looks at a client that is not being read from.
_WATCH: Final = 0.1
_HUNG_UP: Final = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


class ReadAhead:
    """The bytes of one client that are not parsed yet. `kept`: in order; only this class changes it."""

    __slots__ = ("_gone", "_loop", "_paused", "_transport", "_watched", "kept")

    _transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.kept = bytearray()
        self._loop = loop
        self._paused = False  # the transport does not read
        self._watched = False
        self._gone = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def connection_lost(self) -> None:
        self._gone = True
        self.kept.clear()

    def keep(self, data: bytes) -> None:
        """Keeps `data` until its turn. Reading pauses while too much is kept."""
        self.kept += data
        if len(self.kept) > READ_AHEAD and not self._paused:
            self._paused = True
            self._transport.pause_reading()
            if not self._watched:
                self._watched = True
                self._loop.call_later(_WATCH, self._watch)

    def keep_first(self, data: bytes) -> None:
        """Keeps `data`, which came before all that is kept."""
        self.kept[:0] = data

    def take(self) -> bytes:
        """Returns the next bytes to parse, at most one slice of them, and keeps them no longer."""
        piece = bytes(self.kept[:SLICE])
        del self.kept[:SLICE]
        return piece

    def drop(self) -> None:
        """Drops what is kept, and reads on."""
        self.kept.clear()
        self.resume_if_short()

    def resume_if_short(self) -> None:
        """Reads on if there is room again."""
        if self._paused and not self._gone and len(self.kept) <= READ_AHEAD:
            self._paused = False
            self._transport.resume_reading()

    def _watch(self) -> None:
        """Asks the socket for its end, which a transport that does not read cannot see."""
        self._watched = self._paused and not self._gone
        if self._watched:
            if hung_up(self._transport):
                self._transport.abort()
            else:
                self._loop.call_later(_WATCH, self._watch)


def hung_up(transport: asyncio.Transport) -> bool:
    """Returns whether the client has gone, though the loop may not have seen it yet."""
    if transport.is_closing():
        return True
    connected = transport.get_extra_info("socket")
    if connected is None:
        return True  # a TLS transport that is being closed
    poll = select.poll()
    poll.register(connected.fileno(), _HUNG_UP)
    return bool(poll.poll(0))
