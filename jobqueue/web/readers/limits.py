"""The limits that the settings put on requests."""

from typing import Any, Final

from jobqueue.errors import InvalidField
from jobqueue.settings import Settings
from jobqueue.web.readers.decoder import RequestDecoder
from jobqueue.web.schema import requests
from jobqueue.web.schema.kinds import Kind, Name, kind_of

# Job types that are remembered once they were checked.
_REMEMBERED: Final = 10_000


class Limits:
    """One object for all readers. Job types in use are few and repeat: each is checked once, and all jobs of
    a type share one string."""

    __slots__ = (
        "_bound", "_queues", "_settings", "_type", "decoders", "max_batch", "max_body", "max_depth",
        "max_result", "queue_name", "types",
    )  # fmt: skip

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bound: dict[Kind, Kind] = {}
        self.decoders: list[RequestDecoder[Any]] = []
        self.max_depth = settings.max_depth
        self.max_batch = settings.max_batch
        self.max_body = settings.max_body
        self.max_result = settings.max_result
        name = self.kind(requests.QueueName)
        assert isinstance(name, Name)
        self.queue_name = name
        self._queues = self.kind(requests.Queues)
        self._type = self.kind(requests.Type)
        self.types: dict[str, str] = {}

    def decoder(self, shape: Any, **how: Any) -> RequestDecoder[Any]:
        """Returns a decoder whose kinds of fields have the limits of the settings."""
        made: RequestDecoder[Any] = RequestDecoder(shape, bound=self.bound, **how)
        self.decoders.append(made)
        return made

    def kind(self, declared: Any) -> Kind:
        """Returns the kind of a field of this type."""
        return self.bound(kind_of(declared))

    def bound(self, kind: Kind) -> Kind:
        """Returns a kind with the limits of the settings; always the same one."""
        found = self._bound.get(kind)
        if found is None:
            found = self._bound[kind] = kind.bound(self._settings)
        return found

    def check_type(self, type: str) -> str:
        """Checks a job type that is not in `types` yet."""
        self._type.check(type, "type")
        if len(self.types) < _REMEMBERED:
            self.types[type] = type
        return type

    def queues(self, queue: str | None, queues: list[str] | str | None) -> tuple[str, ...] | None:
        """Returns the queues that a dequeue names by `queue` or `queues`."""
        if queue is not None:
            if queues is not None:
                raise InvalidField("give queue or queues, not both", field="queue")
            return (self.queue_name.check(queue, "queue"),)
        if queues is None:
            return None
        names: tuple[str, ...] = self._queues.check(queues, "queues")
        return names
