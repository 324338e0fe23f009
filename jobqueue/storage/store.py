"""Store: where a journal keeps its rows; the contract of every store, and its errors.

A store knows nothing of jobs: a row is an integer key and a body. `records.py` says what the bodies hold.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from jobqueue.errors import JobQueueError
from jobqueue.model import DatabaseStats, Member
from jobqueue.storage.records import Row


class JournalError(JobQueueError):
    """The journal cannot be used as it is, so the server does not start. The message is one printable line,
    whatever a damaged file contains."""

    code = "journal"

    def __init__(self, detail: str) -> None:
        super().__init__("".join(each if each.isprintable() else "?" for each in detail))


# What an administrator can do about a damaged file.
REPAIR = "`jobqueue journal repair` saves what it can"


def damaged(where: object, why: object, certainly: bool = True, remedy: str = REPAIR) -> JournalError:
    """Returns the error for a journal at `where` that is damaged, or, if not `certainly`, cannot be read."""
    what = "is damaged" if certainly else "is damaged or cannot be read"
    return JournalError(f"{where} {what}: {why}. {remedy}")


class RetryableError(Exception):
    """Nothing of the group was written, and the same group may be tried again. For example, another program
    has locked the file."""


class NoSpace(RetryableError):
    """The disk is full."""


class Unavailable(RetryableError):
    """The database does not answer. Whether the group was written is found out when it is tried again. Until
    then it is not to be acknowledged."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Store(Protocol):
    """Rows by key, on stable storage. `load` comes first. After that one thread at a time writes."""

    # What an administrator can do about damage, for messages.
    remedy: str
    # Seconds between two calls of `check` while nothing is written; None: it is never called.
    check_interval: float | None

    @property
    def location(self) -> str:
        """Where the rows are, for messages."""

    def load(self, max_rows: int, max_bytes: int) -> Iterator[list[tuple[int, bytes]]]:
        """Yields all rows by rising key, in slices of about `max_rows` rows or `max_bytes` bytes. Raises
        `JournalError`."""

    def commit(self, rows: Sequence[Row], sync: bool = True) -> None:
        """Writes all rows or none; they are on disk when this returns. Without `sync` they survive the end of
        the process, and are on disk after the next commit with it; a store may ignore that.

        A body of None deletes the row, and a later row replaces an earlier one of the same key. The row
        `records.NEWEST` is not stored. Raises `RetryableError` if the same rows may be tried again: the next
        call then begins with them, and more may follow. After any other exception it is unknown what was
        written."""

    def check(self) -> None:
        """Finds out whether a commit would be possible. Called on the writing thread. Raises as `commit`."""

    def members(self) -> Sequence[Member]:
        """Returns the servers that shared the store at the last beat, this one included. May be called on any
        thread."""

    def database(self) -> DatabaseStats | None:
        """Returns figures of the database; None if the store is a file. May be called on any thread."""

    def may_be_stale(self) -> bool:
        """Returns whether another server may have written since the last answer of this one. May be called on
        any thread."""

    def release_space(self) -> bool:
        """Returns a slice of unused space to the system. Called between commits, on the writing thread. True
        if there is more to release. Raises as `commit`."""

    def size(self) -> int:
        """Bytes in use on disk. May be called on any thread."""

    def close(self) -> None:
        """Releases all resources. What was committed stays."""
