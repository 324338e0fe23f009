"""DropLog: says in the log what was forgotten before its time, because a limit of retention was reached."""

import logging
from collections.abc import Callable

_log = logging.getLogger("jobqueue")
# Shortest time between two lines, and between two looks at the counts, in milliseconds.
_EVERY = 60_000
_LOOK = 1_000
_KEYS = "a million keys and origins, of four million jobs"
# What limits each kind: the settings, if there are any.
_LIMITS = {
    "dead_jobs": "JOBQUEUE_DEAD_JOBS, JOBQUEUE_DEAD_BYTES",
    "finished_jobs": "JOBQUEUE_RETAIN_JOBS, JOBQUEUE_RETAIN_BYTES",
    "idempotency_keys": _KEYS,
    "import_origins": _KEYS,
}


class DropLog:
    """Writes at most one line a minute, with the numbers since the line before. It is a warning if dead jobs
    were lost, since somebody was to look at those."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}
        self._next_look = self._next_line = 0

    def report(self, now: int, counts: Callable[[], dict[str, int]]) -> None:
        """Called after each tick. `now` is monotonic milliseconds; `counts` returns the numbers since the
        start, by kind."""
        if now < self._next_look:
            return
        self._next_look = now + _LOOK
        if now < self._next_line:
            return
        dropped = counts()
        more = {kind: dropped[kind] - self._told.get(kind, 0) for kind in _LIMITS}
        if not any(more.values()):
            return
        self._told, self._next_line = dropped, now + _EVERY
        what = "; ".join(
            f"{count:,} {kind.replace('_', ' ')} ({_LIMITS[kind]})" for kind, count in more.items() if count
        )
        level = logging.WARNING if more["dead_jobs"] else logging.INFO
        _log.log(
            level, "forgotten before their time, since a limit was reached: %s", what,
            extra={"members": {"event": "dropped", **more}},
        )  # fmt: skip
