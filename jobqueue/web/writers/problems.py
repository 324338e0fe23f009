"""Errors as HTTP: each error class has its status here, and becomes a problem document (RFC 9457)."""

from typing import Any

import msgspec

from jobqueue import errors
from jobqueue.web.http import PROBLEM, REASONS, Response
from jobqueue.web.schema.responses import Problem

# The nearest class in the order of inheritance counts.
STATUS: dict[type[errors.JobQueueError], int] = {
    errors.JobQueueError: 500,
    errors.BadInput: 400,
    errors.JobNotFound: 404,
    errors.JobForgotten: 410,
    errors.ScheduleNotFound: 404,
    errors.Conflict: 409,
    errors.PreconditionFailed: 412,
    errors.Unauthorized: 401,
    errors.Refused: 403,
    errors.NoSuchRoute: 404,
    errors.MethodNotAllowed: 405,
    errors.RequestTimeout: 408,
    errors.BodyTooLarge: 413,
    errors.UnsupportedEncoding: 415,
    errors.HeadersTooLarge: 431,
    errors.IdempotencyMismatch: 422,
    errors.TooMany: 429,
    errors.NoRoom: 507,
    errors.Unavailable: 503,
}
# The members of a problem that come from the facts of an error.
_FACTS = frozenset(Problem.__struct_fields__) - {"code", "status", "title", "detail", "request_id"}
# A session that has ended is told without `Basic`: a page that is loaded again by itself would ask for a
# password.
_BEARER = b'\r\nWWW-Authenticate: Bearer realm="jobqueue"'
# A line for each scheme: Chromium reads only the first scheme of a line, and would not ask for a password.
_CHALLENGE = _BEARER + b'\r\nWWW-Authenticate: Basic realm="jobqueue", charset="UTF-8"'


def status_of(error: errors.JobQueueError) -> int:
    return _status_of_kind(type(error))


def _status_of_kind(kind: type[errors.JobQueueError]) -> int:
    return next(STATUS[base] for base in kind.__mro__ if base in STATUS)


def codes() -> dict[int, list[str]]:
    """Returns all codes of problem documents, by status."""
    found: dict[int, list[str]] = {}
    for kind in vars(errors).values():
        answered = isinstance(kind, type) and issubclass(kind, errors.JobQueueError)
        if answered and kind is not errors.SettingError and "code" in vars(kind):
            found.setdefault(_status_of_kind(kind), []).append(kind.code)
    return dict(sorted(found.items()))


def problem(error: errors.JobQueueError, request_id: str) -> Response:
    """Returns the answer to a refused request. Two of the error's facts are also headers, or only that."""
    headers = b""
    if "retry_after" in error.facts:
        headers += f"\r\nRetry-After: {error.facts['retry_after']}".encode("latin-1")
    if isinstance(error, errors.Unauthorized):
        headers += _BEARER if "session" in error.facts else _CHALLENGE
    if "allow" in error.facts:
        headers += f"\r\nAllow: {error.facts['allow']}".encode("latin-1")
    return _answer(problem_of(error, request_id), headers)


def problem_of(error: errors.JobQueueError, request_id: str) -> Problem:
    """Returns the problem of a request, or of one item of a request for many.

    Facts of the error are its members; facts that it does not declare are left out.
    """
    status = status_of(error)
    facts: dict[str, Any] = {name: fact for name, fact in error.facts.items() if name in _FACTS}
    return Problem(error.code, status, REASONS[status], error.detail, request_id, **facts)


def internal(request_id: str) -> Response:
    """Returns the answer to a request that met a bug. The log has the traceback under the same request id."""
    detail = f"the server made a mistake; its log says which, under request id {request_id}"
    return _answer(Problem("internal", 500, REASONS[500], detail, request_id), b"")


def _answer(problem: Problem, headers: bytes) -> Response:
    return Response(problem.status, msgspec.json.encode(problem) + b"\n", headers, PROBLEM)
