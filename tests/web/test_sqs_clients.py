"""The clients of SQS against a real server: boto3 by both protocols, Celery. Skipped where they are not installed."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
import botocore.exceptions  # noqa: E402  # with boto3

from jobqueue import Client  # noqa: E402
from jobqueue.testing import RunningServer  # noqa: E402
from jobqueue.web.access.tokens import digest_of  # noqa: E402

everything = pytest.mark.skipif(not os.environ.get("TEST_ALL"), reason="long; ./scripts/test.sh --all")


def client(server, key="x", secret="y", **options):
    return boto3.client(
        "sqs",
        endpoint_url=server.url,
        region_name="eu-central-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=boto3.session.Config(retries={"total_max_attempts": 1}),
        **options,
    )


def test_boto3_compares_the_digests_of_all_that_it_sends_and_receives():
    with RunningServer({}) as server:
        sqs = client(server)
        url = sqs.create_queue(QueueName="mail", Attributes={"VisibilityTimeout": "60"})["QueueUrl"]
        attributes = {
            "n": {"DataType": "Number", "StringValue": "1"},
            "b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
        }
        for number in range(3):
            sqs.send_message(QueueUrl=url, MessageBody=f"é{number}", MessageAttributes=attributes)
        entries = [{"Id": str(number), "MessageBody": f"b{number}"} for number in range(3)]
        assert len(sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == 3
        got = sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"]
        )["Messages"]
        assert [message["Body"] for message in got] == ["é0", "é1", "é2", "b0", "b1", "b2"]
        assert got[0]["MessageAttributes"] == attributes
        sqs.change_message_visibility(
            QueueUrl=url, ReceiptHandle=got[0]["ReceiptHandle"], VisibilityTimeout=0
        )
        done = [
            {"Id": str(number), "ReceiptHandle": each["ReceiptHandle"]} for number, each in enumerate(got)
        ]
        assert len(sqs.delete_message_batch(QueueUrl=url, Entries=done)["Successful"]) == 6
        assert "Messages" not in sqs.receive_message(QueueUrl=url)
        with pytest.raises(sqs.exceptions.QueueDoesNotExist) as refused:
            sqs.get_queue_url(QueueName="none")
        assert refused.value.response["Error"]["Code"] == "AWS.SimpleQueueService.NonExistentQueue"
        with pytest.raises(sqs.exceptions.ReceiptHandleIsInvalid):
            sqs.delete_message(QueueUrl=url, ReceiptHandle="garbage")
        sqs.purge_queue(QueueUrl=url)
        sqs.delete_queue(QueueUrl=url)


def blocks(kind):
    """Returns the blocks of docs/sqs.md."""
    page = (Path(__file__).parents[2] / "docs" / "sqs.md").read_text()
    return re.findall(rf"^```{kind}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_the_page_says_how_boto3_comes_here_and_what_curl_then_takes():
    start, _ = blocks("sh")
    settings = dict(re.findall(r"(AWS_\w+)=(\S+)", start.replace("http://localhost:8080", "{url}")))
    with RunningServer({}) as server:
        environment = os.environ | {name: value.format(url=server.url) for name, value in settings.items()}
        program = blocks("python")[0].replace("    sqs.delete_message", "    # sqs.delete_message")
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        assert done.stdout == '{"to":"ada@example.com"}\n'
        assert server.client.queues.get("mail").jobs.in_progress == 1


def test_the_page_shows_a_token_as_the_program_makes_it():
    _, start = blocks("sh")
    arguments = shlex.split(start.splitlines()[0].partition(" >> ")[0])[1:]
    command = [sys.executable, "-P", "-m", "jobqueue", *arguments]
    made = tomllib.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    shown = tomllib.loads(blocks("toml")[0])
    assert shown.keys() == made.keys() == {"mailer"}
    assert shown["mailer"].keys() == {"digest", "rights", "queues", "sqs_secret"}
    assert {name: made["mailer"][name] for name in ("rights", "queues")} == {
        name: shown["mailer"][name] for name in ("rights", "queues")
    }


def test_the_page_configures_celery_in_names_that_it_knows():
    pytest.importorskip("celery", reason="celery is not installed")
    from celery.app.utils import detect_settings

    known: dict[str, object] = {}
    exec(blocks("python")[1], known)
    app = known["app"]
    assert app.conf.broker_transport_options["is_secure"] is False
    assert app.conf.task_acks_late is True
    detect_settings(app.conf)


def test_boto3_signs_with_the_secret_of_a_token(tmp_path):
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        f'[mailer]\ndigest = "{digest_of("t")}"\nrights = ["enqueue", "read"]\nsqs_secret = "s/e+c=r-e_t0123456789"\n'
    )
    with RunningServer({"tokens_file": str(tokens)}) as server:
        url = client(server, "mailer", "s/e+c=r-e_t0123456789").create_queue(QueueName="mail")["QueueUrl"]
        client(server, "mailer", "s/e+c=r-e_t0123456789").send_message(QueueUrl=url, MessageBody="é")
        for key, secret, session, code in (
            ("mailer", "wrong-secret-0123456789", None, "SignatureDoesNotMatch"),
            ("nobody", "s/e+c=r-e_t0123456789", None, "InvalidClientTokenId"),
            ("mailer", "s/e+c=r-e_t0123456789", "session", "InvalidClientTokenId"),
        ):
            with pytest.raises(botocore.exceptions.ClientError) as refused:
                client(server, key, secret, aws_session_token=session).list_queues()
            answer = refused.value.response
            assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]) == (403, code)


def test_boto3_signs_over_tls(tmp_path):
    trustme = pytest.importorskip("trustme", reason="trustme is not installed")
    authority = trustme.CA()
    certificate, trusted = tmp_path / "server.pem", tmp_path / "ca.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(trusted)
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        f'[mailer]\ndigest = "{digest_of("t")}"\nrights = ["enqueue"]\nsqs_secret = "secret-0123456789"\n'
    )
    settings = {"HOST": "127.0.0.1", "PORT": "0", "TLS_CERT": str(certificate), "TOKENS_FILE": str(tokens)}
    with running(settings) as server:
        good = client(server, "mailer", "secret-0123456789", verify=str(trusted))
        url = good.create_queue(QueueName="mail")["QueueUrl"]
        assert url == f"{server.url}/000000000000/mail"
        assert url.startswith("https://")
        good.send_message(QueueUrl=url, MessageBody="x")
        with pytest.raises(botocore.exceptions.ClientError, match="SignatureDoesNotMatch"):
            client(server, "mailer", "wrong-0123456789", verify=str(trusted)).create_queue(QueueName="mail")


@contextmanager
def running(settings):
    """The program, which is killed at the end. Yields its address."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "jobqueue", "serve"],
        env=os.environ | {f"JOBQUEUE_{name}": value for name, value in settings.items()},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            yield Address(process.stderr.readline().split(" on ")[1].split()[0])
        finally:
            process.kill()


