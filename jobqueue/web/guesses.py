"""Guesses: what somebody meant who named a field or a path that does not exist: as other queues call it, with
a slash too many, or spelt almost so."""

from collections.abc import Collection
from difflib import get_close_matches
from functools import lru_cache

# How alike two names must be, of 1. `wiat` and `wait` are by 0.75, `data` and `tags` by 0.5.
_ALIKE = 0.65
# Longer is no name; so much of one is compared, in characters.
_LONG = 64
# Fields as others call them.
_FIELDS = {
    "data": "payload", "body": "payload", "args": "payload", "params": "payload", "message": "payload",
    "name": "type", "kind": "type", "task": "type", "job_type": "type", "tube": "queue", "topic": "queue",
    "timeout": "wait", "block": "wait", "ttr": "lease_for", "visibility_timeout": "lease_for",
    "pri": "priority", "ttl": "expires_in", "retries": "max_attempts", "max_retries": "max_attempts",
    "delay_seconds": "delay", "limit": "count", "n": "count", "worker": "consumer", "token": "lease",
    "lease_id": "lease",
}  # fmt: skip
# Segments of paths as others call them.
_SEGMENTS = {
    "job": "jobs", "queue": "queues",
    "add": "enqueue", "create": "enqueue", "push": "enqueue", "put": "enqueue", "send": "enqueue",
    "submit": "enqueue", "fetch": "dequeue", "next": "dequeue", "pop": "dequeue", "receive": "dequeue",
    "reserve": "dequeue", "take": "dequeue", "ack": "conclude", "complete": "conclude", "done": "conclude",
    "finish": "conclude", "success": "conclude", "error": "fail", "nack": "fail", "extend": "heartbeat",
    "touch": "heartbeat", "requeue": "release", "kick": "redrive", "retry": "redrive",
    "health": "healthz", "ping": "healthz", "ready": "readyz", "status": "stats",
    "swagger.json": "openapi.json",
}  # fmt: skip


def field(name: str, known: Collection[str]) -> str | None:
    """The field of `known` that `name`, in lower case, means."""
    meant = _FIELDS.get(name)
    if meant in known:
        return meant
    near = get_close_matches(name[:_LONG], known, n=1, cutoff=_ALIKE)
    return near[0] if near else None


@lru_cache(maxsize=256)  # one request may be refused by several who look
def path(method: str, asked: str, patterns: tuple[str, ...]) -> str | None:
    """The path, of those with these patterns (`/jobs/{id}/fail`), that `asked` means."""
    said = asked.strip("/").split("/")
    if len(said) > 3 or "" in said:
        return None
    if len(said) == 3 and said[0] == "queues" and said[2] == "jobs":
        of_queues = {"POST": "/queues/{}/enqueue", "DELETE": "/queues/{}/purge"}
        return of_queues.get(method, "/jobs?queue={}").format(said[1])
    segments = [_SEGMENTS.get(each.lower(), each) for each in said]
    named = [pattern for pattern in patterns if pattern[-1:] != "}"]
    behind = ["jobs", *segments]
    return (
        _exact(segments, patterns)
        or _exact(behind, named)
        or _alike(segments, named)
        or _alike(behind, named)
    )


def _exact(segments: list[str], patterns: Collection[str]) -> str | None:
    for pattern in patterns:
        meant = _filled(pattern, segments)
        if meant == segments:
            return "/" + "/".join(meant)
    return None


def _alike(segments: list[str], patterns: Collection[str]) -> str | None:
    """Its last segment is misspelt; the rest is as it is."""
    found = {}
    for pattern in patterns:
        meant = _filled(pattern, segments)
        if meant[:-1] == segments[:-1]:
            found[meant[-1]] = "/" + "/".join(meant)
    near = get_close_matches(segments[-1].lower(), found, n=1, cutoff=_ALIKE)
    return found[near[0]] if near else None


def _filled(pattern: str, segments: list[str]) -> list[str]:
    """The segments of `pattern`, its parameter taken from `segments`."""
    parts = pattern.strip("/").split("/")
    return [segments[i] if part[:1] == "{" and i < len(segments) else part for i, part in enumerate(parts)]
