"""Jobs and queues as JSON: one line, keys in a fixed order, `id` first, `lease` second, `payload` last."""

from collections.abc import Callable, Iterable, Sequence

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from jobqueue.engine.api import EngineView
from jobqueue.model import (
    INHERIT,
    Attempt,
    Backoff,
    Delivery,
    ExistingJob,
    Job,
    JobTrace,
    KeyLimits,
    Options,
    Pause,
    QueueSettings,
    QueueView,
    Rate,
)
from jobqueue.steps import IN_PROGRESS, Step
from jobqueue.units import instant, seconds
from jobqueue.web.schema.responses import AttemptView, Forgotten, JobView, PlainView
from jobqueue.web.writers.raw import shown_payload, shown_result

_encode = msgspec.json.Encoder().encode


_OUTCOMES: dict[Step | None, str] = {
    "conclude": "concluded", "fail": "failed", "bury": "failed", "stale": "stale", "release": "released",
    "put_off": "released", "cancel": "cancelled",
}  # fmt: skip


class Renderer:
    """Encodes jobs. `engine` converts the end of a lease to wall-clock time."""

    def __init__(self, engine: EngineView) -> None:
        self._wall: Callable[[int], int] = engine.wall
        self._identity = engine.identity.encode()

    def new_job(self, made: Job | ExistingJob) -> bytes:
        """Encodes the answer to an enqueue: the job without its payload. A waiting consumer may have
        leased it already.
        """
        return _encode(self.made(made)) + b"\n"

    def new_jobs(self, made: Sequence[Job | ExistingJob]) -> bytes:
        return _encode({"jobs": [self.made(one) for one in made]}) + b"\n"

    def each(self, results: Iterable[dict[str, object]]) -> bytes:
        """Encodes the answer to a request for many."""
        results = list(results)
        failed = sum("error" in result for result in results)
        return _encode({"ok": len(results) - failed, "failed": failed, "results": results}) + b"\n"

    def job(self, job: Job) -> bytes:
        """Encodes a job as most verbs show it: without its payload and its lease."""
        return _encode(self.shown(job)) + b"\n"

    def whole_job(self, job: Job) -> bytes:
        """Encodes a job as GET shows it: with payload and history."""
        view = self.view(job)
        view.history = _history(job)
        add_payload(view, job)
        return _encode(view) + b"\n"

    def exported(self, job: Job) -> bytes:
        """Encodes a job for an export, with its origin."""
        line = self.whole_job(job)
        head = b'{"id":%d,' % job.id
        return b'%b"origin":"%b/%d",%b' % (head, self._identity, job.id, line[len(head) :])

    def handed(self, handed: Delivery) -> bytes:
        """Encodes a delivery: with lease and payload."""
        return _encode(self._handed(handed)) + b"\n"

    def many_handed(self, handed: list[Delivery]) -> bytes:
        return _encode({"jobs": [self._handed(one) for one in handed]}) + b"\n"

    def listed(self, jobs: Sequence[Job], payload: bool, following: int | None) -> bytes:
        """Encodes a page of jobs, with the cursor of the next page."""
        views = [self.view(job) for job in jobs]
        if payload:
            for view, job in zip(views, jobs, strict=True):
                add_payload(view, job)
        more = {} if following is None else {"next": str(following)}
        return _encode({"jobs": views, **more}) + b"\n"

    def beat(self, job: Job) -> bytes:
        """Encodes the answer to a heartbeat: when the lease ends, and whether to stop."""
        return _encode(self.beaten(job)) + b"\n"

    def beaten(self, job: Job) -> JobView:
        view = self.view(job)
        lease = job.lease
        if lease is not None:
            view.lease = lease.token
            view.lease_for = seconds(lease.length)
        view.cancel_requested = job.extras is not None and job.extras.cancel_requested
        return view

    def made(self, made: Job | ExistingJob | int) -> "JobView | PlainView | Forgotten":
        """Returns the view of a job for an enqueue; of a forgotten job its id."""
        if isinstance(made, Job):
            if made.lease is None and made.extras is None:
                return PlainView(
                    made.id, UNSET, made.status, made.queue, made.type, made.priority, 0, 0,
                    instant(made.created_at),
                )  # fmt: skip
            return self.shown(made)
        if isinstance(made, int):
            return Forgotten(made)
        view = self.view(made.job)
        view.duplicate = True
        return view

    def shown(self, job: Job) -> JobView | PlainView:
        """Returns the view of a job as most verbs show it."""
        lease, more = job.lease, job.extras
        if lease is None or more is None or not more.plain or more.cancel_requested:
            return self.view(job)
        return PlainView(
            job.id, UNSET, job.status, job.queue, job.type, job.priority, job.attempts, job.leases,
            instant(job.created_at), instant(lease.started_at),
            UNSET if more.finished_at is None else instant(more.finished_at),
            instant(self._wall(lease.expires)) if job.status == IN_PROGRESS else UNSET, UNSET,
            UNSET if lease.consumer is None else lease.consumer,
        )  # fmt: skip

    def view(self, job: Job) -> JobView:
        view = JobView(
            job.id, UNSET, job.status, job.queue, job.type, job.priority, job.attempts, job.leases,
            instant(job.created_at),
        )  # fmt: skip
        lease = job.lease
        if lease is not None:
            view.started_at = instant(lease.started_at)
            if job.status == IN_PROGRESS:
                view.lease_expires_at = instant(self._wall(lease.expires))
            if lease.consumer is not None:
                view.consumer = lease.consumer
        more = job.extras
        if more is not None:
            if more.finished_at is not None:
                view.finished_at = instant(more.finished_at)
            if more.cancel_requested:
                view.cancel_requested = True
            if more.result is not None:
                view.result_encoding, view.result = shown_result(more.result)
            if more.run_at is not None:
                view.run_at = instant(more.run_at)
            if more.trace is not None:
                _add_trace(view, more.trace)
            if more.options is not None:
                _add_options(view, more.options)
        return view

    def _handed(self, handed: Delivery) -> JobView | PlainView:
        job, lease = handed
        if job.extras is None:
            return PlainView(
                job.id, lease.token, job.status, job.queue, job.type, job.priority, job.attempts, job.leases,
                instant(job.created_at), instant(lease.started_at), UNSET, instant(self._wall(lease.expires)),
                seconds(lease.length), UNSET if lease.consumer is None else lease.consumer, Raw(job.payload),
            )  # fmt: skip
        view = JobView(
            job.id, lease.token, job.status, job.queue, job.type, job.priority, job.attempts, job.leases,
            instant(job.created_at), instant(lease.started_at), UNSET, instant(self._wall(lease.expires)),
            seconds(lease.length), UNSET if lease.consumer is None else lease.consumer,
        )  # fmt: skip
        add_payload(view, job)
        if job.extras is not None:
            if job.extras.options is not None:
                _add_options(view, job.extras.options, lease_for=False)
            if job.extras.trace is not None:
                _add_trace(view, job.extras.trace)
        return view


