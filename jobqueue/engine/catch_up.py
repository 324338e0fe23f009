"""CatchUp: after a pause of the event loop, what has arrived is read before time goes on.

A process may stand still: a virtual machine is paused, a process is stopped by a signal, or the loop is busy
for seconds. Meanwhile clients send. If the first thing afterwards were a tick, it would end leases whose
conclusions arrived in time and lie unread in their sockets. So a tick that follows a pause is put off by loop
passes, each of which reads what the sockets have:

    tick      pause      pass  pass  pass  …  pass      tick
     │ ░░░░░░░░░░░░░░░░░░ │     │     │        │         │
                      conclude  reads, answers    nothing arrives any more

One pass is not enough: a connection must be accepted before it is read, TLS shakes hands, and a large request
takes several reads. So passes go on until several in a row have found nothing, at most for `LONGEST` or for
`LEAST` passes, whichever is longer.

A pause while ticks wait begins the wait again. But a loop may be so busy that every pass takes as long as a
pause. So the pauses without a tick on time between them begin a wait only until they add up to `MOST`, and
from then on ticks wait for nothing but the last `LEAST` passes, until one is on time again.
"""

from collections.abc import Callable

# How many passes in a row must have found nothing to read. From the read of a request to its verb, Tornado's
# coroutines take about seven passes, in which nothing shows that they are under way.
QUIET = 20
# The longest that due work is put off, in milliseconds; after a shorter pause, at most as long as the pause.
LONGEST = 1_000
# Passes that there are at least, however long each of them takes.
LEAST = 40
# The length of all pauses that begin a wait while no tick is on time, in milliseconds. One counts for at most
# `LONGEST`.
MOST = 5 * LONGEST


class CatchUp:
    """Decides whether due work may run. `longest_gap`: milliseconds between two runs above which the loop has
    paused. `arriving()` says whether anything that clients sent is still to be read or performed."""

    def __init__(self, longest_gap: int, now: int) -> None:
        self.arriving: Callable[[], bool] = lambda: False
        self._longest_gap = longest_gap
        self._last = now
        self._until = 0  # when to stop waiting; 0: there was no pause
        self._passes = self._quiet = 0
        self._paused = 0  # how long the loop has paused since a tick was on time

    def started(self, now: int) -> None:
        """Notes that ticks begin at `now`."""
        self._last = now

    def must_wait(self, now: int) -> bool:
        """Returns whether due work must wait for another loop pass. Call it at each tick, and if it returned
        True in the next pass; `now` is monotonic milliseconds."""
        gap = now - self._last
        self._last = now
        if gap <= self._longest_gap and not self._until:
            self._paused = 0
        elif gap > self._longest_gap and self._paused < MOST:
            self._paused += min(gap, LONGEST)
            self._until = now + min(gap, LONGEST)
            self._passes = self._quiet = 0
        elif self._until:
            self._passes += 1
            if now >= self._until and self._passes >= LEAST:
                self._until = 0
            elif self.arriving():
                self._quiet = 0
            else:
                self._quiet += 1
                if self._quiet >= QUIET:
                    self._until = 0
        return self._until > 0
