"""Payloads, results and errors that are not JSON, as a request sends them.

Bytes are kept as they are. JSON that is sent as a raw body is kept like any other JSON, so a job looks the
same whichever way it came.
"""

import binascii
from base64 import b64decode

import msgspec

from jobqueue.errors import InvalidField
from jobqueue.web.http import BYTES, Request
from jobqueue.web.readers import cut
from jobqueue.web.readers.json_text import REFUSED, check_utf8, one_line, syntax_error
from jobqueue.web.schema import requests
from jobqueue.web.schema.kinds import kind_of
from jobqueue.web.schema.media_types import BINARY_RESULT, essence, is_json

# What curl sends when it was given no content type: it says nothing about the body.
_UNSPECIFIED = ("", "application/x-www-form-urlencoded")
_any = msgspec.json.Decoder(msgspec.Raw)  # numbers of any size are JSON, too
_media_type = kind_of(requests.MediaType)


def payload_of_body(request: Request, max_depth: int) -> tuple[bytes, str | None]:
    """The payload in a raw body and its media type, which is None for JSON. Raises `InvalidJson` and
    `InvalidField`."""
    sent = request.header(b"content-type")
    kind = BYTES
    if sent is not None and essence(sent) not in _UNSPECIFIED:
        kind = _media_type.check(sent.strip(), "content_type")
    return (_json(request.body, max_depth), None) if is_json(kind) else (request.body, kind)


def payload_of_field(
    payload: bytes, kind: str | None, encoding: str | None, max_depth: int
) -> tuple[bytes, str | None]:
    """The payload in a JSON body that also gives its media type `kind`, or `payload_encoding`; and its media
    type, which is None for JSON. Raises `InvalidJson` and `InvalidField`."""
    kind = BYTES if kind is None else kind
    if is_json(kind) and encoding is None:
        return payload, None
    try:
        text = "" if payload == b"null" else msgspec.json.decode(payload, type=str)
        sent = text.encode() if encoding is None else b64decode(text, validate=True)
    except msgspec.ValidationError:
        raise InvalidField(
            f"payload: must be text, since its content_type is {kind}; bytes go in base64 with "
            '"payload_encoding":"base64"',
            field="payload",
        ) from None
    except (binascii.Error, ValueError):
        raise InvalidField("payload: this is not base64", field="payload") from None
    return (_json(sent, max_depth), None) if is_json(kind) else (sent, kind)


def result_of_body(request: Request, max_depth: int, most: int) -> tuple[bytes | None, bool]:
    """The result in a raw body as it is kept, None for an empty body; and whether it was cut.

    The output of a command that is longer than `most` bytes is cut. JSON is not, since it would be none then.
    """
    body = request.body
    if not body:
        return None, False
    if is_json(request.header(b"content-type") or ""):
        return _json(body, max_depth), False
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return BINARY_RESULT + body[: most - 1], len(body) >= most
    result = msgspec.json.encode(text)
    return (result, False) if len(result) <= most else (cut.text_result(text, most), True)


def error_of_body(request: Request) -> bytes:
    """The error in a raw body as a JSON string; bytes that are not UTF-8 are replaced. Empty for an empty
    body."""
    return msgspec.json.encode(request.body.decode("utf-8", errors="replace")) if request.body else b""


def _json(body: bytes, max_depth: int) -> bytes:
    check_utf8(body)
    try:
        _any.decode(body)
    except REFUSED as bad:
        raise syntax_error(body, bad, max_depth) from None
    return one_line(body.strip(b" \t\r\n"), max_depth)
