"""Room: whether there is memory for more jobs; looked at with each tick.

What drains goes on without it, so the figure that counts is what the process takes of the machine. But an
allocator does not give back all that is freed: so once that figure is at the limit, what the jobs take
decides when there is room again. A tenth must be gone.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from jobqueue.errors import OutOfMemory

# Of the machine's memory, or of the cgroup's, where no limit is set.
SHARE = 0.75
_A_JOB = 400  # bytes, about, beside its payload


def resident() -> int | None:
    """Bytes of memory that this process has, where the system tells."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def default_limit(root: Path = Path("/")) -> int | None:
    """A share of what this machine has, or what a container or a service manager lets this process have."""
    found = cgroup_limits(root)
    with contextlib.suppress(OSError, ValueError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return int(min(found) * SHARE) if found else None


def cgroup_limits(root: Path) -> list[int]:
    """Of this process's group and of all that hold it. In a container the names may be the host's, and only
    the topmost folder, which is the container's own, is there."""
    found = []
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
            for holding in (folder, *folder.parents[: len(folder.parts) - len(top.parts)]):
                with contextlib.suppress(OSError, ValueError):  # not there; "max"
                    found.append(int((holding / name).read_text()))
    return found


class MemoryLimit:
    """`limit`: bytes. None: as many as there are. `taken`: what `look` found last."""

    def __init__(self, limit: int | None, memory: Callable[[], int | None] = resident) -> None:
        self.limit = limit
        self.taken: int | None = None
        self._memory = memory
        self._mark = 0  # what the jobs took when the limit was met
        self._full = False

    def look(self, jobs: Callable[[], int], payloads: Callable[[], int]) -> OutOfMemory | None:
        """Why nothing more is taken in; None: it is. `jobs`: how many there are; `payloads`: their bytes."""
        if self.limit is not None:
            self.taken = self._memory()
            if self.taken is not None and self._is_full(jobs, payloads):
                return OutOfMemory(
                    "the server has all the memory it may: nothing is put in, what is there can be finished",
                    limit=self.limit, setting="JOBQUEUE_MEMORY_LIMIT", retry_after=5,
                )  # fmt: skip
        return None

    def _is_full(self, jobs: Callable[[], int], payloads: Callable[[], int]) -> bool:
        assert self.limit is not None
        assert self.taken is not None
        if self.taken < self.limit:
            if self.taken < 0.95 * self.limit:
                self._mark, self._full = 0, False
            return self._full
        load = _A_JOB * jobs() + payloads()
        if not self._mark:
            self._mark = load
        self._full = load >= (0.9 * self._mark if self._full else self._mark)
        return self._full
