"""The SQS door by the JSON protocol: queues, messages and receipts."""

from hashlib import md5

import pytest
from serving import check_problem
from sqs import ask, create, query, receive, refused, sqs

from jobqueue import Settings
from jobqueue.web.sqs import names

URL = "http://localhost/000000000000/none"


def code(refusal):
    return refusal[0], refusal[1]


async def test_a_message_is_sent_received_and_deleted(server):
    url = await create(server)
    sent = await sqs(server, "SendMessage", QueueUrl=url, MessageBody="héllo\r\n<&>")
    assert sent["MD5OfMessageBody"] == md5("héllo\r\n<&>".encode()).hexdigest()
    [message] = await receive(server, url, AttributeNames=["All"])
    assert (message["Body"], message["MessageId"]) == ("héllo\r\n<&>", sent["MessageId"])
    assert message["MD5OfBody"] == sent["MD5OfMessageBody"]
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    assert message["Attributes"]["SentTimestamp"] == message["Attributes"]["ApproximateFirstReceiveTimestamp"]
    assert await receive(server, url) == []
    assert await sqs(server, "DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"]) == {}
    server.clock.advance("10m")
    server.engine.tick()
    assert await receive(server, url) == []
    assert await sqs(server, "DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"]) == {}


async def test_a_message_is_a_job_with_its_body_as_payload(server):
    url = await create(server)
    typed = {"jobqueue.type": {"DataType": "String", "StringValue": "mail.send"}}
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody='{"to":"ada"}', MessageAttributes=typed)
    job = await server.dequeue(queue="mail")
    assert (job["type"], job["content_type"], job["lease_for"]) == ("mail.send", "text/plain", 30)
    assert job["payload"] == '{"to":"ada"}'
    assert (await server.post(f"/jobs/{job['id']}/conclude", {"lease": job["lease"]})).status == 200


async def test_a_job_is_a_message_with_its_payload_as_body(server):
    url = await create(server)
    await server.enqueue(queue="mail", payload={"to": "ada"}, type="mail.send")
    [message] = await receive(server, url, MessageAttributeNames=["jobqueue.*"])
    assert message["Body"] == '{"to":"ada"}'
    assert message["MessageAttributes"] == {
        "jobqueue.type": {"DataType": "String", "StringValue": "mail.send"}
    }
    await sqs(server, "DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    stats = await server.get("/queues/mail")
    assert stats.json["jobs"]["concluded"] == 1


@pytest.mark.parametrize("payload", [b"\xff\xfe", b"a\x00b"])
async def test_bytes_that_no_message_can_have_are_received_in_base64(server, payload):
    url = await create(server)
    assert (await server.post("/queues/mail/enqueue?raw=1&type=x", payload)).status == 201
    [message] = await receive(server, url)
    assert message["Body"] == {b"\xff\xfe": "//4=", b"a\x00b": "YQBi"}[payload]


async def test_attributes_of_a_message_come_back_with_the_digests_that_sdks_compare(server):
    url = await create(server)
    attributes = {
        "n": {"DataType": "Number.int", "StringValue": "1"},
        "b": {"DataType": "Binary", "BinaryValue": "AP8="},
        "order.id": {"DataType": "String", "StringValue": "ö"},
    }
    trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1"}}
    sent = await sqs(
        server, "SendMessage", QueueUrl=url, MessageBody="x",
        MessageAttributes=attributes, MessageSystemAttributes=trace,
    )  # fmt: skip
    # As moto computes them.
    assert sent["MD5OfMessageAttributes"] == "a43f14cb825d42a299017d6316168449"
    assert sent["MD5OfMessageSystemAttributes"] == "d6619b3d47b81d3fc72c0db005a70eda"
    [message] = await receive(
        server, url, MessageAttributeNames=["All"], MessageSystemAttributeNames=["AWSTraceHeader"],
        VisibilityTimeout=0,
    )  # fmt: skip
    assert message["MessageAttributes"] == attributes
    assert message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    assert message["Attributes"] == {"AWSTraceHeader": "Root=1"}
    [message] = await receive(server, url, MessageAttributeNames=["order.*"])
    assert list(message["MessageAttributes"]) == ["order.id"]


async def test_the_trace_of_a_request_is_that_of_its_message(server):
    url = await create(server)
    await ask(server, "SendMessage", {"X-Amzn-Trace-Id": "Root=1"}, QueueUrl=url, MessageBody="x")
    [message] = await receive(server, url, AttributeNames=["AWSTraceHeader"])
    assert message["Attributes"] == {"AWSTraceHeader": "Root=1"}


async def test_a_message_waits_for_its_delay_and_for_that_of_its_queue(server):
    url = await create(server, DelaySeconds="10")
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="late")
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="now", DelaySeconds=0)
    assert [message["Body"] for message in await receive(server, url, MaxNumberOfMessages=10)] == ["now"]
    server.clock.advance("11s")
    server.engine.tick()
    assert [message["Body"] for message in await receive(server, url)] == ["late"]


