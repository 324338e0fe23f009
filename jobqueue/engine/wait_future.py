"""WaitFuture: the Future of a consumer that waits for a job, or of a caller that waits for an outcome."""

from asyncio import Future
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class WaitFuture(Future[T]):
    """A Future whose cancellation takes effect at once: `withdraw` removes the waiter, or gives back the jobs
    that were on their way to it, before `cancel` returns.

    `withdraw` is reset to `nothing` when the wait ends. The waiter refers to this Future, and with millions
    of jobs the garbage collector would free such a reference cycle late.
    """

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
    """Does nothing: there is no wait to withdraw."""
