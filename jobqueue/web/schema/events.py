"""Events of jobs and queues: their names, how they are shown, and which ones a client wants."""

from collections.abc import Callable
from typing import NamedTuple

from msgspec import UNSET, Struct, UnsetType

from jobqueue.steps import Kind

NAMES: dict[Kind, str] = {
    "enqueue": "enqueued", "schedule": "scheduled", "ready": "queued", "lease": "dequeued",
    "conclude": "concluded", "fail": "failed", "bury": "dead", "release": "released", "put_off": "released",
    "stale": "stale", "cancel": "cancelled", "change": "changed", "enter": "changed",
    "enter_later": "changed", "redrive": "redriven", "purge": "purged", "pause": "paused",
    "resume": "resumed", "drop": "dropped",
}  # fmt: skip
# Sent in place of events that are no longer kept.
GAP = "gap"
EVENT_NAMES = (*dict.fromkeys(NAMES.values()), GAP)


class EventView(Struct, gc=False):
    """The data of an event. An event of a queue has `at` and `queue` only."""

    at: str
    id: int | UnsetType = UNSET
    queue: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    status: str | UnsetType = UNSET
    attempts: int | UnsetType = UNSET
    consumer: str | UnsetType = UNSET


class Event(NamedTuple):
    """`frame`: the event as it is sent. `job`: 0 for an event of a queue."""

    number: int
    name: str
    queue: str
    job: int
    frame: bytes


class EventFilter(NamedTuple):
    """The events that a client wants; None: all. `within`: accepts the queues that the client may see."""

    queues: frozenset[str] | None = None
    jobs: frozenset[int] | None = None
    names: frozenset[str] | None = None
    within: Callable[[str], bool] | None = None

    def has(self, event: Event) -> bool:
        return (
            (self.jobs is None or event.job in self.jobs)
            and (self.queues is None or event.queue in self.queues)
            and (self.names is None or event.name in self.names)
            and (self.within is None or self.within(event.queue))
        )
