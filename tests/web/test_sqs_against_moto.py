"""The SQS door against moto in server mode: the same calls, one after another, and the answers compared.

moto is no oracle: where it differs, `DIFFERENCES` says why. A difference that is gone fails, too.
"""

import json
import logging
import os
import re
from typing import Any

import pytest

pytest.importorskip("moto", reason="moto is not installed")
pytest.importorskip("flask_cors", reason="flask-cors is not installed")
boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
from botocore.exceptions import ClientError  # noqa: E402  # with boto3
from moto.server import ThreadedMotoServer  # noqa: E402  # it may be missing

from jobqueue.testing import RunningServer  # noqa: E402

pytestmark = pytest.mark.skipif(not os.environ.get("TEST_ALL"), reason="long; ./scripts/test.sh --all")
ACCOUNT = "123456789012"
POLICY = '{"Version":"2012-10-17","Id":"p","Statement":[]}'
STRING = {"DataType": "String", "StringValue": "v"}

# The calls: the name of a case, the action, its parameters. "$URL" is a queue; "$FIFO" one that is FIFO, "$NEW" a new one; "$HANDLE" and "$FIFO_HANDLE" those of a message that was received from them.
ATTRIBUTES: list[tuple[str, str]] = [
    (name, value)
    for name, values in {
        "DelaySeconds": ["0", "900", "901", "-1", "x", ""],
        "MaximumMessageSize": ["1024", "1023", "x"],
        "MessageRetentionPeriod": ["60", "1209600", "x"],
        "ReceiveMessageWaitTimeSeconds": ["0", "20", "21", "x"],
        "VisibilityTimeout": ["0", "43200", "x"],
        "Policy": [POLICY, ""],
        "RedrivePolicy": ["{}", "x", '{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:123456789012:none","maxReceiveCount":1}'],
        "KmsMasterKeyId": ["alias/a"],
        "KmsDataKeyReusePeriodSeconds": ["300"],
        "SqsManagedSseEnabled": ["true"],
        "Nope": ["1"],
    }.items()
    for value in values
]  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "create, bad name": ("CreateQueue", {"QueueName": "a b"}),
    "create, long name": ("CreateQueue", {"QueueName": "a" * 81}),
    "create, fifo without attribute": ("CreateQueue", {"QueueName": "a.fifo"}),
    "create, attribute without fifo": ("CreateQueue", {"QueueName": "a", "Attributes": {"FifoQueue": "true"}}),
    "create, with tags": ("CreateQueue", {"QueueName": "tagged", "tags": {"a": "b"}}),
    "url of none": ("GetQueueUrl", {"QueueName": "none"}),
    "url": ("GetQueueUrl", {"QueueName": "case"}),
    "list by prefix": ("ListQueues", {"QueueNamePrefix": "case"}),
    "list a page": ("ListQueues", {"MaxResults": 1, "QueueNamePrefix": "case"}),
    "attributes, all": ("GetQueueAttributes", {"QueueUrl": "$URL", "AttributeNames": ["All"]}),
    "attributes, fifo": ("GetQueueAttributes", {"QueueUrl": "$FIFO", "AttributeNames": ["All"]}),
    "attributes, some": ("GetQueueAttributes", {"QueueUrl": "$URL", "AttributeNames": ["QueueArn", "Policy"]}),
    "attributes, unknown": ("GetQueueAttributes", {"QueueUrl": "$URL", "AttributeNames": ["Nope"]}),
    "attributes, none": ("GetQueueAttributes", {"QueueUrl": "$URL", "AttributeNames": []}),
    "attributes of none": ("GetQueueAttributes", {"QueueUrl": "$URL-none", "AttributeNames": ["All"]}),
    **{
        f"set {name}={value[:20]}": ("SetQueueAttributes", {"QueueUrl": "$NEW", "Attributes": {name: value}})
        for name, value in ATTRIBUTES
    },
    "send": ("SendMessage", {"QueueUrl": "$URL", "MessageBody": "x"}),
    "send, attributes": ("SendMessage", {"QueueUrl": "$URL", "MessageBody": "é", "MessageAttributes": {
        "s": STRING, "n": {"DataType": "Number.int", "StringValue": "1"}, "b": {"DataType": "Binary", "BinaryValue": b"\0\xff"}}}),
    "send, trace": ("SendMessage", {"QueueUrl": "$URL", "MessageBody": "x", "MessageSystemAttributes": {
        "AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1"}}}),
    "send, delay": ("SendMessage", {"QueueUrl": "$URL", "MessageBody": "x", "DelaySeconds": 900}),
    "send, long delay": ("SendMessage", {"QueueUrl": "$URL", "MessageBody": "x", "DelaySeconds": 901}),
    "send, empty": ("SendMessage", {"QueueUrl": "$URL", "MessageBody": ""}),
    "send, control character": ("SendMessage", {"QueueUrl": "$URL", "MessageBody": "\x01"}),
    "send, reserved name": ("SendMessage", {"QueueUrl": "$URL", "MessageBody": "x", "MessageAttributes": {"aws.x": STRING}}),
    "send, no type": ("SendMessage", {"QueueUrl": "$URL", "MessageBody": "x", "MessageAttributes": {"a": {"DataType": "", "StringValue": "x"}}}),
    "send, bad type": ("SendMessage", {"QueueUrl": "$URL", "MessageBody": "x", "MessageAttributes": {"a": {"DataType": "X", "StringValue": "x"}}}),
    "send, to none": ("SendMessage", {"QueueUrl": "$URL-none", "MessageBody": "x"}),
    "send, group": ("SendMessage", {"QueueUrl": "$URL", "MessageBody": "x", "MessageGroupId": "g"}),
    "send, deduplication": ("SendMessage", {"QueueUrl": "$URL", "MessageBody": "x", "MessageDeduplicationId": "d"}),
    "send, fifo": ("SendMessage", {"QueueUrl": "$FIFO", "MessageBody": "x", "MessageGroupId": "g", "MessageDeduplicationId": "d"}),
    "send, fifo without group": ("SendMessage", {"QueueUrl": "$FIFO", "MessageBody": "x", "MessageDeduplicationId": "d"}),
    "send, fifo without id": ("SendMessage", {"QueueUrl": "$FIFO", "MessageBody": "x", "MessageGroupId": "g"}),
    "send, fifo with delay": ("SendMessage", {"QueueUrl": "$FIFO", "MessageBody": "x", "MessageGroupId": "g", "MessageDeduplicationId": "d2", "DelaySeconds": 1}),
    "batch": ("SendMessageBatch", {"QueueUrl": "$URL", "Entries": [{"Id": "a", "MessageBody": "x"}, {"Id": "b", "MessageBody": "y"}]}),
    "batch, empty": ("SendMessageBatch", {"QueueUrl": "$URL", "Entries": []}),
    "batch, twice": ("SendMessageBatch", {"QueueUrl": "$URL", "Entries": [{"Id": "a", "MessageBody": "x"}] * 2}),
    "batch, bad id": ("SendMessageBatch", {"QueueUrl": "$URL", "Entries": [{"Id": "a b", "MessageBody": "x"}]}),
    "batch, eleven": ("SendMessageBatch", {"QueueUrl": "$URL", "Entries": [{"Id": str(n), "MessageBody": "x"} for n in range(11)]}),
    "batch, long delay": ("SendMessageBatch", {"QueueUrl": "$URL", "Entries": [{"Id": "a", "MessageBody": "x", "DelaySeconds": 901}]}),
    "receive": ("ReceiveMessage", {"QueueUrl": "$URL"}),
    "receive, all": ("ReceiveMessage", {"QueueUrl": "$URL", "MaxNumberOfMessages": 10, "AttributeNames": ["All"], "MessageAttributeNames": ["All"]}),
    "receive, zero": ("ReceiveMessage", {"QueueUrl": "$URL", "MaxNumberOfMessages": 0}),
    "receive, eleven": ("ReceiveMessage", {"QueueUrl": "$URL", "MaxNumberOfMessages": 11}),
    "receive, long wait": ("ReceiveMessage", {"QueueUrl": "$URL", "WaitTimeSeconds": 21}),
    "receive, from none": ("ReceiveMessage", {"QueueUrl": "$URL-none"}),
    "change, garbage": ("ChangeMessageVisibility", {"QueueUrl": "$URL", "ReceiptHandle": "garbage", "VisibilityTimeout": 1}),
    "change, too long": ("ChangeMessageVisibility", {"QueueUrl": "$URL", "ReceiptHandle": "$HANDLE", "VisibilityTimeout": 43201}),
    "change": ("ChangeMessageVisibility", {"QueueUrl": "$URL", "ReceiptHandle": "$HANDLE", "VisibilityTimeout": 10}),
    "change batch": ("ChangeMessageVisibilityBatch", {"QueueUrl": "$URL", "Entries": [
        {"Id": "a", "ReceiptHandle": "$HANDLE", "VisibilityTimeout": 10}, {"Id": "b", "ReceiptHandle": "garbage", "VisibilityTimeout": 1}]}),
    "delete, garbage": ("DeleteMessage", {"QueueUrl": "$URL", "ReceiptHandle": "garbage"}),
    "delete": ("DeleteMessage", {"QueueUrl": "$URL", "ReceiptHandle": "$HANDLE"}),
    "delete again": ("DeleteMessage", {"QueueUrl": "$URL", "ReceiptHandle": "$HANDLE"}),
    "change, deleted": ("ChangeMessageVisibility", {"QueueUrl": "$URL", "ReceiptHandle": "$HANDLE", "VisibilityTimeout": 10}),
    "delete batch, empty": ("DeleteMessageBatch", {"QueueUrl": "$URL", "Entries": []}),
    "tag": ("TagQueue", {"QueueUrl": "$URL", "Tags": {"a": "b"}}),
    "tag, none": ("TagQueue", {"QueueUrl": "$URL", "Tags": {}}),
    "tags": ("ListQueueTags", {"QueueUrl": "$URL"}),
    "untag": ("UntagQueue", {"QueueUrl": "$URL", "TagKeys": ["a"]}),
    "untag, none": ("UntagQueue", {"QueueUrl": "$URL", "TagKeys": []}),
    "permit": ("AddPermission", {"QueueUrl": "$URL", "Label": "l", "AWSAccountIds": [ACCOUNT], "Actions": ["SendMessage"]}),
    "permit again": ("AddPermission", {"QueueUrl": "$URL", "Label": "l", "AWSAccountIds": [ACCOUNT], "Actions": ["SendMessage"]}),
    "permit, owner's": ("AddPermission", {"QueueUrl": "$URL", "Label": "m", "AWSAccountIds": [ACCOUNT], "Actions": ["DeleteQueue"]}),
    "policy": ("GetQueueAttributes", {"QueueUrl": "$URL", "AttributeNames": ["Policy"]}),
    "forbid": ("RemovePermission", {"QueueUrl": "$URL", "Label": "l"}),
    "forbid, unknown": ("RemovePermission", {"QueueUrl": "$URL", "Label": "l"}),
    "dead letters": ("ListDeadLetterSourceQueues", {"QueueUrl": "$URL"}),
    "purge": ("PurgeQueue", {"QueueUrl": "$URL"}),
    "delete queue": ("DeleteQueue", {"QueueUrl": "$URL"}),
    "delete queue again": ("DeleteQueue", {"QueueUrl": "$URL"}),
}  # fmt: skip
# Why the answers differ.
_PREFIX = "the code has the prefix AWS.SimpleQueueService., as AWS sends it"
_UNCHECKED = "moto takes it; AWS refuses it"
_CRASH = "moto answers 500; AWS refuses it"
DIFFERENCES = {
    "attributes, none": "moto 5.1 refuses an empty list; later versions return nothing",
    "batch, bad id": _PREFIX,
    "batch, eleven": _PREFIX,
    "batch, twice": _PREFIX,
    "change, deleted": "AWS: InvalidParameterValue, the message does not exist",
    "change, too long": _UNCHECKED,
    "create, fifo without attribute": _UNCHECKED,
    "list a page": "moto ignores MaxResults",
    "receive, all": "moto has the messages that AWS refuses, below",
    "send, bad type": "the code of AWS is InvalidParameterValue",
    "send, control character": _UNCHECKED,
    "send, deduplication": "AWS takes MessageDeduplicationId in FIFO queues only",
    "send, empty": _UNCHECKED,
    "send, fifo": "AWS returns the SequenceNumber, moto shows it in receive only",
    "send, no type": "the code of AWS is InvalidParameterValue",
    "send, reserved name": _UNCHECKED,
    "send, trace": "AWS returns MD5OfMessageSystemAttributes",
    "set DelaySeconds=": _CRASH,
    "set DelaySeconds=-1": _UNCHECKED,
    "set DelaySeconds=901": _UNCHECKED,
    "set DelaySeconds=x": _CRASH,
    "set MaximumMessageSize=1023": _UNCHECKED,
    "set MaximumMessageSize=x": _CRASH,
    "set MessageRetentionPeriod=x": _CRASH,
    "set Nope=1": _UNCHECKED,
    "set ReceiveMessageWaitTimeSeconds=21": _UNCHECKED,
    "set ReceiveMessageWaitTimeSeconds=x": _UNCHECKED,
    "set RedrivePolicy=x": _CRASH,
    'set RedrivePolicy={"deadLetterTargetAr': "the code of AWS is InvalidParameterValue",
    "set RedrivePolicy={}": _UNCHECKED,
    "set VisibilityTimeout=x": _CRASH,
}


