"""Batches: up to ten entries in one request, each with an outcome of its own."""

import re
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar

from jobqueue.errors import JobQueueError
from jobqueue.web.sqs.errors import (
    EMPTY_BATCH,
    IDS_NOT_DISTINCT,
    INVALID_BATCH_ID,
    TOO_MANY_ENTRIES,
    SqsError,
    kind_of,
    missing,
)

MOST_ENTRIES: Final = 10
_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


class Entry(Protocol):
    id: str | None


E = TypeVar("E", bound=Entry)


def check(entries: Sequence[E] | None, item: str) -> Sequence[E]:
    """Returns the entries of a batch. `item`: the name of one. Raises `SqsError`."""
    if not entries:
        raise SqsError(EMPTY_BATCH, f"There should be at least one {item} in the request.")
    if len(entries) > MOST_ENTRIES:
        raise SqsError(
            TOO_MANY_ENTRIES,
            f"Maximum number of entries per request are {MOST_ENTRIES}. You have sent {len(entries)}.",
        )
    seen: set[str] = set()
    for entry in entries:
        if entry.id is None:
            raise missing(f"{item}.Id")
        if not _ID.fullmatch(entry.id):
            raise SqsError(
                INVALID_BATCH_ID,
                "A batch entry id can only contain alphanumeric characters, hyphens and underscores. "
                "It can be at most 80 letters long.",
            )
        if entry.id in seen:
            raise SqsError(IDS_NOT_DISTINCT, f"Id {entry.id} repeated.")
        seen.add(entry.id)
    return entries


def failed(entry: Entry, error: JobQueueError) -> dict[str, Any]:
    """Returns the outcome of an entry that was refused."""
    kind = kind_of(error)
    return {
        "Id": entry.id,
        "SenderFault": kind.fault == "Sender",
        "Code": kind.code,
        "Message": error.detail,
    }


def outcome(successful: list[dict[str, Any]], failures: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if successful:
        found["Successful"] = successful
    if failures:
        found["Failed"] = failures
    return found
