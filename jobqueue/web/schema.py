"""What each call takes: one struct a call, and how a request becomes one.

A body is first decoded strictly, at the decoder's speed. Only what that refuses is looked at again, field by
field: names in another letter case, `null` for a left-out option, fields that an enqueue ignores, options in
the query or a header; and if it still will not do, what was wrong with it.
"""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import unquote_plus

import msgspec
from msgspec import Meta, Raw, Struct

from jobqueue.engine.api import NewJob, Want
from jobqueue.errors import BadInput, BodyTooLarge, InvalidField, InvalidJson, MissingField, UnknownField
from jobqueue.settings import Settings
from jobqueue.web import fields
from jobqueue.web.fields import FIELDS, SET_BY_THE_QUEUE
from jobqueue.web.http import Request
from jobqueue.web.json_text import check_utf8, one_line, syntax_error

S = TypeVar("S", bound=Struct)
_NULL = Raw(b"null")
_ABSENT = Raw(b"")
_NULL_COUNTS = frozenset({"payload", "result"})
_DECODER_REFUSES = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
_BLANK = b" \t\r\n"
_OPENS = b"[{"
# Names and types that were found good are remembered, up to so many.
_REMEMBERED = 10_000
_MANY_TYPES = (b"application/x-ndjson", b"application/jsonl")
_CONSUMER_HEADERS = (b"queue-consumer", b"x-queue-consumer", b"queue_consumer")
_OPTION_HEADERS = frozenset({b"job-lease", *_CONSUMER_HEADERS})
_ONE_LINE_HINT = (
    "two JSON values on one line; put each job on a line of its own (curl -d @file drops line ends, use "
    "--data-binary @file), or send an array"
)


class EnqueueBody(Struct, gc=False, forbid_unknown_fields=True):
    type: str
    queue: str = "default"
    priority: Annotated[int, Meta(ge=fields.INT32[0], le=fields.INT32[1])] = 0
    payload: Raw = _NULL


class DequeueBody(Struct, gc=False, forbid_unknown_fields=True):
    queues: list[str] | str | None = None
    queue: str | None = None
    wait: int | float | str = 0
    lease_for: int | float | str | None = None
    count: int | None = None
    consumer: str | None = None


class ConcludeBody(Struct, gc=False, forbid_unknown_fields=True):
    lease: str | None = None
    consumer: str | None = None
    result: Raw = _ABSENT


class HeartbeatBody(Struct, gc=False, forbid_unknown_fields=True):
    lease: str | None = None
    consumer: str | None = None
    lease_for: int | float | str | None = None


class NoBody(Struct, gc=False, forbid_unknown_fields=True):
    """For calls that take no option."""


class Call(Generic[S]):
    """How the struct of one call is read. `headers`: the options that may come as a header; `ignored`:
    names that are accepted and dropped."""

    def __init__(
        self, shape: type[S], headers: tuple[str, ...] = (), ignored: frozenset[str] = frozenset()
    ) -> None:
        self.shape = shape
        self.headers = headers
        self.ignored = ignored
        self.decode: Callable[[bytes], S] = msgspec.json.Decoder(shape).decode
        self.types: dict[str, Any] = {
            field.name: msgspec.json.Decoder(field.type) for field in msgspec.structs.fields(shape)
        }
        self.required = [f.name for f in msgspec.structs.fields(shape) if f.required]

    def read(self, request: Request, max_depth: int) -> S:
        """The struct of a request with at most one JSON object. Raises `BadInput`."""
        body = request.body
        if body and not request.query and _OPTION_HEADERS.isdisjoint(request.headers):
            check_utf8(body)
            try:
                return self.decode(body)
            except _DECODER_REFUSES:
                pass
        else:
            check_utf8(body)
        return self.merge(body, self.options(request), max_depth, self._consumer(request))

    def options(self, request: Request) -> dict[str, Any]:
        """What the query and the headers say, by canonical name."""
        found: dict[str, Any] = {}
        for name, text in query_pairs(request.query):
            canonical = self._canonical(name, "query")
            if canonical is None:
                continue
            from_text = FIELDS[canonical].from_text
            if from_text is None:
                raise InvalidField(f"{canonical} belongs in the body", field=canonical)
            _agree(found, canonical, from_text(text, canonical))
        if "lease" in self.headers and (lease := request.header(b"job-lease")) is not None:
            _agree(found, "lease", lease)
        return found

    def merge(self, body: bytes, options: dict[str, Any], max_depth: int, consumer: str | None = None) -> S:
        """The struct of one JSON object and the options that came beside it; `consumer`: the name that a
        header gave, which counts where nothing else does."""
        given = self._fields(body, max_depth) if body.strip(_BLANK) else {}
        for name, value in options.items():
            _agree(given, name, value)
        if consumer is not None:
            given.setdefault("consumer", consumer)
        for name in self.required:
            if name not in given:
                raise MissingField(
                    f'{name} is required, such as {{"{name}":"email"}}; it says what kind of work this is',
                    field=name,
                )
        return self.shape(**given)

    def _fields(self, body: bytes, max_depth: int) -> dict[str, Any]:
        try:
            raw = _OBJECT.decode(body)
        except _DECODER_REFUSES as bad:
            error = syntax_error(body, bad, max_depth)
            if isinstance(error, InvalidField):
                error = InvalidField("the body must be a JSON object")
            raise error from None
        given: dict[str, Any] = {}
        for name, value in raw.items():
            canonical = self._canonical(name, "body")
            if canonical is None:
                continue
            if bytes(value) == b"null" and canonical not in _NULL_COUNTS:
                given.pop(canonical, None)
                continue
            try:
                given[canonical] = self.types[canonical].decode(value)
            except _DECODER_REFUSES as bad:
                said = "" if isinstance(bad, RecursionError) else f" ({bad})"
                raise InvalidField(
                    f"{canonical}: must be {FIELDS[canonical].expects}{said}", field=canonical
                ) from None
        return given

    def _canonical(self, name: str, where: str) -> str | None:
        """The field that `name` means, whatever its letter case; None: to be ignored."""
        lower = name.lower() if name not in self.types else name
        if lower in self.types:
            return lower
        if lower in self.ignored and where == "body":
            return None
        near = get_close_matches(lower, self.types, n=1, cutoff=0.5)
        facts = {"nearest": near[0]} if near else {}
        known = ", ".join(self.types) or "none"
        raise UnknownField(f"unknown field {name[:64]!r}; known here: {known}", field=name[:64], **facts)

    def _consumer(self, request: Request) -> str | None:
        if "consumer" in self.headers:
            for header in _CONSUMER_HEADERS:
                if (consumer := request.headers.get(header)) is not None:
                    return _header_text(consumer)
        return None


