"""A call of the API as a value, and the rule by which it is repeated.

Each verb makes a `Call`; `Client` and `AsyncClient` carry it out, one by blocking, the other by awaiting.
"""

import random
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from msgspec import Struct

from jobqueue.client.errors import AnswerLost, BadAnswer, MaybeEnqueued, Unreachable
from jobqueue.client.http import About, Pairs, Response
from jobqueue.errors import JobQueueError, OutcomeUnknown, RequestTimeout, TooMany, Unavailable

T = TypeVar("T")
# Seconds before an attempt after a failure that names none: a random part of these, twice as long each time.
_FIRST_DELAY: Final = 0.05
_MAX_DELAY: Final = 5.0
# What does not say whether an attempt before was carried out. Other errors are the server's answer to it.
_UNDECIDED: Final = (Unreachable, AnswerLost, TooMany, Unavailable)


class Call(Struct, Generic[T], frozen=True):
    """One request, and how its answer is read.

    - `target`: the path with the query, without the address's prefix.
    - `read`: makes the result of an answer with a status below 300.
    - `wait`: seconds that the server may take on purpose; added to the timeouts.
    - `safe`: doing it twice does no more than doing it once, so it is repeated when an answer was lost.
    - `enqueues`: a lost answer is `MaybeEnqueued`.
    - `in_parts`: the server acts on parts of the body before it has the whole.
    - `about`: as that of the `Request`.
    """

    method: str
    target: str
    read: Callable[[Response], T]
    body: bytes = b""
    headers: Pairs = ()
    wait: float = 0.0
    safe: bool = False
    enqueues: bool = False
    in_parts: bool = False
    about: About = ()


class StreamCall(Struct, Generic[T], frozen=True):
    """One request whose answer is a stream. `split` makes the object that cuts its pieces into items."""

    method: str
    target: str
    split: Callable[[], Callable[[bytes], list[T]]]
    body: bytes = b""
    headers: Pairs = ()
    about: About = ()


class Retries:
    """Decides what follows a failed attempt of one call.

    `retry_for`: seconds from the first attempt in which the last one may start.
    """

    def __init__(self, call: Call[T], started: float, retry_for: float) -> None:
        self._safe = call.safe
        self._enqueues = call.enqueues
        self._in_parts = call.in_parts
        self._end = started + retry_for
        self._delay = _FIRST_DELAY
        self._sent = False  # an attempt before may have been carried out

    def delay_after(self, error: JobQueueError, now: float) -> float:
        """Returns the seconds to the next attempt. Raises the error that the caller gets if there is none."""
        if isinstance(error, BadAnswer) and (error.status or 0) >= 300:
            raise self._final(error) from error.__cause__  # another server refused it
        if self._in_parts and error.facts.get("sent_partly"):
            error = AnswerLost(error.detail, **error.facts)
        if isinstance(error, (AnswerLost, OutcomeUnknown)):
            self._sent = True
            if not self._safe:
                raise self._final(error) from error
        if not self._passes(error):
            raise self._final(error) if isinstance(error, _UNDECIDED) else error
        after = error.facts.get("retry_after")
        if isinstance(after, (int, float)):
            delay = after + random.uniform(0, min(1.0, after / 10))  # not all clients at the same instant
        else:
            delay = random.uniform(0, self._delay)
            self._delay = min(2 * self._delay, _MAX_DELAY)
        if now + delay > self._end:
            raise self._final(error) from error.__cause__
        return delay

    def _final(self, error: JobQueueError) -> JobQueueError:
        """Returns what to raise when no attempt follows `error`, though a later one might have succeeded."""
        if not (self._enqueues and self._sent):
            return error
        hint = "" if self._safe else "; with an idempotency_key the client asks again by itself"
        return MaybeEnqueued(f"the jobs may be enqueued, or not: {error.detail}{hint}", **error.facts)

    @staticmethod
    def _passes(error: JobQueueError) -> bool:
        """Tells whether the same call may succeed later."""
        if isinstance(error, Unreachable):
            return not error.facts.get("permanent")
        if isinstance(error, (TooMany, Unavailable)):
            return "retry_after" in error.facts
        if isinstance(error, AnswerLost):
            return not isinstance(error, BadAnswer)
        return isinstance(error, RequestTimeout)
