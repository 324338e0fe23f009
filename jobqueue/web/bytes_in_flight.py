"""BytesInFlight: the bytes of unfinished requests and of unread answers, of all connections together.

The limit on memory decides only whether a job is put in. Here is what else grows with what clients send and
do not take. Code that keeps such bytes adds them to `used`, and subtracts them when it drops them. When they
exceed the limit, a body that has not arrived completely is refused, and so is a large answer that may be
refused. What arrives in one read, and small answers, are always served.
"""

from typing import Final

from jobqueue.errors import Overloaded

# The limit as a share of the limit on memory. By default that is three quarters of the machine's or the
# container's memory, so both together fit.
SHARE: Final = 4
# The same where the limit on memory is not known.
_DEFAULT: Final = 256 << 20
# Bytes of an answer that is always sent.
SMALL: Final = 64 << 10


class BytesInFlight:
    """`used`, `limit`: bytes. Two request bodies of the largest size fit, whatever `memory_limit` is."""

    __slots__ = ("limit", "used")

    def __init__(self, memory_limit: int | None, max_request: int) -> None:
        self.used = 0
        self.set_limit(memory_limit, max_request)

    def set_limit(self, memory_limit: int | None, max_request: int) -> None:
        share = _DEFAULT if memory_limit is None else memory_limit // SHARE
        self.limit: int = max(share, 2 * max_request)

    @property
    def full(self) -> bool:
        return self.used > self.limit

    def has_room(self, size: int) -> bool:
        """Returns whether `size` more bytes stay within the limit."""
        return self.used + size <= self.limit

    def refusal(self) -> Overloaded:
        return Overloaded(
            "requests that are still arriving and answers that are not read take too much memory; try again",
            setting="JOBQUEUE_MEMORY_LIMIT",
            retry_after=1,
        )
