"""The names that clients see: URLs and ARNs of queues, ids of messages, receipt handles.

All of them are made from what the engine knows, so none is stored, and they stay valid over a restart.
"""

import re
from typing import Final

from jobqueue.web.sqs.errors import INVALID_PARAMETER, RECEIPT_HANDLE_IS_INVALID, SqsError

ACCOUNT: Final = "000000000000"
REGION: Final = "us-east-1"
_ACCOUNT: Final = re.compile(r"\d{12}")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+=*")
_ARN: Final = re.compile(r"arn:[a-z-]+:sqs:[a-z0-9-]*:[A-Za-z0-9]*:([A-Za-z0-9_-]{1,80}(?:\.fifo)?)")
# The fraction of the golden ratio: it spreads ids that follow each other.
_GOLDEN: Final = 0x4F1BBCDD  # of 31 bits: the product of both has 61, as many as fast numbers have
_LOW: Final = (1 << 30) - 1


def is_fifo(name: str) -> bool:
    return name.endswith(".fifo")


def check_name(name: str, fifo: bool) -> None:
    """Raises `SqsError` unless a queue may have this name. `fifo`: its attributes say that it is one."""
    if fifo and not is_fifo(name):
        raise SqsError(
            INVALID_PARAMETER,
            "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, "
            "must end with .fifo suffix and be 1 to 80 in length",
        )
    if len(name) > 80 or fifo != is_fifo(name) or not _NAME.fullmatch(name.removesuffix(".fifo")):
        raise SqsError(
            INVALID_PARAMETER,
            "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length",
        )


def queue_path(account: str, name: str) -> str:
    return f"/{account}/{name}"


def queue_of_path(path: str) -> tuple[str, str] | None:
    """Returns account and name of the queue at the end of the path of a URL; None: there is none."""
    parts = path.rstrip("/").split("/")
    if len(parts) < 3 or not _ACCOUNT.fullmatch(parts[-2]) or not parts[-1]:
        return None
    return parts[-2], parts[-1]


def queue_of_url(url: str) -> tuple[str | None, str]:
    """Returns account and name of the queue of a URL. Any host is good, and so is a bare name, which has no
    account."""
    path = url.partition("://")[2].partition("/")[2] if "://" in url else url
    return queue_of_path("/" + path) or (None, path.rstrip("/").rpartition("/")[2])


def queue_arn(region: str, account: str, name: str) -> str:
    return f"arn:aws:sqs:{region}:{account}:{name}"


def queue_of_arn(arn: str) -> str | None:
    """Returns the name of the queue of an ARN of any region and account; None: it is malformed."""
    found = _ARN.fullmatch(arn)
    return found[1] if found is not None else None


def message_id(id: int) -> str:
    """Returns a UUID that holds the id of a job in its last 60 bits. The bits before are made of it, too."""
    first = ((id & _LOW) * _GOLDEN).to_bytes(8).hex()
    last = id.to_bytes(8).hex()  # its first digit is 0
    return f"{first[:8]}-{first[8:12]}-4{first[13:]}-8{last[1:4]}-{last[4:]}"


class Receipt:
    """What a receipt handle holds: the id of a job, and the token of its lease."""

    __slots__ = ("id", "lease")

    def __init__(self, id: int, lease: str) -> None:
        self.id = id
        self.lease = lease


def receipt_handle(id: int, lease: str, queue: str) -> str:
    return f"{id}.{lease}.{queue}"


def read_receipt_handle(handle: str, queue: str, in_batch: bool) -> Receipt:
    """Returns what is in a handle. Raises `SqsError` if it is malformed or of another queue."""
    id, _, rest = handle.partition(".")
    lease, _, of = rest.partition(".")
    good = bool(of) and id.isascii() and id.isdigit() and len(id) <= 16
    if good and of == queue:
        return Receipt(int(id), lease)
    shown = handle[:1024]
    if good:
        reason = f'The receipt handle "{shown}" is not valid for this queue.'
    elif in_batch or _BASE64.fullmatch(handle):
        reason = f'The input receipt handle "{shown}" is not a valid receipt handle.'
    else:  # AWS, whose handles are base64, has another text for what cannot be one, but not in batches
        reason = "The input receipt handle is invalid."
    raise SqsError(RECEIPT_HANDLE_IS_INVALID, reason)
