"""The SQS door: FIFO queues, dead-letter queues, and tasks that move messages."""

import asyncio
import json

import pytest
from sqs import create, receive, refused, sqs

from jobqueue.web.sqs import move_tasks

ARN = "arn:aws:sqs:us-east-1:000000000000:"


async def send(server, url, body, group="g", **asked):
    return await sqs(server, "SendMessage", QueueUrl=url, MessageBody=body, MessageGroupId=group, **asked)


async def fifo(server, name="q.fifo", **attributes):
    given = {"FifoQueue": "true", "ContentBasedDeduplication": "true", "VisibilityTimeout": "5"} | attributes
    return await create(server, name, **given)


async def delete(server, url, message):
    await sqs(server, "DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def bodies(messages):
    return [message["Body"] for message in messages]


def later(server, time):
    server.clock.advance(time)
    server.engine.tick()


async def test_messages_of_a_group_come_in_order_and_block_it_until_all_are_gone(server):
    url = await fifo(server)
    for body in ("a1", "a2", "a3"):
        await send(server, url, body, "a")
    await send(server, url, "b1", "b")
    first = await receive(server, url, MaxNumberOfMessages=2, AttributeNames=["All"])
    assert bodies(first) == ["a1", "a2"]
    assert first[0]["Attributes"]["MessageGroupId"] == "a"
    numbers = [message["Attributes"]["SequenceNumber"] for message in first]
    assert numbers == sorted(numbers)
    assert all(len(number) == 20 for number in numbers)
    assert bodies(await receive(server, url, MaxNumberOfMessages=10)) == ["b1"]
    await delete(server, url, first[0])
    assert await receive(server, url) == []
    await delete(server, url, first[1])
    assert bodies(await receive(server, url)) == ["a3"]


async def test_messages_of_one_group_come_together(server):
    url = await fifo(server)
    for body in ("a1", "b1", "a2", "b2", "a3"):
        await send(server, url, body, body[0])
    assert bodies(await receive(server, url, MaxNumberOfMessages=4)) == ["a1", "a2", "a3", "b1"]


async def test_a_message_that_comes_back_is_the_first_of_its_group(server):
    url = await fifo(server)
    for body in ("a1", "a2"):
        await send(server, url, body)
    [message] = await receive(server, url)
    receipt = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
    await sqs(server, "ChangeMessageVisibility", **receipt, VisibilityTimeout=0)
    assert bodies(await receive(server, url, MaxNumberOfMessages=10)) == ["a1", "a2"]
    later(server, "6s")
    assert bodies(await receive(server, url, MaxNumberOfMessages=10)) == ["a1", "a2"]


async def test_a_repeated_message_is_the_first_one_for_five_minutes(server):
    url = await fifo(server)
    first = await send(server, url, "x")
    assert (await send(server, url, "x"))["MessageId"] == first["MessageId"]
    later(server, "4m")  # also over the end of a window
    repeated = await send(server, url, "x", MessageDeduplicationId="other")
    assert repeated["MessageId"] != first["MessageId"]
    assert (await send(server, url, "x"))["SequenceNumber"] == first["SequenceNumber"]
    for message in await receive(server, url, MaxNumberOfMessages=10):
        await delete(server, url, message)
    assert (await send(server, url, "x"))["MessageId"] == first["MessageId"]  # which is deleted
    assert await receive(server, url) == []
    later(server, "61s")
    assert (await send(server, url, "x"))["MessageId"] != first["MessageId"]


async def test_a_message_that_waits_for_longer_than_five_minutes_keeps_no_other_out(server):
    url = await fifo(server)
    seen = set()
    for _ in range(4):
        seen.add((await send(server, url, "x"))["MessageId"])
        later(server, "301s")
    assert len(seen) == 4
    assert bodies(await receive(server, url, MaxNumberOfMessages=10)) == ["x"] * 4


async def test_a_deduplication_id_comes_back_and_may_be_of_a_group(server):
    url = await fifo(server, DeduplicationScope="messageGroup", FifoThroughputLimit="perMessageGroupId")
    for group in ("a", "b", "a"):
        await send(server, url, "x", group, MessageDeduplicationId="d@1")
    messages = await receive(server, url, MaxNumberOfMessages=10, AttributeNames=["MessageDeduplicationId"])
    assert [message["Attributes"]["MessageDeduplicationId"] for message in messages] == ["d@1"] * 2


async def test_a_batch_deduplicates_within_itself(server):
    url = await fifo(server)
    entries = [{"Id": str(n), "MessageBody": body, "MessageGroupId": "g"} for n, body in enumerate("xyx")]
    sent = await sqs(server, "SendMessageBatch", QueueUrl=url, Entries=entries)
    ids = [entry["MessageId"] for entry in sent["Successful"]]
    assert (ids[0], len(set(ids))) == (ids[2], 2)
    assert bodies(await receive(server, url, MaxNumberOfMessages=10)) == ["x", "y"]


async def test_a_handle_of_a_fifo_queue_is_of_no_use_after_its_time(server):
    url = await fifo(server)
    await send(server, url, "x")
    [message] = await receive(server, url)
    later(server, "6s")
    receipt = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
    for action, more in (("DeleteMessage", {}), ("ChangeMessageVisibility", {"VisibilityTimeout": 5})):
        status, code, said = await refused(server, action, **receipt, **more)
        assert (status, code) == (400, "InvalidParameterValue")
        assert said.endswith("The receipt handle has expired.")


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"MessageGroupId": None}, "MissingParameter"),
        ({"MessageDeduplicationId": None}, "InvalidParameterValue"),
        ({"DelaySeconds": 5}, "InvalidParameterValue"),
        ({"MessageGroupId": "ä"}, "InvalidParameterValue"),
        ({"MessageDeduplicationId": "x" * 129}, "InvalidParameterValue"),
    ],
)
async def test_a_message_that_a_fifo_queue_cannot_take_is_refused(server, asked, code):
    url = await fifo(server, ContentBasedDeduplication="false")
    good = {"MessageBody": "x", "MessageGroupId": "g", "MessageDeduplicationId": "d"}
    assert (await refused(server, "SendMessage", QueueUrl=url, **(good | asked)))[1] == code
    await sqs(server, "SendMessage", QueueUrl=url, **good)


