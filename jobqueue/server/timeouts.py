"""Timeouts: how long a client may take, in seconds. Both fronts use them; all but `LINGER` are settings."""

import fcntl
import struct
import termios
from collections.abc import Collection
from typing import Generic, TypeVar

from jobqueue.settings import Settings

T = TypeVar("T")

# After a refusal the server reads on for this long, so that the client gets to read the response.
LINGER = 2.0


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
            "first": self.head, "head": self.head, "body": self.body, "idle": self.idle,
            "write": self.write, "linger": LINGER, "answer": float("inf"),
        }  # fmt: skip


def untaken(descriptor: int, buffered: int) -> int:
    """Bytes that the client has not taken yet: `buffered` in this process, and those in the system's
    buffer. The latter may hold megabytes, and while it is full none of ours go."""
    try:
        (in_system,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return buffered
    return buffered + int(in_system)


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
