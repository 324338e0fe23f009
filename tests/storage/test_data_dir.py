"""Folder: what it refuses, its lock, its reserve. (Most refusals are tests of the program.)"""

import os
import tempfile
from pathlib import Path

import pytest

from jobqueue.storage.data_dir import RESERVE, DataDir
from jobqueue.storage.store import JournalError

NOBODY = 65534


@pytest.fixture
def path():
    """Where anybody may go."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "data"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
@pytest.mark.parametrize(
    ("owner", "mode", "says"),
    [
        (12345, 0o700, f"belongs to user 12345, but this server runs as user {NOBODY}"),
        (0, 0o755, "is not writable"),
        (NOBODY, 0o500, "is not writable"),
    ],
)
def test_a_folder_of_somebody_else_or_without_the_right_to_write_is_refused(path, owner, mode, says):
    path.mkdir()
    os.chown(path, owner, owner)
    path.chmod(mode)
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(JournalError, match=says):
            DataDir(str(path))
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.parametrize("system", ["Linux", "macOS"])
def test_it_keeps_room_and_lets_it_go(path, system, monkeypatch):
    if system == "macOS":
        monkeypatch.delattr(os, "posix_fallocate")
    folder = DataDir(str(path))
    reserve = path / "reserve"
    assert (reserve.stat().st_size, reserve.stat().st_blocks * 512 >= RESERVE) == (RESERVE, True)
    folder.use_reserve()
    folder.use_reserve()
    assert not reserve.exists()
    assert folder.keep_reserve()
    assert reserve.exists()
    folder.close()
    DataDir(str(path)).close()
