"""Readers of the calls that show and manage jobs and queues."""

import json
from typing import Any, Final, Literal, NamedTuple

from msgspec.structs import asdict, replace

from jobqueue.errors import InvalidField, MissingField
from jobqueue.model import GROUPED_BY, SERIES_STEP, Filter, QueueSettings
from jobqueue.steps import (
    CANCELLED,
    CONCLUDED,
    DEAD,
    IN_PROGRESS,
    QUEUED,
    SCHEDULED,
    STATUSES,
    WAITING,
)
from jobqueue.web.http import Request
from jobqueue.web.readers import import_item
from jobqueue.web.readers.decoder import RequestDecoder, given
from jobqueue.web.readers.json_text import one_line
from jobqueue.web.readers.limits import Limits
from jobqueue.web.schema import requests
from jobqueue.web.schema.events import EventFilter

# What null restores.
_DEFAULTS: Final = asdict(QueueSettings())


class Listing(NamedTuple):
    """A page of a list. It begins after the id `after`."""

    wanted: Filter
    after: int | None
    rising: bool
    most: int
    payload: bool


def _of_statuses(wanted: Filter, default: frozenset[str], allowed: frozenset[str], said: str) -> Filter:
    """Returns `wanted` with the statuses `default` if it names none. Raises `InvalidField`, which says
    `said`, if it names others than `allowed`."""
    if wanted.statuses is None:
        return replace(wanted, statuses=default)
    if not wanted.statuses <= allowed:
        raise InvalidField(f"status: {said}", field="status")
    return wanted


def _spellings(text: str) -> tuple[bytes, ...]:
    """Returns a text as a payload may have it: as it is, and inside of JSON, whose writer may have escaped
    all that is not ASCII."""
    found = {text.encode(): None}
    for ascii in (False, True):
        found[json.dumps(text, ensure_ascii=ascii)[1:-1].encode()] = None
    return tuple(found)