async def test_a_receive_waits_for_a_message(server):
    url = await create(server)
    waiting = await server.connect()
    waiting.ask(
        "POST", "/", {"QueueUrl": url, "WaitTimeSeconds": 20}, {"X-Amz-Target": "AmazonSQS.ReceiveMessage"}
    )
    await server.waiting(1)
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x")
    answer = await waiting.read()
    assert answer.json["Messages"][0]["Body"] == "x"


async def test_a_message_that_reached_nobody_is_not_charged(server):
    url = await create(server)
    waiting = await server.connect()
    waiting.ask(
        "POST", "/", {"QueueUrl": url, "WaitTimeSeconds": 20}, {"X-Amz-Target": "AmazonSQS.ReceiveMessage"}
    )
    await server.waiting(1)
    await waiting.closed()
    await server.waiting(0)
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x")
    [message] = await receive(server, url, AttributeNames=["ApproximateReceiveCount"])
    assert message["Attributes"] == {"ApproximateReceiveCount": "1"}


async def test_batches_have_an_outcome_for_each_entry(server):
    url = await create(server)
    sent = await sqs(
        server, "SendMessageBatch", QueueUrl=url,
        Entries=[{"Id": "a", "MessageBody": "1"}, {"Id": "b", "MessageBody": "\x00"}, {"Id": "c", "MessageBody": "3"}],
    )  # fmt: skip
    assert [entry["Id"] for entry in sent["Successful"]] == ["a", "c"]
    assert [(entry["Id"], entry["Code"], entry["SenderFault"]) for entry in sent["Failed"]] == [
        ("b", "InvalidMessageContents", True)
    ]
    first, second = await receive(server, url, MaxNumberOfMessages=10)
    changed = await sqs(
        server, "ChangeMessageVisibilityBatch", QueueUrl=url,
        Entries=[
            {"Id": "1", "ReceiptHandle": first["ReceiptHandle"], "VisibilityTimeout": 0},
            {"Id": "2", "ReceiptHandle": "garbage", "VisibilityTimeout": 0},
        ],
    )  # fmt: skip
    assert changed["Successful"] == [{"Id": "1"}]
    assert changed["Failed"][0]["Code"] == "ReceiptHandleIsInvalid"
    deleted = await sqs(
        server, "DeleteMessageBatch", QueueUrl=url,
        Entries=[{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate([first, second])],
    )  # fmt: skip
    assert deleted == {"Successful": [{"Id": "0"}, {"Id": "1"}]}
    assert await receive(server, url) == []


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], "EmptyBatchRequest"),
        (None, "EmptyBatchRequest"),
        ([{"Id": str(n), "MessageBody": "x"} for n in range(11)], "TooManyEntriesInBatchRequest"),
        ([{"Id": "a", "MessageBody": "x"}] * 2, "BatchEntryIdsNotDistinct"),
        ([{"Id": "a b", "MessageBody": "x"}], "InvalidBatchEntryId"),
        ([{"Id": "a" * 81, "MessageBody": "x"}], "InvalidBatchEntryId"),
        ([{"Id": str(n), "MessageBody": "x" * 600_000} for n in range(2)], "BatchRequestTooLong"),
    ],
)
async def test_a_batch_that_is_none_is_refused_whole(server, entries, said):
    url = await create(server)
    refusal = await refused(server, "SendMessageBatch", QueueUrl=url, Entries=entries)
    assert code(refusal) == (400, f"AWS.SimpleQueueService.{said}")
    assert await receive(server, url) == []


# -- receipts --------------------------------------------------------------------------------------


async def test_a_message_comes_again_when_its_visibility_timeout_is_over(server):
    url = await create(server, VisibilityTimeout="5")
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x")
    handles = set()
    for count in range(1, 5):  # it does not rest, as other jobs do from the second expired lease on
        [message] = await receive(server, url, AttributeNames=["ApproximateReceiveCount"])
        assert message["Attributes"]["ApproximateReceiveCount"] == str(count)
        handles.add(message["ReceiptHandle"])
        server.clock.advance("6s")
        server.engine.tick()
    assert len(handles) == 4


async def test_a_visibility_timeout_is_extended_and_ended(server):
    url = await create(server)
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x")
    [message] = await receive(server, url, VisibilityTimeout=5)
    receipt = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
    await sqs(server, "ChangeMessageVisibility", **receipt, VisibilityTimeout=60)
    server.clock.advance("30s")
    server.engine.tick()
    assert await receive(server, url) == []
    await sqs(server, "ChangeMessageVisibility", **receipt, VisibilityTimeout=0)
    assert len(await receive(server, url)) == 1


