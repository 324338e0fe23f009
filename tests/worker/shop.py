"""The jobs of a shop, for the tests of workers: every kind of job, and every way to end one."""

import asyncio
import dataclasses
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Literal, TypedDict

import msgspec

from jobqueue import Context, Dead, GiveBack, Jobs, Retry, current

jobs = Jobs()


class Address(msgspec.Struct):
    email: str
    name: str = ""


@dataclasses.dataclass
class Parcel:
    weight: float
    sent: date


class Line(TypedDict):
    article: str
    count: int


@jobs.around
def note_around(ctx: Context) -> Iterator[None]:
    """Writes a file that a job's header names, before and after the job."""
    path = ctx.headers.get("around")
    if path is not None:
        with Path(path).open("a") as file:
            file.write("before ")
    try:
        yield
    finally:
        if path is not None:
            with Path(path).open("a") as file:
                file.write("after ")


@jobs.job
def add(a: int, b: int = 10) -> int:
    return a + b


@jobs.job("mail.send", max_attempts=5, backoff=["10s", "5m"], timeout=60)
async def send_mail(ctx: Context, to: Address, kind: Literal["welcome", "bill"] = "welcome") -> str:
    ctx.log.info("attempt %d", ctx.attempt)
    if to.email == "retry":
        if ctx.attempt == 1:
            raise Retry("try later", after="20ms")
        return f"attempt {ctx.attempt}"
    if to.email == "give back":
        if current().client.jobs.get(ctx.id).leases == 1:
            raise GiveBack(delay="20ms")
        return f"attempt {ctx.attempt}"
    if "@" not in to.email:
        raise Dead("no address")
    return f"{kind} to {to.email}"


@jobs.job
def pack(parcel: Parcel, lines: list[Line]) -> Parcel:
    return Parcel(parcel.weight * sum(line["count"] for line in lines), parcel.sent)


@jobs.job(max_attempts=1, dead_on=(KeyError,))
def fail(kind: str) -> None:
    if kind == "key":
        raise KeyError("missing")
    if kind == "object":
        return object()  # type: ignore[return-value]  # no JSON
    if kind == "exit":
        raise SystemExit(3)
    if kind == "long":
        raise ValueError("x" * 100_000)
    raise ValueError(kind)


@jobs.job
def big(size: int) -> str:
    return "x" * size


def note(path: str, text: str) -> None:
    if path:
        Path(path).write_text(text)


@jobs.job
async def nap(seconds: float, mark: str = "") -> str:
    """Sleeps, and writes to the file `mark` that it has begun, and how it ended."""
    note(mark, "begun")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note(mark, "stopped")
        raise
    return "slept"


@jobs.job
def nap_in_thread(seconds: float, mark: str = "") -> str:
    end = time.monotonic() + seconds
    note(mark, "begun")
    while time.monotonic() < end:
        time.sleep(0.01)
    return "slept"


@jobs.job(timeout="1s", max_attempts=1)
async def slow() -> None:
    await asyncio.sleep(60)


@jobs.job(timeout="1s", max_attempts=1)
def slow_in_thread() -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.01)


@jobs.job(timeout="1s", max_attempts=1, process=True, key=lambda owner, file: owner)
def encode(owner: str, file: str) -> dict[str, int]:
    current().progress(50, "half")
    if file == "endless":
        sum(range(10**15))  # a loop in C, which no exception ends
    if file == "crash":
        import os

        os.abort()
    return {file: len(owner)}


@jobs.job
def block_the_interpreter(seconds: float) -> str:
    time.sleep(seconds)
    return "done"


@jobs.job
async def block_the_loop(seconds: float) -> str:
    time.sleep(seconds)  # noqa: ASYNC251  # what a job should not do
    return "done"


@jobs.job
async def chain(depth: int) -> str:
    """Enqueues the next job of a chain, in the same queue."""
    if depth:
        await chain.options(queue=current().queue).aenqueue(depth - 1)
    return current().headers.get("traceparent", "")


@jobs.job
async def noop() -> None:
    return None
