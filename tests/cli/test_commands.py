"""Each command does what it says, by one call of the API, and prints the answer of that call."""

import json
import os
import select
import socket
import stat
import subprocess
import threading

import pytest
from running import CLI, Program, environment

from jobqueue.cli.main import main
from jobqueue.client import Client

# -- enqueue ----------------------------------------------------------------------------------------


def test_a_job_is_made_of_arguments(cli, url):
    made = cli(
        "enqueue", "email", "to=ada@example.com", "copies:=2", "note=a=b", "big:=1.50", "-q", "args",
        "--priority", "3", "--tag", "a", "--tag", "b", "--header", "trace=7", "--max-attempts", "none",
        "--backoff", "10s,5m", "--delay", "1h", "--unique-key", "u1", "--key", "k",
    ).json  # fmt: skip
    assert (made["queue"], made["type"], made["status"], made["priority"]) == (
        "args",
        "email",
        "scheduled",
        3,
    )
    with Client(url) as client:
        job = client.jobs.get(made["id"])
    # Numbers go as they were written.
    assert bytes(job.payload_json) == b'{"to":"ada@example.com","copies":2,"note":"a=b","big":1.50}'
    assert (job.tags, job.headers, job.max_attempts, job.backoff) == (
        ("a", "b"),
        {"trace": "7"},
        None,
        [10, 300],
    )
    assert (job.unique_key, job.key) == ("u1", "k")


def test_options_may_stand_between_the_members_of_a_payload(cli):
    made = cli("enqueue", "email", "-q", "between", "to=x", "--tag", "a", "n:=1").json
    assert cli("job", str(made["id"])).json["payload"] == {"to": "x", "n": 1}
    put = cli("schedules", "put", "-q", "between", "between", "x", "--every", "1h", "a=b").json
    assert put["job"]["payload"] == {"a": "b"}
    done = cli("enqueue", "email", "-q", "between", "to=x", "--tags", "a")
    assert (done.status, "unknown argument --tags" in done.err) == (2, True)


def test_a_payload_comes_from_standard_input(cli, url):
    text = cli("enqueue", "x", "-", "-q", "stdin", input='[1, {"a": null}]').json
    raw = cli("enqueue", "x", "-", "-q", "stdin", "--content-type", "image/png", input=b"\x89PNG\x00").json
    with Client(url) as client:
        assert client.jobs.get(text["id"]).payload == [1, {"a": None}]
        job = client.jobs.get(raw["id"])
        assert (job.payload, job.content_type) == (b"\x89PNG\x00", "image/png")


def test_many_jobs_come_from_a_file_or_standard_input(cli, home, url):
    lines = '{"type":"a","payload":1.0}\n\n{"type":"b","queue":"other-file","priority":2}\n'
    (home / "jobs.ndjson").write_text(lines)
    assert len(cli("enqueue", "-f", "jobs.ndjson", "-q", "file", "--priority", "7").items) == 2
    [a] = cli("jobs", "-q", "file", "--payload").items
    [b] = cli("jobs", "-q", "other-file").items
    assert (a["type"], a["priority"], b["type"], b["priority"]) == ("a", 7, "b", 2)
    assert cli("enqueue", "-f", "-", "-q", "file", "--text", input=lines) == (0, "enqueued 2\n", "")


def test_a_bad_line_of_a_file_is_named_and_nothing_is_enqueued(cli):
    for bad in ('{"payload":1}', '{"type":7}', "[1]", "{"):
        done = cli("enqueue", "-f", "-", "-q", "bad-line", input='{"type":"a"}\n' + bad + "\n")
        assert (done.status, done.out) == (2, "")
        assert "line 2 is not a job" in done.err
    assert cli("jobs", "-q", "bad-line", "--count") == (0, "0\n", "")
    assert cli("jobs", "-q", "bad-line", "--count", "--json").json == {"count": 0}


def test_an_error_in_a_long_file_says_what_was_enqueued_before(cli):
    lines = ['{"type":"a"}'] * 2_500
    lines[2_199] = "{"
    done = cli("enqueue", "-f", "-", "-q", "long-file", input="\n".join(lines))
    assert (done.status, done.out.count("\n")) == (2, 2_000)
    assert done.err.splitlines()[0] == "jobqueue: 2,000 jobs of the lines before were enqueued"
    assert "line 2200 is not a job" in done.err
    lines[2_199] = '{"type":"a","priority":"high"}'
    done = cli("enqueue", "-f", "-", "-q", "long-file", input="\n".join(lines))
    assert (done.status, done.err.splitlines()[0]) == (1, "jobqueue: line 2200 was refused")
    assert cli("jobs", "-q", "long-file", "--count").out == "4000\n"


