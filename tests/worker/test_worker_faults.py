"""What goes wrong around a worker: signals at a bad moment, leases that end, processes that are killed, and
jobs that make trouble."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path

import pytest
import trouble
from running import Program, environment, until
from working import Working

from jobqueue import Jobs, Worker
from jobqueue.client import AnswerLost, AsyncClient, Client, Job
from jobqueue.jobs import Context, JobFailed
from jobqueue.worker.cli import Supervisor, _Place
from jobqueue.worker.link import new_loop
from jobqueue.worker.running_job import RunningJob, nothing_to_stop
from jobqueue.worker.tasks import Tasks
from jobqueue.worker.threads import Threads
from jobqueue.worker.worker import REFUSED_TO_CHILD


@pytest.fixture(scope="module", autouse=True)
def _trouble(program):
    """Points the jobs at the server of this module."""
    clients = Client(f"http://127.0.0.1:{program.port}")
    before = trouble.jobs.shared.use_clients(clients, None)
    yield
    trouble.jobs.shared.use_clients(*before)
    clients.close()


@pytest.fixture
def client():
    return trouble.jobs.client


@pytest.fixture
def trouble_work(work):
    return lambda queues, *options: work(queues, *options, module="trouble")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def go(mark: Path) -> None:
    """Lets the job `who` with this mark end."""
    Path(f"{mark}.go").touch()


# -- leases -----------------------------------------------------------------------------------------


def test_a_worker_of_one_place_goes_on_after_its_conclude_was_refused(trouble_work, client, tmp_path):
    worker = trouble_work("one", "-c", "1")
    mark = tmp_path / "mark"
    handle = trouble.who.options(queue="one").enqueue(60, str(mark))
    until(mark.exists, 30)
    client.jobs.cancel(handle.id, force=True)
    go(mark)
    assert trouble.short.options(queue="one").enqueue().result(30)
    worker.stop()
    assert worker.ended()[0] == 0
    assert client.jobs.get(handle.id).status == "cancelled"


def test_a_worker_that_stood_still_concludes_nothing_when_somebody_else_has_its_job(
    trouble_work, client, tmp_path
):
    first = trouble_work("frozen", "-l", "1s", "-c", "1")  # so that no dequeue of it gets the job again
    mark = tmp_path / "mark"
    handle = trouble.who.options(queue="frozen").enqueue(60, str(mark))
    until(lambda: mark.exists() and mark.read_text() == str(first.process.pid), 30)
    first.stop(signal.SIGSTOP)
    until(lambda: client.jobs.get(handle.id).status == "queued", 30)
    second = trouble_work("frozen", "-l", "30s")
    until(lambda: mark.read_text() == str(second.process.pid), 30)
    go(mark)
    result = handle.result(60)
    first.stop(signal.SIGCONT)
    first.stop()
    status, log = first.ended()
    assert status == 0
    assert "its lease is lost" in log or "how it ended was refused (lease_lost)" in log
    job = client.jobs.get(handle.id)
    assert (job.result, result, job.leases) == (second.process.pid, second.process.pid, 2)


def test_a_worker_that_stood_still_may_take_its_own_job_again(trouble_work, client, tmp_path):
    worker, mark = trouble_work("again", "-l", "1s"), tmp_path / "mark"
    handle = trouble.who.options(queue="again").enqueue(60, str(mark))
    until(lambda: mark.exists() and client.queues.get("again").consumers_waiting == 1, 30)
    worker.stop(signal.SIGSTOP)
    until(lambda: client.jobs.get(handle.id).leases == 2, 30)  # that dequeue gets the job
    worker.stop(signal.SIGCONT)
    go(mark)
    assert handle.result(60) == worker.process.pid
    worker.stop()
    status, log = worker.ended()
    assert (status, "Traceback" in log) == (0, False)


@pytest.mark.parametrize("job", [trouble.says_much, trouble.says_much_in_process])
def test_progress_that_the_server_would_not_take_does_not_cost_the_lease(trouble_work, client, job):
    trouble_work(job.type, "-l", "1s")
    handle = job.options(queue=job.type).enqueue(2)  # twice its lease
    assert handle.result(60) == "done"
    job = client.jobs.get(handle.id)
    assert (job.leases, job.progress, job.message) == (1, 10, ("\\udcff" + "x" * 1000)[:500])


def test_progress_is_reported_again_if_the_heartbeat_did_not_arrive():
    context = Context()
    context.progress(10, "ten")
    taken = context.take_progress()
    context.progress(20)
    context.put_back_progress(*taken)
    assert context.take_progress() == (20, "ten")
    context.put_back_progress(None, None)
    assert context.take_progress() == (None, None)


# -- signals ----------------------------------------------------------------------------------------


def test_a_signal_under_load_charges_no_attempt_and_loses_no_job(trouble_work, client):
    ids = [
        handle.id
        for handle in trouble.jobs.enqueue_many(
            trouble.short.options(queue="load", max_attempts=1).prepare() for _ in range(3000)
        )
    ]
    stops = 0
    while (queue := client.queues.get("load")).jobs.queued:
        done = queue.totals.concluded
        worker = trouble_work("load", "-c", "50", "-l", "10m")
        if stops < 4:
            until(lambda done=done: client.queues.get("load").totals.concluded > done, 30)
        else:  # the rest
            until(lambda: client.queues.get("load").totals.concluded == 3000, 60)
        worker.stop()
        status, log = worker.ended()
        assert status == 0, log
        assert client.queues.get("load").jobs.in_progress == 0
        stops += 1
    assert stops > 0
    totals = client.queues.get("load").totals
    assert (totals.concluded, totals.stale, totals.failed, totals.dead) == (3000, 0, 0, 0)
    jobs = {job.id: job for job in client.jobs.iterate(queue="load", limit=1000)}
    assert all(jobs[id].attempts == 1 for id in ids)
    assert [client.jobs.get(id).result for id in ids[::400]] == ids[::400]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_wait_that_is_ended_loses_no_job(program, client, loop):
    if loop == "uvloop":
        pytest.importorskip("uvloop")

    async def waits() -> None:
        async with AsyncClient(f"http://127.0.0.1:{program.port}", retry_for=0) as waiting:
            taking = asyncio.create_task(waiting.jobs.dequeue_many("ended", count=3, wait=60))
            await asyncio.to_thread(until, lambda: client.queues.get("ended").consumers_waiting == 1)
            waiting.end_waits()
            with pytest.raises(AnswerLost):
                await asyncio.wait_for(taking, 30)
            assert await waiting.jobs.dequeue("ended") is None  # on another connection
            taking = asyncio.create_task(waiting.jobs.dequeue_many("ended", count=3, wait=60))
            await asyncio.to_thread(until, lambda: client.queues.get("ended").consumers_waiting == 1)
            id = client.jobs.enqueue("x", queue="ended").id  # it blocks, so the answer is not read yet
            waiting.end_waits()
            try:
                taken = await asyncio.wait_for(taking, 30)
            except AnswerLost:  # it came before the answer was sent
                await asyncio.to_thread(until, lambda: client.jobs.get(id).status == "queued")
            else:
                await waiting.jobs.release(taken[0])
            assert client.jobs.get(id).attempts == 0
            client.jobs.cancel(id)

    with asyncio.Runner(loop_factory=new_loop if loop == "uvloop" else asyncio.new_event_loop) as runner:
        runner.run(waits())


@pytest.mark.parametrize("job", [trouble.ignores_cancellation, trouble.waits_for_a_thread])
def test_what_cannot_be_stopped_does_not_keep_the_worker_from_its_end(trouble_work, client, job, tmp_path):
    worker, mark = trouble_work(f"end-{job.type}", "-g", "0"), tmp_path / "mark"
    handle = job.options(queue=f"end-{job.type}").enqueue(str(mark))
    until(mark.exists, 30)
    worker.stop()
    status, log = worker.ended(60)
    assert status == 0, log
    found = client.jobs.get(handle.id)
    assert (found.status, found.attempts) == ("queued", 0)


def test_a_job_that_has_timed_out_is_reported_so_also_when_the_worker_ends(trouble_work, client, tmp_path):
    worker, mark = trouble_work("late", "-g", "0"), tmp_path / "mark"
    handle = trouble.ignores_its_timeout.options(queue="late").enqueue(str(mark))
    until(lambda: mark.exists() and mark.read_text() == "ignored", 30)
    worker.stop()  # before the job is left behind
    assert worker.ended(60)[0] == 0
    with pytest.raises(JobFailed, match="longer than its timeout"):
        handle.result(30)
    assert client.jobs.get(handle.id).attempts == 1


def test_a_lost_lease_is_the_only_reason_that_replaces_another():
    running = RunningJob(Job(1), trouble.short, Context())
    assert running.begin_stop("timeout")
    assert not running.begin_stop("ending")
    assert (running.stopped, running.context.cancelled) == ("timeout", True)
    assert not running.begin_stop("lost")
    assert not running.begin_stop("ending")
    assert running.stopped == "lost"


def test_the_processes_of_a_worker_end_when_the_first_one_is_killed(trouble_work, client, tmp_path):
    worker, mark = trouble_work("parent", "-p", "2", "-g", "0"), tmp_path / "mark"
    handle = trouble.who.options(queue="parent").enqueue(300, str(mark))
    until(lambda: mark.exists() and mark.read_text(), 60)
    worker.stop(signal.SIGKILL)
    until(lambda: not is_alive(int(mark.read_text())), 30)
    found = client.jobs.get(handle.id)
    assert (found.status, found.attempts) == ("queued", 0)


def test_a_signal_reaches_a_process_that_was_just_being_started():
    place = _Place()
    place.terminate(1)
    place.start([sys.executable, "-c", "import time; time.sleep(300)"], 0.0)
    assert place.process is not None
    place.terminate(1)
    assert place.process.wait(30) == -signal.SIGTERM
    assert place.check(1.0) == -signal.SIGTERM
    place.terminate(2)


def ended(place: _Place, status: int, seconds: float) -> None:
    """Has a process live for `seconds`, and end with `status`."""
    place.start([sys.executable, "-c", f"raise SystemExit({status})"], 0.0)
    assert place.process is not None
    assert place.process.wait(30) == status
    assert place.check(seconds) == status


def test_a_place_is_refused_jobs_until_a_process_of_it_lives_long():
    place = _Place()
    ended(place, 1, 1.0)  # an exception that nobody caught
    assert not place.refused
    ended(place, REFUSED_TO_CHILD, 1.0)
    assert place.refused
    place.start([sys.executable, "-c", "import time; time.sleep(300)"], 0.0)
    assert (place.check(1.0), place.refused) == (None, True)
    assert (place.check(100.0), place.refused) == (None, False)
    place.terminate(1)
    assert place.process is not None
    place.process.wait(30)
    place.check(100.0)
    ended(place, REFUSED_TO_CHILD, 100.0)
    assert not place.refused


@pytest.mark.parametrize(("status", "result"), [(REFUSED_TO_CHILD, 1), (2, 2)])
def test_a_supervisor_ends_when_no_process_of_it_can_work(status, result, logged):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        assert Supervisor(2, [sys.executable, "-c", f"raise SystemExit({status})"]).run() == result
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    assert len(logged) == (0 if result == 2 else 2)
    logged.clear()


def test_processes_that_the_server_refuses_end_together(trouble_work):
    status, log = trouble_work("not a name!", "-p", "2").ended(60)
    assert status == 1, log


# -- jobs that make trouble -------------------------------------------------------------------------


@pytest.mark.parametrize("job", [trouble.in_task, trouble.in_thread, trouble.in_process])
def test_whatever_a_job_raises_is_reported_and_the_worker_goes_on(trouble_work, job):
    queue = f"raises-{job.type}"
    worker = trouble_work(queue)
    for kind, type, message in (
        ("surrogate", "ValueError", "\\udcff"), ("unspeakable", "Unspeakable", "(its text cannot be made)"),
        ("exit", "SystemExit", "3"), ("interrupt", "KeyboardInterrupt", ""),
        ("not a time", "TypeError", "Retry: not a duration: 'a fortnight'"),
        ("negative", "TypeError", "GiveBack: a duration cannot be negative"),
    ):  # fmt: skip
        with pytest.raises(JobFailed) as failed:
            job.options(queue=queue).enqueue(kind).result(60)
        error = failed.value.job.error
        assert (error.type, error.message[: len(message)]) == (type, message)
    for kind, said in (
        ("cause", "Unspeakable: (its text cannot be made)"),
        ("too long", "report was refused"),
    ):
        with pytest.raises(JobFailed) as failed:
            job.options(queue=queue).enqueue(kind).result(60)
        assert said in str(failed.value.job.error)
    assert worker.process.poll() is None


def test_a_process_may_be_told_not_to_try_again_after_any_exception(trouble_work, client):
    trouble_work("ends")
    handle = trouble.ends_its_process.options(queue="ends").enqueue()
    with pytest.raises(JobFailed, match="3"):
        handle.result(60)
    assert client.jobs.get(handle.id).reason == "no_retry"


def test_a_payload_of_raw_bytes_is_dead_at_once(trouble_work, client):
    trouble_work("raw")
    job = client.jobs.get(client.jobs.enqueue("short", b"\x00\xff", queue="raw").id, wait=30)
    assert (job.status, job.reason, "the payload does not fit" in job.error) == ("dead", "no_retry", True)


def test_a_thousand_places(trouble_work):
    trouble_work("places", "-c", "1000")
    options = {"queue": "places"}
    made = [trouble.short.options(**options).prepare(0.2) for _ in range(1500)]
    made += [trouble.short_in_thread.options(**options).prepare(0.2) for _ in range(1500)]
    handles = trouble.jobs.enqueue_many(made)
    assert [handle.result(60) for handle in handles] == [handle.id for handle in handles]


def test_threads_are_used_again():
    used: list[int] = []
    ended = threading.Semaphore(0)

    def note_end(running: RunningJob, report: object) -> None:
        used.append(threading.get_ident())
        running.reported = True
        ended.release()

    threads = Threads(copy_context(), [], note_end)
    for id in range(1, 20):
        context = Context(id=id)
        payload = Job(id)
        threads.start([RunningJob(payload, trouble.short_in_thread, context)])
        assert ended.acquire(timeout=30)
        until(lambda: threads._idle == 1)
    threads.close()
    assert len(set(used)) == 1


# -- processes --------------------------------------------------------------------------------------


def test_an_endless_loop_in_c_is_killed_within_a_second_of_its_timeout(trouble_work, client, tmp_path):
    trouble_work("endless")
    trouble.pid_of_process.options(queue="endless").enqueue().result(60)  # the process has started
    mark = tmp_path / "mark"
    handle = trouble.endless.options(queue="endless").enqueue(str(mark))
    until(lambda: mark.exists() and mark.read_text(), 60)
    began = time.monotonic()
    until(lambda: not is_alive(int(mark.read_text())), 60)
    assert time.monotonic() - began < 2
    with pytest.raises(JobFailed, match="longer than its timeout of 1 s"):
        handle.result(30)


def test_what_a_killed_job_has_started_is_killed_with_it(trouble_work, tmp_path):
    trouble_work("children")
    mark = tmp_path / "mark"
    handle = trouble.leaves_children.options(queue="children").enqueue(str(mark))
    with pytest.raises(JobFailed, match="longer than its timeout of 1 s"):
        handle.result(60)
    until(lambda: not any(is_alive(int(pid)) for pid in mark.read_text().split()), 30)


def test_a_job_can_end_the_programs_that_it_has_started(trouble_work):
    trouble_work("terminates")
    assert trouble.ends_a_child.options(queue="terminates").enqueue().result(60) == -signal.SIGTERM


def test_an_idle_process_that_was_killed_costs_no_attempt(trouble_work, client):
    trouble_work("idle")
    first = trouble.pid_of_process.options(queue="idle").enqueue().result(60)
    os.kill(first, signal.SIGKILL)
    handle = trouble.pid_of_process.options(queue="idle").enqueue()
    assert handle.result(60) != first
    assert client.jobs.get(handle.id).attempts == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends it while a job holds the interpreter")
def test_the_process_of_a_job_ends_with_a_worker_that_is_killed(trouble_work, client, tmp_path):
    worker, mark = trouble_work("orphan", "-l", "2s"), tmp_path / "mark"
    handle = trouble.endless.options(queue="orphan").enqueue(str(mark))
    until(lambda: mark.exists() and mark.read_text(), 60)
    worker.stop(signal.SIGKILL)
    until(lambda: not is_alive(int(mark.read_text())), 30)
    client.jobs.cancel(handle.id, force=True)


# -- the server -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_with_a_journal_that_restarts_in_the_middle_loses_nothing(tmp_path, number):
    settings = {"JOBQUEUE_ACCESS_LOG": "off", "JOBQUEUE_DATA": str(tmp_path / "data")}
    with Program(**settings) as first:
        port, url = str(first.port), f"http://127.0.0.1:{first.port}"
        with Client(url) as client:
            made = client.jobs.enqueue_many(
                [{"type": "short", "payload": {"seconds": 0.02}, "queue": "r"} for _ in range(600)]
            )
            # Jobs whose dequeue was not answered come back when their lease ends.
            worker = Working(url, "r", "-c", "8", "-l", "3s", module="trouble")
            try:
                until(lambda: client.queues.get("r").totals.concluded >= 50, 30)
                first.signal(number)
                first.exit_status(30)
                with Program(JOBQUEUE_PORT=port, **settings) as again:
                    until(lambda: client.queues.get("r").jobs.concluded == 600, 120)
                    worker.stop()
                    status, log = worker.ended()
                    assert (status, "Traceback" in log) == (0, False)
                    assert [client.jobs.get(job.id).result for job in made] == [job.id for job in made]
                    again.stop()
            finally:
                with suppress(ProcessLookupError):
                    worker.process.kill()
                worker.process.communicate()


def test_a_server_that_forgets_all_jobs_gives_new_ones_after_its_restart(tmp_path):
    mark = tmp_path / "mark"
    with Program(JOBQUEUE_ACCESS_LOG="off") as first:
        port, url = str(first.port), f"http://127.0.0.1:{first.port}"
        with Client(url) as client:
            worker = Working(url, "m", "-c", "2", "-l", "3s", module="trouble")
            try:
                client.jobs.enqueue("who", {"seconds": 300, "mark": str(mark)}, queue="m")
                until(mark.exists, 30)
                first.signal(signal.SIGKILL)
                first.exit_status(30)
                with Program(JOBQUEUE_PORT=port, JOBQUEUE_ACCESS_LOG="off") as again:
                    job = client.jobs.enqueue("short", queue="m")
                    assert client.jobs.get(job.id, wait=60).result == job.id
                    worker.stop()
                    status, log = worker.ended(60)  # at once: the job that nobody knows is stopped
                    assert (status, "its lease is lost" in log) == (0, True)
                    again.stop()
            finally:
                with suppress(ProcessLookupError):
                    worker.process.kill()
                worker.process.communicate()


@pytest.mark.parametrize("status", [b"429 Too Many Requests", b"503 Service Unavailable"])
async def test_a_server_that_is_too_busy_is_asked_again(url, status, logged):
    """Every third request is refused, whatever it is."""
    host, port = url.removeprefix("http://").split(":")
    refused = 0

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Makes the task itself, so that each is known, also one that has not begun."""
        handlers.append(asyncio.create_task(answer(reader, writer)))
        handlers[-1].add_done_callback(lambda _: writer.close())

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refused
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        body = await reader.readexactly(length)
        requests.append(head)
        if len(requests) % 3 == 0:
            refused += 1
            writer.write(
                b"HTTP/1.1 %b\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status
            )
            return
        there, back = await asyncio.open_connection(host, int(port))
        try:
            back.write(head.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nConnection: close\r\n") + body)
            writer.write(await there.read())
        finally:
            back.close()

    requests: list[bytes] = []
    handlers: list[asyncio.Task[None]] = []
    queue = f"busy-{status[:3].decode()}"
    direct = Jobs(url)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        jobs = Jobs("http://127.0.0.1:%d" % server.sockets[0].getsockname()[1])

        @jobs.job
        async def number(n: int) -> int:
            return n

        made = [await direct.aclient.jobs.enqueue("number", {"n": n}, queue=queue) for n in range(30)]
        async with Worker(jobs, queue, concurrency=4, name="busy"):
            for n, job in enumerate(made):
                found = await direct.aclient.jobs.get(job.id, wait=60)
                assert (found.result, found.attempts) == (n, 1)
        await jobs.aclient.close()
    await direct.aclient.close()
    for handler in handlers:  # that of a dequeue whose client has gone waits for its answer
        handler.cancel()
    await asyncio.gather(*handlers, return_exceptions=True)
    assert refused > 3
    assert all("trying again" in record.getMessage() or "renewed" in record.getMessage() for record in logged)
    logged.clear()


# -- where it runs ----------------------------------------------------------------------------------


def test_a_worker_may_run_again_in_the_same_program(url):
    jobs = Jobs(url)

    @jobs.job(queue="twice")
    async def stop() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return os.getpid()

    worker = Worker(jobs, "twice")
    before = signal.getsignal(signal.SIGTERM)
    for _ in range(2):
        handle = stop.enqueue()
        assert worker.run() == 0
        assert handle.result(30) == os.getpid()
    assert signal.getsignal(signal.SIGTERM) == before
    jobs.client.close()


def test_a_worker_in_another_thread_serves_a_block_and_cannot_run(url):
    jobs = Jobs(url)

    @jobs.job(queue="thread")
    async def where() -> int:
        return threading.get_ident()

    async def serve() -> int:
        async with Worker(jobs, "thread"):
            return await (await where.aenqueue()).aresult(30)

    found: list[object] = []

    def work() -> None:
        async def all_of_it() -> int:
            result = await serve()
            await jobs.aclient.close()
            return result

        found.append(asyncio.run(all_of_it()) == threading.get_ident())
        try:
            Worker(jobs, "thread").run()
        except RuntimeError as refused:
            found.append("main thread" in str(refused))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert found == [True, True]


async def test_a_worker_whose_end_is_cancelled_gives_its_jobs_back(url):
    jobs = Jobs(url)
    begun, leaving, ended = asyncio.Event(), asyncio.Event(), []
    jobs.on_stop(lambda: ended.append(1))

    @jobs.job(queue="cancelled")
    async def waits() -> None:
        begun.set()
        await asyncio.sleep(300)

    worker = Worker(jobs, "cancelled", grace="10m")

    async def serve() -> int:
        async with worker:
            id = (await waits.aenqueue()).id
            await begun.wait()
            leaving.set()
        return id

    serving = asyncio.create_task(serve())
    await leaving.wait()
    await asyncio.sleep(0)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    [job] = [job async for job in jobs.aclient.jobs.iterate(queue="cancelled")]
    assert (job.status, job.attempts, ended) == ("queued", 0, [1])
    await jobs.aclient.jobs.cancel(job.id)
    async with worker:  # it may run again
        pass
    await jobs.aclient.close()


def test_a_task_may_be_stopped_when_its_loop_is_closed():
    loop = asyncio.new_event_loop()
    running = RunningJob(Job(1), trouble.short, Context())
    Tasks(loop, copy_context(), [], [], lambda *_: loop.stop()).start([running])
    loop.call_soon(lambda: stops.append(running.stop))
    stops: list[Callable[[], object]] = []
    loop.run_forever()
    loop.close()
    assert stops != [nothing_to_stop]
    stops[0]()


def test_a_worker_needs_no_uvloop(url, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    jobs = Jobs(url)
    kinds: list[type] = []

    @jobs.job(queue="plain")
    async def stop() -> None:
        kinds.append(type(asyncio.get_running_loop()))
        os.kill(os.getpid(), signal.SIGTERM)

    stop.enqueue()
    assert Worker(jobs, "plain").run() == 0
    assert [kind.__module__.partition(".")[0] for kind in kinds] == ["asyncio"]
    jobs.client.close()


def test_lengths_that_are_none_are_refused(url):
    with pytest.raises(ValueError, match="grace: not a duration"):
        Worker(Jobs(url), grace="a while")
    with pytest.raises(ValueError, match="lease_for: not a duration"):
        Worker(Jobs(url), lease_for="a while")


def test_killed_workers_of_python_lose_nothing():
    """`tests/server/killed_workers.py python-worker` is the long form: 10,000 jobs, and a kill every second."""
    script = Path(__file__).parents[1] / "server" / "killed_workers.py"
    done = subprocess.run(
        [sys.executable, script, "python-worker", "--jobs", "400", "--after", "50"],
        env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert (said["concluded"], said["killed"] >= 6) == (400, True)
