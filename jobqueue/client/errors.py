"""What the client raises beside the server's refusals, and the refusal that an answer stands for.

A refusal is an instance of the class in `jobqueue.errors` that has its code, such as `LeaseLost` or
`QueueFull`. Everything that the client raises is a `JobQueueError`.
"""

from typing import Any

import msgspec

from jobqueue import errors
from jobqueue.client.http import Response
from jobqueue.client.numbers import clamped
from jobqueue.errors import JobQueueError


class Unreachable(JobQueueError):
    """The server could not be reached, or the request could not be sent whole. Nothing was done.

    The fact `sent_partly` says that a part of it was sent. Only an import acts on parts.
    """

    code = "unreachable"


class AnswerLost(JobQueueError):
    """The request was sent, and no whole answer came back. The server may have done what was asked.

    `AsyncClient` cannot tell how much of a request was sent, so there it may also have been sent in part.
    """

    code = "answer_lost"


class MaybeEnqueued(AnswerLost):
    """The answer to an enqueue was lost: the jobs may be in their queue, or not.

    With an `idempotency_key` the client sends the same request again, and this is not raised.
    """

    code = "maybe_enqueued"


class BadAnswer(AnswerLost):
    """What came back is not an answer of jobqueue. Is the address that of another server?"""

    code = "bad_answer"


def _kinds() -> dict[str, type[JobQueueError]]:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return {kind.code: kind for kind in found if issubclass(kind, JobQueueError) and "code" in vars(kind)}


_KINDS = _kinds()
# A gateway answers these when it lost the server, or gave up waiting for it.
_GATEWAY = (502, 504)
_REDIRECTS = (301, 302, 303, 307, 308)
# What a gateway's own answer without a problem document stands for.
_BY_STATUS: dict[int, type[JobQueueError]] = {
    401: errors.Unauthorized,
    403: errors.Refused,
    408: errors.RequestTimeout,
    413: errors.BodyTooLarge,
    429: errors.TooMany,
    503: errors.Unavailable,
}


def error_of(problem: dict[str, Any]) -> JobQueueError:
    """Returns the error that a problem document describes.

    Its members except `code` and `detail` are the facts, among them `status` and `request_id`. A code that
    this version does not know makes a plain `JobQueueError` with that code.
    """
    facts = dict(problem)
    code, detail = str(facts.pop("code", "internal")), str(facts.pop("detail", ""))
    kind = _KINDS.get(code)
    if kind is not None:
        return kind(detail, **facts)
    unknown = JobQueueError(detail, **facts)
    vars(unknown)["code"] = code
    return unknown


_problem = msgspec.json.Decoder(dict[str, Any]).decode


def refusal(response: Response) -> JobQueueError:
    """Returns the error that an answer without success stands for."""
    if (response.header("content-type") or "").startswith("application/problem+json"):
        try:
            problem = clamped(_problem, response.body)
        except msgspec.MsgspecError:
            return BadAnswer("an error's body is not JSON", **_facts(response))
        return error_of(problem)
    return _of_a_gateway(response)


def _of_a_gateway(response: Response) -> JobQueueError:
    facts = _facts(response)
    if response.status in _GATEWAY:
        return AnswerLost(f"a gateway answered {response.status}: it got no answer of the server", **facts)
    kind = _BY_STATUS.get(response.status)
    if kind is not None:
        after = response.header("retry-after")
        if after is not None and after.isdigit():
            facts["retry_after"] = int(after)
        return kind(f"refused with {response.status}, not by jobqueue but on the way to it", **facts)
    if response.status in _REDIRECTS:
        to = response.header("location")
        return BadAnswer(f"redirected to {to}; redirects are not followed, so use that address", **facts)
    return BadAnswer(f"an answer {response.status} that is not of jobqueue; is the address right?", **facts)


def _facts(response: Response) -> dict[str, Any]:
    facts: dict[str, Any] = {"status": response.status}
    if (request_id := response.header("x-request-id")) is not None:
        facts["request_id"] = request_id
    return facts
