"""Engine: the verbs that everything above sees, with their contracts; and the records that they answer.

A verb answers at once, or with a Future where its answer takes time: a dequeue that waits, any change that
must reach a disk first. `MaybeFuture` says so. All calls are made on the loop's thread. An expected failure
raises (or is set on the Future as) one of `jobqueue.errors`.
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
from jobqueue.steps import (
    Kind,
)

T = TypeVar("T")
MaybeFuture: TypeAlias = Union[T, Future[T]]  # noqa: UP007  # mypy knows no generic alias by `|`


class Engine(Protocol):
    """Ids are integers; times wall-clock milliseconds; lengths milliseconds."""

    settings: Settings
    durability: str
    identity: str  # no other engine has it; begins the origins of its jobs

    @property
    def refuses(self) -> str | None:
        """Why no request is taken now: the disk is being read, or cannot be written. In memory: None."""

    @property
    def stopping(self) -> bool:
        """True once `stop_waiting` was called."""

    def enqueue(self, new: NewJob) -> MaybeFuture[Job | ExistingJob]:
        """Makes a job; id, status, place and times are the queue's to give. `ExistingJob`: the one that has
        its
        unique key. Raises `DuplicateJob`, `Stopping`."""

    def enqueue_many(
        self, news: Sequence[NewJob], once: IdempotencyKey | None = None
    ) -> MaybeFuture[list[Job | ExistingJob]]:
        """All or nothing, in order. What was made is remembered under `once`. Raises as `enqueue`, with the
        fact `index`."""

    def enqueue_each(self, news: Sequence[NewJob]) -> MaybeFuture[list[Job | ExistingJob | JobQueueError]]:
        """Each by itself, in order: the job, or why it was refused. Raises `Stopping`."""

    def import_jobs(self, arrivals: Sequence[ImportItem]) -> MaybeFuture[ImportResult]:
        """Makes jobs of those that were not here before, in order. That is known by their origin, for as long
        as an idempotency key is remembered; or because they are from here. Raises `Stopping`."""

    def dequeue(self, want: DequeueRequest, wait: int = 0) -> MaybeFuture[list[Delivery]]:
        """Leases what is there; if nothing is, waits up to `wait` milliseconds. Empty: nothing by then, or
        the queue stops. Cancelling the Future withdraws the wait at once; jobs of a Future that was done
        but not used go to `give_back`."""

    def give_back(self, handed: Sequence[Delivery]) -> None:
        """Jobs that never reached their consumer return to their place, uncharged."""

    def end_wait(self, future: Future[Any], error: JobQueueError) -> None:
        """Who waits on `future`, which a verb answered, is told `error` instead, and is given nothing. Where
        it is not a wait but work, that goes on."""

    def on_lease_end(self, handed: Sequence[Delivery], ended: Callable[[Job], None]) -> None:
        """Calls `ended`, which must not call the engine, once for each of these leases when it ends."""

    def conclude(
        self, id: int, token: str | None, consumer: str | None, result: bytes | None
    ) -> MaybeFuture[Job]:
        """Finishes a job in progress, or answers it as it stands if this caller did so before. Raises
        `JobNotFound`, `JobForgotten`, `LeaseLost`, `NotInProgress`, `LeaseRequired`, `NotTheConsumer`."""

    def release(self, id: int, token: str | None, consumer: str | None, delay: int = 0) -> MaybeFuture[Job]:
        """Gives a job in progress back, uncharged; with a delay it rests first. Raises as `conclude`."""

    def fail(
        self,
        id: int,
        token: str | None,
        consumer: str | None,
        error: bytes | None = None,
        retry: bool = True,
        retry_in: int | None = None,
    ) -> MaybeFuture[Job]:
        """The attempt went wrong (`error`: JSON): the job is retried in `retry_in`, None: by its backoff; or
        is dead. Raises as `conclude`."""

    def heartbeat(
        self,
        id: int,
        token: str | None,
        consumer: str | None,
        lease_for: int | None = None,
        progress: int | None = None,
        message: str | None = None,
    ) -> MaybeFuture[Job]:
        """Lets the lease run for `lease_for` (None: as dequeued) from now. Raises as `conclude`."""

    def each(self, calls: Sequence[Callable[[], MaybeFuture[Job]]]) -> MaybeFuture[list[Job | JobQueueError]]:
        """Makes several calls of this engine, and answers for each its job or why it was refused."""

    def get(self, id: int) -> Job:
        """Raises `JobNotFound`, `JobForgotten`."""

    def wait_for(self, id: int, wait: int) -> MaybeFuture[Job]:
        """The job once it is finished, or as it is after `wait` milliseconds. Raises as `get`, also where it
        is purged meanwhile."""

    def explain(self, id: int) -> Explanation:
        """Why the job is where it is. Raises as `get`."""

    def state(self, names: Sequence[str]) -> str:
        """Why a dequeue of these queues gets nothing now: empty, scheduled, paused, limited or stopping."""

    def cancel(self, id: int, force: bool = False, version: int | None = None) -> MaybeFuture[Job]:
        """Cancels, or asks the consumer of a job in progress; with `force` takes it away. Raises
        `JobNotFound`, `JobForgotten`, `JobFinished`."""

    def change(self, id: int, change: Change, version: int | None = None) -> MaybeFuture[Job]:
        """Changes a job that waits, if its version is `version`. Raises `JobNotFound`, `JobForgotten`,
        `NotWaiting`, `PreconditionFailed`."""

    def redrive(self, id: int, version: int | None = None) -> MaybeFuture[Job]:
        """Puts a dead job back to work. Raises `JobNotFound`, `JobForgotten`, `NotDead`."""

    def find_prior_answer(self, owner: str, key: str, digest: bytes) -> PriorAnswer | None:
        """What the same request of the same owner made before. Raises `IdempotencyMismatch`."""

    def after_commit(self, answer: MaybeFuture[T]) -> MaybeFuture[T]:
        """`answer`, once all is on disk that was done before."""

    def flush(self) -> None:
        """What was done in this loop pass may go to the disk. Whoever does not say so only loses time."""

    def list_jobs(
        self, wanted: Filter, after: int | None, rising: bool, most: int
    ) -> tuple[list[Job], int | None]:
        """Jobs that match, by id, behind `after` (None: from the end it begins at), and where to go on; None:
        that was all. May be short of `most`: the work of one call is bounded."""

    def newest_id(self) -> int:
        """At most this is the id of any job there is; those to come have higher ones."""

    def peek(self, name: str, most: int) -> list[Job]:
        """The next jobs of a queue in the order in which dequeue takes them; none is taken. Jobs behind the
        limit of their key are left out; a pause and the queue's own limit do not matter."""

    def count_jobs(self, wanted: Filter) -> MaybeFuture[int]:
        """How many match of those there were when it began."""

    def purge(self, wanted: Filter, dry_run: bool) -> MaybeFuture[BulkResult]:
        """Removes what matches; those jobs are forgotten."""

    def redrive_many(self, wanted: Filter, limit: int | None, dry_run: bool) -> MaybeFuture[BulkResult]:
        """Puts dead jobs that match back to work."""

    def configure(
        self, name: str, given: dict[str, object], version: int | None = None
    ) -> MaybeFuture[QueueView]:
        """Sets what is given for a queue, if its version is `version`. Raises `PreconditionFailed`."""

    def pause(
        self, name: str, length: int | None, reason: str | None, version: int | None = None
    ) -> MaybeFuture[QueueView]:
        """Hands nothing out of a queue for `length` milliseconds; None: until `resume`."""

    def resume(self, name: str, version: int | None = None) -> MaybeFuture[QueueView]:
        """Ends a pause."""

    def queue(self, name: str) -> QueueView:
        """Also for a name not used yet: zeros, and asking does not make it."""

    def queues(
        self, limit: int, after: str | None = None, within: Callable[[str], bool] | None = None
    ) -> list[QueueView]:
        """By name, those behind `after`; and `within`, which says that of a name."""

    def oldest_queues(self, most: int, within: Callable[[str], bool] | None = None) -> list[QueueView]:
        """The queues that have been there longest; so the same ones each time it is asked. At most `most`,
        and of those names of which `within` says so."""

    def stats(self, within: Callable[[str], bool] | None = None) -> EngineStats:
        """Counts and figures; O(lanes). `jobs`, `queues`, `consumers_waiting` and `totals` are of the queues
        of whose names `within` says so."""

    def wall_now(self) -> int:
        """The wall clock, milliseconds, as the engine goes by it."""

    def wall(self, monotonic: int) -> int:
        """The wall-clock instant of a lease's `expires`."""

    def watch(self, see: Callable[[Kind, Job | str], None] | None) -> None:
        """Calls `see` with whatever happens to a job, or to a queue, of which it gives the name. It must not
        call the engine. None: no more; what nobody watches costs nothing."""

    def when_stopping(self, call: Callable[[], None]) -> None:
        """Calls `call` in `stop_waiting`."""

    def stop_waiting(self) -> None:
        """Answers all waiting dequeues with nothing, and from now on every dequeue. The rest goes on."""

    def close(self) -> None:
        """`stop_waiting`, and no more ticks."""