def test_the_result_can_be_waited_for(cli, url):
    worker = subprocess.Popen(
        [*CLI, "work", "-q", "sums", "-t", "application/json", "--", "cat"],
        env=environment(JOBQUEUE_URL=url), stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        done = cli("enqueue", "sum", "a:=1", "-q", "sums", "--wait", "30s").json
        assert (done["status"], done["result"]) == ("concluded", {"a": 1})
    finally:
        worker.terminate()
        worker.communicate()
    assert worker.returncode == 0


def test_a_job_that_is_not_finished_by_then_is_status_3(cli):
    done = cli("enqueue", "x", "-q", "nobody", "--wait", "100ms")
    assert done.status == 3
    job = json.loads(done.out)
    assert done.err == f"jobqueue: job {job['id']} is queued after 100ms\n"
    assert cli("job", str(job["id"]), "--wait", "100ms").status == 3


def test_the_id_alone_is_printed_on_request(cli):
    first = cli("enqueue", "x", "-q", "ids", "--id").out
    more = cli("enqueue", "-f", "-", "-q", "ids", "--id", input='{"type":"a"}\n{"type":"b"}\n').out
    assert [f"{job['id']}" for job in cli("jobs", "-q", "ids").items] == [*first.split(), *more.split()]
    assert (first.count("\n"), more.count("\n")) == (1, 2)
    assert cli("enqueue", "x", "-q", "ids", "--id", "--json").status == 2


def test_the_same_idempotency_key_makes_no_second_job(cli):
    first = cli("enqueue", "x", "-q", "once", "--idempotency-key", "k1").json
    again = cli("enqueue", "x", "-q", "once", "--idempotency-key", "k1").json
    assert (again["id"], again["duplicate"]) == (first["id"], True)


# -- a consumer by hand -----------------------------------------------------------------------------


def test_a_job_is_taken_and_concluded(cli):
    made = cli("enqueue", "x", "a=1", "-q", "hand").json
    taken = cli("dequeue", "-q", "none,hand", "--lease-for", "30s").json
    assert (taken["id"], taken["payload"], taken["lease_for"]) == (made["id"], {"a": "1"}, 30)
    done = cli("conclude", str(taken["id"]), "--lease", taken["lease"], "--result", '{"ok":true}').json
    assert done["status"] == "concluded"
    assert cli("job", str(taken["id"])).json["result"] == {"ok": True}


def test_a_job_is_failed_and_released(cli):
    cli("enqueue", "x", "-q", "fails")
    taken = cli("dequeue", "-q", "fails", "-n", "me").json
    back = cli("release", str(taken["id"]), "--lease", taken["lease"], "--delay", "0s").json
    assert (back["status"], back["attempts"]) == ("queued", 0)
    taken = cli("dequeue", "-q", "fails", "-n", "me").json
    dead = cli("fail", str(taken["id"]), "-n", "me", "--error", "no such host", "--no-retry").json
    assert (dead["status"], dead["reason"]) == ("dead", "no_retry")


@pytest.mark.parametrize(("queue", "why"), [("idle", "empty"), ("stopped", "paused"), ("later", "scheduled")])
def test_an_empty_dequeue_says_why_on_standard_error(cli, queue, why):
    if queue == "stopped":
        cli("enqueue", "x", "-q", queue)
        cli("pause", queue)
    if queue == "later":
        cli("enqueue", "x", "-q", queue, "--delay", "1h")
    assert cli("dequeue", "-q", queue) == (3, "", f"jobqueue: no job: {queue} is {why}\n")
    assert cli("dequeue", "-q", queue, "--wait", "10ms").err.endswith(f"{queue} is {why} after 10ms\n")


# -- look -------------------------------------------------------------------------------------------


def test_jobs_are_listed_and_counted_by_filters(cli):
    ids = [cli("enqueue", f"t{number % 2}", "-q", "list").json["id"] for number in range(4)]
    assert [job["id"] for job in cli("jobs", "-q", "list").items] == ids
    assert [job["id"] for job in cli("jobs", "-q", "list", "--type", "t1").items] == [ids[1], ids[3]]
    newest = cli("jobs", "-q", "list", "--newest", "--limit", "3").items
    assert [job["id"] for job in newest] == ids[:0:-1]
    assert cli("jobs", "-q", "list", "--status", "queued,dead", "--count").out == "4\n"
    assert cli("jobs", "-q", "list", "--status", "dead") == (0, "", "")
    assert cli("jobs", "-q", "list", "--limit", "0") == (0, "", "")
    found = cli("enqueue", "x", "to=ada", "-q", "list").json["id"]
    assert [job["id"] for job in cli("jobs", "-q", "list", "--contains", "ada").items] == [found]
    assert cli("jobs", "-q", "list", "--retrying") == (0, "", "")


def test_a_pipe_gets_all_jobs_over_many_pages(cli, url):
    with Client(url) as client:
        client.jobs.enqueue_many({"type": "x", "queue": "pages"} for _ in range(2_500))
    assert len(cli("jobs", "-q", "pages").items) == 2_500
    assert len(cli("jobs", "-q", "pages", "--limit", "1200").items) == 1_200


def test_a_job_is_shown_and_explained(cli):
    made = cli("enqueue", "x", "a=1", "-q", "shown", "--delay", "1h").json
    assert cli("job", str(made["id"])).json["payload"] == {"a": "1"}
    assert cli("job", str(made["id"]), "explain").json["reasons"][0]["code"] == "scheduled"
    text = cli("job", str(made["id"]), "explain", "--text").out
    assert text.startswith(f"{made['id']} scheduled\n")
    assert "payload     " in cli("job", str(made["id"]), "--text").out


def test_queues_are_shown(cli):
    cli("enqueue", "x", "-q", "seen")
    assert "seen" in [queue["name"] for queue in cli("queues").items]
    assert "seen" in cli("queues", "--names").out.splitlines()
    assert cli("queues", "seen").json["jobs"]["queued"] == 1
    table = cli("queues", "--text").out.splitlines()
    assert table[0].startswith("QUEUE ")
    assert any(line.startswith("seen ") for line in table)


# -- change -----------------------------------------------------------------------------------------


def test_jobs_are_cancelled_by_id(cli):
    ids = [str(cli("enqueue", "x", "-q", "cancel").json["id"]) for _ in range(2)]
    assert [job["status"] for job in cli("cancel", *ids).items] == ["cancelled", "cancelled"]
    made = cli("enqueue", "x", "-q", "cancel").json
    cli("dequeue", "-q", "cancel")
    asked = cli("cancel", str(made["id"]))
    assert (asked.json["status"], "--force" in asked.err) == ("in_progress", True)
    assert cli("cancel", str(made["id"]), "--force").json["status"] == "cancelled"


def dead(cli, queue, count=1):
    for _ in range(count):
        cli("enqueue", "x", "-q", queue)
        taken = cli("dequeue", "-q", queue).json
        failed = cli("fail", str(taken["id"]), "--lease", taken["lease"], "--no-retry").json
        assert failed["status"] == "dead"
        yield taken["id"]


def test_dead_jobs_are_put_back_to_work(cli):
    one, two = dead(cli, "retry", 2)
    assert cli("retry", str(one)).json["status"] == "queued"
    assert cli("retry", "-q", "retry", "--all", "--yes").json == {"matched": 1, "changed": 1, "sample": [two]}


def test_scheduled_jobs_are_made_ready_by_id_or_by_filter(cli):
    one, two = (cli("enqueue", "x", "-q", "early", "--delay", "1h").json["id"] for _ in range(2))
    assert cli("run-now", str(one)).json["status"] == "queued"
    assert cli("run-now", "-q", "early", "--all", "--yes").json == {
        "matched": 1,
        "changed": 1,
        "sample": [two],
    }
    assert cli("jobs", "-q", "early", "--status", "scheduled", "--count").out == "0\n"


def test_jobs_are_cancelled_by_filter_after_a_dry_run(cli):
    ids = [cli("enqueue", f"t{number % 2}", "-q", "unwanted").json["id"] for number in range(4)]
    dry = cli("cancel", "-q", "unwanted", "--type", "t1", "--dry-run").json
    assert (dry["matched"], dry["changed"]) == (2, 0)
    refused = cli("cancel", "-q", "unwanted", "--type", "t1")
    assert (refused.status, "add --yes to do it" in refused.err) == (2, True)
    done = cli("cancel", "-q", "unwanted", "--type", "t1", "--yes", "--limit", "1", "--text")
    assert done == (0, "1 job cancelled\n", "")
    assert cli("cancel", "-q", "unwanted", "--type", "t1", "--yes").json["sample"] == [ids[3]]
    assert [job["id"] for job in cli("jobs", "-q", "unwanted", "--status", "queued").items] == [
        ids[0],
        ids[2],
    ]


def test_jobs_in_progress_are_asked_to_stop_in_bulk_or_taken_away(cli):
    cli("enqueue", "x", "-q", "busy")
    taken = cli("dequeue", "-q", "busy").json
    asked = cli("cancel", "-q", "busy", "--status", "in_progress", "--yes", "--text")
    assert asked.out == "1 job cancelled or asked to stop\n"
    assert cli("job", str(taken["id"])).json["status"] == "in_progress"
    forced = cli("cancel", "-q", "busy", "--status", "in_progress", "--force", "--yes", "--text")
    assert forced.out == "1 job cancelled\n"
    assert cli("job", str(taken["id"])).json["status"] == "cancelled"


def test_jobs_are_moved_to_another_queue_and_back(cli):
    cli("enqueue", "x", "-q", "here")
    assert cli("move", "-q", "here", "--to", "there", "--all", "--yes", "--text").out == "1 job moved\n"
    assert cli("jobs", "-q", "there", "--count").out == "1\n"
    cli("set", "here", "dead_letter=here-dead", "max_attempts=1")
    made = cli("enqueue", "x", "-q", "here").json
    taken = cli("dequeue", "-q", "here").json
    cli("fail", str(taken["id"]), "--lease", taken["lease"])
    assert cli("job", str(made["id"])).json["queue"] == "here-dead"
    assert cli("move", "-q", "here-dead", "--back", "--all", "--yes").json["changed"] == 1
    assert cli("job", str(made["id"])).json["queue"] == "here"


def test_one_job_is_changed_by_actions(cli):
    id = str(cli("enqueue", "x", "-q", "one", "--delay", "1h").json["id"])
    edited = cli(
        "job", id, "edit", "priority=-5", "queue=two", "tags=a,b", "backoff=10s,5m", "max_attempts=none",
        "lease_for=1m", 'payload:={"n":1.0}', 'headers:={"a":"b"}', "retain_for=default",
    ).json  # fmt: skip
    assert (edited["priority"], edited["queue"], edited["tags"]) == (-5, "two", ["a", "b"])
    assert (edited["backoff"], edited["headers"], edited["lease_for"]) == ([10, 300], {"a": "b"}, 60)
    assert cli("job", id).json["payload"] == {"n": 1.0}
    assert cli("job", id, "run-now").json["status"] == "queued"
    assert cli("job", id, "cancel").json["status"] == "cancelled"
    [dead_id] = dead(cli, "one", 1)
    assert cli("job", str(dead_id), "retry").json["status"] == "queued"


def test_the_lease_of_a_job_is_extended(cli):
    id = str(cli("enqueue", "x", "-q", "held").json["id"])
    taken = cli("dequeue", "-q", "held", "--lease-for", "30s").json
    extended = cli(
        "job", id, "heartbeat", "--lease", taken["lease"], "--lease-for", "2m", "--progress", "0", "--message", "busy"
    ).json  # fmt: skip
    assert (extended["lease_for"], extended["lease_expires_at"] > taken["lease_expires_at"]) == (120, True)
    shown = cli("job", id).json
    assert (shown["progress"], shown["message"]) == (0, "busy")
    assert "--force takes the job away" in cli("job", id, "cancel").err
    assert "is to be stopped" in cli("job", id, "heartbeat", "--lease", taken["lease"]).err
    assert cli("job", id, "cancel", "--force").json["status"] == "cancelled"
    assert cli("job", id, "heartbeat", "--lease", taken["lease"]).status == 1


def test_one_particular_job_is_taken_before_its_turn(cli):
    _, second = (str(cli("enqueue", "x", "-q", "turns", "--max-run-for", "5m").json["id"]) for _ in range(2))
    cli("pause", "turns")
    refused = cli("job", second, "lease")
    assert refused == (3, "", f"jobqueue: job {second} was not taken: its queue is paused\n")
    cli("resume", "turns")
    taken = cli("job", second, "lease", "--lease-for", "30s", "-n", "ada").json
    assert (str(taken["id"]), taken["lease_for"], taken["consumer"]) == (second, 30, "ada")
    assert cli("job", second, "lease").status == 1
    back = cli("release", second, "-n", "ada", "--priority", "7").json
    assert (back["status"], back["priority"]) == ("queued", 7)
    assert cli("job", second).json["max_run_for"] == 300
    cli("enqueue", "x", "-q", "turns-other")
    taken = cli("dequeue", "-q", "turns-other,turns", "--order", "priority").json
    assert str(taken["id"]) == second


def test_switches_of_a_queue_are_set(cli):
    given = ("fair_keys=true", "key_limits.max_in_progress=1", "key_limits.batch=5", "max_run_for=1h")
    changed = cli("set", "switches", *given).json["settings"]
    assert (changed["fair_keys"], changed["max_run_for"]) == (True, 3600)
    assert changed["key_limits"] == {"max_in_progress": 1, "batch": 5}
    changed = cli("set", "switches", "fair_keys=false", "key_limits.ordered=true").json["settings"]
    assert (changed.get("fair_keys", False), changed["key_limits"]["ordered"]) == (False, True)


def test_the_openapi_document_is_printed(cli):
    assert "/jobs/enqueue" in cli("openapi").json["paths"]


def test_nothing_in_bulk_happens_in_a_pipe_without_yes(cli):
    cli("enqueue", "x", "-q", "bulk")
    dry = cli("purge", "-q", "bulk", "--all", "--dry-run").json
    assert (dry["matched"], dry["changed"]) == (1, 0)
    refused = cli("purge", "-q", "bulk", "--all")
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith("1 job, such as ")
    assert refused.err.endswith("jobqueue: nothing was changed: add --yes to do it\n")
    assert cli("jobs", "-q", "bulk", "--count").out == "1\n"
    assert cli("purge", "-q", "bulk", "--status", "queued", "--yes", "--text").out == "1 job removed\n"
    assert cli("jobs", "-q", "bulk", "--count").out == "0\n"
    assert cli("purge", "-q", "bulk", "--all", "--text") == (0, "no jobs to be removed\n", "")


def test_a_queue_is_paused_resumed_and_set(cli):
    paused = cli("pause", "cfg", "--for", "10m", "--reason", "deploy").json
    assert (paused["paused"], paused["pause"]["reason"]) == (True, "deploy")
    assert cli("resume", "cfg").json["paused"] is False
    changed = cli(
        "set", "cfg", "max_in_progress=10", "rate=100/1m", "lease_for=10m", "backoff=1s,5s", "dead_letter=cfg-dead",
        "key_limits.max_in_progress=1", "key_limits.rate=5/1s", "max_attempts:=3",
    ).json  # fmt: skip
    assert changed["settings"] == {
        "lease_for": 600, "max_attempts": 3, "backoff": [1, 5], "dead_letter": "cfg-dead", "max_in_progress": 10,
        "rate": {"count": 100, "per": 60, "burst": 10},
        "key_limits": {"max_in_progress": 1, "rate": {"count": 5, "per": 1, "burst": 1}},
    }  # fmt: skip
    assert "rate" not in cli("set", "cfg", "rate=default").json["settings"]


def test_jobs_are_exported_and_imported_once(cli):
    for number in range(3):
        cli("enqueue", "x", f"n:={number}", "-q", "moved")
    lines = cli("export", "moved")
    assert (lines.status, lines.out.count("\n")) == (0, 3)
    cli("purge", "-q", "moved", "--all", "--yes")
    assert cli("import", "-", "--text", input=lines.out).out == "imported 3, known before 0\n"
    assert cli("import", input=lines.out).json == {"imported": 0, "known": 3}
    assert [job["payload"] for job in cli("jobs", "-q", "moved", "--payload").items] == [
        {"n": n} for n in range(3)
    ]


# -- watch ------------------------------------------------------------------------------------------


def test_events_are_followed(cli, url):
    seen = subprocess.Popen(
        [*CLI, "tail", "-q", "tailed", "--for", "3s"], env=environment(JOBQUEUE_URL=url),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with Client(url) as client:
        while seen.poll() is None:  # until the stream is open
            client.jobs.enqueue("x", queue="tailed")
            if select_readable(seen.stdout):
                break
        client.jobs.enqueue("y", queue="tailed")  # there is one after the first that was seen
    lines = [json.loads(line) for line in seen.communicate()[0].splitlines()]
    assert seen.returncode == 0
    assert lines[0]["event"] == "enqueued"
    assert lines[0]["data"]["queue"] == "tailed"
    text = cli(
        "tail", "-q", "tailed", "-e", "enqueued", "--since", lines[0]["id"], "--for", "50ms", "--text"
    ).out
    assert "  enqueued    " in text


def select_readable(stream):
    return bool(select.select([stream], [], [], 0.05)[0])


def test_following_events_ends_with_the_server_and_says_so(home):
    with Program() as own:
        seen = subprocess.Popen(
            [*CLI, "tail"], env=environment(JOBQUEUE_URL=f"http://127.0.0.1:{own.port}", HOME=str(home)),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while not select_readable(seen.stdout):
            own.call("POST", "/jobs/enqueue", {"type": "x"})
        assert own.stop() == 0
        _, said = seen.communicate(timeout=60)
    assert (seen.returncode, "cannot connect" in said) == (4, True)


class EnoughPauses(Exception):
    pass


def test_a_lost_connection_is_opened_again_after_a_pause(monkeypatch, capfd):
    """A server that ends each stream at once must not be asked without end."""
    event = b'id: 7\nevent: enqueued\ndata: {"id":1}\n\n'
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(event), event)
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            raise EnoughPauses

    def serve(listening):
        for _ in range(3):
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)  # without the last chunk: the connection is lost

    monkeypatch.setattr("time.sleep", pause)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=serve, args=(listening,), daemon=True)
        serving.start()
        with pytest.raises(EnoughPauses):
            main(["tail", "--json", "--url", f"http://127.0.0.1:{listening.getsockname()[1]}"])
        serving.join(10)
        assert not serving.is_alive()
    assert pauses == [1.0] * 3
    shown = capfd.readouterr()
    assert shown.out.count("\n") == 3
    assert shown.err.count("going on after event 7") == 3


