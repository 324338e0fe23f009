"""Folder: where a journal lives: made if need be, checked, and locked by one server at a time.

The lock belongs to the process and ends with it, however it ends; there is nothing to remove after a crash.
Beside the journal lies a reserve: a file of nothing but room, let go when the disk is full, so that what is
there can still be finished.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
from pathlib import Path

from jobqueue.storage.sqlite import JournalError

RESERVE = 8 << 20
_LOCK = "lock"
_RESERVE = "reserve"
_IDENTITY = "identity"
_IS_IDENTITY = re.compile("[0-9a-f]{12}")


class DataDir:
    """`path`, locked until `close`. Raises `JournalError`: one clear line."""

    def __init__(self, path: str) -> None:
        self.path = Path(path).absolute()
        try:
            self.path.mkdir(0o700)
        except FileExistsError as bad:
            if not self.path.exists():
                raise JournalError(f"{self.path} is a link to nothing") from bad
        except OSError as bad:
            raise JournalError(f"cannot make the folder {self.path}: {bad.strerror}") from None
        self._check()
        self._lock = self._locked()
        self._reserve = self.path / _RESERVE
        self.keep_reserve()

    def _check(self) -> None:
        found = self.path.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise JournalError(f"{self.path} is not a folder")
        if found.st_uid not in (0, os.geteuid()):
            raise JournalError(
                f"{self.path} belongs to user {found.st_uid}, and this server runs as user {os.geteuid()}"
            )
        if found.st_mode & stat.S_IWOTH:
            raise JournalError(
                f"anybody may write to {self.path}; a folder of its own is wanted, such as "
                f"{self.path / 'jobqueue'}, or one that only its owner may write to (chmod 700)"
            )
        if not os.access(self.path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise JournalError(f"{self.path} cannot be written to")

    def _locked(self) -> int:
        path = self.path / _LOCK
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as bad:
            raise JournalError(f"cannot open {path}: {bad.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.read(lock, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise JournalError(f"another server, process {pid}, uses {self.path}") from None
        os.ftruncate(lock, 0)
        with contextlib.suppress(OSError):  # a full disk; the pid is only for people
            os.pwrite(lock, b"%d\n" % os.getpid(), 0)
        return lock

    def identity(self) -> str:
        """Text that no other folder has: the same for as long as the file that holds it is there."""
        path = self.path / _IDENTITY
        try:
            known = path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            known = ""
        if not _IS_IDENTITY.fullmatch(known):
            known = os.urandom(6).hex()
            with contextlib.suppress(OSError):  # a full disk; then it is for this run only
                path.touch(0o600)
                path.write_text(known + "\n", "ascii")
        return known

    # -- room ---------------------------------------------------------------------------------------

    def free(self) -> int:
        """Bytes that may still be written."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def keep_reserve(self) -> bool:
        """True if there is a reserve now."""
        try:
            reserve = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError:
            return False
        try:
            _fill(reserve)
        except OSError:
            self.use_reserve()
            return False
        finally:
            os.close(reserve)
        return True

    def use_reserve(self) -> None:
        with contextlib.suppress(OSError):
            self._reserve.unlink()

    def close(self) -> None:
        os.close(self._lock)


def _fill(reserve: int) -> None:
    """Has the system set the space aside. Raises `OSError`."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(reserve, 0, RESERVE)
    elif os.pwrite(reserve, bytes(RESERVE), 0) < RESERVE:  # macOS
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
