"""Readers of the calls that enqueue, change or import jobs."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from jobqueue.errors import BadInput, InvalidField, InvalidJson, MissingField
from jobqueue.model import Change, ImportItem, NewJob, Options
from jobqueue.units import parse_instant
from jobqueue.web.http import Request
from jobqueue.web.readers import fields, import_item, raw_body, records
from jobqueue.web.readers.decoder import (
    ONE_LINE_HINT,
    RequestDecoder,
    checked,
    has_second_line,
    has_second_value,
    is_many,
    says_many,
)
from jobqueue.web.readers.fields import SET_BY_THE_QUEUE
from jobqueue.web.readers.json_text import REFUSED, check_utf8, one_line
from jobqueue.web.readers.limits import Limits
from jobqueue.web.schema import requests

_OPENS = b"[{"
_MAX_HEADERS = 4 << 10


class Many(NamedTuple):
    """Several jobs in one request.

    `atomic`: all or nothing. Otherwise `jobs` has an error in place of each bad item.
    """

    jobs: list[NewJob | BadInput]
    atomic: bool


class ProduceReaders:
    """Reads enqueues, changes of a job, and the lines of an import."""

    __slots__ = (
        "_change", "_enqueue", "_import", "_limits", "_max_depth", "_names", "_plain", "_plain_array",
        "_types",
    )  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._max_depth = limits.max_depth
        self._names = limits.names
        self._types = limits.types
        self._plain = msgspec.json.Decoder(requests.PlainJob).decode
        self._plain_array = msgspec.json.Decoder(list[requests.PlainJob]).decode
        self._enqueue = RequestDecoder(
            requests.EnqueueOptions, ignored=SET_BY_THE_QUEUE, nulls=frozenset({"payload", "max_attempts"}),
            body=requests.JobShape,
        )  # fmt: skip
        self._change = RequestDecoder(
            requests.ChangeShape, nulls=frozenset(requests.ChangeShape.__struct_fields__)
        )
        self._import = RequestDecoder(requests.ImportShape, nulls=frozenset({"payload", "max_attempts"}))

    def decoders(self) -> list[RequestDecoder[Any]]:
        """Returns the decoder of each request struct that is read here."""
        return [self._enqueue, self._change, self._import]

    def enqueue(self, request: Request, wall: Callable[[], int]) -> NewJob | Many:
        """Returns one job, or many for an array or one job a line.

        `wall` reads the wall clock in milliseconds.
        """
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
        """Returns a job whose payload is the body. Its type defaults to the name of the queue."""
        options = self._enqueue.options(request)
        options.setdefault("type", options.get("queue", "default"))
        asked = self._enqueue.merge(b"", options, self._max_depth)
        new = self._new_job(asked, request, wall)
        return _with_payload(new, *raw_body.payload_of_body(request, self._max_depth))

    def _many(self, request: Request, wall: Callable[[], int]) -> Many:
        options = self._enqueue.options(request)
        atomic = options.pop("atomic", True)
        if not options:
            with contextlib.suppress(*REFUSED, BadInput):
                return Many(self._plain_jobs(request), atomic)
        items = self._enqueue.many(request, options, self._max_depth, self._limits.max_batch)
        return Many(checked(items, lambda item: self._new_job(item, request, wall), atomic), atomic)

    def _plain_jobs(self, request: Request) -> list[NewJob | BadInput]:
        """Returns the jobs if all are plain and valid, which is fast to see. Raises any error otherwise."""
        body = request.body
        check_utf8(body)
        if body[:1] == b"[":
            plain = self._plain_array(body)
        else:
            plain = [self._plain(line) for line in body.split(b"\n") if line]
        if not 1 <= len(plain) <= self._limits.max_batch:
            raise InvalidField("too few or too many")
        return [self._plain_job(item, request) for item in plain]

    def _plain_job(self, body: requests.PlainJob, request: Request) -> NewJob:
        type, queue = body.type, body.queue
        type = self._types.get(type) or self._limits.check_type(type)
        if queue not in self._names:
            self._limits.queue_name(queue)
        payload = bytes(body.payload)
        if payload[0] in _OPENS:
            payload = one_line(payload, self._max_depth)
        new = NewJob(type, queue, body.priority, payload)
        if b"traceparent" in request.headers:
            new.options = Options(headers=_headers_of(None, request))
        return new

    def _new_job(self, body: requests.JobShape, request: Request, wall: Callable[[], int]) -> NewJob:
        new = self._plain_job(body, request)
        if body.delay is not None:
            if body.run_at is not None:
                raise InvalidField("give delay or run_at, not both", field="delay")
            new.delay = fields.length(body.delay, "delay")
        if body.run_at is not None:
            new.run_at = _run_at(body.run_at, wall())
        if body.expires_in is not None:
            new.expires_in = fields.length(body.expires_in, "expires_in", 1)
        new.options = self._options(body, request)
        if body.content_type is not None or body.payload_encoding is not None:
            return _with_payload(
                new,
                *raw_body.payload_of_field(
                    new.payload, body.content_type, body.payload_encoding, self._max_depth
                ),
            )
        return new

    def _options(self, body: requests.JobShape, request: Request) -> Options | None:
        options = Options(
            lease_for=self._limits.lease_for(body.lease_for),
            max_attempts=records.max_attempts(body.max_attempts),
            backoff=None if body.backoff is None else records.backoff(body.backoff),
            retain_for=None if body.retain_for is None else fields.length(body.retain_for, "retain_for"),
            key=None if body.key is None else fields.label(body.key, "key", 256),
            unique_key=None if body.unique_key is None else fields.label(body.unique_key, "unique_key", 256),
            unique_while=body.unique_while or "active",
            on_conflict=body.on_conflict or "ignore",
            tags=() if body.tags is None else fields.tags(body.tags),
            headers=_headers_of(body.headers, request),
        )
        if body.unique_key is None and (body.unique_while is not None or body.on_conflict is not None):
            raise MissingField(
                "unique_while and on_conflict say something of a unique_key", field="unique_key"
            )
        return options if any(getattr(options, name) != default for name, default in _PLAIN_OPTIONS) else None

    def change(self, request: Request, wall: int) -> Change:
        """Returns a checked merge-patch. `wall` is the current wall-clock time in milliseconds."""
        asked = self._change.read(request, self._max_depth)
        if asked.delay not in (None, UNSET) and asked.run_at not in (None, UNSET):
            raise InvalidField("give delay or run_at, not both", field="delay")
        change = Change()
        if asked.queue is not UNSET:
            change.queue = self._limits.queue_name(asked.queue) if asked.queue is not None else "default"
        if asked.type is not UNSET:
            change.type = fields.label(asked.type, "type", 256)
        if asked.priority is not UNSET:
            change.priority = asked.priority or 0
        if payload := bytes(asked.payload):
            change.payload = one_line(payload, self._max_depth)
        for name, low in (("delay", 0), ("expires_in", 1), ("retain_for", 0)):
            value = getattr(asked, name)
            if value is not UNSET:
                setattr(change, name, None if value is None else fields.length(value, name, low))
        if asked.run_at is not UNSET:
            change.run_at = None if asked.run_at is None else _run_at(asked.run_at, wall)
        if asked.lease_for is not UNSET:
            change.lease_for = self._limits.lease_for(asked.lease_for)
        if asked.max_attempts is not UNSET:
            change.max_attempts = records.max_attempts(asked.max_attempts)
        if asked.backoff is not UNSET:
            change.backoff = None if asked.backoff is None else records.backoff(asked.backoff)
        if asked.key is not UNSET:
            change.key = None if asked.key is None else fields.label(asked.key, "key", 256)
        if asked.tags is not UNSET:
            change.tags = () if asked.tags is None else fields.tags(asked.tags)
        if asked.headers is not UNSET:
            change.headers = None if asked.headers is None else _encoded_headers(asked.headers)
        return change

    def import_item(self, line: bytes, request: Request, wall: Callable[[], int]) -> ImportItem:
        """Returns the item in a line of an export. `request` is the import."""
        check_utf8(line)
        try:
            asked = self._import.decode(line)
        except REFUSED:
            asked = self._import.merge(line, {}, self._max_depth)
        return import_item.import_item(asked, self._new_job(asked, request, wall), self._max_depth, wall)


def _with_payload(new: NewJob, payload: bytes, kind: str | None) -> NewJob:
    """Sets the payload; `kind` is the media type of one that is not JSON."""
    new.payload = payload
    if kind is not None:
        new.options = new.options or Options()
        new.options.content_type = kind
    return new


def _run_at(value: str, wall: int) -> int:
    try:
        at = parse_instant(value)
    except InvalidField as bad:
        if value.replace(".", "", 1).lstrip("-").isdigit():
            bad.detail = "a bare number is not an instant; for a length of time use delay. " + bad.detail
        raise InvalidField(f"run_at: {bad.detail}", field="run_at") from None
    if at > wall + fields.YEAR_MS:
        raise InvalidField("run_at: at most one year ahead", field="run_at")
    return at


def _headers_of(given: dict[str, str] | None, request: Request) -> bytes | None:
    """Returns the given headers, with the trace context of the request if it has one."""
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


_PLAIN_OPTIONS = [(name, getattr(Options(), name)) for name in Options.__struct_fields__]
