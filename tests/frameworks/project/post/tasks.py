"""The tasks of a post office."""

import asyncio
import threading

from django.db import connection

from jobqueue import Retry

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task


class Refused(Exception):
    pass


@task(queue_name="mail")
def send(to: str, kind: str = "letter") -> str:
    return f"{kind} to {to}"


@task
async def send_soon(to: str) -> str:
    await asyncio.sleep(0)
    if to == "nobody":
        raise Refused("no address")
    return f"soon to {to}"


@task(takes_context=True)
def attempt(context, again: bool = False) -> list:
    if again and context.attempt == 1:
        raise Retry(after="1m")
    return [context.task_result.id, context.attempt]


@task
def refuse(why: str) -> None:
    raise Refused(why)


@task(backend="patient")
def refuse_once(seen: list) -> str:
    if not count:
        count.append(1)
        raise Refused("not now")
    return "accepted"


count: list[int] = []


@task
def add_all(*numbers: int, times: int = 1) -> int:
    return sum(numbers) * times


@task
def query() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 7")
        return cursor.fetchone()[0]


@task
def leave_a_thread() -> None:
    threading.Thread(target=threading.Event().wait, daemon=False).start()