async def test_a_handle_is_good_after_its_time_while_nobody_else_has_the_message(server):
    url = await create(server, VisibilityTimeout="5")
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x")
    [message] = await receive(server, url)
    receipt = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
    server.clock.advance("6s")
    server.engine.tick()
    await sqs(server, "ChangeMessageVisibility", **receipt, VisibilityTimeout=5)
    assert await receive(server, url) == []
    server.clock.advance("6s")
    server.engine.tick()
    [again] = await receive(server, url, AttributeNames=["ApproximateReceiveCount"])
    assert again["Attributes"]["ApproximateReceiveCount"] == "2"
    server.clock.advance("6s")
    server.engine.tick()
    await sqs(server, "DeleteMessage", QueueUrl=url, ReceiptHandle=again["ReceiptHandle"])
    assert await receive(server, url) == []
    assert (await server.get("/queues/mail")).json["totals"]["concluded"] == 1


async def test_a_message_is_deleted_late_also_while_its_queue_is_paused(server):
    url = await create(server, VisibilityTimeout="5")
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x")
    [message] = await receive(server, url)
    server.clock.advance("6s")
    server.engine.tick()
    assert (await server.post("/queues/mail/pause", {})).status == 200
    receipt = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
    assert code(await refused(server, "ChangeMessageVisibility", **receipt, VisibilityTimeout=9)) == (
        400, "AWS.SimpleQueueService.MessageNotInflight"
    )  # fmt: skip
    await sqs(server, "DeleteMessage", **receipt)
    assert (await server.get("/queues/mail")).json["jobs"]["queued"] == 0


async def test_an_old_handle_deletes_nothing_that_another_has_received(server):
    url = await create(server, VisibilityTimeout="5")
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x")
    [old] = await receive(server, url)
    server.clock.advance("6s")
    server.engine.tick()
    [new] = await receive(server, url)
    await sqs(server, "DeleteMessage", QueueUrl=url, ReceiptHandle=old["ReceiptHandle"])
    receipt = {"QueueUrl": url, "ReceiptHandle": old["ReceiptHandle"]}
    await sqs(server, "ChangeMessageVisibility", **receipt, VisibilityTimeout=60)  # extends that of the other
    server.clock.advance("30s")
    server.engine.tick()
    assert await receive(server, url) == []
    await sqs(server, "ChangeMessageVisibility", **receipt, VisibilityTimeout=0)  # and ends it, as in SQS
    assert len(await receive(server, url, VisibilityTimeout=0)) == 1
    await sqs(server, "DeleteMessage", QueueUrl=url, ReceiptHandle=new["ReceiptHandle"])


