"""Several servers on one PostgreSQL database: one is the owner of the jobs, the others pass connections on to it and
take its place."""

import glob
import os
import re
import socket
import time
from hashlib import sha256

import pytest
from postgres_server import needs_postgres
from running import Connection, until

from jobqueue import Client
from tests.cluster.crew import Crew
from tests.cluster.scenes import SCENES

pytestmark = needs_postgres
FAKETIME = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
THOROUGH = bool(os.environ.get("TEST_ALL"))


@pytest.fixture
def crew(postgres, database):
    crew = Crew(postgres, database)
    yield crew
    crew.end()


@pytest.fixture
def three(crew):
    crew.start_all(3)
    return crew


def test_any_of_three_servers_takes_any_request(three):
    first, second, third = three.servers
    assert three.owner is first
    for server in (second, third):
        assert f"is on standby; process {first.pid} on " in server.start_line
    ids = [server.call("POST", "/jobs/enqueue", {"type": "x"})[1]["id"] for server in three.servers]
    assert [server.call("POST", "/jobs/dequeue")[1]["id"] for server in reversed(three.servers)] == ids
    with Connection(second.port) as waiting:
        waiting.ask("POST", "/jobs/dequeue?wait=10")
        time.sleep(0.2)
        _, made = third.call("POST", "/jobs/enqueue", {"type": "x", "payload": "y" * 500_000})
        got = waiting.read("POST")
        assert (got.json["id"], len(got.json["payload"])) == (made["id"], 500_000)
    with Connection(third.port) as client:  # a client that ends its side, as `nc -N` does
        client.ask("GET", "/queues")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.read().status == 200
        assert client.ended()


def test_a_server_that_is_stopped_hands_over_at_once_and_its_workers_go_on(three):
    owner, other, last = three.servers
    other.call("POST", "/jobs/enqueue", {"type": "x"})
    _, job = last.call("POST", "/jobs/dequeue")
    began = time.monotonic()
    three.stop(owner)
    three.wait_for_owner()
    assert time.monotonic() - began < 3
    text = last.call("GET", "/cluster?format=text")[1].decode()
    assert re.search(
        rf"^process {other.pid} on .*  owner |^process {last.pid} on .*  owner ", text, re.MULTILINE
    )
    assert re.search(
        rf"^last takeover: .*Z, from process {owner.pid} on .*, which handed over$", text, re.MULTILINE
    )
    status, concluded = last.call("POST", f"/jobs/{job['id']}/conclude?lease={job['lease']}")
    assert (status, concluded["status"]) == (200, "concluded")


def test_a_session_goes_on_with_the_next_owner_and_any_server_shows_the_cluster(crew, tmp_path):
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[ann]\ndigest = "{sha256(b"token").hexdigest()}"\nrights = ["read"]\n')
    owner, other = [crew.start(JOBQUEUE_TOKENS_FILE=str(tokens)) for _ in range(2)]
    with Connection(other.port) as client:
        logged_in = client.call("POST", "/login", b"token=token")
    cookie = logged_in.headers["set-cookie"].partition(";")[0]
    crew.stop(owner)
    crew.wait_for_owner()
    status, page = other.call("GET", "/cluster", Cookie=cookie, Accept="text/html")
    assert status == 200
    assert re.search(rf"process {other.pid} on .*owner of the jobs", page.decode())
    assert b'href="./cluster" aria-current="page">' in page
    assert b"which handed over" in page
    assert other.call("GET", "/cluster", Cookie=cookie + "0")[0] == 401


def test_a_client_of_several_servers_goes_on_when_the_owner_is_killed(three):
    urls = ",".join(f"http://127.0.0.1:{server.port}" for server in three.servers)
    with Client(urls) as client:
        made = [client.jobs.enqueue("x", idempotency_key="a").id]
        three.kill(three.servers[0])
        made.append(client.jobs.enqueue("x", idempotency_key="b").id)
        assert [client.jobs.dequeue().id for _ in made] == made


