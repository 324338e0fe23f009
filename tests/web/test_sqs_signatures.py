"""The SQS door where there are access tokens: who signed a request, and what the holder of a token may do."""

import json

import pytest
from serving import check_problem
from sqs import FORM, ask, signed, sqs

from jobqueue import Settings
from jobqueue.testing import ManualClock
from jobqueue.web.access.tokens import digest_of

SECRETS = {name: f"secret-of-{name}-0123456789" for name in ("mailer", "producer", "admin", "brief")}
RIGHTS = {
    "mailer": ["enqueue", "dequeue", "read"],
    "producer": ["enqueue"],
    "admin": ["admin"],
    "brief": ["read"],
}
MORE = {"mailer": 'queues = ["mail*"]', "brief": "expires_at = 2027-01-15T08:01:00Z"}
NOW = "20270115T080000Z"  # of the manual clock
HOST = "localhost"


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "tokens.toml"
    tables = [
        f'[{name}]\ndigest = "{digest_of(name)}"\nrights = {json.dumps(RIGHTS[name])}\n'
        f'sqs_secret = "{secret}"\n{MORE.get(name, "")}\n'
        for name, secret in SECRETS.items()
    ]
    path.write_text("".join([*tables, f'[plain]\ndigest = "{digest_of("plain")}"\nrights = ["admin"]\n']))
    return Settings(first_id=1, tokens_file=str(path), access_token="one-token-for-everything")


async def sign(server, who, action, asked, secret=None, date=NOW, **headers):
    """Makes a signed call of the JSON protocol."""
    body = json.dumps(asked).encode()
    target = {"X-Amz-Target": f"AmazonSQS.{action}"}
    lines = signed(body, HOST, who, secret or SECRETS.get(who, "none"), date, **target, **headers)
    return await server.post("/", body, lines)


def code(answer):
    return answer.status, answer.headers["x-amzn-query-error"].partition(";")[0]


async def test_a_signed_call_is_that_of_its_token(server):
    assert (await sign(server, "mailer", "CreateQueue", {"QueueName": "mail"})).status == 200
    url = {"QueueUrl": "/000000000000/mail"}
    assert (await sign(server, "mailer", "SendMessage", {**url, "MessageBody": "x"})).status == 200
    [message] = (await sign(server, "mailer", "ReceiveMessage", url)).json["Messages"]
    receipt = {**url, "ReceiptHandle": message["ReceiptHandle"]}
    assert code(await sign(server, "producer", "DeleteMessage", receipt)) == (403, "AccessDenied")
    assert (await sign(server, "mailer", "DeleteMessage", receipt)).status == 200


async def test_a_form_and_a_fetched_queue_url_are_signed_too(server):
    body = b"Action=CreateQueue&QueueName=mail"
    lines = signed(body, HOST, "mailer", SECRETS["mailer"], NOW, **FORM)
    answer = await server.post("/", body, lines)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/xml")
    body = b"Action=SendMessage&MessageBody=x"
    lines = signed(body, HOST, "mailer", SECRETS["mailer"], NOW, "/000000000000/mail", **FORM)
    assert (await server.post("/000000000000/mail", body, lines)).status == 200
    answer = await server.post("/000000000000/mail", body + b"y", lines)
    assert (answer.status, b"<Code>SignatureDoesNotMatch</Code>" in answer.body) == (403, True)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"secret": "wrong"}, (403, "SignatureDoesNotMatch")),
        ({"who": "nobody"}, (403, "InvalidClientTokenId")),
        ({"who": "plain"}, (403, "InvalidClientTokenId")),
        ({"who": "access-token"}, (403, "InvalidClientTokenId")),
        ({"date": "20270115T074400Z"}, (403, "SignatureDoesNotMatch")),
        ({"date": "20270115T081600Z"}, (403, "SignatureDoesNotMatch")),
        ({"date": "20270115T999999Z"}, (403, "SignatureDoesNotMatch")),
        ({"date": "yesterday"}, (400, "IncompleteSignature")),
        ({"X-Amz-Security-Token": "session"}, (403, "InvalidClientTokenId")),
    ],
)
async def test_a_call_with_a_wrong_signature_is_refused(server, asked, said):
    asked = {"who": "mailer", "action": "ListQueues", "asked": {}} | asked
    assert code(await sign(server, **asked)) == said


@pytest.mark.parametrize("date", ["20270115T074501Z", "20270115T081459Z"])
async def test_clocks_may_be_fifteen_minutes_apart(server, date):
    assert (await sign(server, "mailer", "ListQueues", {}, date=date)).status == 200


