"""Every block of docs/python.md is run, in order, as its reader would: a program, and a worker of it."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from running import until

import jobqueue
from jobqueue.client import Client

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text()
PACKAGE = Path(jobqueue.__file__).parents[1]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shop.py").write_text(blocks("python")[0])
    return tmp_path


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def environment(url, folder):
    return {**os.environ, "JOBQUEUE_URL": url, "PYTHONPATH": f"{PACKAGE}:{folder}"}


def run(code, url, folder):
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(url, folder), cwd=folder,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_block_of_python_runs(url, folder):
    worker = subprocess.Popen(
        [sys.executable, "-m", "jobqueue", "work", "shop:jobs"], env=environment(url, folder), cwd=folder,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        outputs = [run(code, url, folder) for code in blocks("python")]
    finally:
        worker.terminate()
        log = worker.communicate(timeout=60)[1]
    assert worker.returncode == 0, log
    assert outputs[1].splitlines() == ["3", "3"]
    assert outputs[3].splitlines()[1:] == ["3", "90"]
    with Client(url) as client:
        client.queues.resume("mail")


@pytest.mark.parametrize("line", [line for block in blocks("sh") for line in block.splitlines()])
def test_every_line_of_shell_runs(url, folder, line):
    line = line.replace("jobqueue work", f"{shlex.quote(sys.executable)} -m jobqueue work").replace(
        "localhost:8080", url.removeprefix("http://")
    )
    started = subprocess.Popen(
        ["sh", "-c", f"exec {line}"], env=environment(url, folder), cwd=folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if "jobqueue work" in line:
        with Client(url) as client:
            queue = "urgent" if "urgent" in line else "default"
            job = client.jobs.enqueue("add", {"a": 1, "b": 2}, queue=queue)
            until(lambda: client.jobs.get(job.id).finished, 60)
        started.terminate()
    output, log = started.communicate(timeout=60)
    assert started.returncode == 0, log
    assert '"code":' not in output


def test_the_program_in_the_readme_runs(url, tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "shop.py").write_text(code)
    worker = subprocess.Popen(
        [sys.executable, "-m", "jobqueue", "work", "shop:jobs"], env=environment(url, tmp_path), cwd=tmp_path,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert run(code, url, tmp_path) == "Hello sent to ada@example.com\n"
    finally:
        worker.terminate()
        log = worker.communicate(timeout=60)[1]
    assert worker.returncode == 0, log
