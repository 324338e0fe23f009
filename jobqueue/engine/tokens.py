"""Lease tokens: 96 random bits each, sixteen characters of `[A-Za-z0-9_-]`."""

import os
from base64 import urlsafe_b64encode
from collections.abc import Iterator

_BYTES = 12
_CHARS = 16
_AT_ONCE = 512


def tokens() -> Iterator[str]:
    """Without end. The system is asked for randomness once for many of them."""
    while True:
        text = urlsafe_b64encode(os.urandom(_BYTES * _AT_ONCE)).decode("ascii")
        for start in range(0, len(text), _CHARS):
            yield text[start : start + _CHARS]
