"""Waiting: the Future of one who waits for a job, or for an outcome."""

from asyncio import Future
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class WaitFuture(Future[T]):
    """The Future of one who waits. Cancelling it withdraws the wait in the same moment, so that nothing is
    handed to one who has left. Once that is over `withdraw` is `nothing`: the other one leads back to this
    Future, and what has grown old in a circle is not freed while there are many jobs."""

    withdraw: Callable[[], object]

    def end(self) -> None:
        """Withdraws the wait."""
        withdraw, self.withdraw = self.withdraw, nothing
        withdraw()

    def cancel(self, msg: object = None) -> bool:
        if not self.done():
            self.end()
        return super().cancel(msg)


def nothing() -> None:
    """There is nothing to withdraw."""
