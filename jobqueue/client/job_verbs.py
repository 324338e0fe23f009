"""The calls that enqueue, take, finish, show and change jobs."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, TypeVar, Unpack
from uuid import uuid4

from msgspec import UNSET

from jobqueue.client import models
from jobqueue.client.call import Call, StreamCall
from jobqueue.client.encoding import (
    Conclude,
    Duration,
    Fail,
    Filters,
    Heartbeat,
    JobChanges,
    JobOptions,
    Names,
    NewJob,
    Release,
    arrays,
    at_cursor,
    batches,
    body,
    checked,
    decoder,
    encode_json,
    families,
    if_match,
    many,
    many_jobs,
    names,
    new_job,
    path,
    query,
    queue_of,
    read,
    read_job,
    read_job_or_none,
    seconds,
)
from jobqueue.client.encoding import (
    filters as filters_of,
)
from jobqueue.client.http import Pairs, Response
from jobqueue.client.models import Explanation, Job, JobGroups, JobPage, Outcome
from jobqueue.client.streams import decoded
from jobqueue.client.verbs import Group, M_co, Pages, Steps, pages, steps, stream, verb
from jobqueue.errors import JobQueueError, SeveralFamilies

T = TypeVar("T")
Held = Job | int
# Of several queues: the first one named that has a job, or the job of the highest priority in any of them.
QueueOrder = Literal["queues", "priority"]
Item = TypeVar("Item", Conclude, Heartbeat, Release, Fail)


class JobVerbs(Group[M_co]):
    """Calls about jobs: `client.jobs`.

    Where a call takes a job, that is a `Job` as the server answered it or its id. The lease of a `Job` goes
    with it.
    """

    # -- enqueue ----------------------------------------------------------------------------------------

    @verb
    def enqueue(
        self,
        type: str,
        payload: Any = None,
        *,
        idempotency_key: str | None = None,
        wait: Duration | None = None,
        **options: Unpack[JobOptions],
    ) -> Call[Job]:
        """Enqueues a job and returns it; with `duplicate` if it was there before.

        `payload` is anything that msgspec writes as JSON, or bytes. With `wait` the answer comes when the job
        is finished, with its result, or after that time as the job is then.

        If the answer is lost, the client asks again if there is an `idempotency_key`, and otherwise raises
        `MaybeEnqueued`. Raises `QueueFull`, `DuplicateJob`, `BodyTooLarge`, `OutOfMemory`, `DiskFull`,
        `IdempotencyMismatch`, or `BadInput`.
        """
        headers: list[tuple[bytes, bytes]] = []
        if idempotency_key is not None:
            headers.append((b"Idempotency-Key", idempotency_key.encode("latin-1")))
        if wait is not None:
            headers.append((b"Prefer", b"wait=%g" % seconds(wait)))
        return Call(
            "POST",
            "/jobs/enqueue",
            read_job,
            encode_json(new_job(type, payload, options)),
            headers,
            seconds(wait),
            safe=idempotency_key is not None,
            enqueues=True,
            about=options.get("queue", "default"),
        )

    @steps
    def enqueue_many(
        self, jobs: Iterable[NewJob | Mapping[str, Any]], *, idempotency_key: str | None = None
    ) -> Steps[list[Job]]:
        """Enqueues any number of jobs, up to 1,000 in a request, and returns them in order.

        A job is a `NewJob`, or a mapping of `type`, `payload` and options. Each request enqueues all of its
        jobs or none, under an idempotency key of its own, so a lost answer is asked for again. Where several
        servers own the queues, it enqueues all of a family or none. Give
        `idempotency_key` to make the whole call safe to repeat with the same jobs.

        An error has the number of jobs enqueued before in its fact `enqueued`, and in `index` the place of
        the job that was refused, in the order given.
        """
        key = idempotency_key or uuid4().hex
        made: list[Job] = []
        for number, batch in enumerate(batches(many_jobs(jobs))):
            part_key = f"{key}-{number}"
            try:
                made += yield _all_or_none(batch, part_key)
            except SeveralFamilies:
                made += yield from _by_family(batch, part_key, len(made))
            except JobQueueError as error:
                error.facts["enqueued"] = len(made)
                if isinstance(index := error.facts.get("index"), int):
                    error.facts["index"] = len(made) + index
                raise
        return made

    @steps
    def enqueue_each(self, jobs: Iterable[NewJob | Mapping[str, Any]]) -> Steps[list[Outcome]]:
        """Enqueues those of the jobs that can be, and returns what became of each, in order.

        It cannot have an idempotency key; a lost answer raises `MaybeEnqueued`, with the number of outcomes
        before it in the fact `enqueued`.
        """
        outcomes: list[Outcome] = []
        for batch in arrays(many_jobs(jobs)):
            try:
                found: list[Outcome] = yield Call(
                    "POST", "/jobs/enqueue?atomic=false", _outcomes, batch, enqueues=True
                )
            except JobQueueError as error:
                error.facts["enqueued"] = len(outcomes)
                raise
            for outcome in found:
                if outcome.job is not None:
                    outcome.id = outcome.job.id
                if outcome.index is not None:
                    outcome.index += len(outcomes)
            outcomes += found
        return outcomes

    # -- take and finish --------------------------------------------------------------------------------

    @verb
    def dequeue(
        self,
        queues: Names = "default",
        *,
        order: QueueOrder = "queues",
        wait: Duration = 0,
        lease_for: Duration | None = None,
        consumer: str | None = None,
    ) -> Call[Job | None]:
        """Takes the next job under a lease; None: there was none in `wait` (up to 60 s).

        The first of `queues` that has a job counts; with `order` "priority" the job of the highest priority
        in any of them. If the answer is lost, raises `AnswerLost`; a job that was on its way returns to its
        queue, at the latest when its lease ends.
        """
        wanted = names(queues)
        return Call(
            "POST",
            "/jobs/dequeue",
            read_job_or_none,
            body(
                queues=wanted,
                order=_order(order),
                wait=wait or None,
                lease_for=lease_for,
                consumer=consumer or self._consumer,
            ),
            wait=seconds(wait),
            about=wanted or (),
        )

    @verb
    def dequeue_many(
        self,
        queues: Names = "default",
        *,
        count: int,
        order: QueueOrder = "queues",
        wait: Duration = 0,
        lease_for: Duration | None = None,
        consumer: str | None = None,
    ) -> Call[list[Job]]:
        """Takes up to `count` jobs, as many as there are; empty: there was none in `wait`.

        It waits for the first one only, and not until there are `count`.
        """
        wanted = names(queues)
        return Call(
            "POST",
            "/jobs/dequeue",
            _jobs_or_none,
            body(
                queues=wanted,
                count=count,
                order=_order(order),
                wait=wait or None,
                lease_for=lease_for,
                consumer=consumer or self._consumer,
            ),
            wait=seconds(wait),
            about=wanted or (),
        )

    @verb
    def dequeue_job(
        self, id: int, *, lease_for: Duration | None = None, consumer: str | None = None
    ) -> Call[Job | None]:
        """Takes one particular job, which is queued or scheduled, under a lease.

        None: its queue is paused, or a limit or the order of its key keeps it waiting. Raises `NotWaiting` if
        it is in progress or finished. If the answer is lost, raises `AnswerLost`.
        """
        given = body(lease_for=lease_for, consumer=consumer or self._consumer)
        return Call("POST", path("jobs", id, "dequeue"), read_job_or_none, given, about=id)

    @verb
    def conclude(
        self, job: Held, result: Any = UNSET, *, lease: str | None = None, consumer: str | None = None
    ) -> Call[Job]:
        """Finishes a job in progress. Raises `LeaseLost` if it belongs to somebody else by now."""
        given = self._held(job, lease, consumer)
        if result is not UNSET:
            given["result"] = result
        id = _id(job)
        target = path("jobs", id, "conclude")
        return Call("POST", target, read_job, encode_json(given), safe=_proves(given), about=id)

    @verb
    def conclude_and_next(
        self,
        job: Held,
        result: Any = UNSET,
        *,
        lease: str | None = None,
        queues: Names | None = None,
        order: QueueOrder = "queues",
        wait: Duration = 0,
        lease_for: Duration | None = None,
        consumer: str | None = None,
    ) -> Call[Job | None]:
        """Finishes a job in progress and takes the next one, by default of the same queue.

        The job is concluded also if there is no next one. If the conclude is refused, none is taken.
        """
        given = self._held(job, lease, consumer)
        name = consumer or self._consumer
        if name is not None:
            given["consumer"] = name
        if result is not UNSET:
            given["result"] = result
        given["next"] = True
        if queues is not None:
            given["queues"] = names(queues)
        if order != "queues":
            given["order"] = order
        for option, value in (("wait", wait or None), ("lease_for", lease_for)):
            if value is not None:
                given[option] = _length(value)
        id = _id(job)
        return Call(
            "POST",
            path("jobs", id, "conclude"),
            read_job_or_none,
            encode_json(given),
            wait=seconds(wait),
            safe=_proves(given),
            about=id,
        )

    @verb
    def heartbeat(
        self,
        job: Held,
        *,
        lease: str | None = None,
        lease_for: Duration | None = None,
        progress: int | None = None,
        message: str | None = None,
        consumer: str | None = None,
    ) -> Call[Job]:
        """Extends the lease, and reports progress (0 to 100).

        The answer's `cancel_requested` says whether to stop. Raises `LeaseLost`.
        """
        given = self._held(job, lease, consumer)
        given |= {"lease_for": None if lease_for is None else _length(lease_for), "progress": progress}
        given["message"] = message
        id = _id(job)
        target = path("jobs", id, "heartbeat")
        return Call("POST", target, read_job, encode_json(_set(given)), safe=True, about=id)

    @verb
    def release(
        self,
        job: Held,
        *,
        delay: Duration = 0,
        priority: int | None = None,
        lease: str | None = None,
        consumer: str | None = None,
    ) -> Call[Job]:
        """Gives a job back, the attempt not charged, to be taken again after `delay`.

        With another `priority` it goes to the end of that. Raises `LeaseLost`.
        """
        given = self._held(job, lease, consumer) | {"delay": _length(delay), "priority": priority}
        id = _id(job)
        target = path("jobs", id, "release")
        return Call("POST", target, read_job, encode_json(_set(given)), safe=_proves(given), about=id)

    @verb
    def fail(
        self,
        job: Held,
        error: str | models.JobError | Mapping[str, Any] | None = None,
        *,
        retry: bool = True,
        retry_in: Duration | None = None,
        lease: str | None = None,
        consumer: str | None = None,
    ) -> Call[Job]:
        """Reports that an attempt failed. The job is retried after its backoff or `retry_in`, or it is dead.

        Raises `LeaseLost`.
        """
        given = self._held(job, lease, consumer) | {"error": error, "retry": retry}
        given["retry_in"] = None if retry_in is None else _length(retry_in)
        id = _id(job)
        target = path("jobs", id, "fail")
        return Call("POST", target, read_job, encode_json(_set(given)), safe=_proves(given), about=id)

    @steps
    def conclude_many(self, items: Iterable[Conclude]) -> Steps[list[Outcome]]:
        """Finishes many jobs, up to 1,000 in a request, and returns what became of each, in order."""
        return (yield from _each("/jobs/conclude", items))

    @steps
    def heartbeat_many(self, items: Iterable[Heartbeat]) -> Steps[list[Outcome]]:
        """Extends many leases, up to 1,000 in a request, and returns what became of each, in order."""
        return (yield from _each("/jobs/heartbeat", items))

    @steps
    def release_many(self, items: Iterable[Release]) -> Steps[list[Outcome]]:
        """Gives many jobs back, up to 1,000 in a request, and returns what became of each, in order."""
        return (yield from _each("/jobs/release", items))

    @steps
    def fail_many(self, items: Iterable[Fail]) -> Steps[list[Outcome]]:
        """Reports many failed attempts, up to 1,000 in a request; returns what became of each, in order."""
        return (yield from _each("/jobs/fail", items))

    @stream
    def stream(
        self,
        queues: Names = "default",
        *,
        order: QueueOrder = "queues",
        prefetch: int = 1,
        lease_for: Duration | None = None,
        consumer: str | None = None,
        for_: Duration | None = None,
    ) -> StreamCall[Job]:
        """Takes jobs over one connection as soon as they are there; at most `prefetch` are unfinished.

        When the stream is closed, jobs that were not finished return to their places, not charged.
        """
        wanted = names(queues)
        given = body(
            queues=wanted, order=_order(order), prefetch=prefetch, lease_for=lease_for,
            consumer=consumer or self._consumer, **{"for": for_},
        )  # fmt: skip
        return StreamCall("POST", "/jobs/stream", partial(decoded, decoder(Job)), given, about=wanted or ())

    # -- look -------------------------------------------------------------------------------------------

    @verb
    def get(self, id: int, *, wait: Duration | None = None) -> Call[Job]:
        """Returns a job with payload, result and history; with `wait` once it is finished, or as it is then.

        Raises `JobNotFound`, or `JobForgotten`: finished or removed, and no longer remembered.
        """
        target = path("jobs", id) + query(wait=wait)
        return Call("GET", target, read_job, wait=seconds(wait), safe=True, about=id)

    @verb
    def explain(self, id: int) -> Call[Explanation]:
        """Returns why a job waits."""
        target = path("jobs", id, "explain")
        return Call("GET", target, partial(read, kind=Explanation), safe=True, about=id)

    @verb
    def list(
        self,
        *,
        queue: Names | None = None,
        order: Literal["asc", "desc"] = "asc",
        limit: int = 100,
        cursor: str | None = None,
        payload: bool = False,
        **filters: Unpack[Filters],
    ) -> Call[JobPage]:
        """Returns a page of jobs by id. A page may be short, or empty, and still have a `next`."""
        target = at_cursor(_list(queue, order, limit, payload, filters), cursor)
        return Call("GET", target, partial(read, kind=JobPage), safe=True)

    @pages
    def iterate(
        self,
        *,
        queue: Names | None = None,
        order: Literal["asc", "desc"] = "asc",
        limit: int = 100,
        payload: bool = False,
        **filters: Unpack[Filters],
    ) -> Pages[Job]:
        """Iterates over all jobs that match, by id; `limit` of them are asked for at a time."""

        target = _list(queue, order, limit, payload, filters)

        def page(cursor: str | None) -> Call[tuple[_Jobs, str | None]]:
            return Call("GET", at_cursor(target, cursor), _items, safe=True)

        return page

    @verb
    def count(self, *, queue: Names | None = None, **filters: Unpack[Filters]) -> Call[int]:
        """Returns the number of jobs that match."""
        given = filters_of(filters)
        return Call("GET", "/jobs/count" + query(queue=queue, **given), _count, safe=True)

    @verb
    def groups(
        self,
        *,
        by: Names = ("type", "error"),
        limit: int = 100,
        queue: Names | None = None,
        **filters: Unpack[Filters],
    ) -> Call[JobGroups]:
        """Returns how many jobs that match are dead or wait for a retry, by queue, type, error, reason or
        key."""
        given = filters_of(filters)
        target = "/jobs/groups" + query(by=by, limit=limit, queue=queue, **given)
        return Call("GET", target, partial(read, kind=JobGroups), safe=True)

    # -- change -----------------------------------------------------------------------------------------

    @verb
    def change(self, id: int, *, if_match: str | None = None, **changes: Unpack[JobChanges]) -> Call[Job]:
        """Changes a job that is queued or scheduled. What is left out stays.

        Raises `NotWaiting`, `QueueFull`, or with `if_match` (an `etag`) `PreconditionFailed`.
        """
        given = encode_json(checked(changes, JobChanges, "a change of a job"))
        target, safe = path("jobs", id), if_match is None
        return Call("PATCH", target, read_job, given, _if_match(if_match), safe=safe, about=id)

    @verb
    def cancel(self, id: int, *, force: bool = False, if_match: str | None = None) -> Call[Job]:
        """Cancels a job. Of a job in progress, the consumer is asked to stop: see `cancel_requested`.

        With `force` the job is taken away from its consumer. Raises `JobFinished` if it is concluded.
        """
        target = path("jobs", id) + query(force=force)
        safe = if_match is None
        return Call("DELETE", target, read_job, b"", _if_match(if_match), safe=safe, about=id)

    @verb
    def redrive(self, id: int, *, if_match: str | None = None) -> Call[Job]:
        """Puts a dead job back to work. Raises `NotDead`."""
        return Call("POST", path("jobs", id, "redrive"), read_job, b"", _if_match(if_match), about=id)

    def _held(self, job: Held, lease: str | None, consumer: str | None) -> dict[str, Any]:
        """Returns what proves that the job is the caller's: its lease, or else the consumer's name."""
        if lease is None and isinstance(job, Job):
            lease = job.lease
        if lease is not None:
            return {"lease": lease}
        name = consumer or self._consumer
        return {} if name is None else {"consumer": name}


_Jobs = list[Job]
_if_match: Callable[[str | None], Pairs] = if_match


def _id(job: Held) -> int:
    return job.id if isinstance(job, Job) else job


def _proves(given: dict[str, Any]) -> bool:
    """Tells whether the server knows the same call when it comes again: it has a lease, or a consumer."""
    return "lease" in given or "consumer" in given


def _order(order: QueueOrder) -> str | None:
    """Leaves the default out."""
    return None if order == "queues" else order


def _length(value: Duration) -> float | int | str:
    return value if isinstance(value, (int, float, str)) else value.total_seconds()


def _set(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _jobs(response: Response) -> _Jobs:
    return read(response, models.Jobs).jobs


def _jobs_or_none(response: Response) -> _Jobs:
    return [] if response.status == 204 else read(response, models.Jobs).jobs


def _outcomes(response: Response) -> list[Outcome]:
    return read(response, models.Outcomes).results


def _count(response: Response) -> int:
    return read(response, models.Count).count


def _items(response: Response) -> tuple[_Jobs, str | None]:
    page = read(response, JobPage)
    return page.jobs, page.next


def _list(queue: Names | None, order: str, limit: int, payload: bool, filters: Filters) -> str:
    """Returns the target of the first page of a list. Iterators among the filters are used up."""
    return "/jobs" + query(queue=queue, order=order, limit=limit, payload=payload, **filters_of(filters))


def _each(target: str, items: Iterable[Item]) -> Steps[list[Outcome]]:
    outcomes: list[Outcome] = []
    items = list(items)
    safe = all(item.lease is not None or item.consumer is not None for item in items)
    ids = [item.id for item in items]
    for batch in arrays(many(items)):
        found: list[Outcome] = yield Call("POST", target, _outcomes, batch, safe=safe, about=ids)
        for outcome in found:
            if outcome.index is not None:
                outcome.index += len(outcomes)
        outcomes += found
    return outcomes


def _all_or_none(batch: list[bytes], key: str) -> Call[list[Job]]:
    """Returns the call that enqueues jobs under this idempotency key."""
    headers = ((b"Idempotency-Key", key.encode("latin-1")),)
    body = b"[%b]" % b",".join(batch)
    return Call(
        "POST", "/jobs/enqueue", _jobs, body, headers, safe=True, enqueues=True, about=queue_of(batch[0])
    )


def _by_family(batch: list[bytes], key: str, before: int) -> Steps[list[Job]]:
    """Enqueues jobs whose queues several servers of a cluster may have: all of a family or none.
    `before`: how many of the call were enqueued already."""
    made: dict[int, Job] = {}
    for number, (places, family) in enumerate(families(batch)):
        try:
            jobs: list[Job] = yield _all_or_none(family, f"{key}-{number}")
        except JobQueueError as error:
            error.facts["enqueued"] = before + len(made)
            if isinstance(index := error.facts.get("index"), int):
                error.facts["index"] = before + places[index]
            raise
        made |= zip(places, jobs, strict=True)
    return [made[place] for place in sorted(made)]