async def test_what_is_signed_may_not_be_changed(server):
    body = b'{"QueueName":"mail"}'
    lines = signed(body, HOST, "mailer", SECRETS["mailer"], NOW, **{"X-Amz-Target": "AmazonSQS.GetQueueUrl"})
    for path, changed in (
        ("/", {"X-Amz-Target": "AmazonSQS.CreateQueue"}),
        ("/", {"Host": "other"}),
        ("/other", {}),
        ("/?a=b", {}),
    ):
        assert code(await server.post(path, body, lines | changed)) == (403, "SignatureDoesNotMatch")
    assert code(await server.post("/", body + b" ", lines)) == (403, "SignatureDoesNotMatch")
    assert code(await server.post("/", body, lines)) == (400, "AWS.SimpleQueueService.NonExistentQueue")


async def test_no_action_can_be_added_to_a_request_that_was_seen(server):
    """The action of a form stands in it; a target would choose another one."""
    body = b"Action=ListQueues"
    lines = signed(body, HOST, "admin", SECRETS["admin"], NOW, **FORM)
    assert (await server.post("/", body, lines)).status == 200
    answer = await server.post("/", body, lines | {"X-Amz-Target": "AmazonSQS.PurgeQueue"})
    assert answer.json["__type"].endswith("IncompleteSignatureException")


@pytest.mark.parametrize(
    "authorization",
    [
        "AWS4-HMAC-SHA256 nothing",
        "AWS4-HMAC-SHA256 Credential=mailer/20270115/x/sqs/aws4_request, SignedHeaders=host",
        "AWS4-HMAC-SHA256 Credential=mailer/20270115/x/s3/aws4_request, SignedHeaders=host, Signature=0",
        "AWS4-HMAC-SHA256 Credential=mailer/20270115/x/sqs/aws4_request, SignedHeaders=x-amz-date, Signature=0",
    ],
)
async def test_a_signature_that_is_incomplete_is_refused(server, authorization):
    answer = await ask(server, "ListQueues", {"Authorization": authorization, "X-Amz-Date": NOW})
    assert code(answer) == (400, "IncompleteSignature")


async def test_an_unsigned_call_is_refused_and_one_with_the_token_itself_is_not(server):
    assert code(await ask(server, "ListQueues")) == (403, "MissingAuthenticationToken")
    assert (await ask(server, "ListQueues", {"Authorization": "Bearer mailer"})).status == 200
    assert code(await ask(server, "ListQueues", {"Authorization": "Bearer wrong"})) == (
        403,
        "MissingAuthenticationToken",
    )
    assert code(await ask(server, "ListQueues", {"Authorization": "Bearer producer"})) == (
        403,
        "AccessDenied",
    )
    answer = await server.get("/?Action=ListQueues")
    assert (answer.status, b"<Code>MissingAuthenticationToken</Code>" in answer.body) == (403, True)
    assert (await server.get("/_localstack/health")).status == 200


async def test_nothing_is_kept_of_a_body_without_a_signature(server):
    client = await server.connect()
    head = b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: AmazonSQS.ListQueues\r\nContent-Length: 1000000\r\n"
    client.send(head + b"Expect: 100-continue\r\n\r\n")
    answer = await client.read()
    assert code(answer) == (403, "MissingAuthenticationToken")


async def test_a_token_uses_its_queues_and_its_rights_only(server):
    assert code(await sign(server, "mailer", "CreateQueue", {"QueueName": "video"})) == (403, "AccessDenied")
    for name in ("mail", "video"):
        assert (await sign(server, "admin", "CreateQueue", {"QueueName": name})).status == 200
    listed = (await sign(server, "mailer", "ListQueues", {})).json
    assert listed["QueueUrls"] == ["http://localhost/000000000000/mail"]
    for action in ("SetQueueAttributes", "PurgeQueue", "DeleteQueue", "TagQueue"):
        assert code(await sign(server, "mailer", action, {"QueueUrl": "mail"})) == (403, "AccessDenied")
    assert code(await sign(server, "mailer", "GetQueueAttributes", {"QueueUrl": "video"})) == (
        403,
        "AccessDenied",
    )
    assert (await sign(server, "admin", "PurgeQueue", {"QueueUrl": "mail"})).status == 200


