"""The real program with a journal: its start, kill -9, its stop, and journals it refuses."""

import signal
import sqlite3
import stat
import subprocess
import time
from contextlib import closing

import pytest
from running import MODULE, Connection, Program, environment, until

from jobqueue.storage.sqlite import FILE


def served(folder, **settings):
    return Program(JOBQUEUE_DATA=str(folder), JOBQUEUE_FIRST_ID="1", **settings)


def ready(program):
    until(lambda: any("loaded" in line for line in program.lines))


def refused(folder, **how):
    """The lines of a program that refuses to start."""
    done = subprocess.run(
        MODULE, env=environment(JOBQUEUE_PORT="0", JOBQUEUE_HOST="127.0.0.1", JOBQUEUE_DATA=str(folder)),
        cwd="/", capture_output=True, text=True, timeout=20, check=False, **how,
    )  # fmt: skip
    assert done.returncode == 1, done
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def test_it_says_so_at_its_start_and_keeps_its_files_to_itself(data):
    with served(data, JOBQUEUE_SYNC="os") as program:
        assert f", journal in {data}, sync os; no access tokens" in program.start_line
        ready(program)
        assert program.lines[1].startswith("loaded 0 jobs in 0.")
        assert program.call("GET", "/healthz")[1]["durability"] == "journal, sync os"
        assert program.call("GET", "/readyz")[0] == 200
        assert program.call("POST", "/jobs/enqueue", {"type": "x"})[0] == 201
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in data.iterdir()} == {0o600}
        assert program.stop() == 0
        assert program.lines[-1] == "stopped; 1 queued, 0 in progress, 0 scheduled jobs kept"
    assert sorted(path.name for path in data.iterdir()) == ["identity", FILE, "lock", "reserve", "secret"]


@pytest.mark.parametrize("sync", ["always", "os"])
def test_after_kill_9_everything_acknowledged_is_there_and_a_worker_concludes_as_if_nothing_happened(
    data, sync
):
    with served(data, JOBQUEUE_SYNC=sync) as program:
        ready(program)
        for number in range(20):
            body = {"type": "x", "priority": number % 3, "payload": number}
            assert program.call("POST", "/jobs/enqueue", body)[0] == 201
        _, job = program.call("POST", "/jobs/dequeue", {"consumer": "ann"})
        _, done = program.call("POST", "/jobs/dequeue", {})
        assert program.call("POST", f"/jobs/{done['id']}/conclude?lease={done['lease']}")[0] == 200
        program.signal(signal.SIGKILL)
        assert program.exit_status() == -signal.SIGKILL
    with served(data) as program:
        ready(program)
        assert "loaded 20 jobs" in program.lines[1]
        status, answer = program.call("POST", f"/jobs/{job['id']}/conclude?lease={job['lease']}")
        assert (status, answer["status"], answer["consumer"]) == (200, "concluded", "ann")
        assert program.call("GET", f"/jobs/{done['id']}")[1]["status"] == "concluded"
        _, left = program.call("POST", "/jobs/dequeue", {"count": 100})
        expected = sorted(
            set(range(1, 21)) - {job["id"], done["id"]}, key=lambda id_: (-((id_ - 1) % 3), id_)
        )
        assert [one["id"] for one in left["jobs"]] == expected
        assert program.call("POST", "/jobs/enqueue", {"type": "x"})[1]["id"] == 21


def test_while_it_stops_a_worker_may_finish_and_nothing_new_is_taken(data):
    with served(data, JOBQUEUE_DRAIN="20s", expect_5xx=True) as program:
        ready(program)
        worker = program.connect()
        for _ in range(2):
            program.call("POST", "/jobs/enqueue", {"type": "x"})
        jobs = worker.call("POST", "/jobs/dequeue", {"count": 2}).json["jobs"]
        program.signal()
        until(lambda: worker.call("GET", "/readyz").status == 503)
        with Connection(program.port) as producer:
            answer = producer.call("POST", "/jobs/enqueue", {"type": "x"})
            assert (answer.status, answer.json["code"]) == (503, "stopping")
            assert producer.call("POST", "/jobs/dequeue").status == 204
        id_, lease = jobs[0]["id"], jobs[0]["lease"]
        assert worker.call("POST", f"/jobs/{id_}/heartbeat?lease={lease}").status == 200
        assert worker.call("POST", f"/jobs/{id_}/conclude?lease={lease}").status == 200
        id_, lease = jobs[1]["id"], jobs[1]["lease"]
        started = time.monotonic()
        assert worker.call("POST", f"/jobs/{id_}/fail?lease={lease}").status == 200
        assert program.exit_status() == 0
        assert time.monotonic() - started < 5
        worker.close()
    with served(data) as program:
        ready(program)
        assert program.call("GET", "/stats")[1]["jobs"] == {
            "scheduled": 1, "queued": 0, "in_progress": 0, "concluded": 1, "dead": 0, "cancelled": 0
        }  # fmt: skip


