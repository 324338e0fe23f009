"""The error of a failed job as it is stored: JSON on one line, a string or an object."""

from typing import Final

import msgspec

from jobqueue.errors import BadInput, InvalidField
from jobqueue.web.readers import cut
from jobqueue.web.readers.decoder import RequestDecoder
from jobqueue.web.readers.json_text import REFUSED, one_line
from jobqueue.web.schema import requests

_decoder: Final = RequestDecoder(requests.ErrorShape, nulls=frozenset({"details"}))


def job_error(text: bytes, max_depth: int) -> tuple[bytes, bool]:
    """Checks the JSON `text` of an error. Returns it, and whether it was cut for being too long.

    Raises `InvalidField`, `UnknownField` or `InvalidJson`.
    """
    error = one_line(text, max_depth)
    if error[:1] == b"{":
        try:
            _decoder.decode(error)
        except REFUSED:
            error = _rewritten(error, max_depth)
    elif error[:1] != b'"':
        raise InvalidField("error: text, or an object with type, message, details", field="error")
    return cut.error(error)


def optional_error(text: bytes, max_depth: int) -> tuple[bytes | None, bool]:
    """`job_error`, or None where `text` is empty or `null`."""
    return job_error(text, max_depth) if text not in (b"", b"null") else (None, False)


def _rewritten(error: bytes, max_depth: int) -> bytes:
    """Returns an error with its names in the right letter case. Raises what is wrong with it."""
    try:
        decoded = _decoder.merge(error, {}, max_depth)
    except BadInput as bad:
        bad.detail = f"error: {bad.detail}"
        raise
    given = {name: getattr(decoded, name) for name in decoded.__struct_fields__}
    return msgspec.json.encode(
        {name: value for name, value in given.items() if value != requests.NULL and value is not None}
    )
