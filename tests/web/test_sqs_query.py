"""The SQS door by the query protocol: forms and queries, answered with XML."""

from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from serving import check_problem
from sqs import FORM, SPACE, create, query, receive, sqs


def texts(element, *path):
    return [found.text for found in element.findall("/".join(SPACE + name for name in path))]


def pairs(element, item, key, value):
    found = element.findall(f".//{SPACE}{item}")
    return {each.findtext(SPACE + key): each.findtext(SPACE + value) for each in found}


async def refused(server, body, path="/", method="POST", headers=FORM):
    answer = await server.call(method, path, body, headers)
    assert answer.headers["content-type"] == "text/xml", answer
    document = ElementTree.fromstring(answer.body)
    assert document.tag == f"{SPACE}ErrorResponse"
    assert document.findtext(f"{SPACE}RequestId") == answer.headers["x-request-id"]
    error = document.find(f"{SPACE}Error")
    assert error.findtext(f"{SPACE}Type") == ("Sender" if answer.status < 500 else "Receiver")
    return answer.status, error.findtext(f"{SPACE}Code"), error.findtext(f"{SPACE}Message")


async def test_a_queue_lives_by_forms_alone(server):
    made = await query(
        server, "CreateQueue", QueueName="mail", Attribute__1__Name="VisibilityTimeout", Attribute__1__Value="60",
        Attribute__2__Name="DelaySeconds", Attribute__2__Value="0", Tag__1__Key="a", Tag__1__Value="1",
    )  # fmt: skip
    [url] = texts(made, "QueueUrl")
    assert url == "http://localhost/000000000000/mail"
    assert texts(await query(server, "ListQueues"), "QueueUrl") == [url]
    assert texts(await query(server, "GetQueueUrl", QueueName="mail"), "QueueUrl") == [url]
    shown = await query(server, "GetQueueAttributes", QueueUrl=url, AttributeName__1="VisibilityTimeout")
    assert pairs(shown, "Attribute", "Name", "Value") == {"VisibilityTimeout": "60"}
    await query(server, "TagQueue", QueueUrl=url, Tag__1__Key="b", Tag__1__Value="2")
    await query(server, "UntagQueue", QueueUrl=url, TagKey__1="a")
    tags = await query(server, "ListQueueTags", QueueUrl=url)
    assert pairs(tags, "Tag", "Key", "Value") == {"b": "2"}
    await query(
        server, "AddPermission", QueueUrl=url, Label="l", AWSAccountId__1="1", ActionName__1="SendMessage"
    )
    await query(server, "RemovePermission", QueueUrl=url, Label="l")
    await query(server, "PurgeQueue", QueueUrl=url)
    await query(server, "DeleteQueue", QueueUrl=url)
    assert texts(await query(server, "ListQueues"), "QueueUrl") == []


async def test_a_message_with_attributes_goes_through_xml(server):
    url = await create(server)
    body = '<a>&amp; "é" ]]> \r\n\t😀</a>'
    sent = await query(
        server, "SendMessage", QueueUrl=url, MessageBody=body,
        MessageAttribute__1__Name="n", MessageAttribute__1__Value__DataType="Number",
        MessageAttribute__1__Value__StringValue="1", MessageAttribute__2__Name="b",
        MessageAttribute__2__Value__DataType="Binary", MessageAttribute__2__Value__BinaryValue="AP8=",
        MessageSystemAttribute__1__Name="AWSTraceHeader",
        MessageSystemAttribute__1__Value__DataType="String", MessageSystemAttribute__1__Value__StringValue="Root=1",
    )  # fmt: skip
    got = await query(
        server, "ReceiveMessage", QueueUrl=url, AttributeName__1="All", MessageAttributeName__1="All",
        MaxNumberOfMessages="10",
    )  # fmt: skip
    [message] = got.findall(f"{SPACE}Message")
    assert texts(message, "Body") == [body]
    assert texts(message, "MD5OfBody") == texts(sent, "MD5OfMessageBody")
    assert texts(message, "MD5OfMessageAttributes") == texts(sent, "MD5OfMessageAttributes")
    assert pairs(message, "Attribute", "Name", "Value")["AWSTraceHeader"] == "Root=1"
    values = {
        each.findtext(f"{SPACE}Name"): [part.text for part in each.find(f"{SPACE}Value")]
        for each in message.findall(f"{SPACE}MessageAttribute")
    }
    assert {name: sorted(value) for name, value in values.items()} == {
        "n": ["1", "Number"],
        "b": ["AP8=", "Binary"],
    }
    [handle] = texts(message, "ReceiptHandle")
    await query(server, "ChangeMessageVisibility", QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout="0")
    [again] = await receive(server, url)
    await query(server, "DeleteMessage", QueueUrl=url, ReceiptHandle=again["ReceiptHandle"])


