"""Schema: the readers of all calls, with the limits of the settings; what they answer suits the engine."""

import contextlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import replace

from jobqueue.engine.api import (
    AS_THE_QUEUE,
    DEAD,
    IN_PROGRESS,
    QUEUED,
    SCHEDULED,
    STATUSES,
    Arrival,
    Backoff,
    Change,
    Filter,
    KeyLimits,
    NewJob,
    Options,
    QueueSettings,
    Rate,
    Status,
    Want,
)  # fmt: skip
from jobqueue.errors import BadInput, BodyTooLarge, InvalidField, InvalidJson, MissingField
from jobqueue.settings import Settings
from jobqueue.units import parse_instant
from jobqueue.web import arrivals, fields, raw, shapes
from jobqueue.web.call import (
    ONE_LINE_HINT,
    OPTION_HEADERS,
    Call,
    S,
    has_second_line,
    has_second_value,
    is_many,
    says_many,
)  # fmt: skip
from jobqueue.web.events import EVENT_NAMES, Choice
from jobqueue.web.fields import SET_BY_THE_QUEUE, YEAR_MS
from jobqueue.web.http import Request
from jobqueue.web.json_text import check_utf8, one_line

_REFUSED = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
_OPENS = b"[{"
# Names and types that were found good are remembered, up to so many.
_REMEMBERED = 10_000
_MANY = 2**53 - 1
_MAX_ERROR = 16 << 10
_MAX_HEADERS = 4 << 10
_HOLDER = ("lease", "consumer")
_PLAIN_WANT = Want(("default",))


class Many(NamedTuple):
    """Several jobs in one request. `atomic`: all or nothing; if not, `jobs` has what was wrong with a bad one
    in its place."""

    jobs: list[NewJob | BadInput]
    atomic: bool


class Listing(NamedTuple):
    """A page of a list. `after`: the id behind which it begins."""

    wanted: Filter
    after: int | None
    rising: bool
    most: int
    payload: bool


class Following(NamedTuple):
    """The dequeue after a conclude. `queues`: None: that of the concluded job; `lease_for`, `wait`:
    milliseconds; `raw`: the payload is to be the body."""

    queues: tuple[str, ...] | None
    lease_for: int | None
    wait: int
    consumer: str | None
    raw: bool


class Held(NamedTuple):
    """Who wants to use a lease. `id`: in a request for many."""

    id: int
    lease: str | None
    consumer: str | None


