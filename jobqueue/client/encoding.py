"""What callers give, as the query and the JSON of requests; and the results of answers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any, Final, Literal, TypedDict, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Struct

from jobqueue.client.errors import BadAnswer
from jobqueue.client.http import Pairs, Response
from jobqueue.client.models import Job, Queue
from jobqueue.client.numbers import clamped
from jobqueue.units import duration_ms

T = TypeVar("T")
# A number of seconds, text such as "500ms", "90s", "5m", "2h", "1h30m", or a timedelta.
Duration = int | float | str | timedelta
# RFC 3339 with an offset, or a datetime with a zone.
Instant = str | datetime
# One name, or several.
Names = str | Iterable[str]
# Bounds of one request: items, and bytes of a body (the server's default limit is 1 MiB).
BATCH: Final = 1000
BATCH_BYTES: Final = 960 << 10


class Backoff(TypedDict, total=False):
    """The delays between attempts: `base` × `factor` each time, at most `max`."""

    base: Duration
    factor: float
    max: Duration
    jitter: float


class JobOptions(TypedDict, total=False):
    """The options of a job: docs/api.md, "Enqueue"."""

    queue: str
    priority: int
    delay: Duration
    run_at: Instant
    expires_in: Duration
    lease_for: Duration
    max_run_for: Duration
    max_attempts: int | None
    backoff: list[Duration] | Backoff
    retain_for: Duration
    key: str
    unique_key: str
    unique_while: Literal["queued", "active", "exists"]
    on_conflict: Literal["ignore", "reject", "replace"]
    tags: list[str]
    headers: dict[str, str]
    content_type: str


class JobChanges(TypedDict, total=False):
    """Changes of a waiting job. None is the default again; for `max_attempts` it is no limit."""

    queue: str | None
    type: str
    priority: int | None
    payload: Any
    delay: Duration | None
    run_at: Instant | None
    expires_in: Duration | None
    lease_for: Duration | None
    max_run_for: Duration | None
    max_attempts: int | None
    backoff: list[Duration] | Backoff | None
    retain_for: Duration | None
    key: str | None
    tags: list[str] | None
    headers: dict[str, str] | None


class RateOptions(TypedDict, total=False):
    """`count` starts in `per` (1 s), at most `burst` (`count`) at once."""

    count: int
    per: Duration
    burst: int


class KeyLimitOptions(TypedDict, total=False):
    max_in_progress: int
    rate: RateOptions
    ordered: bool
    batch: int


class QueueChanges(TypedDict, total=False):
    """Changes of a queue's settings. None is the default again."""

    lease_for: Duration | None
    max_run_for: Duration | None
    max_attempts: int | None
    backoff: list[Duration] | Backoff | None
    retain_for: Duration | None
    dead_letter: str | None
    max_jobs: int | None
    max_bytes: int | None
    max_in_progress: int | None
    rate: RateOptions | None
    key_limits: KeyLimitOptions | None
    fair_keys: bool | None
    attributes: dict[str, Any] | None


class Filters(TypedDict, total=False):
    """Filters of jobs; each is one value or several. A job matches if every given filter has one of its."""

    status: Names
    type: Names
    tag: Names
    key: Names
    older_than: Duration
    retrying: bool
    text: str
    error: str


class NewJob(Struct):
    """A job for `enqueue_many`. `options` are those of `JobOptions`."""

    type: str
    payload: Any = None
    options: JobOptions = {}


class ScheduleOptions(TypedDict, total=False):
    """When a schedule is due, and what else it says: docs/schedules.md."""

    cron: str
    every: Duration
    timezone: str
    starts_at: Instant
    ends_at: Instant
    group: str
    misfire: Literal["once", "skip", "all"]
    grace: Duration
    overlap: Literal["skip", "allow", "queue"]
    jitter: Duration
    paused: bool


class NewSchedule(Struct):
    """A schedule for `put_group` and `import_many`. `job` is a type, a `NewJob`, or a mapping as there."""

    name: str
    job: str | NewJob | Mapping[str, Any]
    options: ScheduleOptions = {}