class Schema:
    """Every call's reader, with the limits of the settings. What it answers is ready for the engine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._enqueue = Call(EnqueueBody, ignored=SET_BY_THE_QUEUE)
        self._dequeue = Call(DequeueBody, headers=("consumer",))
        self._conclude = Call(ConcludeBody, headers=("lease", "consumer"))
        self._heartbeat = Call(HeartbeatBody, headers=("lease", "consumer"))
        self._nothing = Call(NoBody)
        self._max_depth = settings.max_depth
        self._names: set[str] = {"default"}
        self._types: set[str] = set()

    def enqueue(self, request: Request) -> NewJob | list[NewJob]:
        """One job, or many where an array or a line each was sent."""
        body = request.body
        many = request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower() in _MANY_TYPES
        if body[:1] == b"{" and not many and not request.query:
            check_utf8(body)
            try:
                return self._new_job(self._enqueue.decode(body))
            except _DECODER_REFUSES:
                pass
        start = body.lstrip(_BLANK)[:1]
        if start == b"[" or many:
            return self._many(request, lines=start != b"[")
        try:
            return self._new_job(self._enqueue.read(request, self._settings.max_depth))
        except InvalidJson:
            if b"\n" in body.strip(_BLANK) and _has_second_value(body):
                return self._many(request, lines=True)
            if _has_second_value(body):
                raise InvalidJson(_ONE_LINE_HINT) from None
            raise

    def dequeue(self, request: Request) -> tuple[Want, int]:
        """What is wanted, and how many milliseconds to wait for it."""
        if not request.body and not request.query and _OPTION_HEADERS.isdisjoint(request.headers):
            return Want(("default",), self._settings.lease), 0
        asked = self._dequeue.read(request, self._settings.max_depth)
        queues: tuple[str, ...] = ("default",)
        if asked.queue is not None:
            if asked.queues is not None:
                raise InvalidField("give queue or queues, not both", field="queue")
            queues = (self._queue_name(asked.queue),)
        elif asked.queues is not None:
            queues = fields.queue_names(asked.queues)
        settings = self._settings
        wait = fields.duration(asked.wait, "wait", 0, settings.wait_max, "JOBQUEUE_WAIT_MAX")
        lease_for = self._lease_for(asked.lease_for)
        count = asked.count
        if count is not None:
            fields.whole(count, "count", 1, settings.max_batch, "JOBQUEUE_MAX_BATCH")
        consumer = None if asked.consumer is None else fields.label(asked.consumer, "consumer", 128)
        return Want(queues, settings.lease if lease_for is None else lease_for, count, consumer), wait

    def conclude(self, request: Request) -> tuple[str | None, str | None, bytes | None]:
        """Lease, consumer and result, each None if not given."""
        asked = self._conclude.read(request, self._max_depth)
        lease, consumer, result = asked.lease, asked.consumer, None
        if lease is not None:
            fields.lease_token(lease)
        if consumer is not None:
            fields.label(consumer, "consumer", 128)
        if raw := bytes(asked.result):
            result = one_line(raw, self._max_depth)
            if len(result) > self._settings.max_result:
                raise BodyTooLarge(
                    f"a result may have {self._settings.max_result:,} bytes; this one has {len(result):,}",
                    field="result", limit=self._settings.max_result, setting="JOBQUEUE_MAX_RESULT",
                )  # fmt: skip
        return lease, consumer, result

    def heartbeat(self, request: Request) -> tuple[str | None, str | None, int | None]:
        """Lease, consumer and length in milliseconds, each None if not given."""
        asked = self._heartbeat.read(request, self._max_depth)
        lease, consumer = asked.lease, asked.consumer
        if lease is not None:
            fields.lease_token(lease)
        if consumer is not None:
            fields.label(consumer, "consumer", 128)
        return lease, consumer, self._lease_for(asked.lease_for)

    def nothing(self, request: Request) -> None:
        """For calls that take no options: refuses any."""
        if request.body or request.query:
            self._nothing.read(request, self._settings.max_depth)

    # -- many at once -------------------------------------------------------------------------------

    def _many(self, request: Request, lines: bool) -> list[NewJob]:
        check_utf8(request.body)
        options = self._enqueue.options(request)
        items = self._lines(request.body) if lines else self._items(request.body, bool(options))
        if not items:
            raise InvalidField("no jobs: send 1 or more, as an array or a line each")
        most = self._settings.max_batch
        if len(items) > most:
            raise InvalidField(
                f"at most {most:,} jobs in one request; this one has {len(items):,}",
                limit=most, setting="JOBQUEUE_MAX_BATCH",
            )  # fmt: skip
        jobs: list[NewJob] = []
        try:
            for item in items:
                body = self._item(item, options) if isinstance(item, (bytes, Raw)) else item
                jobs.append(self._new_job(body))
        except BadInput as bad:
            bad.facts["index"] = len(jobs)
            raise
        return jobs

    def _items(self, body: bytes, one_by_one: bool) -> list[EnqueueBody] | list[Raw]:
        """The array's jobs; undecoded where one of them needs a second look."""
        try:
            if not one_by_one:
                return _ARRAY.decode(body)
        except _DECODER_REFUSES:
            pass
        try:
            return _RAW_ARRAY.decode(body)
        except _DECODER_REFUSES as bad:
            raise syntax_error(body, bad, self._settings.max_depth) from None

    def _lines(self, body: bytes) -> list[bytes]:
        return [line for line in body.split(b"\n") if line.strip(_BLANK)]

    def _item(self, item: bytes | Raw, options: dict[str, Any]) -> EnqueueBody:
        text = bytes(item)
        if not options:
            try:
                return self._enqueue.decode(text)
            except _DECODER_REFUSES:
                pass
        try:
            return self._enqueue.merge(text, options, self._settings.max_depth)
        except InvalidJson:
            if _has_second_value(text):
                raise InvalidJson(_ONE_LINE_HINT) from None
            raise

    # -- checks -------------------------------------------------------------------------------------

    def _new_job(self, body: EnqueueBody) -> NewJob:
        type, queue = body.type, body.queue
        if type not in self._types:
            self._type(type)
        if queue not in self._names:
            self._queue_name(queue)
        payload = bytes(body.payload)
        if payload[0] in _OPENS:
            payload = one_line(payload, self._max_depth)
        return NewJob(type, queue, body.priority, payload)

    def _type(self, type: str) -> None:
        """The types in use are few and come again: each is looked at once."""
        fields.label(type, "type", 256)
        if len(self._types) < _REMEMBERED:
            self._types.add(type)

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


