"""Readers of the calls that enqueue, change or import jobs."""

import contextlib
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET

from jobqueue.errors import BadInput, BodyTooLarge, InvalidField, InvalidJson, JobQueueError, MissingField
from jobqueue.model import Change, ImportItem, NewJob, Options
from jobqueue.web.http import Request
from jobqueue.web.readers import import_item, raw_body
from jobqueue.web.readers.decoder import (
    ONE_LINE_HINT,
    checked,
    given,
    has_second_line,
    has_second_value,
    is_many,
    remember,
    says_many,
)
from jobqueue.web.readers.json_text import REFUSED, check_utf8, is_utf8, one_line
from jobqueue.web.readers.limits import Limits
from jobqueue.web.schema import requests
from jobqueue.web.schema.kinds import YEAR_MS
from jobqueue.web.schema.requests import SET_BY_THE_QUEUE

_OPENS: Final = b"[{"
_NO_REQUEST: Final = Request("", "", "", {}, b"", "", "")


class Many(NamedTuple):
    """Several jobs in one request.

    `atomic`: all or nothing. Otherwise `jobs` has an error in place of each bad item.
    """

    jobs: list[NewJob | JobQueueError]
    atomic: bool


class ProduceReaders:
    """Reads enqueues, changes of a job, and the lines of an import."""

    __slots__ = (
        "_change", "_enqueue", "_first_changes", "_import", "_last_changes", "_limits", "_max_body",
        "_max_depth", "_names", "_of_query", "_options_of_job", "_plain", "_plain_array", "_plain_beside",
        "_times_of_change", "_types",
    )  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._max_body = limits.max_body
        self._max_depth = limits.max_depth
        self._names = limits.queue_name.known
        self._types = limits.types
        self._plain = msgspec.json.Decoder(requests.PlainJob).decode
        self._plain_beside = msgspec.json.Decoder(requests.PlainJobBeside).decode
        # Queue and priority by the query that they came in.
        self._of_query: dict[str, tuple[str | None, int | None]] = {}
        self._plain_array = msgspec.json.Decoder(list[requests.PlainJob]).decode
        self._enqueue = limits.decoder(
            requests.EnqueueOptions, ignored=SET_BY_THE_QUEUE, nulls=frozenset({"payload", "max_attempts"}),
            body=requests.JobShape,
        )  # fmt: skip
        self._change = limits.decoder(
            requests.ChangeShape, nulls=frozenset(requests.ChangeShape.__struct_fields__)
        )
        self._import = limits.decoder(requests.ImportShape, nulls=frozenset({"payload", "max_attempts"}))
        self._options_of_job = self._enqueue.options_of(*_OPTIONS)
        self._first_changes = self._change.options_of(*_FIRST_CHANGES)
        self._times_of_change = self._change.options_of(*_TIMES)
        self._last_changes = self._change.options_of(*_LAST_CHANGES)

    def enqueue(self, request: Request, wall: Callable[[], int]) -> NewJob | Many:
        """Returns one job, or many for an array or one job a line.

        `wall` reads the wall clock in milliseconds.
        """
        body = request.body
        if body[:1] == b"{" and not says_many(request):
            if request.query:
                beside = self._job_beside_query(request)
                if beside is not None:
                    return beside
            else:
                if not body.isascii():  # most are: a call less
                    check_utf8(body)
                try:
                    new = self._plain_job(self._plain(body), request)
                    return new if len(body) <= self._max_body else self._within_limit(new)
                except REFUSED:
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
        new = self._new_job(asked, request, wall)
        if request.query:
            options = self._enqueue.options(request)
            if options.keys() <= {"queue", "priority"}:
                remember(self._of_query, request.query, (options.get("queue"), options.get("priority")))
        return new

    def _job_beside_query(self, request: Request) -> NewJob | None:
        """Returns a plain job whose queue or priority is in the query. None: it has to be read the long way,
        since there are other options, or there is something wrong."""
        body, query = request.body, request.query
        named = self._of_query.get(query)
        if named is None or not is_utf8(body):
            return None
        try:
            asked = self._plain_beside(body)
        except REFUSED:
            return None
        queue, priority = named
        if asked.queue is not UNSET:
            if queue is not None:  # twice
                return None
            queue = asked.queue
        if asked.priority is not UNSET:
            if priority is not None:
                return None
            priority = asked.priority
        job = requests.PlainJob(
            asked.type, "default" if queue is None else queue, priority or 0, asked.payload
        )
        return self._within_limit(self._plain_job(job, request))

    def _raw_job(self, request: Request, wall: Callable[[], int]) -> NewJob:
        """Returns a job whose payload is the body. Its type defaults to the name of the queue."""
        options = self._enqueue.options(request)
        options.setdefault("type", options.get("queue", "default"))
        asked = self._enqueue.merge(b"", options, self._max_depth)
        new = self._new_job(asked, request, wall)
        return self._within_limit(_with_payload(new, *raw_body.payload_of_body(request, self._max_depth)))

    def _many(self, request: Request, wall: Callable[[], int]) -> Many:
        options = self._enqueue.options(request)
        atomic = options.pop("atomic", True)
        if not options:
            with contextlib.suppress(*REFUSED, BadInput, BodyTooLarge):
                return Many(self._plain_jobs(request), atomic)
        items = self._enqueue.many(request, options, self._max_depth, self._limits.max_batch)
        return Many(checked(items, lambda item: self._new_job(item, request, wall), atomic), atomic)

    def _plain_jobs(self, request: Request) -> list[NewJob | JobQueueError]:
        """Returns the jobs if all are plain and valid, which is fast to see. Raises any error otherwise."""
        body = request.body
        check_utf8(body)
        if body[:1] == b"[":
            plain = self._plain_array(body)
        else:
            plain = [self._plain(line) for line in body.split(b"\n") if line]
        if not 1 <= len(plain) <= self._limits.max_batch:
            raise InvalidField("too few or too many")
        jobs: list[NewJob | JobQueueError] = [self._plain_job(item, request) for item in plain]
        if len(body) > self._max_body:
            for job in jobs:
                assert isinstance(job, NewJob)
                self._within_limit(job)
        return jobs

    def _plain_job(self, body: requests.PlainJob, request: Request) -> NewJob:
        type, queue = body.type, body.queue
        type = self._types.get(type) or self._limits.check_type(type)
        if queue not in self._names:
            self._limits.queue_name.check(queue, "queue")
        payload = bytes(body.payload)
        if payload[0] in _OPENS:
            payload = one_line(payload, self._max_depth)
        new = NewJob(type, queue, body.priority, payload)
        if b"traceparent" in request.headers:
            new.options = Options(headers=_with_trace(None, None, request))
        return new

    def _new_job(self, body: requests.JobShape, request: Request, wall: Callable[[], int]) -> NewJob:
        new = self._plain_job(body, request)
        if body.delay is not None:
            if body.run_at is not None:
                raise InvalidField("give delay or run_at, not both", field="delay")
            new.delay = self._enqueue.value(body, "delay")
        if body.run_at is not None:
            new.run_at = _within_a_year(self._enqueue.value(body, "run_at"), wall())
        if body.expires_in is not None:
            new.expires_in = self._enqueue.value(body, "expires_in")
        new.options = self._options(body, request)
        if body.content_type is not None or body.payload_encoding is not None:
            kind = self._enqueue.value(body, "content_type")
            new = _with_payload(
                new, *raw_body.payload_of_field(new.payload, kind, body.payload_encoding, self._max_depth)
            )
        return self._within_limit(new)

    def _within_limit(self, new: NewJob) -> NewJob:
        """Returns the job. Raises `BodyTooLarge` if its payload is larger than a payload may be, as it is
        stored: bytes, or JSON."""
        self._check_size(new.payload)
        return new

    def _check_size(self, payload: bytes) -> None:
        if len(payload) > self._max_body:
            raise BodyTooLarge(
                f"payload: at most {self._max_body:,} bytes; this one has {len(payload):,}",
                field="payload", limit=self._max_body, setting="JOBQUEUE_MAX_BODY",
            )  # fmt: skip

    def _options(self, body: requests.JobShape, request: Request) -> Options | None:
        found = given(body, self._options_of_job)
        headers = _with_trace(body.headers, found.get("headers"), request)
        if headers is not None:
            found["headers"] = headers
        if body.unique_key is None and (body.unique_while is not None or body.on_conflict is not None):
            raise MissingField(
                "unique_while and on_conflict say something of a unique_key", field="unique_key"
            )
        if not found.get("tags", True):
            del found["tags"]
        return Options(**found) if found else None

    def change(self, request: Request, wall: int) -> Change:
        """Returns a checked merge-patch. `wall` is the current wall-clock time in milliseconds."""
        asked = self._change.read(request, self._max_depth)
        if asked.delay not in (None, UNSET) and asked.run_at not in (None, UNSET):
            raise InvalidField("give delay or run_at, not both", field="delay")
        found = given(asked, self._first_changes)
        if payload := bytes(asked.payload):
            found["payload"] = one_line(payload, self._max_depth)
            self._check_size(found["payload"])
        found |= given(asked, self._times_of_change)
        if (run_at := found.get("run_at")) is not None:
            _within_a_year(run_at, wall)
        found |= given(asked, self._last_changes)
        for name, default in _AT_NULL:
            if name in found and found[name] is None:
                found[name] = default
        return Change(**found)

    def template(self, text: bytes, wall: Callable[[], int]) -> NewJob:
        """Returns the job of a schedule, from JSON. Raises `BadInput`."""
        if text[:1] != b"{":
            raise InvalidField('must be an object such as {"type":"report"}')
        check_utf8(text)
        try:
            asked = self._enqueue.decode(text)
        except REFUSED:
            asked = self._enqueue.merge(text, {}, self._max_depth)
        if asked.delay is not None or asked.run_at is not None:
            raise InvalidField("the schedule says when; leave delay and run_at out")
        return self._new_job(asked, _NO_REQUEST, wall)

    def import_item(self, line: bytes, wall: Callable[[], int]) -> ImportItem:
        """Returns the item in a line of an export. The trace context of the import is not that of the job."""
        check_utf8(line)
        try:
            asked = self._import.decode(line)
        except REFUSED:
            asked = self._import.merge(line, {}, self._max_depth)
        new = self._new_job(asked, _NO_REQUEST, wall)
        return import_item.import_item(self._import, asked, new, self._max_depth, wall)


