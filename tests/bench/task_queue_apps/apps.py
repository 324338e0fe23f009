"""A no-op job in each task queue, and the program that enqueues it. See `tests/bench/task_queues.py`.

`TASK_QUEUE` says which queue, `TASK_QUEUE_PORT` where its server is. Each run of a job appends its number to
`TASK_QUEUE_FILE`, which shows what was lost or ran twice. Peers run in a virtual environment of their own.
"""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

NAME = os.environ["TASK_QUEUE"]
PORT = int(os.environ["TASK_QUEUE_PORT"])
URL = f"redis://127.0.0.1:{PORT}/0"
_FILE = os.open(os.environ["TASK_QUEUE_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

put: Callable[[int], object] | None = None
aput: Callable[[int], Awaitable[object]] | None = None
begin: Callable[[], Awaitable[object]] | None = None


def run(number: int) -> None:
    os.write(_FILE, b"%07d\n" % number)


if NAME in ("jobqueue", "jobqueue-def"):
    from jobqueue import Jobs

    jobs = Jobs(f"http://127.0.0.1:{PORT}")

    @jobs.job
    async def noop(number: int) -> None:
        run(number)

    @jobs.job
    def noop_def(number: int) -> None:
        run(number)

    put = noop.enqueue if NAME == "jobqueue" else noop_def.enqueue
elif NAME == "rq":
    from redis import Redis
    from rq import Queue

    queue: Any = Queue(connection=Redis(port=PORT))

    def put(number: int) -> object:
        return queue.enqueue("apps.run", number)
elif NAME == "huey":
    from huey import RedisHuey

    huey: Any = RedisHuey("bench", port=PORT)
    put = huey.task()(run)
elif NAME == "dramatiq":
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    dramatiq.set_broker(RedisBroker(port=PORT))
    put = dramatiq.actor(run).send
elif NAME == "celery":
    from celery import Celery

    app: Any = Celery("apps", broker=URL)
    app.conf.broker_connection_retry_on_startup = True
    put = app.task(ignore_result=True, name="run")(run).delay
elif NAME == "arq":
    from arq import create_pool
    from arq.connections import RedisSettings

    pool: list[Any] = []

    async def arq_run(ctx: Any, number: int) -> None:
        run(number)

    class WorkerSettings:
        functions = (arq_run,)
        redis_settings = RedisSettings(port=PORT)
        max_jobs = 10

    async def begin() -> None:
        pool.append(await create_pool(WorkerSettings.redis_settings))

    async def aput(number: int) -> object:
        return await pool[0].enqueue_job("arq_run", number)
elif NAME == "taskiq":
    from taskiq_redis import ListQueueBroker

    broker: Any = ListQueueBroker(URL)

    @broker.task
    async def taskiq_run(number: int) -> None:
        run(number)

    begin = broker.startup
    aput = taskiq_run.kiq


async def _enqueue(count: int) -> float:
    if begin is not None:
        await begin()
    started = time.perf_counter()
    for number in range(count):
        if aput is not None:
            await aput(number)
        elif put is not None:
            put(number)
    return time.perf_counter() - started


def main(count: int) -> None:
    """Enqueues jobs. Called from outside, since some find their functions by the name of this module."""
    seconds = asyncio.run(_enqueue(count))
    cpu = os.times()
    print(json.dumps({"seconds": seconds, "cpu": cpu.user + cpu.system}), flush=True)
    os._exit(0)  # some of them keep threads
