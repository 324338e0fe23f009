"""The audit log: an entry for each administrative call, with the caller and the number of jobs.

Each entry is a line of the server's log. The last ones are also kept in memory, for `GET /audit`.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator

import msgspec
from msgspec import Struct

from jobqueue.web.http import Answer, Deferred, Request, Response

# Entries that are kept. One takes about 600 bytes.
KEPT = 1000
_log = logging.getLogger("jobqueue.audit")


class _Swept(Struct):
    changed: int | None = None


_read = msgspec.json.Decoder(_Swept).decode


class Entry(Struct, frozen=True, gc=False):
    """An administrative call. `at`: when it was answered, in milliseconds of the wall clock. `who`: the name
    of an access token, or "". `changed`: the number of jobs, for a call on many."""

    at: int
    method: str
    path: str
    who: str
    peer: str
    status: int
    changed: int | None
    request_id: str


class AuditLog:
    """The administrative calls of this run. `wall` reads the wall clock in milliseconds."""

    def __init__(self, wall: Callable[[], int]) -> None:
        self._wall = wall
        self._last: deque[Entry] = deque(maxlen=KEPT)
        self.total = 0  # entries since the start, those that are no longer kept included

    def latest(self, who: str | None) -> Iterator[Entry]:
        """Yields the entries that are kept, the newest first. `who`: only those of this caller."""
        return (entry for entry in reversed(self._last) if who is None or entry.who == who)

    def audited(self, answer: Answer, request: Request, who: str) -> Answer:
        """Returns `answer` and logs it, now or once it is there.

        `who` is the name of an access token, or "". The fronts log streams and uploads when they end.
        """
        if isinstance(answer, Deferred):
            render = answer.render
            answer.render = lambda result: self.audited(render(result), request, who)
            return answer
        return self._tell(answer, request, who) if isinstance(answer, Response) else answer

    def _tell(self, answer: Response, request: Request, who: str) -> Response:
        path = request.path[:200] if request.sqs is None else request.sqs.label
        try:
            changed = _read(answer.body).changed
        except msgspec.DecodeError:
            changed = None
        self.total += 1
        self._last.append(
            Entry(self._wall(), request.method, path, who, request.peer, answer.status, changed, request.id)
        )
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
