"""Readers of the calls that take jobs, and of those that end, extend or return a lease."""

from typing import Any, Final, NamedTuple

from msgspec import Raw

from jobqueue.errors import BodyTooLarge, InvalidField, InvalidJson, JobQueueError, MissingField
from jobqueue.model import DequeueRequest, LeaseClaim
from jobqueue.web.http import Request
from jobqueue.web.readers import raw_body
from jobqueue.web.readers.decoder import (
    CONSUMER_HEADERS,
    OPTION_HEADERS,
    RequestDecoder,
    S,
    checked,
    remember,
    without_lease,
)
from jobqueue.web.readers.job_error import optional_error
from jobqueue.web.readers.json_text import REFUSED, check_utf8, one_line
from jobqueue.web.readers.limits import Limits
from jobqueue.web.schema import requests

_HOLDER: Final = ("lease", "consumer")
# Bound here, since each request needs them.
_PlainConclude: Final = requests.PlainConclude
_ABSENT: Final = requests.ABSENT
_PLAIN_WANT: Final = DequeueRequest(("default",))


class Report(NamedTuple):
    """What a consumer reports about a job: the arguments of the engine's verb. The first one is the claim.

    `truncated` names the fields that were cut for being too long. What ends or keeps a lease is not refused
    for the length of a text, since the work would be done again.
    """

    arguments: tuple[Any, ...]
    truncated: tuple[str, ...] = ()

    @property
    def id(self) -> int:
        claim: LeaseClaim = self.arguments[0]
        return claim.id


class Following(NamedTuple):
    """The dequeue after a conclude.

    `queues` is None for the queue of the concluded job. `lease_for` and `wait` are milliseconds. `raw`: the
    payload is the body.
    """

    queues: tuple[str, ...] | None
    by_priority: bool
    lease_for: int | None
    wait: int
    raw: bool


class ConcludeQuery(NamedTuple):
    """What the query of a conclude says, but for the lease."""

    consumer: str | None
    raw: bool
    following: Following | None


