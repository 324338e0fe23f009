"""Checks: what the readers of all calls have in common: the limits of the settings."""

from typing import Any

from jobqueue.errors import InvalidField
from jobqueue.settings import Settings
from jobqueue.web.http import Request
from jobqueue.web.readers import fields
from jobqueue.web.readers.decoder import RequestDecoder
from jobqueue.web.schema import requests

# Names and types that were found good are remembered, up to so many.
_REMEMBERED = 10_000


class Checks:
    """The limits of the settings, and what is asked of a name or a type."""

    __slots__ = (
        "_max_depth", "_names", "_nothing", "_settings", "_types",
    )  # fmt: skip

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._max_depth = settings.max_depth
        self._nothing = RequestDecoder(requests.NoShape)
        self._names: set[str] = {"default"}
        self._types: dict[str, str] = {}

    def calls(self) -> list[RequestDecoder[Any]]:
        """How each call is read; for the OpenAPI document."""
        return [value for name in dir(self) if isinstance(value := getattr(self, name), RequestDecoder)]

    def nothing(self, request: Request) -> None:
        """For calls that take no options: refuses any."""
        if request.body or request.query:
            self._nothing.read(request, self._max_depth)

    def _type(self, type: str) -> str:
        """The types in use are few and come again: each is looked at once, and all jobs share it."""
        fields.label(type, "type", 256)
        if len(self._types) < _REMEMBERED:
            self._types[type] = type
        return type

    def _queue_name(self, name: str) -> str:
        """The same for names."""
        if name not in self._names:
            fields.queue_name(name)
            if len(self._names) < _REMEMBERED:
                self._names.add(name)
        return name

    def _queues_of(
        self, asked: requests.DequeueShape | requests.ConcludeOptions | requests.StreamShape
    ) -> tuple[str, ...] | None:
        if asked.queue is not None:
            if asked.queues is not None:
                raise InvalidField("give queue or queues, not both", field="queue")
            return (self._queue_name(asked.queue),)
        return None if asked.queues is None else fields.queue_names(asked.queues)

    def _lease_for(self, value: float | str | None) -> int | None:
        if value is None:
            return None
        return fields.duration(value, "lease_for", 1000, self._settings.lease_max, "JOBQUEUE_LEASE_MAX")

    def _waiting(self, value: float | str) -> int:
        return fields.duration(value, "wait", 0, self._settings.wait_max, "JOBQUEUE_WAIT_MAX")