def test_a_client_of_sqs_speaks_to_any_server_and_its_queues_and_handles_outlive_the_owner(three):
    def sqs(server, action, **asked):
        status, answer = server.call("POST", "/", asked, **{"X-Amz-Target": f"AmazonSQS.{action}"})
        assert status == 200, answer
        return answer

    owner, second, third = three.servers
    attributes = {"VisibilityTimeout": "600", "DelaySeconds": "0"}
    url = sqs(second, "CreateQueue", QueueName="mail", Attributes=attributes, tags={"a": "b"})["QueueUrl"]
    assert url == "http://localhost/000000000000/mail"  # the Host that these clients send
    number = {"n": {"DataType": "Number", "StringValue": "1"}}
    sent = [
        sqs(third, "SendMessage", QueueUrl=url, MessageBody=body, MessageAttributes=number) for body in "xy"
    ]
    [first] = sqs(second, "ReceiveMessage", QueueUrl=url)["Messages"]
    [other] = sqs(owner, "ReceiveMessage", QueueUrl=url)["Messages"]
    assert [first["MessageId"], other["MessageId"]] == [each["MessageId"] for each in sent]
    three.kill(owner)
    three.wait_for_owner()
    for server in (second, third):
        shown = sqs(server, "GetQueueAttributes", QueueUrl=url, AttributeNames=["All"])["Attributes"]
        assert shown["ApproximateNumberOfMessagesNotVisible"] == "2"
        assert attributes.items() <= shown.items()
    assert sqs(third, "ListQueueTags", QueueUrl=url) == {"Tags": {"a": "b"}}
    sqs(third, "DeleteMessage", QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    sqs(
        second,
        "ChangeMessageVisibility",
        QueueUrl=url,
        ReceiptHandle=other["ReceiptHandle"],
        VisibilityTimeout=0,
    )
    [again] = sqs(third, "ReceiveMessage", QueueUrl=url, MessageAttributeNames=["All"])["Messages"]
    assert (again["MessageId"], again["Body"]) == (other["MessageId"], "y")
    assert again["MessageAttributes"] == number


@pytest.mark.parametrize("name", SCENES)
def test_what_the_scenes_promise_holds(three, name):
    _, scene, _, rounds = SCENES[name]
    scene(three, rounds)


def test_a_server_on_standby_that_is_stopped_ends_its_session_and_one_that_is_killed_is_forgotten(three):
    owner, second, third = three.servers
    with second.connect() as client:
        assert client.call("GET", "/readyz").status == 200
        three.stop(second)
        assert client.ended()
    assert three.sql("SELECT count(*) FROM jobqueue.session WHERE alive") == "2"
    three.kill(third)
    three.sql("UPDATE jobqueue.session SET beat_at = now() - interval '1 hour' WHERE NOT owner")
    assert "last_takeover" not in owner.call("GET", "/cluster")[1]
    three.kill(owner)
    now = three.start()
    three.wait_for_owner()
    last = now.call("GET", "/cluster")[1]["last_takeover"]
    assert last["before"].startswith(f"process {owner.pid} on ")
    assert last["server"].startswith(f"process {now.pid} on ")
    assert last["forced"] is True
    assert three.sql("SELECT count(*) FROM jobqueue.session WHERE alive") == "1"


def test_what_another_server_passes_on_is_not_administrative_without_tokens(three):
    """A proxy beside a server on standby would look like a person at the machine of the owner."""
    owner, other, _ = three.servers
    status, answer = other.call("POST", "/queues/default/purge", {"all": True})
    assert (status, answer["code"]) == (403, "forbidden")
    assert "passed on by another server" in answer["detail"]
    assert owner.call("POST", "/queues/default/purge", {"all": True})[0] == 200


def test_only_who_knows_the_secret_of_the_owner_may_pass_connections_on(crew):
    server = crew.start()
    crew.wait_for_owner()
    host, port = crew.sql("SELECT address FROM jobqueue.session WHERE alive AND owner").split(":")
    for said in (b"GET / HTTP/1.1\r\n\r\n".ljust(160), b"0" * 64 + b" 1.2.3.4".ljust(96)):
        with socket.create_connection((host, int(port)), 5) as link:
            assert len(link.recv(32, socket.MSG_WAITALL)) == 32
            link.sendall(said)
            assert link.recv(1) == b""
    assert server.call("GET", "/readyz")[0] == 200


@pytest.mark.skipif(not FAKETIME, reason="faketime is not installed")
@pytest.mark.parametrize("off", ["+1h", "-1h"] if THOROUGH else ["+1h"])
def test_a_clock_that_is_an_hour_off_ends_no_lease_and_keeps_none(crew, off):
    first = crew.start()
    crew.wait_for_owner()
    second = crew.start(LD_PRELOAD=FAKETIME[0], FAKETIME=off, FAKETIME_DONT_FAKE_MONOTONIC="1")
    _, kept = first.call("POST", "/jobs/enqueue", {"type": "x"})
    _, short = first.call("POST", "/jobs/enqueue", {"type": "x"})
    _, lease = first.call("POST", "/jobs/dequeue", {"lease_for": "10m"})
    first.call("POST", "/jobs/dequeue", {"lease_for": "4s"})
    crew.kill(first)
    assert crew.wait_for_owner() is second
    assert second.call("GET", f"/jobs/{kept['id']}")[1]["status"] == "in_progress"
    until(lambda: second.call("GET", f"/jobs/{short['id']}")[1]["status"] == "queued")
    assert second.call("POST", f"/jobs/{kept['id']}/conclude?lease={lease['lease']}")[0] == 200
    assert any("off that of the database, which is used" in line for line in second.lines)