def add_payload(view: JobView, job: Job) -> None:
    view.content_type, view.payload_encoding, view.payload = shown_payload(job)


def _add_trace(view: JobView, trace: JobTrace) -> None:
    if trace.dead_from is not None:
        # A journal of before has but one reason for both.
        first = trace.dead_from_reason or trace.reason or "attempts"
        view.dead_from = {"queue": trace.dead_from, "reason": first}
    if trace.dead_from is None or trace.dead_from_reason is not None:
        view.reason = trace.reason or UNSET
    view.error = UNSET if trace.error is None else Raw(trace.error)
    view.progress = UNSET if trace.progress is None else trace.progress
    view.message = UNSET if trace.message is None else trace.message


def _add_options(view: JobView, options: Options, lease_for: bool = True) -> None:
    if options.lease_for is not None and lease_for:
        view.lease_for = seconds(options.lease_for)
    if options.expires_at is not None:
        view.expires_at = instant(options.expires_at)
    if options.max_attempts != INHERIT:
        view.max_attempts = options.max_attempts
    if options.backoff is not None:
        view.backoff = _backoff(options.backoff)
    if options.retain_for is not None:
        view.retain_for = seconds(options.retain_for)
    if options.unique_key is not None:
        view.unique_key = options.unique_key
        view.unique_while = options.unique_while
        view.on_conflict = options.on_conflict
    if options.key is not None:
        view.key = options.key
    view.tags = options.tags or UNSET
    view.headers = UNSET if options.headers is None else Raw(options.headers)


