"""Attributes of messages: their checks, their size, and the MD5 that SDKs compare."""

import re
from collections.abc import Mapping
from hashlib import md5
from typing import Final, TypeAlias

from jobqueue.web.sqs.errors import INVALID_MESSAGE_CONTENTS, INVALID_PARAMETER, SqsError, missing
from jobqueue.web.sqs.shapes import MessageAttribute

# The characters that XML can hold, as the reference of SendMessage lists them.
_INVALID: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CONTROLS: Final = bytes(set(range(32)) - set(b"\t\n\r"))
CHARACTERS: Final = (
    "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to "
    "#xFFFD | #x10000 to #x10FFFF"
)
_MOST: Final = 10
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]*")
_EVERY: Final = frozenset({"All", "*", ".*"})
_RESERVED: Final = ("aws.", "amazon.", ".")
_TYPES: Final = ("String", "Number", "Binary")
_TRACE: Final = "AWSTraceHeader"
_EMPTY: Final = md5(usedforsecurity=False)  # to copy it takes half the time that a new one does


Attributes: TypeAlias = Mapping[str, MessageAttribute]


def check_body(body: str) -> None:
    if not body:
        raise missing("MessageBody")
    if not is_text(body):
        raise SqsError(INVALID_MESSAGE_CONTENTS, CHARACTERS)


def is_text(text: str) -> bool:
    """Tells whether a message can have this text."""
    if text.isascii():
        plain = text.encode()
        return len(plain.translate(None, _CONTROLS)) == len(plain)
    return _INVALID.search(text) is None


def check(attributes: Attributes) -> None:
    """Raises `SqsError` for attributes that a message may not have."""
    if len(attributes) > _MOST:
        raise _invalid(f"Number of message attributes [{len(attributes)}] exceeds the allowed maximum [10].")
    for name, attribute in attributes.items():
        _check_name(name)
        _check_value(name, attribute)


def _check_name(name: str) -> None:
    if not name:
        raise _invalid("The message attribute name must not be empty.")
    if len(name.encode()) > 256:
        raise _invalid("Message (user) attribute names must be shorter than 256 Bytes")
    if not _NAME.fullmatch(name):
        raise _invalid(
            "Message (user) attributes name can only contain upper and lower score characters, digits, "
            "periods, hyphens and underscores. "
        )
    if name.lower().startswith(_RESERVED) or name.endswith(".") or ".." in name:
        raise _invalid(
            "You can't use message attribute names beginning with 'AWS.' or 'Amazon.'. These strings are "
            "reserved for internal use. Additionally, they cannot start or end with '.'."
        )


def _check_value(name: str, attribute: MessageAttribute) -> None:
    kind = attribute.data_type
    if not kind:
        raise _invalid(f"The message attribute '{name}' must contain a non-empty message attribute type.")
    if len(kind.encode()) > 256:
        raise _invalid("Message (user) attribute types must be shorter than 256 Bytes")
    if not is_text(kind):
        raise _invalid(CHARACTERS)
    base = kind.partition(".")[0]
    if base not in _TYPES:
        raise _invalid(
            f"The message attribute '{name}' has an invalid message attribute type, the set of supported "
            "type prefixes is Binary, Number, and String."
        )
    if base == "Binary":
        if not attribute.binary_value:
            raise _invalid(
                f"The message attribute '{name}' must contain a non-empty message attribute value for "
                f"message attribute type '{kind}'."
            )
        return
    value = attribute.string_value
    if not value:
        raise _invalid(f"Message (user) attribute '{name}' must contain a non-empty value of type '{kind}'.")
    if not is_text(value):
        raise _invalid(CHARACTERS)
    if base == "Number":
        _check_number(name, value)


def _check_number(name: str, value: str) -> None:
    try:
        float(value)
    except ValueError:
        raise _invalid(f"Can't cast the value of message (user) attribute '{name}' to a number.") from None


def trace_of(system: Attributes) -> str | None:
    """Returns the only attribute that a client may set of the system's."""
    for name in system:
        if name != _TRACE:
            raise _invalid(
                f"Message system attribute name '{name[:100]}' is invalid. Valid names are: AWSTraceHeader"
            )
    trace = system.get(_TRACE)
    if trace is None:
        return None
    if trace.data_type != "String" or not trace.string_value:
        raise _invalid(
            "The message system attribute 'AWSTraceHeader' must contain a non-empty value of type 'String'."
        )
    if not is_text(trace.string_value):
        raise _invalid(CHARACTERS)
    return trace.string_value


def size(attributes: Attributes) -> int:
    """Returns the bytes that count towards the size of a message: names, types and values."""
    return sum(
        len(name.encode())
        + len((attribute.data_type or "").encode())
        + len((attribute.string_value or "").encode())
        + len(attribute.binary_value or b"")
        for name, attribute in attributes.items()
    )


def md5_of(data: bytes) -> str:
    whole = _EMPTY.copy()
    whole.update(data)
    return whole.hexdigest()


def digest(attributes: Attributes) -> str:
    """Returns the MD5 of attributes: for each, in the order of names, its name, its type, 1 for text or 2 for
    bytes, and its value. Each but the digit comes after its length in four bytes."""
    whole = _EMPTY.copy()
    for name in sorted(attributes):
        attribute = attributes[name]
        kind = attribute.data_type or ""
        _add(whole, name.encode())
        _add(whole, kind.encode())
        if kind.startswith("Binary"):
            whole.update(b"\x02")
            _add(whole, attribute.binary_value or b"")
        else:
            whole.update(b"\x01")
            _add(whole, (attribute.string_value or "").encode())
    return whole.hexdigest()


def _add(whole: "md5", value: bytes) -> None:  # type: ignore[valid-type]  # typeshed has a function there
    whole.update(len(value).to_bytes(4) + value)  # type: ignore[attr-defined]


def chosen(attributes: Attributes, names: frozenset[str]) -> dict[str, MessageAttribute]:
    """Returns those that a receive asks for: by name, by a prefix such as `order.*`, or all."""
    if not _EVERY.isdisjoint(names):
        return dict(attributes)
    return {name: attribute for name, attribute in attributes.items() if _matches(name, names)}


def _matches(name: str, wanted: frozenset[str]) -> bool:
    """Looks up each prefix of the name: a request may have very many names."""
    return name in wanted or any(f"{name[:length]}.*" in wanted for length in range(len(name) + 1))


def _invalid(message: str) -> SqsError:
    return SqsError(INVALID_PARAMETER, message)
