"""MemoryLimit: refuses new jobs while the process uses too much memory. Checked at each tick.

Existing jobs can still be finished. The limit applies to the memory that the process has from the system, but
an allocator does not return all that is freed. So once the limit is reached, the size of the jobs decides
when new ones are accepted again: it must have fallen by a tenth.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from jobqueue.errors import OutOfMemory

# Share of the memory of the machine, or of the cgroup, that is used if no limit is set.
SHARE = 0.75
_JOB_BYTES = 400  # approximate size of a job without its payload


def resident() -> int | None:
    """Returns the resident memory of this process in bytes, or None if the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def default_limit(root: Path = Path("/")) -> int | None:
    """Returns a share of the memory, in bytes, that this process may use: that of the machine, the container
    or the service. None if it is unknown. `root` is the root of the file system."""
    limits = cgroup_limits(root)
    with contextlib.suppress(OSError, ValueError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return int(min(limits) * SHARE) if limits else None


def cgroup_limits(root: Path) -> list[int]:
    """Returns the limits, in bytes, of this process's control group and of all its parents. In a container
    the names may be those of the host; then only the topmost directory exists, which is the container's
    own."""
    limits = []
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers == "":
                top, name = root / "sys/fs/cgroup", "memory.max"
            elif "memory" in controllers.split(","):
                top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
            else:
                continue
            folder = top / group.lstrip("/")
            for level in (folder, *folder.parents[: len(folder.parts) - len(top.parts)]):
                with contextlib.suppress(OSError, ValueError):  # it does not exist, or says "max"
                    limits.append(int((level / name).read_text()))
    return limits


class MemoryLimit:
    """`limit`: bytes; None: no limit. `memory` returns the bytes in use, or None if they are unknown."""

    def __init__(self, limit: int | None, memory: Callable[[], int | None] = resident) -> None:
        self.limit = limit
        self._memory = memory
        self._load_at_limit = 0  # size of the jobs when the limit was reached; 0: it was not
        self._full = False

    def check(self, jobs: Callable[[], int], payload_bytes: Callable[[], int]) -> OutOfMemory | None:
        """Returns the error with which new jobs are refused, or None. `jobs` and `payload_bytes` return the
        number of jobs and the size of their payloads."""
        if self.limit is None or (used := self._memory()) is None:
            return None
        if not self._is_full(used, self.limit, jobs, payload_bytes):
            return None
        return OutOfMemory(
            "the server has reached its memory limit: it refuses new jobs until others are finished",
            limit=self.limit,
            setting="JOBQUEUE_MEMORY_LIMIT",
            retry_after=5,
        )

    def _is_full(
        self, used: int, limit: int, jobs: Callable[[], int], payload_bytes: Callable[[], int]
    ) -> bool:
        if used < limit:
            if used < 0.95 * limit:
                self._load_at_limit, self._full = 0, False
            return self._full
        load = _JOB_BYTES * jobs() + payload_bytes()
        if not self._load_at_limit:
            self._load_at_limit = load
        self._full = load >= (0.9 * self._load_at_limit if self._full else self._load_at_limit)
        return self._full
