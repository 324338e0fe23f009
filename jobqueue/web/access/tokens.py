"""The file of access tokens, and how a token is made.

[mailer]                                # the name: it stands in the log, and owns its leases and keys
digest = "9f86d081884c7d65…"            # SHA-256 of the token, in hex
rights = ["enqueue", "read"]            # of enqueue, dequeue, read, admin; admin includes the others
queues = ["mail", "thumbs-*"]           # default: all
expires_at = 2027-01-01T00:00:00Z       # default: never
sqs_secret = "kY3…"                     # what AWS SDKs sign with, under this name; default: they may not call
"""

import re
import tomllib
from collections.abc import Set
from datetime import datetime
from fnmatch import fnmatchcase
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any, Final

from msgspec import Struct

from jobqueue.errors import SettingError

RIGHTS: Final = ("enqueue", "dequeue", "read", "admin")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
# As a queue's name, with * and ? in it.
_PATTERN = re.compile(r"[A-Za-z0-9_.:*?-]{1,128}")
_SECRET = re.compile(r"[!-~]{16,512}")
_KNOWN = frozenset({"digest", "rights", "queues", "expires_at", "sqs_secret"})


class Token(Struct, frozen=True):
    """`queues`: patterns with * and ?; None: all. `expires_at`: wall-clock milliseconds. `sqs_secret`: what
    its holder signs requests of AWS SDKs with. It is no digest, since a signature is checked by making it
    again."""

    name: str
    digest: bytes
    rights: tuple[str, ...]
    queues: tuple[str, ...] | None = None
    expires_at: int | None = None
    sqs_secret: str | None = None

    def matches(self, queue: str) -> bool:
        return self.queues is None or any(fnmatchcase(queue, pattern) for pattern in self.queues)


def make_token() -> str:
    """Returns a new token of 256 random bits. Scanners for published secrets recognise its prefix."""
    return f"jq_{token_urlsafe(32)}"


def make_sqs_secret() -> str:
    """Returns a new secret of 240 random bits, of as many characters as one of AWS."""
    return token_urlsafe(30)


def digest_of(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def read_tokens(path: str, reserved: Set[str] = frozenset()) -> list[Token]:
    """Returns all tokens of the file. Raises `SettingError`, which tells what is wrong with it."""
    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as bad:
        said = bad.strerror if isinstance(bad, OSError) else str(bad)
        said = re.sub(r"Cannot declare \('(.*)',\) twice", r"[\1] is there twice", said or "")
        raise SettingError(f"JOBQUEUE_TOKENS_FILE={path}: {said}") from None
    tokens: dict[bytes, Token] = {}
    for name, table in tables.items():
        try:
            token = token_of(name, table, reserved)
            if token.digest in tokens:
                raise ValueError(f"it has the digest of {tokens[token.digest].name}")
        except ValueError as bad:
            raise SettingError(f"JOBQUEUE_TOKENS_FILE={path}: [{name}]: {bad}") from None
        tokens[token.digest] = token
    return list(tokens.values())


def token_of(name: str, table: Any, reserved: Set[str]) -> Token:
    """Returns one token of the file. Raises `ValueError`, which tells a person what is wrong with it."""
    if not isinstance(table, dict):
        raise ValueError(f"must be a table: [{name}], then digest = …")
    if not _NAME.fullmatch(name) or name in reserved:
        raise ValueError("a name is 1 to 64 of A-Z a-z 0-9 . _ -, and none that is taken")
    if unknown := table.keys() - _KNOWN:
        raise ValueError(f"unknown {min(unknown)}; known here: {', '.join(sorted(_KNOWN))}")
    digest, expires = table.get("digest"), table.get("expires_at")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError("digest must be the SHA-256 of the token, 64 digits of lower-case hex")
    if expires is not None and (not isinstance(expires, datetime) or expires.tzinfo is None):
        raise ValueError("expires_at must be an instant with an offset, such as 2027-01-01T00:00:00Z")
    secret = table.get("sqs_secret")
    if secret is not None and (not isinstance(secret, str) or not _SECRET.fullmatch(secret)):
        raise ValueError(
            "sqs_secret must be 16 to 512 printable characters without spaces; `jobqueue token --sqs` makes "
            "one"
        )
    return Token(
        name,
        bytes.fromhex(digest),
        _texts(table.get("rights"), "rights", lambda right: right in RIGHTS, f"of {', '.join(RIGHTS)}"),
        _texts(table["queues"], "queues", _PATTERN.fullmatch, "of names of queues, with * and ?")
        if "queues" in table
        else None,
        int(expires.timestamp() * 1000) if expires is not None else None,
        secret,
    )


def _texts(value: object, field: str, good: Any, expected: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and good(v) for v in value):
        raise ValueError(f"{field} must be a list {expected}")
    return tuple(value)
