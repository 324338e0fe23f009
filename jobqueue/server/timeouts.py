"""Timeouts: how long a client may take, in seconds. Both fronts use them; all but `LINGER` are settings."""

import fcntl
import select
import struct
import termios
import time
from collections.abc import Callable, Collection, Iterable
from typing import Generic, TypeVar

from jobqueue.settings import Settings

T = TypeVar("T")

# After a refusal the server reads on for this long, so that the client gets to read the response.
LINGER = 2.0
# A sweep that comes so many seconds after the one before follows a pause of the loop.
_PAUSE = 0.5


class Timeouts:
    """Time limits by state of a connection.

    `head`: from the first byte of a request to the end of its head; for the first request, from the
    beginning of the connection. `body`: from the end of the head to the end of the body. `idle`: between
    two requests. `write`: while the client takes nothing of what is written to it.
    """

    def __init__(self, settings: Settings) -> None:
        self.head = settings.head_timeout / 1000
        self.body = settings.body_timeout / 1000
        self.idle = settings.idle_timeout / 1000
        self.write = settings.write_timeout / 1000
        self.by_state = {
            "first": self.head,
            "head": self.head,
            "body": self.body,
            "idle": self.idle,
            "write": self.write,
            "linger": LINGER,
            "answer": float("inf"),
        }


def untaken(descriptor: int, buffered: int) -> int:
    """Bytes that the client has not taken yet: `buffered` in this process, and those in the system's
    buffer. The latter may hold megabytes, and while it is full none of ours go."""
    try:
        (in_system,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return buffered
    return buffered + int(in_system)


def any_readable(descriptors: Iterable[int]) -> bool:
    """Whether any of these sockets has something to read."""
    poll = select.poll()
    for descriptor in descriptors:
        if descriptor >= 0:
            poll.register(descriptor, select.POLLIN)
    return any(events & select.POLLIN for _, events in poll.poll(0))


class SweepClock:
    """The time for the deadlines of clients, in seconds. A pause of the process or of its loop does not
    count: the client may have sent in time, and what it sent lies unread in its socket."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._read_at = self._now = monotonic()
        self._paused = False

    def read(self) -> float | None:
        """Returns the time. None if the loop has just paused: what has arrived must be read before the next
        sweep. Call it at every sweep."""
        now = self._monotonic()
        passed, self._read_at = now - self._read_at, now
        self._now += min(passed, _PAUSE)
        self._paused = passed > _PAUSE and not self._paused  # a loop that is always late sweeps, too
        return None if self._paused else self._now


class Rounds(Generic[T]):
    """Goes through all of `items`, one part at a time, again and again."""

    def __init__(self, items: Collection[T]) -> None:
        self._items = items
        self._left: list[T] = []  # of this round
        self._share = 0

    def part(self, parts: int) -> list[T]:
        """The next of `parts` equal parts."""
        if not self._left:
            self._left = list(self._items)
            self._share = -(-len(self._left) // parts)
        part = self._left[-self._share :]
        del self._left[-self._share :]
        return part
