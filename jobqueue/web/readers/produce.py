"""Making: the readers of the calls that make jobs, or change them."""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from jobqueue.errors import BadInput, InvalidField, InvalidJson, MissingField
from jobqueue.model import Change, ImportItem, NewJob, Options
from jobqueue.settings import Settings
from jobqueue.web.http import Request
from jobqueue.web.readers import fields, import_item, values
from jobqueue.web.readers.checks import Checks
from jobqueue.web.readers.decoder import (
    ONE_LINE_HINT,
    RequestDecoder,
    has_second_line,
    has_second_value,
    is_many,
    says_many,
)
from jobqueue.web.readers.fields import SET_BY_THE_QUEUE
from jobqueue.web.readers.json_text import REFUSED, check_utf8, one_line
from jobqueue.web.schema import requests
from jobqueue.web.writers import raw

_OPENS = b"[{"
_MAX_ERROR = 16 << 10


class Many(NamedTuple):
    """Several jobs in one request. `atomic`: all or nothing; if not, `jobs` has what was wrong with a bad one
    in its place."""

    jobs: list[NewJob | BadInput]
    atomic: bool


class Making(Checks):
    """What makes jobs, or changes them."""

    __slots__ = (
        "_arrival", "_change", "_enqueue", "_error", "_plain", "_plain_array",
    )  # fmt: skip

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._plain = msgspec.json.Decoder(requests.PlainJob).decode
        self._plain_array = msgspec.json.Decoder(list[requests.PlainJob]).decode
        self._enqueue = RequestDecoder(
            requests.EnqueueOptions, ignored=SET_BY_THE_QUEUE, nulls=frozenset({"payload", "max_attempts"}),
            body=requests.JobShape,
        )  # fmt: skip
        self._change = RequestDecoder(
            requests.ChangeShape, nulls=frozenset(requests.ChangeShape.__struct_fields__)
        )
        self._arrival = RequestDecoder(requests.ImportShape, nulls=frozenset({"payload", "max_attempts"}))
        self._error = RequestDecoder(requests.ErrorShape, nulls=frozenset({"details"}))

    def enqueue(self, request: Request, wall: Callable[[], int]) -> NewJob | Many:
        """One job, or many where an array or a line each was sent. `wall`: says the time, milliseconds."""
        body = request.body
        if body[:1] == b"{" and not request.query and not says_many(request):
            if not body.isascii():  # most are: a call less
                check_utf8(body)
            try:
                return self._plain_job(self._plain(body), request)
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
        return self._new_job(asked, request, wall)

    def _raw_job(self, request: Request, wall: Callable[[], int]) -> NewJob:
        """The body is the payload; the type is that of the queue if it is not said."""
        options = self._enqueue.options(request)
        options.setdefault("type", options.get("queue", "default"))
        asked = self._enqueue.merge(b"", options, self._max_depth)
        new = self._new_job(asked, request, wall)
        return values.with_payload(new, *raw.payload_of_body(request, self._max_depth))

    def _many(self, request: Request, wall: Callable[[], int]) -> Many:
        options = self._enqueue.options(request)
        atomic = options.pop("atomic", True)
        if not options:
            with contextlib.suppress(*REFUSED, BadInput):
                return Many(self._plain_jobs(request), atomic)
        items = self._enqueue.many(request, options, self._max_depth, self._settings.max_batch)
        return Many(values.each(items, lambda item: self._new_job(item, request, wall), atomic), atomic)

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

    def _plain_job(self, body: requests.PlainJob, request: Request) -> NewJob:
        type, queue = body.type, body.queue
        type = self._types.get(type) or self._type(type)
        if queue not in self._names:
            self._queue_name(queue)
        payload = bytes(body.payload)
        if payload[0] in _OPENS:
            payload = one_line(payload, self._max_depth)
        new = NewJob(type, queue, body.priority, payload)
        if b"traceparent" in request.headers:
            new.options = Options(headers=values.headers_of(None, request))
        return new

    def _new_job(self, body: requests.JobShape, request: Request, wall: Callable[[], int]) -> NewJob:
        new = self._plain_job(body, request)
        if body.delay is not None:
            if body.run_at is not None:
                raise InvalidField("give delay or run_at, not both", field="delay")
            new.delay = values.length(body.delay, "delay")
        if body.run_at is not None:
            new.run_at = values.run_at(body.run_at, wall())
        if body.expires_in is not None:
            new.expires_in = values.length(body.expires_in, "expires_in", 1)
        new.options = self._options(body, request)
        if body.content_type is not None or body.payload_encoding is not None:
            return values.with_payload(
                new,
                *raw.payload_of_field(new.payload, body.content_type, body.payload_encoding, self._max_depth),
            )
        return new

    def _options(self, body: requests.JobShape, request: Request) -> Options | None:
        options = Options(
            lease_for=self._lease_for(body.lease_for),
            max_attempts=values.max_attempts(body.max_attempts),
            backoff=None if body.backoff is None else values.backoff(body.backoff),
            retain_for=None if body.retain_for is None else values.length(body.retain_for, "retain_for"),
            key=None if body.key is None else fields.label(body.key, "key", 256),
            unique_key=None if body.unique_key is None else fields.label(body.unique_key, "unique_key", 256),
            unique_while=body.unique_while or "active",
            on_conflict=body.on_conflict or "ignore",
            tags=() if body.tags is None else fields.tags(body.tags),
            headers=values.headers_of(body.headers, request),
        )
        if body.unique_key is None and (body.unique_while is not None or body.on_conflict is not None):
            raise MissingField(
                "unique_while and on_conflict say something of a unique_key", field="unique_key"
            )
        return options if any(getattr(options, name) != default for name, default in _PLAIN_OPTIONS) else None

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
                setattr(change, name, None if value is None else values.length(value, name, low))
        if asked.run_at is not UNSET:
            change.run_at = None if asked.run_at is None else values.run_at(asked.run_at, wall)
        if asked.lease_for is not UNSET:
            change.lease_for = self._lease_for(asked.lease_for)
        if asked.max_attempts is not UNSET:
            change.max_attempts = values.max_attempts(asked.max_attempts)
        if asked.backoff is not UNSET:
            change.backoff = None if asked.backoff is None else values.backoff(asked.backoff)
        if asked.key is not UNSET:
            change.key = None if asked.key is None else fields.label(asked.key, "key", 256)
        if asked.tags is not UNSET:
            change.tags = () if asked.tags is None else fields.tags(asked.tags)
        if asked.headers is not UNSET:
            change.headers = None if asked.headers is None else values.encoded_headers(asked.headers)
        return change

    def arrival(self, line: bytes, request: Request, wall: Callable[[], int]) -> ImportItem:
        """A job of another queue, from its line. `request`: the one that it came with."""
        check_utf8(line)
        try:
            asked = self._arrival.decode(line)
        except REFUSED:
            asked = self._arrival.merge(line, {}, self._max_depth)
        return import_item.arrival(asked, self._new_job(asked, request, wall), self._error_of, wall)

    def _error_of(self, text: bytes) -> bytes:
        """An error as it is kept: JSON on one line."""
        error = one_line(text, self._max_depth)
        if error[:1] == b"{":
            try:
                self._error.decode(error)
            except REFUSED:
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
            {name: value for name, value in given.items() if value != requests.NULL and value is not None}
        )


_PLAIN_OPTIONS = [(name, getattr(Options(), name)) for name in Options.__struct_fields__]