async def test_an_old_handle_deletes_a_message_that_is_visible_again(server):
    url = await create(server, VisibilityTimeout="0")
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x")
    [old] = await receive(server, url)
    [new] = await receive(server, url)
    assert old["ReceiptHandle"] != new["ReceiptHandle"]
    await sqs(server, "DeleteMessage", QueueUrl=url, ReceiptHandle=old["ReceiptHandle"])
    assert await receive(server, url) == []
    for message in (old, new):
        await sqs(server, "DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


async def test_a_handle_is_of_one_queue(server):
    url, other = await create(server), await create(server, "other")
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x")
    [message] = await receive(server, url)
    good = message["ReceiptHandle"]
    for queue, handle, said in (
        (url, "fake", 'The input receipt handle "fake" is not a valid receipt handle.'),
        (url, "no-base64", "The input receipt handle is invalid."),
        (url, "é", "The input receipt handle is invalid."),
        (url, f"{good}x", f'The receipt handle "{good}x" is not valid for this queue.'),
        (other, good, f'The receipt handle "{good}" is not valid for this queue.'),
    ):
        refusal = await refused(server, "DeleteMessage", QueueUrl=queue, ReceiptHandle=handle)
        assert refusal == (400, "ReceiptHandleIsInvalid", said)
    entries = [{"Id": "1", "ReceiptHandle": "no-base64"}]
    [failed] = (await sqs(server, "DeleteMessageBatch", QueueUrl=url, Entries=entries))["Failed"]
    assert failed["Message"] == 'The input receipt handle "no-base64" is not a valid receipt handle.'
    await sqs(server, "DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    gone = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 5}
    assert code(await refused(server, "ChangeMessageVisibility", **gone)) == (400, "InvalidParameterValue")


async def test_a_handle_that_was_guessed_ends_no_visibility(server):
    url = await create(server)
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x")
    [message] = await receive(server, url)
    id = message["ReceiptHandle"].partition(".")[0]
    guessed = names.receipt_handle(int(id), "guessedguessed12", "mail")
    for timeout in (0, 5):
        asked = {"QueueUrl": url, "ReceiptHandle": guessed, "VisibilityTimeout": timeout}
        assert (await refused(server, "ChangeMessageVisibility", **asked))[0] == 400
    assert await receive(server, url) == []


async def test_a_job_of_the_http_api_shows_its_unique_key_as_it_is(server):
    url = await create(server)
    for key in ("order-7", "ada@example.com"):
        await server.enqueue(queue="mail", unique_key=key)
    messages = await receive(server, url, AttributeNames=["All"], MaxNumberOfMessages=2)
    shown = [message["Attributes"].get("MessageDeduplicationId") for message in messages]
    assert shown == ["order-7", "ada@example.com"]


DEEP = "[" * 100_000


async def test_json_that_is_nested_too_deep_is_refused(server):
    url = await create(server)
    answer = await server.post("/", f'{{"X":{DEEP}'.encode(), {"X-Amz-Target": "AmazonSQS.SendMessage"})
    assert answer.status == 400
    for name in ("Policy", "RedrivePolicy", "RedriveAllowPolicy"):
        refusal = await refused(server, "SetQueueAttributes", QueueUrl=url, Attributes={name: DEEP})
        assert refusal[0] == 400


async def test_a_policy_that_names_no_list_of_sources_admits_none(server):
    target = await create(server, "dead")
    allowed = '{"redrivePermission":"byQueue","sourceQueueArns":5}'
    await sqs(server, "SetQueueAttributes", QueueUrl=target, Attributes={"RedriveAllowPolicy": allowed})
    policy = '{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":3}'
    refusal = await refused(server, "CreateQueue", QueueName="mail", Attributes={"RedrivePolicy": policy})
    assert refusal[0] == 400


@pytest.mark.parametrize(
    "message",
    [
        {"MessageAttributes": {"a": {"DataType": "String.\x01", "StringValue": "x"}}},
        {"MessageSystemAttributes": {"AWSTraceHeader": {"DataType": "String", "StringValue": "\x01"}}},
    ],
)
async def test_no_attribute_has_characters_that_xml_cannot_hold(server, message):
    url = await create(server)
    assert (await refused(server, "SendMessage", QueueUrl=url, MessageBody="x", **message))[0] == 400


# -- queues ----------------------------------------------------------------------------------------


async def test_a_queue_is_created_once_and_only_with_the_same_attributes(server):
    url = await create(server, VisibilityTimeout="60")
    assert url == "http://localhost/000000000000/mail"
    assert await create(server, VisibilityTimeout="60") == url
    assert await create(server) == url
    refusal = await refused(server, "CreateQueue", QueueName="mail", Attributes={"VisibilityTimeout": "61"})
    assert code(refusal) == (400, "QueueAlreadyExists")
    assert (await server.get("/queues/mail")).json["settings"]["lease_for"] == 60


async def test_attributes_are_shown_with_their_defaults_and_exact_counts(server):
    url = await create(server, DelaySeconds="0")
    for delay in (0, 0, 60):
        await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x", DelaySeconds=delay)
    await receive(server, url)
    found = await sqs(server, "GetQueueAttributes", QueueUrl=url, AttributeNames=["All"])
    attributes = found["Attributes"]
    assert attributes.pop("CreatedTimestamp") == attributes.pop("LastModifiedTimestamp")
    assert attributes == {
        "ApproximateNumberOfMessages": "1",
        "ApproximateNumberOfMessagesDelayed": "1",
        "ApproximateNumberOfMessagesNotVisible": "1",
        "QueueArn": "arn:aws:sqs:us-east-1:000000000000:mail",
        "DelaySeconds": "0",
        "MaximumMessageSize": "1048576",
        "MessageRetentionPeriod": "345600",
        "ReceiveMessageWaitTimeSeconds": "0",
        "VisibilityTimeout": "30",
        "SqsManagedSseEnabled": "true",
    }
    some = {"QueueUrl": url, "AttributeNames": ["QueueArn", "Policy"]}
    assert await sqs(server, "GetQueueAttributes", **some) == {
        "Attributes": {"QueueArn": attributes["QueueArn"]}
    }
    assert await sqs(server, "GetQueueAttributes", QueueUrl=url) == {}


async def test_attributes_are_set_and_unset_and_others_stay(server):
    url = await create(server, VisibilityTimeout="60")
    policy = '{"Version":"2012-10-17","Statement":[]}'
    await sqs(server, "SetQueueAttributes", QueueUrl=url, Attributes={"Policy": policy, "DelaySeconds": "3"})
    asked = {"QueueUrl": url, "AttributeNames": ["Policy", "DelaySeconds", "VisibilityTimeout"]}
    assert await sqs(server, "GetQueueAttributes", **asked) == {
        "Attributes": {"Policy": policy, "DelaySeconds": "3", "VisibilityTimeout": "60"}
    }
    await sqs(server, "SetQueueAttributes", QueueUrl=url, Attributes={"Policy": ""})
    assert "Policy" not in (await sqs(server, "GetQueueAttributes", **asked))["Attributes"]


async def test_what_is_kept_of_a_queue_is_limited(server):
    url = await create(server)
    policy = {"Policy": '{"Id":"' + "x" * 5000 + '"}'}
    await sqs(server, "SetQueueAttributes", QueueUrl=url, Attributes=policy)
    assert (await sqs(server, "GetQueueAttributes", QueueUrl=url, AttributeNames=["Policy"]))[
        "Attributes"
    ] == policy
    policy = {"Policy": '{"Id":"' + "x" * 66_000 + '"}'}
    assert code(await refused(server, "SetQueueAttributes", QueueUrl=url, Attributes=policy)) == (
        400,
        "InvalidParameterValue",
    )


async def test_attributes_that_a_client_of_the_api_gave_stay(server):
    assert (await server.call("PATCH", "/queues/mail", {"attributes": {"team": "a"}})).status == 200
    url = await create(server)
    shown = (await server.get("/queues/mail")).json["settings"]["attributes"]
    assert (shown["team"], list(shown)) == ("a", ["team", "sqs"])
    await sqs(server, "DeleteQueue", QueueUrl=url)
    assert (await server.get("/queues/mail")).json["settings"]["attributes"] == {"team": "a"}


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"Nope": "1"}, "InvalidAttributeName"),
        ({"QueueArn": "x"}, "InvalidAttributeName"),
        ({"FifoQueue": "false"}, "InvalidAttributeName"),
        ({"ContentBasedDeduplication": "true"}, "InvalidAttributeName"),
        ({"VisibilityTimeout": "43201"}, "InvalidAttributeValue"),
        ({"VisibilityTimeout": "-1"}, "InvalidAttributeValue"),
        ({"VisibilityTimeout": "x"}, "InvalidAttributeValue"),
        ({"DelaySeconds": "901"}, "InvalidAttributeValue"),
        ({"MaximumMessageSize": "1048577"}, "InvalidAttributeValue"),
        ({"MessageRetentionPeriod": "1209601"}, "InvalidAttributeValue"),
        ({"SqsManagedSseEnabled": "yes"}, "InvalidAttributeValue"),
        ({"Policy": "{"}, "InvalidAttributeValue"),
        ({"RedrivePolicy": "{}"}, "InvalidParameterValue"),
        ({"RedrivePolicy": "[1]"}, "InvalidParameterValue"),
        ({"RedrivePolicy": '{"deadLetterTargetArn":"arn:aws:sqs:x:1:none","maxReceiveCount":1}'}, "InvalidParameterValue"),
        ({"RedrivePolicy": '{"deadLetterTargetArn":"none","maxReceiveCount":1}'}, "InvalidParameterValue"),
        ({"RedrivePolicy": '{"deadLetterTargetArn":"arn:aws:sqs:x:1:none","maxReceiveCount":0}'}, "InvalidParameterValue"),
    ],
)  # fmt: skip
async def test_attributes_that_a_queue_cannot_have_are_refused(server, attributes, said):
    assert code(await refused(server, "CreateQueue", QueueName="mail", Attributes=attributes)) == (400, said)
    url = await create(server)
    assert code(await refused(server, "SetQueueAttributes", QueueUrl=url, Attributes=attributes)) == (
        400,
        said,
    )


