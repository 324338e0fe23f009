"""LocalEngine: a `JobQueue` in this process, with a clock, Futures for waiting callers, and a commit policy.

Each verb is written here once. Every change ends in `self._commit`, which decides when the answer may
leave: at once if the jobs are in memory only, or when the change is on disk.
"""

import asyncio
import os
import random
from asyncio import Future
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

from msgspec import UNSET
from msgspec.structs import replace

from jobqueue.clock import Clock, SystemClock, first_id_at
from jobqueue.core.counts import TransitionCounts
from jobqueue.core.explain import explain, why_empty
from jobqueue.core.idempotency import IMPORTS, LOGOUTS
from jobqueue.core.limits import Limits
from jobqueue.core.queue import JobQueue
from jobqueue.core.waiters import OutcomeWaiter, Waiter
from jobqueue.engine.api import MaybeFuture, refuse
from jobqueue.engine.bulk import EXAMINED, BulkOperation
from jobqueue.engine.commit import CommitPolicy, NoCommit
from jobqueue.engine.consumers import consumers
from jobqueue.engine.driver import Driver
from jobqueue.engine.drop_log import DropLog
from jobqueue.engine.error_kinds import ErrorKinds
from jobqueue.engine.groups import Grouping
from jobqueue.engine.memory_limit import MemoryLimit, resident
from jobqueue.engine.scheduler import Scheduler
from jobqueue.engine.series import Series
from jobqueue.engine.tokens import tokens
from jobqueue.engine.versions import check_version
from jobqueue.engine.wait_future import WaitFuture
from jobqueue.errors import (
    IdempotencyMismatch,
    JobForgotten,
    JobNotFound,
    JobQueueError,
    NotReady,
    Overloaded,
    Stopping,
)
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
from jobqueue.steps import FINISHED, Kind

T = TypeVar("T")
_HIGHEST_ID: Final = 1 << 60
# How many callers may have queues with metrics of their own.
_MEASURING: Final = 1000
# Jobs that are examined between two passes of the loop, while a journal is read.
_JOBS_AT_ONCE: Final = 10_000
_DEFAULTS: Final = QueueSettings()


