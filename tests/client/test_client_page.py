"""Every block of docs/client.md is pasted and run, against the real program; and its tables are complete."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import environment
from test_every_verb import CALLS, GROUPS

from jobqueue.client import errors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "client.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_each_block_can_be_pasted(number, program, tmp_path):
    block = BLOCKS[number].replace('"localhost", 8080', f'"127.0.0.1", {program.port}')
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], cwd=tmp_path,
        env=environment(JOBQUEUE_URL=f"http://127.0.0.1:{program.port}"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout or "print" not in block


def test_the_page_has_blocks():
    assert len(BLOCKS) >= 7


def test_every_call_is_on_the_page():
    for group in GROUPS:
        [row] = re.findall(rf"^\| `client\.{group}` \| (.*) \|$", PAGE, re.MULTILINE)
        named = set(re.findall(r"`(\w+)`", row))
        assert named == {name.partition(".")[2] for name in CALLS if name.startswith(group + ".")}


def test_every_error_of_the_client_is_on_the_page():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    made_here = {kind.__name__ for kind in kinds if kind.__module__ == errors.__name__}
    table = PAGE.partition("| error | what happened |")[2].partition("\n\n")[0]
    assert made_here == set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
