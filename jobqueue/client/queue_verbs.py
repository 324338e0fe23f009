"""The calls about queues: `client.queues`."""

from collections.abc import Iterable
from functools import partial
from typing import TypeVar, Unpack

import msgspec
from msgspec import Struct

from jobqueue.client import models
from jobqueue.client.call import Call, StreamCall
from jobqueue.client.encoding import (
    Duration,
    Filters,
    QueueChanges,
    batches,
    body,
    checked,
    encode_json,
    if_match,
    path,
    query,
    read,
    read_queue,
)
from jobqueue.client.encoding import (
    filters as filters_of,
)
from jobqueue.client.http import Response
from jobqueue.client.models import BulkResult, Consumers, Imported, Job, Queue, QueuePage, Series
from jobqueue.client.streams import lines
from jobqueue.client.verbs import Group, M_co, Pages, Steps, pages, steps, stream, verb
from jobqueue.errors import JobQueueError

T = TypeVar("T")
_etag = if_match
_Queues = list[Queue]
_Jobs = list[Job]


class QueueVerbs(Group[M_co]):
    """Calls about queues: `client.queues`. Those that change or remove something need the right `admin`."""

    @verb
    def list(self, *, limit: int = 1000, cursor: str | None = None) -> Call[QueuePage]:
        """Returns a page of queues by name."""
        target = "/queues" + query(limit=limit, cursor=cursor)
        return Call("GET", target, partial(read, kind=QueuePage), safe=True)

    @pages
    def iterate(self, *, limit: int = 1000) -> Pages[Queue]:
        """Iterates over all queues by name; `limit` of them are asked for at a time."""

        def page(cursor: str | None) -> Call[tuple[_Queues, str | None]]:
            return Call("GET", "/queues" + query(limit=limit, cursor=cursor), _items, safe=True)

        return page

    @verb
    def get(self, name: str) -> Call[Queue]:
        """Returns a queue with its counts, ages, rates and settings; zeros for a name not used yet."""
        return Call("GET", path("queues", name), read_queue, safe=True, about=name)

    @verb
    def series(
        self, name: str, *, for_: Duration | None = None, step: Duration | None = None
    ) -> Call[Series]:
        """Returns what happened in a queue in the last hour, or as long as `for_` says, minute by minute, or
        in steps of `step`, which is a multiple of 10 seconds. At most six hours are kept."""
        target = path("queues", name, "series") + query(**{"for": for_}, step=step)
        return Call("GET", target, partial(read, kind=Series), safe=True, about=name)

    @verb
    def consumers(self, *, limit: int = 100) -> Call[Consumers]:
        """Returns who holds jobs, and who waits for one."""
        return Call("GET", "/consumers" + query(limit=limit), partial(read, kind=Consumers), safe=True)

    @verb
    def peek(self, name: str, *, limit: int = 10, payload: bool = False) -> Call[_Jobs]:
        """Returns the next jobs in the order of dequeue, and takes none."""
        target = path("queues", name, "peek") + query(limit=limit, payload=payload)
        return Call("GET", target, _jobs, safe=True, about=name)

    @verb
    def change(
        self, name: str, *, if_match: str | None = None, **changes: Unpack[QueueChanges]
    ) -> Call[Queue]:
        """Changes the settings of a queue. What is left out stays.

        Raises `PreconditionFailed` if the queue has changed since it had the etag `if_match`.
        """
        given = encode_json(checked(changes, QueueChanges, "a change of a queue"))
        return Call("PATCH", path("queues", name), read_queue, given, _etag(if_match), safe=if_match is None)

    @verb
    def pause(
        self,
        name: str,
        *,
        for_: Duration | None = None,
        reason: str | None = None,
        if_match: str | None = None,
    ) -> Call[Queue]:
        """Stops deliveries from a queue, for a time or until `resume`. Running jobs go on."""
        given = body(reason=reason, **{"for": for_})
        target = path("queues", name, "pause")
        return Call("POST", target, read_queue, given, _etag(if_match), safe=if_match is None)

    @verb
    def resume(self, name: str, *, if_match: str | None = None) -> Call[Queue]:
        """Ends a pause."""
        target = path("queues", name, "resume")
        return Call("POST", target, read_queue, b"", _etag(if_match), safe=if_match is None)

    @verb
    def purge(
        self, name: str, *, all: bool = False, dry_run: bool = False, **filters: Unpack[Filters]
    ) -> Call[BulkResult]:
        """Removes jobs that match the filters, or with `all` those that wait. `dry_run` changes nothing."""
        return self._bulk("purge", name, query(all=all, dry_run=dry_run, **filters_of(filters)), dry_run)

    @verb
    def redrive(
        self,
        name: str,
        *,
        all: bool = False,
        dry_run: bool = False,
        limit: int | None = None,
        **filters: Unpack[Filters],
    ) -> Call[BulkResult]:
        """Puts dead jobs that match the filters back to work, or `all` of them, at most `limit`."""
        asked = query(all=all, dry_run=dry_run, limit=limit, **filters_of(filters))
        return self._bulk("redrive", name, asked, dry_run)

    @verb
    def cancel(
        self,
        name: str,
        *,
        all: bool = False,
        dry_run: bool = False,
        force: bool = False,
        limit: int | None = None,
        **filters: Unpack[Filters],
    ) -> Call[BulkResult]:
        """Cancels jobs that match the filters, or `all` that wait; with `force` those in progress at once."""
        asked = query(all=all, dry_run=dry_run, force=force, limit=limit, **filters_of(filters))
        return self._bulk("cancel", name, asked, dry_run)

    @verb
    def run_now(
        self,
        name: str,
        *,
        all: bool = False,
        dry_run: bool = False,
        limit: int | None = None,
        **filters: Unpack[Filters],
    ) -> Call[BulkResult]:
        """Makes scheduled jobs ready that match the filters, or `all` of them."""
        asked = query(all=all, dry_run=dry_run, limit=limit, **filters_of(filters))
        return self._bulk("run_now", name, asked, dry_run)

    @verb
    def move(
        self,
        name: str,
        to: str | None = None,
        *,
        back: bool = False,
        all: bool = False,
        dry_run: bool = False,
        limit: int | None = None,
        **filters: Unpack[Filters],
    ) -> Call[BulkResult]:
        """Moves jobs that match the filters, or `all` that wait, to the queue `to`; with `back` each to the
        queue in which it died. Raises `QueueFull`, with `changed` in its facts, when no more fit there."""
        asked = query(to=to, back=back, all=all, dry_run=dry_run, limit=limit, **filters_of(filters))
        return self._bulk("move", name, asked, dry_run)

    @stream
    def export(self, name: str, **filters: Unpack[Filters]) -> StreamCall[bytes]:
        """Iterates over the jobs of a queue, each as a line for `import_jobs`. Nothing is removed."""
        return StreamCall("GET", path("queues", name, "export") + query(**filters_of(filters)), lines)

    @steps
    def import_jobs(self, exported: Iterable[bytes]) -> Steps[Imported]:
        """Imports lines of an export, in requests of about 1 MB, and returns the counts of all.

        Each exported line is imported once, however often it is sent. An error has the number of the bad line
        in its fact `line`, and the counts before it in `imported` and `known`; what was imported stays.
        """
        total = Imported(0, 0)
        first = 0
        for batch in batches((line.rstrip(b"\r\n") for line in exported), most=None):
            once = all(map(_has_origin, batch))
            try:
                part: Imported = yield Call(
                    "POST", "/import", _imported, b"\n".join(batch), safe=once, enqueues=True, in_parts=True
                )
            except JobQueueError as error:
                for fact, before in (
                    ("line", first), ("imported", total.imported), ("known", total.known)
                ):  # fmt: skip
                    now = error.facts.get(fact, None if fact == "line" else 0)
                    if isinstance(now, int):
                        error.facts[fact] = now + before
                raise
            first += len(batch)
            total = Imported(total.imported + part.imported, total.known + part.known)
        return total

    def _bulk(self, what: str, name: str, asked: str, dry_run: bool) -> Call[BulkResult]:
        target = path("queues", name, what) + asked
        return Call("POST", target, partial(read, kind=BulkResult), safe=dry_run)


def _items(response: Response) -> tuple[_Queues, str | None]:
    page = read(response, QueuePage)
    return page.queues, page.next


def _jobs(response: Response) -> _Jobs:
    return read(response, models.Jobs).jobs


def _imported(response: Response) -> Imported:
    return read(response, Imported)


class _Exported(Struct):
    """What says whether a line is imported once, however often it is sent."""

    origin: str | None = None


_exported = msgspec.json.Decoder(_Exported).decode


def _has_origin(line: bytes) -> bool:
    try:
        return _exported(line).origin is not None
    except msgspec.MsgspecError:
        return False
