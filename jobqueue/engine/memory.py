"""MemoryEngine: the verbs and the looks of the core, with Futures for those who wait."""

import asyncio
from asyncio import Future
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from jobqueue.core.counts import TransitionCounts
from jobqueue.core.explain import explain, why_empty
from jobqueue.core.waiters import OutcomeWaiter, Waiter
from jobqueue.engine.api import MaybeFuture
from jobqueue.engine.bulk import EXAMINED, BulkOperation
from jobqueue.engine.memory_limit import resident
from jobqueue.engine.ticking import Ticking
from jobqueue.engine.wait_future import WaitFuture, nothing
from jobqueue.errors import (
    IdempotencyMismatch,
    JobForgotten,
    JobNotFound,
    JobQueueError,
    Overloaded,
    PreconditionFailed,
)  # fmt: skip
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
from jobqueue.steps import FINISHED

T = TypeVar("T")

# Under this owner, which no access token has, origins are kept beside the idempotency keys.
_ORIGINS = "/import"


class MemoryEngine(Ticking):
    """One `JobQueue` in this process. Nothing survives it."""

    durability = "memory"

    # -- the verbs ----------------------------------------------------------------------------------

    def enqueue(self, new: NewJob) -> MaybeFuture[Job | ExistingJob]:
        if self.full is not None:  # as `_refuse_if_full` does, without a call
            self._refuse_if_full()
        return self._queue.enqueue(new, self._now())

    def enqueue_many(
        self, news: Sequence[NewJob], once: IdempotencyKey | None = None
    ) -> MaybeFuture[list[Job | ExistingJob]]:
        self._refuse_if_full()
        now = self._now()
        made = self._queue.enqueue_many(news, now)
        if once is not None:
            ids = tuple(one.id if isinstance(one, Job) else one.job.id for one in made)
            self._remember(once, ids, now)
        return made

    def enqueue_each(self, news: Sequence[NewJob]) -> MaybeFuture[list[Job | ExistingJob | JobQueueError]]:
        self._refuse_if_full()
        now = self._now()
        results: list[Job | ExistingJob | JobQueueError] = []
        for new in news:
            try:
                results.append(self._queue.enqueue(new, now))
            except JobQueueError as refused:
                results.append(refused)
        return results

    def import_jobs(self, arrivals: Sequence[ImportItem]) -> MaybeFuture[ImportResult]:
        self._refuse_if_full()
        now = self._now()
        known = imported = 0
        for new, past, origin in arrivals:
            if origin is not None and self._has_come(origin, now):
                known += 1
                continue
            try:
                made = self._queue.import_job(new, past, now)
            except JobQueueError as refused:
                return ImportResult(imported, known, refused)
            job = made if isinstance(made, Job) else made.job
            imported, known = (imported + 1, known) if made is job else (imported, known + 1)
            if origin is not None:
                self._remember(IdempotencyKey(_ORIGINS, origin, b"", False), (job.id,), now)
        return ImportResult(imported, known)

    def _has_come(self, origin: str, now: int) -> bool:
        """A job of this origin came before, or is one of ours."""
        if self._queue.state.idempotency.get(_ORIGINS, origin, now) is not None:
            return True
        here, _, id = origin.partition("/")
        if here != self.identity or not (id.isascii() and id.isdigit() and len(id) <= 16):
            return False
        with suppress(JobNotFound, JobForgotten):
            self._queue.get(int(id))
            return True
        return False

    def dequeue(self, want: DequeueRequest, wait: int = 0) -> MaybeFuture[list[Delivery]]:
        if self.stopping:
            return []
        now = self._now()
        handed = self._queue.dequeue(want, now)
        if handed or not wait:
            return handed
        self._refuse_if_crowded(self._queue.state.waiters.places)
        waiting = WaitFuture[list[Delivery]](loop=asyncio.get_running_loop())
        waiter = Waiter(want, now + wait, partial(self._deliver, waiting))
        waiting.withdraw = partial(self._queue.stop_waiting, waiter)
        self._queue.wait(waiter)
        return waiting

    def _deliver(self, waiting: WaitFuture[list[Delivery]], handed: list[Delivery]) -> None:
        waiting.withdraw = nothing
        waiting.set_result(handed)

    def give_back(self, handed: Sequence[Delivery]) -> None:
        self._queue.give_back(handed, self._now())

    def end_wait(self, future: Future[Any], error: JobQueueError) -> None:
        if isinstance(future, WaitFuture) and not future.done():
            future.end()
            future.set_exception(error)

    def on_lease_end(self, handed: Sequence[Delivery], ended: Callable[[Job], None]) -> None:
        for job, lease in handed:
            if lease.ended_by is None:
                self._queue.state.lease_end_callbacks[job.id] = ended
            else:
                ended(job)

    def conclude(
        self, id: int, token: str | None, consumer: str | None, result: bytes | None
    ) -> MaybeFuture[Job]:
        return self._queue.conclude(id, token, consumer, result, self._now())

    def release(self, id: int, token: str | None, consumer: str | None, delay: int = 0) -> MaybeFuture[Job]:
        return self.after_commit(self._queue.release(id, token, consumer, delay, self._now()))

    def fail(
        self,
        id: int,
        token: str | None,
        consumer: str | None,
        error: bytes | None = None,
        retry: bool = True,
        retry_in: int | None = None,
    ) -> MaybeFuture[Job]:
        return self.after_commit(self._queue.fail(id, token, consumer, error, retry, retry_in, self._now()))

    def heartbeat(
        self,
        id: int,
        token: str | None,
        consumer: str | None,
        lease_for: int | None = None,
        progress: int | None = None,
        message: str | None = None,
    ) -> Job:
        return self._queue.heartbeat(id, token, consumer, lease_for, self._now(), progress, message)

    def each(self, calls: Sequence[Callable[[], MaybeFuture[Job]]]) -> MaybeFuture[list[Job | JobQueueError]]:
        results: list[Job | JobQueueError] = []
        for call in calls:
            try:
                job = call()
                assert isinstance(job, Job)  # this engine answers at once
                results.append(job)
            except JobQueueError as refused:
                results.append(refused)
        return results

    def get(self, id: int) -> Job:
        return self._queue.get(id)

    def wait_for(self, id: int, wait: int) -> MaybeFuture[Job]:
        job = self._queue.get(id)
        if job.status in FINISHED or not wait or self.stopping:
            return job
        self._refuse_if_crowded(self._queue.state.outcomes.count)
        waiting = WaitFuture[Job](loop=asyncio.get_running_loop())
        waiter = OutcomeWaiter(job, self._now() + wait, partial(self._deliver_outcome, waiting))
        waiting.withdraw = partial(self._queue.stop_waiting, waiter)
        self._queue.wait_for_outcome(waiter)
        return waiting

    def explain(self, id: int) -> Explanation:
        return explain(self._queue.state, self._queue.get(id), self._now())

    def state(self, names: Sequence[str]) -> str:
        if self.stopping:
            return "stopping"
        queues = self._queue.state.queues
        return why_empty(queues[name] for name in names if name in queues)

    def _deliver_outcome(self, waiting: WaitFuture[Job], job: Job) -> None:
        waiting.withdraw = nothing
        try:
            waiting.set_result(self._queue.get(job.id))
        except JobForgotten as gone:  # it was purged
            waiting.set_exception(gone)

    def cancel(self, id: int, force: bool = False, version: int | None = None) -> MaybeFuture[Job]:
        self._check_version(id, version)
        return self.after_commit(self._queue.cancel(id, self._now(), force))

    def change(self, id: int, change: Change, version: int | None = None) -> MaybeFuture[Job]:
        self._check_version(id, version)
        return self._queue.change(id, change, self._now())

    def redrive(self, id: int, version: int | None = None) -> MaybeFuture[Job]:
        self._check_version(id, version)
        return self.after_commit(self._queue.redrive(id, self._now()))

    def after_commit(self, answer: MaybeFuture[T]) -> MaybeFuture[T]:
        return answer

    def flush(self) -> None:
        """There is nothing to write."""

    def find_prior_answer(self, owner: str, key: str, digest: bytes) -> PriorAnswer | None:
        found = self._queue.state.idempotency.get(owner, key, self._now())
        if found is None:
            return None
        if found.digest != digest:
            raise IdempotencyMismatch("this Idempotency-Key came before with another request")
        made: list[Job | int] = []
        for id in found.ids:
            try:
                made.append(self._queue.get(id))
            except JobForgotten:
                made.append(id)
        return PriorAnswer(made, found.many)

    def _remember(self, once: IdempotencyKey, ids: tuple[int, ...], now: int) -> None:
        self._queue.state.idempotency.put(once.owner, once.key, once.digest, ids, once.many, now)

    # -- many jobs, queues --------------------------------------------------------------------------

    def list_jobs(
        self, wanted: Filter, after: int | None, rising: bool, most: int
    ) -> tuple[list[Job], int | None]:
        start = after if after is not None else 0 if rising else 1 << 60
        return self._queue.scan(wanted, start, rising, self._now(), most, EXAMINED)

    def newest_id(self) -> int:
        return self._queue.state.last_number

    def peek(self, name: str, most: int) -> list[Job]:
        queue = self._queue.state.queues.get(name)
        return queue.upcoming(most, self._now()) if queue is not None else []

    def count_jobs(self, wanted: Filter) -> MaybeFuture[int]:
        return self._sweep(wanted, None, None, lambda swept: swept.matched)

    def purge(self, wanted: Filter, dry_run: bool) -> MaybeFuture[BulkResult]:
        act = None if dry_run else self._queue.purge_one
        return self.after_commit(self._sweep(wanted, act, None, lambda swept: swept))

    def redrive_many(self, wanted: Filter, limit: int | None, dry_run: bool) -> MaybeFuture[BulkResult]:
        def act(job: Job, now: int) -> None:
            self._queue.redrive_one(job.id, now)

        return self.after_commit(self._sweep(wanted, None if dry_run else act, limit, lambda swept: swept))

    def configure(
        self, name: str, given: dict[str, object], version: int | None = None
    ) -> MaybeFuture[QueueView]:
        self._check_queue_version(name, version)
        self._queue.configure(name, given, self._now())
        return self.after_commit(self.queue(name))

    def pause(
        self, name: str, length: int | None, reason: str | None, version: int | None = None
    ) -> MaybeFuture[QueueView]:
        self._check_queue_version(name, version)
        self._queue.pause(name, length, reason, self._now())
        return self.after_commit(self.queue(name))

    def resume(self, name: str, version: int | None = None) -> MaybeFuture[QueueView]:
        self._check_queue_version(name, version)
        self._queue.resume(name, self._now())
        return self.after_commit(self.queue(name))

    def _sweep(
        self,
        wanted: Filter,
        act: Callable[[Job, int], object] | None,
        limit: int | None,
        render: Callable[[BulkResult], T],
    ) -> MaybeFuture[T]:
        return BulkOperation(self._queue, wanted, act, limit, self._now).run(render)

    def _check_queue_version(self, name: str, version: int | None) -> None:
        if version is not None and (now := self.queue(name).version) != version:
            raise PreconditionFailed(f'the queue was changed since: its ETag is "{now}"; look again')

    def _check_version(self, id: int, version: int | None) -> None:
        if version is not None and (job := self._queue.get(id)).version != version:
            raise PreconditionFailed(
                f'the job has changed since: its ETag is "{job.version}"; look again', job_status=job.status
            )

    def _refuse_if_crowded(self, waiting: int) -> None:
        if waiting >= self.settings.max_waiters:
            raise Overloaded(
                "as many requests wait as may; ask again", limit=self.settings.max_waiters,
                setting="JOBQUEUE_MAX_WAITERS", retry_after=1,
            )  # fmt: skip

    # -- looking ------------------------------------------------------------------------------------

    def queue(self, name: str) -> QueueView:
        return self._queue.view(name, self._now())

    def queues(
        self, limit: int, after: str | None = None, within: Callable[[str], bool] | None = None
    ) -> list[QueueView]:
        now = self._now()
        names = sorted(filter(within, set(self._queue.state.queues).union(self._queue.state.waiters.names())))
        start = bisect_right(names, after) if after is not None else 0
        return [self._queue.view(name, now) for name in names[start : start + limit]]

    def oldest_queues(self, most: int, within: Callable[[str], bool] | None = None) -> list[QueueView]:
        names = self._queue.state.queues if within is None else filter(within, self._queue.state.queues)
        now = self._now()
        return [self._queue.view(name, now) for name in islice(names, most)]

    def stats(self, within: Callable[[str], bool] | None = None) -> EngineStats:
        queue = self._queue.state
        counts, queues, waiting = queue.counts, len(queue.queues), queue.waiters.count
        if within is not None:
            some = [named.counts for name, named in queue.queues.items() if within(name)]
            counts, queues, waiting = (
                TransitionCounts.of(some),
                len(some),
                queue.waiters.waiting_within(within),
            )
        lanes, slots, empty = self._queue.lane_figures()
        return EngineStats(
            jobs=counts.jobs(), queues=queues, consumers_waiting=waiting,
            ticks=self._ticks, tick_last=self._tick_last, tick_max=self._tick_max, lanes=lanes, slots=slots,
            empty_slots=empty, compactions=queue.compactions, compaction_max=self._compaction_max,
            remembered=queue.remembered, remembered_bytes=queue.remembered_bytes,
            idempotency_keys=len(queue.idempotency), idempotency_window=queue.idempotency.window(self._now()),
            totals=counts.totals(), memory=resident(), memory_limit=self.memory_limit.limit,
        )  # fmt: skip

    def wall_now(self) -> int:
        wall: int = self._queue.state.wall(self._now())
        return wall

    def wall(self, monotonic: int) -> int:
        wall: int = self._queue.state.wall(monotonic)
        return wall
