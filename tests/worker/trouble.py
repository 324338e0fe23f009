"""Jobs that make trouble, for the tests of a worker's faults."""

import asyncio
import os
import subprocess
import threading
import time
from datetime import timedelta
from pathlib import Path

from jobqueue import Context, Dead, GiveBack, Jobs, Retry, current

jobs = Jobs()
HALF = "\udcff"  # half of a surrogate pair, as in the name of a file that is not UTF-8


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def note(path: str, text: str) -> None:
    if path:
        Path(path).write_text(text)


def trouble(kind: str) -> None:
    if kind == "surrogate":
        raise ValueError(HALF)
    if kind == "unspeakable":
        raise Unspeakable
    if kind == "cause":
        raise Dead from Unspeakable()
    if kind == "exit":
        raise SystemExit(3)
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "not a time":
        raise Retry("again", after="a fortnight")
    if kind == "negative":
        raise GiveBack(delay=-1)
    if kind == "too long":
        raise Retry("again", after=timedelta(days=20_000))


@jobs.job(max_attempts=1)
async def in_task(kind: str) -> None:
    trouble(kind)


@jobs.job(max_attempts=1)
def in_thread(kind: str) -> None:
    trouble(kind)


@jobs.job(max_attempts=1, process=True)
def in_process(kind: str) -> None:
    trouble(kind)


@jobs.job
def who(seconds: float, mark: str = "") -> int:
    """Returns the process that runs it, after `seconds`, or as soon as there is a file `mark` + ".go"."""
    note(mark, str(os.getpid()))
    go, end = Path(f"{mark}.go"), time.monotonic() + seconds
    while time.monotonic() < end and not (mark and go.exists()):
        time.sleep(0.01)
    return os.getpid()


@jobs.job
def says_much(ctx: Context, seconds: float) -> str:
    ctx.progress(10.5, HALF + "x" * 1000)  # type: ignore[arg-type]  # as a division gives it
    time.sleep(seconds)
    return "done"


@jobs.job(process=True)
def says_much_in_process(ctx: Context, seconds: float) -> str:
    ctx.progress(10.5, HALF + "x" * 1000)  # type: ignore[arg-type]  # as a division gives it
    time.sleep(seconds)
    return "done"


@jobs.job(process=True, dead_on=(SystemExit,))
def ends_its_process() -> None:
    raise SystemExit(3)


@jobs.job(process=True)
def pid_of_process() -> int:
    return os.getpid()


@jobs.job(process=True, timeout="1s", max_attempts=1)
def endless(mark: str) -> None:
    note(mark, str(os.getpid()))
    sum(range(10**15))  # a loop in C, which no exception ends


@jobs.job(process=True, timeout="1s", max_attempts=1)
def leaves_children(mark: str) -> None:
    """Has a child that was forked, and so keeps all that is open, and one that was started."""
    forked = os.fork()
    if forked == 0:
        time.sleep(300)
        os._exit(0)
    with subprocess.Popen(["sleep", "300"]) as started:
        note(mark, f"{os.getpid()} {forked} {started.pid}")


@jobs.job(process=True)
def ends_a_child() -> int:
    """Returns the status of a child that was asked to end."""
    with subprocess.Popen(["sleep", "300"]) as child:
        child.terminate()
        return child.wait(60)


@jobs.job
async def ignores_cancellation(mark: str) -> None:
    note(mark, "begun")
    while True:
        try:
            await asyncio.sleep(300)
        except asyncio.CancelledError:
            note(mark, "ignored")


@jobs.job(timeout="100ms", max_attempts=1)
async def ignores_its_timeout(mark: str) -> None:
    await ignores_cancellation(mark)


@jobs.job
async def waits_for_a_thread(mark: str) -> None:
    never = threading.Event()
    note(mark, "begun")
    await asyncio.to_thread(never.wait, 300)


@jobs.job
async def short(seconds: float = 0) -> int:
    await asyncio.sleep(seconds)
    return current().id


@jobs.job
def short_in_thread(seconds: float = 0) -> int:
    time.sleep(seconds)
    return current().id
