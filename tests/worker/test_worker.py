"""A worker as a program: how jobs end, stop, are cancelled, and what a signal does."""

import asyncio
import signal
import socket
import time
from datetime import date

import pytest
import shop
from running import until

from jobqueue import Jobs, Worker
from jobqueue.client import Client
from jobqueue.errors import InvalidField, JobQueueError
from jobqueue.jobs import JobFailed, NotFinished
from jobqueue.worker.cli import main


@pytest.fixture(scope="module", autouse=True)
def _shop(program):
    """Points the jobs of the shop at the server of this module."""
    clients = Client(f"http://127.0.0.1:{program.port}")
    before = shop.jobs.shared.use_clients(clients, None)
    yield
    shop.jobs.shared.use_clients(*before)
    clients.close()


@pytest.fixture(scope="module")
def client(program):
    with Client(f"http://127.0.0.1:{program.port}") as made:
        yield made


# -- how jobs end -----------------------------------------------------------------------------------


def test_jobs_of_all_kinds_return_their_results(work):
    work("kinds")
    queue = {"queue": "kinds"}
    assert shop.add.options(**queue).enqueue(1, 2).result(30) == 3
    assert shop.add.options(**queue).enqueue(a=1).result(30) == 11
    assert (
        shop.send_mail.options(**queue).enqueue(shop.Address("a@b"), kind="bill").result(30) == "bill to a@b"
    )
    parcel, lines = shop.Parcel(1.5, date(2026, 1, 2)), [shop.Line(article="cup", count=2)]
    assert shop.pack.options(**queue).enqueue(parcel, lines).result(30) == shop.Parcel(3.0, date(2026, 1, 2))
    assert shop.encode.options(**queue).enqueue("ada", "a.mp4").result(30) == {"a.mp4": 3}
    assert shop.noop.options(**queue).enqueue().result(30) is None
    assert shop.nap.options(**queue).enqueue(0).result(30) == "slept"


def test_a_job_from_a_shell_is_like_one_from_python(work, client):
    work("shell")
    job = client.jobs.enqueue("add", {"a": 5, "b": 6}, queue="shell")
    assert client.jobs.get(job.id, wait=30).result == 11


def test_a_job_says_how_it_ends_by_an_exception(work, client):
    work("ends")
    queue = {"queue": "ends"}
    assert shop.send_mail.options(**queue).enqueue(shop.Address("retry")).result(30) == "attempt 2"
    assert shop.send_mail.options(**queue).enqueue(shop.Address("give back")).result(30) == "attempt 1"
    with pytest.raises(JobFailed, match="no address") as failed:
        shop.send_mail.options(**queue).enqueue(shop.Address("nobody")).result(30)
    assert (failed.value.job["reason"], failed.value.job["error"]) == ("no_retry", "no address")


def test_a_failure_is_kept_with_its_type_and_its_traceback(work):
    work("failures")
    for kind, type in (("value", "ValueError"), ("long", "ValueError"), ("exit", "SystemExit")):
        with pytest.raises(JobFailed) as failed:
            shop.fail.options(queue="failures").enqueue(kind).result(30)
        error = failed.value.job.error
        assert (error.type, failed.value.job.reason) == (type, "attempts")
        assert "in fail" in error.details["traceback"]
        assert error.details["class"] == f"builtins.{type}"


def test_what_a_retry_would_not_change_is_dead_at_once(work, client):
    work("hopeless")
    options = {"queue": "hopeless", "max_attempts": 9}
    for job, said in (
        (shop.fail.options(**options).enqueue("key"), "missing"),
        (shop.fail.options(**options).enqueue("object"), "cannot be written as JSON"),
        (shop.big.options(**options).enqueue(300_000), "the result was refused"),
    ):
        with pytest.raises(JobFailed, match=said) as failed:
            job.result(30)
        assert (failed.value.job.reason, failed.value.job.attempts) == ("no_retry", 1)
    for payload, said in (
        ({"a": 1, "c": 2}, "unknown field `c`"), ({"a": "x"}, r"Expected `int`, got `str` - at `\$.a`"),
        ({}, "missing required field `a`"), ([1, 2], "Expected `object`"), ("x", "Expected `object`"),
    ):  # fmt: skip
        job = client.jobs.get(client.jobs.enqueue("add", payload, **options).id, wait=30)
        assert (job.status, job.reason) == ("dead", "no_retry")
        assert said.replace("\\", "") in job.error


def test_a_job_of_an_unknown_type_is_given_back_uncharged(work, client):
    work("strange")
    id = client.jobs.enqueue("novelty", queue="strange").id
    until(lambda: client.jobs.get(id).status == "scheduled")
    assert client.jobs.get(id).attempts == 0


