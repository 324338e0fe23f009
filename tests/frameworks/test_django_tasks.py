"""jobqueue as a backend of Django Tasks: of Django 6, or of django-tasks where Django is older."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from running import PACKAGE, until

from jobqueue.client import NewJob
from jobqueue.testing import inline

pytest.importorskip("django", reason="django is not installed")
tasks_api = pytest.importorskip(
    "jobqueue.django.tasks_api",
    reason="neither Django 6 nor django-tasks is installed",
    exc_type=ModuleNotFoundError,
)
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"

import django  # noqa: E402  # it may be missing

django.setup()

from django.core.exceptions import ImproperlyConfigured  # noqa: E402
from django.db import connections  # noqa: E402
from django.test import override_settings  # noqa: E402
from django.utils import timezone  # noqa: E402
from post import tasks  # noqa: E402

from jobqueue.django import jobs_of  # noqa: E402

PROJECT = Path(__file__).parent / "project"
Status = tasks_api.TaskResultStatus


@pytest.fixture
def queue():
    with inline(jobs_of(), jobs_of("patient")) as made:
        yield made


@pytest.fixture
def signals():
    """The signals of Django that were sent, as names and results."""
    sent = []
    receivers = []
    for name in ("task_enqueued", "task_started", "task_finished"):

        def receive(sender, task_result, name=name, **_):
            sent.append((name, task_result.status, task_result.id))

        receivers.append((getattr(tasks_api, name), receive))
        getattr(tasks_api, name).connect(receive)
    yield sent
    for sender, receiver in receivers:
        sender.disconnect(receiver)


# -- enqueue, run, result ---------------------------------------------------------------------------


def test_a_task_is_enqueued_and_run_and_has_a_result(queue):
    result = tasks.send.enqueue("ada", kind="bill")
    assert (result.status, result.args, result.kwargs) == (Status.READY, ["ada"], {"kind": "bill"})
    assert result.enqueued_at is not None
    with pytest.raises(ValueError, match="not finished"):
        _ = result.return_value
    queue.run_all()
    result.refresh()
    assert (result.status, result.return_value, result.attempts) == (Status.SUCCESSFUL, "bill to ada", 1)
    assert None not in (result.started_at, result.last_attempted_at, result.finished_at)
    assert tasks.send.get_result(result.id).return_value == "bill to ada"


def test_a_payload_has_the_arguments_by_name_so_that_anybody_can_enqueue_it(queue):
    tasks.send.enqueue("ada")
    [job] = queue.jobs("mail")
    assert (job.type, job.payload) == ("post.tasks.send", {"to": "ada"})
    id = queue.client.jobs.enqueue("post.tasks.send", {"to": "bob", "kind": "card"}, queue="mail").id
    queue.run_all()
    result = tasks.send.get_result(str(id))
    assert (result.return_value, result.kwargs) == ("card to bob", {"to": "bob", "kind": "card"})


def test_arguments_without_names_go_by_their_place(queue):
    result = tasks.add_all.enqueue(1, 2, 3, times=2)
    queue.run_all()
    result.refresh()
    assert result.return_value == 12
    assert tasks.add_all.get_result(result.id).args == [1, 2, 3]


def test_a_call_that_does_not_fit_is_refused_at_once(queue):
    with pytest.raises(TypeError, match="missing a required argument: 'to'"):
        tasks.send.enqueue(kind="bill")
    assert not queue.jobs()


def test_a_payload_that_does_not_fit_fails_its_task_at_once(queue, logged):
    for payload in ({"whom": "ada"}, ["ada"], {"*": 3}):
        id = queue.client.jobs.enqueue("post.tasks.send", payload).id
        queue.run_all()
        result = tasks.send.get_result(str(id))
        assert result.status == Status.FAILED
        assert "the payload does not fit" in result.errors[0].traceback


def test_a_task_runs_after_its_time(queue):
    result = tasks.send.using(run_after=timezone.now() + timedelta(minutes=10)).enqueue("ada")
    assert queue.run_all() == 0
    result.refresh()
    assert result.status == Status.READY
    queue.advance("11m")
    assert queue.run_all() == 1


def test_tasks_of_a_higher_priority_come_first(queue):
    for priority in (-100, 0, 100):
        tasks.send.using(priority=priority).enqueue(str(priority))
    taken = queue.client.jobs.dequeue_many("mail", count=3)
    assert [job.payload["to"] for job in taken] == ["100", "0", "-100"]
    assert tasks.send.get_result(str(taken[0].id)).task.priority == 100


def test_async_tasks_are_awaited_and_so_are_the_calls():
    async def test():
        async with inline(jobs_of()) as queue:
            result = await tasks.send_soon.aenqueue("ada")
            await queue.arun_all()
            await result.arefresh()
            assert result.return_value == "soon to ada"
            assert (await tasks.send_soon.aget_result(result.id)).is_finished

    asyncio.run(test())


def test_a_task_gets_its_context(queue):
    result = tasks.attempt.enqueue()
    queue.run_all()
    result.refresh()
    assert result.return_value == [result.id, 1]


def test_connections_to_the_database_are_closed_after_a_task(queue, monkeypatch, tmp_path):
    database = connections["default"]
    monkeypatch.setitem(database.settings_dict, "NAME", tmp_path / "db.sqlite3")  # one in memory stays open
    monkeypatch.setattr(database, "connection", None)
    result = tasks.query.enqueue()
    queue.run_all()
    result.refresh()
    assert (result.return_value, database.connection) == (7, None)


# -- failures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [tasks.refuse, tasks.send_soon])
def test_an_exception_fails_a_task_for_good(queue, signals, logged, task):
    result = task.enqueue("nobody")
    queue.run_all()
    result.refresh()
    assert (result.status, result.attempts, queue.jobs()[0].status) == (Status.FAILED, 1, "dead")
    assert result.errors[0].exception_class is tasks.Refused
    assert f"in {task.func.__name__}" in result.errors[0].traceback
    with pytest.raises(ValueError, match="Task failed"):
        _ = result.return_value
    assert signals == [
        ("task_enqueued", Status.READY, result.id),
        ("task_started", Status.RUNNING, result.id),
        ("task_finished", Status.FAILED, result.id),
    ]
    assert [record.name for record in logged] in (["django.tasks"], ["django_tasks"])
    logged.clear()


def test_a_backend_whose_options_speak_of_attempts_tries_again(queue, logged):
    tasks.count.clear()
    result = tasks.refuse_once.enqueue([])
    queue.run_all()
    result.refresh()
    assert (result.status, len(result.errors), result.attempts) == (Status.READY, 1, 1)
    queue.advance("2m")
    queue.run_all()
    result.refresh()
    assert (result.return_value, len(result.errors), result.attempts) == ("accepted", 1, 2)
    logged.clear()


def test_a_task_that_asks_for_another_attempt_is_not_finished(queue, signals):
    result = tasks.attempt.enqueue(again=True)
    queue.run_all()
    assert [name for name, *_ in signals] == ["task_enqueued", "task_started"]
    queue.advance("1m")
    queue.run_all()
    result.refresh()
    assert result.return_value == [result.id, 2]
    assert [name for name, *_ in signals][2:] == ["task_started", "task_finished"]


def test_a_task_that_was_cancelled_has_failed(queue):
    result = tasks.send.enqueue("ada")
    queue.client.jobs.cancel(int(result.id))
    result.refresh()
    assert result.status == Status.FAILED
    assert "cancelled" in result.errors[0].traceback
    assert result.errors[0].exception_class.__name__ == "JobFailed"


def test_a_result_that_is_not_there_is_an_error(queue):
    other = queue.client.jobs.enqueue("thumbs", {}).id
    for id in ("999999", "nonsense", "-1", "9" * 30, str(other)):
        with pytest.raises(tasks_api.TaskResultDoesNotExist):
            tasks.send.get_result(id)
    result = tasks.query.enqueue()
    with pytest.raises(Exception, match="does not match"):
        tasks.send.get_result(result.id)
    queue.client.jobs.cancel(int(result.id))
    queue.advance("8d")
    with pytest.raises(tasks_api.TaskResultDoesNotExist):
        result.refresh()


# -- settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_atempts": 3}, "did you mean max_attempts"),
        ({"process": True}, "'process'"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_a_wrong_option_is_refused_with_the_name_of_the_backend(options, said):
    with (
        override_settings(TASKS={"odd": {"BACKEND": "jobqueue.django.JobQueueBackend", "OPTIONS": options}}),
        pytest.raises(ImproperlyConfigured, match=rf"TASKS\['odd'\].*{said}"),
    ):
        _ = tasks_api.task_backends["odd"]


def test_all_threads_share_the_clients():
    found = []
    thread = threading.Thread(target=lambda: found.append(jobs_of()))
    thread.start()
    thread.join()
    assert found == [jobs_of()]


def test_the_module_of_a_task_is_imported_if_it_is_in_an_installed_app(queue):
    assert jobs_of().find("post.services.pack") is not None
    for type in ("post.services.nothing", "antigravity.tasks.fly", "post.tasks.Refused", "send"):
        assert jobs_of().find(type) is None
    assert "antigravity" not in sys.modules


# -- the worker -------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_command_runs_tasks_until_a_signal(served, processes):
    environment = {**os.environ, "JOBQUEUE_URL": served.url, "PYTHONPATH": str(PACKAGE)}
    environment.pop("JOBQUEUE_TOKEN", None)
    worker = subprocess.Popen(
        [sys.executable, "manage.py", "jobqueue_worker", "-c", "4", "--processes", processes],
        cwd=PROJECT, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    client = served.client
    try:
        new = [
            NewJob("post.tasks.send", {"to": "ada"}, {"queue": "mail"}),
            NewJob("post.tasks.send_soon", {"to": "ada"}),
            NewJob("post.services.pack", {"weight": 4}),
            NewJob("post.tasks.query"),
        ]
        made = client.jobs.enqueue_many(new)
        until(lambda: all(client.jobs.get(job.id).finished for job in made), 60)
        assert [client.jobs.get(job.id).result for job in made] == ["letter to ada", "soon to ada", 8, 7]
    finally:
        worker.send_signal(signal.SIGTERM)
        log = worker.communicate(timeout=60)[1]
    assert worker.returncode == 0, log
    assert "waits for jobs of default, mail at" in log


def test_the_command_ends_although_a_thread_of_a_task_does_not(served):
    worker = subprocess.Popen(
        [sys.executable, "manage.py", "jobqueue_worker"],
        cwd=PROJECT, env={**os.environ, "JOBQUEUE_URL": served.url, "PYTHONPATH": str(PACKAGE)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        job = served.client.jobs.enqueue("post.tasks.leave_a_thread")
        until(lambda: served.client.jobs.get(job.id).finished, 60)
        worker.send_signal(signal.SIGTERM)
        log = worker.communicate(timeout=30)[1]
    finally:
        worker.kill()
    assert (worker.returncode, "the process ends without them" in log) == (0, True), log


@pytest.mark.parametrize(
    ("name", "said"), [("nobody", "nobody"), ("dummy", "is not a jobqueue.django.JobQueueBackend")]
)
def test_the_command_refuses_a_backend_that_is_not_one(name, said):
    done = subprocess.run(
        [sys.executable, "manage.py", "jobqueue_worker", "--backend", name],
        cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PACKAGE)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert said in done.stderr