@contextmanager
def serving(folder, port=0):
    """The program on a journal, which it has read."""
    with running({"HOST": "127.0.0.1", "PORT": str(port), "DATA": str(folder)}) as server:
        with Client(server.url) as asking:
            asking.server.ready()
        yield server


class Address:
    def __init__(self, url):
        self.url = url


def test_queues_attributes_and_receipt_handles_survive_the_server(tmp_path):
    with serving(tmp_path) as server:
        sqs = client(server)
        dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 5})
        given = {"RedrivePolicy": policy}
        mail = sqs.create_queue(QueueName="mail", Attributes=given, tags={"a": "b"})["QueueUrl"]
        fifo = sqs.create_queue(QueueName="q.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
        group = {"MessageGroupId": "g", "MessageDeduplicationId": "d"}
        first = sqs.send_message(QueueUrl=fifo, MessageBody="f", **group)
        big = {"big": {"DataType": "String", "StringValue": "x" * 100_000}}
        for body in ("1", "2"):
            sqs.send_message(QueueUrl=mail, MessageBody=body, MessageAttributes=big)
        [message] = sqs.receive_message(QueueUrl=mail)["Messages"]
    with serving(tmp_path, int(server.url.rpartition(":")[2])) as server:
        sqs = client(server)
        assert len(sqs.list_queues()["QueueUrls"]) == 3
        attributes = sqs.get_queue_attributes(QueueUrl=mail, AttributeNames=["All"])["Attributes"]
        assert (attributes["RedrivePolicy"], attributes["ApproximateNumberOfMessagesNotVisible"]) == (
            policy,
            "1",
        )
        assert sqs.list_queue_tags(QueueUrl=mail)["Tags"] == {"a": "b"}
        receipt = {"QueueUrl": mail, "ReceiptHandle": message["ReceiptHandle"]}
        sqs.change_message_visibility(**receipt, VisibilityTimeout=60)
        sqs.delete_message(**receipt)
        [other] = sqs.receive_message(QueueUrl=mail, MessageAttributeNames=["All"])["Messages"]
        assert other["MessageAttributes"] == big
        assert sqs.send_message(QueueUrl=fifo, MessageBody="f", **group)["MessageId"] == first["MessageId"]


# -- Celery ----------------------------------------------------------------------------------------

TASKS = """
import os, time
from celery import Celery, chain

app = Celery("tasks", broker=os.environ["BROKER"])
app.conf.update(
    broker_transport_options={
        "is_secure": False, "region": "us-east-1", "wait_time_seconds": 20, "polling_interval": 0,
        "visibility_timeout": 5,
    },
    worker_enable_remote_control=False, task_ignore_result=True, task_acks_late=True,
    task_reject_on_worker_lost=True, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True,
)

def note(text):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(text + "\\n")

@app.task
def add(a, b):
    note(f"add {a + b}")
    return a + b

@app.task(bind=True, max_retries=3)
def flaky(self):
    note(f"flaky {self.request.retries}")
    if self.request.retries < 2:
        raise self.retry(countdown=1)

@app.task
def late(at):
    note("late" if time.time() >= at + 1.9 else "early")

@app.task
def kills_its_worker_once():
    note("began")
    if open(os.environ["NOTES"]).read().count("began") == 1:
        os.kill(os.getppid() if os.environ["POOL"] == "prefork" else os.getpid(), 9)
        time.sleep(60)
    note("ended")
"""

SEND = """
import sys, time
sys.path.insert(0, ".")
from tasks import *
for number in range(10):
    add.delay(number, 0)
flaky.delay()
late.apply_async((time.time(),), countdown=2)
chain(add.s(100, 1), add.s(1000))()
kills_its_worker_once.delay()
"""


def end_group(process):
    """Ends a worker and the processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.skipif(
    not os.environ.get("TEST_CELERY"), reason="takes a minute and starts Celery; runs with TEST_CELERY=1"
)
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_celery_runs_its_tasks_over_sqs_also_when_its_worker_is_killed(tmp_path, pool):
    pytest.importorskip("celery", reason="celery is not installed")
    pytest.importorskip("kombu.transport.SQS", reason="kombu[sqs] is not installed")
    pytest.importorskip("pycurl", reason="pycurl is not installed")
    (tmp_path / "tasks.py").write_text(TASKS)
    notes = tmp_path / "notes"
    notes.touch()
    with RunningServer({}) as server:
        environment = {
            **os.environ,
            "BROKER": f"sqs://x:y@{server.url.removeprefix('http://')}",
            "NOTES": str(notes),
            "POOL": pool,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

        def worker():
            command = [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "tasks",
                "worker",
                "-P",
                pool,
                "-c",
                "2",
                "-l",
                "ERROR",
            ]
            quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
            return subprocess.Popen(
                [*command, *quiet], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

        subprocess.run([sys.executable, "-c", SEND], cwd=tmp_path, env=environment, check=True)
        expected = Counter(
            [f"add {number}" for number in range(10)]
            + ["flaky 0", "flaky 1", "flaky 2", "late", "add 101", "add 1101", "ended"]
        )
        running = worker()
        try:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                if running.poll() is not None:
                    end_group(running)
                    running = worker()
                seen = Counter(line for line in notes.read_text().splitlines() if line != "began")
                if not expected - seen:
                    break
                time.sleep(0.1)
            assert seen.keys() == expected.keys()
            assert seen >= expected
        finally:
            end_group(running)
