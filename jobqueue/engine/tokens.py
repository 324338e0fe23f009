"""Lease tokens: 96 random bits each, sixteen characters of `[A-Za-z0-9_-]`."""

import os
from base64 import urlsafe_b64encode

_BYTES = 12
_CHARS = 16
_AT_ONCE = 512


class Tokens:
    """Calling it gives a token. The system is asked for randomness once for many of them."""

    __slots__ = ("_stock",)

    def __init__(self) -> None:
        self._stock: list[str] = []

    def __call__(self) -> str:
        if not self._stock:
            text = urlsafe_b64encode(os.urandom(_BYTES * _AT_ONCE)).decode("ascii")
            self._stock = [text[i : i + _CHARS] for i in range(0, len(text), _CHARS)]
        return self._stock.pop()
