"""DataDir: what it refuses, and its reserve. Tests of the program cover most refusals, and the lock."""

import os
import tempfile
from pathlib import Path

import pytest

from jobqueue.storage.data_dir import RESERVE, DataDir
from jobqueue.storage.store import JournalError

NOBODY = 65534


@pytest.fixture
def path():
    """A path below a directory that every user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "data"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
@pytest.mark.parametrize(
    ("owner", "mode", "message"),
    [
        (12345, 0o700, f"belongs to user 12345, but this server runs as user {NOBODY}"),
        (0, 0o755, "is not writable"),
        (NOBODY, 0o500, "is not writable"),
    ],
)
def test_a_directory_of_another_user_or_without_write_permission_is_refused(path, owner, mode, message):
    path.mkdir()
    os.chown(path, owner, owner)
    path.chmod(mode)
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(JournalError, match=message):
            DataDir(str(path))
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.parametrize("system", ["Linux", "macOS"])
def test_the_reserve_is_allocated_and_can_be_released(path, system, monkeypatch):
    if system == "macOS":
        monkeypatch.delattr(os, "posix_fallocate")
    data_dir = DataDir(str(path))
    reserve = path / "reserve"
    assert (reserve.stat().st_size, reserve.stat().st_blocks * 512 >= RESERVE) == (RESERVE, True)
    data_dir.use_reserve()
    data_dir.use_reserve()
    assert not reserve.exists()
    assert data_dir.keep_reserve()
    assert reserve.exists()
    data_dir.close()
    DataDir(str(path)).close()
