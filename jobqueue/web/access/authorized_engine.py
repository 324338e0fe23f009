"""AuthorizedEngine: an engine as the holder of one access token sees it.

Queues that the token is not for are refused, and the jobs in them do not exist for the caller. Idempotency
keys belong to the token. A lease belongs to the token that took it, or to an administrator: its token begins
with a tag made of the name, so that the usual case needs no look-up. Operations use it like any engine. Every
verb of `Engine` is implemented here, so a forgotten one fails and is never open.
"""

from asyncio import Future
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

from msgspec import UNSET
from msgspec.structs import replace

from jobqueue.engine.api import Engine, MaybeFuture
from jobqueue.errors import JobNotFound, JobQueueError, LeaseLost, Refused
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
from jobqueue.web.access.identity import Principal
from jobqueue.web.futures import then

T = TypeVar("T")
# Length of a lease token without a tag, from a time without access tokens: any caller may use it.
_UNTAGGED = 16


def _refused_after(refused: Refused, taken: ImportResult) -> ImportResult:
    return taken if taken.refused is not None else taken._replace(refused=refused)


class AuthorizedEngine:
    """Keeps the hot verbs of the engine in slots.

    With many tokens each call uses another object, whose dict would not be in the processor's cache.
    """

    __slots__ = (
        "_conclude", "_dequeue", "_engine", "_enqueue", "_fail", "_heartbeat", "_release",
        "_seen", "_tag", "_who", "durability", "identity", "settings",
    )  # fmt: skip

    def __init__(self, engine: Engine, who: Principal) -> None:
        self._engine = engine
        self._who = who
        self._seen = who.queue_access
        self._tag = urlsafe_b64encode(sha256(who.name.encode()).digest())[:6].decode()
        self._enqueue, self._dequeue = engine.enqueue, engine.dequeue
        self._conclude, self._heartbeat = engine.conclude, engine.heartbeat
        self._release, self._fail = engine.release, engine.fail
        self.settings = engine.settings
        self.durability = engine.durability
        self.identity = engine.identity

    @property
    def stopping(self) -> bool:
        return self._engine.stopping

    @property
    def refuses(self) -> str | None:
        return self._engine.refuses

    # -- checks ------------------------------------------------------------------------------------

    def _refused(self, queue: str) -> Refused:
        return Refused(f"this access token is not for the queue {queue!r}")

    def _check_queue(self, name: str) -> None:
        if not self._who.may_use(name):
            raise self._refused(name)

    def _check_queues(self, news: Sequence[NewJob]) -> None:
        for index, new in enumerate(news):
            if not self._who.may_use(new.queue):
                refused = self._refused(new.queue)
                refused.facts["index"] = index
                raise refused

    def _check_job(self, id: int) -> Job:
        job = self._engine.get(id)
        if not self._who.may_use(job.queue):
            raise JobNotFound("this server has never given that id")
        return job

    def _still_here(self, job: Job) -> Job:
        return job if self._who.may_use(job.queue) else self._check_job(job.id)

    def _check_lease(self, id: int) -> None:
        lease = self._check_job(id).lease
        if lease is None or lease.token.startswith(self._tag) or self._who.admin:
            return
        if len(lease.token) > _UNTAGGED:
            raise Refused("the job was dequeued with another access token, and its lease belongs to that")

    def _check_filter(self, wanted: Filter) -> None:
        for name in wanted.queues or ():
            self._check_queue(name)

    def _within(self, wanted: Filter) -> Filter:
        return wanted if self._who.token.queues is None else replace(wanted, within=self._who.may_use)

    # -- enqueue and dequeue ------------------------------------------------------------------------

    def enqueue(self, new: NewJob) -> MaybeFuture[Job | ExistingJob]:
        if not self._seen.get(new.queue):
            self._check_queue(new.queue)
        return self._enqueue(new)

    def enqueue_many(
        self, news: Sequence[NewJob], once: IdempotencyKey | None = None
    ) -> MaybeFuture[list[Job | ExistingJob]]:
        self._check_queues(news)
        return self._engine.enqueue_many(news, once and once._replace(owner=self._who.name))

    def enqueue_each(self, news: Sequence[NewJob]) -> MaybeFuture[list[Job | ExistingJob | JobQueueError]]:
        self._check_queues(news)
        return self._engine.enqueue_each(news)

    def import_jobs(self, arrivals: Sequence[ImportItem]) -> MaybeFuture[ImportResult]:
        """Imports the items before the first one that is for another queue, as before any other refused
        item.
        """
        for index, arrival in enumerate(arrivals):
            if not self._who.may_use(arrival.new.queue):
                refused = self._refused(arrival.new.queue)
                return then(self._engine.import_jobs(arrivals[:index]), partial(_refused_after, refused))
        return self._engine.import_jobs(arrivals)

    def dequeue(self, want: DequeueRequest, wait: int = 0) -> MaybeFuture[list[Delivery]]:
        for name in want.queues:
            if not self._seen.get(name):
                self._check_queue(name)
        mine = DequeueRequest(want.queues, want.lease_for, want.count, want.consumer, self._tag)
        return self._dequeue(mine, wait)

    def give_back(self, handed: Sequence[Delivery]) -> None:
        self._engine.give_back(handed)

    def on_lease_end(self, handed: Sequence[Delivery], ended: Callable[[Job], None]) -> None:
        self._engine.on_lease_end(handed, ended)

    def end_wait(self, future: Future[Any], error: JobQueueError) -> None:
        self._engine.end_wait(future, error)

    # -- under a lease ------------------------------------------------------------------------------

    def conclude(
        self, id: int, token: str | None, consumer: str | None, result: bytes | None
    ) -> MaybeFuture[Job]:
        if token is None or not token.startswith(self._tag):
            self._check_lease(id)
        try:
            return self._conclude(id, token, consumer, result)
        except LeaseLost:
            self._check_lease(id)
            raise

    def release(self, id: int, token: str | None, consumer: str | None, delay: int = 0) -> MaybeFuture[Job]:
        if token is None or not token.startswith(self._tag):
            self._check_lease(id)
        try:
            return self._release(id, token, consumer, delay)
        except LeaseLost:
            self._check_lease(id)
            raise

    def fail(
        self,
        id: int,
        token: str | None,
        consumer: str | None,
        error: bytes | None = None,
        retry: bool = True,
        retry_in: int | None = None,
    ) -> MaybeFuture[Job]:
        if token is None or not token.startswith(self._tag):
            self._check_lease(id)
        try:
            return self._fail(id, token, consumer, error, retry, retry_in)
        except LeaseLost:
            self._check_lease(id)
            raise

    def heartbeat(
        self,
        id: int,
        token: str | None,
        consumer: str | None,
        lease_for: int | None = None,
        progress: int | None = None,
        message: str | None = None,
    ) -> MaybeFuture[Job]:
        if token is None or not token.startswith(self._tag):
            self._check_lease(id)
        try:
            return self._heartbeat(id, token, consumer, lease_for, progress, message)
        except LeaseLost:
            self._check_lease(id)
            raise

    def each(self, calls: Sequence[Callable[[], MaybeFuture[Job]]]) -> MaybeFuture[list[Job | JobQueueError]]:
        return self._engine.each(calls)

    # -- single jobs --------------------------------------------------------------------------------

    def get(self, id: int) -> Job:
        return self._check_job(id)

    def wait_for(self, id: int, wait: int) -> MaybeFuture[Job]:
        """Checks the job again after the wait: it may have moved to another queue."""
        self._check_job(id)
        return then(self._engine.wait_for(id, wait), self._still_here)

    def explain(self, id: int) -> Explanation:
        self._check_job(id)
        return self._engine.explain(id)

    def state(self, names: Sequence[str]) -> str:
        for name in names:
            self._check_queue(name)
        return self._engine.state(names)

    def cancel(self, id: int, force: bool = False, version: int | None = None) -> MaybeFuture[Job]:
        self._check_job(id)
        return self._engine.cancel(id, force, version)

    def change(self, id: int, change: Change, version: int | None = None) -> MaybeFuture[Job]:
        self._check_job(id)
        if change.queue is not UNSET:
            self._check_queue(change.queue)
        return self._engine.change(id, change, version)

    def redrive(self, id: int, version: int | None = None) -> MaybeFuture[Job]:
        self._check_job(id)
        return self._engine.redrive(id, version)

    def find_prior_answer(self, owner: str, key: str, digest: bytes) -> PriorAnswer | None:
        """Returns jobs that were moved out of sight like forgotten ones."""
        found = self._engine.find_prior_answer(self._who.name, key, digest)
        if found is None:
            return None
        may_use = self._who.may_use
        made = [job if isinstance(job, int) or may_use(job.queue) else job.id for job in found.made]
        return PriorAnswer(made, found.many)

    def after_commit(self, answer: MaybeFuture[T]) -> MaybeFuture[T]:
        return self._engine.after_commit(answer)

    # -- many jobs, queues --------------------------------------------------------------------------

    def list_jobs(
        self, wanted: Filter, after: int | None, rising: bool, most: int
    ) -> tuple[list[Job], int | None]:
        return self._engine.list_jobs(self._within(wanted), after, rising, most)

    def newest_id(self) -> int:
        return self._engine.newest_id()

    def peek(self, name: str, most: int) -> list[Job]:
        self._check_queue(name)
        return self._engine.peek(name, most)

    def count_jobs(self, wanted: Filter) -> MaybeFuture[int]:
        return self._engine.count_jobs(self._within(wanted))

    def purge(self, wanted: Filter, dry_run: bool) -> MaybeFuture[BulkResult]:
        self._check_filter(wanted)
        return self._engine.purge(self._within(wanted), dry_run)

    def redrive_many(self, wanted: Filter, limit: int | None, dry_run: bool) -> MaybeFuture[BulkResult]:
        self._check_filter(wanted)
        return self._engine.redrive_many(self._within(wanted), limit, dry_run)

    def configure(
        self, name: str, given: dict[str, object], version: int | None = None
    ) -> MaybeFuture[QueueView]:
        self._check_queue(name)
        if isinstance(letter := given.get("dead_letter"), str):
            self._check_queue(letter)
        return self._engine.configure(name, given, version)

    def pause(
        self, name: str, length: int | None, reason: str | None, version: int | None = None
    ) -> MaybeFuture[QueueView]:
        self._check_queue(name)
        return self._engine.pause(name, length, reason, version)

    def resume(self, name: str, version: int | None = None) -> MaybeFuture[QueueView]:
        self._check_queue(name)
        return self._engine.resume(name, version)

    def queue(self, name: str) -> QueueView:
        self._check_queue(name)
        return self._engine.queue(name)

    def queues(
        self, limit: int, after: str | None = None, within: Callable[[str], bool] | None = None
    ) -> list[QueueView]:
        return self._engine.queues(limit, after, self._who.may_use)

    def oldest_queues(self, most: int, within: Callable[[str], bool] | None = None) -> list[QueueView]:
        return self._engine.oldest_queues(most, self._who.may_use)

    # -- the service --------------------------------------------------------------------------------

    def stats(self, within: Callable[[str], bool] | None = None) -> EngineStats:
        return self._engine.stats(None if self._who.token.queues is None else self._who.may_use)

    def wall_now(self) -> int:
        return self._engine.wall_now()

    def wall(self, monotonic: int) -> int:
        return self._engine.wall(monotonic)
