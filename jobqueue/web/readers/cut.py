"""Cuts texts that are too long where a refusal does more harm: a lease is lost, or work is done twice."""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

MAX_ERROR: Final = 16 << 10
_MAX_TYPE: Final = 256
_NULL = b"null"
_encode = msgspec.json.Encoder().encode


class _Error(Struct):
    """An error that was checked. Its details stay as they came: any JSON, with numbers of any size."""

    type: str | None = None
    message: str | None = None
    details: Raw = Raw(_NULL)


_decode = msgspec.json.Decoder(str | _Error).decode


def error(json: bytes) -> tuple[bytes, bool]:
    """Returns the JSON of an error in at most `MAX_ERROR` bytes, and whether it was cut.

    Its beginning and its end are kept, since the end of a traceback says most.
    """
    if len(json) <= MAX_ERROR:
        return json, False
    decoded = _decode(json)
    if isinstance(decoded, str):
        return _text(decoded, MAX_ERROR), True
    left = MAX_ERROR - 64  # for the names of its fields
    kept: dict[str, Raw] = {}
    if decoded.type is not None:
        kept["type"] = Raw(_text(decoded.type, _MAX_TYPE))
        left -= _MAX_TYPE
    details = bytes(decoded.details)
    if decoded.message is not None:
        kept["message"] = Raw(_text(decoded.message, left if details == _NULL else left // 3))
        left -= len(bytes(kept["message"]))
    if details != _NULL:
        if len(details) > left:
            text = msgspec.json.decode(details, type=str) if details[:1] == b'"' else details.decode()
            details = _text(text, left)
        kept["details"] = Raw(details)
    return _encode(kept), True


def text_result(text: str, most: int) -> bytes:
    """Returns the beginning of a text, and that it was cut, as a JSON string of at most `most` bytes."""
    mark = f"… (cut; it had {len(text.encode()):,} bytes)"
    return _within(text, most, lambda size: text[:size] + mark)


def _text(text: str, most: int) -> bytes:
    """Returns a text as a JSON string of at most `most` bytes: its beginning and its end."""
    whole = _encode(text)
    if len(whole) <= most:
        return whole

    def shorter(size: int) -> str:
        head = size // 3
        return (
            f"{text[:head]}… ({len(text) - size:,} characters left out) …{text[len(text) - (size - head) :]}"
        )

    return _within(text, most, shorter)


def _within(text: str, most: int, shorter: Any) -> bytes:
    """Returns `shorter(size)` as JSON in at most `most` bytes, for a `size` close to the largest possible."""
    size = min(len(text), most)
    while True:
        found = _encode(shorter(size))
        if len(found) <= most or size == 0:
            return found
        # Escapes and letters beyond ASCII take more than a byte for each character.
        size = min(size - 1, size * most // len(found))