@pytest.mark.parametrize("name", ["", "a b", "a" * 81, "a.b", "é", "a.fifo", "a/b"])
async def test_a_name_that_no_queue_can_have_is_refused(server, name):
    assert code(await refused(server, "CreateQueue", QueueName=name)) == (400, "InvalidParameterValue")


async def test_queues_are_listed_by_prefix_and_in_pages(server):
    for name in ("b2", "a1", "b1", "b3"):
        await create(server, name)
    await server.enqueue(queue="b0")  # of no interest to SQS
    listed = await sqs(server, "ListQueues")
    assert [url.rpartition("/")[2] for url in listed["QueueUrls"]] == ["a1", "b1", "b2", "b3"]
    page = await sqs(server, "ListQueues", QueueNamePrefix="b", MaxResults=2)
    assert [url.rpartition("/")[2] for url in page["QueueUrls"]] == ["b1", "b2"]
    page = await sqs(server, "ListQueues", QueueNamePrefix="b", MaxResults=2, NextToken=page["NextToken"])
    assert [url.rpartition("/")[2] for url in page["QueueUrls"]] == ["b3"]
    assert "NextToken" not in page
    assert await sqs(server, "ListQueues", QueueNamePrefix="z") == {}
    for wrong in ({"MaxResults": 0}, {"NextToken": "x"}, {"NextToken": "é", "MaxResults": 1}):
        assert code(await refused(server, "ListQueues", **wrong)) == (400, "InvalidParameterValue")


