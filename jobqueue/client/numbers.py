"""Numbers of JSON that no float holds, such as 1e999. JSON allows them, and so does the server; the decoder
does not."""

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

T = TypeVar("T")
_LARGEST = b"1.7976931348623157e308"
# A string, which is left alone, or a number that may be too large.
_TOKENS = re.compile(
    rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?[eE]\+?\d{3,}|-?\d{300,}(?:\.\d+)?(?:[eE][+-]?\d+)?', re.DOTALL
)


def clamped(decode: Callable[[bytes], T], text: bytes) -> T:
    """Returns what `decode` makes of JSON, in which a number that no float holds becomes the largest float.
    Raises what `decode` raises."""
    try:
        return decode(text)
    except msgspec.ValidationError:
        held = _TOKENS.sub(_held, text)
        if held == text:
            raise
    return decode(held)


def _held(found: re.Match[bytes]) -> bytes:
    token = found[0]
    if token.startswith(b'"') or abs(float(token)) != float("inf"):
        return token
    return b"-" + _LARGEST if token.startswith(b"-") else _LARGEST
