"""Tally: how often each step of the table was taken. All other counts follow from that.

A job that is counted in two places will one day be counted differently in them; here a move counts once, and
how many jobs are in a status is what went in less what went out.
"""

from collections.abc import Sequence
from typing import Final

from jobqueue import steps
from jobqueue.steps import IN_PROGRESS, STATUSES, Status, Step

# (status before, step) -> (status after, index of its counter).
TRANSITIONS: Final[dict[tuple[Status | None, Step], tuple[Status | None, int]]] = {
    key: (after, number) for number, (key, after) in enumerate(steps.STEPS.items())
}
# Which moves make up a total: by their step, or exactly.
_TOTALS: Final[dict[str, tuple[Step | tuple[Status, Step], ...]]] = {
    "enqueued": (steps.ENQUEUE, steps.SCHEDULE),
    "dequeued": (steps.LEASE,),
    "concluded": (steps.CONCLUDE,),
    "stale": (steps.STALE,),
    "released": (steps.RELEASE, steps.PUT_OFF),
    "failed": (steps.FAIL, (IN_PROGRESS, steps.BURY)),
    "dead": (steps.BURY,),
    "cancelled": (steps.CANCEL,),
}  # fmt: skip

_NUMBERS: Final[dict[str, list[int]]] = {
    name: [number for key, (_, number) in TRANSITIONS.items() if key in moves or key[1] in moves]
    for name, moves in _TOTALS.items()
}
_COME = tuple(number for (before, _), (_, number) in TRANSITIONS.items() if before is None)
_GONE = tuple(number for after, number in TRANSITIONS.values() if after is None)


class TransitionCounts:
    """`steps[n]` is raised by whoever makes move number n, and by nobody else. `before`: jobs in each status
    that came from an earlier run."""

    __slots__ = ("before", "steps")

    def __init__(self) -> None:
        self.steps = [0] * len(TRANSITIONS)
        self.before = dict.fromkeys(STATUSES, 0)

    @classmethod
    def of(cls, tallies: Sequence["TransitionCounts"]) -> "TransitionCounts":
        """Of several, in sum."""
        total = cls()
        total.steps = list(map(sum, zip(total.steps, *[counts.steps for counts in tallies], strict=True)))
        for status in STATUSES:
            total.before[status] = sum([counts.before[status] for counts in tallies])
        return total

    def jobs(self) -> dict[Status, int]:
        """How many jobs are in each status now."""
        counts = self.before.copy()
        for (before, _), (after, number) in TRANSITIONS.items():
            if before is not None:
                counts[before] -= self.steps[number]
            if after is not None:
                counts[after] += self.steps[number]
        return counts

    def held(self) -> int:
        """How many jobs there are now, of any status."""
        steps = self.steps
        come = sum([steps[number] for number in _COME])
        return sum(self.before.values()) + come - sum([steps[number] for number in _GONE])

    def totals(self) -> dict[str, int]:
        """What happened since the beginning, by the names of the API."""
        steps = self.steps
        return {name: sum([steps[number] for number in numbers]) for name, numbers in _NUMBERS.items()}