def test_the_live_screen_has_no_control_characters_in_a_pipe(cli):
    shown = cli("top", "--for", "10ms")
    assert shown.status == 0
    assert shown.out.startswith("jobqueue ")
    assert "\x1b" not in shown.out


def test_a_server_that_takes_requests_answers_ping(cli):
    assert cli("ping").json == {"status": "ready"}


# -- work -------------------------------------------------------------------------------------------


def test_a_command_is_run_for_each_job(cli, home):
    ids = [cli("enqueue", "x", f"n:={number}", "-q", "commands").json["id"] for number in range(3)]
    done = cli(
        "work",
        "-q",
        "commands",
        "-o",
        "-c",
        "2",
        "-l",
        "30s",
        "-v",
        "--",
        "sh",
        "-c",
        'cat; echo "$1"',
        "-",
        "-q",
    )
    assert done.status == 0, done.err
    results = [cli("job", str(id)).json["result"] for id in ids]
    assert sorted(results) == [f'{{"n":{number}}}-q\n' for number in range(3)]


def test_functions_are_run_with_the_address_of_a_flag(bare, home, url):
    (home / "shop.py").write_text(
        "import os, signal\nfrom jobqueue import Jobs\njobs = Jobs()\n"
        "@jobs.job(queue='functions')\ndef stop() -> str:\n    os.kill(os.getpid(), signal.SIGTERM)\n    return 'done'\n"
    )
    made = bare("enqueue", "stop", "-q", "functions", "--url", url).json
    done = bare("work", "shop:jobs", "-q", "functions", "-c", "1", "--url", url)
    assert done.status == 0, done.err
    assert bare("job", str(made["id"]), "--url", url).json["result"] == "done"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give MODULE:NAME"),
        (("shop:jobs", "--", "cat"), "MODULE:NAME"),
        (("nothing:jobs",), "there is no module 'nothing' in "),
        (("cat",), "a command comes after `--`"),
        (("-q", "x", "--"), "give the command"),
        (("shop:jobs", "--once"), "--once"),
        (("shop:jobs", "--sleep"), "--sleep"),
        (("-q", "x", "-l", "soon", "--", "cat"), "--lease-for soon"),
        (("-q", "x", "--url", "unix:/run/q.sock", "--", "cat"), "no Unix socket"),
        (("shop:jobs", "--cert", "x.pem"), "--cert"),
        (("shop:jobs", "--ca", "x.pem"), "Jobs(ca=…)"),
    ],
)
def test_wrong_arguments_of_work_are_one_line(bare, arguments, said):
    done = bare("work", *arguments)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert said in done.err


