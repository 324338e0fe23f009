"""Notices that a program has changed, for `jobqueue work --reload`."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

# Files that are looked at; a program has fewer, and a look at more would take too long.
_MOST: Final = 20_000
_LEFT_OUT: Final = ("__pycache__", "node_modules")


class SourceFiles:
    """The Python files below a folder, but those of virtual environments and of folders such as `.git`."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._seen = self._look()

    def changed(self) -> list[str]:
        """Returns the paths that were changed, added or removed since the last call, in order."""
        before, self._seen = self._seen, self._look()
        return sorted({path for path, _ in before.items() ^ self._seen.items()})

    def _look(self) -> dict[str, tuple[int, int]]:
        """Returns each path with its time of change and its size."""
        found: dict[str, tuple[int, int]] = {}
        for folder, folders, files in os.walk(self._folder):
            if "pyvenv.cfg" in files:
                folders.clear()
                continue
            folders[:] = [name for name in folders if not name.startswith(".") and name not in _LEFT_OUT]
            for name in files:
                if name.endswith(".py"):
                    path = os.path.join(folder, name)
                    with suppress(OSError):  # it was removed just now
                        status = os.stat(path)
                        found[path] = (status.st_mtime_ns, status.st_size)
            if len(found) >= _MOST:
                break
        return found