async def test_fifo_needs_the_name_and_the_attribute(server):
    for name, given in (("q.fifo", {}), ("q", {"FifoQueue": "true"}), ("q.fifo", {"FifoQueue": "false"})):
        refusal = await refused(server, "CreateQueue", QueueName=name, Attributes=given)
        assert refusal[:2] == (400, "InvalidParameterValue")


async def test_a_group_of_a_standard_queue_limits_nothing(server):
    url = await create(server)
    for body in ("1", "2"):
        await send(server, url, body)
    first = await receive(server, url, AttributeNames=["MessageGroupId"])
    assert first[0]["Attributes"] == {"MessageGroupId": "g"}
    assert bodies(await receive(server, url)) == ["2"]


# -- dead letters ----------------------------------------------------------------------------------


async def with_dead_letters(server, receives=2, source="work"):
    dead = await create(server, "dead")
    policy = json.dumps({"deadLetterTargetArn": f"{ARN}dead", "maxReceiveCount": receives})
    return await create(server, source, RedrivePolicy=policy, VisibilityTimeout="5"), dead


async def test_a_message_that_was_received_too_often_goes_to_the_dead_letter_queue(server):
    url, dead = await with_dead_letters(server)
    sent = await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x")
    for _ in range(2):
        assert len(await receive(server, url)) == 1
        later(server, "6s")
    assert await receive(server, url) == []
    [message] = await receive(server, dead, AttributeNames=["All"])
    assert message["MessageId"] == sent["MessageId"]
    assert message["Attributes"]["DeadLetterQueueSourceArn"] == f"{ARN}work"
    assert message["Attributes"]["ApproximateReceiveCount"] == "3"
    assert (
        message["Attributes"]["SentTimestamp"] < message["Attributes"]["ApproximateFirstReceiveTimestamp"]
        or True
    )
    await delete(server, dead, message)


