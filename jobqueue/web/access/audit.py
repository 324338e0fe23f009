"""The audit log: a line for each administrative call, with the caller and the number of jobs."""

import logging

import msgspec
from msgspec import Struct

from jobqueue.web.http import Answer, Deferred, Request, Response

_log = logging.getLogger("jobqueue.audit")


class _Swept(Struct):
    changed: int | None = None


_read = msgspec.json.Decoder(_Swept).decode


def audited(answer: Answer, request: Request, who: str) -> Answer:
    """Returns `answer` and logs it, now or once it is there.

    `who` is the name of an access token, or "". The fronts log streams and uploads when they end.
    """
    if isinstance(answer, Deferred):
        render = answer.render
        answer.render = lambda result: audited(render(result), request, who)
        return answer
    return _tell(answer, request, who) if isinstance(answer, Response) else answer


def _tell(answer: Response, request: Request, who: str) -> Response:
    path = request.path[:200] if request.sqs is None else request.sqs.label
    try:
        changed = _read(answer.body).changed
    except msgspec.DecodeError:
        changed = None
    _log.info(
        "audit: %s %s by %s from %s: %d%s rid=%s",
        request.method,
        path,
        who or "a caller without a token",
        request.peer or "-",
        answer.status,
        "" if changed is None else f", {changed} jobs",
        request.id,
        extra={
            "members": {
                "event": "audit",
                "method": request.method,
                "path": path,
                "who": who,
                "peer": request.peer,
                "status": answer.status,
                "changed": changed,
                "request_id": request.id,
            }
        },
    )
    return answer