def test_hooks_run_around_each_job_where_it_runs(work, tmp_path):
    work("around")
    for number, job in enumerate((shop.add, shop.nap, shop.encode)):
        path = tmp_path / str(number)
        arguments = ("a", "b") if job is shop.encode else (0,)
        job.options(queue="around", headers={"around": str(path)}).enqueue(*arguments).result(30)
        assert path.read_text() == "before after "


def test_jobs_enqueued_by_a_job_carry_its_trace(work, client):
    work("trace")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    shop.chain.options(queue="trace", headers={"traceparent": trace}).enqueue(2).result(30)
    until(lambda: client.jobs.count(queue="trace", status="concluded") == 3)
    assert {client.jobs.get(job.id).result for job in client.jobs.iterate(queue="trace")} == {trace}


def test_a_worker_of_one_place_concludes_and_takes_in_one_request(work, client):
    work("single", "-c", "1")
    handles = shop.jobs.enqueue_many(shop.add.options(queue="single").prepare(number) for number in range(50))
    assert [handle.result(30) for handle in handles] == [10 + number for number in range(50)]
    assert client.jobs.get(handles[0].id).attempts == 1


# -- what stops a job -------------------------------------------------------------------------------


def test_a_timeout_stops_a_task_a_thread_and_a_process(work):
    work("timeouts")
    began = time.monotonic()
    handles = [
        shop.slow.options(queue="timeouts").enqueue(),
        shop.slow_in_thread.options(queue="timeouts").enqueue(),
        shop.encode.options(queue="timeouts").enqueue("ada", "endless"),
    ]
    for handle in handles:
        with pytest.raises(JobFailed, match="longer than its timeout of 1 s"):
            handle.result(50)
    assert time.monotonic() - began < 45  # each alone would run for a minute or more
    assert shop.encode.options(queue="timeouts").enqueue("ada", "next").result(30) == {"next": 3}


def test_a_process_that_crashes_fails_its_job_only(work):
    work("crashes")
    with pytest.raises(JobFailed, match="its process ended with status -6"):
        shop.encode.options(queue="crashes").enqueue("ada", "crash").result(30)
    assert shop.encode.options(queue="crashes").enqueue("ada", "next").result(30) == {"next": 3}


@pytest.mark.parametrize("job", [shop.nap, shop.nap_in_thread], ids=["task", "thread"])
def test_a_cancelled_job_is_stopped_within_seconds_whatever_its_lease(work, client, job, tmp_path):
    queue = f"cancel-{job.type}"
    work(queue, "-l", "10m")
    mark = tmp_path / "mark"
    handle = job.options(queue=queue).enqueue(120, str(mark))
    until(mark.exists, 30)
    handle.cancel()
    with pytest.raises(JobFailed, match="cancelled"):
        handle.result(40)


def test_a_lease_that_is_lost_stops_the_job_and_reports_nothing(work, client, tmp_path):
    worker = work("lost", "-l", "3s", "-g", "0")
    mark = tmp_path / "mark"
    handle = shop.nap.options(queue="lost").enqueue(120, str(mark))
    until(mark.exists, 30)
    client.jobs.cancel(handle.id, force=True)
    until(lambda: mark.read_text() == "stopped", 30)
    assert client.jobs.get(handle.id).status == "cancelled"
    worker.stop()
    status, log = worker.ended()
    assert (status, "its lease is lost" in log) == (0, True)


@pytest.mark.parametrize("job", [shop.block_the_loop, shop.block_the_interpreter], ids=["task", "thread"])
def test_a_job_that_blocks_does_not_starve_its_heartbeat(work, client, job):
    queue = f"blocking-{job.type}"
    work(queue, "-l", "2s")
    handle = job.options(queue=queue).enqueue(5)
    assert handle.result(40) == "done"
    assert client.jobs.get(handle.id).leases == 1


# -- the end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_jobs_end_within_the_grace(work, client, tmp_path, number):
    queue = f"grace-{number}"
    worker = work(queue, "-g", "60")
    mark = tmp_path / "mark"
    handle = shop.nap.options(queue=queue).enqueue(1, str(mark))
    waiting = shop.nap.options(queue=f"{queue}-other").enqueue(1)
    until(mark.exists, 30)
    worker.stop(number)
    assert worker.ended()[0] == 0
    assert client.jobs.get(handle.id).status == "concluded"
    assert client.jobs.get(waiting.id).status == "queued"