def _backoff(backoff: Backoff) -> list[int | float] | dict[str, int | float]:
    if backoff.steps:
        return [seconds(step) for step in backoff.steps]
    return {"base": seconds(backoff.base), "factor": backoff.factor, "max": seconds(backoff.longest),
            "jitter": backoff.jitter}  # fmt: skip


def _history(job: Job) -> list[AttemptView] | UnsetType:
    """Returns the attempts that have ended, the last one included."""
    trace = job.extras.trace if job.extras is not None else None
    lines = list(trace.history) if trace is not None else []
    lease = job.lease
    if lease is not None and lease.ended_by is not None:
        failed = lease.ended_by in ("fail", "bury")
        error = trace.error if trace is not None and failed else None
        lines.append(
            Attempt(lease.attempt, lease.consumer, lease.started_at, lease.ended_at, lease.ended_by, error)
        )
    return [
        AttemptView(
            line.attempt, UNSET if line.consumer is None else line.consumer, instant(line.started_at),
            UNSET if line.ended_at is None else instant(line.ended_at), _OUTCOMES[line.outcome],
            UNSET if line.error is None else Raw(line.error),
        )
        for line in lines[-20:]
    ] or UNSET  # fmt: skip


def queue(view: QueueView) -> bytes:
    return _encode(_queue(view)) + b"\n"


def queues(views: list[QueueView], following: str | None) -> bytes:
    more = {} if following is None else {"next": following}
    return _encode({"queues": [_queue(view) for view in views], **more}) + b"\n"


def document(members: dict[str, object]) -> bytes:
    """Encodes any other answer."""
    return _encode(members) + b"\n"


def document_of(view: Struct) -> bytes:
    return _encode(view) + b"\n"


def _queue(view: QueueView) -> dict[str, object]:
    shown: dict[str, object] = {"name": view.name, "paused": view.pause is not None}
    if view.pause is not None:
        shown["pause"] = _pause(view.pause)
    shown["jobs"] = view.jobs
    if view.oldest_age is not None:
        shown["oldest_age"] = seconds(view.oldest_age)
    if view.by_priority:
        shown["by_priority"] = {str(priority): count for priority, count in view.by_priority.items()}
    shown["consumers_waiting"] = view.consumers_waiting
    shown["rates"] = {"in": round(view.rates[0], 3), "out": round(view.rates[1], 3)}
    for name, times in (("wait", view.waits), ("run", view.runs)):
        for percent in (50, 95):
            if (length := times.quantile(percent / 100)) is not None:
                shown[f"{name}_p{percent}"] = seconds(length)
    shown["totals"] = view.totals
    shown["settings"] = _settings(view.settings)
    return shown


def _pause(pause: Pause) -> dict[str, object]:
    shown: dict[str, object] = {"at": instant(pause.at)}
    if pause.until is not None:
        shown["until"] = instant(pause.until)
    if pause.reason is not None:
        shown["reason"] = pause.reason
    return shown


def _settings(settings: QueueSettings) -> dict[str, object]:
    """Returns the settings that differ from the defaults."""
    shown: dict[str, object] = {}
    for name in settings.__struct_fields__:
        value = getattr(settings, name)
        if name == "max_attempts":
            if value != INHERIT:
                shown[name] = value
        elif value is None:
            continue
        elif name in ("lease_for", "retain_for"):
            shown[name] = seconds(value)
        elif isinstance(value, Backoff):
            shown[name] = _backoff(value)
        elif isinstance(value, Rate):
            shown[name] = _rate(value)
        elif isinstance(value, KeyLimits):
            most = {} if value.max_in_progress is None else {"max_in_progress": value.max_in_progress}
            shown[name] = {**most, **({} if value.rate is None else {"rate": _rate(value.rate)})}
        else:
            shown[name] = value
    return shown


def _rate(rate: Rate) -> dict[str, object]:
    return {"count": rate.count, "per": seconds(rate.per), "burst": rate.burst}
