"""The jobs of `killed_workers.py python-worker`: each returns its id and its number."""

import asyncio
import time

from jobqueue import Context, Jobs

jobs = Jobs()
_SECONDS = 0.03


@jobs.job
async def task(ctx: Context, number: int) -> str:
    await asyncio.sleep(_SECONDS)
    return f"{ctx.id}:{number}"


@jobs.job
def thread(ctx: Context, number: int) -> str:
    time.sleep(_SECONDS)
    return f"{ctx.id}:{number}"


@jobs.job(process=True)
def process(ctx: Context, number: int) -> str:
    time.sleep(_SECONDS)
    return f"{ctx.id}:{number}"
