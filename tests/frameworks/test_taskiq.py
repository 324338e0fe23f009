"""The broker for taskiq, against a real server: in this process, and with taskiq's own worker."""

import asyncio
import os
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from running import PACKAGE, until

pytest.importorskip("taskiq", reason="taskiq is not installed")

from taskiq import SimpleRetryMiddleware, TaskiqMiddleware  # it may be missing
from taskiq.receiver import Receiver
from taskiq.serializers import PickleSerializer

from jobqueue.client import AsyncClient
from jobqueue.errors import Unauthorized
from jobqueue.taskiq import JobQueueBroker
from jobqueue.testing import RunningServer

HERE = Path(__file__).parent


@asynccontextmanager
async def working(broker):
    """A worker of taskiq in this process."""
    broker.is_worker_process = True
    receiver = Receiver(broker, max_async_tasks=4, run_startup=True)
    end = asyncio.Event()
    listening = asyncio.create_task(receiver.listen(end))
    try:
        yield
    finally:
        end.set()
        await listening
        await broker.shutdown()


async def finished(client, queue, count=1):
    """Waits until `count` jobs of a queue have finished, and returns them."""
    while True:
        jobs = [job async for job in client.jobs.iterate(queue=queue)]
        if len([job for job in jobs if job.finished]) >= count:
            return [await client.jobs.get(job.id) for job in jobs]
        await asyncio.sleep(0.01)


def run(served, test):
    """Runs a test with a client."""

    async def main():
        async with AsyncClient(served.url) as client:
            await asyncio.wait_for(test(client), 60)

    asyncio.run(main())


def test_a_task_is_enqueued_as_json_and_concluded_when_it_has_run(served):
    async def test(client):
        broker = JobQueueBroker(served.url, queue="plain")
        seen = []

        @broker.task("add", priority=7)
        async def add(a: int, b: int) -> None:
            seen.append(a + b)

        await add.kiq(1, b=2)
        [job] = (await client.jobs.list(queue="plain", payload=True)).jobs
        assert (job.type, job.priority, job.payload["args"], job.payload["kwargs"]) == (
            "add",
            7,
            [1],
            {"b": 2},
        )
        async with working(broker):
            [job] = await finished(client, "plain")
        assert (job.status, seen) == ("concluded", [3])

    run(served, test)


def test_a_message_that_is_no_json_is_a_raw_payload(served):
    async def test(client):
        broker = JobQueueBroker(served.url, queue="pickled").with_serializer(PickleSerializer())
        seen = []

        @broker.task("note")
        async def note(what: str) -> None:
            seen.append(what)

        await note.kiq("é")
        [job] = (await client.jobs.list(queue="pickled", payload=True)).jobs
        assert job.content_type == "application/octet-stream"
        async with working(broker):
            await finished(client, "pickled")
        assert seen == ["é"]

    run(served, test)


def test_a_job_from_a_shell_has_the_arguments_of_its_task(served):
    async def test(client):
        broker = JobQueueBroker(served.url, queue="shell")
        seen = []

        @broker.task("greet")
        def greet(name: str) -> None:
            seen.append((name, threading.current_thread() is threading.main_thread()))

        await client.jobs.enqueue("greet", {"name": "ada"}, queue="shell")
        await client.jobs.enqueue("greet", ["bob"], queue="shell")
        async with working(broker):
            jobs = await finished(client, "shell", 2)
        assert [job.status for job in jobs] == ["concluded", "concluded"]
        assert sorted(seen) == [("ada", False), ("bob", False)]

    run(served, test)


def test_labels_are_options_of_the_job(served):
    async def test(client):
        broker = JobQueueBroker(served.url)

        @broker.task("later", queue="labels")
        async def later() -> None: ...

        await later.kicker().with_labels(delay=60, priority=-3, unique_key="one").kiq()
        await later.kicker().with_labels(delay="1h", unique_key="one", max_attempts=4).kiq()
        [job] = (await client.jobs.list(queue="labels")).jobs
        assert (job.status, job.priority, job.unique_key) == ("scheduled", -3, "one")
        await broker.shutdown()

    run(served, test)


def test_a_task_that_raises_fails_its_job(served, logged):
    async def test(client):
        broker = JobQueueBroker(served.url, queue="failing")

        @broker.task("final")
        async def final() -> None:
            raise ValueError("too heavy")

        @broker.task("again", max_attempts=3)
        async def again() -> None:
            raise ValueError("not now")

        async with working(broker):
            await final.kiq()
            [job] = await finished(client, "failing")
            assert (job.status, job.reason, job.error.type) == ("dead", "no_retry", "ValueError")
            await again.kicker().with_labels(queue="failing").kiq()
            while not [job async for job in client.jobs.iterate(queue="failing", status="scheduled")]:
                await asyncio.sleep(0.01)

    run(served, test)
    assert {record.name for record in logged} == {"taskiq.receiver.receiver"}
    logged.clear()


def test_a_task_that_is_acknowledged_before_it_runs_is_concluded(served, logged):
    async def test(client):
        broker = JobQueueBroker(served.url, queue="received")

        @broker.task("early", ack_type="when_received")
        async def early() -> None:
            raise ValueError("too late")

        await early.kiq()
        async with working(broker):
            [job] = await finished(client, "received")
        assert job.status == "concluded"
        assert broker._running == {}  # it is not kept for ever

    run(served, test)
    logged.clear()


