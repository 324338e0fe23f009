"""ClusterEngine: the jobs of several servers as one engine.

A call for one shard goes to its owner, here or at another server. A call for several is divided, and the
answers are joined. Reads return at once, as those of any engine: where one has to ask another server, the
greenlet of the operation waits (`waiting`).
"""

import asyncio
from asyncio import Future
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from jobqueue.clock import Clock, SystemClock
from jobqueue.cluster import joining
from jobqueue.cluster.outcome import Outcome
from jobqueue.cluster.outcome_future import OutcomeFuture
from jobqueue.cluster.schedules import Schedules
from jobqueue.cluster.several import Gathered, SeveralDequeue, awaited, gathered, outcomes
from jobqueue.cluster.shard import RemoteCall, Shard
from jobqueue.cluster.waiting import Working, inside, run, wait
from jobqueue.engine.api import MaybeFuture, refuse
from jobqueue.engine.calendar import PlanCalendar
from jobqueue.engine.local import LocalEngine
from jobqueue.engine.memory_limit import MemoryLimit, resident
from jobqueue.engine.wait_future import WaitFuture
from jobqueue.errors import (
    JobForgotten,
    JobNotFound,
    JobQueueError,
    SeveralFamilies,
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
from jobqueue.shards import family, shard_of_id, shard_of_queue
from jobqueue.steps import Kind

T = TypeVar("T")
# Ended sessions that are remembered here.
_ENDED: Final = 10_000


class ClusterEngine:
    """An `Engine` over the shards of a database. The contract of each verb is in `engine.api`.

    `refuses` is a reason until the first look at the database. `members_seen` returns the servers that take
    part. `on_watch(observer)` is called when events of the other servers are wanted, or no longer.
    """

    def __init__(
        self, settings: Settings, shards: int, identity: str, secret: bytes, clock: Clock | None = None
    ) -> None:
        self.settings = settings
        self.reads_wait = True
        self.durability = "PostgreSQL"
        self.identity = identity
        self.secret = secret
        self.shards = [Shard(index) for index in range(shards)]
        self.stopping = False
        self.refuses: str | None = "the server is looking for the other servers of its database"
        self.memory_limit = MemoryLimit(settings.memory_limit)
        self.members_seen: Callable[[], Sequence[Member]] = lambda: ()
        self.on_watch: Callable[[Callable[[Kind, Job | str], None] | None], None] = lambda observer: None
        self.arriving: Callable[[], bool] | None = None
        self.own: list[LocalEngine] = []  # of the shards that this server owns
        self._clock = clock or SystemClock()
        self._calendar = PlanCalendar()
        self._stop_callbacks: list[Callable[[], None]] = []
        self._stop_refusal: Stopping | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._waits: set[OutcomeFuture | SeveralDequeue] = set()
        self._ended: dict[str, None] = {}  # sessions that were ended, the last ones that this server saw
        self._asked_for: set[str] = set()  # sessions of which the owner is asked
        self._schedules = Schedules(self.shards, self._task)

    # -- finding shards -----------------------------------------------------------------------------

    def run(self, work: Callable[[], T]) -> MaybeFuture[T]:
        return run(work)

    def owns(self, id: str) -> bool:
        if len(id) != 16 or not (id.isascii() and id.isdigit()):
            return False
        index = shard_of_id(int(id))
        return index is not None and index < len(self.shards) and self.shards[index].engine is not None

    def answered_by(self, call: Future[Any] | Outcome) -> str | None:
        if isinstance(call, OutcomeFuture):
            return self.answered_by(call.outcome)
        if isinstance(call, RemoteCall):
            return None if call.answered_by is None else call.answered_by.url
        if isinstance(call, Working):
            return self.answered_by(call.waits_for)
        if isinstance(call, Gathered):
            urls = {self.answered_by(one) for one in call.calls}
            return urls.pop() if len(urls) == 1 else None
        return None

    def _of_queue(self, name: str) -> Shard:
        return self.shards[shard_of_queue(name, len(self.shards))]

    def _of_id(self, id: int) -> Shard:
        """Returns the shard that has a job, if any has. The id of a job that was moved here with a journal
        does not tell, so all shards are asked for it."""
        index = shard_of_id(id)
        if len(self.shards) == 1:
            return self.shards[0]
        if index is None:
            return self._of_old_id(id)
        if index >= len(self.shards):
            raise JobNotFound("this server has never given that id")
        return self.shards[index]

    def _of_old_id(self, id: int) -> Shard:
        found = wait(outcomes([partial(shard.call, "get", id) for shard in self.shards]))
        for shard, job in zip(self.shards, found, strict=True):
            if isinstance(job, Job):
                return shard
        for shard, error in zip(self.shards, found, strict=True):
            if isinstance(error, JobForgotten):
                return shard
            if not isinstance(error, JobNotFound):
                raise error
        return self.shards[0]

    def _of_filter(self, where: Filter) -> list[Shard]:
        if where.queues is None:
            return self.shards
        return list({(shard := self._of_queue(name)).index: shard for name in where.queues}.values())

    def _from_all(self, verb: str, *arguments: Any) -> list[Any]:
        """Reads from all shards."""
        return self._from(self.shards, verb, *arguments)

    def _from(self, shards: Iterable[Shard], verb: str, *arguments: Any) -> list[Any]:
        return wait(gathered([partial(shard.call, verb, *arguments) for shard in shards]))

    def _task(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def _admit(self) -> None:
        if self._stop_refusal is not None:
            raise Stopping(self._stop_refusal.detail, **self._stop_refusal.facts)

    # -- enqueue ------------------------------------------------------------------------------------

    def enqueue(self, new: NewJob) -> MaybeFuture[Job | ExistingJob]:
        shard = self.shards[shard_of_queue(new.queue, len(self.shards))]
        if (engine := shard.local()) is not None:
            return engine.enqueue(new)
        self._admit()
        return shard.ask("enqueue", new)

    def enqueue_many(
        self, news: Sequence[NewJob], key: IdempotencyKey | None = None
    ) -> MaybeFuture[list[Job | ExistingJob] | PriorAnswer]:
        self._admit()
        if not news:
            return []
        first = family(news[0].queue)
        for index, new in enumerate(news):
            if family(new.queue) != first and len(self.shards) > 1:
                raise SeveralFamilies(
                    f"jobs for the queues {news[0].queue!r} and {new.queue!r} cannot be enqueued all or "
                    "nothing: what stands before the first colon differs, so other servers may have them. "
                    "Use atomic=false, or names such as mail and mail:high",
                    index=index,
                )
        return self._of_queue(news[0].queue).ask("enqueue_many", list(news), key)

    def enqueue_each(self, news: Sequence[NewJob]) -> MaybeFuture[list[Job | ExistingJob | JobQueueError]]:
        self._admit()
        parts: dict[int, list[int]] = {}
        for index, new in enumerate(news):
            parts.setdefault(shard_of_queue(new.queue, len(self.shards)), []).append(index)
        calls = [
            partial(self.shards[shard].call, "enqueue_each", [news[index] for index in places])
            for shard, places in parts.items()
        ]

        def in_order(answers: list[Any]) -> list[Job | ExistingJob | JobQueueError]:
            results: list[Any] = [None] * len(news)
            for places, answer in zip(parts.values(), answers, strict=True):
                for number, index in enumerate(places):
                    results[index] = answer if isinstance(answer, JobQueueError) else answer[number]
            return results

        return outcomes(calls, in_order)

    def import_jobs(
        self,
        items: Sequence[ImportItem],
        owner: str = "",
        within: Callable[[str], bool] | None = None,
    ) -> MaybeFuture[ImportResult]:
        self._admit()
        runs: list[tuple[Shard, list[ImportItem]]] = []
        for item in items:
            shard = self._of_queue(item.new.queue)
            if not runs or runs[-1][0] is not shard:
                runs.append((shard, []))
            runs[-1][1].append(item)
        if len(runs) == 1:
            return runs[0][0].call("import_jobs", runs[0][1], owner, within)
        return self._task(self._import_in_turn(runs, owner, within))

    async def _import_in_turn(
        self,
        runs: Sequence[tuple[Shard, list[ImportItem]]],
        owner: str,
        within: Callable[[str], bool] | None,
    ) -> ImportResult:
        imported = known = 0
        for shard, items in runs:
            try:
                part = await awaited(shard.call("import_jobs", items, owner, within))
            except JobQueueError as refused:
                if not imported + known:
                    raise
                return ImportResult(imported, known, refused)
            imported, known = imported + part.imported, known + part.known
            if part.refused is not None:
                return ImportResult(imported, known, part.refused)
        return ImportResult(imported, known)

    def unique_owner(self, name: str, key: str) -> Job | None:
        found: Job | None = self._of_queue(name).read("unique_owner", name, key)
        return found

    def find_prior_answer(self, owner: str, key: str, digest: bytes) -> PriorAnswer | None:
        """Returns None: a key counts within a family, so only `enqueue_many` can know."""
        return None

    # -- dequeue ------------------------------------------------------------------------------------

    def dequeue(self, request: DequeueRequest, wait: int = 0) -> MaybeFuture[list[Delivery]]:
        if self.stopping:
            return []
        queues = request.queues
        shard = self.shards[shard_of_queue(queues[0], len(self.shards))]
        if len(queues) == 1:
            if (engine := shard.local()) is not None:
                return engine.dequeue(request, wait)
            if wait:
                return self._until_stop(shard.call("dequeue", request, wait))
            return shard.ask("dequeue", request, 0)
        groups: list[tuple[Shard, list[str]]] = []
        for name in queues:
            shard = self._of_queue(name)
            if request.by_priority:  # then the order of the queues does not count
                known = next((group for group in groups if group[0] is shard), None)
            else:
                known = groups[-1] if groups and groups[-1][0] is shard else None
            if known is not None:
                known[1].append(name)
            else:
                groups.append((shard, [name]))
        if len(groups) == 1:
            return self._until_stop(groups[0][0].call("dequeue", request, wait))
        return self._until_stop(SeveralDequeue(groups, request, wait))

    def _until_stop(self, answer: MaybeFuture[T]) -> MaybeFuture[T]:
        """Has a wait end when this server stops. Those of its own engines end by themselves."""
        if isinstance(answer, (OutcomeFuture, SeveralDequeue)) and not answer.done():
            self._waits.add(answer)
            answer.add_done_callback(self._waits.discard)
        return answer

    def dequeue_job(self, id: int, request: DequeueRequest) -> MaybeFuture[list[Delivery]]:
        return [] if self.stopping else self._of_id(id).ask("dequeue_job", id, request)

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        for shard, part in self._divided(deliveries):
            shard.give_back(part)

    def lose(self, deliveries: Sequence[Delivery]) -> None:
        for shard, part in self._divided(deliveries):
            shard.give_back(part, lose=True)

    def on_lease_end(self, deliveries: Sequence[Delivery], ended: Callable[[Job], None]) -> None:
        for shard, part in self._divided(deliveries):
            shard.on_lease_end(part, ended)

    def _divided(self, deliveries: Sequence[Delivery]) -> Iterable[tuple[Shard, list[Delivery]]]:
        parts: dict[int, list[Delivery]] = {}
        for one in deliveries:
            index = shard_of_id(one[0].id)
            if index is None:
                index = shard_of_queue(one[0].queue, len(self.shards))
            parts.setdefault(index, []).append(one)
        return [(self.shards[index], part) for index, part in parts.items()]

    def end_wait(self, future: Future[Any], error: JobQueueError) -> None:
        if isinstance(future, WaitFuture) and not future.done():
            future.end()
            refuse(future, error)

    # -- under a lease ------------------------------------------------------------------------------

    def conclude(self, claim: LeaseClaim, result: bytes | None) -> MaybeFuture[Job]:
        shard = self._of_id(claim.id)
        if (engine := shard.local()) is not None:
            return engine.conclude(claim, result)
        return shard.ask("conclude", claim, result)

    def release(self, claim: LeaseClaim, delay: int = 0, priority: int | None = None) -> MaybeFuture[Job]:
        return self._of_id(claim.id).ask("release", claim, delay, priority)

    def fail(
        self,
        claim: LeaseClaim,
        error: bytes | None = None,
        retry: bool = True,
        retry_in: int | None = None,
    ) -> MaybeFuture[Job]:
        return self._of_id(claim.id).ask("fail", claim, error, retry, retry_in)

    def heartbeat(
        self,
        claim: LeaseClaim,
        lease_for: int | None = None,
        progress: int | None = None,
        message: str | None = None,
    ) -> MaybeFuture[Job]:
        return self._of_id(claim.id).ask("heartbeat", claim, lease_for, progress, message)

    def renew(self, claim: LeaseClaim, lease_for: int) -> MaybeFuture[Job]:
        return self._of_id(claim.id).ask("renew", claim, lease_for)

    def each(self, calls: Sequence[Callable[[], MaybeFuture[Job]]]) -> MaybeFuture[list[Job | JobQueueError]]:
        return outcomes([partial(run, call) for call in calls])

    # -- single jobs --------------------------------------------------------------------------------

    def get(self, id: int) -> Job:
        shard = self._of_id(id)
        if (engine := shard.local()) is not None:
            return engine.get(id)
        job: Job = shard.read("get", id)
        return job

    def wait_for(self, id: int, wait: int) -> MaybeFuture[Job]:
        answer: MaybeFuture[Job] = self._of_id(id).call("wait_for", id, wait)
        return self._until_stop(answer)

    def explain(self, id: int) -> Explanation:
        found: Explanation = self._of_id(id).read("explain", id)
        return found

    def state(self, names: Sequence[str]) -> str:
        if self.stopping:
            return "stopping"
        parts: dict[int, list[str]] = {}
        for name in names:
            parts.setdefault(self._of_queue(name).index, []).append(name)
        # A dequeue that got nothing asks. It is answered while one of its shards has no owner.
        owned = {index: part for index, part in parts.items() if self.shards[index].has_owner}
        parts = owned or parts
        return joining.state(
            wait(gathered([partial(self.shards[index].call, "state", part) for index, part in parts.items()]))
        )

    def cancel(self, id: int, force: bool = False, version: int | None = None) -> MaybeFuture[Job]:
        return self._of_id(id).ask("cancel", id, force, version)

    def change(self, id: int, change: Change, version: int | None = None) -> MaybeFuture[Job]:
        return self._of_id(id).ask("change", id, change, version)

    def redrive(self, id: int, version: int | None = None) -> MaybeFuture[Job]:
        return self._of_id(id).ask("redrive", id, version)

    # -- many jobs ----------------------------------------------------------------------------------

    def list_jobs(
        self, where: Filter, after: int | None, ascending: bool, limit: int
    ) -> tuple[list[Job], int | None]:
        parts = self._from(self._of_filter(where), "list_jobs", where, after, ascending, limit)
        return joining.page(parts, ascending, limit)

    def newest_id(self) -> int:
        found: list[int] = self._from_all("newest_id")
        return max(found)

    def peek(self, name: str, limit: int) -> list[Job]:
        found: list[Job] = self._of_queue(name).read("peek", name, limit)
        return found

    def series(self, name: str, length: int, step: int) -> QueueSeries:
        found: QueueSeries = self._of_queue(name).read("series", name, length, step)
        return found

    def count_jobs(self, where: Filter) -> MaybeFuture[int]:
        return gathered([partial(shard.call, "count_jobs", where) for shard in self._of_filter(where)], sum)

    def group_jobs(self, where: Filter, by: Sequence[str], limit: int) -> MaybeFuture[JobGroups]:
        shards = self._of_filter(where)
        calls = [partial(shard.call, "group_jobs", where, list(by), limit) for shard in shards]
        return gathered(calls, partial(joining.groups, limit=limit))

    def purge(self, where: Filter, dry_run: bool) -> MaybeFuture[BulkResult]:
        return gathered(
            [partial(shard.call, "purge", where, dry_run) for shard in self._of_filter(where)], joining.bulk
        )

    def redrive_many(self, where: Filter, limit: int | None, dry_run: bool) -> MaybeFuture[BulkResult]:
        return self._bulk(where, limit, lambda left: ("redrive_many", where, left, dry_run))

    def cancel_many(
        self, where: Filter, force: bool, limit: int | None, dry_run: bool
    ) -> MaybeFuture[BulkResult]:
        return self._bulk(where, limit, lambda left: ("cancel_many", where, force, left, dry_run))

    def run_many_now(self, where: Filter, limit: int | None, dry_run: bool) -> MaybeFuture[BulkResult]:
        return self._bulk(where, limit, lambda left: ("run_many_now", where, left, dry_run))

    def move_many(
        self, where: Filter, target: str | None, limit: int | None, dry_run: bool
    ) -> MaybeFuture[BulkResult]:
        return self._bulk(where, limit, lambda left: ("move_many", where, target, left, dry_run))

    def _bulk(
        self, where: Filter, limit: int | None, call: Callable[[int | None], tuple[Any, ...]]
    ) -> MaybeFuture[BulkResult]:
        shards = self._of_filter(where)
        if len(shards) == 1:
            return shards[0].ask(*call(limit))
        return self._task(self._in_turn(shards, limit, call))

    async def _in_turn(
        self, shards: Sequence[Shard], limit: int | None, call: Callable[[int | None], tuple[Any, ...]]
    ) -> BulkResult:
        results: list[BulkResult] = []
        for shard in shards:
            left = None if limit is None else limit - sum(result.matched for result in results)
            if left == 0 or (results and results[-1].refused is not None):
                break
            results.append(await awaited(shard.call(*call(left))))
        return joining.bulk(results)

    # -- queues -------------------------------------------------------------------------------------

    def configure(
        self, name: str, changes: dict[str, object], version: int | None = None
    ) -> MaybeFuture[QueueView]:
        return self._of_queue(name).ask("configure", name, changes, version)

    def pause(
        self,
        name: str,
        duration: int | None,
        reason: str | None,
        version: int | None = None,
        by: str | None = None,
    ) -> MaybeFuture[QueueView]:
        return self._of_queue(name).ask("pause", name, duration, reason, version, by)

    def resume(self, name: str, version: int | None = None) -> MaybeFuture[QueueView]:
        return self._of_queue(name).ask("resume", name, version)

    def consumers(self, limit: int, within: Callable[[str], bool] | None = None) -> Consumers:
        return joining.consumers(self._from_all("consumers", limit, within), limit)

    def queue(self, name: str) -> QueueView:
        found: QueueView = self._of_queue(name).read("queue", name)
        return found

    def queue_settings(self, name: str) -> QueueSettings:
        found: QueueSettings = self._of_queue(name).read("queue_settings", name)
        return found

    def queues(
        self, limit: int, after: str | None = None, within: Callable[[str], bool] | None = None
    ) -> list[QueueView]:
        parts = self._from_all("queues", limit, after, within)
        own = [
            [view for view in part if self._of_queue(view.name) is shard]  # without those on their way
            for shard, part in zip(self.shards, parts, strict=True)
        ]
        return joining.queues(own, limit)

    def measured_queues(
        self, limit: int, owner: str = "", within: Callable[[str], bool] | None = None
    ) -> list[QueueView]:
        """Returns queues of this server only: each server has metrics of its own."""
        found: list[QueueView] = []
        for engine in self.own:
            found += engine.measured_queues(max(limit - len(found), 0), owner, within)
        return found

    def new_errors(
        self, since: int, limit: int, within: Callable[[str], bool] | None = None
    ) -> list[NewError]:
        found = [new for part in self._from_all("new_errors", since, limit, within) for new in part]
        return sorted(found, key=lambda new: -new.times)[:limit]

    # -- schedules ----------------------------------------------------------------------------------

    def schedule(self, name: str) -> Schedule:
        return self._schedules.schedule(name)

    def schedules(
        self,
        group: str | None,
        queues: frozenset[str] | None,
        paused: bool | None,
        limit: int,
        after: str | None = None,
        within: Callable[[str], bool] | None = None,
    ) -> list[Schedule]:
        return self._schedules.schedules(group, queues, paused, limit, after, within)

    def put_schedule(
        self, plan: Plan, paused: bool | None, version: int | None = None
    ) -> MaybeFuture[tuple[Schedule, bool]]:
        self._admit()
        return self._schedules.put(plan, paused, version)

    def put_schedules(
        self, plans: Sequence[tuple[Plan, bool | None]], group: str | None, dry_run: bool
    ) -> MaybeFuture[ScheduleChanges]:
        if not dry_run:
            self._admit()
        return self._schedules.put_all(plans, group, dry_run)

    def delete_schedule(self, name: str, version: int | None = None) -> MaybeFuture[Schedule]:
        return self._schedules.delete(name, version)

    def pause_schedule(
        self, name: str, reason: str | None, version: int | None = None
    ) -> MaybeFuture[Schedule]:
        return self._schedules.shard_with(name).ask("pause_schedule", name, reason, version)

    def resume_schedule(self, name: str, version: int | None = None) -> MaybeFuture[Schedule]:
        return self._schedules.shard_with(name).ask("resume_schedule", name, version)

    def run_schedule(self, name: str) -> MaybeFuture[Job | ExistingJob]:
        return self._schedules.shard_with(name).ask("run_schedule", name)

    def explain_schedule(self, name: str) -> ScheduleExplanation:
        found: ScheduleExplanation = self._schedules.shard_with(name).read("explain_schedule", name)
        return found

    def schedule_figures(self, within: Callable[[str], bool] | None = None) -> ScheduleFigures:
        """Returns figures of this server only, as `measured_queues`."""
        own = [engine.schedule_figures(within) for engine in self.own]
        return joining.figures(own) if own else ScheduleFigures({}, 0, {})

    def upcoming(self, of: Schedule | Plan, after: int, count: int) -> tuple[str, list[int]]:
        return self._calendar.described(of, after, count)

    # -- time, durability, statistics ---------------------------------------------------------------

    def clock(self) -> int:
        """Returns the wall clock at the time when the monotonic clock was 0."""
        return self.own[0].wall(0) if self.own else self._clock.wall() - self._clock.monotonic()

    def wall_now(self) -> int:
        return self.own[0].wall_now() if self.own else self._clock.wall()

    def wall(self, monotonic: int) -> int:
        return monotonic + self.clock()

    def after_commit(self, answer: MaybeFuture[T]) -> MaybeFuture[T]:
        if not self.own:
            return answer
        committed = gathered([partial(engine.after_commit, None) for engine in self.own])
        if not isinstance(committed, Future):
            return answer
        later: MaybeFuture[T] = gathered([lambda: committed, lambda: answer], lambda both: both[1])
        return later

    def flush(self) -> None:
        for engine in list(self.own):
            engine.flush()

    def end_session(self, code: str) -> MaybeFuture[None]:
        ended = self.shards[0].ask("end_session", code)
        self._remember_ended(code)
        return ended

    def has_ended(self, code: str) -> bool:
        """Tells whether a session was ended. Where nothing can be waited for, as in the checks of streams,
        the answer is what was known at the last look, and another look begins."""
        if code in self._ended:
            return True
        if self.shards[0].engine is None and not inside():
            if code not in self._asked_for:
                self._ask_for(code)
            return code in self._ended
        ended: bool = self.shards[0].read("has_ended", code)
        if ended:
            self._remember_ended(code)
        return ended

    def _ask_for(self, code: str) -> None:
        def answered(answer: Future[bool]) -> None:
            self._asked_for.discard(code)
            if not answer.cancelled() and answer.exception() is None and answer.result():
                self._remember_ended(code)

        answer = self.shards[0].call("has_ended", code)
        if isinstance(answer, Future):
            self._asked_for.add(code)
            answer.add_done_callback(answered)

    def _remember_ended(self, code: str) -> None:
        self._ended[code] = None
        if len(self._ended) > _ENDED:
            del self._ended[next(iter(self._ended))]

    def members(self) -> Sequence[Member]:
        return self.members_seen()

    def stats(self, within: Callable[[str], bool] | None = None, own: bool = False) -> EngineStats:
        parts = [engine.stats(within) for engine in self.own] if own else self._from_all("stats", within)
        if not parts:
            parts = [LocalEngine(self.settings).stats()]
        return joining.stats(parts, resident(), self.memory_limit.limit)

    def watch_arrivals(self, arriving: Callable[[], bool]) -> None:
        """As that of `LocalEngine`, for all shards that this server has now or later."""
        self.arriving = arriving
        for engine in self.own:
            engine.watch_arrivals(arriving)

    def held(self) -> int:
        return sum(engine.held() for engine in self.own)

    def watch(self, observer: Callable[[Kind, Job | str], None] | None) -> None:
        self.on_watch(observer)

    # -- stopping -----------------------------------------------------------------------------------

    def when_stopping(self, callback: Callable[[], None]) -> None:
        self._stop_callbacks.append(callback)

    def stop_waiting(self) -> None:
        self.stopping = True
        self._stop_refusal = Stopping("the server is stopping and accepts no new jobs", retry_after=5)
        for engine in list(self.own):  # one whose changes cannot be written leaves it
            engine.stop_waiting()
        for waiting in list(self._waits):
            waiting.stop()
        for callback in self._stop_callbacks:
            callback()

    def close(self) -> None:
        self.stop_waiting()
        for engine in list(self.own):
            engine.close()
