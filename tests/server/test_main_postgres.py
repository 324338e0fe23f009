"""The real program on a PostgreSQL database: its start, kill -9, what it refuses, and a database that restarts under
load."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from postgres_server import needs_postgres
from running import CLI, MODULE, ROOT, Connection, Program, environment, until

pytestmark = needs_postgres
THOROUGH = bool(os.environ.get("TEST_ALL"))


@pytest.fixture
def url(postgres, database):
    return postgres.url(database)


def served(url, **settings):
    return Program(expect_5xx=True, JOBQUEUE_DATA=url, JOBQUEUE_FIRST_ID="1", **settings)


def ready(program):
    until(lambda: any("loaded" in line for line in program.lines), 20)


def run(command, url, *arguments, **settings):
    """The exit status of a command, and its lines on stderr."""
    done = subprocess.run(
        [*command, *arguments], env=environment(JOBQUEUE_PORT="0", JOBQUEUE_DATA=url, **settings), cwd="/",
        capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    assert "secret" not in done.stderr
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def test_it_says_so_at_its_start_and_keeps_jobs_through_a_stop_and_kill_9(url, database):
    with served(url) as program:
        assert f", PostgreSQL at postgresql://admin@/{database}; no access tokens" in program.start_line
        ready(program)
        assert program.call("GET", "/healthz")[1]["durability"] == "PostgreSQL"
        assert program.call("GET", "/readyz")[0] == 200
        for number in range(20):
            assert program.call("POST", "/jobs/enqueue", {"type": "x", "payload": number})[0] == 201
        _, job = program.call("POST", "/jobs/dequeue", {"consumer": "ann"})
        _, done = program.call("POST", "/jobs/dequeue", {})
        assert program.call("POST", f"/jobs/{done['id']}/conclude?lease={done['lease']}")[0] == 200
        program.signal(signal.SIGKILL)
        assert program.exit_status() == -signal.SIGKILL
    with served(url) as program:
        ready(program)
        assert any(line.startswith("loaded 20 jobs in ") for line in program.lines)
        assert (
            program.call("POST", f"/jobs/{job['id']}/conclude?lease={job['lease']}")[1]["status"]
            == "concluded"
        )
        assert program.call("GET", f"/jobs/{done['id']}")[1]["status"] == "concluded"
        assert program.call("POST", "/jobs/enqueue", {"type": "x"})[1]["id"] == 21
        assert program.stop() == 0
        assert program.lines[-1] == "stopped; 19 queued, 0 in progress, 0 scheduled jobs kept"


def test_the_commands_of_the_page_set_it_up(postgres):
    page = (ROOT / "docs" / "postgresql.md").read_text()
    block, *_ = re.findall(
        r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL
    )  # test_migration.py has another
    *setting_up, serving = block.splitlines()
    for line in setting_up:
        program, *arguments = line.split()
        postgres.run(
            program, *arguments, typed="pw\npw\n", PGHOST=str(postgres.folder), PGPORT=str(postgres.port), PGUSER="admin"
        )  # fmt: skip
    setting, script = serving.split()
    assert script == "./scripts/run.sh"
    with served(
        setting.removeprefix("JOBQUEUE_DATA="), PGPORT=str(postgres.port), PGPASSWORD="pw"
    ) as program:
        ready(program)
        assert program.call("POST", "/jobs/enqueue", {"type": "x"})[0] == 201
        assert program.stop() == 0


# The program, with a limit of 0.1 s for a stop that takes longer than JOBQUEUE_DRAIN.
LIMITED = """
import runpy, sys
from jobqueue.server import signals
signals._LIMIT = 0.1
sys.argv[1:] = ["serve"]
runpy.run_module("jobqueue", run_name="__main__")
"""


def test_a_server_whose_session_was_ended_begins_a_new_one_with_what_was_committed(url, postgres, database):
    command = (sys.executable, "-P", "-c", LIMITED)
    with Program(command, True, JOBQUEUE_DATA=url, JOBQUEUE_FIRST_ID="1", JOBQUEUE_DRAIN="1s") as program:
        ready(program)
        assert program.call("POST", "/jobs/enqueue", {"type": "x"})[0] == 201
        postgres.sql("UPDATE jobqueue.session SET alive = false", database)
        with Connection(program.port) as client:
            assert client.call("POST", "/jobs/enqueue", {"type": "x"}).status == 503
        until(lambda: any(line.startswith("loaded 1 jobs") for line in program.lines))
        taken_over = time.monotonic()
        assert any("another server has taken over postgresql://" in line for line in program.lines)
        assert program.call("POST", "/jobs/enqueue", {"type": "x"})[1]["id"] == 2
        until(lambda: time.monotonic() > taken_over + 1.2)  # the limit of the stop before does not end it
        assert program.call("GET", "/readyz")[0] == 200
        assert program.stop() == 0


def test_what_it_cannot_use_is_said_in_one_line(postgres, url, database):
    local = f"127.0.0.1:{postgres.port}"
    for data, status, told in (
        (
            f"postgresql://admin:secret@{local}/{database}",
            1,
            "PostgreSQL refuses the login to postgresql://admin@",
        ),
        (postgres.url("none"), 1, 'database "none" does not exist'),
        ("mysql://ann:secret@h/d", 2, "must be the path of a folder, or postgresql://user@host/database"),
        ("postgres//h/d", 2, "must be the path of a folder, or postgresql://user@host/database"),
    ):
        found, lines = run(MODULE, data)
        assert (found, len(lines)) == (status, 1), lines
        assert told in lines[0]
    status, [line] = run(MODULE, url, JOBQUEUE_SYNC="os")
    assert (status, "JOBQUEUE_SYNC=os is for a journal on disk" in line) == (2, True)


def test_a_server_that_cannot_stand_by_says_why_and_ends(postgres, url, database):
    with served(url) as program:
        ready(program)
        postgres.sql("UPDATE jobqueue.meta SET version = 4", database)
        status, [line] = run(MODULE, url)
        assert (status, "is of version 4; this jobqueue knows versions up to 3" in line) == (1, True)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("verify",), "pg_amcheck"), (("repair",), "pg_restore"), (("backup", "x"), "pg_dump"), (("dump",), "GET /jobs"),
        (("dump", "schedules"), "GET /schedules"),
    ],
)  # fmt: skip
def test_the_journal_commands_say_what_replaces_them(command, told):
    status, [line] = run((*CLI, "journal"), "postgresql://u:secret@h/d", *command)
    assert status == 2
    assert told in line


class Client(threading.Thread):
    """Enqueues, takes and concludes jobs until it is told to stop. `made` and `concluded` are what was
    acknowledged; `errors` are answers other than success and 503."""

    def __init__(self, port, number, stopping):
        super().__init__()
        self._port, self._number, self._stopping = port, number, stopping
        self.made, self.concluded, self.errors, self.waits = [], [], [], 0

    def run(self):
        with Connection(self._port) as connection:
            connection.socket.settimeout(60)
            count = 0
            while not self._stopping.is_set():
                count += 1
                answer = connection.call("POST", "/jobs/enqueue", {"type": f"{self._number}-{count}"})
                if answer.status == 201:
                    self.made.append(answer.json["id"])
                answers = [answer]
                if count % 2:
                    answer = connection.call("POST", "/jobs/dequeue", {"lease_for": "10m"})
                    answers.append(answer)
                    if answer.status == 200:
                        job = answer.json
                        answer = connection.call("POST", f"/jobs/{job['id']}/conclude?lease={job['lease']}")
                        answers.append(answer)
                        if answer.status == 200:
                            self.concluded.append(job["id"])
                refused = [answer for answer in answers if answer.status == 503]
                self.errors += [one for one in answers if one.status not in (200, 201, 204, 503)]
                if refused:
                    self.waits += 1
                    assert all("retry-after" in one.headers for one in refused)
                    time.sleep(0.1)


def test_a_database_that_is_stopped_and_killed_under_load_loses_nothing_that_was_acknowledged(url, postgres):
    stopping = threading.Event()
    with served(url, JOBQUEUE_RETAIN="1h") as program:
        ready(program)
        clients = [Client(program.port, number, stopping) for number in range(6)]
        for client in clients:
            client.start()
        for round_ in range(8 if THOROUGH else 3):
            time.sleep(0.7)
            before = sum(len(client.made) for client in clients)
            postgres.stop("immediate" if round_ % 2 else "fast")
            time.sleep(7 if round_ == 1 else 0.1)  # once longer than answers are held
            postgres.start()
            until(lambda before=before: sum(len(client.made) for client in clients) > before + 20, 30)
        stopping.set()
        for client in clients:
            client.join()
        assert program.running
        assert not any(client.errors for client in clients)
        assert sum(client.waits for client in clients) > 0
        program.signal(signal.SIGKILL)
        program.exit_status()
    made = [id for client in clients for id in client.made]
    concluded = {id for client in clients for id in client.concluded}
    assert len(set(made)) == len(made)
    assert len(concluded) == sum(len(client.concluded) for client in clients)
    with served(url) as program, program.connect() as connection:
        ready(program)
        statuses = {
            id: connection.call("GET", f"/jobs/{id}").json.get("status") for id in {*made, *concluded}
        }
        assert [id for id, status in statuses.items() if status is None] == []
        assert [id for id in concluded if statuses[id] != "concluded"] == []
        assert program.stop() == 0