class Caller:
    """Makes the calls on one server, and shows its answers without what is random."""

    def __init__(self, url: str) -> None:
        self._sqs = boto3.client(
            "sqs", endpoint_url=url, region_name="us-east-1", aws_access_key_id=ACCOUNT, aws_secret_access_key="x",
            config=boto3.session.Config(retries={"total_max_attempts": 1}),
        )  # fmt: skip
        self._url = url
        self._made = 0
        queue = self._sqs.create_queue(QueueName="case")["QueueUrl"]
        fifo = self._sqs.create_queue(QueueName="case.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
        self._sqs.send_message(QueueUrl=queue, MessageBody="first")
        [message] = self._sqs.receive_message(QueueUrl=queue, VisibilityTimeout=600)["Messages"]
        self._known = {"$URL": queue, "$FIFO": fifo, "$HANDLE": message["ReceiptHandle"]}

    def call(self, action: str, asked: dict[str, Any]) -> Any:
        method = re.sub(r"(?<!^)(?=[A-Z])", "_", action).lower()
        try:
            answer = getattr(self._sqs, method)(**self._filled(asked))
        except ClientError as refused:
            error = refused.response["Error"]
            return refused.response["ResponseMetadata"]["HTTPStatusCode"], error["Code"]
        del answer["ResponseMetadata"]
        return self._shown(answer)

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._filled(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self._filled(each) for each in value]
        if isinstance(value, str):
            if value == "$NEW":
                self._made += 1
                made: str = self._sqs.create_queue(QueueName=f"new-{self._made}")["QueueUrl"]
                return made
            for name, known in self._known.items():
                value = value.replace(name, known)
        return value

    def _shown(self, value: Any) -> Any:
        random = {"MessageId", "ReceiptHandle", "NextToken", "SequenceNumber", "CreatedTimestamp", "Message",
                  "LastModifiedTimestamp", "SentTimestamp", "ApproximateFirstReceiveTimestamp", "SenderId"}  # fmt: skip
        if isinstance(value, dict):
            shown = {
                name: "…" if name in random else self._shown(each) for name, each in sorted(value.items())
            }
            return {name: each for name, each in shown.items() if each != []}  # an empty list may be left out
        if isinstance(value, list):
            return [self._shown(each) for each in value]
        if isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            return value
        if value.startswith("{"):
            return json.loads(value)  # a policy; blanks do not count
        return value.replace(self._url, "").replace("true", "True")  # moto writes booleans as text


def test_every_action_answers_as_moto_does_or_differs_for_a_reason(monkeypatch):
    monkeypatch.setattr(logging.getLogger("werkzeug"), "disabled", True)  # the tracebacks of moto
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        host, port = moto.get_host_and_port()
        with RunningServer({}) as server:
            ours, theirs = Caller(server.url), Caller(f"http://{host}:{port}")
            different = {}
            for name, (action, asked) in CASES.items():
                mine, its = ours.call(action, asked), theirs.call(action, asked)
                assert not (isinstance(mine, tuple) and mine[0] >= 500), f"{name}: {mine}"
                if mine != its:
                    different[name] = f"{mine} here, {its} there"
    finally:
        moto.stop()
    assert different.keys() == DIFFERENCES.keys(), "\n".join(
        f"{name}: {different.get(name, 'the same by now')}"
        for name in sorted(different.keys() ^ DIFFERENCES.keys())
    )