class AdminReaders:
    """Reads lists, filters, settings of queues, and what a client watches."""

    __slots__ = (
        "_audit", "_cancel", "_cancel_many", "_consumers", "_count", "_events", "_export", "_format",
        "_groups", "_limits", "_list", "_max_depth", "_move", "_nothing", "_pause", "_peek", "_purge",
        "_queue", "_queues", "_redrive", "_series", "_settings_of_queue", "_tokens", "_top", "_wait",
    )  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._max_depth = limits.max_depth
        self._nothing = limits.decoder(requests.NoShape)
        self._wait = limits.decoder(requests.WaitShape)
        self._cancel = limits.decoder(requests.CancelShape)
        self._settings_of_queue = limits.decoder(
            requests.QueueShape, nulls=frozenset(requests.QueueShape.__struct_fields__)
        )
        self._pause = limits.decoder(requests.PauseShape)
        self._queue = limits.decoder(requests.QueueShownShape)
        self._queues = limits.decoder(requests.QueuesShape)
        self._format = limits.decoder(requests.FormatShape)
        self._events = limits.decoder(requests.EventsShape)
        self._top = limits.decoder(requests.TopShape)
        self._export = limits.decoder(requests.FilterShape)
        self._list = limits.decoder(requests.ListShape)
        self._count = limits.decoder(requests.CountShape)
        self._groups = limits.decoder(requests.GroupsShape)
        self._consumers = limits.decoder(requests.ConsumersShape)
        self._series = limits.decoder(requests.SeriesShape)
        self._tokens = limits.decoder(requests.TokensShape)
        self._audit = limits.decoder(requests.AuditShape)
        self._peek = limits.decoder(requests.PeekShape)
        self._purge = limits.decoder(requests.PurgeShape)
        self._redrive = limits.decoder(requests.RedriveShape)
        self._cancel_many = limits.decoder(requests.CancelManyShape)
        self._move = limits.decoder(requests.MoveShape)

    def nothing(self, request: Request) -> None:
        """Refuses any option, for calls that take none."""
        if request.body or request.query:
            self._nothing.read(request, self._max_depth)

    def wait(self, request: Request) -> int:
        """Returns the number of milliseconds to wait for a job's outcome."""
        if not request.query and not request.body:
            return 0
        wait: int = self._wait.value(self._wait.read(request, self._max_depth), "wait")
        return wait

    def force(self, request: Request) -> bool:
        if not request.query and not request.body:
            return False
        force: bool = self._cancel.read(request, self._max_depth).force
        return force

    def queue_settings(self, request: Request) -> dict[str, object]:
        """Returns the settings in a merge-patch; a default where it has null."""
        asked = self._settings_of_queue.read(request, self._max_depth)
        call = self._settings_of_queue
        found = given(asked, call.options_of(*call.kinds))
        if found.get("attributes") is not None:
            found["attributes"] = one_line(found["attributes"], self._max_depth)
        return {name: _DEFAULTS[name] if value is None else value for name, value in found.items()}

    def pause(self, request: Request) -> tuple[int | None, str | None]:
        """Returns the length of a pause in milliseconds, and its reason; None: without end, without a
        reason.
        """
        asked = self._pause.read(request, self._max_depth)
        length, reason = self._pause.values(asked, "for", "reason")
        return length, reason

    def list_jobs(self, request: Request) -> Listing:
        asked = self._list.read(request, self._max_depth)
        limit, after, queues = self._list.values(asked, "limit", "cursor", "queue")
        return Listing(self._filter(asked, queues), after, asked.order == "asc", limit, asked.payload)

    def queues(self, request: Request) -> tuple[int, str | None]:
        """Returns the limit of a list of queues, and the name after which it begins."""
        if not request.query and not request.body:
            return 1000, None
        asked = self._queues.read(request, self._max_depth)
        limit, cursor = self._queues.values(asked, "limit", "cursor")
        return limit, cursor

    def peek(self, request: Request) -> tuple[int, bool]:
        """Returns the limit of jobs, and whether their payloads are shown."""
        asked = self._peek.read(request, self._max_depth)
        return self._peek.value(asked, "limit"), asked.payload

    def series(self, request: Request) -> tuple[int, int]:
        """Returns the length of a series and that of its steps, in milliseconds."""
        asked = self._series.read(request, self._max_depth)
        length, step = self._series.values(asked, "for", "step")
        if step % SERIES_STEP:
            raise InvalidField(f"step: a multiple of {SERIES_STEP // 1000} s", field="step")
        if length < step:
            raise InvalidField("for: at least one step", field="for")
        return length, step

    def consumers(self, request: Request) -> int:
        """Returns the limit of a list of consumers."""
        asked = self._consumers.read(request, self._max_depth)
        limit: int = self._consumers.value(asked, "limit")
        return limit

    def tokens(self, request: Request) -> tuple[int, str | None]:
        """Returns the limit of a list of access tokens, and the name after which it begins."""
        asked = self._tokens.read(request, self._max_depth)
        limit, cursor = self._tokens.values(asked, "limit", "cursor")
        return limit, cursor

    def audit(self, request: Request) -> int:
        """Returns the limit of a list of administrative calls."""
        asked = self._audit.read(request, self._max_depth)
        limit: int = self._audit.value(asked, "limit")
        return limit

    def count_jobs(self, request: Request) -> Filter:
        asked = self._count.read(request, self._max_depth)
        return self._filter(asked, self._count.value(asked, "queue"))

    def groups(self, request: Request) -> tuple[Filter, list[str], int]:
        """Returns which of the dead and retrying jobs to group, by which fields, and how many groups."""
        asked = self._groups.read(request, self._max_depth)
        queues, by, limit = self._groups.values(asked, "queue", "by", "limit")
        default = frozenset({DEAD, SCHEDULED})
        wanted = _of_statuses(
            self._filter(asked, queues), default, default, "only dead and scheduled jobs are grouped"
        )
        by = ("type", "error") if by is None else by
        return wanted, [name for name in GROUPED_BY if name in by], limit

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
        limit = self._redrive.value(asked, "limit")
        only = frozenset({DEAD})
        wanted = _of_statuses(self._chosen(asked, queue), only, only, "only dead jobs are redriven")
        return wanted, limit, asked.dry_run

    def cancel_many(self, request: Request, queue: str) -> tuple[Filter, bool, int | None, bool]:
        """Returns which jobs to cancel, whether also those in progress at once, their limit, and whether it
        is a dry run."""
        asked = self._cancel_many.read(request, self._max_depth)
        limit = self._cancel_many.value(asked, "limit")
        wanted = _of_statuses(
            self._chosen(asked, queue),
            WAITING,
            frozenset(STATUSES) - {CONCLUDED, CANCELLED},
            "only scheduled, queued, in_progress and dead jobs are cancelled",
        )
        return wanted, asked.force, limit, asked.dry_run

    def run_now(self, request: Request, queue: str) -> tuple[Filter, int | None, bool]:
        """Returns which scheduled jobs to make ready, their limit, and whether it is a dry run."""
        asked = self._redrive.read(request, self._max_depth)
        limit = self._redrive.value(asked, "limit")
        only = frozenset({SCHEDULED})
        wanted = _of_statuses(self._chosen(asked, queue), only, only, "only scheduled jobs can be run now")
        return wanted, limit, asked.dry_run

    def move(self, request: Request, queue: str) -> tuple[Filter, str | None, int | None, bool]:
        """Returns which jobs to move, the queue to which they go (None: where each died), their limit, and
        whether it is a dry run."""
        asked = self._move.read(request, self._max_depth)
        limit, target = self._move.values(asked, "limit", "to")
        if target is None and not asked.back:
            raise MissingField("say where: to, the name of a queue; or back=true", field="to")
        if target is not None and asked.back:
            raise InvalidField("give to or back, not both", field="to")
        if target == queue:
            raise InvalidField("to: the jobs are in that queue", field="to")
        movable = WAITING | {DEAD}
        wanted = _of_statuses(
            self._chosen(asked, queue),
            movable if asked.back else WAITING,
            movable,
            "only scheduled, queued and dead jobs are moved",
        )
        return wanted, target, limit, asked.dry_run

    def _chosen(self, asked: requests.PurgeShape, queue: str) -> Filter:
        """Returns a filter that is not empty, unless `all=true` was given."""
        wanted = self._filter(asked, frozenset({queue}))
        if wanted == Filter(queues=frozenset({queue})) and not asked.all:
            names = "status, type, tag, key, older_than, retrying, text or error"
            raise MissingField(f"say which: {names}; or all=true", field="all")
        return wanted

    def _filter(self, asked: requests.FilterShape, queues: frozenset[str] | None) -> Filter:
        names = ("status", "older_than", "type", "tag", "key")
        statuses, older, types, tags, keys = self._export.values(asked, *names)
        text = self._export.value(asked, "text")
        return Filter(
            queues,
            statuses,
            types,
            tags,
            keys,
            older,
            retrying=asked.retrying,
            error=self._export.value(asked, "error"),
            text=() if text is None else _spellings(text),
        )

    def only_format(self, request: Request) -> None:
        """Refuses any option but `format`, for calls that take no other."""
        if request.body or request.query:
            self._format.read(request, self._max_depth)

    def queue_shown(self, request: Request) -> None:
        """Refuses what is no option of showing a queue."""
        if request.body or request.query:
            self._queue.read(request, self._max_depth)

    def length_of_watch(self, request: Request, what: Literal["queues", "queue", "job"]) -> int | None:
        """Returns the length of a stream of events in milliseconds; None: without end."""
        calls: dict[str, RequestDecoder[Any]] = {
            "queues": self._queues,
            "queue": self._queue,
            "job": self._wait,
        }
        call = calls[what]
        length: int | None = call.value(call.read(request, self._max_depth), "for")
        return length

    def charts(self, request: Request) -> tuple[int | None, int | None]:
        """Returns the length of the charts of a queue, and when they end by the wall clock; in milliseconds.
        None: as usual, and now."""
        length, until = self._queue.values(self._queue.read(request, self._max_depth), "for", "until")
        return length, until

    def top(self, request: Request) -> int | None:
        length: int | None = self._top.value(self._top.read(request, self._max_depth), "for")
        return length

    def events(self, request: Request) -> tuple[EventFilter, int | None]:
        asked = self._events.read(request, self._max_depth)
        names, jobs, queues, length = self._events.values(asked, "event", "job", "queue", "for")
        return EventFilter(queues, jobs, names), length

    def export(self, request: Request, queue: str) -> Filter:
        """Returns which jobs to export. Finished jobs are left out unless requested."""
        wanted = self._filter(self._export.read(request, self._max_depth), frozenset({queue}))
        return wanted if wanted.statuses is not None else replace(wanted, statuses=import_item.MOVABLE)