async def test_a_queue_is_found_by_name_at_the_host_that_was_asked(server):
    url = await create(server)
    found = await ask(server, "GetQueueUrl", {"Host": "queue.example:9324"}, QueueName="mail")
    assert found.json == {"QueueUrl": "http://queue.example:9324/000000000000/mail"}
    missing = await refused(server, "GetQueueUrl", QueueName="none")
    assert missing == (400, "AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist.")
    await sqs(
        server,
        "SendMessage",
        QueueUrl="https://sqs.eu-west-1.amazonaws.com/123456789012/mail",
        MessageBody="x",
    )
    assert len(await receive(server, url)) == 1


async def test_a_queue_is_purged_and_deleted_with_what_is_in_flight(server):
    url = await create(server, VisibilityTimeout="5")
    for _ in range(2):
        await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x")
    await receive(server, url)
    await sqs(server, "PurgeQueue", QueueUrl=url)
    server.clock.advance("6s")
    server.engine.tick()
    assert await receive(server, url) == []
    await sqs(server, "PurgeQueue", QueueUrl=url)  # at once, which SQS refuses for a minute
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x")
    await sqs(server, "DeleteQueue", QueueUrl=url)
    assert (await refused(server, "ReceiveMessage", QueueUrl=url))[
        1
    ] == "AWS.SimpleQueueService.NonExistentQueue"
    assert (await server.get("/queues/mail")).json["jobs"]["queued"] == 0
    assert await sqs(server, "ListQueues") == {}
    assert await receive(server, await create(server, VisibilityTimeout="9")) == []


async def test_tags_and_permissions_are_kept(server):
    made = await sqs(server, "CreateQueue", QueueName="mail", tags={"a": "1"})
    url = made["QueueUrl"]
    await sqs(server, "TagQueue", QueueUrl=url, Tags={"b": "2", "a": "3"})
    assert await sqs(server, "ListQueueTags", QueueUrl=url) == {"Tags": {"a": "3", "b": "2"}}
    await sqs(server, "UntagQueue", QueueUrl=url, TagKeys=["a", "none"])
    assert await sqs(server, "ListQueueTags", QueueUrl=url) == {"Tags": {"b": "2"}}
    many = {str(number): "" for number in range(51)}
    assert code(await refused(server, "TagQueue", QueueUrl=url, Tags=many)) == (400, "InvalidParameterValue")
    label = {"QueueUrl": url, "Label": "l"}
    await sqs(server, "AddPermission", **label, AWSAccountIds=["111111111111"], Actions=["SendMessage"])
    policy = (await sqs(server, "GetQueueAttributes", QueueUrl=url, AttributeNames=["Policy"]))["Attributes"]
    assert '"Action":"SQS:SendMessage"' in policy["Policy"]
    again = await refused(server, "AddPermission", **label, AWSAccountIds=["1"], Actions=["SendMessage"])
    assert code(again) == (400, "InvalidParameterValue")
    await sqs(server, "RemovePermission", **label)
    assert code(await refused(server, "RemovePermission", **label)) == (400, "InvalidParameterValue")


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "asked", "said"),
    [
        ("SendMessage", {"MessageBody": "x"}, (400, "MissingParameter")),
        ("SendMessage", {"QueueUrl": URL}, (400, "AWS.SimpleQueueService.NonExistentQueue")),
        ("SendMessage", {"MessageBody": ""}, (400, "MissingParameter")),
        ("ReceiveMessage", {"MaxNumberOfMessages": 11}, (400, "InvalidParameterValue")),
        ("ReceiveMessage", {"MaxNumberOfMessages": 0}, (400, "InvalidParameterValue")),
        ("ReceiveMessage", {"WaitTimeSeconds": 21}, (400, "InvalidParameterValue")),
        ("ReceiveMessage", {"VisibilityTimeout": 43201}, (400, "InvalidParameterValue")),
        ("ReceiveMessage", {"AttributeNames": ["Nope"]}, (400, "InvalidAttributeName")),
        ("ReceiveMessage", {"MaxNumberOfMessages": "x"}, (400, "SerializationException")),
        ("GetQueueAttributes", {"AttributeNames": [""]}, (400, "InvalidAttributeName")),
        (
            "SetQueueAttributes",
            {"Attributes": {"DeduplicationScope": "queue"}},
            (400, "InvalidAttributeName"),
        ),
        ("GetQueueAttributes", {"AttributeNames": ["Nope"]}, (400, "InvalidAttributeName")),
        ("DeleteMessage", {}, (400, "MissingParameter")),
        ("ChangeMessageVisibility", {"ReceiptHandle": "x"}, (400, "MissingParameter")),
        ("CreateQueue", {}, (400, "MissingParameter")),
        ("TagQueue", {}, (400, "MissingParameter")),
        ("Nope", {}, (400, "InvalidAction")),
    ],
)
async def test_a_call_that_makes_no_sense_is_refused_in_the_terms_of_sqs(server, action, asked, said):
    url = await create(server)
    asked = asked if said[1] == "MissingParameter" and action == "SendMessage" and "x" in asked.values() else (
        {"QueueUrl": url} | asked
    )  # fmt: skip
    assert code(await refused(server, action, **asked)) == said