def _with_payload(new: NewJob, payload: bytes, kind: str | None) -> NewJob:
    """Sets the payload; `kind` is the media type of one that is not JSON."""
    new.payload = payload
    if kind is not None:
        new.options = new.options or Options()
        new.options.content_type = kind
    return new


def _within_a_year(run_at: int, wall: int) -> int:
    if run_at > wall + YEAR_MS:
        raise InvalidField("run_at: at most one year ahead", field="run_at")
    return run_at


def _with_trace(given: dict[str, str] | None, encoded: bytes | None, request: Request) -> bytes | None:
    """Returns the given headers, with the trace context of the request if it has one."""
    trace = request.header(b"traceparent")
    if trace is not None and len(trace) <= 256 and trace.isascii() and "traceparent" not in (given or {}):
        return msgspec.json.encode({**(given or {}), "traceparent": trace})
    return encoded


# The fields of an enqueue that are options of the job, in the order of their checks.
_OPTIONS: Final = [
    name
    for name in requests.JobShape.__struct_fields__
    if name in Options.__struct_fields__ and name != "content_type"
]
# The fields of a change in the order of their checks; the payload comes after the first ones.
_FIRST_CHANGES: Final = ["queue", "type", "priority"]
_TIMES: Final = ["delay", "expires_in", "retain_for", "run_at"]
_LAST_CHANGES: Final = [
    name
    for name in requests.ChangeShape.__struct_fields__
    if name != "payload" and name not in _FIRST_CHANGES and name not in _TIMES
]
# What null restores, where that is not None.
_AT_NULL: Final[list[tuple[str, object]]] = [("queue", "default"), ("priority", 0), ("tags", ())]
