"""The limits that the settings put on requests; queue names and job types that were checked before."""

from typing import Final

from jobqueue.errors import InvalidField
from jobqueue.settings import Settings
from jobqueue.web.readers import fields

# Queue names and job types that are remembered once they were checked.
_REMEMBERED: Final = 10_000


class Limits:
    """One object for all readers. Names and types in use are few and repeat: each is checked once, and all
    jobs of a type share one string."""

    __slots__ = ("lease_max", "max_batch", "max_depth", "max_result", "names", "types", "wait_max")

    def __init__(self, settings: Settings) -> None:
        self.max_depth = settings.max_depth
        self.max_batch = settings.max_batch
        self.max_result = settings.max_result
        self.lease_max = settings.lease_max
        self.wait_max = settings.wait_max
        self.names: set[str] = {"default"}
        self.types: dict[str, str] = {}

    def check_type(self, type: str) -> str:
        """Checks a job type that is not in `types` yet."""
        fields.label(type, "type", 256)
        if len(self.types) < _REMEMBERED:
            self.types[type] = type
        return type

    def queue_name(self, name: str) -> str:
        """Checks the name of a queue."""
        if name not in self.names:
            fields.queue_name(name)
            if len(self.names) < _REMEMBERED:
                self.names.add(name)
        return name

    def queues(self, queue: str | None, queues: list[str] | str | None) -> tuple[str, ...] | None:
        """Returns the queues that a dequeue names by `queue` or `queues`."""
        if queue is not None:
            if queues is not None:
                raise InvalidField("give queue or queues, not both", field="queue")
            return (self.queue_name(queue),)
        return None if queues is None else fields.queue_names(queues)

    def lease_for(self, value: float | str | None) -> int | None:
        if value is None:
            return None
        return fields.duration(value, "lease_for", 1000, self.lease_max, "JOBQUEUE_LEASE_MAX")

    def wait(self, value: float | str) -> int:
        return fields.duration(value, "wait", 0, self.wait_max, "JOBQUEUE_WAIT_MAX")