async def test_batches_go_through_xml(server):
    url = await create(server)
    entry = "SendMessageBatchRequestEntry"
    sent = await query(
        server, "SendMessageBatch", QueueUrl=url,
        **{f"{entry}.2.Id": "b", f"{entry}.2.MessageBody": "\x01", f"{entry}.10.Id": "c", f"{entry}.10.MessageBody": "3",
           f"{entry}.1.Id": "a", f"{entry}.1.MessageBody": "1", f"{entry}.1.DelaySeconds": "0",
           f"{entry}.1.MessageAttribute.1.Name": "n", f"{entry}.1.MessageAttribute.1.Value.DataType": "String",
           f"{entry}.1.MessageAttribute.1.Value.StringValue": "v"},
    )  # fmt: skip
    assert texts(sent, "SendMessageBatchResultEntry", "Id") == ["a", "c"]
    assert texts(sent, "BatchResultErrorEntry", "Code") == ["InvalidMessageContents"]
    assert texts(sent, "BatchResultErrorEntry", "SenderFault") == ["true"]
    messages = await receive(server, url, MaxNumberOfMessages=10)
    assert [message["Body"] for message in messages] == ["1", "3"]
    fields = {}
    for number, message in enumerate(messages, 1):
        fields[f"DeleteMessageBatchRequestEntry.{number}.Id"] = str(number)
        fields[f"DeleteMessageBatchRequestEntry.{number}.ReceiptHandle"] = message["ReceiptHandle"]
    deleted = await query(server, "DeleteMessageBatch", QueueUrl=url, **fields)
    assert texts(deleted, "DeleteMessageBatchResultEntry", "Id") == ["1", "2"]


async def test_a_queue_url_can_be_fetched(server):
    await create(server)
    path = "/000000000000/mail?Action=SendMessage&MessageBody=a%20b+c&Version=2012-11-05"
    assert (await server.get(path)).status == 200
    answer = await server.get("/queue/eu-central-1/000000000000/mail?Action=ReceiveMessage")
    assert b"<Body>a b c</Body>" in answer.body
    answer = await server.get("/?Action=ListQueues")
    assert b"<QueueUrl>http://localhost/000000000000/mail</QueueUrl>" in answer.body


async def test_the_root_and_unknown_paths_are_those_of_the_api_otherwise(server):
    assert (await server.get("/?x=1")).status == 200
    check_problem(await server.post("/", b"a=b", FORM), 405, "method_not_allowed")
    check_problem(await server.post("/mail", b"Action=ListQueues", FORM), 404, "no_such_route")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"Action=Nope", "InvalidAction"),
        (b"Action=&QueueName=a", "MissingAction"),
        (b"Action=CreateQueue", "MissingParameter"),
        (b"Action=GetQueueUrl&QueueName=none", "AWS.SimpleQueueService.NonExistentQueue"),
        (b"Action=GetQueueUrl&QueueName=%FF", "MissingAction"),
        (b"Action=CreateQueue&QueueName.1=a", "InvalidParameterValue"),
        (b"Action=CreateQueue&QueueName=a&QueueName.1=b", "InvalidParameterValue"),
        (b"Action=ListQueues&MaxResults=many", "InvalidParameterValue"),
        (b"Action=CreateQueue&QueueName=a&Attribute.1.Name=Nope&Attribute.1.Value=1", "InvalidAttributeName"),
        (b"Action=CreateQueue&QueueName=a&Attribute.x.Name=Nope", "InvalidAttributeName"),
        (b"Action=ListQueues" + b"&a=" * 10_001, "MissingAction"),
        (
            b"Action=SendMessageBatch&QueueUrl=none&" + b"AttributeName.1." * 5000 + b"=x",
            "AWS.SimpleQueueService.NonExistentQueue",
        ),
    ],
)
async def test_a_form_that_makes_no_sense_is_refused(server, body, code):
    await create(server, "none1")
    status, said, message = await refused(server, body)
    assert (status, said) == (400, code)
    assert message


async def test_a_queue_url_without_an_action_is_refused(server):
    await create(server)
    answer = await server.get("/000000000000/mail")
    assert (answer.status, answer.body) == (404, b"<UnknownOperationException/>\n")
    for action in ("ListQueues", "CreateQueue&QueueName=other"):
        path = f"/000000000000/mail?Action={action}"
        assert (await refused(server, None, path, "GET", {}))[:2] == (400, "InvalidAction")
    assert (await refused(server, b"x=1", "/000000000000/mail"))[:2] == (400, "MissingAction")


async def test_both_protocols_see_one_message(server):
    url = await create(server)
    await sqs(server, "SendMessage", QueueUrl=url, MessageBody="x")
    got = await query(server, "ReceiveMessage", "/000000000000/mail")
    assert texts(got, "Message", "Body") == ["x"]


async def test_a_map_whose_key_is_no_text_is_refused(server):
    fields = urlencode({"Action": "CreateQueue", "QueueName": "mail", "Attribute.1.Name.x": "1"})
    assert (await server.post("/", fields.encode(), FORM)).status == 400
