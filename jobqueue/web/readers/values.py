"""Values: what a field of a request means, beyond its type."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from jobqueue.errors import BadInput, InvalidField
from jobqueue.model import INHERIT, Backoff, NewJob, Options, Rate
from jobqueue.units import parse_instant
from jobqueue.web.http import Request
from jobqueue.web.readers import fields
from jobqueue.web.readers.fields import YEAR_MS
from jobqueue.web.schema import requests

_MAX_HEADERS = 4 << 10
MANY = 2**53 - 1


def each(items: Any, check: Any, all_or_nothing: bool) -> list[Any]:
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


def with_payload(new: NewJob, payload: bytes, kind: str | None) -> NewJob:
    """`kind`: the media type of a payload that is not JSON."""
    new.payload = payload
    if kind is not None:
        new.options = new.options or Options()
        new.options.content_type = kind
    return new


def length(value: float | str, field: str, low: int = 0) -> int:
    return fields.duration(value, field, low, YEAR_MS, None)


def ids(value: list[int] | str) -> frozenset[int]:
    ids = [str(id).strip() for id in (value.split(",") if isinstance(value, str) else value)]
    if not 1 <= len(ids) <= 100 or not all(id.isascii() and id.isdigit() and len(id) <= 16 for id in ids):
        raise InvalidField("job: 1 to 100 ids of jobs", field="job")
    return frozenset(map(int, ids))


def watched_for(value: float | str | None) -> int | None:
    return None if value is None else length(value, "for", 1)


def run_at(value: str, wall: int) -> int:
    try:
        at = parse_instant(value)
    except InvalidField as bad:
        if value.replace(".", "", 1).lstrip("-").isdigit():
            bad.detail = "a bare number is not an instant; for a length of time use delay. " + bad.detail
        raise InvalidField(f"run_at: {bad.detail}", field="run_at") from None
    if at > wall + YEAR_MS:
        raise InvalidField("run_at: at most one year ahead", field="run_at")
    return at


def max_attempts(value: int | UnsetType | None) -> int | None:
    if value is UNSET:
        return INHERIT
    if value is None:
        return None
    if value == 0:
        raise InvalidField("max_attempts: 1 is no retry, null is no limit; not 0", field="max_attempts")
    return fields.whole(value, "max_attempts", 1, 10_000)


def backoff(value: list[int | float | str] | requests.BackoffShape) -> Backoff:
    if isinstance(value, list):
        if not 1 <= len(value) <= 100:
            raise InvalidField("backoff: 1 to 100 lengths", field="backoff")
        return Backoff(steps=tuple(length(step, "backoff") for step in value), jitter=0.0)
    if not (1 <= value.factor <= 100 and 0 <= value.jitter <= 1):
        raise InvalidField("backoff: factor from 1 to 100, jitter from 0 to 1", field="backoff")
    return Backoff(length(value.base, "backoff"), value.factor, length(value.max, "backoff"), value.jitter)


def rate(value: requests.RateShape) -> Rate:
    count = fields.whole(value.count, "rate", 1, MANY)
    burst = count if value.burst is None else fields.whole(value.burst, "rate", 1, MANY)
    return Rate(count, length(value.per, "rate", 1), burst)


def set_of(value: list[str] | str | None, field: str) -> frozenset[str] | None:
    """A list, or text with commas; not an empty one."""
    if value is None:
        return None
    items = [item.strip() for item in value.split(",")] if isinstance(value, str) else value
    if not items or "" in items or len(items) > 100:
        raise InvalidField(f"{field}: 1 to 100 values", field=field)
    return frozenset(items)


def headers_of(given: dict[str, str] | None, request: Request) -> bytes | None:
    """What was given, and the trace context of the request where it has one."""
    text = None if given is None else encoded_headers(given)
    trace = request.header(b"traceparent")
    if trace is not None and len(trace) <= 256 and trace.isascii() and "traceparent" not in (given or {}):
        return msgspec.json.encode({**(given or {}), "traceparent": trace})
    return text


def encoded_headers(headers: dict[str, str]) -> bytes:
    text = msgspec.json.encode(headers)
    if len(text) > _MAX_HEADERS:
        raise InvalidField(f"headers: at most {_MAX_HEADERS:,} bytes", field="headers", limit=_MAX_HEADERS)
    return text
