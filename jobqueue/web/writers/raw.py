"""Raw: payloads, results and errors that are no JSON: as they are sent, kept, and shown.

Bytes go in and come out as they are; beside JSON jobs they are shown as text, or in base64. JSON sent as such
is kept as any other JSON, so a job looks the same whichever way it came.
"""

import binascii
from base64 import b64decode, b64encode
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Raw, UnsetType

from jobqueue.errors import InvalidField
from jobqueue.model import Job, Lease, Options
from jobqueue.units import instant, seconds
from jobqueue.web.http import BYTES, JSON, Request
from jobqueue.web.readers import fields
from jobqueue.web.readers.json_text import REFUSED, check_utf8, one_line, syntax_error

# What curl says when it was not told: not what the body is.
_UNTOLD = ("", "application/x-www-form-urlencoded")
# Leads a result that is neither JSON nor text; no JSON begins with it.
_NO_TEXT = b"\0"
_any = msgspec.json.Decoder()
# The headers beside a payload: nothing in it is to be run by a browser.
_SAFE = (
    b"\r\nX-Content-Type-Options: nosniff\r\nContent-Security-Policy: sandbox"
    b"\r\nContent-Disposition: attachment"
)
_VERBS = ("conclude", "heartbeat", "fail", "release")
# Left as they are in a header's value; with `%` encoded, decoding always gives the value back.
_IN_HEADER = "".join(chr(code) for code in range(33, 127) if chr(code) != "%") + " "


# -- in ---------------------------------------------------------------------------------------------


def payload_of_body(request: Request, max_depth: int) -> tuple[bytes, str | None]:
    """The payload that a raw body is, and its type; None: it is JSON. `InvalidJson`, `InvalidField`."""
    said = request.header(b"content-type")
    kind = BYTES if said is None or _essence(said) in _UNTOLD else fields.media_type(said.strip())
    return (_json(request.body, max_depth), None) if _is_json(kind) else (request.body, kind)


def payload_of_field(
    payload: bytes, kind: str | None, encoding: str | None, max_depth: int
) -> tuple[bytes, str | None]:
    """The same of a payload in JSON, beside which a type or an encoding stands."""
    kind = BYTES if kind is None else fields.media_type(kind)
    if _is_json(kind) and encoding is None:
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
    return (_json(sent, max_depth), None) if _is_json(kind) else (sent, kind)


def result_of_body(request: Request, max_depth: int) -> bytes | None:
    """The result that a raw body is, as it is kept; None where there is no body."""
    body = request.body
    if not body:
        return None
    if _is_json(request.header(b"content-type") or ""):
        return _json(body, max_depth)
    try:
        return msgspec.json.encode(body.decode("utf-8"))
    except UnicodeDecodeError:
        return _NO_TEXT + body


def error_of_body(request: Request) -> bytes:
    """The error that a raw body is, as JSON; what is no UTF-8 in it is replaced."""
    return msgspec.json.encode(request.body.decode("utf-8", errors="replace")) if request.body else b""


def _json(body: bytes, max_depth: int) -> bytes:
    check_utf8(body)
    try:
        _any.decode(body)
    except REFUSED as bad:
        raise syntax_error(body, bad, max_depth) from None
    return one_line(body.strip(b" \t\r\n"), max_depth)


def _essence(kind: str) -> str:
    return kind.partition(";")[0].strip().lower()


def _is_json(kind: str) -> bool:
    return _essence(kind) == JSON


# -- out --------------------------------------------------------------------------------------------


def type_of(job: Job) -> str | None:
    """Of its payload; None: JSON."""
    options: Options | None = job.extras.options if job.extras is not None else None
    return options.content_type if options is not None else None


def shown_payload(job: Job) -> tuple[str | UnsetType, str | UnsetType, Raw]:
    """Type and encoding of a payload, where it has them, and the payload as JSON."""
    kind = type_of(job)
    if kind is None:
        return UNSET, UNSET, Raw(job.payload)
    if _essence(kind).startswith("text/"):
        try:
            return kind, UNSET, Raw(msgspec.json.encode(job.payload.decode("utf-8")))
        except UnicodeDecodeError:
            pass
    return kind, "base64", Raw(msgspec.json.encode(b64encode(job.payload).decode("ascii")))


def shown_result(result: bytes) -> tuple[str | UnsetType, Raw]:
    """Encoding of a result, where it has one, and the result as JSON."""
    if result[:1] != _NO_TEXT:
        return UNSET, Raw(result)
    return "base64", Raw(msgspec.json.encode(b64encode(result[1:]).decode("ascii")))


def delivery_headers(job: Job, lease: Lease, expires_at: int) -> bytes:
    """Returns the header lines of a delivery whose body is the payload.

    `expires_at` is the end of the lease in milliseconds since 1970.
    """
    fields_of_job = {
        "Job-Id": job.id, "Job-Queue": job.queue, "Job-Type": job.type, "Job-Priority": job.priority,
        "Job-Attempts": job.attempts, "Job-Lease": lease.token, "Job-Lease-For": seconds(lease.length),
        "Job-Lease-Expires-At": instant(expires_at),
    }  # fmt: skip
    links = ", ".join(f'</jobs/{job.id}/{verb}?lease={lease.token}>; rel="{verb}"' for verb in _VERBS)
    lines = "".join(
        f"\r\n{name}: {quote(str(value), safe=_IN_HEADER)}" for name, value in fields_of_job.items()
    )
    return f'{lines}\r\nLink: {links}\r\nETag: "{job.version}"'.encode("ascii") + _SAFE
