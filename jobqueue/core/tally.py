"""Tally: how often each step of the table was taken. All other counts follow from that.

A job that is counted in two places will one day be counted differently in them; here a move counts once, and
how many jobs are in a status is what went in less what went out.
"""

from typing import Final

from jobqueue.core.job import (
    CANCEL,
    CONCLUDE,
    ENQUEUE,
    LEASE,
    RELEASE,
    STALE,
    STATUSES,
    STEPS,
    Status,
    Step,
)  # fmt: skip

# (status before, step) -> (status after, index of its counter).
MOVES: Final[dict[tuple[Status | None, Step], tuple[Status | None, int]]] = {
    key: (after, number) for number, (key, after) in enumerate(STEPS.items())
}
_TOTALS: Final[dict[str, Step | None]] = {
    "enqueued": ENQUEUE, "dequeued": LEASE, "concluded": CONCLUDE, "stale": STALE, "released": RELEASE,
    "failed": None, "dead": None, "cancelled": CANCEL,
}  # fmt: skip


class Tally:
    """`steps[n]` is raised by whoever makes move number n, and by nobody else."""

    __slots__ = ("steps",)

    def __init__(self) -> None:
        self.steps = [0] * len(MOVES)

    def jobs(self) -> dict[Status, int]:
        """How many jobs are in each status now."""
        counts = dict.fromkeys(STATUSES, 0)
        for (before, _), (after, number) in MOVES.items():
            if before is not None:
                counts[before] -= self.steps[number]
            if after is not None:
                counts[after] += self.steps[number]
        return counts

    def totals(self) -> dict[str, int]:
        """What happened since the beginning, by the names of the API."""
        return {
            name: sum(self.steps[number] for (_, taken), (_, number) in MOVES.items() if taken == step)
            for name, step in _TOTALS.items()
        }