@pytest.mark.parametrize(
    "message",
    [
        {"MessageBody": "a\x00b"},
        {"MessageBody": "a\ufffeb"},
        {"MessageBody": "x" * 1_048_577},
        {"MessageBody": "x", "DelaySeconds": 901},
        {"MessageBody": "x", "DelaySeconds": -1},
        {"MessageBody": "x", "MessageDeduplicationId": "d"},
        {"MessageBody": "x", "MessageGroupId": "a b"},
        {"MessageBody": "x", "MessageAttributes": {"aws.x": {"DataType": "String", "StringValue": "x"}}},
        {"MessageBody": "x", "MessageAttributes": {"a b": {"DataType": "String", "StringValue": "x"}}},
        {"MessageBody": "x", "MessageAttributes": {"é": {"DataType": "String", "StringValue": "x"}}},
        {"MessageBody": "x", "MessageAttributes": {"": {"DataType": "String", "StringValue": "x"}}},
        {"MessageBody": "x", "MessageAttributes": {"a": {"DataType": "Text", "StringValue": "x"}}},
        {"MessageBody": "x", "MessageAttributes": {"a": {"StringValue": "x"}}},
        {"MessageBody": "x", "MessageAttributes": {"a": {"DataType": "String", "StringValue": ""}}},
        {"MessageBody": "x", "MessageAttributes": {"a": {"DataType": "String", "StringValue": "\x01"}}},
        {"MessageBody": "x", "MessageAttributes": {"a": {"DataType": "Number", "StringValue": "one"}}},
        {"MessageBody": "x", "MessageAttributes": {"a": {"DataType": "Binary"}}},
        {"MessageBody": "x", "MessageAttributes": {str(n): {"DataType": "String", "StringValue": "x"} for n in range(11)}},
        {"MessageBody": "x", "MessageAttributes": {"jobqueue.type": {"DataType": "String", "StringValue": "x" * 500}}},
        {"MessageBody": "x", "MessageSystemAttributes": {"Nope": {"DataType": "String", "StringValue": "x"}}},
        {"MessageBody": "x", "MessageSystemAttributes": {"AWSTraceHeader": {"DataType": "Binary", "BinaryValue": "AA=="}}},
    ],
)  # fmt: skip
async def test_a_message_that_sqs_would_refuse_is_refused(server, message):
    url = await create(server)
    refusal = await refused(server, "SendMessage", QueueUrl=url, **message)
    assert code(refusal) in [(400, "InvalidParameterValue"), (400, "InvalidMessageContents")]
    assert await receive(server, url) == []


async def test_a_message_of_exactly_the_largest_size_is_taken(server):
    url = await create(server, MaximumMessageSize="1024")
    attribute = {"a": {"DataType": "String", "StringValue": "x" * 17}}  # 24 bytes with name and type
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x" * 1000, MessageAttributes=attribute)
    more = {"QueueUrl": url, "MessageBody": "x" * 1001, "MessageAttributes": attribute}
    refusal = await refused(server, "SendMessage", **more)
    assert refusal[2].endswith("Message must be shorter than 1024 bytes.")


async def test_a_message_that_is_longer_than_any_request_is_refused_as_one_that_is_too_long(server):
    url = await create(server)
    refusal = await refused(server, "SendMessage", QueueUrl=url, MessageBody="x" * 2_400_000)
    assert code(refusal) == (400, "InvalidParameterValue")
    assert refusal[2].endswith("Reason: Message must be shorter than 1048576 bytes.")


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b'{"QueueName":1}', b"\xff", b'{"QueueName":"\xff"}'])
async def test_json_that_is_none_is_refused(server, body):
    answer = await server.post("/", body, {"X-Amz-Target": "AmazonSQS.CreateQueue"})
    assert (answer.status, answer.headers["x-amzn-query-error"]) == (400, "SerializationException;Sender")


