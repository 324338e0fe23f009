"""Suggestions for names that do not exist: fields and paths as other queues call them, or
misspelt.
"""

from collections.abc import Collection
from difflib import get_close_matches
from functools import lru_cache

# How alike two names must be, of 1. `wiat` and `wait` are by 0.75, `data` and `tags` by 0.5.
_ALIKE = 0.65
# Characters of a name that are compared; no name is longer.
_LONG = 64
# Fields as others call them.
_FIELDS = {
    "data": "payload", "body": "payload", "args": "payload", "params": "payload", "message": "payload",
    "name": "type", "kind": "type", "task": "type", "job_type": "type", "tube": "queue", "topic": "queue",
    "timeout": "wait", "block": "wait", "ttr": "lease_for", "visibility_timeout": "lease_for",
    "pri": "priority", "ttl": "expires_in", "retries": "max_attempts", "max_retries": "max_attempts",
    "delay_seconds": "delay", "limit": "count", "n": "count", "worker": "consumer", "token": "lease",
    "lease_id": "lease", "concurrency": "max_in_progress", "parallelism": "max_in_progress",
    "max_concurrency": "max_in_progress", "max_running": "max_in_progress", "rate_limit": "rate",
}  # fmt: skip
# Looks like another one, and is its opposite.
_NONE_LIKE_IT = frozenset({"newer_than"})
# What there is no field for.
_ADVICE = (
    dict.fromkeys(
        ("cron", "schedule", "every", "interval", "repeat", "recurring"),
        "a schedule makes jobs again and again: PUT /schedules/{name}",
    )
    | dict.fromkeys(
        ("depends_on", "after", "callback", "then", "on_success"),
        "no job waits for another: enqueue the next one when it is concluded",
    )
    | dict.fromkeys(
        ("type", "types"),
        "jobs are not chosen by their type: give each type a queue of its own",
    )
)
# Segments of paths as others call them.
_SEGMENTS = {
    "job": "jobs", "queue": "queues",
    "add": "enqueue", "create": "enqueue", "push": "enqueue", "put": "enqueue", "send": "enqueue",
    "submit": "enqueue", "fetch": "dequeue", "next": "dequeue", "pop": "dequeue", "receive": "dequeue",
    "reserve": "dequeue", "take": "dequeue", "ack": "conclude", "complete": "conclude", "done": "conclude",
    "finish": "conclude", "success": "conclude", "error": "fail", "nack": "fail", "extend": "heartbeat",
    "touch": "heartbeat", "requeue": "release", "kick": "redrive", "retry": "redrive",
    "health": "healthz", "ping": "healthz", "ready": "readyz", "status": "stats",
    "swagger.json": "openapi.json", "unpause": "resume", "continue": "resume",
    "drain": "purge", "clear": "purge",
}  # fmt: skip


def field(name: str, known: Collection[str]) -> str | None:
    """Returns the field of `known` that `name`, in lower case, probably means."""
    meant = _FIELDS.get(name)
    if meant in known:
        return meant
    if name == "timeout" and "lease_for" in known:
        return "lease_for"
    if name in _NONE_LIKE_IT or name in _ADVICE:
        return None
    near = get_close_matches(name[:_LONG], known, n=1, cutoff=_ALIKE)
    return near[0] if near else None


def advice(name: str) -> str | None:
    """Returns what to do in place of a field that other queues have."""
    return _ADVICE.get(name)


@lru_cache(maxsize=256)  # one request may be refused by several who look
def path(method: str, asked: str, patterns: tuple[str, ...]) -> str | None:
    """Returns the path of these patterns (`/jobs/{id}/fail`) that `asked` probably means."""
    said = asked.strip("/").split("/")
    if len(said) > 3 or "" in said:
        return None
    meant = [_SEGMENTS.get(each.lower(), each) for each in said]
    if len(said) == 3 and (meant[0], said[2]) == ("queues", "jobs"):
        of_queues = {"POST": "/queues/{}/enqueue", "DELETE": "/queues/{}/purge"}
        return of_queues.get(method, "/jobs?queue={}").format(said[1])
    every = [pattern.strip("/").split("/") for pattern in patterns]
    named = [parts for parts in every if parts[-1][:1] != "{"]
    behind, said_behind = ["jobs", *meant], ["jobs", *said]
    return (
        _exact(meant, said, every)
        or _exact(behind, said_behind, named)
        or _alike(meant, said, named)
        or _alike(behind, said_behind, named)
    )


def _exact(meant: list[str], said: list[str], patterns: list[list[str]]) -> str | None:
    for parts in patterns:
        if len(parts) == len(meant) and _fit(parts, meant):
            return _filled(parts, said)
    return None


def _alike(meant: list[str], said: list[str], patterns: list[list[str]]) -> str | None:
    """Returns a path that differs from `asked` only by a misspelt last segment."""
    found = {
        parts[-1]: _filled(parts, said)
        for parts in patterns
        if len(parts) == len(meant) and _fit(parts[:-1], meant)
    }
    near = get_close_matches(meant[-1].lower(), found, n=1, cutoff=_ALIKE)
    return found[near[0]] if near else None


def _fit(parts: list[str], segments: list[str]) -> bool:
    return all(part[:1] == "{" or part == segment for part, segment in zip(parts, segments, strict=False))


def _filled(parts: list[str], said: list[str]) -> str:
    """Returns a pattern with the parameter that was given: a queue may have any name."""
    return "/" + "/".join(name if part[:1] == "{" else part for part, name in zip(parts, said, strict=True))