_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_ARRAY = msgspec.json.Decoder(list[EnqueueBody])
_RAW_ARRAY = msgspec.json.Decoder(list[Raw])
_ANY = msgspec.json.Decoder(Raw)


def query_pairs(query: str) -> list[tuple[str, str]]:
    """Names and values of a query string. `InvalidField` where its percent-encoding is not UTF-8."""
    pairs = []
    for part in query.split("&"):
        if part:
            name, _, value = part.partition("=")
            if "%" in part or "+" in part:
                try:
                    name, value = unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")
                except UnicodeDecodeError:
                    raise InvalidField("the query string is not UTF-8", field=name[:64]) from None
            pairs.append((name, value))
    return pairs


def _agree(given: dict[str, Any], name: str, value: Any) -> None:
    if name in given:
        meaning = FIELDS[name].meaning or _itself
        if meaning(given[name]) != meaning(value):
            raise InvalidField(f"{name} is given twice, with different values", field=name)
    given[name] = value


def _itself(value: object) -> object:
    return value


def _header_text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _has_second_value(body: bytes) -> bool:
    """Is the trouble with `body` that something stands behind a first JSON value?"""
    try:
        _ANY.decode(body)
    except msgspec.DecodeError as bad:
        return "trailing characters" in str(bad)
    except RecursionError:
        return False
    return False
