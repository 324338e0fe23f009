"""Without its package each module says in one line what to install, and nothing else of jobqueue needs one."""

import subprocess
import sys

import pytest
from running import PACKAGE

PACKAGES = (
    "django",
    "django_tasks",
    "flask",
    "fastapi",
    "opentelemetry",
    "sentry_sdk",
    "starlette",
    "taskiq",
)
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({PACKAGES!r})); "


def run(code):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code],
        env={"PYTHONPATH": str(PACKAGE)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("from jobqueue.django import JobQueueBackend", "jobqueue.django needs Django 6"),
        ("from jobqueue.django import jobs_of", "jobqueue.django needs Django 6"),
        ("import jobqueue.taskiq", "jobqueue.taskiq needs taskiq"),
        ("import jobqueue.otel", "jobqueue.otel needs OpenTelemetry"),
        ("import jobqueue.sentry", "jobqueue.sentry needs the SDK of Sentry"),
    ],
)
def test_a_missing_package_is_an_error_that_says_what_to_install(code, said):
    last = run(code).stderr.splitlines()[-1]
    assert last.startswith(f"ModuleNotFoundError: {said}")
    assert ": pip install " in last


def test_jobs_and_their_worker_need_none_of_them():
    done = run("from jobqueue import Jobs, Worker, Client, AsyncClient; import jobqueue.django")
    assert (done.returncode, done.stderr) == (0, "")