async def test_a_queue_with_settings_becomes_one_of_sqs_by_an_administrator(server):
    admin = {"Authorization": "Bearer admin"}
    assert (await server.call("PATCH", "/queues/mail", {"max_attempts": 3}, admin)).status == 200
    assert code(await sign(server, "mailer", "CreateQueue", {"QueueName": "mail"})) == (403, "AccessDenied")
    assert (await sign(server, "admin", "CreateQueue", {"QueueName": "mail"})).status == 200


async def test_a_lease_belongs_to_the_token_that_received_the_message(server):
    url = {"QueueUrl": "mail"}
    for who in ("mailer", "admin"):
        assert (await sign(server, who, "CreateQueue", {"QueueName": "mail"})).status == 200
    await sign(server, "mailer", "SendMessage", {**url, "MessageBody": "x"})
    [message] = (await sign(server, "mailer", "ReceiveMessage", url)).json["Messages"]
    server.clock.advance("31s")
    server.engine.tick()
    [again] = (await sign(server, "admin", "ReceiveMessage", url)).json["Messages"]
    receipt = {**url, "ReceiptHandle": message["ReceiptHandle"]}
    assert (await sign(server, "mailer", "DeleteMessage", receipt)).json == {}  # and deletes nothing
    change = {**receipt, "VisibilityTimeout": 60}
    assert code(await sign(server, "mailer", "ChangeMessageVisibility", change)) == (
        400,
        "InvalidParameterValue",
    )
    assert server.engine.get(1).status == "in_progress"
    assert (
        await sign(server, "admin", "DeleteMessage", {**url, "ReceiptHandle": again["ReceiptHandle"]})
    ).status == 200


async def test_a_token_that_has_expired_or_was_removed_signs_no_more(server, settings):
    assert (await sign(server, "brief", "ListQueues", {})).status == 200
    server.clock.advance("61s")
    server.engine.tick()
    assert code(await sign(server, "brief", "ListQueues", {})) == (403, "MissingAuthenticationToken")
    server.dispatcher.auth.reload([])
    assert code(await sign(server, "mailer", "ListQueues", {})) == (403, "InvalidClientTokenId")


async def test_a_long_poll_ends_with_its_token(server):
    await sign(server, "mailer", "CreateQueue", {"QueueName": "mail"})
    body = b'{"QueueUrl":"mail","WaitTimeSeconds":20}'
    client = await server.connect()
    lines = signed(
        body, HOST, "mailer", SECRETS["mailer"], NOW, **{"X-Amz-Target": "AmazonSQS.ReceiveMessage"}
    )
    client.ask("POST", "/", body, lines)
    await server.waiting(1)
    server.dispatcher.auth.reload([])
    assert code(await client.read()) == (403, "MissingAuthenticationToken")


@pytest.mark.parametrize("settings", [Settings(first_id=1)])
async def test_without_access_tokens_signatures_mean_nothing(server):
    wrong = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=123456789012/20270115/eu-west-1/sqs/aws4_request, Signature=0"
    }
    await sqs(server, "CreateQueue", QueueName="mail")
    answer = await ask(server, "GetQueueUrl", wrong, QueueName="mail")
    assert answer.json == {"QueueUrl": "http://localhost/123456789012/mail"}
    check_problem(await server.post("/", {}, wrong), 405, "method_not_allowed")


@pytest.mark.parametrize("settings", [Settings(first_id=1)])
async def test_only_administrators_destroy_queues_where_there_are_no_tokens(server):
    await sqs(server, "CreateQueue", QueueName="mail")
    await sqs(server, "SetQueueAttributes", QueueUrl="mail", Attributes={"DelaySeconds": "1"})
    for action in ("PurgeQueue", "DeleteQueue", "StartMessageMoveTask"):
        answer = await ask(server, action, {"Host": "queue.example"}, QueueUrl="mail")
        assert code(answer) == (403, "AccessDenied")
    assert (await ask(server, "PurgeQueue", QueueUrl="mail")).status == 200


async def test_a_destroyed_queue_has_a_line_in_the_audit_log(server, caplog):
    caplog.set_level("INFO", "jobqueue.audit")
    await sign(server, "admin", "CreateQueue", {"QueueName": "mail"})
    await sign(server, "admin", "PurgeQueue", {"QueueUrl": "http://x/000000000000/mail"})
    [line] = [record.getMessage() for record in caplog.records if record.name == "jobqueue.audit"]
    assert "POST AmazonSQS.PurgeQueue of mail by admin" in line


def test_the_manual_clock_starts_when_these_requests_are_signed():
    assert ManualClock().wall() == 1_800_000_000_000
