"""Calls that type checkers accept, and those that they refuse, which are marked: see `tests/test_typed_calls.py`."""

from collections.abc import Iterator
from typing import Any, Literal, assert_type

import msgspec

from jobqueue import Context, Dead, GiveBack, Handle, JobFailed, Jobs, Prepared, Retry, Worker, current

jobs = Jobs(queue="shop")


class Address(msgspec.Struct):
    email: str


@jobs.job
def add(a: int, b: int = 0) -> int:
    return a + b


@jobs.job("mail.send", queue="mail", max_attempts=5, backoff=["10s", "5m"], timeout=60, dead_on=(KeyError,))
async def send_mail(ctx: Context, to: Address, kind: Literal["welcome", "bill"] = "welcome") -> str:
    ctx.log.info("attempt %d", ctx.attempt)
    ctx.progress(40, "rendered")
    if ctx.cancelled:
        raise Retry(after="5m")
    if not to.email:
        raise Dead("no address")
    raise GiveBack(delay=10)


@jobs.job
def with_context(ctx: Context, number: int) -> list[str]:
    return [str(current().id)]


@jobs.job(queue="video", process=True, timeout="2h", key=lambda owner, file: owner)
def encode(owner: str, file: str) -> dict[str, int]:
    return {}


@jobs.job
async def nightly() -> None: ...


@jobs.cron("30 2 * * *", timezone="Europe/Berlin", overlap="skip")
async def swept(ctx: Context, full: bool = False) -> str:
    return "clean"


@jobs.every("15m", arguments={"number": 3})
@jobs.job(queue="counts")
def counted(number: int) -> int:
    return number


jobs.cron("* * * * *", zone="UTC")  # wrong: no such option
jobs.every("15m", misfire="never")  # wrong: no such way
assert_type(counted.enqueue(3), Handle[int])
assert_type(swept.enqueue(full=True), Handle[str])
swept.enqueue(fool=True)  # wrong: no such argument
counted.enqueue("3")  # wrong: not a number


@jobs.around
def connections(ctx: Context) -> Iterator[None]:
    yield


@jobs.on_start
async def begin() -> None: ...


assert_type(add(1, 2), int)
assert_type(add.enqueue(1, 2), Handle[int])
assert_type(add.enqueue(1).result(wait=5), int)
assert_type(send_mail.enqueue(Address("a"), kind="bill").result(), str)
assert_type(
    send_mail.options(delay="10m", unique_key="u", priority=5, tags=["vip"]).enqueue(Address("a")),
    Handle[str],
)
assert_type(with_context.enqueue(1).result(), list[str])
assert_type(encode.enqueue("a", file="b").result("1m"), dict[str, int])
assert_type(add.prepare(1), Prepared)
assert_type(jobs.enqueue_many(add.prepare(number) for number in range(3)), list[Handle[Any]])


async def view() -> str:
    assert_type(await send_mail(Address("a")), str)
    assert_type(await nightly.aenqueue(), Handle[None])
    async with Worker(jobs, ["mail"], concurrency=4, lease_for="30s"):
        handle = await send_mail.aenqueue(Address("a"))
        return await handle.aresult(wait=20)


def why(failed: JobFailed) -> Any:
    return failed.job["error"]


add.enqueue("1")  # wrong: the type of an argument
add.enqueue(1, 2, 3)  # wrong: one too many
add.enqueue()  # wrong: one is missing
add.enqueue(a=1, c=2)  # wrong: its name
send_mail.enqueue(Address("a"), kind="hello")  # wrong: no such kind
send_mail.enqueue("ada@example.com")  # wrong: no address
with_context.enqueue(Context(), 1)  # wrong: the worker gives the context
add.options(priorty=1)  # wrong: no such option
add.options(priority="high")  # wrong: the type of an option
text: str = add.enqueue(1).result()  # wrong: it is an int
number: int = send_mail(Address("a"))  # wrong: it has to be awaited
jobs.job("x", timout=3)  # wrong: no such option of a declaration
Worker(jobs, concurrency="4")  # wrong: a number
jobs.enqueue_many([add.enqueue(1)])  # wrong: not prepared
