"""Checks of field values, by name of the field, whichever call it belongs to.

A check takes a value from JSON or a query string. It returns the value as the engine wants it, or raises
`InvalidField` with the name of the field.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from jobqueue.errors import InvalidField
from jobqueue.units import DURATION_HELP, duration_ms
from jobqueue.web.schema.patterns import INT32, MEDIA_TYPE, QUEUE_NAME

# The longest delay: how far ahead anything may be put off.
_DAY_MS = 86_400_000
YEAR_MS = 366 * _DAY_MS
MANY = 2**53 - 1
_QUEUE_NAME = re.compile(QUEUE_NAME)
_MEDIA_TYPE = re.compile(MEDIA_TYPE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_INTEGER = re.compile(r"-?[0-9]{1,20}")


def queue_name(value: str, field: str = "queue") -> str:
    if not _QUEUE_NAME.fullmatch(value):
        raise InvalidField(
            f"{field}: a queue's name is 1 to 128 letters, digits and _ . : - and begins with a letter, a "
            f"digit or _; not {value[:40]!r}",
            field=field,
        )
    return value


def queue_names(value: list[str] | str, field: str = "queues") -> tuple[str, ...]:
    """Returns the names in a list, or in text with commas, once each and in order."""
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not names or len(names) > 1000:
        raise InvalidField(f"{field}: name 1 to 1,000 queues", field=field)
    return tuple(dict.fromkeys(queue_name(name, field) for name in names))


def media_type(value: str) -> str:
    if len(value) > 256 or not _MEDIA_TYPE.fullmatch(value):
        raise InvalidField(
            f"content_type: a media type such as image/jpeg, at most 256 characters; not {value[:40]!r}",
            field="content_type",
        )
    return value


def label(value: str, field: str, most: int) -> str:
    """Checks free text without control characters."""
    if not 1 <= len(value) <= most or (not value.isprintable() and _CONTROL.search(value)):
        raise InvalidField(f"{field}: 1 to {most} characters, no control characters", field=field)
    return value


def said(value: str, field: str, most: int) -> str:
    """Checks text for people; any characters are allowed."""
    if len(value) > most:
        raise InvalidField(f"{field}: at most {most} characters", field=field, limit=most)
    return value


def lease_token(value: str) -> str:
    """Checks the length of a lease token. An unknown token is reported by the core."""
    if not 0 < len(value) <= 64:
        raise InvalidField("lease: the token that dequeue answered, 1 to 64 characters", field="lease")
    return value


def whole(value: int, field: str, low: int, high: int, setting: str | None = None) -> int:
    if not low <= value <= high:
        facts = {"setting": setting} if setting else {}
        raise InvalidField(
            f"{field}: a whole number from {low:,} to {high:,}", field=field, limit=high, **facts
        )
    return value


def duration(value: float | str, field: str, low: int, high: int, setting: str | None) -> int:
    """Returns milliseconds between `low` and `high`, both included."""
    try:
        ms = duration_ms(value)
    except InvalidField as bad:
        raise InvalidField(f"{field}: {bad.detail}", field=field) from None
    if not low <= ms <= high:
        said, facts = ("", {}) if setting is None else (f"; {setting} sets the limit", {"setting": setting})
        days = f" ({high // _DAY_MS} days)" if high > _DAY_MS and high % _DAY_MS == 0 else ""
        raise InvalidField(
            f"{field}: from {low / 1000:.9g} to {high / 1000:.9g} seconds{days}{said if ms > high else ''}",
            field=field, limit=high / 1000, **facts,
        )  # fmt: skip
    return ms


def tags(value: list[str]) -> tuple[str, ...]:
    """Returns at most 16 tags, once each and in order."""
    found = tuple(dict.fromkeys(label(tag, "tags", 64) for tag in value))
    if len(found) > 16:
        raise InvalidField("tags: at most 16", field="tags", limit=16)
    return found


def length(value: float | str, field: str, low: int = 0) -> int:
    return duration(value, field, low, YEAR_MS, None)


def set_of(value: list[str] | str | None, field: str) -> frozenset[str] | None:
    """Returns the values in a list, or in text with commas; at least one."""
    if value is None:
        return None
    items = [item.strip() for item in value.split(",")] if isinstance(value, str) else value
    if not items or "" in items or len(items) > 100:
        raise InvalidField(f"{field}: 1 to 100 values", field=field)
    return frozenset(items)


def watched_for(value: float | str | None) -> int | None:
    return None if value is None else length(value, "for", 1)


# -- from a query string, where all is text ---------------------------------------------------------


def _text(value: str, field: str) -> str:
    return value


def _integer(value: str, field: str) -> int:
    if not _INTEGER.fullmatch(value):
        raise InvalidField(f"{field}: a whole number, in digits; not {value[:40]!r}", field=field)
    return int(value)


_BOOLEANS = {"1": True, "true": True, "": True, "0": False, "false": False}


def _boolean(value: str, field: str) -> bool:
    if value.lower() not in _BOOLEANS:
        raise InvalidField(f"{field}: 1 or true, 0 or false; not {value[:40]!r}", field=field)
    return _BOOLEANS[value.lower()]


def _list(value: str, field: str) -> list[str]:
    return [item.strip() for item in value.split(",")] if value else []


def _instant(value: str, field: str) -> str:
    """Restores a plus sign that was not encoded and became a space."""
    return value.replace(" ", "+") if value.count(" ") == 1 and "T" in value.upper() else value


def _one_of(*allowed: str) -> Callable[[str, str], str]:
    def check(value: str, field: str) -> str:
        if value not in allowed:
            raise InvalidField(f"{field}: {' or '.join(allowed)}; not {value[:40]!r}", field=field)
        return value

    return check


def _as_json(value: str, field: str) -> Raw:
    return Raw(msgspec.json.encode(value))


def _attempts(value: str, field: str) -> int | None:
    return None if value in ("null", "none") else _integer(value, field)


def _int32(value: str, field: str) -> int:
    return whole(_integer(value, field), field, *INT32)


def _length(value: Any) -> object:
    try:
        return duration_ms(value)
    except InvalidField:
        return value


def _names(value: Any) -> object:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


class Field(NamedTuple):
    """What is known of a field.

    `expects` describes its value in error messages. `from_text` reads it from a query string; None: it
    belongs in the body. `meaning` normalises a value for comparison; None: values are compared as they are.
    """

    expects: str
    from_text: Callable[[str, str], Any] | None = _text
    meaning: Callable[[Any], object] | None = None


FIELDS: dict[str, Field] = {
    "type": Field("text"),
    "queue": Field("text"),
    "queues": Field("a list of names, or text with commas", meaning=_names),
    "priority": Field("a whole number from -2,147,483,648 to 2,147,483,647", _int32),
    "payload": Field("JSON", None),
    "content_type": Field("the media type of a payload that is not JSON, such as image/jpeg", None),
    "payload_encoding": Field("base64", None),
    "lease": Field("text"),
    "consumer": Field("text"),
    "lease_for": Field(DURATION_HELP, meaning=_length),
    "wait": Field(DURATION_HELP, meaning=_length),
    "count": Field("a whole number", _integer),
    "result": Field("JSON", None),
    "id": Field("the id of a job", None),
    "delay": Field(DURATION_HELP, meaning=_length),
    "run_at": Field(
        'an instant with an offset, such as "2026-11-24T03:14:15Z" (`date -Is` writes one; no bare number)',
        _instant,
    ),
    "expires_in": Field(DURATION_HELP, meaning=_length),
    "max_attempts": Field("a whole number from 1 to 10,000, or null for no limit", _attempts),
    "backoff": Field('a list of durations, or {"base","factor","max","jitter"}', _list),
    "retain_for": Field(DURATION_HELP, meaning=_length),
    "unique_key": Field("text"),
    "unique_while": Field("queued, active or exists", _one_of("queued", "active", "exists")),
    "on_conflict": Field("ignore, reject or replace", _one_of("ignore", "reject", "replace")),
    "tags": Field("a list of texts", _list),
    "headers": Field("an object of texts", None),
    "atomic": Field("true or false", _boolean),
    "error": Field("text, or an object with type, message, details", _as_json),
    "retry": Field("true or false", _boolean),
    "retry_in": Field(DURATION_HELP, meaning=_length),
    "progress": Field("a whole number from 0 to 100", _integer),
    "message": Field("text"),
    "force": Field("true or false", _boolean),
    "key": Field("text"),
    "dead_letter": Field("the name of a queue"),
    "max_jobs": Field("a whole number", _integer),
    "max_bytes": Field("a whole number", _integer),
    "max_in_progress": Field("a whole number", _integer),
    "rate": Field('{"count","per","burst"}', None),
    "key_limits": Field('{"max_in_progress","rate"}', None),
    "for": Field(DURATION_HELP, meaning=_length),
    "reason": Field("text"),
    "status": Field("a list of statuses, or text with commas"),
    "tag": Field("a list of texts, or text with commas"),
    "older_than": Field(DURATION_HELP, meaning=_length),
    "all": Field("true or false", _boolean),
    "dry_run": Field("true or false", _boolean),
    "order": Field("asc or desc", _one_of("asc", "desc")),
    "limit": Field("a whole number", _integer),
    "cursor": Field("what `next` was"),
    "prefetch": Field("a whole number", _integer),
    "format": Field("json, text, html or events", _one_of("json", "text", "html", "events")),
    "job": Field("a list of ids, or text with commas"),
    "event": Field("a list of names of events, or text with commas"),
    # Of objects inside of others.
    "base": Field(DURATION_HELP, None),
    "factor": Field("a number", None),
    "max": Field(DURATION_HELP, None),
    "jitter": Field("a number", None),
    "per": Field(DURATION_HELP, None),
    "burst": Field("a whole number", None),
    "details": Field("JSON", None),
    # Of a job that comes from another queue.
    "origin": Field("text, at most 128 characters", None),
    "attempts": Field("a whole number", None),
    "leases": Field("a whole number", None),
    "attempt": Field("a whole number", None),
    "created_at": Field("an instant with an offset", None),
    "started_at": Field("an instant with an offset", None),
    "ended_at": Field("an instant with an offset", None),
    "finished_at": Field("an instant with an offset", None),
    "expires_at": Field("an instant with an offset", None),
    "lease_expires_at": Field("an instant with an offset", None),
    "outcome": Field("how an attempt ended", None),
    "history": Field("a list of attempts", None),
    "dead_from": Field('{"queue","reason"}', None),
    "cancel_requested": Field("true or false", None),
    "duplicate": Field("true or false", None),
    "etag": Field("text", None),
}
_FLAG = Field("true or false", _boolean)


def field_of(name: str, kind: object) -> Field:
    """Returns what is known of a field of type `kind`. A boolean is read as such, whatever its name."""
    return _FLAG if kind is bool else FIELDS[name]


# Set by the queue: at enqueue they are accepted and ignored, so that a fetched job can be enqueued again.
SET_BY_THE_QUEUE = frozenset(
    {"id", "status", "lease", "attempts", "leases", "created_at", "started_at", "finished_at", "consumer",
     "lease_expires_at", "result", "reason", "error", "history", "cancel_requested", "duplicate",
     "expires_at", "progress", "message", "etag", "origin", "dead_from", "result_encoding"}
)  # fmt: skip
