"""DiskWatch: the thread that asks the file system about the journal's disk.

`statvfs`, `stat`, `unlink` and the allocation of the reserve do not return while the disk does not answer (a
dead network mount, a failing drive). The event loop must not wait for that: it reads what was found last.
"""

import threading

from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.store import Store

# Seconds between two looks, and that `stop` waits for a disk that does not answer.
_PAUSE = 0.02
_LAST_LOOK = 1.0


class DiskWatch(threading.Thread):
    """Looks at `data_dir` and `store` when it is asked to. `full` and `size` are what it found last. A store
    that is not on a disk of this machine has no data directory; it is never full.

    `size`: bytes of the journal.
    """

    def __init__(self, data_dir: DataDir | None, store: Store) -> None:
        super().__init__(name="disk", daemon=True)
        self._data_dir = data_dir
        self._store = store
        self._asked = threading.Event()
        self._stopping = threading.Event()
        self._full = False
        self._no_space = False  # a write has failed, and the reserve has not been released yet
        self.size = store.size()

    @property
    def full(self) -> bool:
        """True while the disk has no space for new jobs."""
        return self._full or self._no_space

    def look(self) -> None:
        """Asks for a look. Returns at once."""
        self._asked.set()

    def report_no_space(self) -> None:
        """Tells that a write has failed for lack of space: the disk is full, and the reserve is released."""
        self._no_space = True
        self._asked.set()

    def stop(self) -> None:
        """Ends the thread. If the disk does not answer within a second, the thread ends when it does."""
        self._stopping.set()
        self._asked.set()
        if self.is_alive():
            self.join(_LAST_LOOK)

    # -- on the thread ------------------------------------------------------------------------------

    def run(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._stopping.is_set():
                return
            self._look()
            self._stopping.wait(_PAUSE)

    def _look(self) -> None:
        try:
            was_full = self.full
            if self._data_dir is not None:
                if self._no_space:
                    self._data_dir.use_reserve()
                    self._full, self._no_space = True, False
                self._full = self._data_dir.is_full(was_full)
            self.size = self._store.size()
        except OSError:  # such as a mount that is gone: the next commit tells what is wrong
            pass
