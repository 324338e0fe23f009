"""Jobs and queues as JSON: one line, keys in a fixed order, `id` first, `lease` second, `payload` last."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from jobqueue.model import (
    INHERIT,
    Backoff,
    Consumers,
    Delivery,
    ExistingJob,
    Holder,
    Job,
    JobGroups,
    JobTrace,
    KeyLimits,
    Options,
    Pause,
    PriorAnswer,
    QueueSeries,
    QueueSettings,
    QueueView,
    Rate,
    last_attempt,
    retries,
)
from jobqueue.steps import IN_PROGRESS, Step
from jobqueue.units import instant, seconds
from jobqueue.web.schema import responses
from jobqueue.web.schema.responses import (
    AttemptView,
    Forgotten,
    JobView,
    Length,
)
from jobqueue.web.schema.schedules import ScheduledJobView
from jobqueue.web.writers.answer_size import is_plain
from jobqueue.web.writers.raw import shown_payload, shown_result

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode
# Texts that are kept, of each kind.
_MAX_TEXTS: Final = 1024
_OUTCOMES: Final[dict[Step | None, str]] = {
    "conclude": "concluded", "fail": "failed", "bury": "failed", "stale": "stale", "release": "released",
    "put_off": "released", "cancel": "cancelled",
}  # fmt: skip


class LastText:
    """A number as text. The last one is kept: requests that come together have much in common."""

    __slots__ = ("_convert", "_number", "_text")

    def __init__(self, convert: Callable[[int], object]) -> None:
        self._convert = convert
        self._number = -1
        self._text = b""

    def text(self, number: int) -> bytes:
        if number != self._number:
            self._text = str(self._convert(number)).encode()
            self._number = number
        return self._text


def keep(texts: dict[T, bytes], key: T, text: bytes) -> None:
    if len(texts) >= _MAX_TEXTS:
        texts.clear()
    texts[key] = text


class Encoder:
    """Encodes jobs.

    Most answers have a job in one of three plain forms: new, delivered or ended, without options, result or
    history. These are put together from texts that are kept.

    `wall` converts the end of a lease to wall-clock time. The origins of exported jobs begin with `identity`.
    A payload that is text and takes more than `longest_text` bytes in JSON is shown in base64.
    """

    def __init__(self, wall: Callable[[int], int], identity: str, longest_text: int) -> None:
        self._wall = wall
        self.longest_text = longest_text
        self._identity = identity.encode()
        self._middles: dict[tuple[str, str, str, int, int, int], bytes] = {}
        self._consumers: dict[str, bytes] = {}
        self._created, self._started, self._finished = LastText(instant), LastText(instant), LastText(instant)
        self._expires, self._length = LastText(instant), LastText(seconds)

    def new_job(self, made: Job | ExistingJob) -> bytes:
        """Encodes the answer to an enqueue: the job without its payload. A waiting consumer may have
        leased it already.
        """
        plain = self._new(made) if isinstance(made, Job) else None
        return (_encode(self.made(made)) if plain is None else plain) + b"\n"

    def new_jobs(self, made: Sequence[Job | ExistingJob]) -> bytes:
        return document(_jobs([self.made(one) for one in made]))

    def job(self, job: Job) -> bytes:
        """Encodes a job as most verbs show it: without its payload and its lease."""
        plain = self._ended(job)
        return (_encode(self.view(job)) if plain is None else plain) + b"\n"

    def whole_job(self, job: Job) -> bytes:
        """Encodes a job as GET shows it: with payload and history."""
        view = self.view(job)
        view.history = _history(job)
        add_payload(view, job, self.longest_text)
        return _encode(view) + b"\n"

    def exported(self, job: Job) -> bytes:
        """Encodes a job for an export, with its origin."""
        line = self.whole_job(job)
        head = b'{"id":%d,' % job.id
        return b'%b"origin":"%b/%d",%b' % (head, self._identity, job.id, line[len(head) :])

    def handed(self, handed: Delivery) -> bytes:
        """Encodes a delivery: with lease and payload."""
        plain = self._delivered(handed)
        return (_encode(self._handed(handed)) if plain is None else plain) + b"\n"

    def many_handed(self, handed: list[Delivery]) -> bytes:
        return document(_jobs([self._handed(one) for one in handed]))

    def listed(self, jobs: Sequence[Job], payload: bool, following: int | None) -> bytes:
        """Encodes a page of jobs, with the cursor of the next page."""
        views = [self.view(job) for job in jobs]
        if payload:
            for view, job in zip(views, jobs, strict=True):
                add_payload(view, job, self.longest_text)
        return document(responses.JobPage(views, UNSET if following is None else str(following)))

    def consumers(self, found: Consumers) -> bytes:
        """Encodes who holds jobs, and who waits for one."""
        return document(
            responses.ConsumersView(
                [self._holder(holder) for holder in found.holding],
                [
                    responses.WaitingView(
                        consumer=known(waiting.consumer),
                        queues=waiting.queues,
                        wait_until=instant(self._wall(waiting.until)),
                    )
                    for waiting in found.waiting
                ],
                found.complete,
            )
        )

    def _holder(self, holder: Holder) -> responses.ConsumerView:
        jobs = []
        for job in holder.jobs:
            lease = job.lease
            assert lease is not None
            jobs.append(
                responses.HeldJob(
                    job.id,
                    job.queue,
                    job.type,
                    instant(lease.started_at),
                    instant(self._wall(lease.expires)),
                    job.attempts,
                )
            )
        return responses.ConsumerView(
            consumer=known(holder.consumer),
            in_progress=holder.in_progress,
            last_seen=instant(self._wall(holder.seen_at)),
            jobs=jobs,
        )

    @staticmethod
    def encode(view: JobView) -> bytes:
        return _encode(view) + b"\n"

    def beaten(self, job: Job) -> JobView:
        """Returns the view of a job for a heartbeat: when the lease ends, and whether to stop."""
        view = self.view(job)
        lease = job.lease
        if lease is not None:
            view.lease = lease.token
            view.lease_for = seconds(lease.length)
        view.cancel_requested = job.extras is not None and job.extras.cancel_requested
        return view

    def made(self, made: Job | ExistingJob | int) -> JobView | Raw | Forgotten:
        """Returns the view of a job for an enqueue; of a forgotten job its id."""
        if isinstance(made, Job):
            plain = self._new(made)
            return self.shown(made) if plain is None else Raw(plain)
        if isinstance(made, int):
            return Forgotten(made)
        view = self.view(made.job)
        view.duplicate = True
        return view

    def made_before(self, known: PriorAnswer) -> bytes:
        """Encodes what an earlier request with the same `Idempotency-Key` made."""
        views = [self.made(ExistingJob(job) if isinstance(job, Job) else job) for job in known.made]
        return _encode(_jobs(views) if known.many else views[0]) + b"\n"

    def shown(self, job: Job) -> JobView | Raw:
        """Returns the view of a job as most verbs show it."""
        plain = self._ended(job)
        return self.view(job) if plain is None else Raw(plain)

    # -- plain forms: without the end of the line; None if the job has more than that ---------------

    def _new(self, job: Job) -> bytes | None:
        if job.lease is not None or job.extras is not None:
            return None
        return b'{"id":%d,%b%b"}' % (job.id, self._middle(job, 0, 0), self._created.text(job.created_at))

    def _delivered(self, handed: Delivery) -> bytes | None:
        job, lease = handed
        if job.extras is not None:
            return None
        return (
            b'{"id":%d,"lease":"%b",%b%b","started_at":"%b","lease_expires_at":"%b","lease_for":%b%b,'
            b'"payload":%b}'
        ) % (
            job.id, lease.token.encode(), self._middle(job, job.attempts, job.leases),
            self._created.text(job.created_at), self._started.text(lease.started_at),
            self._expires.text(self._wall(lease.expires)), self._length.text(lease.length),
            self._consumer(lease.consumer), job.payload,
        )  # fmt: skip

    def _ended(self, job: Job) -> bytes | None:
        """The lease may have ended, or not, and the job may be finished, or not."""
        lease, more = job.lease, job.extras
        if lease is None or more is None or not is_plain(more) or more.cancel_requested:
            return None
        finished_at = more.finished_at
        finished = b"" if finished_at is None else b'","finished_at":"%b' % self._finished.text(finished_at)
        expires = b""
        if job.status == IN_PROGRESS:
            expires = b'","lease_expires_at":"%b' % self._expires.text(self._wall(lease.expires))
        return b'{"id":%d,%b%b","started_at":"%b%b%b"%b}' % (
            job.id, self._middle(job, job.attempts, job.leases), self._created.text(job.created_at),
            self._started.text(lease.started_at), finished, expires, self._consumer(lease.consumer),
        )  # fmt: skip

    def _middle(self, job: Job, attempts: int, leases: int) -> bytes:
        """Returns the fields from `status` to the beginning of `created_at`, which most jobs share."""
        key = (job.status, job.queue, job.type, job.priority, attempts, leases)
        middle = self._middles.get(key)
        if middle is None:
            middle = _encode(responses.Middle(*key))[1:-1] + b',"created_at":"'
            keep(self._middles, key, middle)
        return middle

    def _consumer(self, name: str | None) -> bytes:
        if name is None:
            return b""
        text = self._consumers.get(name)
        if text is None:
            text = b',"consumer":%b' % _encode(name)
            keep(self._consumers, name, text)
        return text

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
                if retries(job):
                    view.retrying = True
            if more.trace is not None:
                _add_trace(view, more.trace)
            if more.options is not None:
                _add_options(view, more.options)
        return view

    def _handed(self, handed: Delivery) -> JobView | Raw:
        plain = self._delivered(handed)
        if plain is not None:
            return Raw(plain)
        job, lease = handed
        assert job.extras is not None
        view = JobView(
            job.id, lease.token, job.status, job.queue, job.type, job.priority, job.attempts, job.leases,
            instant(job.created_at), instant(lease.started_at), UNSET, instant(self._wall(lease.expires)),
            seconds(lease.length), UNSET if lease.consumer is None else lease.consumer,
        )  # fmt: skip
        add_payload(view, job, self.longest_text)
        if job.extras.options is not None:
            _add_options(view, job.extras.options, lease_for=False)
        if job.extras.trace is not None:
            _add_trace(view, job.extras.trace)
        return view


def _jobs(views: list[Any]) -> responses.Jobs:
    """Returns the views of several jobs. All have fields of `JobView`, some not all of them."""
    return responses.Jobs(views)


def each(results: list[responses.Result]) -> bytes:
    """Encodes the answer to a request for many."""
    failed = sum([result.error is not UNSET for result in results])
    return document(responses.Results(len(results) - failed, failed, results))


def add_payload(view: JobView, job: Job, longest_text: int) -> None:
    view.content_type, view.payload_encoding, view.payload = shown_payload(job, longest_text)


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
    if options.expires_at is not None:
        view.expires_at = instant(options.expires_at)
    add_options(view, options, lease_for)


def add_options(view: JobView | ScheduledJobView, options: Options, lease_for: bool = True) -> None:
    """Shows the options that a job and the job of a schedule have in common."""
    if options.lease_for is not None and lease_for:
        view.lease_for = seconds(options.lease_for)
    if options.max_run_for is not None:
        view.max_run_for = seconds(options.max_run_for)
    if options.max_attempts != INHERIT:
        view.max_attempts = options.max_attempts
    if options.backoff is not None:
        view.backoff = shown_backoff(options.backoff)
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


def shown_backoff(backoff: Backoff) -> list[Length] | dict[str, Length]:
    if backoff.steps:
        return [seconds(step) for step in backoff.steps]
    return {"base": seconds(backoff.base), "factor": backoff.factor, "max": seconds(backoff.longest),
            "jitter": backoff.jitter}  # fmt: skip


def _history(job: Job) -> list[AttemptView] | UnsetType:
    """Returns the attempts that have ended, the last one included."""
    trace = job.extras.trace if job.extras is not None else None
    lines = list(trace.history) if trace is not None else []
    if job.lease is not None and job.lease.ended_by is not None:
        lines.append(last_attempt(job))
    return [
        AttemptView(
            line.attempt, UNSET if line.consumer is None else line.consumer, instant(line.started_at),
            UNSET if line.ended_at is None else instant(line.ended_at), _OUTCOMES[line.outcome],
            UNSET if line.reason is None else line.reason, UNSET if line.error is None else Raw(line.error),
        )
        for line in lines[-20:]
    ] or UNSET  # fmt: skip


def document(answer: Struct) -> bytes:
    return _encode(answer) + b"\n"


def groups(found: JobGroups) -> bytes:
    """Encodes groups of jobs, each with the values that it has."""
    views = []
    for group in found.groups:
        values = {name: known(value) for name, value in group.values.items()}
        views.append(
            responses.GroupView(
                group.dead + group.retrying, group.dead, group.retrying, sample=group.sample, **values
            )
        )
    return document(responses.Groups(views, found.rest))


def queue(view: QueueView) -> bytes:
    return document(_queue(view))


def queues(views: list[QueueView], following: str | None) -> bytes:
    return document(responses.Queues([_queue(view) for view in views], known(following)))


def series(found: QueueSeries) -> bytes:
    since, until = instant(found.since), instant(found.until)
    step = seconds(found.step)
    return document(responses.Series(found.queue, found.kept, since, until, step, **found.points))


def _queue(view: QueueView) -> responses.Queue:
    return responses.Queue(
        name=view.name,
        paused=view.pause is not None,
        pause=UNSET if view.pause is None else _pause(view.pause),
        jobs=responses.ByStatus(**view.jobs),
        oldest_age=length(view.oldest_age),
        by_priority={str(priority): count for priority, count in view.by_priority.items()} or UNSET,
        consumers_waiting=view.consumers_waiting,
        retrying=view.retrying,
        rates=responses.Rates(round(view.rates[0], 3), round(view.rates[1], 3)),
        wait_p50=length(view.waits.quantile(0.5)),
        wait_p95=length(view.waits.quantile(0.95)),
        run_p50=length(view.runs.quantile(0.5)),
        run_p95=length(view.runs.quantile(0.95)),
        totals=responses.Totals(**view.totals),
        settings=_settings(view.settings),
    )


def _pause(pause: Pause) -> responses.PauseView:
    until = UNSET if pause.until is None else instant(pause.until)
    return responses.PauseView(instant(pause.at), until, known(pause.reason), known(pause.by))


def _settings(settings: QueueSettings) -> responses.QueueSettingsView:
    """Returns the settings that differ from the defaults."""
    return responses.QueueSettingsView(
        lease_for=length(settings.lease_for),
        max_run_for=length(settings.max_run_for),
        max_attempts=UNSET if settings.max_attempts == INHERIT else settings.max_attempts,
        backoff=UNSET if settings.backoff is None else shown_backoff(settings.backoff),
        retain_for=length(settings.retain_for),
        dead_letter=known(settings.dead_letter),
        max_jobs=known(settings.max_jobs),
        max_bytes=known(settings.max_bytes),
        max_in_progress=known(settings.max_in_progress),
        rate=_rate(settings.rate),
        key_limits=UNSET if settings.key_limits is None else _key_limits(settings.key_limits),
        fair_keys=True if settings.fair_keys else UNSET,
        attributes=UNSET if settings.attributes is None else Raw(settings.attributes),
    )


def _key_limits(limits: KeyLimits) -> responses.KeyLimitsView:
    return responses.KeyLimitsView(
        known(limits.max_in_progress),
        _rate(limits.rate),
        True if limits.ordered else UNSET,
        limits.batch if limits.batch > 1 else UNSET,
    )


def _rate(rate: Rate | None) -> responses.RateView | UnsetType:
    return UNSET if rate is None else responses.RateView(rate.count, seconds(rate.per), rate.burst)


def known(value: T | None) -> T | UnsetType:
    """Leaves a field without a value out."""
    return UNSET if value is None else value


def length(ms: int | None) -> Length | UnsetType:
    return UNSET if ms is None else seconds(ms)