class Conclude(Struct, omit_defaults=True):
    """An item for `conclude_many`."""

    id: int
    lease: str | None = None
    result: Any = UNSET
    consumer: str | None = None


class Heartbeat(Struct, omit_defaults=True):
    """An item for `heartbeat_many`."""

    id: int
    lease: str | None = None
    lease_for: Duration | None = None
    progress: int | None = None
    message: str | None = None
    consumer: str | None = None


class Release(Struct, omit_defaults=True):
    """An item for `release_many`."""

    id: int
    lease: str | None = None
    delay: Duration = 0
    priority: int | None = None
    consumer: str | None = None


class Fail(Struct, omit_defaults=True):
    """An item for `fail_many`."""

    id: int
    lease: str | None = None
    error: Any = UNSET
    retry: bool = True
    retry_in: Duration | None = None
    consumer: str | None = None


def _hook(value: Any) -> Any:
    """Encodes what msgspec does not know: a pydantic model, by its own method."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


encode_json: Final = msgspec.json.Encoder(enc_hook=_hook).encode


def plain(value: Any) -> Any:
    """Returns an option as JSON has it: a timedelta as seconds, a datetime as text, also inside.

    Raises `ValueError` for a datetime without a zone.
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no zone; use datetime.now(UTC), or a zoneinfo")
        return value.isoformat()
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


def filters(given: Filters) -> dict[str, Any]:
    """Returns filters for a query. Raises `TypeError` for one that there is not."""
    asked = checked(given, Filters, "a filter")
    if asked.get("retrying") is False:  # unlike an option that is false, this is not the default
        asked["retrying"] = "0"
    return asked


def checked(given: Mapping[str, Any], known: type, verb: str) -> dict[str, Any]:
    """Returns options as JSON has them. Raises `TypeError` for a name that the TypedDict `known` has not."""
    check_names(given, known, verb)
    return {name: value if name == "payload" else plain(value) for name, value in given.items()}


def check_names(given: Iterable[str], known: type, verb: str) -> None:
    """Raises `TypeError` for a name that the TypedDict `known` has not. `verb`: what takes the options."""
    names = known.__annotations__
    for name in given:
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; it takes {', '.join(names)}"
            raise TypeError(f"{verb} takes no option {name!r}{hint}")


