"""`jobqueue work --reload`: a worker that starts again when its program changes."""

import os
import subprocess
import sys
import threading

from running import environment, until

from jobqueue.cli.main import main
from jobqueue.client import Client
from jobqueue.worker.source_files import SourceFiles

PROGRAM = """
from jobqueue import Jobs

jobs = Jobs()


@jobs.job(queue="reload")
def version() -> int:
    return %s
"""


def test_changed_added_and_removed_files_are_noticed_once(tmp_path):
    (tmp_path / "shop").mkdir()
    first, second = tmp_path / "first.py", tmp_path / "shop" / "second.py"
    first.write_text("a = 1")
    files = SourceFiles(str(tmp_path))
    assert files.changed() == []
    second.write_text("b = 1")
    os.utime(first, ns=(1, 1))
    assert files.changed() == [str(first), str(second)]
    assert files.changed() == []
    second.unlink()
    assert files.changed() == [str(second)]


def test_files_that_are_not_of_the_program_are_left_out(tmp_path):
    files = SourceFiles(str(tmp_path))
    for name in ("a.txt", ".git/a.py", "__pycache__/a.py", "venv/lib/a.py", "venv/pyvenv.cfg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    assert files.changed() == []


def write(path, text):
    """Replaces a file as a whole, so that it is changed once."""
    whole = path.with_suffix(".new")
    whole.write_text(text)
    whole.replace(path)


def test_a_worker_runs_the_program_as_it_is_now(url, tmp_path):
    path, log = tmp_path / "app.py", []
    write(path, PROGRAM % 1)
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "jobqueue", "work", "app:jobs", "-q", "reload", "--reload", "-p", "2"],
        env=environment(JOBQUEUE_URL=url), cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert worker.stderr is not None
    reading = threading.Thread(target=lambda: log.extend(worker.stderr))
    reading.start()

    def said(text):
        return sum(text in line for line in log)

    def run(client):
        job = client.jobs.enqueue("version", queue="reload")
        return client.jobs.get(job.id, wait=30).result

    def change(text, times):
        write(path, text)
        until(lambda: said("app.py has changed: starting again") == times, 60)

    try:
        with Client(url) as client:
            assert run(client) == 1
            change(PROGRAM % 2, 1)  # as long as before
            until(lambda: run(client) == 2, 60)
            change("this is no Python", 2)
            until(lambda: said("it starts again when a file changes") >= 2, 60)
            change(PROGRAM % 3, 3)
            assert run(client) == 3
    finally:
        worker.terminate()
        status = worker.wait(60)
        reading.join()
        worker.stderr.close()
    assert status == 0, log


def test_a_command_cannot_be_reloaded(capfd):
    assert main(["work", "--reload", "-q", "a", "--", "true"]) == 2
    assert "--reload" in capfd.readouterr().err
