"""Engine: the verbs of a job queue, with their contracts. The layers above the engine know nothing else of
it.

A verb returns its answer at once, or a Future where the answer takes time: a dequeue that waits, a change
that must reach a disk first. The type `MaybeFuture` marks such verbs. All calls are made on the event loop's
thread. An expected failure is one of `jobqueue.errors`: the call raises it, or the Future fails with it.
"""

from asyncio import Future
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, Union

from jobqueue.errors import JobQueueError
from jobqueue.model import (
    BulkResult,
    Change,
    Delivery,
    DequeueRequest,
    EngineStats,
    ExistingJob,
    Explanation,
    Filter,
    IdempotencyKey,
    ImportItem,
    ImportResult,
    Job,
    NewJob,
    PriorAnswer,
    QueueView,
)
from jobqueue.settings import Settings
from jobqueue.steps import Kind

T = TypeVar("T")
MaybeFuture: TypeAlias = Union[T, Future[T]]  # noqa: UP007  # mypy knows no generic alias by `|`


class EngineView(Protocol):
    """The verbs of an engine, as one caller may use them.

    Ids are integers. Instants are wall-clock milliseconds since 1970; durations are milliseconds.

    Verbs under a lease take the job's `id`, the lease's `token` and the name of the `consumer`. Both token
    and consumer may be None: `core.policy.may_use_lease` decides whether the call is allowed. With `version`
    a change is made only if the job or queue still has this version. `within` tells whether the queue of a
    name is included; without it all are.
    """

    settings: Settings
    durability: str  # "memory", or a description of the journal
    identity: str  # unique to this engine; the origins of its exported jobs begin with it

    @property
    def refuses(self) -> str | None:
        """Why no request is accepted at present: the journal is being read, or could not be written. None if
        requests are accepted."""

    @property
    def stopping(self) -> bool:
        """True after `stop_waiting`."""

    # -- enqueue ------------------------------------------------------------------------------------

    def enqueue(self, new: NewJob, /) -> MaybeFuture[Job | ExistingJob]:
        """Creates a job, which is delivered at once if a consumer waits for it.

        Returns the job; or, if its unique key is in use, the `ExistingJob` that has the key. Raises
        `DuplicateJob` if the new job asks for that instead. Raises `QueueFull` at a limit of the queue or
        the server, and `OutOfMemory`, `DiskFull`, `Overloaded` or `Stopping` if no new jobs are accepted.
        """

    def enqueue_many(
        self, news: Sequence[NewJob], key: IdempotencyKey | None = None, /
    ) -> MaybeFuture[list[Job | ExistingJob]]:
        """Creates all of the jobs or none, in order. The answer is remembered under `key`. Raises as
        `enqueue`, with the fact `index` if a single job is the reason."""

    def enqueue_each(self, news: Sequence[NewJob], /) -> MaybeFuture[list[Job | ExistingJob | JobQueueError]]:
        """Creates each of the jobs independently, in order. Returns for each what `enqueue` returns or
        raises. Raises only if no new jobs are accepted at all."""

    def import_jobs(self, items: Sequence[ImportItem], /) -> MaybeFuture[ImportResult]:
        """Creates jobs with the history that they bring from another queue, in order, up to the first
        refusal.

        Skips a job whose origin was imported before, or is a job of this engine. Origins are remembered as
        long as idempotency keys. Raises only if no new jobs are accepted at all.
        """

    def find_prior_answer(self, owner: str, key: str, digest: bytes) -> PriorAnswer | None:
        """Returns what the request of `owner` under this idempotency key created before; None if there was
        none. Raises `IdempotencyMismatch` if it had another `digest`."""

    # -- dequeue ------------------------------------------------------------------------------------

    def dequeue(self, request: DequeueRequest, /, wait: int = 0) -> MaybeFuture[list[Delivery]]:
        """Leases the next jobs to a consumer.

        If there is none, waits for up to `wait` milliseconds. The list is empty if no job came in time, or if
        the server is stopping. Raises `Overloaded` if too many consumers are waiting.

        Cancelling the Future withdraws the request at once, and returns jobs that were on their way. Jobs of
        a Future that is done but was not used must be returned with `give_back`.
        """

    def give_back(self, deliveries: Sequence[Delivery], /) -> None:
        """Returns jobs that never reached their consumer to their places. The attempt is not counted. Leases
        that have ended since are ignored."""

    def end_wait(self, future: Future[Any], error: JobQueueError) -> None:
        """Fails a Future of `dequeue` or `wait_for` with `error`, and withdraws the wait. A Future of any
        other verb is left alone: that work goes on."""

    def on_lease_end(self, deliveries: Sequence[Delivery], ended: Callable[[Job], None], /) -> None:
        """Calls `ended` once for each delivery when its lease ends, or now if it has ended. `ended` must not
        call the engine."""

    # -- under a lease ------------------------------------------------------------------------------

    def conclude(
        self, id: int, token: str | None, consumer: str | None, result: bytes | None
    ) -> MaybeFuture[Job]:
        """Finishes a job in progress, with `result` as JSON or other bytes. Returns the job as it is if the
        same caller concluded it before. Raises `JobNotFound`, `JobForgotten`, `LeaseLost`, `NotInProgress`,
        `LeaseRequired` or `NotTheConsumer`."""

    def release(self, id: int, token: str | None, consumer: str | None, delay: int = 0) -> MaybeFuture[Job]:
        """Returns a job in progress to its place, or schedules it for after `delay` milliseconds. The attempt
        is not counted. Raises as `conclude`."""

    def fail(
        self,
        id: int,
        token: str | None,
        consumer: str | None,
        error: bytes | None = None,
        retry: bool = True,
        retry_in: int | None = None,
    ) -> MaybeFuture[Job]:
        """Ends an attempt that failed, with `error` as JSON. The job is retried after `retry_in` milliseconds
        (None: its backoff), or is dead if `retry` is False or its attempts are exhausted. Raises as
        `conclude`."""

    def heartbeat(
        self,
        id: int,
        token: str | None,
        consumer: str | None,
        lease_for: int | None = None,
        progress: int | None = None,
        message: str | None = None,
    ) -> MaybeFuture[Job]:
        """Extends the lease to `lease_for` milliseconds from now (None: the length it was dequeued with), and
        records progress. Raises as `conclude`."""

    def each(self, calls: Sequence[Callable[[], MaybeFuture[Job]]]) -> MaybeFuture[list[Job | JobQueueError]]:
        """Makes several calls of this engine, and returns for each its job or the error that it raised."""

    # -- single jobs --------------------------------------------------------------------------------

    def get(self, id: int) -> Job:
        """Returns the job. Raises `JobNotFound` if the id was never given out, `JobForgotten` if the job is
        no longer kept."""

    def wait_for(self, id: int, wait: int) -> MaybeFuture[Job]:
        """Returns the job once it is finished, or as it is after `wait` milliseconds. Raises as `get`, also
        if the job is purged meanwhile, and `Overloaded` if too many requests wait."""

    def explain(self, id: int) -> Explanation:
        """Tells what keeps the job from being delivered. Raises as `get`."""

    def state(self, names: Sequence[str]) -> str:
        """Tells why a dequeue from these queues gets nothing at present: "empty", "scheduled", "paused",
        "limited" or "stopping"."""

    def cancel(self, id: int, force: bool = False, version: int | None = None) -> MaybeFuture[Job]:
        """Cancels a job. If it is in progress its consumer is asked to stop; with `force` the lease ends at
        once. Raises `JobNotFound`, `JobForgotten`, `JobFinished` or `PreconditionFailed`."""

    def change(self, id: int, change: Change, version: int | None = None) -> MaybeFuture[Job]:
        """Changes a job that is queued or scheduled. Raises `JobNotFound`, `JobForgotten`, `NotWaiting`,
        `PreconditionFailed` or `QueueFull`; for a new payload also `DiskFull` or `Overloaded`."""

    def redrive(self, id: int, version: int | None = None) -> MaybeFuture[Job]:
        """Queues a dead job again, with no attempts counted. Raises `JobNotFound`, `JobForgotten`, `NotDead`
        or `PreconditionFailed`."""

    # -- many jobs ----------------------------------------------------------------------------------

    def list_jobs(
        self, where: Filter, after: int | None, ascending: bool, limit: int, /
    ) -> tuple[list[Job], int | None]:
        """Returns matching jobs in the order of ids, beginning after `after` (None: at the first), and the
        `after` of the next call, or None at the end. May return fewer than `limit` jobs before the end, since
        the work of one call is bounded."""

    def newest_id(self) -> int:
        """Returns an id that no existing job exceeds. All later jobs have higher ids."""

    def peek(self, name: str, limit: int, /) -> list[Job]:
        """Returns the next jobs of a queue in the order of delivery, without leasing them. Leaves out jobs
        whose key is at its limit; ignores a pause and the limits of the queue itself."""

    def count_jobs(self, where: Filter, /) -> MaybeFuture[int]:
        """Counts the matching jobs among those that exist at the start."""

    def purge(self, where: Filter, dry_run: bool, /) -> MaybeFuture[BulkResult]:
        """Removes the matching jobs, or only counts them."""

    def redrive_many(self, where: Filter, limit: int | None, dry_run: bool, /) -> MaybeFuture[BulkResult]:
        """Queues matching dead jobs again, at most `limit` of them, or only counts them."""

    # -- queues -------------------------------------------------------------------------------------

    def configure(
        self, name: str, changes: dict[str, object], /, version: int | None = None
    ) -> MaybeFuture[QueueView]:
        """Changes settings of a queue: fields of `QueueSettings` and their values. Raises
        `PreconditionFailed` or `QueueFull`."""

    def pause(
        self, name: str, duration: int | None, reason: str | None, /, version: int | None = None
    ) -> MaybeFuture[QueueView]:
        """Stops deliveries from a queue for `duration` milliseconds, or until `resume` if that is None.
        Raises as `configure`."""

    def resume(self, name: str, version: int | None = None) -> MaybeFuture[QueueView]:
        """Ends a pause. Raises as `configure`."""

    def queue(self, name: str) -> QueueView:
        """Returns the figures of a queue: zeros for an unused name, for which no queue is created."""

    def queues(
        self, limit: int, after: str | None = None, within: Callable[[str], bool] | None = None
    ) -> list[QueueView]:
        """Returns up to `limit` queues in the order of names, beginning after `after`. Includes queues that
        do not exist but have waiting consumers."""

    def oldest_queues(self, limit: int, /, within: Callable[[str], bool] | None = None) -> list[QueueView]:
        """Returns up to `limit` queues, those that have existed longest, so that repeated calls return the
        same ones."""

    # -- time, durability, statistics ---------------------------------------------------------------

    def wall_now(self) -> int:
        """Returns the wall-clock time. A step of the system's clock counts from the next tick on."""

    def wall(self, monotonic: int) -> int:
        """Converts an instant on the engine's monotonic clock, such as `Lease.expires`, to the wall clock."""

    def after_commit(self, answer: MaybeFuture[T]) -> MaybeFuture[T]:
        """Returns `answer`, or a Future of it that is done once all changes made until now are durable."""

    def stats(self, within: Callable[[str], bool] | None = None) -> EngineStats:
        """Returns statistics. `jobs`, `queues`, `consumers_waiting` and `totals` count only the queues in
        `within`. Takes time proportional to the number of lanes."""


class Engine(EngineView, Protocol):
    """An engine as its owner has it: with what concerns all callers at once."""

    def flush(self) -> None:
        """Hints that the current group of changes may be committed now. Optional: otherwise it is committed
        at the end of the loop pass."""

    def watch(self, observer: Callable[[Kind, Job | str], None] | None, /) -> None:
        """Calls `observer(kind, subject)` at every event, with the job or the name of the queue. `observer`
        must not call the engine. None ends this."""

    def when_stopping(self, callback: Callable[[], None], /) -> None:
        """Has `stop_waiting` call `callback`."""

    def stop_waiting(self) -> None:
        """Ends all waits with what there is, refuses new jobs, and delivers no more jobs. Everything else
        goes on."""

    def close(self) -> None:
        """Stops as `stop_waiting`, ends all ticks, and makes all changes durable. Blocks until then."""
