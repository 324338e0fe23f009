"""How calls, answers and events pass between two servers: as MessagePack, in frames.

    length 4 | number 4 | kind 1 | shard 1 | body        to the owner: a call, by the number of its verb
    length 4 | number 4 | kind 1 |           body        from the owner: an answer to that number, or a notice

A verb is a method of the engine. `VERBS` has the types of its arguments and of its result.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from struct import Struct as Layout
from types import GenericAlias
from typing import Any, Final, TypeAlias, get_type_hints

import msgspec

from jobqueue import errors
from jobqueue.errors import JobQueueError
from jobqueue.histogram import DecayingHistogram, Histogram
from jobqueue.job import Delivery, Job, job_row
from jobqueue.job_rows import JobRow, job_of
from jobqueue.model import (
    BulkResult,
    Change,
    Consumers,
    DequeueRequest,
    EngineStats,
    ExistingJob,
    Explanation,
    Filter,
    IdempotencyKey,
    ImportItem,
    ImportResult,
    JobGroups,
    LeaseClaim,
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
)

# Of a call, and of an answer: length of what follows, number, kind; of a call also the shard.
CALL: Final = Layout("!IIBB")
ANSWER: Final = Layout("!IIB")
LENGTH: Final = 4
# Bytes of the longest frame. A body of a request is far shorter.
LONGEST: Final = 1 << 30
# Kinds of answers.
RESULT: Final = 0
REFUSED: Final = 1
NOT_OWNER: Final = 2
BUG: Final = 3
WITHDRAWN: Final = 4
# Kinds of notices of the owner: an event, the end of a lease, its clock, leases that it does not have, and
# that it watches none because the shard is not its own, leases that were extended, and its URL for clients.
EVENT: Final = 8
LEASE_ENDED: Final = 9
CLOCK: Final = 10
LEASES_GONE: Final = 11
NOT_WATCHED: Final = 12
LEASES_RENEWED: Final = 13
URL: Final = 14
# Kinds of calls that are no verbs and have no answer. They come before the verbs.
CANCEL: Final = 0
WATCH_LEASES: Final = 1
WATCH: Final = 2
FIRST_VERB: Final = 3


class QueuePatterns:
    """Accepts the names of queues that match one of the patterns of an access token; without them all."""

    def __init__(self, patterns: tuple[str, ...] | None) -> None:
        self.patterns = patterns
        self._known: dict[str, bool] = {}

    def __call__(self, queue: str) -> bool:
        known = self._known.get(queue)
        if known is None:
            known = self._known[queue] = self.patterns is None or any(
                fnmatchcase(queue, pattern) for pattern in self.patterns
            )
        return known


def to_wire(value: object) -> object:
    """Returns what is sent in the place of a value that MessagePack does not know."""
    if isinstance(value, Job):
        return job_row(value, value.payload)
    if isinstance(value, JobQueueError):
        return [type(value).__name__, value.detail, value.facts]
    if isinstance(value, (Histogram, DecayingHistogram)):
        return [getattr(value, name) for name in _FIELDS[type(value)]]
    if isinstance(value, QueuePatterns):
        return value.patterns
    if isinstance(value, Mapping):
        return dict(value)
    if callable(value):  # of a caller, whose method tells which queues it may use
        patterns: object = value.__self__.patterns  # type: ignore[attr-defined]
        return patterns
    return str(value)  # a fact of an error


_FIELDS: Final[dict[type, tuple[str, ...]]] = {
    Histogram: ("_bounds", "_counts", "total"),
    DecayingHistogram: ("all_counts", "all_ms", "_counts", "_total", "skip"),
}


def from_wire(kind: Any, sent: Any) -> object:
    """The reverse of `to_wire`, for a value of the type `kind`."""
    if kind is Job:
        return job_of(msgspec.convert(sent, JobRow))
    if kind is Histogram or kind is DecayingHistogram:
        made = Histogram(()) if kind is Histogram else DecayingHistogram()
        for name, value in zip(_FIELDS[kind], sent, strict=True):
            setattr(made, name, value)
        return made
    if isinstance(kind, type) and issubclass(kind, JobQueueError):
        name, detail, facts = sent
        found = getattr(errors, name, None)
        if not (isinstance(found, type) and issubclass(found, JobQueueError)):
            found = JobQueueError
        return found(detail, **facts)
    return QueuePatterns(None if sent is None else tuple(sent))


encode: Final = msgspec.msgpack.Encoder(enc_hook=to_wire).encode


def decoder(kind: Any) -> Callable[[bytes], Any]:
    decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(kind, dec_hook=from_wire).decode
    return decode


# A result of an enqueue: a new job, or an existing one (then True), or an error.
_Made: TypeAlias = tuple[Any, bool, JobQueueError | None]
_MADE: Final[Any] = tuple[JobRow | None, bool, JobQueueError | None]


def _pack_made(made: object) -> _Made:
    if isinstance(made, ExistingJob):
        return made.job, True, None
    if isinstance(made, Job):
        return made, False, None
    assert isinstance(made, JobQueueError)
    return None, False, made


def _unpack_made(made: _Made) -> Job | ExistingJob | JobQueueError:
    row, exists, error = made
    if row is None:
        assert error is not None
        return error
    job = job_of(row)
    return ExistingJob(job) if exists else job


# The results of several enqueues; or in the second place the answer to an earlier request with the same key,
# which was for several if the third is True: jobs, and the ids of those that are forgotten.
_Many: TypeAlias = tuple[list[_Made], list[tuple[Any, int]] | None, bool]
_MANY: Final[Any] = tuple[list[_MADE], list[tuple[JobRow | None, int]] | None, bool]


def _pack_many(made: Any) -> _Many:
    if isinstance(made, PriorAnswer):
        known: list[tuple[Any, int]] = [
            (one, one.id) if isinstance(one, Job) else (None, one) for one in made.made
        ]
        return [], known, made.many
    return [_pack_made(one) for one in made], None, False


def _unpack_many(many: _Many) -> Any:
    made, prior, several = many
    if prior is not None:
        return PriorAnswer([id if row is None else job_of(row) for row, id in prior], several)
    return [_unpack_made(one) for one in made]


def _pack_deliveries(deliveries: Sequence[Delivery]) -> list[Job]:
    return [job for job, _ in deliveries]


def _unpack_deliveries(rows: list[JobRow]) -> list[Delivery]:
    jobs = [job_of(row) for row in rows]
    return [(job, job.lease) for job in jobs if job.lease is not None]


def _unpack_found(row: JobRow | None) -> Job | None:
    return None if row is None else job_of(row)


_SETTINGS: Final = get_type_hints(QueueSettings)


def _typed_settings(given: tuple[str, dict[str, Any], int | None]) -> tuple[object, ...]:
    """Returns the arguments of `configure`, whose values have the types of the settings."""
    name, changes, version = given
    return name, {key: msgspec.convert(value, _SETTINGS[key]) for key, value in changes.items()}, version


class Verb:
    """One method of the engine.

    `read` decodes its arguments, and `result` what it results in; `pack` and `unpack` change that before it
    is encoded, and after it was decoded. `again`: it may be called again if the answer was lost: a second
    call changes nothing more, or only what is undone by the end of a lease, and it is answered as the first
    one. `waits`: which argument is the time for which it waits.
    """

    def __init__(
        self,
        kind: int,
        name: str,
        read: Callable[[bytes], Any],
        result: Callable[[bytes], Any],
        pack: Callable[[Any], Any] | None,
        unpack: Callable[[Any], Any] | None,
        again: bool,
        waits: int | None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.read = read
        self.result = result
        self.pack = pack
        self.unpack = unpack
        self.again = again
        self.waits = waits
        self.unpack_arguments = _typed_settings if name == "configure" else None
        self.delivers = unpack is _unpack_deliveries  # the result are jobs under new leases
        # The argument are deliveries, which are passed on as ids and tokens.
        self.takes_leases = name in ("give_back", "lose")


_WITHIN: Final[Any] = Callable[[str], bool] | None
_JOB: Final = (JobRow, None, job_of)
_MAYBE_JOB: Final = (JobRow | None, None, _unpack_found)
_DELIVERIES: Final = (list[JobRow], _pack_deliveries, _unpack_deliveries)
_MADE_ONE: Final = (_MADE, _pack_made, _unpack_made)
_MADE_MANY: Final = (_MANY, _pack_many, _unpack_many)
# Name, types of the arguments, type of the result (with how it is packed and unpacked), `again`, `waits`.
_TABLE: Final[tuple[tuple[Any, ...], ...]] = (
    ("enqueue", (NewJob,), _MADE_ONE),
    ("enqueue_many", (list[NewJob], IdempotencyKey | None), _MADE_MANY),
    ("enqueue_each", (list[NewJob],), _MADE_MANY),
    ("import_jobs", (list[ImportItem], str, _WITHIN), ImportResult),
    ("unique_owner", (str, str), _MAYBE_JOB, True),
    ("dequeue", (DequeueRequest, int), _DELIVERIES, True, 1),
    ("dequeue_job", (int, DequeueRequest), _DELIVERIES),
    ("conclude", (LeaseClaim, bytes | None), _JOB, True),
    ("release", (LeaseClaim, int, int | None), _JOB),
    ("fail", (LeaseClaim, bytes | None, bool, int | None), _JOB),
    ("heartbeat", (LeaseClaim, int | None, int | None, str | None), _JOB, True),
    ("renew", (LeaseClaim, int), _JOB, True),
    ("get", (int,), _JOB, True),
    ("wait_for", (int, int), _JOB, True, 1),
    ("explain", (int,), Explanation, True),
    ("state", (list[str],), str, True),
    ("cancel", (int, bool, int | None), _JOB),
    ("change", (int, Change, int | None), _JOB),
    ("redrive", (int, int | None), _JOB),
    ("list_jobs", (Filter, int | None, bool, int), tuple[list[Job], int | None], True),
    ("newest_id", (), int, True),
    ("peek", (str, int), list[Job], True),
    ("series", (str, int, int), QueueSeries, True),
    ("count_jobs", (Filter,), int, True),
    ("group_jobs", (Filter, list[str], int), JobGroups, True),
    ("purge", (Filter, bool), BulkResult),
    ("redrive_many", (Filter, int | None, bool), BulkResult),
    ("cancel_many", (Filter, bool, int | None, bool), BulkResult),
    ("run_many_now", (Filter, int | None, bool), BulkResult),
    ("move_many", (Filter, str | None, int | None, bool), BulkResult),
    ("configure", (str, dict[str, Any], int | None), QueueView),
    ("pause", (str, int | None, str | None, int | None, str | None), QueueView),
    ("resume", (str, int | None), QueueView),
    ("consumers", (int, _WITHIN), Consumers, True),
    ("queue", (str,), QueueView, True),
    ("queue_settings", (str,), QueueSettings, True),
    ("queues", (int, str | None, _WITHIN), list[QueueView], True),
    ("new_errors", (int, int, _WITHIN), list[NewError], True),
    ("schedule", (str,), Schedule, True),
    ("schedules", (str | None, frozenset[str] | None, bool | None, int, str | None, _WITHIN),
     list[Schedule], True),
    ("put_schedule", (Plan, bool | None, int | None), tuple[Schedule, bool]),
    ("put_schedules", (list[tuple[Plan, bool | None]], str | None, bool), ScheduleChanges),
    ("delete_schedule", (str, int | None), Schedule),
    ("pause_schedule", (str, str | None, int | None), Schedule),
    ("resume_schedule", (str, int | None), Schedule),
    ("run_schedule", (str,), _MADE_ONE),
    ("explain_schedule", (str,), ScheduleExplanation, True),
    ("stats", (_WITHIN,), EngineStats, True),
    ("end_session", (str,), None, True),
    ("has_ended", (str,), bool, True),
    ("give_back", (list[tuple[int, str]],), None, True),
    ("lose", (list[tuple[int, str]],), None, True),
)  # fmt: skip


def _verbs() -> Iterator[Verb]:
    for kind, (name, arguments, result, *more) in enumerate(_TABLE, FIRST_VERB):
        shape, pack, unpack = result if isinstance(result, tuple) else (result, None, None)
        again, waits = (*more, False, None)[:2] if len(more) != 1 else (more[0], None)
        given = GenericAlias(tuple, arguments)
        yield Verb(kind, name, decoder(given), decoder(shape), pack, unpack, again, waits)


VERBS: Final[dict[str, Verb]] = {verb.name: verb for verb in _verbs()}
BY_KIND: Final[dict[int, Verb]] = {verb.kind: verb for verb in VERBS.values()}

read_ids: Final = decoder(list[tuple[int, str]])
read_renewed: Final = decoder(list[tuple[int, str, int, int]])
read_event: Final = decoder(tuple[str, Job | None, str])
read_job: Final = decoder(Job)
read_error: Final = decoder(JobQueueError)


def shift(job: Job, by: int) -> Job:
    """Moves the times of the owner's monotonic clock in a job to that of this machine, in place."""
    lease, extras = job.lease, job.extras
    if lease is not None:
        lease.expires += by
        if lease.ends is not None:
            lease.ends += by
    if extras is not None:
        if extras.due is not None:
            extras.due += by
        if extras.options is not None and extras.options.expires_due is not None:
            extras.options.expires_due += by
    return job


def shift_consumers(found: Consumers, by: int) -> Consumers:
    """Returns the same with such times of their own moved; those of the jobs are not."""
    return Consumers(
        [holder._replace(seen_at=holder.seen_at + by) for holder in found.holding],
        [waiting._replace(until=waiting.until + by) for waiting in found.waiting],
        found.complete,
    )