class Schema:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._max_depth = settings.max_depth
        self._plain = msgspec.json.Decoder(shapes.PlainJob).decode
        self._plain_array = msgspec.json.Decoder(list[shapes.PlainJob]).decode
        self._enqueue = Call(
            shapes.EnqueueOptions, ignored=SET_BY_THE_QUEUE, nulls=frozenset({"payload", "max_attempts"}),
            body=shapes.JobShape,
        )  # fmt: skip
        self._dequeue = Call(shapes.DequeueShape, headers=("consumer",))
        self._conclude: Call[Any] = Call(
            shapes.ConcludeOptions, headers=_HOLDER, nulls=frozenset({"result"}), body=shapes.ConcludeShape,
            first=shapes.PlainConclude,
        )  # fmt: skip
        self._conclude_each = Call(shapes.ConcludeItem, headers=_HOLDER, nulls=frozenset({"result"}))
        self._heartbeat = Call(shapes.HeartbeatShape, headers=_HOLDER)
        self._heartbeat_each = Call(shapes.HeartbeatItem, headers=_HOLDER)
        self._release = Call(shapes.ReleaseShape, headers=_HOLDER)
        self._release_each = Call(shapes.ReleaseItem, headers=_HOLDER)
        self._fail: Call[Any] = Call(shapes.FailOptions, headers=_HOLDER, body=shapes.FailShape)
        self._fail_each = Call(shapes.FailItem, headers=_HOLDER)
        self._change = Call(shapes.ChangeShape, nulls=frozenset(shapes.ChangeShape.__struct_fields__))
        self._wait = Call(shapes.WaitShape)
        self._cancel = Call(shapes.CancelShape)
        self._settings_of_queue = Call(
            shapes.QueueShape, nulls=frozenset(shapes.QueueShape.__struct_fields__)
        )
        self._pause = Call(shapes.PauseShape)
        self._queues = Call(shapes.QueuesShape)
        self._face = Call(shapes.FaceShape)
        self._stream = Call(shapes.StreamShape, headers=("consumer",))
        self._events = Call(shapes.EventsShape)
        self._top = Call(shapes.TopShape)
        self._export = Call(shapes.FilterShape)
        self._arrival = Call(shapes.ImportShape, nulls=frozenset({"payload", "max_attempts"}))
        self._list = Call(shapes.ListShape)
        self._count = Call(shapes.CountShape)
        self._peek = Call(shapes.PeekShape)
        self._purge = Call(shapes.PurgeShape)
        self._redrive = Call(shapes.RedriveShape)
        self._nothing = Call(shapes.NoShape)
        self._error = Call(shapes.ErrorShape, nulls=frozenset({"details"}))
        self._names: set[str] = {"default"}
        self._types: dict[str, str] = {}

    # -- enqueue ------------------------------------------------------------------------------------

    def enqueue(self, request: Request, wall: Callable[[], int]) -> NewJob | Many:
        """One job, or many where an array or a line each was sent. `wall`: says the time, milliseconds."""
        body = request.body
        if body[:1] == b"{" and not request.query and not says_many(request):
            check_utf8(body)
            try:
                return self._plain_job(self._plain(body), request)
            except _REFUSED:
                pass
        if request.query and self._enqueue.options(request).get("raw"):
            return self._raw_job(request, wall)
        if is_many(request):
            return self._many(request, wall)
        try:
            asked = self._enqueue.read(request, self._max_depth)
        except InvalidJson:
            if has_second_line(body):
                return self._many(request, wall)
            if has_second_value(body):
                raise InvalidJson(ONE_LINE_HINT) from None
            raise
        return self._new_job(asked, request, wall)

    def _raw_job(self, request: Request, wall: Callable[[], int]) -> NewJob:
        """The body is the payload; the type is that of the queue if it is not said."""
        options = self._enqueue.options(request)
        options.setdefault("type", options.get("queue", "default"))
        asked = self._enqueue.merge(b"", options, self._max_depth)
        new = self._new_job(asked, request, wall)
        return _with_payload(new, *raw.payload_of_body(request, self._max_depth))

    def _many(self, request: Request, wall: Callable[[], int]) -> Many:
        options = self._enqueue.options(request)
        atomic = options.pop("atomic", True)
        if not options:
            with contextlib.suppress(*_REFUSED, BadInput):
                return Many(self._plain_jobs(request), atomic)
        items = self._enqueue.many(request, options, self._max_depth, self._settings.max_batch)
        return Many(_each(items, lambda item: self._new_job(item, request, wall), atomic), atomic)

    def _plain_jobs(self, request: Request) -> list[NewJob | BadInput]:
        """If all is well and plain, which is quickly seen; else raises what it happens to meet."""
        body = request.body
        check_utf8(body)
        if body[:1] == b"[":
            plain = self._plain_array(body)
        else:
            plain = [self._plain(line) for line in body.split(b"\n") if line]
        if not 1 <= len(plain) <= self._settings.max_batch:
            raise InvalidField("too few or too many")
        return [self._plain_job(item, request) for item in plain]

    def _plain_job(self, body: shapes.PlainJob, request: Request) -> NewJob:
        type, queue = body.type, body.queue
        type = self._types.get(type) or self._type(type)
        if queue not in self._names:
            self._queue_name(queue)
        payload = bytes(body.payload)
        if payload[0] in _OPENS:
            payload = one_line(payload, self._max_depth)
        new = NewJob(type, queue, body.priority, payload)
        if b"traceparent" in request.headers:
            new.options = Options(headers=_headers(None, request))
        return new

    def _new_job(self, body: shapes.JobShape, request: Request, wall: Callable[[], int]) -> NewJob:
        new = self._plain_job(body, request)
        if body.delay is not None:
            if body.run_at is not None:
                raise InvalidField("give delay or run_at, not both", field="delay")
            new.delay = _length(body.delay, "delay")
        if body.run_at is not None:
            new.run_at = _run_at(body.run_at, wall())
        if body.expires_in is not None:
            new.expires_in = _length(body.expires_in, "expires_in", 1)
        new.options = self._options(body, request)
        if body.content_type is not None or body.payload_encoding is not None:
            return _with_payload(
                new,
                *raw.payload_of_field(new.payload, body.content_type, body.payload_encoding, self._max_depth),
            )
        return new

    def _options(self, body: shapes.JobShape, request: Request) -> Options | None:
        options = Options(
            lease_for=self._lease_for(body.lease_for),
            max_attempts=_max_attempts(body.max_attempts),
            backoff=None if body.backoff is None else _backoff(body.backoff),
            retain_for=None if body.retain_for is None else _length(body.retain_for, "retain_for"),
            key=None if body.key is None else fields.label(body.key, "key", 256),
            unique_key=None if body.unique_key is None else fields.label(body.unique_key, "unique_key", 256),
            unique_while=body.unique_while or "active",
            on_conflict=body.on_conflict or "ignore",
            tags=() if body.tags is None else fields.tags(body.tags),
            headers=_headers(body.headers, request),
        )
        if body.unique_key is None and (body.unique_while is not None or body.on_conflict is not None):
            raise MissingField(
                "unique_while and on_conflict say something of a unique_key", field="unique_key"
            )
        return options if any(getattr(options, name) != default for name, default in _PLAIN_OPTIONS) else None

    # -- dequeue ------------------------------------------------------------------------------------

    def dequeue(self, request: Request) -> tuple[Want, int, bool]:
        """What is wanted, how many milliseconds to wait for it, and whether its payload is to be the body."""
        if not request.body and not request.query and OPTION_HEADERS.isdisjoint(request.headers):
            return _PLAIN_WANT, 0, False
        asked = self._dequeue.read(request, self._max_depth)
        queues = self._queues_of(asked) or ("default",)
        count = asked.count
        if count is not None:
            fields.whole(count, "count", 1, self._settings.max_batch, "JOBQUEUE_MAX_BATCH")
            if asked.raw:
                raise InvalidField("raw is one job: a body holds one payload; leave out count", field="count")
        consumer = None if asked.consumer is None else fields.label(asked.consumer, "consumer", 128)
        want = Want(queues, self._lease_for(asked.lease_for), count, consumer)
        return want, self._waiting(asked.wait), asked.raw

    def _queues_of(
        self, asked: shapes.DequeueShape | shapes.ConcludeOptions | shapes.StreamShape
    ) -> tuple[str, ...] | None:
        if asked.queue is not None:
            if asked.queues is not None:
                raise InvalidField("give queue or queues, not both", field="queue")
            return (self._queue_name(asked.queue),)
        return None if asked.queues is None else fields.queue_names(asked.queues)

    # -- under a lease ------------------------------------------------------------------------------

    def conclude(self, request: Request) -> tuple[str | None, str | None, bytes | None, Following | None]:
        """Lease, consumer, result, and what to dequeue then, each None if not given."""
        asked = self._conclude.read(request, self._max_depth)
        if type(asked) is shapes.PlainConclude:
            if asked.consumer is None and asked.result is shapes.ABSENT:
                lease = None if asked.lease is None else fields.lease_token(asked.lease)
                return lease, None, None, None
            held = self._held(asked)
            return held.lease, held.consumer, self._result(asked), None
        held = self._held(asked)
        if asked.raw:
            result = self._small(raw.result_of_body(request, self._max_depth))
        else:
            result = self._result(asked)
        return held.lease, held.consumer, result, self._following(asked)

    def _following(self, asked: shapes.ConcludeOptions) -> Following | None:
        if asked.next:
            wait = 0 if asked.wait is None else self._waiting(asked.wait)
            return Following(
                self._queues_of(asked), self._lease_for(asked.lease_for), wait, asked.consumer, asked.raw
            )
        for name in ("queues", "queue", "wait", "lease_for"):
            if getattr(asked, name) is not None:
                raise MissingField(f"{name} is for the dequeue after the conclude: add next=1", field="next")
        return None

    def conclude_many(self, request: Request) -> list[tuple[Held, bytes | None] | BadInput]:
        return self._each(
            self._conclude_each, request, lambda asked: (self._held(asked), self._result(asked))
        )

    def heartbeat(self, request: Request) -> tuple[Held, int | None, int | None, str | None]:
        """Who, length in milliseconds, progress and message, each None if not given."""
        return self._beat(self._heartbeat.read(request, self._max_depth))

    def heartbeat_many(
        self, request: Request
    ) -> list[tuple[Held, int | None, int | None, str | None] | BadInput]:
        return self._each(self._heartbeat_each, request, self._beat)

    def release(self, request: Request) -> tuple[Held, int]:
        """Who, and for how many milliseconds the job is to rest."""
        return self._released(self._release.read(request, self._max_depth))

    def release_many(self, request: Request) -> list[tuple[Held, int] | BadInput]:
        return self._each(self._release_each, request, self._released)

    def fail(self, request: Request) -> tuple[Held, bytes | None, bool, int | None]:
        """Who, the error as JSON, whether to retry, and in how many milliseconds."""
        asked = self._fail.read(request, self._max_depth)
        if isinstance(asked, shapes.FailOptions) and asked.raw:
            if bytes(asked.error):
                raise InvalidField("error: with raw=1 the body is the error", field="error")
            asked.error = Raw(raw.error_of_body(request))
        return self._failed(asked)

    def fail_many(self, request: Request) -> list[tuple[Held, bytes | None, bool, int | None] | BadInput]:
        return self._each(self._fail_each, request, self._failed)

    def _each(self, call: Call[S], request: Request, check: Any) -> list[Any]:
        options = call.options(request)
        return _each(call.many(request, options, self._max_depth, self._settings.max_batch), check, False)

    def _held(self, asked: shapes.HolderShape) -> Held:
        lease, consumer = asked.lease, asked.consumer
        if lease is not None:
            fields.lease_token(lease)
        if consumer is not None:
            fields.label(consumer, "consumer", 128)
        return Held(getattr(asked, "id", 0), lease, consumer)

    def _result(self, asked: shapes.PlainConclude) -> bytes | None:
        text = bytes(asked.result)
        return self._small(one_line(text, self._max_depth)) if text else None

    def _small(self, result: bytes | None) -> bytes | None:
        if result is not None and len(result) > self._settings.max_result:
            raise BodyTooLarge(
                f"a result may have {self._settings.max_result:,} bytes; this one has {len(result):,}",
                field="result", limit=self._settings.max_result, setting="JOBQUEUE_MAX_RESULT",
            )  # fmt: skip
        return result

    def _beat(self, asked: shapes.HeartbeatShape) -> tuple[Held, int | None, int | None, str | None]:
        if asked.progress is not None:
            fields.whole(asked.progress, "progress", 0, 100)
        if asked.message is not None:
            fields.said(asked.message, "message", 500)
        return self._held(asked), self._lease_for(asked.lease_for), asked.progress, asked.message

    def _released(self, asked: shapes.ReleaseShape) -> tuple[Held, int]:
        return self._held(asked), _length(asked.delay, "delay")

    def _failed(self, asked: shapes.FailShape) -> tuple[Held, bytes | None, bool, int | None]:
        text = bytes(asked.error)
        error = self._error_of(text) if text not in (b"", b"null") else None
        retry_in = None if asked.retry_in is None else _length(asked.retry_in, "retry_in")
        return self._held(asked), error, asked.retry, retry_in

    def _error_of(self, text: bytes) -> bytes:
        """An error as it is kept: JSON on one line."""
        error = one_line(text, self._max_depth)
        if error[:1] == b"{":
            try:
                self._error.decode(error)
            except _REFUSED:
                error = self._error_again(error)
        elif error[:1] != b'"':
            raise InvalidField("error: text, or an object with type, message, details", field="error")
        if len(error) > _MAX_ERROR:
            raise InvalidField(f"error: at most {_MAX_ERROR:,} bytes", field="error", limit=_MAX_ERROR)
        return error

    def _error_again(self, error: bytes) -> bytes:
        """One whose names are in another letter case, or what is wrong with it."""
        try:
            said = self._error.merge(error, {}, self._max_depth)
        except BadInput as bad:
            bad.detail = f"error: {bad.detail}"
            raise
        given = {name: getattr(said, name) for name in said.__struct_fields__}
        return msgspec.json.encode(
            {name: value for name, value in given.items() if value != shapes.NULL and value is not None}
        )

    # -- other calls --------------------------------------------------------------------------------

    def change(self, request: Request, wall: int) -> Change:
        """A merge-patch, checked. `wall`: now, milliseconds."""
        asked = self._change.read(request, self._max_depth)
        if asked.delay not in (None, UNSET) and asked.run_at not in (None, UNSET):
            raise InvalidField("give delay or run_at, not both", field="delay")
        change = Change()
        if asked.queue is not UNSET:
            change.queue = self._queue_name(asked.queue) if asked.queue is not None else "default"
        if asked.type is not UNSET:
            change.type = fields.label(asked.type, "type", 256)
        if asked.priority is not UNSET:
            change.priority = asked.priority or 0
        if payload := bytes(asked.payload):
            change.payload = one_line(payload, self._max_depth)
        for name, low in (("delay", 0), ("expires_in", 1), ("retain_for", 0)):
            value = getattr(asked, name)
            if value is not UNSET:
                setattr(change, name, None if value is None else _length(value, name, low))
        if asked.run_at is not UNSET:
            change.run_at = None if asked.run_at is None else _run_at(asked.run_at, wall)
        if asked.lease_for is not UNSET:
            change.lease_for = self._lease_for(asked.lease_for)
        if asked.max_attempts is not UNSET:
            change.max_attempts = _max_attempts(asked.max_attempts)
        if asked.backoff is not UNSET:
            change.backoff = None if asked.backoff is None else _backoff(asked.backoff)
        if asked.key is not UNSET:
            change.key = None if asked.key is None else fields.label(asked.key, "key", 256)
        if asked.tags is not UNSET:
            change.tags = () if asked.tags is None else fields.tags(asked.tags)
        if asked.headers is not UNSET:
            change.headers = None if asked.headers is None else _encoded_headers(asked.headers)
        return change

    def wait(self, request: Request) -> int:
        """How many milliseconds to wait for a job's outcome."""
        if not request.query and not request.body:
            return 0
        return self._waiting(self._wait.read(request, self._max_depth).wait)

    def force(self, request: Request) -> bool:
        if not request.query and not request.body:
            return False
        return self._cancel.read(request, self._max_depth).force

    def queue_settings(self, request: Request) -> dict[str, object]:
        """What a merge-patch sets; a default where it said null."""
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
            given["max_attempts"] = AS_THE_QUEUE
        return given

    def _queue_setting(self, name: str, value: Any) -> object:
        match name:
            case "lease_for":
                return self._lease_for(value)
            case "max_attempts":
                return _max_attempts(value)
            case "backoff":
                return _backoff(value)
            case "retain_for":
                return _length(value, name)
            case "dead_letter":
                return fields.queue_name(value, name)
            case "rate":
                return _rate(value)
            case "key_limits":
                most = value.max_in_progress
                return KeyLimits(
                    None if most is None else fields.whole(most, name, 1, _MANY),
                    None if value.rate is None else _rate(value.rate),
                )
            case _:
                return fields.whole(value, name, 1, _MANY)

    def pause(self, request: Request) -> tuple[int | None, str | None]:
        """Milliseconds, and why; None: until it is resumed, no reason."""
        asked = self._pause.read(request, self._max_depth)
        length = None if asked.length is None else _length(asked.length, "for", 1)
        return length, None if asked.reason is None else fields.label(asked.reason, "reason", 500)

    def list_jobs(self, request: Request) -> Listing:
        asked = self._list.read(request, self._max_depth)
        fields.whole(asked.limit, "limit", 1, 1000)
        after = None
        if asked.cursor is not None:
            if not (asked.cursor.isascii() and asked.cursor.isdigit() and len(asked.cursor) <= 16):
                raise InvalidField("cursor: what `next` was in the answer before", field="cursor")
            after = int(asked.cursor)
        wanted = self._filter(asked, _set(asked.queue, "queue"))
        return Listing(wanted, after, asked.order == "asc", asked.limit, asked.payload)

    def queues(self, request: Request) -> tuple[int, str | None]:
        """How many queues at most, and behind which name."""
        if not request.query and not request.body:
            return 1000, None
        asked = self._queues.read(request, self._max_depth)
        fields.whole(asked.limit, "limit", 1, 1000)
        return asked.limit, None if asked.cursor is None else fields.queue_name(asked.cursor, "cursor")

    def peek(self, request: Request) -> tuple[int, bool]:
        """How many jobs at most, and whether with their payloads."""
        asked = self._peek.read(request, self._max_depth)
        return fields.whole(asked.limit, "limit", 1, 1000), asked.payload

    def count_jobs(self, request: Request) -> Filter:
        asked = self._count.read(request, self._max_depth)
        return self._filter(asked, _set(asked.queue, "queue"))

    def purge(self, request: Request, queue: str) -> tuple[Filter, bool]:
        """What to remove, and whether only to say what it would be."""
        asked = self._purge.read(request, self._max_depth)
        wanted = self._chosen(asked, queue)
        if wanted.statuses is None and asked.all:
            wanted = replace(wanted, statuses=frozenset({SCHEDULED, QUEUED}))
        elif wanted.statuses is None:
            wanted = replace(wanted, statuses=frozenset(STATUSES) - {IN_PROGRESS})
        return wanted, asked.dry_run

    def redrive(self, request: Request, queue: str) -> tuple[Filter, int | None, bool]:
        """Which dead jobs, how many at most, and whether only to say which."""
        asked = self._redrive.read(request, self._max_depth)
        if asked.limit is not None:
            fields.whole(asked.limit, "limit", 1, _MANY)
        wanted = self._chosen(asked, queue)
        if wanted.statuses is not None and wanted.statuses != {DEAD}:
            raise InvalidField("status: only dead jobs are redriven", field="status")
        return replace(wanted, statuses=frozenset({DEAD})), asked.limit, asked.dry_run

    def _chosen(self, asked: shapes.PurgeShape, queue: str) -> Filter:
        """Never by an empty filter: that is said by all=true."""
        wanted = self._filter(asked, frozenset({queue}))
        if wanted == Filter(queues=frozenset({queue})) and not asked.all:
            raise MissingField("say which: status, type, tag, key or older_than; or all=true", field="all")
        return wanted

    def _filter(self, asked: shapes.FilterShape, queues: frozenset[str] | None) -> Filter:
        statuses = _set(asked.status, "status")
        for status in statuses or ():
            if status not in STATUSES:
                raise InvalidField(f"status: of {', '.join(STATUSES)}; not {status[:40]!r}", field="status")
        older = (
            None
            if asked.older_than is None
            else fields.duration(asked.older_than, "older_than", 0, 100 * YEAR_MS, None)
        )
        return Filter(
            queues, cast("frozenset[Status] | None", statuses), _set(asked.type, "type"),
            _set(asked.tag, "tag"), _set(asked.key, "key"), older,
        )  # fmt: skip

    # -- faces and streams --------------------------------------------------------------------------

    def queue(self, request: Request) -> None:
        """A queue takes no options but those of its face."""
        if request.body or request.query:
            self._face.read(request, self._max_depth)

    def length_of_watch(self, request: Request, what: Literal["queues", "queue", "job"]) -> int | None:
        """Milliseconds, of the call that shows this; None: without end."""
        calls: dict[str, Call[Any]] = {"queues": self._queues, "queue": self._face, "job": self._wait}
        return _watched_for(calls[what].read(request, self._max_depth).length)

    def top(self, request: Request) -> int | None:
        return _watched_for(self._top.read(request, self._max_depth).length)

    def events(self, request: Request) -> tuple[Choice, int | None]:
        asked = self._events.read(request, self._max_depth)
        names = _set(asked.event, "event")
        if names is not None and not names <= set(EVENT_NAMES):
            raise InvalidField(f"event: of {', '.join(EVENT_NAMES)}", field="event")
        jobs = None if asked.job is None else _ids(asked.job)
        return Choice(_set(asked.queue, "queue"), jobs, names), _watched_for(asked.length)

    def stream(self, request: Request) -> tuple[Want, int | None]:
        """What is wanted, with `count` for the most that it holds; and for how many milliseconds."""
        asked = self._stream.read(request, self._max_depth)
        prefetch = fields.whole(asked.prefetch, "prefetch", 1, 1000)
        consumer = None if asked.consumer is None else fields.label(asked.consumer, "consumer", 128)
        queues = self._queues_of(asked) or ("default",)
        want = Want(queues, self._lease_for(asked.lease_for), prefetch, consumer)
        return want, _watched_for(asked.length)

    def export(self, request: Request, queue: str) -> Filter:
        """Which jobs leave; what is finished stays, unless it is asked for."""
        wanted = self._filter(self._export.read(request, self._max_depth), frozenset({queue}))
        return wanted if wanted.statuses is not None else replace(wanted, statuses=arrivals.MOVABLE)

    def arrival(self, line: bytes, request: Request, wall: Callable[[], int]) -> Arrival:
        """A job of another queue, from its line. `request`: the one that it came with."""
        check_utf8(line)
        try:
            asked = self._arrival.decode(line)
        except _REFUSED:
            asked = self._arrival.merge(line, {}, self._max_depth)
        return arrivals.arrival(asked, self._new_job(asked, request, wall), self._error_of, wall)

    def nothing(self, request: Request) -> None:
        """For calls that take no options: refuses any."""
        if request.body or request.query:
            self._nothing.read(request, self._max_depth)

    # -- checks -------------------------------------------------------------------------------------

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

    def _lease_for(self, value: float | str | None) -> int | None:
        if value is None:
            return None
        return fields.duration(value, "lease_for", 1000, self._settings.lease_max, "JOBQUEUE_LEASE_MAX")

    def _waiting(self, value: float | str) -> int:
        return fields.duration(value, "wait", 0, self._settings.wait_max, "JOBQUEUE_WAIT_MAX")


