"""Lease tokens: 96 random bits each, sixteen characters of `[A-Za-z0-9_-]`.

Those that begin with `-` are left out, since they would be taken for an option on a command line.
"""

import os
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Final

_BYTES: Final = 12
_CHARS: Final = 16
_BATCH: Final = 512


def tokens() -> Iterator[str]:
    """Yields tokens without end. One system call provides the randomness of a batch."""
    while True:
        text = urlsafe_b64encode(os.urandom(_BYTES * _BATCH)).decode("ascii")
        for start in range(0, len(text), _CHARS):
            if text[start] != "-":
                yield text[start : start + _CHARS]
