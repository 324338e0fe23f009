"""The queue of a test, `jobqueue.testing.inline`, without an event loop."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

import jobqueue
from jobqueue import Client, Context, Dead, GiveBack, JobFailed, Jobs, NotFinished, Retry, Settings, current
from jobqueue.client import Conclude
from jobqueue.errors import DuplicateJob, JobQueueError, LeaseLost, QueueFull
from jobqueue.testing import Inline, ManualClock, UnknownJobs, inline
from jobqueue.testing.in_process_server import InProcessServer, Waiting
from jobqueue.testing.transports import InlineTransport

jobs = Jobs("http://127.0.0.1:9")  # nothing listens there
seen: list[Any] = []


class Address(msgspec.Struct):
    email: str
    name: str = ""


@jobs.job
def add(a: int, b: int) -> int:
    return a + b


@jobs.job("mail.send", queue="mail", max_attempts=5, backoff=["10s", "5m"], timeout=60)
async def send_mail(ctx: Context, to: Address, kind: Literal["welcome", "bill"] = "welcome") -> str:
    ctx.progress(40, "rendered")
    if to.email.startswith("flaky") and ctx.attempt == 1:
        raise Retry(after="5m")
    if to.email.startswith("busy") and ctx.client.jobs.get(ctx.id).leases == 1:
        raise GiveBack(delay=10)
    if "@" not in to.email:
        raise Dead("no address")
    return f"{kind} to {to.email}"


@jobs.job(max_attempts=3, backoff=["10s", "5m"])
def always_fails() -> None:
    seen.append(current().attempt)
    raise ValueError("as always")


@jobs.job(process=True)
def encode(file: str) -> int:
    return os.getpid()


@jobs.job
def call(name: str) -> Any:
    """Runs a function that the test has put into `functions`."""
    return functions[name]()


@jobs.job(timeout="1m", max_attempts=1)
def limited(name: str) -> Any:
    return functions[name]()


@jobs.job
async def acall(name: str) -> Any:
    return await functions[name]()


@jobs.job(timeout="100ms", max_attempts=1)
async def slow() -> None:
    await asyncio.Event().wait()


functions: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    functions.clear()
    seen.clear()


@pytest.fixture
def queue() -> Iterator[Inline]:
    with inline(jobs) as given:
        yield given


def statuses(queue: Any, name: str | None = None) -> list[str]:
    return [job.status for job in queue.jobs(name)]


def test_a_result_is_that_of_the_function_after_a_round_trip_of_json(queue):
    assert add.enqueue(1, 2).result(wait=5) == 3
    assert send_mail.enqueue(Address("ada@example.com"), kind="bill").result() == "bill to ada@example.com"
    add.enqueue(1, "two")
    queue.run_all()
    assert "the payload does not fit" in queue.jobs()[-1].error


def test_nothing_is_run_before_it_is_asked_for(queue):
    handle = add.enqueue(1, 2)
    with pytest.raises(NotFinished):
        handle.result(wait=0)
    assert handle.job().status == "queued"
    assert (queue.run_all(), queue.run_all()) == (1, 0)
    assert handle.job().status == "concluded"


def test_a_test_needs_neither_a_socket_nor_a_thread_nor_an_event_loop(monkeypatch):
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("not in a test")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "socketpair", refuse)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(asyncio, "new_event_loop", refuse)
    with inline(jobs):
        assert add.enqueue(1, 2).result() == 3


def test_retries_come_when_the_clock_is_at_their_backoff(queue):
    always_fails.enqueue()
    runs = [queue.run_all()]
    for duration in ("9s", "1s", "299s", "1s", "1h"):
        queue.advance(duration)
        runs.append(queue.run_all())
    # A backoff has a jitter of up to a tenth, downwards or upwards.
    assert sum(runs) == len(seen) == 3
    [job] = queue.jobs()
    assert (job.status, job.reason, job.error.type) == ("dead", "attempts", "ValueError")
    assert [(one.attempt, one.outcome) for one in job.history] == [(n, "failed") for n in (1, 2, 3)]


def test_a_job_says_how_its_attempt_ends(queue):
    flaky, busy, nobody = (send_mail.enqueue(Address(to)) for to in ("flaky@x.y", "busy@x.y", "nobody"))
    assert queue.run_all() == 3
    assert statuses(queue, "mail") == ["scheduled", "scheduled", "dead"]
    with pytest.raises(JobFailed, match="no address"):
        nobody.result()
    queue.advance(10)
    assert queue.run_all() == 1
    assert (busy.job().attempts, busy.result()) == (1, "welcome to busy@x.y")
    queue.advance(timedelta(minutes=5))
    assert flaky.result() == "welcome to flaky@x.y"


def test_a_result_that_must_wait_for_the_clock_says_so_at_once(queue):
    handle = send_mail.enqueue(Address("flaky@x.y"))
    before = time.monotonic()
    with pytest.raises(NotFinished, match=r"is scheduled; .*advance\(\) moves the clock"):
        handle.result()
    assert time.monotonic() - before < 5


def test_unique_keys_delays_and_limits_are_those_of_the_server(queue):
    unique = add.options(unique_key="sum", delay="10m")
    first, second = unique.enqueue(1, 2), unique.enqueue(1, 2)
    assert (first.id, first.duplicate, second.id, second.duplicate) == (first.id, False, first.id, True)
    with pytest.raises(DuplicateJob):
        unique.options(on_conflict="reject").enqueue(1, 2)
    assert queue.run_all() == 0
    queue.advance("9m59s")
    assert queue.run_all() == 0
    queue.advance("1s")
    assert queue.run_all() == 1
    assert not unique.enqueue(1, 2).duplicate
    queue.client.queues.change("default", max_jobs=1)
    before = time.monotonic()
    with pytest.raises(QueueFull):
        add.enqueue(1, 2)
    assert time.monotonic() - before < 5  # the client does not try again for 30 s


def test_instants_of_a_program_are_those_of_the_clock(queue):
    soon = datetime.now(UTC) + timedelta(hours=1)
    add.options(run_at=soon).enqueue(1, 2)
    assert queue.run_all() == 0
    queue.advance("2h")
    assert queue.run_all() == 1


def test_a_job_taken_by_hand_comes_back_when_its_lease_runs_out(queue):
    add.enqueue(1, 2)
    taken = queue.client.jobs.dequeue(lease_for="1m")
    assert queue.run_all() == 0
    queue.advance("1m")
    assert queue.run_all() == 1
    with pytest.raises(LeaseLost):
        queue.client.jobs.conclude(taken, 3)
    assert [one.outcome for one in queue.jobs()[0].history] == ["stale", "concluded"]


def test_what_comes_due_on_the_way_happens_in_order(queue):
    add.options(backoff=["10s"]).enqueue(1, 2)
    add.options(delay="2m", expires_in="3m").enqueue(3, 4)
    taken = queue.client.jobs.dequeue(lease_for="1m")
    began = queue.clock.wall()
    queue.advance("1h")
    first, second = queue.jobs()
    assert first.history[0].ended_at.timestamp() * 1000 == pytest.approx(began + 60_000, abs=200)
    assert (first.status, first.id, second.status, second.reason) == ("queued", taken.id, "dead", "expired")


def test_hooks_run_around_every_job():
    hooked = Jobs()

    @hooked.around
    def outer(ctx: Context) -> Iterator[None]:
        seen.append(f"before {ctx.type}")
        try:
            yield
        finally:
            seen.append(f"after {ctx.type}")

    @hooked.around
    async def inner(ctx: Context) -> Any:
        seen.append("inner")
        yield

    @hooked.on_start
    async def start() -> None:
        seen.append("start")

    @hooked.on_stop
    async def stop() -> None:
        seen.append("stop")

    @hooked.job
    async def fails() -> None:
        seen.append("job")
        raise Dead("no")

    with inline(hooked) as queue:
        fails.enqueue()
        assert queue.run_all() == 1
        assert statuses(queue) == ["dead"]
        fails.enqueue()
        queue.run_all()
    assert seen == ["start", *["inner", "before fails", "job", "after fails"] * 2, "stop"]


def test_an_async_hook_cannot_be_around_a_def_as_in_a_worker():
    hooked = Jobs()
    hooked.job(add.function)

    @hooked.around
    async def hook(ctx: Context) -> Any:
        yield

    with inline(hooked) as queue:
        queue.client.jobs.enqueue("add", {"a": 1, "b": 2})
        with pytest.raises(TypeError, match="works for async jobs only"):
            queue.run_all()


def test_two_jobs_share_a_queue():
    other = Jobs(queue="other")

    @other.job
    def double(a: int) -> int:
        return int(add.enqueue(a, a).result())

    with inline(jobs, other) as queue:
        assert double.enqueue(4).result() == 8
        assert [(job.queue, job.result) for job in queue.jobs()] == [("other", 8), ("default", 8)]
        assert [job.id for job in queue.jobs("other")] == [1]


def test_a_type_that_two_jobs_declare_is_an_error():
    other = Jobs()
    other.job("add")(add.function)
    with inline(jobs, other) as queue:
        add.enqueue(1, 2)
        with pytest.raises(LookupError, match="2 Jobs declare 'add'"):
            queue.run_all()
        assert statuses(queue) == ["queued"]


def test_jobs_enqueue_jobs_and_wait_for_them(queue):
    functions["outer"] = lambda: call.enqueue("inner").result(wait=30) + 1
    functions["inner"] = lambda: (
        add.enqueue(1, 2).result() + send_mail.enqueue(Address("a@b")).result().count("a")
    )
    assert call.enqueue("outer").result() == 5
    assert queue.run_all() == 0


def test_async_jobs_enqueue_jobs_and_wait_for_them(queue):
    async def outer() -> int:
        return await (await acall.aenqueue("inner")).aresult() + 1

    async def inner() -> int:
        return int(await (await add.aenqueue(1, 2)).aresult())

    functions.update(outer=outer, inner=inner)
    acall.enqueue("outer")
    assert queue.run_all() == 3
    assert queue.jobs()[0].result == 4


def test_a_job_that_waits_for_itself_is_told_so(queue):
    functions["itself"] = lambda: queue.client.jobs.get(current().id, wait=30).status
    assert call.enqueue("itself").result() == "in_progress"


def test_an_endless_loop_of_jobs_is_an_error(queue):
    functions["again"] = lambda: bool(call.enqueue("again"))
    call.enqueue("again")
    with pytest.raises(RuntimeError, match="more than 50 runs, the last one of 'call'"):
        queue.run_all(limit=50)
    functions["back"] = lambda: (_ for _ in ()).throw(GiveBack())
    call.options(queue="b").enqueue("back")
    queue.client.queues.purge("default", all=True)
    with pytest.raises(RuntimeError, match="give itself back"):
        queue.run_all(limit=50)
    assert statuses(queue, "b") == ["queued"]


def test_unknown_types_are_an_error_that_names_them_and_are_not_charged(queue):
    add.enqueue(1, 2)
    for type in ("nobody's", "other", "other"):
        queue.client.jobs.enqueue(type)
    with pytest.raises(UnknownJobs, match=r"declare \"nobody's\", 'other'; known: .*add"):
        queue.run_all()
    assert statuses(queue) == ["concluded", "queued", "queued", "queued"]
    assert [job.attempts for job in queue.jobs()] == [1, 0, 0, 0]


def test_a_process_job_runs_in_the_process_of_the_test(queue):
    assert encode.enqueue("film").result() == os.getpid()


def test_progress_is_reported(queue):
    send_mail.enqueue(Address("flaky@x.y"))
    queue.run_all()
    [job] = queue.jobs()
    assert [job.progress, job.message] in ([40, "rendered"], [None, None])
    functions["looks"] = lambda: (
        current().progress(10),
        queue.advance("20s"),
        queue.client.jobs.get(current().id).progress,
    )[-1]
    assert call.enqueue("looks").result() == 10


def test_a_job_keeps_its_lease_while_the_clock_moves(queue):
    functions["long"] = lambda: queue.advance("1h")
    call.enqueue("long").result()
    assert [one.outcome for one in queue.jobs()[0].history] == ["concluded"]


def test_a_timeout_is_over_by_the_clock_of_the_test(queue):
    functions["long"] = lambda: (
        queue.advance("59s"),
        seen.append("59s"),
        queue.advance("1h"),
        seen.append("1h"),
    )
    with pytest.raises(JobFailed, match="longer than its timeout of 60 s"):
        limited.enqueue("long").result()
    assert seen == ["59s"]
    [job] = queue.jobs()
    assert (job.status, job.error.type) == ("dead", "JobTimeout")
    assert job.history[0].ended_at - job.history[0].started_at == timedelta(minutes=1)


def test_a_timeout_of_an_async_job_is_over_in_real_time(queue):
    with pytest.raises(JobFailed, match="longer than its timeout"):
        slow.enqueue().result()


def test_a_job_that_is_cancelled_while_it_runs_is_stopped(queue):
    def cancel() -> None:
        try:
            queue.client.jobs.cancel(current().id)
            for _ in range(1000):
                seen.append(current().cancelled)
        finally:
            seen.append("cleaned up")

    functions["cancel"] = cancel
    call.enqueue("cancel")
    queue.run_all()
    assert statuses(queue) == ["cancelled"]
    assert seen[-1] == "cleaned up"
    assert len(seen) < 1000


def test_a_result_that_is_too_large_fails_the_job_as_in_a_worker():
    functions["big"] = lambda: "x" * 3000
    with inline(jobs, max_result="1KiB", max_body="2KiB") as queue:
        call.enqueue("big")
        queue.run_all()
        [job] = queue.jobs()
        assert (job.status, job.error.startswith("the result was refused")) == ("dead", True)


def test_what_a_test_raises_in_a_job_goes_through(queue):
    class Failed(BaseException):
        pass

    def fail() -> None:
        raise Failed

    functions["fail"] = fail
    call.enqueue("fail")
    with pytest.raises(Failed):
        queue.run_all()
    functions["fail"] = lambda: sys.exit(3)
    queue.advance("1m")
    queue.run_all()
    [job] = queue.jobs()
    assert (job.error.type, [one.outcome for one in job.history]) == ("SystemExit", ["stale", "failed"])


def test_a_test_that_fails_gives_the_clients_back():
    before = jobs.client, jobs.aclient
    with contextlib.suppress(ZeroDivisionError), inline(jobs) as queue:
        assert (jobs.client, jobs.aclient) == (queue.client, queue.aclient)
        add.enqueue(1, 2)
        _ = 1 / 0
    assert (jobs.client, jobs.aclient) == before
    assert jobs.shared.hint == ""
    with inline(jobs) as outer:
        with inline(jobs) as inner:
            assert jobs.client is inner.client
        assert jobs.client is outer.client
        assert outer.jobs() == []


def test_a_stop_hook_that_fails_gives_the_clients_back():
    hooked = Jobs()
    hooked.job(add.function)

    @hooked.on_stop
    def stop() -> None:
        raise ZeroDivisionError

    queue = inline(hooked).__enter__()
    queue.client.jobs.enqueue("add", {"a": 1, "b": 2})
    queue.run_all()
    with pytest.raises(ZeroDivisionError):
        queue.__exit__(None, None, None)
    assert hooked.client is not queue.client


def test_without_names_all_jobs_of_the_program_use_the_queue_also_later_ones():
    with inline() as queue:
        later = Jobs()

        @later.job("made later")
        def made() -> str:
            return "made"

        assert made.enqueue().result() == "made"
        assert jobs.client is queue.client
    assert later.client is not queue.client
    assert Jobs().client is not queue.client


def test_jobs_that_nobody_uses_any_more_do_not_count():
    for _ in range(3):
        Jobs().job("nobody uses it")(add.function)
    last = Jobs()
    used = last.job("nobody uses it")(add.function)
    with inline():
        assert used.enqueue(1, 2).result() == 3


def test_every_call_of_the_client_works():
    with inline(jobs, access_token="a secret of a test".replace(" ", "-")) as queue:
        jobs.enqueue_many(add.prepare(n, n) for n in range(1500))
        client = queue.client
        assert client.jobs.count() == 1500
        assert client.queues.redrive("default", all=True).matched == 0
        lines = list(client.queues.export("default"))
        assert len(lines) == 1500
        assert client.queues.purge("default", all=True).changed == 1500
        imported = client.queues.import_jobs(lines)
        assert imported.imported + imported.known == 1500
        assert queue.run_all() == imported.imported
        assert client.server.health().durability == "memory"
        assert client.server.request("GET", "/help").status == 200
        with pytest.raises(JobQueueError, match="no live streams"):
            next(iter(client.server.events()))
        assert client.jobs.dequeue(wait=30) is None
        assert queue.engine.stats().consumers_waiting == 0
        assert client.jobs.enqueue("add", {"a": 1, "b": 1}, wait=30).result == 2
        [outcome] = client.jobs.conclude_many([Conclude(10**9, None)])
        assert not outcome.ok


def test_a_request_whose_jobs_cannot_be_run_is_withdrawn(clock):
    kept: list[Waiting] = []

    def run(waiting: Waiting) -> None:
        kept.append(waiting)
        raise ZeroDivisionError

    served = InProcessServer(Settings(first_id=1, access_token="a-secret-of-a-test"), clock)
    transport = InlineTransport(served, run, lambda request: None)
    client = Client("http://inline", token="a-secret-of-a-test", transport=transport)
    job = client.jobs.enqueue("x")
    with pytest.raises(ZeroDivisionError):
        client.jobs.get(job.id, wait=30)
    assert kept[0].deferred.future.cancelled()


def test_a_stop_hook_is_awaited_also_if_nothing_else_needed_a_loop():
    hooked = Jobs()
    hooked.job("add")(add.function)

    @hooked.on_stop
    async def stop() -> None:
        seen.append("stop")

    with inline(hooked) as queue:
        queue.client.jobs.enqueue("add", {"a": 1, "b": 2})
        assert queue.run_all() == 1
    assert seen == ["stop"]


def test_a_program_under_test_may_have_its_loop_in_another_thread(queue):
    """As the test clients of web frameworks do it."""
    results: list[str] = []

    async def view() -> None:
        handle = await send_mail.aenqueue(Address("a@b"))
        results.append(await handle.aresult(wait=30))
        await send_mail.aenqueue(Address("flaky@b"))

    thread = threading.Thread(target=lambda: asyncio.run(view()))
    thread.start()
    thread.join()
    assert (results, queue.run_all()) == (["welcome to a@b"], 1)
    queue.advance("5m")
    assert queue.run_all() == 1


def test_threads_may_send_requests(queue):
    errors: list[BaseException] = []

    def enqueue() -> None:
        try:
            for n in range(50):
                add.enqueue(n, n)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=enqueue) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (errors, queue.run_all()) == ([], 200)


def test_a_clock_of_the_test_can_be_given():
    with inline(jobs, clock=ManualClock(datetime(2030, 1, 1, tzinfo=UTC))) as queue:
        add.enqueue(1, 2)
        assert queue.jobs()[0].created_at == datetime(2030, 1, 1, tzinfo=UTC)


def test_an_unknown_setting_is_an_error():
    with pytest.raises(JobQueueError, match="max_attempt"):
        inline(jobs, max_attempt=1)


def test_without_the_server_it_says_so_in_one_line(tmp_path):
    code = (
        "import sys\n"
        "sys.modules['tornado'] = None\n"
        "from jobqueue import Jobs\n"
        "from jobqueue.testing import inline\n"
        "inline(Jobs())\n"
    )
    package = Path(jobqueue.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(package)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: jobqueue.testing runs the real server, and tornado is missing: "
        "pip install 'jobqueue-http[server]'"
    )


def test_jobs_begin_with_the_variables_of_the_start_and_not_with_those_of_their_caller():
    variable: ContextVar[str] = ContextVar("variable", default="none")
    hooked = Jobs()
    hooked.on_start(lambda: variable.set("start"))

    @hooked.job
    def inner() -> str:
        return variable.get()

    @hooked.job
    async def outer() -> list[str]:
        variable.set("outer")
        return [await (await inner.aenqueue()).aresult(), variable.get()]

    with inline(hooked):
        assert outer.enqueue().result() == ["start", "outer"]
    assert variable.get() == "none"


def test_the_names_of_the_package_are_there():
    import jobqueue.testing as package

    assert all(getattr(package, name) for name in package.__all__)
    assert not hasattr(package, "shiny")