_PLAIN_OPTIONS = [(name, getattr(Options(), name)) for name in Options.__struct_fields__]


def _each(items: Any, check: Any, all_or_nothing: bool) -> list[Any]:
    """Every item checked; in the place of a bad one what is wrong with it. The first of those is raised where
    it is all or nothing."""
    checked: list[Any] = []
    for index, item in enumerate(items):
        try:
            if isinstance(item, BadInput):
                raise item
            checked.append(check(item))
        except BadInput as bad:
            bad.facts["index"] = index
            if all_or_nothing:
                raise
            checked.append(bad)
    return checked


def _with_payload(new: NewJob, payload: bytes, kind: str | None) -> NewJob:
    """`kind`: the media type of a payload that is not JSON."""
    new.payload = payload
    if kind is not None:
        new.options = new.options or Options()
        new.options.content_type = kind
    return new


def _length(value: float | str, field: str, low: int = 0) -> int:
    return fields.duration(value, field, low, YEAR_MS, None)


def _ids(value: list[int] | str) -> frozenset[int]:
    ids = [str(id).strip() for id in (value.split(",") if isinstance(value, str) else value)]
    if not 1 <= len(ids) <= 100 or not all(id.isascii() and id.isdigit() and len(id) <= 16 for id in ids):
        raise InvalidField("job: 1 to 100 ids of jobs", field="job")
    return frozenset(map(int, ids))