# -- serve ------------------------------------------------------------------------------------------


def test_every_setting_has_a_flag_that_counts_before_its_variable(bare):
    done = bare("serve", "--port", "abc", JOBQUEUE_PORT="1")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("jobqueue: --port abc: must be a whole number")
    # 192.0.2.1 is not an address of this machine, so the program ends.
    done = bare("serve", "--host", "192.0.2.1", "--port", "0", "--require-lease", JOBQUEUE_HOST="192.0.2.2")
    assert (done.status, "192.0.2.1" in done.err) == (1, True)


def test_a_secret_of_a_flag_is_not_shown(bare):
    done = bare("serve", "--access-token", "short")
    assert done.status == 2
    assert "short" not in done.err


def test_the_server_says_in_one_line_that_its_packages_are_missing(home, tmp_path):
    (tmp_path / "tornado").mkdir()
    (tmp_path / "tornado" / "__init__.py").write_text("raise ModuleNotFoundError('none', name='tornado')\n")
    paths = f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"
    done = subprocess.run(
        [*CLI, "serve"],
        env=environment(PYTHONPATH=paths),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "tornado" in done.stderr


# -- contexts ---------------------------------------------------------------------------------------


def test_a_context_keeps_address_and_token_for_its_owner_only(bare, home, url):
    assert bare("context", "add", "here", url, "--token", input="secret-secret-secret\n") == (0, "", "")
    assert bare("context", "add", "there", "http://127.0.0.1:1").status == 0
    file = home / ".config" / "jobqueue" / "contexts.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "secret-secret-secret" in file.read_text()
    listed = bare("context", "ls").out
    assert listed.splitlines() == [f"* {'here':16} {url}", f"  {'there':16} http://127.0.0.1:1"]
    assert bare("ping").json == {"status": "ready"}
    assert bare("ping", "--context", "there").status == 4
    assert bare("context", "use", "there").status == 0
    assert bare("ping").status == 4
    assert bare("ping", JOBQUEUE_URL=url).status == 0
    assert bare("ping", "--url", url).status == 0
    assert bare("context", "rm", "there").status == 0
    assert bare("context", "use", "there").status == 2
    assert (
        bare("ping", "--context", "there").err == "jobqueue: there is no context 'there'; there are: here\n"
    )


def test_a_broken_file_of_contexts_is_one_line(bare, home):
    file = home / ".config" / "jobqueue" / "contexts.toml"
    file.parent.mkdir(parents=True)
    for text in ("nonsense", "[a]\n", '[a]\nurl = "x"\ncolour = "red"\n', "a = 1\n"):
        file.write_text(text)
        done = bare("ping")
        assert (done.status, done.err.count("\n")) == (2, 1), text
        assert str(file) in done.err


def test_a_token_among_the_arguments_is_warned_of(cli):
    done = cli("ping", "--token", "anything-at-all")
    assert done.status == 0
    assert "JOBQUEUE_TOKEN" in done.err
    assert "anything-at-all" not in done.err


def test_the_series_of_a_queue_are_shown_as_json_and_as_bars(cli):
    cli("enqueue", "x", "-q", "charted")
    shown = cli("queues", "charted", "--series", "--for", "10m", "--step", "10s").json
    assert (shown["queue"], shown["step"]) == ("charted", 10)
    assert set(shown) >= {"kept", "from", "until", "enqueued", "queued"}
    assert cli("queues", "charted", "--series", "--text").out.startswith("charted  2")
    for wrong, said in (
        (("queues", "--series"), "needs the name of a queue"),
        (("queues", "charted", "--for", "1h"), "belong to --series"),
        (("queues", "charted", "--step", "1m"), "belong to --series"),
    ):
        refused = cli(*wrong)
        assert (refused.status, said in refused.err) == (2, True)
    assert cli("queues", "charted", "--series", "--step", "7s").status == 1
