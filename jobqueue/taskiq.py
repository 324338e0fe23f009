"""A broker for taskiq: its tasks are jobs of the queue. docs/frameworks.md shows how it is used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import uuid4

import msgspec
from msgspec import Raw

from jobqueue.client import AsyncClient, Duration, Heartbeat, Job, Release
from jobqueue.client.encoding import seconds
from jobqueue.errors import JobQueueError
from jobqueue.worker.reporter import Delays, may_succeed_later
from jobqueue.worker.running_job import described, is_lease_lost

try:
    from taskiq import (
        AckableMessage,
        AsyncBroker,
        BrokerMessage,
        TaskiqMessage,
        TaskiqMiddleware,
        TaskiqResult,
    )
    from taskiq.exceptions import NoResultError
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"jobqueue.taskiq needs taskiq ({missing}): pip install taskiq", name=missing.name
    ) from None

_logger = logging.getLogger("jobqueue.taskiq")
# The header by which a job is known as a message of taskiq.
_HEADER: Final = "taskiq-task-id"
# Seconds that a dequeue waits for a job.
_WAIT: Final = 25
# Seconds between heartbeats, at most.
_BEAT: Final = 10.0
# Seconds for which a job is given back whose task is unknown: a newer worker may know it.
_UNKNOWN_DELAY: Final = 30
# Labels of a task that are options of its job: text, a whole number, or a length of time.
_TEXTS: Final = ("queue", "key", "unique_key")
_NUMBERS: Final = ("priority", "max_attempts")
_LENGTHS: Final = ("delay", "expires_in", "retain_for")


@dataclass(slots=True)
class _Running:
    """What the task of a job has raised, and whether it may be tried again."""

    error: BaseException | None = None
    may_retry: bool = False


# The run of the asyncio task, in which taskiq calls the middlewares and runs the task.
_own: ContextVar[_Running | None] = ContextVar("jobqueue.taskiq.run", default=None)


class JobQueueBroker(AsyncBroker):
    """Sends the tasks of taskiq to a jobqueue server, and takes them from there.

    - `url`, `token`: of the server; by default JOBQUEUE_URL and JOBQUEUE_TOKEN. Or `client`, one of your own.
    - `queue`: where tasks go that have no label `queue`. `queues`: those that a worker takes tasks from, the
      first one that has some counts; `queue` by default.
    - `lease_for`: the lease of a job. It is renewed until the task has ended, so this is how soon others get
      the tasks of a worker that died.

    A task that raises fails its job: dead at once, or if it has the label `max_attempts`, tried again after
    the backoff. A task that a retry middleware of taskiq has sent again is concluded.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        queue: str = "taskiq",
        queues: Iterable[str] | None = None,
        lease_for: Duration = 30,
        client: AsyncClient | None = None,
    ) -> None:
        super().__init__()
        self.client = client or AsyncClient(url, token=token)
        self._queue = queue
        self._queues = [queue] if queues is None else list(queues)
        self._lease_for = seconds(lease_for)
        self._held: dict[int, Job] = {}
        self._beating: asyncio.Task[None] | None = None
        # The latest run of each task in progress, by the task's id. A retry middleware sends a task again
        # under the same id, in another job, which may begin before the one before it is acknowledged.
        self._running: dict[str, _Running] = {}
        self._unknown: set[str] = set()
        # The first one, whose on_error taskiq calls last, after a retry middleware has decided.
        self.add_middlewares(_Errors(self._running))

    async def kick(self, message: BrokerMessage) -> None:
        """Enqueues a task. Its labels `queue`, `priority`, `delay`, `expires_in`, `max_attempts`, `key`,
        `unique_key` and `retain_for` are options of the job."""
        options: dict[str, Any] = {"queue": self._queue, "headers": {_HEADER: message.task_id}}
        for names, read in ((_TEXTS, str), (_NUMBERS, int), (_LENGTHS, _length)):
            options |= {name: read(message.labels[name]) for name in names if name in message.labels}
        # A retry middleware sends a task again under the same id, so that cannot be the key.
        key = uuid4().hex
        await self.client.jobs.enqueue(
            message.task_name, _payload(message.message), idempotency_key=key, **options
        )

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Takes jobs one by one, as taskiq has places for them. Raises what the first dequeue is refused
        with; later errors are waited out."""
        delays, was_answered, is_away = Delays(), False, False
        while True:
            try:
                job = await self.client.jobs.dequeue(self._queues, wait=_WAIT, lease_for=self._lease_for)
            except JobQueueError as error:
                if not may_succeed_later(error) and not was_answered:
                    raise
                if not is_away:
                    _logger.warning("no jobs from the server (%s); trying again", error)
                is_away = True
                await asyncio.sleep(delays.after(error))
                continue
            delays.reset()
            was_answered, is_away = True, False
            if job is None:
                continue
            if self.find_task(job.type) is None:
                await self._give_back(job)
                continue
            task_id, data = self._message(job)
            running = self._running[task_id] = _Running()
            self._hold(job)
            yield AckableMessage(data=data, ack=partial(self._ack, job, task_id, running))

    async def shutdown(self) -> None:
        """Gives back the jobs that have not ended, not charged, and closes the connections."""
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
        held, self._held = list(self._held.values()), {}
        self._running.clear()
        try:
            if held:
                await self.client.jobs.release_many([Release(job.id, job.lease) for job in held])
        except JobQueueError as error:
            _logger.error("%d jobs could not be given back; their leases will end: %s", len(held), error)
        await super().shutdown()
        await self.client.close()

    def _message(self, job: Job) -> tuple[str, bytes]:
        """Returns the id and the message of a job's task. A job that somebody else enqueued has the arguments
        of the task as its payload: by name in an object, by position in an array."""
        task_id = job.headers.get(_HEADER)
        if task_id is not None:
            payload = job.payload if job.content_type is not None else bytes(job.payload_json)
            return task_id, payload.encode() if isinstance(payload, str) else payload
        task_id = str(job.id)
        payload = job.payload
        kwargs = payload if isinstance(payload, dict) else {}
        args = payload if isinstance(payload, list) else []
        message = TaskiqMessage(task_id=task_id, task_name=job.type, labels={}, args=args, kwargs=kwargs)
        data: bytes = self.formatter.dumps(message).message
        return task_id, data

    async def _give_back(self, job: Job) -> None:
        if job.type not in self._unknown:
            self._unknown.add(job.type)
            _logger.warning("no task %r is known here: given back", job.type)
        try:
            await self.client.jobs.release(job, delay=_UNKNOWN_DELAY)
        except JobQueueError as error:
            _logger.warning("job %d could not be given back; its lease will end: %s", job.id, error)

    async def _ack(self, job: Job, task_id: str, running: _Running) -> None:
        if self._running.get(task_id) is running:
            del self._running[task_id]
        if self._held.pop(job.id, None) is None:
            _logger.warning("job %d is not held any more; what it did counts for nothing", job.id)
            return
        try:
            if running.error is None:
                await self.client.jobs.conclude(job)
            else:
                await self.client.jobs.fail(job, described(running.error), retry=running.may_retry)
        except JobQueueError as refusal:
            _logger.warning("job %d: how it ended was refused: %s", job.id, refusal)

    # -- leases -----------------------------------------------------------------------------------------

    def _hold(self, job: Job) -> None:
        self._held[job.id] = job
        if self._beating is None or self._beating.done():
            self._beating = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        """Renews the leases of the jobs that are held, in one request, until there are none."""
        every = min(self._lease_for / 3, _BEAT)
        beating = self.client.options(retry_for=0, timeout=max(every, 5.0))
        while self._held:
            await asyncio.sleep(every)
            beats = [Heartbeat(job.id, job.lease, self._lease_for) for job in self._held.values()]
            if not beats:
                return
            try:
                outcomes = await beating.jobs.heartbeat_many(beats)
            except JobQueueError as error:
                _logger.warning("leases cannot be renewed just now: %s", error)
                continue
            for beat, outcome in zip(beats, outcomes, strict=False):
                refused = outcome.exception()
                if refused is not None and is_lease_lost(refused):
                    self._held.pop(beat.id, None)


class _Errors(TaskiqMiddleware):
    """Notes what the tasks in progress raise, and whether they may be tried again. An acknowledgement does
    not say it."""

    def __init__(self, running: dict[str, _Running]) -> None:
        super().__init__()
        self._running = running

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        # The later run does not exist yet. With ack_type "when_received" there is none: the job was concluded
        # before its task ran.
        _own.set(self._running.get(message.task_id))
        return message

    def on_error(self, message: TaskiqMessage, result: TaskiqResult, exception: BaseException) -> None:
        running = _own.get()
        if running is not None and not isinstance(result.error, NoResultError):
            running.error, running.may_retry = exception, "max_attempts" in message.labels


def _payload(message: bytes) -> Raw | bytes:
    """Returns a message as it is if it is JSON, so that it can be read in the queue; else as bytes."""
    try:
        msgspec.json.decode(message)
    except (msgspec.DecodeError, ValueError):
        return message
    return Raw(message)


def _length(label: str) -> float | str:
    """Returns a length of time in a label, which taskiq makes text of."""
    try:
        return float(label)
    except ValueError:
        return label