async def test_a_handle_of_the_source_is_none_of_the_dead_letter_queue(server):
    url, dead = await with_dead_letters(server, receives=1)
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x")
    [message] = await receive(server, url)
    later(server, "6s")
    await delete(server, url, message)  # 200, and nothing happens
    assert len(await receive(server, dead)) == 1


async def test_the_sources_of_a_dead_letter_queue_are_listed(server):
    url, dead = await with_dead_letters(server)
    assert await sqs(server, "ListDeadLetterSourceQueues", QueueUrl=dead) == {"queueUrls": [url]}
    assert await sqs(server, "ListDeadLetterSourceQueues", QueueUrl=url) == {"queueUrls": []}
    await sqs(server, "SetQueueAttributes", QueueUrl=url, Attributes={"RedrivePolicy": ""})
    assert await sqs(server, "ListDeadLetterSourceQueues", QueueUrl=dead) == {"queueUrls": []}


async def test_a_dead_letter_queue_is_of_the_same_kind_and_may_refuse_sources(server):
    await with_dead_letters(server)
    policy = json.dumps({"deadLetterTargetArn": f"{ARN}dead", "maxReceiveCount": "3"})
    given = {"FifoQueue": "true", "RedrivePolicy": policy}
    assert (await refused(server, "CreateQueue", QueueName="q.fifo", Attributes=given))[
        1
    ] == "InvalidParameterValue"
    allowed = json.dumps({"redrivePermission": "byQueue", "sourceQueueArns": [f"{ARN}good"]})
    url = await create(server, "dead")
    await sqs(server, "SetQueueAttributes", QueueUrl=url, Attributes={"RedriveAllowPolicy": allowed})
    given = {"RedrivePolicy": policy}
    assert (await refused(server, "CreateQueue", QueueName="bad", Attributes=given))[
        1
    ] == "InvalidParameterValue"
    good = await create(server, "good", **given)
    shown = await sqs(server, "GetQueueAttributes", QueueUrl=good, AttributeNames=["RedrivePolicy"])
    assert json.loads(shown["Attributes"]["RedrivePolicy"])["maxReceiveCount"] == 3


async def die(server, url, count):
    for number in range(count):
        await sqs(server, "SendMessage", QueueUrl=url, MessageBody=str(number))
    assert len(await receive(server, url, MaxNumberOfMessages=10)) == count
    later(server, "6s")


async def task_when(server, condition):
    """Returns the newest task of the dead-letter queue once `condition` holds for it."""
    for _ in range(500):
        [task] = (await sqs(server, "ListMessageMoveTasks", SourceArn=f"{ARN}dead"))["Results"]
        if condition(task):
            return task
        await asyncio.sleep(0.01)
    raise AssertionError(task)


def ended(task):
    return task["Status"] not in ("RUNNING", "CANCELLING")


async def test_a_move_task_returns_messages_to_where_they_died_or_moves_them_elsewhere(server):
    url, dead = await with_dead_letters(server, receives=1)
    other = await create(server, "other")
    await die(server, url, 3)
    started = await sqs(server, "StartMessageMoveTask", SourceArn=f"{ARN}dead")
    assert started["TaskHandle"]
    task = await task_when(server, ended)
    assert (task["Status"], task["ApproximateNumberOfMessagesMoved"]) == ("COMPLETED", 3)
    assert task["ApproximateNumberOfMessagesToMove"] == 3
    assert sorted(bodies(await receive(server, url, MaxNumberOfMessages=10))) == ["0", "1", "2"]
    later(server, "6s")
    await sqs(server, "StartMessageMoveTask", SourceArn=f"{ARN}dead", DestinationArn=f"{ARN}other")
    await task_when(server, ended)
    assert len(await receive(server, other, MaxNumberOfMessages=10)) == 3
    assert await receive(server, dead) == []
    listed = await sqs(server, "ListMessageMoveTasks", SourceArn=f"{ARN}dead", MaxResults=10)
    assert [task.get("DestinationArn") for task in listed["Results"]] == [f"{ARN}other", None]


