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
    Consumers,
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
    JobGroups,
    LeaseClaim,
    Member,
    NewError,
    NewJob,
    Plan,
    PriorAnswer,
    QueueSeries,
    QueueSettings,
    QueueView,
    Schedule,
    ScheduleChanges,
    ScheduleExplanation,
    ScheduleFigures,
)
from jobqueue.settings import Settings
from jobqueue.steps import Kind

T = TypeVar("T")
MaybeFuture: TypeAlias = Union[T, Future[T]]  # noqa: UP007  # mypy knows no generic alias by `|`


def refuse(future: "Future[Any]", error: BaseException) -> None:
    """Ends `future` with an error.

    asyncio logs an exception that nobody has retrieved when the Future is collected. A `JobQueueError` is an
    answer to a caller, who may have left or may not have waited, so it is not logged. Any other exception is
    a bug, and is. A `StopIteration`, which no Future takes, becomes a `RuntimeError`, as in a generator.
    """
    if isinstance(error, StopIteration):
        error = RuntimeError("a call raised StopIteration")
    future.set_exception(error)
    if isinstance(error, JobQueueError):
        future.exception()  # which marks it as retrieved


class EngineView(Protocol):
    """The verbs of an engine, as one caller may use them.

    Ids are integers. Instants are wall-clock milliseconds since 1970; durations are milliseconds.

    With `version` a change is made only if the job or queue still has this version. `within` tells whether
    the queue of a name is included; without it all are.
    """

    settings: Settings
    reads_wait: bool  # reads may have to ask another server, see `run`
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
    ) -> MaybeFuture[list[Job | ExistingJob] | PriorAnswer]:
        """Creates all of the jobs or none, in order. The answer is remembered under `key`; if a request under
        it has an answer already, that is returned. Raises as `enqueue`, with the fact `index` if a single job
        is the reason; `SeveralFamilies` if other servers may have some of the queues; and
        `IdempotencyMismatch`."""

    def enqueue_each(self, news: Sequence[NewJob], /) -> MaybeFuture[list[Job | ExistingJob | JobQueueError]]:
        """Creates each of the jobs independently, in order. Returns for each what `enqueue` returns or
        raises. Raises only if no new jobs are accepted at all."""

    def import_jobs(
        self,
        items: Sequence[ImportItem],
        owner: str = "",
        within: Callable[[str], bool] | None = None,
        /,
    ) -> MaybeFuture[ImportResult]:
        """Creates jobs with the history that they bring from another queue, in order, up to the first
        refusal.

        Skips a job whose origin `owner` imported before, or that is a job of this engine in a queue of
        `within`. Origins are remembered as long as idempotency keys, and for their owner only. Raises only if
        no new jobs are accepted at all.
        """

    def unique_owner(self, name: str, key: str) -> Job | None:
        """Returns the job of the queue `name` that owns the unique key `key`; None: it is free."""

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

    def dequeue_job(self, id: int, request: DequeueRequest, /) -> MaybeFuture[list[Delivery]]:
        """Leases one job, which is queued or scheduled, to a consumer; the queues of `request` do not count.
        The list is empty while the queue of the job is paused, a limit or the order of its key keeps the job
        waiting, or the server is stopping. Raises `JobNotFound`, `JobForgotten` or `NotWaiting`."""

    def give_back(self, deliveries: Sequence[Delivery], /) -> None:
        """Returns jobs that never reached their consumer to their places. The attempt is not counted. Leases
        that have ended since are ignored."""

    def lose(self, deliveries: Sequence[Delivery], /) -> None:
        """Ends the leases of jobs that reached a consumer which is gone, as if they had expired: the attempt
        counts. Leases that have ended since are ignored."""

    def end_wait(self, future: Future[Any], error: JobQueueError) -> None:
        """Fails a Future of `dequeue` or `wait_for` with `error`, and withdraws the wait. A Future of any
        other verb is left alone: that work goes on."""

    def on_lease_end(self, deliveries: Sequence[Delivery], ended: Callable[[Job], None], /) -> None:
        """Calls `ended` once for each delivery when its lease ends, or now if it has ended. `ended` must not
        call the engine."""

    # -- under a lease ------------------------------------------------------------------------------

    def conclude(self, claim: LeaseClaim, result: bytes | None) -> MaybeFuture[Job]:
        """Finishes a job in progress, with `result` as JSON or other bytes. Returns the job as it is if the
        same caller concluded it before. Raises `JobNotFound`, `JobForgotten`, `LeaseLost`, `NotInProgress`,
        `LeaseRequired` or `NotTheConsumer`."""

    def release(self, claim: LeaseClaim, delay: int = 0, priority: int | None = None) -> MaybeFuture[Job]:
        """Returns a job in progress to its place, or schedules it for after `delay` milliseconds. With
        another `priority` it goes to the end there. The attempt is not counted. Raises as `conclude`."""

    def fail(
        self,
        claim: LeaseClaim,
        error: bytes | None = None,
        retry: bool = True,
        retry_in: int | None = None,
    ) -> MaybeFuture[Job]:
        """Ends an attempt that failed, with `error` as JSON. The job is retried after `retry_in` milliseconds
        (None: its backoff), or is dead if `retry` is False or its attempts are exhausted. Raises as
        `conclude`."""

    def heartbeat(
        self,
        claim: LeaseClaim,
        lease_for: int | None = None,
        progress: int | None = None,
        message: str | None = None,
    ) -> MaybeFuture[Job]:
        """Extends the lease to `lease_for` milliseconds from now (None: the length it was dequeued with), and
        records progress. Raises as `conclude`."""

    def renew(self, claim: LeaseClaim, lease_for: int) -> MaybeFuture[Job]:
        """Extends a lease as `heartbeat`. If it has ended and the job waits, because the lease expired or the
        attempt failed, the job is leased again under the same token, and no attempt is charged. Raises as
        `conclude`, also while a pause or a limit keeps the job waiting. For protocols whose clients may come
        late; the HTTP API has no such call."""

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

    def series(self, name: str, length: int, step: int, /) -> QueueSeries:
        """Returns what happened in a queue in the last `length` milliseconds, in steps of `step`, which is a
        multiple of 10 seconds. There are points of six hours at most."""

    def count_jobs(self, where: Filter, /) -> MaybeFuture[int]:
        """Counts the matching jobs among those that exist at the start."""

    def group_jobs(self, where: Filter, by: Sequence[str], limit: int, /) -> MaybeFuture[JobGroups]:
        """Counts the matching jobs that are dead or wait for a retry, by the fields `by`, which are some of
        `model.GROUPED_BY`. Returns the `limit` largest groups."""

    def purge(self, where: Filter, dry_run: bool, /) -> MaybeFuture[BulkResult]:
        """Removes the matching jobs, or only counts them."""

    def redrive_many(self, where: Filter, limit: int | None, dry_run: bool, /) -> MaybeFuture[BulkResult]:
        """Queues matching dead jobs again, at most `limit` of them, or only counts them."""

    def cancel_many(
        self, where: Filter, force: bool, limit: int | None, dry_run: bool, /
    ) -> MaybeFuture[BulkResult]:
        """Cancels matching jobs as `cancel` does, at most `limit` of them, or only counts them. None of them
        may be concluded."""

    def run_many_now(self, where: Filter, limit: int | None, dry_run: bool, /) -> MaybeFuture[BulkResult]:
        """Makes matching scheduled jobs ready, at most `limit` of them, or only counts them."""

    def move_many(
        self, where: Filter, target: str | None, limit: int | None, dry_run: bool, /
    ) -> MaybeFuture[BulkResult]:
        """Moves matching jobs that are scheduled, queued or dead to the end of the queue `target`, at most
        `limit` of them, or only counts them. A dead job is queued there. Without `target` each returns to the
        queue in which it died, and starts again; jobs that are in no dead-letter queue do not match. Stops at
        the first job for which its new queue has no capacity; `refused` is that `QueueFull`."""

    # -- queues -------------------------------------------------------------------------------------

    def configure(
        self, name: str, changes: dict[str, object], /, version: int | None = None
    ) -> MaybeFuture[QueueView]:
        """Changes settings of a queue: fields of `QueueSettings` and their values. Raises
        `PreconditionFailed` or `QueueFull`."""

    def pause(
        self,
        name: str,
        duration: int | None,
        reason: str | None,
        /,
        version: int | None = None,
        by: str | None = None,
    ) -> MaybeFuture[QueueView]:
        """Stops deliveries from a queue for `duration` milliseconds, or until `resume` if that is None. `by`:
        who does it, where that is known. Raises as `configure`."""

    def resume(self, name: str, version: int | None = None) -> MaybeFuture[QueueView]:
        """Ends a pause. Raises as `configure`."""

    def consumers(self, limit: int, within: Callable[[str], bool] | None = None) -> Consumers:
        """Returns up to `limit` consumers that hold jobs and as many that wait. Examines a limited number of
        leases."""

    def queue(self, name: str) -> QueueView:
        """Returns the figures of a queue: zeros for an unused name, for which no queue is created."""

    def queue_settings(self, name: str) -> QueueSettings:
        """Returns the settings of a queue: the default ones for an unused name."""

    def queues(
        self, limit: int, after: str | None = None, within: Callable[[str], bool] | None = None
    ) -> list[QueueView]:
        """Returns up to `limit` queues in the order of names, beginning after `after`. Includes queues that
        do not exist but have waiting consumers."""

    def measured_queues(
        self, limit: int, owner: str = "", within: Callable[[str], bool] | None = None
    ) -> list[QueueView]:
        """Returns up to `limit` queues, for metrics of their own: all that an earlier call for this `owner`
        returned, also if they are gone, and then those that have existed longest. So no counter of them falls
        or moves."""

    def new_errors(
        self, since: int, limit: int, within: Callable[[str], bool] | None = None
    ) -> list[NewError]:
        """Returns up to `limit` kinds of errors that were first seen after `since`, those seen most often
        first. A restart forgets kinds that no job has as its last error."""

    # -- schedules ----------------------------------------------------------------------------------

    def schedule(self, name: str) -> Schedule:
        """Returns a schedule. Raises `ScheduleNotFound`."""

    def schedules(
        self,
        group: str | None,
        queues: frozenset[str] | None,
        paused: bool | None,
        limit: int,
        after: str | None = None,
        within: Callable[[str], bool] | None = None,
    ) -> list[Schedule]:
        """Returns up to `limit` schedules in the order of names, beginning after `after`. None: any group,
        any queue, paused or not."""

    def put_schedule(
        self, plan: Plan, paused: bool | None, version: int | None = None
    ) -> MaybeFuture[tuple[Schedule, bool]]:
        """Creates or replaces a schedule; the same plan again changes nothing. `paused` None: it stays as it
        is. Returns it, and whether it is new. Raises `InvalidField`, `PreconditionFailed`,
        `TooManySchedules`."""

    def put_schedules(
        self, plans: Sequence[tuple[Plan, bool | None]], group: str | None, dry_run: bool
    ) -> MaybeFuture[ScheduleChanges]:
        """Creates or replaces all of these schedules or none. With `group` it deletes those of the group that
        are not among them. A dry run only tells what would change. Raises as `put_schedule`, with the fact
        `index`, and `OtherGroup` if a name is taken by another group."""

    def delete_schedule(self, name: str, version: int | None = None) -> MaybeFuture[Schedule]:
        """Deletes a schedule; its jobs stay. Raises `ScheduleNotFound`, `PreconditionFailed`."""

    def pause_schedule(
        self, name: str, reason: str | None, version: int | None = None
    ) -> MaybeFuture[Schedule]:
        """Lets a schedule make no jobs until `resume_schedule`. Raises as `delete_schedule`."""

    def resume_schedule(self, name: str, version: int | None = None) -> MaybeFuture[Schedule]:
        """Ends a pause. What came due meanwhile is not run. Raises as `delete_schedule`."""

    def run_schedule(self, name: str) -> MaybeFuture[Job | ExistingJob]:
        """Enqueues a job of a schedule beside its plan; returns the unfinished job if `overlap` allows no
        further one. Raises `ScheduleNotFound`, and as `enqueue`."""

    def explain_schedule(self, name: str) -> ScheduleExplanation:
        """Tells why a schedule makes no jobs, and why its last instant gave none. Raises
        `ScheduleNotFound`."""

    def schedule_figures(self, within: Callable[[str], bool] | None = None) -> ScheduleFigures:
        """Returns figures of the schedules whose jobs go to queues in `within`. Outcomes are those of all
        schedules."""

    def upcoming(self, of: Schedule | Plan, after: int, count: int) -> tuple[str, list[int]]:
        """Returns in words when a schedule or plan is due, and its next instants. Raises `InvalidField` for a
        plan that never is."""

    # -- time, durability, statistics ---------------------------------------------------------------

    def wall_now(self) -> int:
        """Returns the wall-clock time. A step of the system's clock counts from the next tick on."""

    def wall(self, monotonic: int) -> int:
        """Converts an instant on the engine's monotonic clock, such as `Lease.expires`, to the wall clock."""

    def after_commit(self, answer: MaybeFuture[T]) -> MaybeFuture[T]:
        """Returns `answer`, or a Future of it that is done once all changes made until now are durable."""

    def members(self) -> Sequence[Member]:
        """Returns the servers that share the database, this one included; none without a database."""

    def stats(self, within: Callable[[str], bool] | None = None, own: bool = False) -> EngineStats:
        """Returns statistics. `jobs`, `queues`, `consumers_waiting` and `totals` count only the queues in
        `within`. `own`: only of what this server has, where there are several. Takes time proportional to the
        number of lanes."""

    def run(self, work: Callable[[], T], /) -> MaybeFuture[T]:
        """Returns what `work` returns, which may call the engine. Where a read has to ask another server, the
        work goes on later, and a Future is returned. Reads are made inside of `work`, except those that tell
        the time."""


class Engine(EngineView, Protocol):
    """An engine as its owner has it: with what concerns all callers at once."""

    secret: bytes  # random, and kept with the jobs: the same after a restart, and for the next owner of them

    def owns(self, id: str, /) -> bool:
        """Returns whether the job with an id as in a path is here, if there is one: it is read at once."""

    def answered_by(self, call: Future[Any], /) -> str | None:
        """Returns the URL at which clients reach the other server that alone has answered a call, or the last
        call of `run`. None: this server has, or several, or it has told no URL."""

    def end_session(self, code: str) -> MaybeFuture[None]:
        """Remembers that the session of the dashboard with this code was ended, as long as an idempotency key
        and within their limits. Returns once that is durable."""

    def has_ended(self, code: str) -> bool:
        """Tells whether a session was ended."""

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
