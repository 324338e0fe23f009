"""Readers of the calls that take jobs, and of those that end, extend or return a lease."""

from typing import Any, NamedTuple

from msgspec import Raw

from jobqueue.errors import BadInput, BodyTooLarge, InvalidField, MissingField
from jobqueue.model import DequeueRequest
from jobqueue.web.http import Request
from jobqueue.web.readers import fields, raw_body
from jobqueue.web.readers.decoder import OPTION_HEADERS, RequestDecoder, S, checked
from jobqueue.web.readers.job_error import optional_error
from jobqueue.web.readers.json_text import one_line
from jobqueue.web.readers.limits import Limits
from jobqueue.web.schema import requests

_HOLDER = ("lease", "consumer")
_PLAIN_WANT = DequeueRequest(("default",))


class Following(NamedTuple):
    """The dequeue after a conclude.

    `queues` is None for the queue of the concluded job. `lease_for` and `wait` are milliseconds. `raw`: the
    payload is the body.
    """

    queues: tuple[str, ...] | None
    lease_for: int | None
    wait: int
    consumer: str | None
    raw: bool


class LeaseClaim(NamedTuple):
    """The claim of a caller to a lease. `id` is set in requests for many jobs."""

    id: int
    lease: str | None
    consumer: str | None


class ConsumeReaders:
    """Reads dequeues, streams of jobs, and what a consumer reports about its jobs."""

    __slots__ = (
        "_conclude", "_conclude_each", "_dequeue", "_fail", "_fail_each", "_heartbeat",
        "_heartbeat_each", "_limits", "_max_depth", "_release", "_release_each", "_stream",
    )  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._max_depth = limits.max_depth
        self._dequeue = RequestDecoder(requests.DequeueShape, headers=("consumer",))
        self._conclude: RequestDecoder[Any] = RequestDecoder(
            requests.ConcludeOptions, headers=_HOLDER, nulls=frozenset({"result"}),
            body=requests.ConcludeShape,
            first=requests.PlainConclude,
        )  # fmt: skip
        self._conclude_each = RequestDecoder(
            requests.ConcludeItem, headers=_HOLDER, nulls=frozenset({"result"})
        )
        self._heartbeat = RequestDecoder(requests.HeartbeatShape, headers=_HOLDER)
        self._heartbeat_each = RequestDecoder(requests.HeartbeatItem, headers=_HOLDER)
        self._release = RequestDecoder(requests.ReleaseShape, headers=_HOLDER)
        self._release_each = RequestDecoder(requests.ReleaseItem, headers=_HOLDER)
        self._fail: RequestDecoder[Any] = RequestDecoder(
            requests.FailOptions, headers=_HOLDER, body=requests.FailShape
        )
        self._fail_each = RequestDecoder(requests.FailItem, headers=_HOLDER)
        self._stream = RequestDecoder(requests.StreamShape, headers=("consumer",))

    def decoders(self) -> list[RequestDecoder[Any]]:
        """Returns the decoder of each request struct that is read here."""
        return [
            self._dequeue, self._conclude, self._conclude_each, self._heartbeat, self._heartbeat_each,
            self._release, self._release_each, self._fail, self._fail_each, self._stream,
        ]  # fmt: skip

    def dequeue(self, request: Request) -> tuple[DequeueRequest, int, bool]:
        """Returns the dequeue request, the wait in milliseconds, and whether the payload is to be the
        body.
        """
        if not request.body and not request.query and OPTION_HEADERS.isdisjoint(request.headers):
            return _PLAIN_WANT, 0, False
        asked = self._dequeue.read(request, self._max_depth)
        queues = self._limits.queues(asked.queue, asked.queues) or ("default",)
        count = asked.count
        if count is not None:
            fields.whole(count, "count", 1, self._limits.max_batch, "JOBQUEUE_MAX_BATCH")
            if asked.raw:
                raise InvalidField("raw is one job: a body holds one payload; leave out count", field="count")
        consumer = None if asked.consumer is None else fields.label(asked.consumer, "consumer", 128)
        want = DequeueRequest(queues, self._limits.lease_for(asked.lease_for), count, consumer)
        return want, self._limits.wait(asked.wait), asked.raw

    def stream(self, request: Request) -> tuple[DequeueRequest, int | None]:
        """Returns the dequeue request, whose `count` limits the jobs held, and the length in milliseconds."""
        asked = self._stream.read(request, self._max_depth)
        prefetch = fields.whole(asked.prefetch, "prefetch", 1, 1000)
        consumer = None if asked.consumer is None else fields.label(asked.consumer, "consumer", 128)
        queues = self._limits.queues(asked.queue, asked.queues) or ("default",)
        want = DequeueRequest(queues, self._limits.lease_for(asked.lease_for), prefetch, consumer)
        return want, fields.watched_for(asked.length)

    def conclude(self, request: Request) -> tuple[str | None, str | None, bytes | None, Following | None]:
        """Returns lease, consumer, result, and the dequeue that follows; each None if not given."""
        asked = self._conclude.read(request, self._max_depth)
        if type(asked) is requests.PlainConclude:
            if asked.consumer is None and asked.result is requests.ABSENT:
                lease = None if asked.lease is None else fields.lease_token(asked.lease)
                return lease, None, None, None
            held = self._held(asked)
            return held.lease, held.consumer, self._result(asked), None
        held = self._held(asked)
        if asked.raw:
            result = self._small(raw_body.result_of_body(request, self._max_depth))
        else:
            result = self._result(asked)
        return held.lease, held.consumer, result, self._following(asked)

    def _following(self, asked: requests.ConcludeOptions) -> Following | None:
        if asked.next:
            wait = 0 if asked.wait is None else self._limits.wait(asked.wait)
            return Following(
                self._limits.queues(asked.queue, asked.queues),
                self._limits.lease_for(asked.lease_for),
                wait,
                asked.consumer,
                asked.raw,
            )
        for name in ("queues", "queue", "wait", "lease_for"):
            if getattr(asked, name) is not None:
                raise MissingField(f"{name} is for the dequeue after the conclude: add next=1", field="next")
        return None

    def conclude_many(self, request: Request) -> list[tuple[LeaseClaim, bytes | None] | BadInput]:
        return self._each(
            self._conclude_each, request, lambda asked: (self._held(asked), self._result(asked))
        )

    def heartbeat(self, request: Request) -> tuple[LeaseClaim, int | None, int | None, str | None]:
        """Returns the claim, the length in milliseconds, progress and message; each None if not given."""
        return self._beat(self._heartbeat.read(request, self._max_depth))

    def heartbeat_many(
        self, request: Request
    ) -> list[tuple[LeaseClaim, int | None, int | None, str | None] | BadInput]:
        return self._each(self._heartbeat_each, request, self._beat)

    def release(self, request: Request) -> tuple[LeaseClaim, int]:
        """Returns the claim, and the delay in milliseconds."""
        return self._released(self._release.read(request, self._max_depth))

    def release_many(self, request: Request) -> list[tuple[LeaseClaim, int] | BadInput]:
        return self._each(self._release_each, request, self._released)

    def fail(self, request: Request) -> tuple[LeaseClaim, bytes | None, bool, int | None]:
        """Returns the claim, the error as JSON, whether to retry, and the delay in milliseconds."""
        asked = self._fail.read(request, self._max_depth)
        if isinstance(asked, requests.FailOptions) and asked.raw:
            if bytes(asked.error):
                raise InvalidField("error: with raw=1 the body is the error", field="error")
            asked.error = Raw(raw_body.error_of_body(request))
        return self._failed(asked)

    def fail_many(
        self, request: Request
    ) -> list[tuple[LeaseClaim, bytes | None, bool, int | None] | BadInput]:
        return self._each(self._fail_each, request, self._failed)

    def _each(self, call: RequestDecoder[S], request: Request, check: Any) -> list[Any]:
        options = call.options(request)
        return checked(call.many(request, options, self._max_depth, self._limits.max_batch), check, False)

    def _held(self, asked: requests.HolderShape) -> LeaseClaim:
        lease, consumer = asked.lease, asked.consumer
        if lease is not None:
            fields.lease_token(lease)
        if consumer is not None:
            fields.label(consumer, "consumer", 128)
        return LeaseClaim(getattr(asked, "id", 0), lease, consumer)

    def _result(self, asked: requests.PlainConclude) -> bytes | None:
        text = bytes(asked.result)
        return self._small(one_line(text, self._max_depth)) if text else None

    def _small(self, result: bytes | None) -> bytes | None:
        if result is not None and len(result) > self._limits.max_result:
            raise BodyTooLarge(
                f"a result may have {self._limits.max_result:,} bytes; this one has {len(result):,}",
                field="result", limit=self._limits.max_result, setting="JOBQUEUE_MAX_RESULT",
            )  # fmt: skip
        return result

    def _beat(self, asked: requests.HeartbeatShape) -> tuple[LeaseClaim, int | None, int | None, str | None]:
        if asked.progress is not None:
            fields.whole(asked.progress, "progress", 0, 100)
        if asked.message is not None:
            fields.said(asked.message, "message", 500)
        return self._held(asked), self._limits.lease_for(asked.lease_for), asked.progress, asked.message

    def _released(self, asked: requests.ReleaseShape) -> tuple[LeaseClaim, int]:
        return self._held(asked), fields.length(asked.delay, "delay")

    def _failed(self, asked: requests.FailShape) -> tuple[LeaseClaim, bytes | None, bool, int | None]:
        text = bytes(asked.error)
        error = optional_error(text, self._max_depth)
        retry_in = None if asked.retry_in is None else fields.length(asked.retry_in, "retry_in")
        return self._held(asked), error, asked.retry, retry_in
