"""DataDir: the directory that holds a journal. It is created if missing, checked, and locked for one server.

The lock belongs to the process and ends with it, however it ends, so there is nothing to clean up after a
crash. A reserve lies beside the journal: a preallocated file that is deleted when the disk fills up, so that
existing jobs can still be finished.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
from pathlib import Path

from jobqueue.storage.store import JournalError

RESERVE = 8 << 20
# Free space in bytes: below the first the disk counts as full, above the second no longer.
LOW = 8 << 20
ENOUGH = 3 * LOW
_LOCK = "lock"
_RESERVE = "reserve"
_IDENTITY = "identity"
_IS_IDENTITY = re.compile("[0-9a-f]{12}")
_SECRET = "secret"
_IS_SECRET = re.compile("[0-9a-f]{64}")


class DataDir:
    """The directory `path`, locked until `close`. Raises `JournalError` if it cannot be used."""

    def __init__(self, path: str) -> None:
        self.path = Path(path).absolute()
        try:
            self.path.mkdir(0o700)
        except FileExistsError as bad:
            if not self.path.exists():
                raise JournalError(f"{self.path} is a symbolic link to nothing") from bad
        except OSError as bad:
            raise JournalError(f"cannot create the directory {self.path}: {bad.strerror}") from None
        self._check()
        self._lock = self._take_lock()
        self._reserve = self.path / _RESERVE
        self.keep_reserve()

    def _check(self) -> None:
        found = self.path.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise JournalError(f"{self.path} is not a directory")
        if found.st_uid not in (0, os.geteuid()):
            raise JournalError(
                f"{self.path} belongs to user {found.st_uid}, but this server runs as user {os.geteuid()}"
            )
        if found.st_mode & stat.S_IWOTH:
            raise JournalError(
                f"{self.path} is writable by everybody; use a directory of its own, such as "
                f"{self.path / 'jobqueue'}, or let only its owner write to it (chmod 700)"
            )
        if not os.access(self.path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise JournalError(f"{self.path} is not writable for this server")

    def _take_lock(self) -> int:
        """Returns the descriptor of the locked file, which holds the process id for people to read."""
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
            raise JournalError(f"another server, process {pid}, is using {self.path}") from None
        os.ftruncate(lock, 0)
        with contextlib.suppress(OSError):  # the disk may be full
            os.pwrite(lock, b"%d\n" % os.getpid(), 0)
        return lock

    def identity(self) -> str:
        """Returns twelve hexadecimal digits that no other directory has. They are the same at each start, as
        long as the file that holds them exists."""
        return self._kept(_IDENTITY, _IS_IDENTITY, 6)

    def secret(self) -> bytes:
        """Returns 32 random bytes that nobody else can read, the same ones at each start."""
        return bytes.fromhex(self._kept(_SECRET, _IS_SECRET, 32))

    def _kept(self, name: str, form: re.Pattern[str], size: int) -> str:
        """Returns the hexadecimal digits in the file `name`. A file that is missing, or has not this form, is
        written with `size` random bytes."""
        try:
            known = (self.path / name).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            known = ""
        if not form.fullmatch(known):
            known = os.urandom(size).hex()
            with contextlib.suppress(OSError):  # the disk may be full; then it is for this run only
                self._keep(name, known)
        return known

    def identify(self, identity: str) -> None:
        """Gives the directory the identity of another one, whose journal it takes over."""
        self._keep(_IDENTITY, identity)

    def _keep(self, name: str, digits: str) -> None:
        """Replaces the file as a whole, so that a crash leaves no part of it."""
        fresh = self.path / f"{name}.new"
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(digits + "\n")
        fresh.rename(self.path / name)

    # -- free space ---------------------------------------------------------------------------------

    def is_full(self, was_full: bool) -> bool:
        """True while the disk has no space for new jobs. A disk that was full counts as full until there is
        clearly more space again, and the reserve is back."""
        free = self.free()
        if was_full:
            return free < ENOUGH or not self.keep_reserve()
        return free < LOW

    def free(self) -> int:
        """Bytes that may still be written."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def keep_reserve(self) -> bool:
        """Creates the reserve if it is missing. True if there is one now."""
        try:
            reserve = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError:
            return False
        try:
            _preallocate(reserve)
        except OSError:
            self.use_reserve()
            return False
        finally:
            os.close(reserve)
        return True

    def use_reserve(self) -> None:
        """Deletes the reserve, which frees its space for the journal."""
        with contextlib.suppress(OSError):
            self._reserve.unlink()

    def close(self) -> None:
        """Releases the lock."""
        os.close(self._lock)


def _preallocate(reserve: int) -> None:
    """Has the system allocate the space. Raises `OSError`."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(reserve, 0, RESERVE)
    elif os.pwrite(reserve, bytes(RESERVE), 0) < RESERVE:  # macOS
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
