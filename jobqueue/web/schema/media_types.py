"""Media types of payloads, and how a result that is not text is kept."""

from typing import Final

from jobqueue.web.http import JSON

# The first byte of a kept result that is neither JSON nor text. No JSON begins with it.
BINARY_RESULT: Final = b"\0"


def essence(media_type: str) -> str:
    """`type/subtype` in lower case, without parameters."""
    return media_type.partition(";")[0].strip().lower()


def is_json(media_type: str) -> bool:
    return essence(media_type) == JSON