def new_job(type: str, payload: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON object of a job. A payload of bytes goes as base64, with a `content_type`."""
    job: dict[str, Any] = {"type": type}
    if options:
        job |= checked(options, JobOptions, "a job")
    if isinstance(payload, (bytes, bytearray, memoryview)):
        job.setdefault("content_type", "application/octet-stream")
        job["payload_encoding"] = "base64"  # msgspec writes bytes so
    if payload is not None:
        job["payload"] = payload
    return job


def job_object(job: NewJob | Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON object of a job. A mapping has `type`, `payload` and options."""
    if isinstance(job, NewJob):
        return new_job(job.type, job.payload, job.options)
    options = {name: value for name, value in job.items() if name not in ("type", "payload")}
    return new_job(job["type"], job.get("payload"), options)


def many_jobs(jobs: Iterable[NewJob | Mapping[str, Any]]) -> Iterator[bytes]:
    """Yields each job as JSON."""
    return (encode_json(job_object(job)) for job in jobs)


def many(items: Iterable[Struct]) -> Iterator[bytes]:
    """Yields each item as JSON."""
    for item in items:
        if isinstance(item, Conclude):  # it has nothing that JSON writes differently
            yield encode_json(item)
            continue
        given = {name: getattr(item, name) for name in item.__struct_fields__}
        yield encode_json(
            {
                name: value if name in ("result", "error") else plain(value)
                for name, value in given.items()
                if (value is not None and value is not UNSET) or (name == "result" and value is None)
            }
        )


def batches(items: Iterable[bytes], most: int | None = BATCH) -> Iterator[list[bytes]]:
    """Yields items in lists that fit into one request, of at most `most` items; None: of any number."""
    batch: list[bytes] = []
    size = 0
    for item in items:
        if batch and (len(batch) == most or size + len(item) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item) + 1
    if batch:
        yield batch


def families(items: list[bytes]) -> list[tuple[list[int], list[bytes]]]:
    """Returns jobs by what stands before the first colon of their queue: their places, and the jobs."""
    found: dict[str, tuple[list[int], list[bytes]]] = {}
    for place, item in enumerate(items):
        places, jobs = found.setdefault(_read_queue(item).queue.partition(":")[0], ([], []))
        places.append(place)
        jobs.append(item)
    return list(found.values())


def queue_of(item: bytes) -> str:
    """Returns the queue of an encoded job; empty: it has none that could be right."""
    try:
        return _read_queue(item).queue
    except msgspec.MsgspecError:
        return ""


class _Queued(Struct):
    queue: str = "default"


_read_queue = msgspec.json.Decoder(_Queued).decode


def arrays(items: Iterable[bytes]) -> Iterator[bytes]:
    """Yields items as JSON arrays that fit into one request."""
    return (b"[%b]" % b",".join(batch) for batch in batches(items))


def names(given: Names | None) -> list[str] | None:
    if given is None:
        return None
    return given.split(",") if isinstance(given, str) else list(given)


def body(**given: Any) -> bytes:
    """Returns a JSON object without the members that are None; empty: none is left."""
    members = {name: plain(value) for name, value in given.items() if value is not None}
    return encode_json(members) if members else b""


def path(*segments: str | int) -> str:
    """Returns a path whose segments are percent-encoded."""
    return "/" + "/".join([quote(str(segment), safe=":") for segment in segments])


def query(**given: Any) -> str:
    """Returns a query with its question mark, without what is None or False; empty: nothing is left.

    `for_` becomes `for`.
    """
    parts = []
    for name, value in given.items():
        if value is None or value is False:
            continue
        if value is True:
            text = "1"
        elif isinstance(value, str):
            text = quote(value, safe=",:")
        elif isinstance(value, (timedelta, datetime)):
            text = quote(str(plain(value)), safe=":")
        elif isinstance(value, Iterable):
            text = ",".join(quote(str(one), safe=":") for one in value)
        else:
            text = str(value)
        parts.append(f"{name.removesuffix('_')}={text}")
    return "?" + "&".join(parts) if parts else ""


def at_cursor(target: str, cursor: str | None) -> str:
    """Returns the target of the page at a cursor of the list at `target`."""
    if cursor is None:
        return target
    return f"{target}{'&' if '?' in target else '?'}{query(cursor=cursor)[1:]}"


def if_match(etag: str | None) -> Pairs:
    return () if etag is None else ((b"If-Match", etag.encode("latin-1")),)


_decoders: dict[Any, Callable[[bytes], Any]] = {}


def decoder(kind: type[T]) -> Callable[[bytes], T]:
    """Returns the function that decodes JSON as a `kind`. It is made once."""
    found = _decoders.get(kind)
    if found is None:
        found = _decoders[kind] = msgspec.json.Decoder(kind).decode
    return found


def read(response: Response, kind: type[T]) -> T:
    """Returns the body as a `kind`. Raises `BadAnswer`."""
    try:
        result: T = clamped(decoder(kind), response.body)
    except msgspec.MsgspecError as bad:
        raise BadAnswer(f"the answer cannot be read: {bad}", status=response.status) from None
    return result


def read_job(response: Response) -> Job:
    job = read(response, Job)
    job.etag = response.header("etag")
    return job


def read_job_or_none(response: Response) -> Job | None:
    return None if response.status == 204 else read_job(response)


def read_queue(response: Response) -> Queue:
    queue = read(response, Queue)
    queue.etag = response.header("etag")
    return queue


def read_text(response: Response) -> str:
    return response.body.decode("utf-8", "replace")


def seconds(duration: Duration | None) -> float:
    """Returns a duration in seconds; None is 0. Raises `InvalidField` for what is not one."""
    return 0.0 if duration is None else duration_ms(plain(duration)) / 1000
