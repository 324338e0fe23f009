"""Subscription: the events that one client has still to read, within a bound."""

from collections import deque

from jobqueue.web.schema.events import Event, EventFilter
from jobqueue.web.streams.event_log import BATCH_BYTES, EventLog
from jobqueue.web.streams.flow import Wakeup

# Limit of the events that wait for a client that wants those of certain jobs.
PENDING_EVENTS = 1000


class Subscription:
    """One client that reads events at its own pace.

    Usually it is a position in the log, and so it is bounded by the ring. For certain jobs it keeps events of
    its own: else each of many such clients would search all events for the few that it wants.

    `wakeup` is where the client waits for events. `silent` is set when nothing was sent for long.
    """

    __slots__ = ("_log", "_next", "_overflowed", "_pending", "silent", "wakeup", "wanted")

    def __init__(self, log: EventLog, wanted: EventFilter) -> None:
        self._log = log
        self.wanted = wanted
        self._pending: deque[bytes] | None = None if wanted.jobs is None else deque()
        self._next: int | None = None  # the first event that was neither read nor skipped; None: not begun
        self._overflowed = False
        self.wakeup = Wakeup()
        self.silent = False

    def begin(self, last_id: int | None, wall: int) -> bytes:
        """Begins with the events after the one of this id; None: from now on. Returns what the client is to
        be sent first: that events were lost, if they were."""
        log = self._log
        self._next = log.last + 1
        if last_id is None:
            return b""
        gap = b""
        if not log.is_complete_after(last_id):
            gap = log.gap(last_id, wall)
            last_id = log.first - 1
        self._next = last_id + 1
        if self._pending is not None:
            missed = log.between(self._next, log.committed)
            self._pending.extend(event.frame for event in missed if self.wanted.has(event))
        return gap

    def offer(self, event: Event) -> None:
        """Keeps the event of one of the wanted jobs until it is read."""
        assert self._pending is not None
        if len(self._pending) >= PENDING_EVENTS:
            self._overflowed = True
        elif self.wanted.has(event):
            self._pending.append(event.frame)

    def wake(self) -> None:
        """Wakes the client if it waits, and there are events for it."""
        if self.wakeup.waiting and self._has_events():
            self.wakeup.wake()

    def _has_events(self) -> bool:
        if self._pending is not None:
            return bool(self._pending)
        assert self._next is not None
        batch, following = self._log.batch(self.wanted, self._next)
        if not batch:
            self._next = following
        return bool(batch)

    def has_lost(self) -> bool:
        """Returns whether the client has read too slowly, and misses events."""
        behind = self._pending is None and self._next is not None and self._next < self._log.first
        return self._overflowed or behind

    def read(self) -> bytes:
        """Returns the next events, up to one batch; empty: there are none."""
        if self._pending is not None:
            return _taken(self._pending)
        assert self._next is not None
        batch, self._next = self._log.batch(self.wanted, self._next)
        return batch


def _taken(pending: deque[bytes]) -> bytes:
    frames: list[bytes] = []
    size = 0
    while pending and size < BATCH_BYTES:
        frames.append(pending.popleft())
        size += len(frames[-1])
    return b"".join(frames)
