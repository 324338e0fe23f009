"""The short form of the crash test; `./scripts/crash.sh` runs the long one and prints its results."""

import os
import subprocess

import pytest
from running import ROOT, environment


@pytest.mark.skipif(os.environ.get("TEST_ALL") != "1", reason="takes half a minute: with TEST_ALL=1")
def test_nothing_acknowledged_is_lost_whatever_happens_to_the_server():
    done = subprocess.run(
        [str(ROOT / "scripts" / "crash.sh"), "--short"], env=environment(), capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| holds") + done.stdout.count("| skipped") == 12
