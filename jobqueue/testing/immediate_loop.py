"""The part of an event loop that an engine in memory needs, without a selector, a socket or a thread.

An engine makes Futures and schedules calls: bulk operations go on in the next pass of the loop. Here the
passes follow immediately. So a test needs no event loop, and one that has a loop does not wait for its
passes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, TypeVar, cast

T = TypeVar("T")


class ImmediateLoop:
    """An event loop that makes the calls of `call_soon` in `run`."""

    def __init__(self) -> None:
        self._soon: deque[tuple[Callable[..., object], tuple[Any, ...], Context | None]] = deque()

    def get_debug(self) -> bool:
        return False

    def time(self) -> float:
        return time.monotonic()

    def create_future(self) -> Future[Any]:
        return Future(loop=cast(AbstractEventLoop, self))

    def call_soon(
        self, callback: Callable[..., object], *arguments: Any, context: Context | None = None
    ) -> None:
        self._soon.append((callback, arguments, context))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Logs an exception that nobody has seen."""
        logging.getLogger("jobqueue").error("%s", context.get("message"), exc_info=context.get("exception"))

    def run(self) -> None:
        """Makes calls until there are none."""
        while self._soon:
            callback, arguments, context = self._soon.popleft()
            if context is None:
                callback(*arguments)
            else:
                context.run(callback, *arguments)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Is the running loop of this thread during the block, and makes all calls at its end."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(cast(AbstractEventLoop, self))
        try:
            yield
            self.run()
        finally:
            asyncio._set_running_loop(before)

    def complete(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine that waits for nothing but Futures of this loop, and returns its result."""
        try:
            while True:
                waits_for = coroutine.send(None)
                self.run()
                if waits_for is not None and not waits_for.done():
                    raise RuntimeError(f"{coroutine} waits for something outside of the queue")
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            coroutine.close()