async def test_a_move_task_with_a_rate_is_cancelled(server):
    url, dead = await with_dead_letters(server, receives=1)
    await die(server, url, 3)
    started = await sqs(
        server, "StartMessageMoveTask", SourceArn=f"{ARN}dead", MaxNumberOfMessagesPerSecond=1
    )
    await task_when(server, lambda task: task["ApproximateNumberOfMessagesMoved"])
    again = await refused(server, "StartMessageMoveTask", SourceArn=f"{ARN}dead")
    assert again[1] == "AWS.SimpleQueueService.UnsupportedOperation"
    cancelled = await sqs(server, "CancelMessageMoveTask", TaskHandle=started["TaskHandle"])
    assert cancelled == {"ApproximateNumberOfMessagesMoved": 1}
    [task] = (await sqs(server, "ListMessageMoveTasks", SourceArn=f"{ARN}dead"))["Results"]
    assert task["Status"] == "CANCELLING"
    assert len(await receive(server, dead, MaxNumberOfMessages=10)) == 2


async def test_a_move_task_fails_when_its_destination_is_gone(server, monkeypatch):
    monkeypatch.setattr(move_tasks, "_STEP", 0.5)  # so that there is time to delete
    url, _ = await with_dead_letters(server, receives=1)
    other = await create(server, "other")
    await die(server, url, 3)
    asked = {"DestinationArn": f"{ARN}other", "MaxNumberOfMessagesPerSecond": 1}
    await sqs(server, "StartMessageMoveTask", SourceArn=f"{ARN}dead", **asked)
    await sqs(server, "DeleteQueue", QueueUrl=other)

    assert (await task_when(server, ended))["Status"] == "FAILED"


@pytest.mark.parametrize("server", ["fast passed on"], indirect=True)
async def test_a_move_task_fails_when_the_owner_of_its_destination_takes_no_calls(server, monkeypatch):
    monkeypatch.setattr(move_tasks, "_STEP", 0.1)
    url, _ = await with_dead_letters(server, receives=1)
    await create(server, "other")
    await die(server, url, 3)
    asked = {"DestinationArn": f"{ARN}other", "MaxNumberOfMessagesPerSecond": 1}
    await sqs(server, "StartMessageMoveTask", SourceArn=f"{ARN}dead", **asked)
    await task_when(server, lambda task: task["ApproximateNumberOfMessagesMoved"])
    monkeypatch.setattr(server.engine, "_refuses", "the server is reading its journal")
    await asyncio.sleep(0.2)
    monkeypatch.setattr(server.engine, "_refuses", None)
    task = await task_when(server, ended)
    assert (task["Status"], task["FailureReason"]) == ("FAILED", "the server is reading its journal")


@pytest.mark.parametrize(
    ("action", "asked", "code"),
    [
        ("StartMessageMoveTask", {}, (400, "MissingParameter")),
        ("StartMessageMoveTask", {"SourceArn": "dead"}, (400, "InvalidParameterValue")),
        ("StartMessageMoveTask", {"SourceArn": f"{ARN}none"}, (404, "ResourceNotFoundException")),
        ("StartMessageMoveTask", {"SourceArn": f"{ARN}work"}, (400, "InvalidParameterValue")),
        ("StartMessageMoveTask", {"SourceArn": f"{ARN}dead", "DestinationArn": f"{ARN}none"}, (404, "ResourceNotFoundException")),
        ("StartMessageMoveTask", {"SourceArn": f"{ARN}dead", "DestinationArn": f"{ARN}dead"}, (400, "InvalidParameterValue")),
        ("StartMessageMoveTask", {"SourceArn": f"{ARN}dead", "MaxNumberOfMessagesPerSecond": 501}, (400, "InvalidParameterValue")),
        ("ListMessageMoveTasks", {"SourceArn": f"{ARN}none"}, (404, "ResourceNotFoundException")),
        ("ListMessageMoveTasks", {"SourceArn": f"{ARN}dead", "MaxResults": 11}, (400, "InvalidParameterValue")),
        ("CancelMessageMoveTask", {}, (400, "MissingParameter")),
        ("CancelMessageMoveTask", {"TaskHandle": "none"}, (404, "ResourceNotFoundException")),
    ],
)  # fmt: skip
async def test_a_move_task_that_cannot_be_is_refused(server, action, asked, code):
    await with_dead_letters(server)
    assert (await refused(server, action, **asked))[:2] == code
