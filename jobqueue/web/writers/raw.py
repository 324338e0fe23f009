"""Payloads and results that are not JSON, as answers show them: beside JSON jobs as text or in base64, and as
the body of a raw dequeue."""

from base64 import b64encode
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Raw, UnsetType

from jobqueue.model import Delivery, Job
from jobqueue.units import instant, seconds
from jobqueue.web.schema.media_types import BINARY_RESULT, essence

# Headers that keep a browser from running a payload.
_SAFE = (
    b"\r\nX-Content-Type-Options: nosniff\r\nContent-Security-Policy: sandbox"
    b"\r\nContent-Disposition: attachment"
)
_VERBS = ("conclude", "heartbeat", "fail", "release")
# Characters that stand in a header's value as they are. `%` is encoded, so decoding gives the value back.
_IN_HEADER = "".join(chr(code) for code in range(33, 127) if chr(code) != "%") + " "


def content_type(job: Job) -> str | None:
    """The media type of a job's payload; None for JSON."""
    options = job.extras.options if job.extras is not None else None
    return options.content_type if options is not None else None


def shown_payload(job: Job, longest: int) -> tuple[str | UnsetType, str | UnsetType, Raw]:
    """`content_type`, `payload_encoding` and `payload` of a job, as JSON shows them.

    A text that takes more than `longest` bytes in JSON is shown in base64: a character that is escaped takes
    up to six bytes, and a request that enqueues the job again would be too large.
    """
    kind = content_type(job)
    if kind is None:
        return UNSET, UNSET, Raw(job.payload)
    if essence(kind).startswith("text/"):
        try:
            text = msgspec.json.encode(job.payload.decode("utf-8"))
        except UnicodeDecodeError:
            pass
        else:
            if len(text) <= longest:
                return kind, UNSET, Raw(text)
    return kind, "base64", Raw(msgspec.json.encode(b64encode(job.payload).decode("ascii")))


def shown_result(result: bytes) -> tuple[str | UnsetType, Raw]:
    """`result_encoding` and `result`, as JSON shows them."""
    if result[:1] != BINARY_RESULT:
        return UNSET, Raw(result)
    return "base64", Raw(msgspec.json.encode(b64encode(result[1:]).decode("ascii")))


def delivery_headers(delivery: Delivery, expires_at: int) -> bytes:
    """The headers of a raw dequeue: the fields of the job, links to the calls that take its lease, and its
    ETag. `expires_at`: when the lease ends, wall-clock milliseconds."""
    job, lease = delivery
    shown = {
        "Job-Id": job.id, "Job-Queue": job.queue, "Job-Type": job.type, "Job-Priority": job.priority,
        "Job-Attempts": job.attempts, "Job-Lease": lease.token, "Job-Lease-For": seconds(lease.length),
        "Job-Lease-Expires-At": instant(expires_at),
    }  # fmt: skip
    links = ", ".join(f'</jobs/{job.id}/{verb}?lease={lease.token}>; rel="{verb}"' for verb in _VERBS)
    lines = "".join(f"\r\n{name}: {quote(str(value), safe=_IN_HEADER)}" for name, value in shown.items())
    return f'{lines}\r\nLink: {links}\r\nETag: "{job.version}"'.encode("ascii") + _SAFE
