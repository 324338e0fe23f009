"""How long a client may take, in seconds; the same for both fronts. All but the last are settings."""

import fcntl
import struct
import termios
from collections.abc import Collection
from typing import Generic, TypeVar

from jobqueue.settings import Settings

T = TypeVar("T")

# After a refusal: still reading what it sends, so that it reads the answer.
LINGER = 2.0


class Timeouts:
    """`head`: from the first byte of a request to the end of its head, and a connection's first request.
    `body`: from the end of the head to the end of the body. `idle`: between two requests. `write`: taking
    nothing of what is written to it."""

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
    """Bytes that the client has not taken yet, `buffered` of them with us. The system's buffer counts: it may
    hold megabytes, and for as long as it does none of ours go."""
    try:
        (inside,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return buffered
    return buffered + int(inside)


class Rounds(Generic[T]):
    """Looks at all of what is in `of`, a part at a time."""

    def __init__(self, of: Collection[T]) -> None:
        self._of = of
        self._to_come: list[T] = []  # of this round
        self._share = 0

    def part(self, parts: int) -> list[T]:
        """The next of `parts` equal ones."""
        if not self._to_come:
            self._to_come = list(self._of)
            self._share = -(-len(self._to_come) // parts)
        part = self._to_come[-self._share :]
        del self._to_come[-self._share :]
        return part
