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
from typing import Any, Final, TypeVar

from msgspec import UNSET
from msgspec.structs import replace

from jobqueue.engine.api import Engine, MaybeFuture
from jobqueue.errors import JobNotFound, JobQueueError, LeaseLost, Refused, ScheduleNotFound
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
from jobqueue.web.access.identity import Principal
from jobqueue.web.futures import then

T = TypeVar("T")
# Length of a lease token without a tag, from a time without access tokens: any caller may use it.
_UNTAGGED: Final = 16


def _refused_after(refused: Refused, taken: ImportResult) -> ImportResult:
    return taken if taken.refused is not None else taken._replace(refused=refused)


class AuthorizedEngine:
    """Keeps the hot verbs of the engine in slots.

    With many tokens each call uses another object, whose dict would not be in the processor's cache.
    """

    __slots__ = (
        "_conclude",
        "_dequeue",
        "_engine",
        "_enqueue",
        "_fail",
        "_heartbeat",
        "_release",
        "_seen",
        "_tag",
        "_who",
        "durability",
        "identity",
        "reads_wait",
        "settings",
    )

    def __init__(self, engine: Engine, who: Principal[Any]) -> None:
        self._engine = engine
        self._who = who
        self._seen = who.queue_access
        self._tag = urlsafe_b64encode(sha256(who.name.encode()).digest())[:6].decode()
        self._enqueue, self._dequeue = engine.enqueue, engine.dequeue
        self._conclude, self._heartbeat = engine.conclude, engine.heartbeat
        self._release, self._fail = engine.release, engine.fail
        self.settings = engine.settings
        self.reads_wait = engine.reads_wait
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
        if not self._who.may_use(job.queue):
            raise JobNotFound("this server has never given that id")
        return job

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
        self, news: Sequence[NewJob], key: IdempotencyKey | None = None
    ) -> MaybeFuture[list[Job | ExistingJob] | PriorAnswer]:
        self._check_queues(news)
        if key is None:
            return self._engine.enqueue_many(news, None)
        made: Any = self._engine.enqueue_many(news, key._replace(owner=self._who.name))
        return then(made, self._seen_prior)

    def _seen_prior(
        self, made: list[Job | ExistingJob] | PriorAnswer
    ) -> list[Job | ExistingJob] | PriorAnswer:
        return self._visible(made) if isinstance(made, PriorAnswer) else made

    def enqueue_each(self, news: Sequence[NewJob]) -> MaybeFuture[list[Job | ExistingJob | JobQueueError]]:
        self._check_queues(news)
        return self._engine.enqueue_each(news)

    def import_jobs(
        self,
        items: Sequence[ImportItem],
        owner: str = "",
        within: Callable[[str], bool] | None = None,
    ) -> MaybeFuture[ImportResult]:
        """Imports the items before the first one that is for another queue, as before any other refused
        item. Origins belong to the token, which may have become invalid since an earlier part of the import.
        """
        who = self._who
        who.check(self._engine.wall_now())
        within = None if who.token.queues is None else who.may_use
        for index, arrival in enumerate(items):
            if not self._who.may_use(arrival.new.queue):
                refused = self._refused(arrival.new.queue)
                taken = self._engine.import_jobs(items[:index], who.name, within)
                return then(taken, partial(_refused_after, refused))
        return self._engine.import_jobs(items, who.name, within)

    def dequeue(self, request: DequeueRequest, wait: int = 0) -> MaybeFuture[list[Delivery]]:
        for name in request.queues:
            if not self._seen.get(name):
                self._check_queue(name)
        mine = DequeueRequest(
            request.queues,
            request.lease_for,
            request.count,
            request.consumer,
            self._tag,
            request.by_priority,
            request.by_run,
        )
        return self._dequeue(mine, wait)

    def dequeue_job(self, id: int, request: DequeueRequest) -> MaybeFuture[list[Delivery]]:
        self._check_job(id)
        mine = DequeueRequest((), request.lease_for, None, request.consumer, self._tag)
        return self._engine.dequeue_job(id, mine)

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        self._engine.give_back(deliveries)

    def lose(self, deliveries: Sequence[Delivery]) -> None:
        self._engine.lose(deliveries)

    def on_lease_end(self, deliveries: Sequence[Delivery], ended: Callable[[Job], None]) -> None:
        self._engine.on_lease_end(deliveries, ended)

    def end_wait(self, future: Future[Any], error: JobQueueError) -> None:
        self._engine.end_wait(future, error)

    # -- under a lease ------------------------------------------------------------------------------

    def conclude(self, claim: LeaseClaim, result: bytes | None) -> MaybeFuture[Job]:
        token = claim.token
        if token is None or not token.startswith(self._tag):
            self._check_lease(claim.id)
        try:
            return self._conclude(claim, result)
        except LeaseLost:
            self._check_lease(claim.id)
            raise

    def release(self, claim: LeaseClaim, delay: int = 0, priority: int | None = None) -> MaybeFuture[Job]:
        token = claim.token
        if token is None or not token.startswith(self._tag):
            self._check_lease(claim.id)
        try:
            return self._release(claim, delay, priority)
        except LeaseLost:
            self._check_lease(claim.id)
            raise

    def fail(
        self,
        claim: LeaseClaim,
        error: bytes | None = None,
        retry: bool = True,
        retry_in: int | None = None,
    ) -> MaybeFuture[Job]:
        token = claim.token
        if token is None or not token.startswith(self._tag):
            self._check_lease(claim.id)
        try:
            return self._fail(claim, error, retry, retry_in)
        except LeaseLost:
            self._check_lease(claim.id)
            raise

    def heartbeat(
        self,
        claim: LeaseClaim,
        lease_for: int | None = None,
        progress: int | None = None,
        message: str | None = None,
    ) -> MaybeFuture[Job]:
        token = claim.token
        if token is None or not token.startswith(self._tag):
            self._check_lease(claim.id)
        try:
            return self._heartbeat(claim, lease_for, progress, message)
        except LeaseLost:
            self._check_lease(claim.id)
            raise

    def renew(self, claim: LeaseClaim, lease_for: int) -> MaybeFuture[Job]:
        self._check_lease(claim.id)
        return self._engine.renew(claim, lease_for)

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

    def unique_owner(self, name: str, key: str) -> Job | None:
        self._check_queue(name)
        return self._engine.unique_owner(name, key)

    def find_prior_answer(self, owner: str, key: str, digest: bytes) -> PriorAnswer | None:
        """Returns jobs that were moved out of sight like forgotten ones."""
        found = self._engine.find_prior_answer(self._who.name, key, digest)
        return None if found is None else self._visible(found)

    def _visible(self, found: PriorAnswer) -> PriorAnswer:
        may_use = self._who.may_use
        made = [job if isinstance(job, int) or may_use(job.queue) else job.id for job in found.made]
        return PriorAnswer(made, found.many)

    def after_commit(self, answer: MaybeFuture[T]) -> MaybeFuture[T]:
        return self._engine.after_commit(answer)

    # -- many jobs, queues --------------------------------------------------------------------------

    def list_jobs(
        self, where: Filter, after: int | None, ascending: bool, limit: int
    ) -> tuple[list[Job], int | None]:
        return self._engine.list_jobs(self._within(where), after, ascending, limit)

    def newest_id(self) -> int:
        return self._engine.newest_id()

    def peek(self, name: str, limit: int) -> list[Job]:
        self._check_queue(name)
        return self._engine.peek(name, limit)

    def series(self, name: str, length: int, step: int) -> QueueSeries:
        self._check_queue(name)
        return self._engine.series(name, length, step)

    def count_jobs(self, where: Filter) -> MaybeFuture[int]:
        return self._engine.count_jobs(self._within(where))

    def group_jobs(self, where: Filter, by: Sequence[str], limit: int) -> MaybeFuture[JobGroups]:
        return self._engine.group_jobs(self._within(where), by, limit)

    def purge(self, where: Filter, dry_run: bool) -> MaybeFuture[BulkResult]:
        self._check_filter(where)
        return self._engine.purge(self._within(where), dry_run)

    def redrive_many(self, where: Filter, limit: int | None, dry_run: bool) -> MaybeFuture[BulkResult]:
        self._check_filter(where)
        return self._engine.redrive_many(self._within(where), limit, dry_run)

    def cancel_many(
        self, where: Filter, force: bool, limit: int | None, dry_run: bool
    ) -> MaybeFuture[BulkResult]:
        self._check_filter(where)
        return self._engine.cancel_many(self._within(where), force, limit, dry_run)

    def run_many_now(self, where: Filter, limit: int | None, dry_run: bool) -> MaybeFuture[BulkResult]:
        self._check_filter(where)
        return self._engine.run_many_now(self._within(where), limit, dry_run)

    def move_many(
        self, where: Filter, target: str | None, limit: int | None, dry_run: bool
    ) -> MaybeFuture[BulkResult]:
        """Moves jobs between queues of the token. Those that died in a queue of others do not match."""
        self._check_filter(where)
        if target is not None:
            self._check_queue(target)
        elif self._who.token.queues is not None:
            where = replace(where, died_in=self._who.may_use)
        return self._engine.move_many(self._within(where), target, limit, dry_run)

    def configure(
        self, name: str, changes: dict[str, object], version: int | None = None
    ) -> MaybeFuture[QueueView]:
        self._check_queue(name)
        if isinstance(letter := changes.get("dead_letter"), str):
            self._check_queue(letter)
        return self._engine.configure(name, changes, version)

    def pause(
        self,
        name: str,
        duration: int | None,
        reason: str | None,
        version: int | None = None,
        by: str | None = None,
    ) -> MaybeFuture[QueueView]:
        self._check_queue(name)
        return self._engine.pause(name, duration, reason, version, self._who.name)

    def resume(self, name: str, version: int | None = None) -> MaybeFuture[QueueView]:
        self._check_queue(name)
        return self._engine.resume(name, version)

    def consumers(self, limit: int, within: Callable[[str], bool] | None = None) -> Consumers:
        return self._engine.consumers(limit, None if self._who.token.queues is None else self._who.may_use)

    def new_errors(
        self, since: int, limit: int, within: Callable[[str], bool] | None = None
    ) -> list[NewError]:
        return self._engine.new_errors(
            since, limit, None if self._who.token.queues is None else self._who.may_use
        )

    def queue(self, name: str) -> QueueView:
        self._check_queue(name)
        return self._engine.queue(name)

    def queue_settings(self, name: str) -> QueueSettings:
        if not self._seen.get(name):
            self._check_queue(name)
        return self._engine.queue_settings(name)

    def queues(
        self, limit: int, after: str | None = None, within: Callable[[str], bool] | None = None
    ) -> list[QueueView]:
        return self._engine.queues(limit, after, self._who.may_use)

    def measured_queues(
        self, limit: int, owner: str = "", within: Callable[[str], bool] | None = None
    ) -> list[QueueView]:
        if self._who.token.queues is None:
            return self._engine.measured_queues(limit)
        return self._engine.measured_queues(limit, self._who.name, self._who.may_use)

    # -- schedules ----------------------------------------------------------------------------------

    def _check_schedule(self, name: str) -> Schedule:
        """Returns a schedule. One whose jobs go to another queue does not exist for the caller."""
        schedule = self._engine.schedule(name)
        if not self._who.may_use(schedule.plan.job.queue):
            raise ScheduleNotFound(f"there is no schedule {name!r}")
        return schedule

    def _check_plan(self, plan: Plan) -> None:
        self._check_queue(plan.job.queue)
        try:
            existing = self._engine.schedule(plan.name)
        except ScheduleNotFound:
            return
        if not self._who.may_use(existing.plan.job.queue):
            raise Refused(f"the name {plan.name!r} is taken by a schedule that this access token is not for")

    def schedule(self, name: str) -> Schedule:
        return self._check_schedule(name)

    def schedules(
        self,
        group: str | None,
        queues: frozenset[str] | None,
        paused: bool | None,
        limit: int,
        after: str | None = None,
        within: Callable[[str], bool] | None = None,
    ) -> list[Schedule]:
        return self._engine.schedules(group, queues, paused, limit, after, self._who.may_use)

    def put_schedule(
        self, plan: Plan, paused: bool | None, version: int | None = None
    ) -> MaybeFuture[tuple[Schedule, bool]]:
        self._check_plan(plan)
        return self._engine.put_schedule(plan, paused, version)

    def put_schedules(
        self, plans: Sequence[tuple[Plan, bool | None]], group: str | None, dry_run: bool
    ) -> MaybeFuture[ScheduleChanges]:
        """Refuses a group that has schedules of other queues: it would delete them."""
        for index, (plan, _) in enumerate(plans):
            try:
                self._check_plan(plan)
            except Refused as refused:
                refused.facts["index"] = index
                raise
        if group is not None and self._engine.schedules(group, None, None, 1, None, self._may_not_use):
            raise Refused(f"the group {group!r} has schedules that this access token is not for")
        return self._engine.put_schedules(plans, group, dry_run)

    def _may_not_use(self, queue: str) -> bool:
        return not self._who.may_use(queue)

    def delete_schedule(self, name: str, version: int | None = None) -> MaybeFuture[Schedule]:
        self._check_schedule(name)
        return self._engine.delete_schedule(name, version)

    def pause_schedule(
        self, name: str, reason: str | None, version: int | None = None
    ) -> MaybeFuture[Schedule]:
        self._check_schedule(name)
        return self._engine.pause_schedule(name, reason, version)

    def resume_schedule(self, name: str, version: int | None = None) -> MaybeFuture[Schedule]:
        self._check_schedule(name)
        return self._engine.resume_schedule(name, version)

    def explain_schedule(self, name: str) -> ScheduleExplanation:
        self._check_schedule(name)
        return self._engine.explain_schedule(name)

    def run_schedule(self, name: str) -> MaybeFuture[Job | ExistingJob]:
        self._check_schedule(name)
        return self._engine.run_schedule(name)

    def upcoming(self, of: Schedule | Plan, after: int, count: int) -> tuple[str, list[int]]:
        return self._engine.upcoming(of, after, count)

    # -- the service --------------------------------------------------------------------------------

    def schedule_figures(self, within: Callable[[str], bool] | None = None) -> ScheduleFigures:
        if self._who.token.queues is None:
            return self._engine.schedule_figures()
        return self._engine.schedule_figures(self._who.may_use)._replace(outcomes={})

    def members(self) -> Sequence[Member]:
        return self._engine.members()

    def stats(self, within: Callable[[str], bool] | None = None, own: bool = False) -> EngineStats:
        return self._engine.stats(None if self._who.token.queues is None else self._who.may_use, own)

    def run(self, work: Callable[[], T]) -> MaybeFuture[T]:
        return self._engine.run(work)

    def wall_now(self) -> int:
        return self._engine.wall_now()

    def wall(self, monotonic: int) -> int:
        return self._engine.wall(monotonic)
