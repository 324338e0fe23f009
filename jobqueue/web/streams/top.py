"""Calls that watch: events as they happen, and a screen that is redrawn. Neither has an end but the client's,
unless `for` was given."""

import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from jobqueue.web.http import TEXT, Request, Stream
from jobqueue.web.streams.events import EventFilter
from jobqueue.web.streams.flow import Wakeup
from jobqueue.web.writers import text_tables

if TYPE_CHECKING:
    from jobqueue.web.api import Api

# A screen is drawn so often, in seconds; once for all who look.
REDRAW = 1.0
_HOME, _CLEAR, _END_OF_LINE, _BELOW = "\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"


def events(api: "Api", request: Request) -> Stream:
    choice, length = api.schema.events(request)
    return watch(api, request, choice, length)


def watch(api: "Api", request: Request, choice: EventFilter, length: int | None) -> Stream:
    """`length`: milliseconds, None: without end. Nobody is told of queues that are not for it."""
    caller = api.caller
    if caller is not None and caller.token.queues is not None:
        for name in choice.queues or ():
            api.engine.queue(name)  # refuses
        choice = choice._replace(within=caller.may_use)
    return api.events.stream(choice, _last_id(request), length)


def _last_id(request: Request) -> int | None:
    """The id of the event that a client had last; what is none is one that nobody knows."""
    sent = request.header(b"last-event-id")
    if not sent:
        return None
    return int(sent) if sent.isascii() and sent.isdigit() and len(sent) < 19 else 0


def top(api: "Api", request: Request) -> Stream:
    screen = _Screen(api, api.schema.top(request))
    return Stream(screen.pieces(), screen.rest.end, screen.rest.end, TEXT)


class _Screen:
    def __init__(self, api: "Api", length: int | None) -> None:
        self._api = api
        self._length = length
        self.rest = Wakeup()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        until = None if self._length is None else time.monotonic() + self._length / 1000
        yield _CLEAR.encode()
        while not self.rest.over:
            yield self._api.screen()
            left = REDRAW if until is None else until - time.monotonic()
            if left <= 0:
                return
            await self.rest.wait(min(REDRAW, left))


class Screen:
    """What all who look at `/top` see; drawn at most once in `REDRAW`."""

    def __init__(self, api: "Api") -> None:
        self._api = api
        self._drawn_at = float("-inf")
        self._drawn = b""

    def __call__(self) -> bytes:
        now = time.monotonic()
        if now - self._drawn_at >= REDRAW * 0.9:
            self._drawn_at = now
            text = text_tables.screen(self._api)
            self._drawn = (_HOME + text.replace("\n", _END_OF_LINE + "\n") + _BELOW).encode()
        return self._drawn
