"""Every block of docs/testing-your-jobs.md is run: the tests by pytest, the rest as programs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jobqueue

PAGE = (Path(__file__).parents[2] / "docs" / "testing-your-jobs.md").read_text()
PACKAGE = Path(jobqueue.__file__).parents[1]
SHOP, TESTS, PROGRAM, ASYNC_PROGRAM, CONFTEST, WORKER = re.findall(
    r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL
)


def run(folder, *command):
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env={**os.environ, "PYTHONPATH": f"{PACKAGE}:{folder}"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


@pytest.mark.parametrize("program", [PROGRAM, ASYNC_PROGRAM])
def test_the_programs_run(folder, program):
    assert "inline(jobs" in program
    run(folder, "-c", program)


def test_the_tests_pass(folder):
    (folder / "test_shop.py").write_text(TESTS)
    (folder / "test_worker.py").write_text(WORKER)
    plugin = ("-p", "jobqueue.testing.pytest_plugin", "-p", "no:tornado")
    assert "5 passed" in run(folder, "-m", "pytest", "-q", "-W", "error", *plugin)
    (folder / "conftest.py").write_text(CONFTEST)
    assert "1 passed" in run(folder, "-m", "pytest", "-q", "-W", "error", *plugin, "-k", "nobody")
