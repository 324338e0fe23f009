"""Readers of the calls that show and manage jobs and queues."""

from typing import Any, Literal, NamedTuple, cast

from msgspec import UNSET
from msgspec.structs import replace

from jobqueue.errors import InvalidField, MissingField
from jobqueue.model import INHERIT, Filter, KeyLimits, QueueSettings
from jobqueue.steps import DEAD, IN_PROGRESS, QUEUED, SCHEDULED, STATUSES, Status
from jobqueue.web.http import Request
from jobqueue.web.readers import fields, import_item, records, suggestions
from jobqueue.web.readers.decoder import RequestDecoder
from jobqueue.web.readers.fields import YEAR_MS
from jobqueue.web.readers.limits import Limits
from jobqueue.web.schema import requests
from jobqueue.web.schema.events import EVENT_NAMES, EventFilter


class Listing(NamedTuple):
    """A page of a list. It begins after the id `after`."""

    wanted: Filter
    after: int | None
    rising: bool
    most: int
    payload: bool


class AdminReaders:
    """Reads lists, filters, settings of queues, and what a client watches."""

    __slots__ = (
        "_cancel", "_count", "_events", "_export", "_face", "_limits", "_list", "_max_depth", "_nothing",
        "_pause", "_peek", "_purge", "_queues", "_redrive", "_settings_of_queue", "_top", "_wait",
    )  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._max_depth = limits.max_depth
        self._nothing = RequestDecoder(requests.NoShape)
        self._wait = RequestDecoder(requests.WaitShape)
        self._cancel = RequestDecoder(requests.CancelShape)
        self._settings_of_queue = RequestDecoder(
            requests.QueueShape, nulls=frozenset(requests.QueueShape.__struct_fields__)
        )
        self._pause = RequestDecoder(requests.PauseShape)
        self._queues = RequestDecoder(requests.QueuesShape)
        self._face = RequestDecoder(requests.FaceShape)
        self._events = RequestDecoder(requests.EventsShape)
        self._top = RequestDecoder(requests.TopShape)
        self._export = RequestDecoder(requests.FilterShape)
        self._list = RequestDecoder(requests.ListShape)
        self._count = RequestDecoder(requests.CountShape)
        self._peek = RequestDecoder(requests.PeekShape)
        self._purge = RequestDecoder(requests.PurgeShape)
        self._redrive = RequestDecoder(requests.RedriveShape)

    def decoders(self) -> list[RequestDecoder[Any]]:
        """Returns the decoder of each request struct that is read here."""
        return [
            self._nothing, self._wait, self._cancel, self._settings_of_queue, self._pause, self._queues,
            self._face, self._events, self._top, self._export, self._list, self._count, self._peek,
            self._purge, self._redrive,
        ]  # fmt: skip

    def nothing(self, request: Request) -> None:
        """Refuses any option, for calls that take none."""
        if request.body or request.query:
            self._nothing.read(request, self._max_depth)

    def wait(self, request: Request) -> int:
        """Returns the number of milliseconds to wait for a job's outcome."""
        if not request.query and not request.body:
            return 0
        return self._limits.wait(self._wait.read(request, self._max_depth).wait)

    def force(self, request: Request) -> bool:
        if not request.query and not request.body:
            return False
        return self._cancel.read(request, self._max_depth).force

    def queue_settings(self, request: Request) -> dict[str, object]:
        """Returns the settings in a merge-patch; a default where it has null."""
        asked = self._settings_of_queue.read(request, self._max_depth)
        given: dict[str, object] = {}
        for name in asked.__struct_fields__:
            value = getattr(asked, name)
            if value is UNSET:
                continue
            given[name] = (
                getattr(QueueSettings(), name) if value is None else self._queue_setting(name, value)
            )
        if "max_attempts" in given and asked.max_attempts is None:
            given["max_attempts"] = INHERIT
        return given

    def _queue_setting(self, name: str, value: Any) -> object:
        match name:
            case "lease_for":
                return self._limits.lease_for(value)
            case "max_attempts":
                return records.max_attempts(value)
            case "backoff":
                return records.backoff(value)
            case "retain_for":
                return fields.length(value, name)
            case "dead_letter":
                return fields.queue_name(value, name)
            case "rate":
                return records.rate(value)
            case "key_limits":
                most = value.max_in_progress
                return KeyLimits(
                    None if most is None else fields.whole(most, name, 1, fields.MANY),
                    None if value.rate is None else records.rate(value.rate),
                )
            case _:
                return fields.whole(value, name, 1, fields.MANY)

    def pause(self, request: Request) -> tuple[int | None, str | None]:
        """Returns the length of a pause in milliseconds, and its reason; None: without end, without a
        reason.
        """
        asked = self._pause.read(request, self._max_depth)
        length = None if asked.length is None else fields.length(asked.length, "for", 1)
        return length, None if asked.reason is None else fields.label(asked.reason, "reason", 500)

    def list_jobs(self, request: Request) -> Listing:
        asked = self._list.read(request, self._max_depth)
        fields.whole(asked.limit, "limit", 1, 1000)
        after = None
        if asked.cursor is not None:
            if not (asked.cursor.isascii() and asked.cursor.isdigit() and len(asked.cursor) <= 16):
                raise InvalidField("cursor: what `next` was in the answer before", field="cursor")
            after = int(asked.cursor)
        wanted = self._filter(asked, fields.set_of(asked.queue, "queue"))
        return Listing(wanted, after, asked.order == "asc", asked.limit, asked.payload)

    def queues(self, request: Request) -> tuple[int, str | None]:
        """Returns the limit of a list of queues, and the name after which it begins."""
        if not request.query and not request.body:
            return 1000, None
        asked = self._queues.read(request, self._max_depth)
        fields.whole(asked.limit, "limit", 1, 1000)
        return asked.limit, None if asked.cursor is None else fields.queue_name(asked.cursor, "cursor")

    def peek(self, request: Request) -> tuple[int, bool]:
        """Returns the limit of jobs, and whether their payloads are shown."""
        asked = self._peek.read(request, self._max_depth)
        return fields.whole(asked.limit, "limit", 1, 1000), asked.payload

    def count_jobs(self, request: Request) -> Filter:
        asked = self._count.read(request, self._max_depth)
        return self._filter(asked, fields.set_of(asked.queue, "queue"))

    def purge(self, request: Request, queue: str) -> tuple[Filter, bool]:
        """Returns which jobs to remove, and whether it is a dry run."""
        asked = self._purge.read(request, self._max_depth)
        wanted = self._chosen(asked, queue)
        if wanted.statuses is None and asked.all:
            wanted = replace(wanted, statuses=frozenset({SCHEDULED, QUEUED}))
        elif wanted.statuses is None:
            wanted = replace(wanted, statuses=frozenset(STATUSES) - {IN_PROGRESS})
        return wanted, asked.dry_run

    def redrive(self, request: Request, queue: str) -> tuple[Filter, int | None, bool]:
        """Returns which dead jobs to redrive, their limit, and whether it is a dry run."""
        asked = self._redrive.read(request, self._max_depth)
        if asked.limit is not None:
            fields.whole(asked.limit, "limit", 1, fields.MANY)
        wanted = self._chosen(asked, queue)
        if wanted.statuses is not None and wanted.statuses != {DEAD}:
            raise InvalidField("status: only dead jobs are redriven", field="status")
        return replace(wanted, statuses=frozenset({DEAD})), asked.limit, asked.dry_run

    def _chosen(self, asked: requests.PurgeShape, queue: str) -> Filter:
        """Returns a filter that is not empty, unless `all=true` was given."""
        wanted = self._filter(asked, frozenset({queue}))
        if wanted == Filter(queues=frozenset({queue})) and not asked.all:
            raise MissingField("say which: status, type, tag, key or older_than; or all=true", field="all")
        return wanted

    def _filter(self, asked: requests.FilterShape, queues: frozenset[str] | None) -> Filter:
        statuses = fields.set_of(asked.status, "status")
        for status in sorted(statuses or ()):
            if status not in STATUSES:
                raise InvalidField(
                    f"status: of {', '.join(STATUSES)}; not {status[:40]!r}{suggestions.status(status)}",
                    field="status",
                )
        older = (
            None
            if asked.older_than is None
            else fields.duration(asked.older_than, "older_than", 0, 100 * YEAR_MS, None)
        )
        return Filter(
            queues, cast("frozenset[Status] | None", statuses), fields.set_of(asked.type, "type"),
            fields.set_of(asked.tag, "tag"), fields.set_of(asked.key, "key"), older,
        )  # fmt: skip

    def queue(self, request: Request) -> None:
        """Checks the options of a call that shows a queue: only those of its format."""
        if request.body or request.query:
            self._face.read(request, self._max_depth)

    def length_of_watch(self, request: Request, what: Literal["queues", "queue", "job"]) -> int | None:
        """Returns the length of a stream of events in milliseconds; None: without end."""
        calls: dict[str, RequestDecoder[Any]] = {
            "queues": self._queues,
            "queue": self._face,
            "job": self._wait,
        }
        return fields.watched_for(calls[what].read(request, self._max_depth).length)

    def top(self, request: Request) -> int | None:
        return fields.watched_for(self._top.read(request, self._max_depth).length)

    def events(self, request: Request) -> tuple[EventFilter, int | None]:
        asked = self._events.read(request, self._max_depth)
        names = fields.set_of(asked.event, "event")
        if names is not None and not names <= set(EVENT_NAMES):
            raise InvalidField(f"event: of {', '.join(EVENT_NAMES)}", field="event")
        jobs = None if asked.job is None else _ids(asked.job)
        return EventFilter(fields.set_of(asked.queue, "queue"), jobs, names), fields.watched_for(asked.length)

    def export(self, request: Request, queue: str) -> Filter:
        """Returns which jobs to export. Finished jobs are left out unless requested."""
        wanted = self._filter(self._export.read(request, self._max_depth), frozenset({queue}))
        return wanted if wanted.statuses is not None else replace(wanted, statuses=import_item.MOVABLE)


def _ids(value: list[int] | str) -> frozenset[int]:
    ids = [str(id).strip() for id in (value.split(",") if isinstance(value, str) else value)]
    if not 1 <= len(ids) <= 100 or not all(id.isascii() and id.isdigit() and len(id) <= 16 for id in ids):
        raise InvalidField("job: 1 to 100 ids of jobs", field="job")
    return frozenset(map(int, ids))
