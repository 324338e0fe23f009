"""Calls of the SQS door by both protocols, without an SDK."""

from hashlib import sha256
from hmac import new as hmac
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

from http_client import Answer
from serving import Server

SPACE = "{http://queue.amazonaws.com/doc/2012-11-05/}"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def ask(server: Server, action: str, headers: dict[str, str] | None = None, /, **asked: Any) -> Answer:
    """Makes a call of the JSON protocol."""
    sent = {"X-Amz-Target": f"AmazonSQS.{action}", "Content-Type": "application/x-amz-json-1.0"}
    return await server.post("/", asked, sent | (headers or {}))


async def sqs(server: Server, action: str, /, **asked: Any) -> Any:
    """Makes a call of the JSON protocol that succeeds, and returns its result."""
    answer = await ask(server, action, **asked)
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/x-amz-json-1.0"
    assert answer.headers["x-amzn-requestid"] == answer.headers["x-request-id"]
    return answer.json


async def refused(server: Server, action: str, /, **asked: Any) -> tuple[int, str, str]:
    """Makes a call of the JSON protocol that is refused. Returns the status, the code and the message."""
    answer = await ask(server, action, **asked)
    assert answer.status != 200, answer
    code, _, fault = answer.headers["x-amzn-query-error"].partition(";")
    assert fault == ("Receiver" if answer.status >= 500 else "Sender")
    assert list(answer.json) == ["__type", "message"]
    return answer.status, code, answer.json["message"]


async def query(server: Server, action: str, path: str = "/", **asked: str) -> ElementTree.Element:
    """Makes a call of the query protocol that succeeds, and returns its result. Two underscores are a dot."""
    fields = {name.replace("__", "."): value for name, value in asked.items()}
    answer = await server.post(path, urlencode({"Action": action, **fields}).encode(), FORM)
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "text/xml"
    document = ElementTree.fromstring(answer.body)
    assert document.tag == f"{SPACE}{action}Response"
    assert document.findtext(f"{SPACE}ResponseMetadata/{SPACE}RequestId") == answer.headers["x-request-id"]
    found = document.find(f"{SPACE}{action}Result")
    return document if found is None else found


async def create(server: Server, name: str = "mail", /, **attributes: str) -> str:
    """Creates a queue, and returns its URL."""
    made = await sqs(server, "CreateQueue", QueueName=name, Attributes=attributes)
    url: str = made["QueueUrl"]
    return url


async def receive(server: Server, url: str, /, **asked: Any) -> list[Any]:
    found = await sqs(server, "ReceiveMessage", QueueUrl=url, **asked)
    messages: list[Any] = found.get("Messages", [])
    return messages


def signed(
    body: bytes, host: str, key_id: str, secret: str, date: str, path: str = "/", **headers: str
) -> dict[str, str]:
    """Returns the headers of a POST that is signed with Signature Version 4, in the words of its description."""
    sent = {"host": host, "x-amz-date": date} | {name.lower(): value for name, value in headers.items()}
    names = ";".join(sorted(sent))
    lines = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent))
    canonical = f"POST\n{path}\n\n{lines}\n{names}\n{sha256(body).hexdigest()}"
    scope = f"{date[:8]}/eu-central-1/sqs/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in (date[:8], "eu-central-1", "sqs", "aws4_request", text):
        key = hmac(key, part.encode(), sha256).digest()
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    )
    return {"Host": host, "X-Amz-Date": date, **headers, "Authorization": authorization}