def test_a_task_that_taskiq_sends_again_is_concluded_and_not_failed(served, logged):
    async def test(client):
        broker = JobQueueBroker(served.url, queue="resent").with_middlewares(SimpleRetryMiddleware())
        seen = []

        @broker.task("twice", retry_on_error=True, max_retries=3)
        async def twice() -> None:
            seen.append(1)
            if len(seen) == 1:
                raise ValueError("not now")

        await twice.kiq()
        async with working(broker):
            jobs = await finished(client, "resent", 2)
        assert ([job.status for job in jobs], len(seen)) == (["concluded", "concluded"], 2)

    run(served, test)
    logged.clear()


@pytest.mark.parametrize("is_kept", [False, True])
def test_a_task_that_fails_again_after_it_was_sent_again_is_dead(served, logged, is_kept):
    """Both runs have the same id, and the second one begins before the first one is acknowledged."""

    class Slow(TaskiqMiddleware):
        async def on_error(self, message, result, exception):  # after the retry middleware has sent it again
            if len(begun) == 1:
                await second.wait()

    async def test(client):
        nonlocal second
        second = asyncio.Event()
        broker = JobQueueBroker(served.url, queue=f"again-{is_kept}").with_middlewares(
            Slow(), SimpleRetryMiddleware(no_result_on_retry=not is_kept)
        )

        @broker.task("thrice", retry_on_error=True, max_retries=2)
        async def thrice() -> None:
            begun.append(1)
            if len(begun) == 2:
                second.set()
                while (await client.jobs.get(first)).status == "in_progress":
                    await asyncio.sleep(0.01)
            raise ValueError("never")

        await thrice.kiq()
        [job] = (await client.jobs.list(queue=f"again-{is_kept}")).jobs
        first = job.id
        async with working(broker):
            jobs = await finished(client, f"again-{is_kept}", 2)
        assert [job.status for job in jobs] == ["dead" if is_kept else "concluded", "dead"]
        assert broker._running == {}

    begun, second = [], None
    run(served, test)
    logged.clear()


def test_the_lease_is_renewed_while_a_task_runs(served):
    async def test(client):
        broker = JobQueueBroker(served.url, queue="long", lease_for=1)

        @broker.task("long")
        async def long() -> None:
            await asyncio.sleep(2.5)

        await long.kiq()
        async with working(broker):
            [job] = await finished(client, "long")
        assert (job.status, job.attempts, job.leases) == ("concluded", 1, 1)

    run(served, test)


def test_what_has_not_ended_at_the_end_is_given_back(served, logged):
    async def test(client):
        broker = JobQueueBroker(served.url, queue="given-back")
        started = asyncio.Event()

        @broker.task("endless")
        async def endless() -> None:
            started.set()
            await asyncio.sleep(60)

        await endless.kiq()
        broker.is_worker_process = True
        listening = asyncio.create_task(Receiver(broker, max_async_tasks=1).listen(asyncio.Event()))
        await started.wait()
        await broker.shutdown()
        listening.cancel()
        await asyncio.wait([listening])
        [job] = (await client.jobs.list(queue="given-back")).jobs
        assert (job.status, job.attempts) == ("queued", 0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    run(served, test)
    logged.clear()


def test_an_unknown_task_is_given_back_uncharged(served, logged):
    async def test(client):
        broker = JobQueueBroker(served.url, queue="strange")
        await client.jobs.enqueue("novelty", queue="strange")
        async with working(broker):
            while not [job async for job in client.jobs.iterate(queue="strange", status="scheduled")]:
                await asyncio.sleep(0.01)
        [job] = (await client.jobs.list(queue="strange")).jobs
        assert job.attempts == 0

    run(served, test)
    [record] = logged
    assert "novelty" in record.getMessage()
    logged.clear()


def test_a_wrong_token_ends_the_worker(logged):
    with RunningServer({"access_token": "a-secret-of-the-test"}) as server:

        async def test():
            broker = JobQueueBroker(server.url, token="wrong")
            with pytest.raises(Unauthorized):
                await anext(broker.listen())
            await broker.shutdown()

        asyncio.run(test())


def test_the_worker_of_taskiq_runs_tasks_until_a_signal(served, tmp_path):
    environment = {**os.environ, "JOBQUEUE_URL": served.url, "PYTHONPATH": f"{PACKAGE}{os.pathsep}{HERE}"}
    environment.pop("JOBQUEUE_TOKEN", None)
    worker = subprocess.Popen(
        [sys.executable, "-m", "taskiq", "worker", "parcels:broker", "--workers", "1"],
        env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        path = tmp_path / "mark"
        job = served.client.jobs.enqueue("pack", {"weight": 3, "path": str(path)}, queue="urgent")
        until(lambda: served.client.jobs.get(job.id).finished, 60)
        assert path.read_text() == "packed 3"
    finally:
        worker.terminate()
        log = worker.communicate(timeout=60)[1]
    assert worker.returncode == 0, log
