"""`jobqueue bench` measures, and leaves nothing behind."""

import json
import signal
import subprocess

import pytest
from running import CLI, environment, until

from jobqueue.cli.bench import _quantiles
from jobqueue.client import Client

SHORT = ("bench", "--seconds", "1", "--workers", "4")


def waiting(url, queue):
    with Client(url) as client:
        return client.queues.get(queue).jobs


def nothing(url, queue):
    return not any(getattr(waiting(url, queue), name) for name in waiting(url, queue).__struct_fields__)


def test_a_load_is_measured_and_its_queue_is_empty_afterwards(cli, url):
    found = cli(*SHORT, "-q", "measured", "--payload", "1000").json
    assert (found["queue"], found["workers"], found["payload"]) == ("measured", 4, 1000)
    assert found["jobs"] > 4
    assert found["jobs_per_second"] == pytest.approx(found["jobs"] / found["seconds"], rel=0.01)
    for call in ("enqueue", "dequeue", "conclude"):
        assert 0 < found[call]["p50"] <= found[call]["p95"] <= found[call]["p99"] <= found[call]["max"] < 5
    with Client(url) as client:
        assert client.queues.get("measured").totals.concluded == found["jobs"]
    assert nothing(url, "measured")


def test_a_terminal_gets_a_table(terminal):
    status, shown = terminal(*SHORT, "-q", "shown")
    assert status == 0
    head, empty, *rows = shown.splitlines()
    assert " jobs/s" in head
    assert empty == ""
    assert [row.split()[0] for row in rows] == ["CALL", "enqueue", "dequeue", "conclude"]


@pytest.mark.parametrize("status", ["queued", "scheduled", "concluded"])
def test_a_queue_that_holds_jobs_is_refused_and_keeps_them(cli, url, status):
    queue = f"taken-{status}"
    made = cli("enqueue", "x", "-q", queue, *(["--delay", "1h"] if status == "scheduled" else [])).json
    if status == "concluded":
        taken = cli("dequeue", "-q", queue).json
        cli("conclude", str(taken["id"]), "--lease", taken["lease"])
    refused = cli(*SHORT, "-q", queue)
    assert (refused.status, refused.out) == (2, "")
    assert f"the queue {queue} holds 1 job" in refused.err
    assert cli("job", str(made["id"])).json["status"] == status


def test_a_queue_that_is_paused_is_refused(cli):
    cli("pause", "stopped-bench")
    refused = cli(*SHORT, "-q", "stopped-bench")
    assert (refused.status, "is paused" in refused.err) == (2, True)


def test_a_load_that_is_interrupted_or_refused_leaves_nothing(cli, url, home):
    running = subprocess.Popen(
        [*CLI, "bench", "-q", "interrupted", "-s", "60"], stderr=subprocess.PIPE,
        env=environment(JOBQUEUE_URL=url, HOME=str(home)),
    )  # fmt: skip
    with Client(url) as client:
        until(lambda: client.queues.get("interrupted").totals.concluded, 30)
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=30)[1] == b""
    assert running.returncode == -signal.SIGINT
    assert nothing(url, "interrupted")
    cli("set", "narrow", "max_jobs=1")
    refused = cli("bench", "-q", "narrow", "-s", "1", "-w", "8")
    assert (refused.status, refused.out) == (1, "")
    assert "(queue_full)" in refused.err
    assert nothing(url, "narrow")


def test_a_share_of_the_calls_is_by_the_nearest_rank():
    assert _quantiles([0.4, 0.1, 0.2, 0.3]) == {"p50": 0.2, "p95": 0.4, "p99": 0.4, "max": 0.4}
    assert _quantiles([float(number) for number in range(1, 101)]) == {
        "p50": 50,
        "p95": 95,
        "p99": 99,
        "max": 100,
    }


def test_the_result_is_one_line_of_json(cli):
    assert json.loads(cli(*SHORT, "-q", "line", "--json").out)
