"""Live calls: events, and a screen that is redrawn. They end when the client leaves, or after `for`."""

import time
from collections.abc import AsyncGenerator

from jobqueue.web.context import Context
from jobqueue.web.futures import reading
from jobqueue.web.http import TEXT, Request, Stream
from jobqueue.web.schema.events import EventFilter
from jobqueue.web.streams.flow import Wakeup
from jobqueue.web.writers.top_screen import REDRAW

_CLEAR = "\x1b[2J"
# uvloop rounds shorter timers to zero, and the last frame would be sent again and again.
_SHORTEST = 0.001


def events(context: Context, request: Request) -> Stream:
    choice, length = context.admin.events(request)
    return watch(context, request, choice, length)


def watch(context: Context, request: Request, choice: EventFilter, length: int | None) -> Stream:
    """Returns a stream of events.

    `length` is in milliseconds; None: without end. Queues that the caller may not use are left out.
    """
    caller = context.caller
    if caller is not None and caller.token.queues is not None:
        for name in choice.queues or ():
            context.check_queue(name)
        choice = choice._replace(within=caller.may_use)
    return context.events.stream(choice, _last_id(request), length)


def _last_id(request: Request) -> int | None:
    """Returns the id of the last event that a client had; 0 if what it sent is no id."""
    sent = request.header(b"last-event-id")
    if not sent:
        return None
    return int(sent) if sent.isascii() and sent.isdigit() and len(sent) < 19 else 0


def top(context: Context, request: Request) -> Stream:
    screen = _Screen(context, context.admin.top(request))
    return Stream(screen.pieces(), screen.rest.end, screen.rest.end, TEXT)


class _Screen:
    def __init__(self, context: Context, length: int | None) -> None:
        self._context = context
        self._length = length
        self.rest = Wakeup()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        until = None if self._length is None else time.monotonic() + self._length / 1000
        yield _CLEAR.encode()
        while not self.rest.over:
            yield await reading(self._context.engine, self._context.screen)
            left = REDRAW if until is None else until - time.monotonic()
            if left <= 0:
                return
            await self.rest.wait(max(min(REDRAW, left), _SHORTEST))
