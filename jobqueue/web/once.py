"""Once: a request under an `Idempotency-Key`, and what the same request made before."""

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from jobqueue.engine.api import Remembered
from jobqueue.web.http import Request
from jobqueue.web.parsing.fields import label

if TYPE_CHECKING:
    from jobqueue.web.api import Api


class Before(NamedTuple):
    """`digest`: of all that was sent; `known`: what it made then; None: it is new."""

    key: str
    digest: bytes
    known: Remembered | None


def look_up(api: "Api", request: Request, sent: bytes) -> Before:
    """`sent`: the key. Raises `IdempotencyMismatch`."""
    key = label(sent.decode("latin-1"), "Idempotency-Key", 255)
    digest = blake2b(request.query.encode() + b"\n" + request.body, digest_size=16).digest()
    return Before(key, digest, api.engine.recall("", key, digest))