async def test_a_target_of_another_service_is_refused(server):
    answer = await server.post("/", {}, {"X-Amz-Target": "DynamoDB_20120810.ListTables"})
    assert (answer.status, answer.headers["x-amzn-query-error"]) == (400, "InvalidAction;Sender")


# -- around it -------------------------------------------------------------------------------------


async def test_health_is_told_to_compose_files_of_localstack(server):
    answer = await server.get("/_localstack/health")
    assert answer.json["services"] == {"sqs": "running"}


async def test_a_browser_of_another_origin_sends_nothing(server):
    headers = {"X-Amz-Target": "AmazonSQS.CreateQueue", "Origin": "http://evil.example"}
    answer = await server.post("/", {"QueueName": "mail"}, headers)
    assert (answer.status, answer.headers["x-amzn-query-error"]) == (403, "AccessDenied;Sender")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Referer": "http://evil.example/"}, 403),
        ({"User-Agent": "Mozilla/5.0"}, 403),
        ({"User-Agent": "Mozilla/5.0", "Sec-Fetch-Site": "none"}, 200),
        ({}, 200),
    ],
)
async def test_an_image_of_another_page_purges_nothing(server, headers, status):
    url = await create(server)
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x")
    answer = await server.get("/000000000000/mail?Action=PurgeQueue", headers)
    assert answer.status == status
    assert len(await receive(server, url)) == (1 if status == 403 else 0)


async def test_calls_are_counted_by_action(server):
    url = await create(server)
    await refused(server, "SendMessage", QueueUrl=url)
    metrics = (await server.get("/metrics")).body.decode()
    assert 'operation="sqs_create_queue",status="200"} 1' in metrics
    assert 'operation="sqs_send_message",status="400"} 1' in metrics


@pytest.mark.parametrize("settings", [Settings(sqs="off", first_id=1)])
async def test_the_door_can_be_closed(server):
    check_problem(await ask(server, "ListQueues"), 405, "method_not_allowed")
    check_problem(await server.get("/_localstack/health"), 404, "no_such_route")
    check_problem(await server.get("/000000000000/mail?Action=ReceiveMessage"), 404, "no_such_route")


async def test_a_full_queue_throttles(server):
    url = await create(server)
    assert (await server.call("PATCH", "/queues/mail", {"max_jobs": 1})).status == 200
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x")
    refusal = await refused(server, "SendMessage", QueueUrl=url, MessageBody="x")
    assert code(refusal) == (403, "RequestThrottled")


async def test_both_protocols_are_one_queue(server):
    url = await create(server)
    await query(server, "SendMessage", "/000000000000/mail", MessageBody="x")
    assert len(await receive(server, url)) == 1


async def test_what_aws_answered_when_it_was_asked(server):
    """Cases that others have recorded from AWS."""
    url = await create(server)
    attribute = {"a": {"DataType": "String", "StringValue": "x"}}
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x", MessageAttributes=attribute)
    [message] = await receive(server, url, MessageAttributeNames=["*"])
    assert message["MessageAttributes"] == attribute
    kms = {"KmsMasterKeyId": "", "KmsDataKeyReusePeriodSeconds": "300"}
    await sqs(server, "SetQueueAttributes", QueueUrl=url, Attributes=kms)
    shown = await sqs(server, "GetQueueAttributes", QueueUrl=url, AttributeNames=["All"])
    assert "KmsDataKeyReusePeriodSeconds" not in shown["Attributes"]
    scope = {"QueueUrl": url, "Attributes": {"DeduplicationScope": "queue"}}
    said = "You can specify the DeduplicationScope only when FifoQueue is set to true."
    assert await refused(server, "SetQueueAttributes", **scope) == (400, "InvalidAttributeName", said)
    fifo = await create(server, "q.fifo", FifoQueue="true")
    kind = {"QueueUrl": fifo, "Attributes": {"FifoQueue": "false"}}
    said = "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported."
    assert await refused(server, "SetQueueAttributes", **kind) == (400, "InvalidAttributeValue", said)
    alone = {"QueueUrl": fifo, "Entries": [{"Id": "1", "MessageBody": "x", "MessageDeduplicationId": "d"}]}
    said = "The request must contain the parameter MessageGroupId."
    assert await refused(server, "SendMessageBatch", **alone) == (400, "InvalidParameterValue", said)
    answer = await server.get("/000000000000/mail?X-Amz-Algorithm=AWS4-HMAC-SHA256")
    assert (answer.status, answer.body) == (404, b"<UnknownOperationException/>\n")
