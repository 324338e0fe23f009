"""What the connections of one fast front share. No module of this folder but the head cache is imported
here."""

import asyncio
from email.utils import formatdate
from typing import Any

from jobqueue.server.http1.head_cache import HeadCache
from jobqueue.server.log import AccessLog
from jobqueue.server.timeouts import Timeouts
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.http import JSON, REASONS


class FrontState:
    """The API, the limits and the caches of one front.

    `encrypts`: clients speak TLS. `draining`: the server stops, so every response ends its connection.
    `tasks`: keeps running tasks alive, since the loop itself does not.
    """

    def __init__(self, api: Dispatcher, log: AccessLog, encrypts: bool) -> None:
        self.api = api
        self.log = log
        self.encrypts = encrypts
        self.draining = False
        self.max_body = api.settings.max_body
        self.max_head = api.settings.max_headers
        self.timeouts = Timeouts(api.settings).by_state
        self.head_cache = HeadCache(api.router, api.auth.known if api.auth is not None else {})
        self.response_heads = ResponseHeads()
        self.tasks: set[asyncio.Task[Any]] = set()

    def start_task(self, task: "asyncio.Task[Any]") -> None:
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class ResponseHeads(dict[int, bytes]):
    """The first lines of JSON responses, by status; made on first use, dropped when the date changes."""

    def __init__(self) -> None:
        self._date = formatdate(usegmt=True)

    def __missing__(self, status: int) -> bytes:
        head = self[status] = self.make(status, JSON)
        return head

    def make(self, status: int, content_type: str) -> bytes:
        """The status line and the first headers, up to where the request id goes."""
        kind = "" if status == 204 else f"Content-Type: {content_type}\r\n"
        text = f"HTTP/1.1 {status} {REASONS[status]}\r\nDate: {self._date}\r\n{kind}X-Request-Id: "
        return text.encode("latin-1")

    def refresh(self) -> None:
        """Sets the date to the current second."""
        self._date = formatdate(usegmt=True)
        self.clear()