def _watched_for(value: float | str | None) -> int | None:
    return None if value is None else _length(value, "for", 1)


def _run_at(value: str, wall: int) -> int:
    try:
        at = parse_instant(value)
    except InvalidField as bad:
        if value.replace(".", "", 1).lstrip("-").isdigit():
            bad.detail = "a bare number is not an instant; for a length of time use delay. " + bad.detail
        raise InvalidField(f"run_at: {bad.detail}", field="run_at") from None
    if at > wall + YEAR_MS:
        raise InvalidField("run_at: at most one year ahead", field="run_at")
    return at


def _max_attempts(value: int | UnsetType | None) -> int | None:
    if value is UNSET:
        return AS_THE_QUEUE
    if value is None:
        return None
    if value == 0:
        raise InvalidField("max_attempts: 1 is no retry, null is no limit; not 0", field="max_attempts")
    return fields.whole(value, "max_attempts", 1, 10_000)


def _backoff(value: list[int | float | str] | shapes.BackoffShape) -> Backoff:
    if isinstance(value, list):
        if not 1 <= len(value) <= 100:
            raise InvalidField("backoff: 1 to 100 lengths", field="backoff")
        return Backoff(steps=tuple(_length(length, "backoff") for length in value), jitter=0.0)
    if not (1 <= value.factor <= 100 and 0 <= value.jitter <= 1):
        raise InvalidField("backoff: factor from 1 to 100, jitter from 0 to 1", field="backoff")
    return Backoff(_length(value.base, "backoff"), value.factor, _length(value.max, "backoff"), value.jitter)