def test_it_does_not_wait_long_for_workers_that_do_not_come(data):
    with served(data, JOBQUEUE_DRAIN="400ms") as program:
        ready(program)
        program.call("POST", "/jobs/enqueue", {"type": "x"})
        program.call("POST", "/jobs/dequeue")
        started = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("front", ["fast", "tornado"])
def test_a_job_in_an_unread_answer_is_queued_after_the_stop(data, front):
    large = {"JOBQUEUE_MAX_BODY": "32MiB"}  # one job that does not fit into the buffers of a socket
    with served(data, JOBQUEUE_HTTP=front, JOBQUEUE_DRAIN="100ms", **large) as program:
        ready(program)
        job = {"type": "x", "payload": "y" * 18_000_000}
        assert program.call("POST", "/jobs/enqueue", job)[0] == 201
        with Connection(program.port) as silent:
            silent.ask("POST", "/jobs/dequeue?count=20")
            until(lambda: program.call("GET", "/stats")[1]["jobs"]["in_progress"] == 1)
            assert program.stop() in (0, 1)
    with served(data, **large) as program:
        ready(program)
        assert program.call("GET", "/stats")[1]["jobs"]["queued"] == 1


# -- journals and folders it refuses --------------------------------------------------------------------


def test_a_second_server_on_the_same_folder_is_refused_and_after_kill_9_nothing_is_in_the_way(data):
    with served(data) as program:
        ready(program)
        [line] = refused(data)
        assert line == f"jobqueue: another server, process {program.pid}, is using {data}"
        program.signal(signal.SIGKILL)
        program.exit_status()
    with served(data) as program:
        assert program.stop() == 0


def test_a_folder_that_anybody_may_write_to_is_refused(data):
    data.mkdir(mode=0o700)
    data.chmod(0o777)
    [line] = refused(data)
    assert line.startswith(f"jobqueue: {data} is writable by everybody; use a directory of its own, such as ")


def test_a_file_in_place_of_the_folder_and_a_folder_that_cannot_be_made_are_refused(data):
    data.write_text("")
    assert refused(data) == [f"jobqueue: {data} is not a directory"]
    assert refused("/nowhere/data") == [
        "jobqueue: cannot create the directory /nowhere/data: No such file or directory"
    ]
    data.unlink()
    data.symlink_to("/nowhere")
    assert refused(data) == [f"jobqueue: {data} is a symbolic link to nothing"]


@pytest.mark.parametrize("name", [FILE, "lock"])
def test_a_link_in_place_of_a_file_is_refused(data, tmp_path, name):
    data.mkdir(mode=0o700)
    (data / name).symlink_to(tmp_path / "elsewhere")
    [line] = refused(data)
    assert str(data / name) in line
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_is_no_journal_or_of_a_newer_version_is_refused_by_name(data):
    data.mkdir(mode=0o700)
    (data / FILE).write_bytes(b"this is not a database, whatever its name says" * 100)
    [line] = refused(data)
    assert str(data / FILE) in line
    (data / FILE).unlink()
    with closing(sqlite3.connect(data / FILE, isolation_level=None)) as db:
        db.execute("CREATE TABLE something (else_ INTEGER)")
    assert refused(data) == [f"jobqueue: {data / FILE} is not a journal of jobqueue"]
    (data / FILE).unlink()
    with served(data) as program:
        program.stop()
    with closing(sqlite3.connect(data / FILE, isolation_level=None)) as db:
        db.execute("PRAGMA user_version = 4")
    [line] = refused(data)
    assert line.startswith(f"jobqueue: {data / FILE} is of version 4; this jobqueue reads versions up to 3")


def test_a_damaged_journal_is_named_before_a_single_job_is_served(data):
    with served(data) as program:
        ready(program)
        program.call("POST", "/jobs/enqueue", {"type": "x", "payload": "needle"})
        program.stop()
    content = (data / FILE).read_bytes()
    assert content.count(b"needle") == 1
    (data / FILE).write_bytes(content.replace(b"needle", b"noodle"))
    with served(data, expect_5xx=True) as program:
        assert program.exit_status() == 1
    assert f"{data / FILE} is damaged: job 1: its checksum is wrong" in program.lines[-1]
    assert "journal repair" in program.lines[-1]
