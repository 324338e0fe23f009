"""Outcome: what a call of another server will result in."""

import logging
from asyncio import CancelledError
from collections.abc import Callable
from typing import Any, Final

_log: Final = logging.getLogger("jobqueue")


class Outcome:
    """What a call will result in. Unlike a Future it calls whoever waits at once, not in the next pass of the
    loop, and only one can wait."""

    def __init__(self) -> None:
        self._done = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._on_done: Callable[[], None] | None = None

    def done(self) -> bool:
        return self._done

    def result(self) -> Any:
        """Returns the result, once. Raises the error: `CancelledError` if the call was cancelled."""
        result, error = self.take()
        if error is None:
            return result
        try:
            raise error
        finally:
            del error  # which refers to this frame now

    def take(self) -> tuple[Any, BaseException | None]:
        """Returns the result and the error, once. They are not kept: an error that is raised refers to the
        frames of whoever waited, and these to this outcome."""
        result, error = self._result, self._error
        self._result = self._error = None
        return result, error

    def when_done(self, callback: Callable[[], None]) -> None:
        """Has `callback` called when the outcome is there, which it must not be yet."""
        self._on_done = callback

    def end(self, result: Any, error: BaseException | None) -> None:
        """Sets the outcome, unless there is one. Raises nothing: who waited may fail, and whoever ends the
        call has others to end."""
        if self._done:
            return
        self._done, self._result, self._error = True, result, error
        callback, self._on_done = self._on_done, None
        if callback is not None:
            try:
                callback()
            except Exception:
                _log.exception("unexpected error")

    def cancel(self) -> bool:
        """Gives up the call. Returns False if it has ended."""
        if self._done:
            return False
        self.end(None, CancelledError())
        return True
