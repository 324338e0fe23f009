"""Once: a request under an `Idempotency-Key`, and what the same request made before."""

from hashlib import blake2b
from typing import NamedTuple

from jobqueue.model import PriorAnswer
from jobqueue.web.context import Context
from jobqueue.web.http import Request
from jobqueue.web.readers.fields import label


class KeyedRequest(NamedTuple):
    """`digest`: of all that was sent; `known`: what it made then; None: it is new."""

    key: str
    digest: bytes
    known: PriorAnswer | None


def look_up(context: Context, request: Request, sent: bytes) -> KeyedRequest:
    """`sent`: the key. Raises `IdempotencyMismatch`."""
    key = label(sent.decode("latin-1"), "Idempotency-Key", 255)
    digest = blake2b(request.query.encode() + b"\n" + request.body, digest_size=16).digest()
    return KeyedRequest(key, digest, context.engine.find_prior_answer("", key, digest))
