"""What the connections of one fast front share. No module of this folder but the head cache is imported
here."""

import asyncio
from email.utils import formatdate
from typing import Any, Final

from jobqueue.server.http1.head_cache import HeadCache
from jobqueue.server.log import AccessLog
from jobqueue.server.timeouts import Timeouts
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.http import JSON, REASONS


class FrontState:
    """The API, the limits and the caches of one front.

    `max_body`: a longer upload is processed as it arrives. `max_request`: any other longer body is refused.
    `encrypts`: clients speak TLS. `draining`: the server stops, so every response ends its connection.
    `tasks`: keeps running tasks alive, since the loop itself does not.
    """

    def __init__(self, dispatcher: Dispatcher, log: AccessLog, encrypts: bool) -> None:
        self.dispatcher = dispatcher
        self.log = log
        self.encrypts = encrypts
        self.draining = False
        self.in_flight = dispatcher.in_flight
        self.max_body = dispatcher.settings.max_body
        self.max_request = dispatcher.settings.max_request
        self.max_head = dispatcher.settings.max_headers
        self.timeouts = Timeouts(dispatcher.settings).by_state
        auth = dispatcher.auth
        self.head_cache = HeadCache(dispatcher.router, auth.known if auth is not None else {})
        self.response_heads = ResponseHeads()
        self.tasks: set[asyncio.Task[Any]] = set()

    def start_task(self, task: "asyncio.Task[Any]") -> None:
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


# Content types besides JSON whose heads are kept for a second.
_MOST_OTHERS: Final = 16


class ResponseHeads(dict[int, bytes]):
    """The first lines of JSON responses, by status; made on first use, dropped when the date changes. So are
    those of a few other content types with status 200."""

    def __init__(self) -> None:
        self._date = formatdate(usegmt=True)
        self._others: dict[str, bytes] = {}

    def __missing__(self, status: int) -> bytes:
        head = self[status] = self.make(status, JSON)
        return head

    def of(self, status: int, content_type: str) -> bytes:
        """Returns what `make` does, for a response that is no JSON."""
        if status != 200:
            return self.make(status, content_type)
        head = self._others.get(content_type)
        if head is None:
            if len(self._others) >= _MOST_OTHERS:
                self._others.clear()
            head = self._others[content_type] = self.make(200, content_type)
        return head

    def make(self, status: int, content_type: str) -> bytes:
        """The status line and the first headers, up to where the request id goes."""
        kind = "" if status == 204 else f"Content-Type: {content_type}\r\n"
        text = f"HTTP/1.1 {status} {REASONS[status]}\r\nDate: {self._date}\r\n{kind}X-Request-Id: "
        return text.encode("latin-1")

    def refresh(self) -> None:
        """Sets the date to the current second."""
        self._date = formatdate(usegmt=True)
        self._others.clear()
        self.clear()