class LocalEngine:
    """An `Engine` in this process. The contract of each verb is in `engine.api`.

    `clock`: the system's, or a `jobqueue.testing.ManualClock`. `commit`: None for jobs in memory only; with
    any other policy `load` comes first. `identity` and `secret`: random if not given. `first_id`: the id of
    the first job; if it is not given the settings or the clock tell. `on_failure(error)` is called once if
    the store cannot be written: from then on no request is accepted, and the process should end.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        clock: Clock | None = None,
        commit: CommitPolicy | None = None,
        identity: str | None = None,
        secret: bytes | None = None,
        first_id: int | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.identity = identity or os.urandom(6).hex()
        self.secret = secret or os.urandom(32)
        self.reads_wait = False
        self.leaving: set[int] = set()  # jobs that are being imported elsewhere
        self.stopping = False
        self._refuses = None if commit is None else "the server is reading its journal"
        self.on_failure: Callable[[Exception], None] = lambda error: None
        self.memory_limit = MemoryLimit(self.settings.memory_limit)
        self._drop_log = DropLog()
        self._failed = False  # changes can no longer be written
        self._closed = False
        self._stop_callbacks: list[Callable[[], None]] = []
        self._measured: dict[
            str, dict[str, None]
        ] = {}  # queues with metrics, by the caller to whom they are shown
        self._admission_error: JobQueueError | None = None  # with which new jobs are refused
        self._clock: Clock = clock or SystemClock()
        self._queue = _new_queue(self.settings, self._clock, first_id)
        self._series = Series(self._queue.state)
        self._errors = ErrorKinds()
        self._driver = Driver(
            self._queue, self._clock, self.settings.tick, self._after_slice, ready=commit is None
        )
        self._scheduler = Scheduler(self._queue, self._admit, self._count_payload)
        self._driver.schedules = self._run_schedules
        self._commit: CommitPolicy = commit or NoCommit()
        self._commit.attach(self._queue, self.give_back, self._commit_failed, self._commit_held_up)
        self.durability = self._commit.durability

    @property
    def refuses(self) -> str | None:
        if self._refuses is None and self._commit.may_be_stale():
            return (
                "the database has not confirmed for 2 seconds that this server is still the owner of the jobs"
            )
        return self._refuses

    def members(self) -> Sequence[Member]:
        """Returns the servers that share the database, this one included; none without a database."""
        return self._commit.members()

    def watch_arrivals(self, arriving: Callable[[], bool]) -> None:
        """Has a tick after a pause of the loop wait while `arriving()`: while something that clients sent is
        still to be read. Without it such a tick waits for a few loop passes."""
        self._driver.catch_up.arriving = arriving

    async def load(self) -> int:
        """Restores the jobs of the store, in slices, and then accepts requests. Returns the number of jobs.
        Raises `JournalError`."""
        self._driver.read_wall_clock()
        jobs = 0
        for jobs in self._commit.load(self._clock):
            self._refuses = f"the server is reading its journal: {jobs:,} jobs so far"
            await asyncio.sleep(0)
        for _ in self._scheduler.restored():
            await asyncio.sleep(0)
        last: int | None = 0
        while last is not None:
            last = self._errors.restore(self._queue.state.jobs.after(last), _JOBS_AT_ONCE)
            await asyncio.sleep(0)
        more = True
        while more:  # work that came due while no server ran is done before the first request
            _, more = self._driver.run_slice()
            await asyncio.sleep(0)
        if not self._failed:
            self._refuses = None
            self._driver.start()
        return jobs

    # -- enqueue ------------------------------------------------------------------------------------

    def enqueue(self, new: NewJob) -> MaybeFuture[Job | ExistingJob]:
        self._admit()
        return self._commit.hold_new(self._queue.enqueue(new, self._driver.now()))

    def enqueue_many(
        self, news: Sequence[NewJob], key: IdempotencyKey | None = None
    ) -> MaybeFuture[list[Job | ExistingJob] | PriorAnswer]:
        self._admit()
        now = self._driver.now()
        if key is not None and (prior := self.find_prior_answer(key.owner, key.key, key.digest)) is not None:
            return self._commit.hold(prior)
        made: list[Job | ExistingJob] = self._queue.enqueue_many(news, now)
        if key is not None:
            ids = tuple(one.id if isinstance(one, Job) else one.job.id for one in made)
            self._remember(key, ids, now)
        return self._commit.hold_new(made)

    def enqueue_each(self, news: Sequence[NewJob]) -> MaybeFuture[list[Job | ExistingJob | JobQueueError]]:
        self._admit()
        now = self._driver.now()
        results: list[Job | ExistingJob | JobQueueError] = []
        for new in news:
            try:
                results.append(self._queue.enqueue(new, now))
            except JobQueueError as refused:
                results.append(refused)
        return self._commit.hold_new(results)

    def import_jobs(
        self,
        items: Sequence[ImportItem],
        owner: str = "",
        within: Callable[[str], bool] | None = None,
    ) -> MaybeFuture[ImportResult]:
        self._admit()
        owners = [f"{IMPORTS}/{owner}" if owner else IMPORTS]
        if owner and within is None:  # it may see all, and so what was imported when there were no names
            owners.append(IMPORTS)
        now = self._driver.now()
        imported: list[Job] = []
        known = 0
        refused: JobQueueError | None = None
        for new, history, origin in items:
            if origin is not None and self._is_known(origin, owners, within, now):
                known += 1
                continue
            try:
                made = self._queue.import_job(new, history, now)
            except JobQueueError as error:
                refused = error
                break
            if isinstance(made, Job):
                imported.append(made)
            else:
                known += 1
            if origin is not None:
                id = made.id if isinstance(made, Job) else made.job.id
                self._remember(IdempotencyKey(owners[0], origin, b"", False), (id,), now)
        self._commit.count_payloads(imported)
        return self._commit.hold(ImportResult(len(imported), known, refused))

    def _is_known(
        self, origin: str, owners: Sequence[str], within: Callable[[str], bool] | None, now: int
    ) -> bool:
        """True if one of `owners` imported a job of this origin before, or it is a job of this engine that
        the caller may see."""
        if any(self._queue.state.idempotency.get(owner, origin, now) is not None for owner in owners):
            return True
        identity, _, id = origin.partition("/")
        if identity != self.identity or not (id.isascii() and id.isdigit() and len(id) <= 16):
            return False
        with suppress(JobNotFound, JobForgotten):
            job = self._queue.get(int(id))
            return within is None or within(job.queue)
        return False

    def _admit(self) -> None:
        self._commit.admit()
        error = self._admission_error
        if error is not None:  # a new object, since callers add facts to it
            raise type(error)(error.detail, **error.facts)

    def unique_owner(self, name: str, key: str) -> Job | None:
        queue = self._queue.state.queues.get(name)
        return queue.unique.owner.get(key) if queue is not None else None

    def find_prior_answer(self, owner: str, key: str, digest: bytes) -> PriorAnswer | None:
        found = self._queue.state.idempotency.get(owner, key, self._driver.now())
        if found is None:
            return None
        if found.digest != digest:
            raise IdempotencyMismatch("this Idempotency-Key was used before, for a different request")
        made: list[Job | int] = []
        for id in found.ids:
            try:
                made.append(self._queue.get(id))
            except JobForgotten:
                made.append(id)
        return PriorAnswer(made, found.many)

    def _remember(self, key: IdempotencyKey, ids: tuple[int, ...], now: int) -> None:
        self._queue.state.idempotency.put(key.owner, key.key, key.digest, ids, key.many, now)
        self._commit.remember(key, ids, now)

    def end_session(self, code: str) -> MaybeFuture[None]:
        self._remember(IdempotencyKey(LOGOUTS, code, b"", False), (), self._driver.now())
        return self._commit.hold(None)

    def has_ended(self, code: str) -> bool:
        return self._queue.state.idempotency.get(LOGOUTS, code, self._driver.now()) is not None

    # -- dequeue ------------------------------------------------------------------------------------

    def dequeue(self, request: DequeueRequest, wait: int = 0) -> MaybeFuture[list[Delivery]]:
        if self.stopping:
            return []
        now = self._driver.now()
        deliveries = self._queue.dequeue(request, now)
        if deliveries:
            return self._commit.hold_deliveries(deliveries)
        if not wait:
            return deliveries
        self._check_waiters(self._queue.state.waiters.places)
        waiting: WaitFuture[list[Delivery]] = WaitFuture(loop=asyncio.get_running_loop())
        waiter = Waiter(request, now + wait, partial(self._commit.deliver, waiting))
        waiting.withdraw = partial(self._queue.stop_waiting, waiter)
        self._queue.wait(waiter)
        return waiting

    def dequeue_job(self, id: int, request: DequeueRequest) -> MaybeFuture[list[Delivery]]:
        if self.stopping:
            return []
        self._check_here(id)
        deliveries = self._queue.dequeue_job(id, request, self._driver.now())
        return self._commit.hold_deliveries(deliveries) if deliveries else deliveries

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        self._queue.give_back(deliveries, self._driver.now())
        self._commit.schedule()

    def lose(self, deliveries: Sequence[Delivery]) -> None:
        self._queue.lose(deliveries, self._driver.now())
        self._commit.schedule()

    def end_wait(self, future: Future[Any], error: JobQueueError) -> None:
        if isinstance(future, WaitFuture) and not future.done():
            future.end()
            refuse(future, error)

    def on_lease_end(self, deliveries: Sequence[Delivery], ended: Callable[[Job], None]) -> None:
        for job, lease in deliveries:
            if lease.ended_by is None:
                self._queue.state.lease_end_callbacks[job.id] = ended
            else:
                ended(job)

    def _check_waiters(self, waiting: int) -> None:
        if waiting >= self.settings.max_waiters:
            raise Overloaded(
                "too many requests are waiting already; try again later",
                limit=self.settings.max_waiters,
                setting="JOBQUEUE_MAX_WAITERS",
                retry_after=1,
            )

    # -- under a lease ------------------------------------------------------------------------------

    def conclude(self, claim: LeaseClaim, result: bytes | None) -> MaybeFuture[Job]:
        now = self._driver.now()
        return self._commit.hold(self._queue.conclude(claim.id, claim.token, claim.consumer, result, now))

    def release(self, claim: LeaseClaim, delay: int = 0, priority: int | None = None) -> MaybeFuture[Job]:
        return self._commit.hold(self._queue.release(claim, delay, self._driver.now(), priority))

    def fail(
        self,
        claim: LeaseClaim,
        error: bytes | None = None,
        retry: bool = True,
        retry_in: int | None = None,
    ) -> MaybeFuture[Job]:
        now = self._driver.now()
        job = self._queue.fail(claim, error, retry, retry_in, now)
        if error is not None:
            self._errors.add(job, error, self.wall_now())
        return self._commit.hold(job)

    def heartbeat(
        self,
        claim: LeaseClaim,
        lease_for: int | None = None,
        progress: int | None = None,
        message: str | None = None,
    ) -> Job:
        now = self._driver.now()
        return self._queue.heartbeat(claim, lease_for, now, progress, message)

    def renew(self, claim: LeaseClaim, lease_for: int) -> MaybeFuture[Job]:
        return self._commit.hold(self._queue.renew(claim, lease_for, self._driver.now()))

    def each(self, calls: Sequence[Callable[[], MaybeFuture[Job]]]) -> MaybeFuture[list[Job | JobQueueError]]:
        results: list[Job | JobQueueError] = []
        self._commit.batching = True
        try:
            for call in calls:
                try:
                    job = call()
                    assert isinstance(job, Job)  # while batching every answer is there at once
                    results.append(job)
                except JobQueueError as refused:
                    results.append(refused)
        finally:
            self._commit.batching = False
        return self._commit.hold(results)

    # -- jobs of other servers ----------------------------------------------------------------------

    def own_only(self, belongs: Callable[[str], bool]) -> None:
        """Has `foreign_queues` tell those that do not belong here. Called after `load`."""
        state = self._queue.state
        state.belongs = belongs
        state.foreign = {name for name in state.queues if not belongs(name)}

    def foreign_queues(self) -> list[str]:
        """Returns the queues that do not belong here."""
        queues = self._queue.state.queues
        return [name for name in self._queue.state.foreign if name in queues]

    def remove_transferred(self, job: Job, version: int) -> None:
        """Removes a job that went where it belongs, unless it has changed since it had this version."""
        if job.version == version:
            now = self._driver.now()
            self._queue.purge_one(job, now)
            self._queue.match(now)
            self._commit.schedule()

    # -- single jobs --------------------------------------------------------------------------------

    def get(self, id: int) -> Job:
        return self._queue.get(id)

    def wait_for(self, id: int, wait: int) -> MaybeFuture[Job]:
        job = self._queue.get(id)
        if not wait:
            return job
        if job.status in FINISHED or self.stopping:
            return self._commit.hold(job)
        self._check_waiters(self._queue.state.outcomes.count)
        waiting: WaitFuture[Job] = WaitFuture(loop=asyncio.get_running_loop())
        waiter = OutcomeWaiter(job, self._driver.now() + wait, partial(self._deliver_outcome, waiting))
        waiting.withdraw = partial(self._queue.stop_waiting, waiter)
        self._queue.wait_for_outcome(waiter)
        return waiting

    def _deliver_outcome(self, waiting: WaitFuture[Job], job: Job) -> None:
        outcome: Job | Exception
        try:
            outcome = self._queue.get(job.id)
        except JobForgotten as purged:
            outcome = purged
        self._commit.resolve(waiting, outcome)

    def explain(self, id: int) -> Explanation:
        return explain(self._queue.state, self._queue.get(id), self._driver.now())

    def state(self, names: Sequence[str]) -> str:
        if self.stopping:
            return "stopping"
        queues = self._queue.state.queues
        return why_empty(queues[name] for name in names if name in queues)

    def cancel(self, id: int, force: bool = False, version: int | None = None) -> MaybeFuture[Job]:
        self._check_here(id)
        self._check_version(id, version)
        return self._commit.hold(self._queue.cancel(id, self._driver.now(), force))

    def change(self, id: int, change: Change, version: int | None = None) -> MaybeFuture[Job]:
        self._check_here(id)
        has_payload = change.payload is not UNSET
        if has_payload:
            self._commit.admit()
        self._check_version(id, version)
        changed = self._queue.change(id, change, self._driver.now())
        return self._commit.hold_new(changed) if has_payload else self._commit.hold(changed)

    def redrive(self, id: int, version: int | None = None) -> MaybeFuture[Job]:
        self._check_here(id)
        self._check_version(id, version)
        return self._commit.hold(self._queue.redrive(id, self._driver.now()))

    def _check_here(self, id: int) -> None:
        if id in self.leaving:
            why = "the job is on its way to its new queue, which another server has; try again"
            raise NotReady(why, retry_after=1)

    def _check_version(self, id: int, version: int | None) -> None:
        if version is not None:
            job = self._queue.get(id)
            check_version("job", job.version, version, job_status=job.status)

    # -- many jobs ----------------------------------------------------------------------------------

    def list_jobs(
        self, where: Filter, after: int | None, ascending: bool, limit: int
    ) -> tuple[list[Job], int | None]:
        start = after if after is not None else 0 if ascending else _HIGHEST_ID
        return self._queue.scan(where, start, ascending, self._driver.now(), limit, EXAMINED)

    def newest_id(self) -> int:
        return self._queue.state.last_number

    def peek(self, name: str, limit: int) -> list[Job]:
        queue = self._queue.state.queues.get(name)
        return queue.upcoming(limit, self._driver.now()) if queue is not None else []

    def count_jobs(self, where: Filter) -> MaybeFuture[int]:
        return BulkOperation(self._queue, where, None, None, self._driver.now).run(_matched)

    def group_jobs(self, where: Filter, by: Sequence[str], limit: int) -> MaybeFuture[JobGroups]:
        grouping = Grouping(by)

        def largest(_: BulkResult) -> JobGroups:
            return grouping.largest(limit)

        return BulkOperation(self._queue, where, grouping.add, None, self._driver.now).run(largest)

    def purge(self, where: Filter, dry_run: bool) -> MaybeFuture[BulkResult]:
        return self._bulk(where, None if dry_run else self._queue.purge_one, None)

    def redrive_many(self, where: Filter, limit: int | None, dry_run: bool) -> MaybeFuture[BulkResult]:
        return self._bulk(where, None if dry_run else self._redrive_one, limit)

    def _redrive_one(self, job: Job, now: int) -> None:
        self._queue.redrive_one(job.id, now)

    def cancel_many(
        self, where: Filter, force: bool, limit: int | None, dry_run: bool
    ) -> MaybeFuture[BulkResult]:
        return self._bulk(where, None if dry_run else partial(self._cancel_one, force), limit)

    def _cancel_one(self, force: bool, job: Job, now: int) -> None:
        self._queue.cancel_one(job.id, force, now)

    def run_many_now(self, where: Filter, limit: int | None, dry_run: bool) -> MaybeFuture[BulkResult]:
        return self._bulk(where, None if dry_run else self._queue.run_one_now, limit)

    def move_many(
        self, where: Filter, target: str | None, limit: int | None, dry_run: bool
    ) -> MaybeFuture[BulkResult]:
        if target is None and where.died_in is None:
            where = replace(where, died_in=_any_queue)
        return self._bulk(where, None if dry_run else partial(self._move_one, target), limit)

    def _move_one(self, target: str | None, job: Job, now: int) -> None:
        self._queue.move_one(job, target, now)

    def _bulk(
        self, where: Filter, act: Callable[[Job, int], object] | None, limit: int | None
    ) -> MaybeFuture[BulkResult]:
        operation = BulkOperation(self._queue, where, act, limit, self._driver.now)
        return self._commit.hold(operation.run(_unchanged))

    # -- queues -------------------------------------------------------------------------------------

    def configure(
        self, name: str, changes: dict[str, object], version: int | None = None
    ) -> MaybeFuture[QueueView]:
        self._check_queue_version(name, version)
        self._queue.configure(name, changes, self._driver.now())
        return self._commit.hold(self.queue(name))

    def pause(
        self,
        name: str,
        duration: int | None,
        reason: str | None,
        version: int | None = None,
        by: str | None = None,
    ) -> MaybeFuture[QueueView]:
        self._check_queue_version(name, version)
        self._queue.pause(name, duration, reason, self._driver.now(), by)
        return self._commit.hold(self.queue(name))

    def resume(self, name: str, version: int | None = None) -> MaybeFuture[QueueView]:
        self._check_queue_version(name, version)
        self._queue.resume(name, self._driver.now())
        return self._commit.hold(self.queue(name))

    def _check_queue_version(self, name: str, version: int | None) -> None:
        if version is not None:
            check_version("queue", self.queue(name).version, version)

    def consumers(self, limit: int, within: Callable[[str], bool] | None = None) -> Consumers:
        return consumers(self._queue.state, limit, within)

    def series(self, name: str, length: int, step: int) -> QueueSeries:
        return self._series.read(name, length, step, self._driver.now())

    def new_errors(
        self, since: int, limit: int, within: Callable[[str], bool] | None = None
    ) -> list[NewError]:
        return self._errors.since(since, limit, within)

    def queue(self, name: str) -> QueueView:
        return self._queue.view(name, self._driver.now())

    def queue_settings(self, name: str) -> QueueSettings:
        queue = self._queue.state.queues.get(name)
        return queue.settings if queue is not None else _DEFAULTS

    def queues(
        self, limit: int, after: str | None = None, within: Callable[[str], bool] | None = None
    ) -> list[QueueView]:
        now = self._driver.now()
        names = sorted(filter(within, set(self._queue.state.queues).union(self._queue.state.waiters.names())))
        start = bisect_right(names, after) if after is not None else 0
        return [self._queue.view(name, now) for name in names[start : start + limit]]

    def measured_queues(
        self, limit: int, owner: str = "", within: Callable[[str], bool] | None = None
    ) -> list[QueueView]:
        state, now = self._queue.state, self._driver.now()
        measured = self._measured.setdefault(owner, {})
        if len(self._measured) > _MEASURING:  # tokens come and go
            del self._measured[next(iter(self._measured))]
        known = [*state.past, *state.queues] if len(measured) < limit else ()
        for name in filter(within, known):
            if len(measured) >= limit:
                break
            if name not in measured:
                measured[name] = None
                queue = state.queues.get(name) or state.past[name]
                queue.measured = True
        names = measured if within is None else filter(within, measured)  # the rights may have changed
        return [self._queue.view(name, now) for name in islice(names, limit)]

    # -- schedules ----------------------------------------------------------------------------------

    def schedule(self, name: str) -> Schedule:
        return self._scheduler.get(name)

    def schedules(
        self,
        group: str | None,
        queues: frozenset[str] | None,
        paused: bool | None,
        limit: int,
        after: str | None = None,
        within: Callable[[str], bool] | None = None,
    ) -> list[Schedule]:
        return self._scheduler.listed(group, queues, paused, limit, after, within)

    def put_schedule(
        self, plan: Plan, paused: bool | None, version: int | None = None
    ) -> MaybeFuture[tuple[Schedule, bool]]:
        def put() -> tuple[Schedule, bool]:
            self._admit()
            return self._scheduler.put(plan, paused, version, self._driver.now())

        return self._commit.hold(self._scheduler.after_missed((plan.name,), self._driver.now, put))

    def put_schedules(
        self, plans: Sequence[tuple[Plan, bool | None]], group: str | None, dry_run: bool
    ) -> MaybeFuture[ScheduleChanges]:
        def put() -> ScheduleChanges:
            if not dry_run:
                self._admit()
            return self._scheduler.put_many(plans, group, dry_run, self._driver.now())

        return self._commit.hold(self._scheduler.after_checks(plans, self._driver.now, put))

    def delete_schedule(self, name: str, version: int | None = None) -> MaybeFuture[Schedule]:
        return self._commit.hold(self._scheduler.delete(name, version))

    def pause_schedule(
        self, name: str, reason: str | None, version: int | None = None
    ) -> MaybeFuture[Schedule]:
        def pause() -> Schedule:
            return self._scheduler.pause(name, reason, version, self._driver.now())

        return self._commit.hold(self._scheduler.after_missed((name,), self._driver.now, pause))

    def resume_schedule(self, name: str, version: int | None = None) -> MaybeFuture[Schedule]:
        return self._commit.hold(self._scheduler.resume(name, version, self._driver.now()))

    def run_schedule(self, name: str) -> MaybeFuture[Job | ExistingJob]:
        return self._commit.hold(self._scheduler.run_now(name, self._driver.now()))

    def explain_schedule(self, name: str) -> ScheduleExplanation:
        return self._scheduler.explain(name, self._driver.now())

    def schedule_figures(self, within: Callable[[str], bool] | None = None) -> ScheduleFigures:
        return self._scheduler.figures(self._driver.now(), within)

    def upcoming(self, of: Schedule | Plan, after: int, count: int) -> tuple[str, list[int]]:
        return self._scheduler.calendar.described(of, after, count)

    def _run_schedules(self, now: int) -> bool:
        """Does a slice of what is due. While the server stops, that is left to the next one."""
        return bool(self._queue.state.schedules) and not self.stopping and self._scheduler.run(now)

    def _count_payload(self, job: Job) -> None:
        self._commit.count_payloads((job,))

    # -- time, durability, statistics ---------------------------------------------------------------

    def wall_now(self) -> int:
        wall: int = self._queue.state.wall(self._driver.now())
        return wall

    def wall(self, monotonic: int) -> int:
        wall: int = self._queue.state.wall(monotonic)
        return wall

    def tick(self) -> int:
        """Does all work that is due, and returns the number of jobs moved. For a manual clock."""
        return self._driver.tick()

    def next_due(self) -> int | None:
        """Returns the monotonic time of the next tick that has anything to do but to forget; None: there is
        none. For a manual clock."""
        times = (self._queue.next_due(), self._scheduler.next_due())
        return min((time for time in times if time is not None), default=None)

    def after_commit(self, answer: MaybeFuture[T]) -> MaybeFuture[T]:
        return self._commit.hold(answer)

    def flush(self) -> None:
        self._commit.flush()

    def run(self, work: Callable[[], T]) -> MaybeFuture[T]:
        return work()

    def owns(self, id: str) -> bool:
        return True

    def answered_by(self, call: Future[Any]) -> str | None:
        return None

    def stats(self, within: Callable[[str], bool] | None = None, own: bool = False) -> EngineStats:
        state, driver = self._queue.state, self._driver
        counts, queues, waiting = state.counts, len(state.queues), state.waiters.count
        if within is not None:
            some = [named.counts for name, named in state.queues.items() if within(name)]
            queues = len(some)
            some += [past.counts for name, past in state.past.items() if within(name)]
            counts = TransitionCounts.of(some)
            waiting = state.waiters.waiting_within(within)
        lanes, slots, empty = self._queue.lane_figures()
        return EngineStats(
            jobs=counts.jobs(),
            queues=queues,
            consumers_waiting=waiting,
            ticks=driver.ticks,
            tick_last=driver.tick_last,
            tick_max=driver.tick_max,
            lanes=lanes,
            slots=slots,
            empty_slots=empty,
            compactions=state.compactions,
            compaction_max=driver.compaction_max,
            remembered=state.remembered,
            remembered_bytes=state.remembered_bytes,
            idempotency_keys=len(state.idempotency),
            idempotency_window=state.idempotency.window(driver.now()),
            totals=counts.totals(),
            memory=resident(),
            memory_limit=self.memory_limit.limit,
            journal=self._commit.stats(),
            dropped=self._dropped(),
        )

    def held(self) -> int:
        """Returns the number of jobs, finished ones included. O(1), unlike `stats`."""
        count: int = self._queue.state.counts.held()
        return count

    def _dropped(self) -> dict[str, int]:
        """Returns how much was forgotten before its time since the start, by what it was."""
        state = self._queue.state
        return {
            "dead_jobs": state.dropped.dead_jobs,
            "finished_jobs": state.dropped.finished_jobs,
            "idempotency_keys": state.idempotency.dropped,
            "import_origins": state.idempotency.dropped_origins,
            "queues": state.dropped.queues,
        }

    def watch(self, observer: Callable[[Kind, Job | str], None] | None) -> None:
        self._queue.state.event = observer

    def _after_slice(self) -> None:
        if not self.stopping:
            self._admission_error = self.memory_limit.check(
                self._queue.state.counts.held, self._payload_bytes
            )
        self._commit.after_tick()
        now = self._driver.now()
        self._drop_log.report(now, self._dropped)
        self._series.add(now)

    def _payload_bytes(self) -> int:
        """Bytes of the payloads of unfinished jobs, and of all that is kept of finished ones."""
        return (
            sum(queue.bytes for queue in self._queue.state.queues.values())
            + self._queue.state.remembered_bytes
        )

    # -- stopping -----------------------------------------------------------------------------------

    def when_stopping(self, callback: Callable[[], None]) -> None:
        self._stop_callbacks.append(callback)

    def stop_waiting(self) -> None:
        self.stopping = True
        self._admission_error = Stopping("the server is stopping and accepts no new jobs", retry_after=5)
        self._queue.end_waits()
        for callback in self._stop_callbacks:
            callback()

    def close(self) -> None:
        if self._closed:  # by who owns it, and when its changes could not be written
            return
        self._closed = True
        self.stop_waiting()
        self._driver.stop()
        self._commit.close()

    def _commit_held_up(self, reason: str | None) -> None:
        if not self._failed:
            self._refuses = reason

    def _commit_failed(self, error: Exception) -> None:
        self._failed = True
        self._refuses = "the server could not write its journal and is stopping"
        self._driver.stop()
        self.stop_waiting()
        self.on_failure(error)


def _new_queue(settings: Settings, clock: Clock, first_id: int | None) -> JobQueue:
    wall = clock.wall()
    limits = Limits(
        **{name: getattr(settings, name) for name in Limits.__struct_fields__ if name in Settings.declared}
    )
    first_id = first_id or settings.first_id or first_id_at(wall)
    return JobQueue(tokens().__next__, first_id, limits, wall - clock.monotonic(), random.random)


def _matched(result: BulkResult) -> int:
    return result.matched


def _any_queue(name: str) -> bool:
    return True


def _unchanged(result: BulkResult) -> BulkResult:
    return result
