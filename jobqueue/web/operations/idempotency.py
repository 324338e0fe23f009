"""Requests under an `Idempotency-Key`, and the answers that they had before."""

from hashlib import blake2b
from typing import NamedTuple

from jobqueue.model import PriorAnswer
from jobqueue.web.context import Context
from jobqueue.web.http import Request
from jobqueue.web.schema.kinds import text

_KEY = text(255)


class KeyedRequest(NamedTuple):
    """A request with its key.

    `digest` covers the query and the body. `known` is what the same request made before; None: it is new.
    """

    key: str
    digest: bytes
    known: PriorAnswer | None


def look_up(context: Context, request: Request, sent: bytes) -> KeyedRequest:
    """Returns the request under the key `sent`. Raises `IdempotencyMismatch`."""
    key = _KEY.check(sent.decode("latin-1"), "Idempotency-Key")
    digest = blake2b(request.query.encode() + b"\n" + request.body, digest_size=16).digest()
    return KeyedRequest(key, digest, context.engine.find_prior_answer("", key, digest))
