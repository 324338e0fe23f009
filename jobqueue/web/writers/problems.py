"""Errors as HTTP: each error class has its status here, and becomes a problem document (RFC 9457)."""

import msgspec

from jobqueue import errors
from jobqueue.web.http import PROBLEM, REASONS, Response

# The nearest class in the order of inheritance counts.
STATUS: dict[type[errors.JobQueueError], int] = {
    errors.JobQueueError: 500,
    errors.BadInput: 400,
    errors.JobNotFound: 404,
    errors.JobForgotten: 410,
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


_CHALLENGE = b'\r\nWWW-Authenticate: Bearer realm="jobqueue", Basic realm="jobqueue", charset="UTF-8"'


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
    """Returns the answer to a refused request.

    Facts of the error become members, two of them also headers.
    """
    facts = dict(error.facts)
    headers = b""
    if "retry_after" in facts:
        headers += f"\r\nRetry-After: {facts['retry_after']}".encode("latin-1")
    if isinstance(error, errors.Unauthorized):
        headers += _CHALLENGE
    if "allow" in facts:
        headers += f"\r\nAllow: {facts.pop('allow')}".encode("latin-1")
    return _document(error.code, status_of(error), error.detail, request_id, facts, headers)


def problem_object(error: errors.JobQueueError, request_id: str) -> dict[str, object]:
    """Returns the problem of one item of a request for many."""
    status = status_of(error)
    return {"code": error.code, "status": status, "title": REASONS[status], "detail": error.detail,
            "request_id": request_id, **error.facts}  # fmt: skip


def internal(request_id: str) -> Response:
    """Returns the answer to a request that met a bug. The log has the traceback under the same request id."""
    detail = f"the server made a mistake; its log says which, under request id {request_id}"
    return _document("internal", 500, detail, request_id, {}, b"")


def _document(
    code: str,
    status: int,
    detail: str,
    request_id: str,
    facts: dict[str, object],
    headers: bytes,
) -> Response:
    document = {"code": code, "status": status, "title": REASONS[status], "detail": detail,
                "request_id": request_id, **facts}  # fmt: skip
    return Response(status, msgspec.json.encode(document) + b"\n", headers, PROBLEM)
