"""Jobs and queues as JSON: one line, keys in a fixed order, `id` first, `lease` second, `payload` last."""

from collections.abc import Callable

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from jobqueue.engine.api import IN_PROGRESS, Engine, Handed, Job, QueueView
from jobqueue.units import instant, seconds

_encode = msgspec.json.Encoder().encode


class JobView(Struct, gc=False):
    """A job as a client sees it. What does not apply is left out."""

    id: int
    lease: str | UnsetType
    status: str
    queue: str
    type: str
    priority: int
    attempts: int
    leases: int
    created_at: str
    started_at: str | UnsetType = UNSET
    finished_at: str | UnsetType = UNSET
    lease_expires_at: str | UnsetType = UNSET
    lease_for: int | float | UnsetType = UNSET
    consumer: str | UnsetType = UNSET
    cancel_requested: bool | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    payload: Raw | UnsetType = UNSET


class Renderer:
    """`engine` says what wall-clock instant a lease's end is."""

    def __init__(self, engine: Engine) -> None:
        self._wall: Callable[[int], int] = engine.wall

    def new_job(self, job: Job) -> bytes:
        """The answer to an enqueue: the job without payload. It may be leased already, by one who waited."""
        if job.lease is not None:
            return self.job(job)
        return _encode(self._plain(job)) + b"\n"

    def new_jobs(self, jobs: list[Job]) -> bytes:
        views = [self._plain(job) if job.lease is None else self._view(job) for job in jobs]
        return _encode({"jobs": views}) + b"\n"

    def job(self, job: Job, payload: bool = False) -> bytes:
        """A job as GET and most verbs show it: never its lease."""
        return _encode(self._view(job, payload)) + b"\n"

    def handed(self, handed: Handed) -> bytes:
        """A job as its consumer gets it: with its lease and payload."""
        return _encode(self._handed(handed)) + b"\n"

    def many_handed(self, handed: list[Handed]) -> bytes:
        return _encode({"jobs": [self._handed(one) for one in handed]}) + b"\n"

    def beat(self, job: Job) -> bytes:
        """The answer to a heartbeat: says when the lease ends now, and whether to stop."""
        view = self._view(job)
        lease = job.lease
        if lease is not None:
            view.lease = lease.token
            view.lease_for = seconds(lease.length)
        view.cancel_requested = job.more is not None and job.more.cancel_requested
        return _encode(view) + b"\n"

    def _plain(self, job: Job) -> JobView:
        return JobView(
            job.id, UNSET, job.status, job.queue, job.type, job.priority, job.attempts, job.leases,
            instant(job.created_at),
        )  # fmt: skip

    def _view(self, job: Job, payload: bool = False) -> JobView:
        view = self._plain(job)
        lease = job.lease
        if lease is not None:
            view.started_at = instant(lease.started_at)
            if job.status == IN_PROGRESS:
                view.lease_expires_at = instant(self._wall(lease.expires))
            if lease.consumer is not None:
                view.consumer = lease.consumer
        more = job.more
        if more is not None:
            if more.finished_at is not None:
                view.finished_at = instant(more.finished_at)
            if more.cancel_requested:
                view.cancel_requested = True
            if more.result is not None:
                view.result = Raw(more.result)
        if payload:
            view.payload = Raw(job.payload)
        return view

    def _handed(self, handed: Handed) -> JobView:
        job, lease = handed
        return JobView(
            job.id, lease.token, job.status, job.queue, job.type, job.priority, job.attempts, job.leases,
            instant(job.created_at), instant(lease.started_at), UNSET, instant(self._wall(lease.expires)),
            seconds(lease.length), UNSET if lease.consumer is None else lease.consumer, UNSET, UNSET,
            Raw(job.payload),
        )  # fmt: skip


def queue(view: QueueView) -> bytes:
    return _encode(_queue(view)) + b"\n"


def queues(views: list[QueueView]) -> bytes:
    return _encode({"queues": [_queue(view) for view in views]}) + b"\n"


def document(members: dict[str, object]) -> bytes:
    """Any other answer."""
    return _encode(members) + b"\n"


def _queue(view: QueueView) -> dict[str, object]:
    age: dict[str, object] = {}
    if view.oldest_age is not None:
        age["oldest_age"] = seconds(view.oldest_age)
    return {
        "name": view.name, "paused": False, "jobs": view.jobs, **age,
        "consumers_waiting": view.consumers_waiting, "totals": view.totals, "settings": {},
    }  # fmt: skip
