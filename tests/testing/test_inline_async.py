"""The queue of a test, `jobqueue.testing.inline`, inside an async test."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from jobqueue import Context, JobFailed, Jobs, NotFinished, Retry
from jobqueue.client import Conclude
from jobqueue.errors import JobQueueError
from jobqueue.testing import inline

jobs = Jobs("http://127.0.0.1:9")  # nothing listens there


@jobs.job
def add(a: int, b: int) -> int:
    return a + b


@jobs.job(max_attempts=5, backoff=["10s", "5m"], timeout=60)
async def send_mail(ctx: Context, to: str) -> str:
    await asyncio.sleep(0)
    if to == "flaky" and ctx.attempt == 1:
        raise Retry(after="5m")
    return f"to {to}"


@jobs.job(timeout="1h")
async def hangs(name: str) -> None:
    events[name].set()
    try:
        await asyncio.Event().wait()
    finally:
        events[name] = asyncio.Event()


@jobs.job
async def waits(name: str) -> str:
    await events[name].wait()
    return name


@jobs.job
async def on_loop() -> int:
    return id(asyncio.get_running_loop())


events: dict[str, asyncio.Event] = {}


@pytest.fixture
def queue() -> Iterator[Any]:
    with inline(jobs) as given:
        yield given
    events.clear()


async def test_results_are_awaited(queue):
    first, second = await add.aenqueue(1, 2), await send_mail.aenqueue("ada")
    assert (await first.aresult(wait=5), await second.aresult()) == (3, "to ada")
    assert await queue.arun_all() == 0


async def test_retries_come_by_the_clock(queue):
    handle = await send_mail.aenqueue("flaky")
    assert await queue.arun_all() == 1
    with pytest.raises(NotFinished, match=r"advance\(\) moves the clock"):
        await handle.aresult()
    queue.advance("5m")
    assert await handle.aresult() == "to flaky"


async def test_async_jobs_run_on_the_loop_of_the_test(queue):
    assert await (await on_loop.aenqueue()).aresult() == id(asyncio.get_running_loop())


async def test_jobs_that_are_no_coroutines_run_also_without_awaiting(queue):
    add.enqueue(1, 2)
    assert queue.run_all() == 1
    handle = on_loop.enqueue()
    with pytest.raises(RuntimeError, match=r"await arun_all\(\)"):
        queue.run_all()
    assert (handle.job().status, handle.job().attempts) == ("queued", 0)
    assert await queue.arun_all() == 1


async def test_several_tasks_wait_for_one_job_and_for_several(queue):
    events["go"] = asyncio.Event()
    handles = [await waits.aenqueue("go") for _ in range(3)]
    waiting = [asyncio.ensure_future(handle.aresult(wait=30)) for handle in [*handles, handles[0]]]
    await asyncio.sleep(0)
    events["go"].set()
    assert await asyncio.gather(*waiting) == ["go"] * 4


async def test_a_wait_for_a_job_that_another_task_runs_ends_in_real_time(queue):
    events["go"] = asyncio.Event()
    handle = await waits.aenqueue("go")
    running = asyncio.ensure_future(queue.arun_all())
    await asyncio.sleep(0)
    with pytest.raises(NotFinished):
        await handle.aresult(wait="50ms")
    events["go"].set()
    assert await running == 1


async def test_a_cancel_reaches_a_running_job(queue):
    events["hangs"] = begun = asyncio.Event()
    handle = await hangs.aenqueue("hangs")
    running = asyncio.ensure_future(queue.arun_all())
    await begun.wait()
    await handle.acancel()
    await running
    assert events["hangs"] is not begun
    with pytest.raises(JobFailed, match="cancelled"):
        await handle.aresult()


async def test_the_clock_ends_the_timeout_of_a_running_job(queue):
    events["hangs"] = begun = asyncio.Event()
    handle = await hangs.aenqueue("hangs")
    running = asyncio.ensure_future(queue.arun_all())
    await begun.wait()
    queue.advance("1h")
    await running
    job = await handle.ajob()
    assert (job.status, job.error.type) == ("scheduled", "JobTimeout")


async def test_a_test_that_is_cancelled_cancels_the_job(queue):
    events["hangs"] = begun = asyncio.Event()
    await hangs.aenqueue("hangs")
    running = asyncio.ensure_future(queue.arun_all())
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    for _ in range(5):
        await asyncio.sleep(0)
    assert events["hangs"] is not begun


async def test_hooks_of_start_and_stop_are_awaited_by_async_with():
    hooked, seen = Jobs(), []

    @hooked.on_start
    async def start() -> None:
        seen.append(asyncio.get_running_loop())

    @hooked.on_stop
    async def stop() -> None:
        seen.append(asyncio.get_running_loop())

    @hooked.job
    async def job() -> None: ...

    async with inline(hooked):
        await (await job.aenqueue()).aresult()
    assert seen == [asyncio.get_running_loop()] * 2
    queue = inline(hooked).__enter__()
    await (await job.aenqueue()).aresult()
    with pytest.warns(RuntimeWarning, match="async with"):
        queue.__exit__(None, None, None)


async def test_no_job_of_another_task_begins_before_the_start_hooks_have_ended():
    hooked, seen = Jobs(), []

    @hooked.on_start
    async def start() -> None:
        await asyncio.sleep(0.01)
        seen.append("start")

    @hooked.job
    async def job() -> None:
        seen.append("job")

    async with inline(hooked) as queue:
        for _ in range(2):
            await job.aenqueue()
        assert sum(await asyncio.gather(queue.arun_all(), queue.arun_all())) >= 2
    assert seen == ["start", "job", "job"]


async def test_every_call_of_the_client_works(queue):
    client = queue.aclient
    await jobs.aenqueue_many(add.prepare(n, n) for n in range(1500))
    assert await client.jobs.count() == 1500
    async with client.queues.export("default") as exported:
        assert len([line async for line in exported]) == 1500
    assert (await client.queues.purge("default", all=True)).changed == 1500
    job = await client.jobs.enqueue("add", {"a": 1, "b": 1}, wait=30)
    assert job.result == 2
    assert await client.jobs.dequeue(wait=30) is None
    with pytest.raises(JobQueueError, match="no live streams"):
        await anext(client.server.events())
    [outcome] = await client.jobs.conclude_many([Conclude(10**9, None)])
    assert not outcome.ok