class ConsumeReaders:
    """Reads dequeues, streams of jobs, and what a consumer reports about its jobs."""

    __slots__ = (
        "_conclude", "_conclude_each", "_consumer", "_dequeue", "_dequeue_job", "_fail", "_fail_each",
        "_heartbeat", "_heartbeat_each", "_lease", "_limits", "_max_depth", "_of_conclude_query",
        "_of_dequeue_query", "_release", "_release_each", "_stream",
    )  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._max_depth = limits.max_depth
        self._dequeue = limits.decoder(requests.DequeueShape, headers=("consumer",))
        self._dequeue_job = limits.decoder(requests.DequeueJobShape, headers=("consumer",))
        self._conclude = limits.decoder(
            requests.ConcludeOptions, headers=_HOLDER, nulls=frozenset({"result"}),
            body=requests.ConcludeShape,
            first=requests.PlainConclude,
        )  # fmt: skip
        self._conclude_each = limits.decoder(
            requests.ConcludeItem, headers=_HOLDER, nulls=frozenset({"result"})
        )
        self._heartbeat = limits.decoder(requests.HeartbeatShape, headers=_HOLDER, remembers=True)
        self._heartbeat_each = limits.decoder(requests.HeartbeatItem, headers=_HOLDER)
        self._release = limits.decoder(requests.ReleaseShape, headers=_HOLDER, remembers=True)
        self._release_each = limits.decoder(requests.ReleaseItem, headers=_HOLDER)
        self._fail = limits.decoder(
            requests.FailOptions, headers=_HOLDER, body=requests.FailShape, remembers=True
        )
        self._fail_each = limits.decoder(requests.FailItem, headers=_HOLDER)
        self._stream = limits.decoder(requests.StreamShape, headers=("consumer",))
        # Of all calls that claim a lease, which share `HolderShape`.
        self._lease = self._conclude.kinds["lease"]
        self._consumer = self._conclude.kinds["consumer"]
        # What was made of queries: clients send the same ones again and again.
        self._of_dequeue_query: dict[str, tuple[DequeueRequest, int, bool]] = {}
        self._of_conclude_query: dict[str, ConcludeQuery] = {}

    def dequeue(self, request: Request) -> tuple[DequeueRequest, int, bool]:
        """Returns the dequeue request, the wait in milliseconds, and whether the payload is to be the
        body.
        """
        query = request.query
        by_query = not request.body and OPTION_HEADERS.isdisjoint(request.headers)
        if by_query:
            if not query:
                return _PLAIN_WANT, 0, False
            known = self._of_dequeue_query.get(query)
            if known is not None:
                return known
        asked = self._dequeue.read(request, self._max_depth)
        kinds = self._dequeue.kinds
        queues = self._limits.queues(asked.queue, asked.queues) or ("default",)
        count, consumer, lease_for, wait = asked.count, asked.consumer, asked.lease_for, asked.wait
        if count is not None:
            kinds["count"].check(count, "count")
            if asked.raw:
                raise InvalidField("raw is one job: a body holds one payload; leave out count", field="count")
        if consumer is not None:
            kinds["consumer"].check(consumer, "consumer")
        if lease_for is not None:
            lease_for = kinds["lease_for"].check(lease_for, "lease_for")
        wait = 0 if wait == 0 else kinds["wait"].check(wait, "wait")
        want = DequeueRequest(queues, lease_for, count, consumer, "", asked.order == "priority")
        if by_query:
            remember(self._of_dequeue_query, query, (want, wait, asked.raw))
        return want, wait, asked.raw

    def dequeue_job(self, request: Request) -> tuple[DequeueRequest, bool]:
        """Returns the dequeue request, which names no queue, and whether the payload is to be the body."""
        asked = self._dequeue_job.read(request, self._max_depth)
        lease_for, consumer = self._dequeue_job.values(asked, "lease_for", "consumer")
        return DequeueRequest((), lease_for, None, consumer), asked.raw

    def stream(self, request: Request) -> tuple[DequeueRequest, int | None]:
        """Returns the dequeue request, whose `count` limits the jobs held, and the length in milliseconds."""
        asked = self._stream.read(request, self._max_depth)
        prefetch, consumer = self._stream.values(asked, "prefetch", "consumer")
        queues = self._limits.queues(asked.queue, asked.queues) or ("default",)
        lease_for, length = self._stream.values(asked, "lease_for", "for")
        return DequeueRequest(queues, lease_for, prefetch, consumer, "", asked.order == "priority"), length

    def conclude(
        self, request: Request, id: int
    ) -> tuple[LeaseClaim, bytes | None, tuple[str, ...], Following | None]:
        """Returns the claim, the result, what was cut, and the dequeue that follows.

        Result and dequeue are None if not given.
        """
        query = request.query
        if query:
            query, lease = without_lease(query)
            known = self._of_conclude_query.get(query)
            if known is not None and (found := self._conclude_by(known, lease, request, id)) is not None:
                return found
        asked = self._conclude.read(request, self._max_depth)
        if type(asked) is _PlainConclude:
            if asked.consumer is None and asked.result is _ABSENT:
                lease = asked.lease
                if lease is not None:
                    self._lease.check(lease, "lease")
                return LeaseClaim(id, lease, None), None, (), None
            return self._claim(asked, id), self._result(asked), (), None
        claim = self._claim(asked, id)
        truncated: tuple[str, ...] = ()
        if isinstance(asked, requests.ConcludeOptions) and asked.raw:
            result, truncated = self._raw_result(request)
        else:
            result = self._result(asked)
        following = self._following(asked)
        if request.query:
            self._remember_conclude(query)
        return claim, result, truncated, following

    def _remember_conclude(self, query: str) -> None:
        """Remembers what the query of a conclude says, unless it names a lease."""
        try:
            options = self._conclude.options(Request("", "", query, {}, b"", "", ""))
            if "lease" not in options:
                asked = self._conclude.merge(b"", options, self._max_depth)
                found = ConcludeQuery(self._claim(asked, 0).consumer, asked.raw, self._following(asked))
                remember(self._of_conclude_query, query, found)
        except JobQueueError:  # what it needs besides is in the body or in a header
            pass

    def _conclude_by(
        self, known: ConcludeQuery, lease: str | None, request: Request, id: int
    ) -> tuple[LeaseClaim, bytes | None, tuple[str, ...], Following | None] | None:
        """Reads a conclude whose query is known, and has `lease`. None: it has to be read as a whole, since
        an option is given twice, or there is something special in the body."""
        headers = request.headers
        if not OPTION_HEADERS.isdisjoint(headers):
            if lease is not None or not CONSUMER_HEADERS.isdisjoint(headers):
                return None
            lease = request.header(b"job-lease")
        consumer, is_raw, following = known
        body = request.body
        if is_raw or not body:
            claim = self._checked_claim(id, lease, consumer)
            result, truncated = self._raw_result(request) if is_raw else (None, ())
            return claim, result, truncated, following
        try:
            if not body.isascii():
                check_utf8(body)
            asked = self._conclude.decode(body)
        except (InvalidJson, *REFUSED):
            return None
        if asked.lease is not None:
            if lease is not None:
                return None
            lease = asked.lease
        if asked.consumer is not None:
            if consumer is not None:
                return None
            consumer = asked.consumer
        return self._checked_claim(id, lease, consumer), self._result(asked), (), following

    def _following(self, asked: requests.ConcludeShape) -> Following | None:
        if asked.next:
            wait = self._conclude.value(asked, "wait") or 0
            queues = self._limits.queues(asked.queue, asked.queues)
            lease_for = self._conclude.value(asked, "lease_for")
            by_priority = asked.order == "priority"
            is_raw = isinstance(asked, requests.ConcludeOptions) and asked.raw
            return Following(queues, by_priority, lease_for, wait, is_raw)
        for name in ("queues", "queue", "order", "wait", "lease_for"):
            if getattr(asked, name) is not None:
                raise MissingField(f"{name} is for the dequeue after the conclude: add next=1", field="next")
        return None

    def conclude_many(self, request: Request) -> list[Report | JobQueueError]:
        """Returns claim and result of each job."""
        return self._each(
            self._conclude_each,
            request,
            lambda asked: Report((self._claim(asked, asked.id), self._result(asked))),
        )

    def heartbeat(self, request: Request, id: int) -> Report:
        """Returns the claim, the length in milliseconds, progress and message; each None if not given."""
        return self._beat(self._heartbeat.read(request, self._max_depth), id)

    def heartbeat_many(self, request: Request) -> list[Report | JobQueueError]:
        return self._each(self._heartbeat_each, request, lambda asked: self._beat(asked, asked.id))

    def release(self, request: Request, id: int) -> Report:
        """Returns the claim, the delay in milliseconds, and the new priority or None."""
        return self._released(self._release.read(request, self._max_depth), id)

    def release_many(self, request: Request) -> list[Report | JobQueueError]:
        return self._each(self._release_each, request, lambda asked: self._released(asked, asked.id))

    def fail(self, request: Request, id: int) -> Report:
        """Returns the claim, the error as JSON, whether to retry, and the delay in milliseconds."""
        asked = self._fail.read(request, self._max_depth)
        if isinstance(asked, requests.FailOptions) and asked.raw:
            if bytes(asked.error):
                raise InvalidField("error: with raw=1 the body is the error", field="error")
            asked.error = Raw(raw_body.error_of_body(request))
        return self._failed(asked, id)

    def fail_many(self, request: Request) -> list[Report | JobQueueError]:
        return self._each(self._fail_each, request, lambda asked: self._failed(asked, asked.id))

    def _each(self, call: RequestDecoder[S], request: Request, check: Any) -> list[Any]:
        options = call.options(request)
        return checked(call.many(request, options, self._max_depth, self._limits.max_batch), check, False)

    def _claim(self, asked: requests.HolderShape, id: int) -> LeaseClaim:
        return self._checked_claim(id, asked.lease, asked.consumer)

    def _checked_claim(self, id: int, lease: str | None, consumer: str | None) -> LeaseClaim:
        if lease is not None:
            self._lease.check(lease, "lease")
        if consumer is not None:
            self._consumer.check(consumer, "consumer")
        return LeaseClaim(id, lease, consumer)

    def _result(self, asked: requests.PlainConclude) -> bytes | None:
        text = bytes(asked.result)
        return self._small(one_line(text, self._max_depth)) if text else None

    def _raw_result(self, request: Request) -> tuple[bytes | None, tuple[str, ...]]:
        """Returns the result in a raw body, and what was cut."""
        result, was_cut = raw_body.result_of_body(request, self._max_depth, self._limits.max_result)
        return self._small(result), ("result",) if was_cut else ()

    def _small(self, result: bytes | None) -> bytes | None:
        if result is not None and len(result) > self._limits.max_result:
            raise BodyTooLarge(
                f"a result may have {self._limits.max_result:,} bytes; this one has {len(result):,}",
                field="result", limit=self._limits.max_result, setting="JOBQUEUE_MAX_RESULT",
            )  # fmt: skip
        return result

    def _beat(self, asked: requests.HeartbeatShape, id: int) -> Report:
        kinds, progress, message = self._heartbeat.kinds, asked.progress, asked.message
        truncated: tuple[str, ...] = ()
        if progress is not None:
            progress = kinds["progress"].check(progress, "progress")
        if message is not None:
            kept = kinds["message"].check(message, "message")
            truncated = () if kept is message else ("message",)
            message = kept
        claim, lease_for = self._claim(asked, id), asked.lease_for
        length = None if lease_for is None else kinds["lease_for"].check(lease_for, "lease_for")
        return Report((claim, length, progress, message), truncated)

    def _released(self, asked: requests.ReleaseShape, id: int) -> Report:
        delay, priority = self._release.values(asked, "delay", "priority")
        return Report((self._claim(asked, id), delay, priority))

    def _failed(self, asked: requests.FailShape, id: int) -> Report:
        error, was_cut = optional_error(bytes(asked.error), self._max_depth)
        retry_in = self._fail.value(asked, "retry_in")
        arguments = (self._claim(asked, id), error, asked.retry, retry_in)
        return Report(arguments, ("error",) if was_cut else ())
