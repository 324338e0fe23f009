"""Store: where a journal keeps its rows; the contract of every store, and its errors.

A store knows nothing of jobs: a row is an integer key and a body. `records.py` says what the bodies hold.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from jobqueue.errors import JobQueueError
from jobqueue.storage.records import Row


class JournalError(JobQueueError):
    """The journal cannot be used as it is, so the server does not start. The message is one printable line,
    whatever a damaged file contains."""

    code = "journal"

    def __init__(self, detail: str) -> None:
        super().__init__("".join(each if each.isprintable() else "?" for each in detail))


class RetryableError(Exception):
    """Nothing of the group was written, and the same group may be tried again. For example, another program
    has locked the file."""


class NoSpace(RetryableError):
    """The disk is full."""


class Store(Protocol):
    """Rows by key, on stable storage. `load` comes first. After that one thread at a time writes."""

    @property
    def location(self) -> str:
        """Where the rows are, for messages."""

    def load(self, max_rows: int, max_bytes: int) -> Iterator[list[tuple[int, bytes]]]:
        """Yields all rows by rising key, in slices of about `max_rows` rows or `max_bytes` bytes. Raises
        `JournalError`."""

    def commit(self, rows: Sequence[Row]) -> None:
        """Writes all rows or none; they are on disk when this returns. A body of None deletes the row, and a
        later row replaces an earlier one of the same key. Raises `RetryableError` if nothing was written.
        After any other exception it is unknown what was written."""

    def release_space(self) -> bool:
        """Returns a slice of unused space to the system. Called between commits, on the writing thread. True
        if there is more to release. Raises as `commit`."""

    def size(self) -> int:
        """Bytes in use on disk. May be called on any thread."""

    def close(self) -> None:
        """Releases all resources. What was committed stays."""