@pytest.mark.parametrize("job", [shop.nap, shop.nap_in_thread], ids=["task", "thread"])
def test_what_is_not_done_in_the_grace_is_given_back_uncharged(work, client, tmp_path, job):
    queue = f"back-{job.type}"
    worker = work(queue, "-g", "0")
    mark = tmp_path / "mark"
    ids = [job.options(queue=queue).enqueue(120, str(mark)).id for _ in range(5)]
    until(lambda: client.jobs.count(queue=queue, status="in_progress") == 5, 30)
    worker.stop()
    assert worker.ended()[0] == 0
    found = [client.jobs.get(id) for id in ids]
    assert [(one.status, one.attempts) for one in found] == [("queued", 0)] * 5


def test_a_second_signal_ends_the_grace(work, client, tmp_path):
    worker = work("second", "-g", "10m")
    mark = tmp_path / "mark"
    handle = shop.nap.options(queue="second").enqueue(300, str(mark))
    until(mark.exists, 30)
    worker.stop()
    worker.stop(signal.SIGINT)
    assert worker.ended()[0] == 0
    assert client.jobs.get(handle.id).status == "queued"


def test_several_processes_share_the_work_and_end_together(work, client):
    worker = work("processes", "-p", "2", "-c", "1", "-g", "0")
    handles = [shop.nap.options(queue="processes").enqueue(1) for _ in range(6)]
    for handle in handles:
        handle.result(60)
    assert len({client.jobs.get(handle.id).consumer for handle in handles}) == 2
    worker.stop()
    assert worker.ended()[0] == 0


@pytest.mark.parametrize(
    ("target", "said"),
    [("shop", "MODULE:NAME"), ("shop:add", "not a jobqueue.Jobs"), ("shop:none", "has no none"), ("nix:jobs", "nix")],
)  # fmt: skip
def test_a_bad_command_line_says_what_is_wrong(target, said, capsys):
    assert main([target]) == 2
    assert said in capsys.readouterr().err


# -- inside a program -------------------------------------------------------------------------------


async def test_a_worker_inside_a_program_runs_its_tasks_on_the_programs_loop(url):
    jobs = Jobs(url)
    loops = []

    @jobs.job(queue="inside")
    async def where(number: int) -> int:
        loops.append(asyncio.get_running_loop())
        return number

    began, ended = [], []
    jobs.on_start(lambda: began.append(1))

    @jobs.on_stop
    async def stopped() -> None:
        ended.append(1)

    async with Worker(jobs, "inside", concurrency=3):
        handles = [await where.aenqueue(number) for number in range(10)]
        assert [await handle.aresult(30) for handle in handles] == list(range(10))
    assert set(loops) == {asyncio.get_running_loop()}
    assert (began, ended) == ([1], [1])
    await jobs.aclient.close()


async def test_a_worker_with_several_addresses_works_at_one_that_is_there(url):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        jobs = Jobs(f"http://127.0.0.1:{closed.getsockname()[1]},{url}")

        @jobs.job(queue="several")
        async def twice(number: int) -> int:
            return 2 * number

        async with Worker(jobs, "several", concurrency=2):
            handles = [await twice.aenqueue(number) for number in range(4)]
            assert [await handle.aresult(30) for handle in handles] == [0, 2, 4, 6]
        await jobs.aclient.close()


def test_waiting_for_a_result_has_an_end(url):
    handle = shop.add.options(queue="nobody").enqueue(1)
    with pytest.raises(NotFinished, match="is queued; no worker has taken it from the queue 'nobody'"):
        handle.result(0)
    assert isinstance(NotFinished(), TimeoutError)
    with pytest.raises(InvalidField, match="not a duration"):
        handle.result("a while")
    handle.cancel()
    with pytest.raises(JobFailed, match="cancelled"):
        handle.result()


def test_a_server_that_refuses_ends_the_worker(work, client):
    worker = work("not a name!")
    status, log = worker.ended()
    assert status == 1
    assert "refuses to give jobs" in log


def test_an_error_of_many_jobs_says_which_one_and_how_many_were_enqueued(url, client):
    made = [shop.noop.options(queue="many").prepare() for _ in range(1203)]
    made[1201] = shop.noop.options(queue="many", priority=2**40).prepare()
    with pytest.raises(JobQueueError, match="priority") as caught:
        shop.jobs.enqueue_many(made)
    assert caught.value.facts["index"] == 1201
    assert caught.value.facts["enqueued"] == 1000 == client.jobs.count(queue="many")


def test_an_error_of_the_server_reaches_who_enqueues(url):
    with pytest.raises(JobQueueError, match="priority"):
        shop.add.options(queue="errors", priority=2**40).enqueue(1)