def _rate(value: shapes.RateShape) -> Rate:
    count = fields.whole(value.count, "rate", 1, _MANY)
    burst = count if value.burst is None else fields.whole(value.burst, "rate", 1, _MANY)
    return Rate(count, _length(value.per, "rate", 1), burst)


def _set(value: list[str] | str | None, field: str) -> frozenset[str] | None:
    """A list, or text with commas; not an empty one."""
    if value is None:
        return None
    items = [item.strip() for item in value.split(",")] if isinstance(value, str) else value
    if not items or "" in items or len(items) > 100:
        raise InvalidField(f"{field}: 1 to 100 values", field=field)
    return frozenset(items)


def _headers(given: dict[str, str] | None, request: Request) -> bytes | None:
    """What was given, and the trace context of the request where it has one."""
    text = None if given is None else _encoded_headers(given)
    trace = request.header(b"traceparent")
    if trace is not None and len(trace) <= 256 and trace.isascii() and "traceparent" not in (given or {}):
        return msgspec.json.encode({**(given or {}), "traceparent": trace})
    return text


def _encoded_headers(headers: dict[str, str]) -> bytes:
    text = msgspec.json.encode(headers)
    if len(text) > _MAX_HEADERS:
        raise InvalidField(f"headers: at most {_MAX_HEADERS:,} bytes", field="headers", limit=_MAX_HEADERS)
    return text
