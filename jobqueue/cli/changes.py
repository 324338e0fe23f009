"""Changes of a queue or a job as they are typed: `NAME=VALUE`, or `NAME:=JSON`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from jobqueue.cli.arguments import UsageError, assignment
from jobqueue.client.encoding import JobChanges, KeyLimitOptions, QueueChanges

_KEY_LIMITS: Final = "key_limits"
QUEUE_NAMES: Final = (
    *QueueChanges.__annotations__,
    *(f"{_KEY_LIMITS}.{name}" for name in KeyLimitOptions.__annotations__),
)
JOB_NAMES: Final = tuple(JobChanges.__annotations__)
_NUMBERS: Final = ("batch", "max_attempts", "max_bytes", "max_in_progress", "max_jobs", "priority")
_SWITCHES: Final = ("fair_keys", "ordered")
_LISTS: Final = ("backoff", "tags")


def changes_of_queue(texts: Iterable[str]) -> dict[str, Any]:
    """Returns changes of a queue's settings, as `client.queues.change` takes them. Raises `UsageError`."""
    changes: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for name, value in _changes(texts, QUEUE_NAMES, "a queue has no setting"):
        group, dot, limit = name.partition(".")
        if dot:
            limits[limit] = value
        else:
            changes[group] = value
    if limits and _KEY_LIMITS in changes:
        raise UsageError(f"give {_KEY_LIMITS} as a whole, or one by one such as {_KEY_LIMITS}.rate=5/1s")
    return {**changes, _KEY_LIMITS: limits} if limits else changes


def changes_of_job(texts: Iterable[str]) -> dict[str, Any]:
    """Returns changes of a job, as `client.jobs.change` takes them. Raises `UsageError`."""
    changes = dict(_changes(texts, JOB_NAMES, "a job has no field to change"))
    if changes.get("max_attempts") == "none":
        changes["max_attempts"] = None
    elif "max_attempts" in changes and changes["max_attempts"] is None:  # which would be no limit
        raise UsageError("max_attempts=default: give a number, or none for no limit")
    return changes


def _changes(texts: Iterable[str], known: Sequence[str], unknown: str) -> Iterator[tuple[str, Any]]:
    for text in texts:
        name, value = assignment(text)
        if name not in known:
            raise UsageError(f"{unknown} {name!r}; there are {', '.join(known)}")
        yield name, _value(name.rpartition(".")[2], value) if isinstance(value, str) else value


def _value(name: str, text: str) -> Any:
    """Returns a value as the API takes it. The server checks it."""
    if text == "default":
        return None
    if name in _NUMBERS and text.removeprefix("-").isdecimal():
        return int(text)
    if name in _SWITCHES and text in ("true", "false"):
        return text == "true"
    if name in _LISTS:
        return text.split(",")
    if name == "rate":
        count, _, per = text.partition("/")
        if not count.isdecimal():
            raise UsageError(f"rate={text}: write a number and a time, such as rate=100/1m")
        return {"count": int(count), **({"per": per} if per else {})}
    return text
