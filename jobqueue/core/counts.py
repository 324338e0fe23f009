"""TransitionCounts: how often each transition of the table in `steps` was taken.

All other counts follow from these: the number of jobs in a status is the number of those that entered it,
less the number of those that left it. Counts that are kept in two places would differ one day.
"""

from collections.abc import Sequence
from typing import Final

from jobqueue import steps
from jobqueue.steps import IN_PROGRESS, STATUSES, Status, Step

# (status before, step) -> (status after, index of its counter)
TRANSITIONS: Final[dict[tuple[Status | None, Step], tuple[Status | None, int]]] = {
    key: (after, number) for number, (key, after) in enumerate(steps.STEPS.items())
}
# The transitions that make up each total: all of a step, or exactly one.
_TOTALS: Final[dict[str, tuple[Step | tuple[Status, Step], ...]]] = {
    "enqueued": (steps.ENQUEUE, steps.SCHEDULE),
    "dequeued": (steps.LEASE,),
    "concluded": (steps.CONCLUDE,),
    "stale": (steps.STALE,),
    "released": (steps.RELEASE, steps.PUT_OFF),
    "failed": (steps.FAIL, (IN_PROGRESS, steps.BURY)),
    "dead": (steps.BURY,),
    "cancelled": (steps.CANCEL,),
}

_NUMBERS: Final[dict[str, list[int]]] = {
    name: [number for key, (_, number) in TRANSITIONS.items() if key in selected or key[1] in selected]
    for name, selected in _TOTALS.items()
}
_ADDED: Final = tuple(number for (before, _), (_, number) in TRANSITIONS.items() if before is None)
_REMOVED: Final = tuple(number for after, number in TRANSITIONS.values() if after is None)


class TransitionCounts:
    """The counts of one named queue, or of all. `steps[n]` is that of transition number n, which only
    `QueueState.transition` increments. `restored` is the number of jobs in each status that were restored
    from an earlier run."""

    __slots__ = ("restored", "steps")

    def __init__(self) -> None:
        self.steps = [0] * len(TRANSITIONS)
        self.restored = dict.fromkeys(STATUSES, 0)

    @classmethod
    def of(cls, several: Sequence["TransitionCounts"]) -> "TransitionCounts":
        """Returns the sum of several counts."""
        total = cls()
        total.steps = list(map(sum, zip(total.steps, *[counts.steps for counts in several], strict=True)))
        for status in STATUSES:
            total.restored[status] = sum([counts.restored[status] for counts in several])
        return total

    def jobs(self) -> dict[Status, int]:
        """Returns the number of jobs in each status."""
        counts = self.restored.copy()
        for (before, _), (after, number) in TRANSITIONS.items():
            if before is not None:
                counts[before] -= self.steps[number]
            if after is not None:
                counts[after] += self.steps[number]
        return counts

    def held(self) -> int:
        """Returns the number of jobs of any status."""
        steps = self.steps
        added = sum([steps[number] for number in _ADDED])
        removed = sum([steps[number] for number in _REMOVED])
        return sum(self.restored.values()) + added - removed

    def total(self, name: str) -> int:
        """Returns one of the totals."""
        steps = self.steps
        return sum([steps[number] for number in _NUMBERS[name]])

    def totals(self) -> dict[str, int]:
        """Returns the totals since this run began, by their names in the API."""
        steps = self.steps
        return {name: sum([steps[number] for number in numbers]) for name, numbers in _NUMBERS.items()}
