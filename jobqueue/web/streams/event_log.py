"""EventLog: the latest events, as they are sent to clients.

It knows neither clients nor time. Each event is encoded once. Clients that want the same events from the same
number on share one batch, which is joined once.
"""

import time
from collections import deque
from collections.abc import Iterable
from itertools import islice

import msgspec
from msgspec import UNSET

from jobqueue.model import Job
from jobqueue.steps import Kind
from jobqueue.units import instant
from jobqueue.web.schema.events import GAP, NAMES, Event, EventFilter, EventView

# Limits of the ring: events, bytes.
RING_EVENTS = 50_000
RING_BYTES = 16 << 20
# A batch is sent to a client at once. It has no more bytes than this and one event.
BATCH_BYTES = 16 << 10
# Batches kept for clients that want the same events.
BATCHES = 100
# Up to this number, events are looked up by index.
FEW = 500


class EventLog:
    """A ring of events. Their numbers have no gaps, and grow after a restart too: they begin with the time.

    The ring has all events from number `first` to number `last`. Those after `committed` may not be on disk
    yet, and no client may have them.
    """

    def __init__(self) -> None:
        self._ring: deque[Event] = deque()
        self._bytes = 0
        self.dropped = 0  # events that left the ring for its limits, since the start
        self.last = time.time_ns() // 1_000_000 * 1000
        self.first = self.last + 1
        self.committed = self.last
        self._encode = msgspec.json.Encoder().encode
        # The batches from one number on, for one filter, with the number after each. Any new event ends them.
        self._batches: dict[tuple[EventFilter, int], tuple[bytes, int]] = {}

    def append(self, kind: Kind, what: Job | str, wall: int) -> bool:
        """Adds what happened to a job, or to the queue of a name, at `wall`. Returns False for a kind that is
        no event for clients. The oldest events make room."""
        name = NAMES.get(kind)
        if name is None:
            return False
        at = instant(wall)
        if isinstance(what, str):
            queue, job, view = what, 0, EventView(at, UNSET, what)
        else:
            queue, job = what.queue, what.id
            consumer = UNSET if what.lease is None or what.lease.consumer is None else what.lease.consumer
            view = EventView(at, job, queue, what.type, what.status, what.attempts, consumer)
        self.last = number = self.last + 1
        frame = _frame(number, name, self._encode(view))
        self._ring.append(Event(number, name, queue, job, frame))
        self._bytes += len(frame)
        self._batches.clear()
        while len(self._ring) > RING_EVENTS or self._bytes > RING_BYTES:
            self._bytes -= len(self._ring.popleft().frame)
            self.dropped += 1
            self.first = self._ring[0].number
        return True

    def clear(self) -> None:
        """Empties the ring. Skips a number, so that a client that had the last event learns of a gap."""
        self._ring.clear()
        self._bytes = 0
        self._batches.clear()
        self.committed = self.last = self.last + 1
        self.first = self.last + 1

    def commit(self, last: int) -> None:
        """Lets clients have the events up to number `last`."""
        self.committed = max(last, self.committed)
        self._batches.clear()

    def is_complete_after(self, number: int) -> bool:
        """Returns whether the ring has every event after this one, which was given before."""
        return self.first - 1 <= number <= self.last

    def gap(self, after: int, wall: int) -> bytes:
        """Returns the event that tells a client that events after number `after` are lost, with the number of
        the first that is left. A client that reconnects with the id of this event has no further gap."""
        lost = {"at": instant(wall), "after": after, "next": self.first}
        return _frame(self.first - 1, GAP, self._encode(lost))

    def between(self, first: int, last: int) -> Iterable[Event]:
        """Returns the events of the ring with these numbers.

        A few, usually the newest, are found fastest by index; for many, iteration is faster.
        """
        start, end = max(first - self.first, 0), last + 1 - self.first
        if end - start < FEW:
            return [self._ring[index] for index in range(start, end)]
        return islice(self._ring, start, end)

    def batch(self, wanted: EventFilter, first: int) -> tuple[bytes, int]:
        """Returns wanted events from number `first` on, up to one batch, and the number to continue at."""
        batch = self._batches.get((wanted, first))
        if batch is None:
            if len(self._batches) >= BATCHES:
                self._batches.clear()
            batch = self._batches[wanted, first] = self._joined(wanted, first)
        return batch

    def _joined(self, wanted: EventFilter, first: int) -> tuple[bytes, int]:
        frames: list[bytes] = []
        size = 0
        for event in self.between(first, self.committed):
            if wanted.has(event):
                frames.append(event.frame)
                size += len(event.frame)
                if size >= BATCH_BYTES:
                    return b"".join(frames), event.number + 1
        return b"".join(frames), max(first, self.committed + 1)


def _frame(number: int, name: str, data: bytes) -> bytes:
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (number, name.encode(), data)
